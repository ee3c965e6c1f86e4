"""The options that several commands share, and what they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

GalleryOption = Annotated[Path, typer.Option("--gallery", help="Folder of the gallery.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WaitOption = Annotated[float, typer.Option(min=0, help="Seconds to wait for another writer.")]
PoolingOption = Annotated[str | None, typer.Option(help="cls, mean, cls+mean, gem or mean+early.")]
RuntimeOption = Annotated[str, typer.Option(help="auto, openvino or torch.")]
PrecisionOption = Annotated[str | None, typer.Option(help="fp32 or bf16; the faster one by itself.")]
EncoderOption = Annotated[
    str | None,
    typer.Option(help="Name (see `modiste encoders`) or folder. Default: the gallery's, or dinov2-small."),
]
VariantOption = Annotated[str, typer.Option(help="How it is searched: auto, exact, hnsw or ivf.")]
PruneOption = Annotated[bool, typer.Option("--prune", help="Remove items that are not in the catalog.")]
NewTargetOption = Annotated[bool, typer.Option("--new-target", help="Allow a target that no item has yet.")]
FontOption = Annotated[Path | None, typer.Option("--font", help="TrueType font of the sheet, for labels beyond Latin.")]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="folder, csv, parquet, jsonl, kaggle, dresses, deepfashion, fashion-mnist or shards; found by itself "
        "where the catalog shows it.",
    ),
]
MapOption = Annotated[
    str | None,
    typer.Option("--map", help="Columns of a table: item_id=sku,image=file,product_id=style,labels=colour|type."),
]


def encoder_for(gallery: Path, encoder: str | None, pooling: str | None, runtime: str, precision: str | None) -> Any:
    """The encoder asked for; where nothing is asked, an existing gallery's own."""
    from indexer.encoders import DEFAULT, prepare_encoder
    from indexer.store import Store

    if (gallery / "items.lance").is_dir():
        card = Store(gallery).card
        encoder = encoder or card.name
        # What is left open follows the gallery; what is asked for otherwise is refused by the pipeline.
        pooling = pooling or card.pooling
        precision = precision or card.precision
        runtime = card.runtime if runtime == "auto" else runtime
    return prepare_encoder(encoder or DEFAULT, pooling=pooling, runtime=runtime, precision=precision)


def check_variant(variant: str) -> None:
    """Refuses a --variant that is none.

    Raises:
        typer.BadParameter: It is not among those that --help lists.
    """
    from indexer.faiss_index import VARIANTS

    if variant not in ("auto", *VARIANTS):
        raise typer.BadParameter(f"--variant is auto, {', '.join(VARIANTS)}; got {variant}.")


def names_of(text: str, option: str) -> list[str]:
    """The names in a list joined by commas, each once.

    Raises:
        typer.BadParameter: There is none.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise typer.BadParameter(f"{option} is one name or more, joined by commas; got {text!r}.")
    return names


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuses a --head that cannot be asked.

    Raises:
        typer.BadParameter: One is not among those that --help lists.
    """
    from heads.storage import STORED_KINDS

    unknown = [kind for kind in kinds if kind not in STORED_KINDS]
    if unknown:
        raise typer.BadParameter(f"--head is {', '.join(STORED_KINDS)}; got {', '.join(unknown)}.")


def check_fitted_kinds(kinds: Sequence[str]) -> None:
    """Refuses a --head that cannot be fitted on a gallery.

    Raises:
        typer.BadParameter: One is not among those that --help lists.
    """
    from heads.comparator import ComparatorHead
    from heads.fitting import KINDS

    unknown = [kind for kind in kinds if kind not in KINDS]
    if ComparatorHead.kind in unknown:
        raise typer.BadParameter("A comparator is trained by `modiste finetune` and added with --run RUN.")
    if unknown:
        raise typer.BadParameter(f"--head is {', '.join(KINDS)}; got {', '.join(unknown)}.")


def check_files(files: Mapping[str, Path | None]) -> None:
    """Refuses what cannot be written, before the work, and makes the folders of what can.

    Args:
        files: To be written, by their options; None for one that is not.

    Raises:
        typer.BadParameter: One is a folder.
        OSError: The folder of one cannot be made.
    """
    for option, file in files.items():
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.is_dir():
                raise typer.BadParameter(f"{option} is a file to write; {file} is a folder.")
