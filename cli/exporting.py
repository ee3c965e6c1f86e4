"""The command that hands an encoder or a comparator to other programs: export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import JsonOption, PoolingOption
from cli.output import print_json, print_table


def export(
    encoder_or_run: Annotated[
        str,
        typer.Argument(
            help="Encoder (see `modiste encoders`), `transformers` folder or finetune run.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write, which must not exist.", show_default=False)],
    file_format: Annotated[str, typer.Option("--format", help="onnx, openvino or both.")] = "both",
    pooling: PoolingOption = None,
    photos: Annotated[
        Path | None, typer.Option(help="Folder of photos to check the files on. Default: drawn ones.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write an encoder or a comparator as ONNX and OpenVINO files, once they answer as torch does."""
    from indexer.export import FORMATS, export

    if file_format not in ("both", *FORMATS):
        raise typer.BadParameter(f"--format is {', '.join(FORMATS)} or both; got {file_format}.")

    def tell(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    formats = FORMATS if file_format == "both" else (file_format,)
    card = export(encoder_or_run, out, formats=formats, pooling=pooling, photos=photos, progress=tell)
    if as_json:
        return print_json({"out": str(out), **card})
    _say_check(card["check"], formats, list(card["labels"]))
    for name in card["files"]:
        print(f"{out / name}  {(out / name).stat().st_size / 1e6:.1f} MB")
    return print(f"{out / 'card.json'} says what goes in and what comes out.")


def _say_check(check: dict[str, Any], formats: tuple[str, ...], targets: list[str]) -> None:
    """The figures of the check: a column a format."""
    figures = [check[name] for name in formats]
    rows = [["least cosine", *(f"{each['least_cosine']:.6f}" for each in figures)]]
    for target in targets:
        rows.append([f"{target}: same label", *(f"{each['label_agreements'][target]:.3f}" for each in figures)])
        rows.append([f"{target}: logits off by", *(f"{each['logit_differences'][target]:.1e}" for each in figures)])
    skipped = f"; {check['unreadable']} could not be read" if check["unreadable"] else ""
    print(f"Beside torch in fp32, on {check['photos']} {'drawn ' if check['drawn'] else ''}photos{skipped}:")
    print_table(["", *formats], rows)
