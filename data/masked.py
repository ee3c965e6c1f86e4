"""A catalog without backgrounds: the same format, items, labels, splits and boxes, and masked photos."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.masked_files import write_deepfashion, write_dresses, write_folder, write_kaggle
from data.masked_tables import write_csv, write_jsonl, write_parquet
from data.masked_tensors import write_fashion_mnist, write_shards
from data.masking import Masking, MaskOptions, Tally

if TYPE_CHECKING:
    from PIL.Image import Image

    from data.catalog import Catalog

# In the result: how it was made, and what became of the photos. No format takes it for a part of the catalog.
RECORD = "mask.json"
# What the folder is called until it is whole.
_PART = ".part"


class MaskError(ValueError):
    """A catalog that cannot be masked as asked; the message says what to do."""


def write_masked(
    catalog: Catalog,
    out: Path,
    options: MaskOptions,
    *,
    mapping: Mapping[str, str] | None = None,
    made: Mapping[str, Any] | None = None,
) -> Tally:
    """Writes a catalog without backgrounds, beside `out` first, so that what is called `out` is whole.

    Photos that cannot be read are copied as they are: who reads the result fails on the same ones. Where the catalog is
    a table, rows that are no items are left out.

    Args:
        catalog: Any format that Modiste reads.
        out: The folder to write, new or empty.
        options: How photos are masked.
        mapping: Columns of a table, as the catalog was opened with.
        made: What `mask.json` in the result says of how it was made.

    Returns:
        What became of the photos.

    Raises:
        MaskError: `out` holds something, lies in the catalog, or is being written.
        Stopped: The user asked to stop; nothing is left.
        CatalogError: The catalog turns out to be damaged; nothing is left.
        OSError: The disk is full, or a file cannot be written; nothing is left.
    """
    out = out.absolute()
    part = out.with_name(out.name + _PART)
    _check_place(catalog, out, part)
    part.mkdir(parents=True)
    masking = Masking(options)
    try:
        _writer(catalog, mapping)(catalog, part, masking)
        record = {**(made or {}), **_figures(masking.tally)}
        (part / RECORD).write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", "utf-8")
        part.rename(out)
    except OSError as error:
        if error.filename is not None:
            raise
        # A full disk does not say whose file it was.
        raise OSError(error.errno, error.strerror, str(out)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return masking.tally


def draw_examples(tally: Tally, font: Path | None = None) -> Image:
    """Photos of the catalog, each beside what became of it."""
    from data.sheet import Tile, draw_sheet

    tiles: list[Tile] = []
    for example in tally.examples:
        kept = "no mask: left as it is" if example.share is None else f"{example.share:.0%} kept"
        tiles += [Tile(example.before, (example.item_id,)), Tile(example.after, (kept,))]
    return draw_sheet(None, tiles, columns=6, tile_size=200, font_file=font)


def _check_place(catalog: Catalog, out: Path, part: Path) -> None:
    """Refuses a folder that something would be lost or mixed up in."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise MaskError(f"A new folder was wanted for the masked catalog; {out} holds something. Name another one.")
    if catalog.root.is_dir() and out.resolve().is_relative_to(catalog.root.resolve()):
        raise MaskError(
            f"The masked catalog {out} would lie in the catalog {catalog.root} itself. Name another folder."
        )
    if part.exists():
        raise MaskError(
            f"{part} is being written by another run, or was left by one that was killed. Remove it if none runs."
        )


def _writer(catalog: Catalog, mapping: Mapping[str, str] | None) -> Any:
    """What writes the catalog's format."""
    return {
        "folder": write_folder,
        "csv": partial(write_csv, mapping=mapping),
        "jsonl": partial(write_jsonl, mapping=mapping),
        "parquet": partial(write_parquet, mapping=mapping),
        "kaggle": write_kaggle,
        "dresses": write_dresses,
        "deepfashion": write_deepfashion,
        "fashion-mnist": write_fashion_mnist,
        "shards": write_shards,
    }[catalog.format]


def _figures(tally: Tally) -> dict[str, Any]:
    """The tally as the record has it."""
    return {
        "photos": tally.photos,
        "masked": tally.masked,
        "unmasked": tally.unmasked,
        "failed": [{"item_id": item_id, "reason": reason} for item_id, reason in tally.failed],
    }
