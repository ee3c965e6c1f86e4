"""A small gallery with all that a gallery can have, and ways to damage its files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from indexer.failures import Failure
from indexer.gallery import Gallery
from indexer.renewal import refresh_index
from indexer.store import Store
from tests.indexer.fakes import item, make_store, rows_of, unit_vectors, write_failures

ROWS = 60
VECTORS = unit_vectors(ROWS, 8)
ITEMS = [item(number, labels={"colour": ("red" if number % 2 else "blue",)}) for number in range(ROWS)]


def make_gallery(folder: Path) -> Path:
    """Six versions: three commits of 20 items on an empty table, two items deleted, one relabelled."""
    store = make_store(folder, VECTORS, ITEMS, commit=20)
    store.delete(["i00003", "i00025"])
    store.upsert(rows_of(VECTORS[5:6], [item(5, labels={"colour": ("green",)})]))
    refresh_index(store.snapshot(), folder, "hnsw")
    write_failures(folder, [Failure("a.jpg", "The file is empty."), Failure("b.jpg", "The file is empty.")])
    return folder


def files_in(gallery: Path) -> list[Path]:
    """The files of a gallery that are not empty, below its folder."""
    return sorted(path.relative_to(gallery) for path in gallery.rglob("*") if path.is_file() and path.stat().st_size)


def damages(content: bytes, random: Random) -> Iterator[bytes]:
    """A file cut in half, emptied, and with one bit turned in three places."""
    yield content[: len(content) // 2]
    yield b""
    for _ in range(3):
        place = random.randrange(len(content))
        turned = content[place] ^ 1 << random.randrange(8)
        yield content[:place] + bytes([turned]) + content[place + 1 :]


def copy_of(gallery: Path, folder: Path) -> Path:
    """A fresh copy in that folder."""
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(gallery, folder)


def rows_in(gallery: Path) -> dict[str, str]:
    """All that is stored of each item."""
    table = Store(gallery, freshness_s=0).snapshot().columns("item_id", "image", "targets", "labels", "embedding")
    return {row["item_id"]: str(row) for row in table.to_pylist()}


def answers(gallery: Path) -> list[Any]:
    """What a gallery says to a few questions."""
    opened = Gallery(gallery, Store(gallery, freshness_s=0))
    found = [
        opened.neighbours(VECTORS[number], 5, where=where)
        for number in (3, 5, 25, 40)
        for where in (None, {"colour": ("blue",)})
    ]
    near = [[(one.item, round(one.distance, 6)) for one in part] for part in found]
    return [near, [opened.item(f"i{number:05}") for number in (0, 5, 20, 59)], len(opened), opened.labels.counts()]
