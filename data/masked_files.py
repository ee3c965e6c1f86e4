"""Masked catalogs of photo files: the photos under the same paths, and the files that describe them."""

from __future__ import annotations

import shutil
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from data.catalog import BadRow, Box, Catalog
from data.deepfashion import find_lists, read_lines
from data.delimited import read_records, text_encoding
from data.dresses import find_tables as find_dresses
from data.kaggle import find_tables as find_kaggle
from data.masking import Job

if TYPE_CHECKING:
    from data.masking import Masking

# Where photos are put that lie outside the catalog's folder, and which formats can name them there.
_OUTSIDE, _NAMING = "outside", ("csv", "jsonl", "parquet")


@dataclass(frozen=True, slots=True)
class Photos:
    """The photo files of a catalog, in its order.

    Args:
        boxes: The region of each item that shows a photo, by its path.
        item_ids: The first of those items.
        places: Where a photo lies in the masked catalog, with `/`.
        astray: Items whose photo lies outside the folder, in a format that cannot name it elsewhere.
    """

    boxes: dict[Path, list[Box | None]] = field(default_factory=dict)
    item_ids: dict[Path, str] = field(default_factory=dict)
    places: dict[Path, str] = field(default_factory=dict)
    astray: list[str] = field(default_factory=list)


def find_photos(catalog: Catalog, limit: int | None) -> Photos:
    """The photo files of the first `limit` rows of a catalog; photos inside its table are passed over."""
    photos = Photos()
    root = catalog.root if catalog.root.is_dir() else catalog.root.parent
    for item in islice(catalog, limit):
        if isinstance(item, BadRow) or isinstance(item.image, bytes):
            continue
        path = item.image
        boxes = photos.boxes.get(path)
        if boxes is None:
            place = f"{_OUTSIDE}/{len(photos.boxes):06}-{path.name}"
            below = path.relative_to(root) if path.is_relative_to(root) else None
            if below is not None and ".." not in below.parts:
                place = below.as_posix()
            elif catalog.format not in _NAMING:
                photos.astray.append(item.item_id)
                continue
            boxes = photos.boxes[path] = []
            photos.item_ids[path], photos.places[path] = item.item_id, place
        if item.box not in boxes:
            boxes.append(item.box)
    return photos


def mask_photos(photos: Photos, out: Path, masking: Masking) -> None:
    """Writes the masked photos below `out`.

    A photo of several items is masked once, and shows what is in the box of any.
    """
    reason = "The photo lies outside the catalog's folder."
    masking.tally.failed += [(item_id, reason) for item_id in photos.astray]
    for folder in {(out / place).parent for place in photos.places.values()}:
        folder.mkdir(parents=True, exist_ok=True)
    jobs = (
        Job(photos.item_ids[path], path, tuple(boxes), out / photos.places[path])
        for path, boxes in photos.boxes.items()
    )
    deque(masking.mask(jobs, len(photos.boxes)), maxlen=0)


def write_folder(catalog: Catalog, out: Path, masking: Masking) -> None:
    """Writes a folder of photos without their background into the empty folder `out`."""
    mask_photos(find_photos(catalog, masking.options.limit), out, masking)


def write_kaggle(catalog: Catalog, out: Path, masking: Masking) -> None:
    """Writes Kaggle's photos without their background, and its tables, into the empty folder `out`."""
    write_folder(catalog, out, masking)
    styles, *others = find_kaggle(catalog.root)
    _copy_rows(styles, out / styles.name, masking.options.limit, quoted=False)
    for path in others:
        shutil.copyfile(path, out / path.name)


def write_dresses(catalog: Catalog, out: Path, masking: Masking) -> None:
    """Writes the dresses' photos without their background, and their tables, into the empty folder `out`."""
    write_folder(catalog, out, masking)
    left = masking.options.limit
    for path in find_dresses(catalog.root):
        copied = _copy_rows(path, out / path.name, left)
        left = None if left is None else left - copied


def write_deepfashion(catalog: Catalog, out: Path, masking: Masking) -> None:
    """Writes DeepFashion's photos without their background, and its lists, into the empty folder `out`."""
    write_folder(catalog, out, masking)
    lists, names = find_lists(catalog.root)
    for path in (*lists, *names):
        target = out / path.relative_to(catalog.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        limit = masking.options.limit if path in lists else None
        rows = [] if limit is None else [line for line, *_ in islice(read_lines(path), limit + 1)]
        _copy_lines(path, target, rows[limit] if limit is not None and len(rows) > limit else None)


def _copy_rows(source: Path, target: Path, limit: int | None, *, quoted: bool = True) -> int:
    """Copies the first `limit` rows of a CSV with its header, as they are; returns how many there were."""
    if limit is None:
        shutil.copyfile(source, target)
        return 0
    rows = list(islice(read_records(source, quoted=quoted), limit + 1))
    after = None
    if len(rows) > limit:
        last = rows.pop()
        after = last.source_row if isinstance(last, BadRow) else last.line
    _copy_lines(source, target, after)
    return len(rows)


def _copy_lines(source: Path, target: Path, end: int | None) -> None:
    """Copies a text file as it is, up to the line before `end`, 1-based; None copies it whole."""
    if end is None:
        shutil.copyfile(source, target)
        return
    # A mark of UTF-8 stays a character of the first line, and is written again.
    encoding = text_encoding(source).removesuffix("-sig")
    with source.open(encoding=encoding, newline="") as lines, target.open("w", encoding=encoding, newline="") as copy:
        copy.writelines(islice(lines, end - 1))
