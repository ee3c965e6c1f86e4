"""What a gallery should hold and answer, kept in plain dicts: the oracle of test_stateful.py."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.catalog import BadRow, Box, CatalogItem, Labels
from data.images import ImageError, read_pixels
from indexer.filters import SPLIT, Where
from indexer.gallery import Neighbour
from indexer.rows import ITEM_COLUMNS, STATE_COLUMNS, checksum, content_hash_of, item_of, metadata_key, vector_key
from indexer.snapshot import Snapshot
from tests.indexer.fakes import FakeEncoder, histogram, noise, noise_encoder

# The two encoders that a gallery changes between, by number.
EMBED = (histogram, noise)
DIMENSIONS = (24, 16)
_IMAGE_SIZE = 32
PHOTOS = 8
# What no decoder takes: the head of a photo, and no photo at all.
BROKEN, NO_PHOTO = -1, -2
# Two sums of the same products differ by this much.
_ROUNDING = 2e-6


def encoder(number: int) -> FakeEncoder:
    """One of the two, fresh."""
    return (FakeEncoder, noise_encoder)[number]()


@cache
def photo(number: int) -> bytes:
    """The photo of that number."""
    if number == NO_PHOTO:
        return b"no photo"
    if number == BROKEN:
        return photo(0)[:60]
    random = np.random.default_rng(number)
    pixels = (random.integers(0, 200, 3) + random.integers(0, 56, (8, 6, 3))).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@cache
def embedding(content: bytes, box: Box | None, coder: int) -> NDArray[np.float32] | None:
    """What an encoder makes of a photo; None where it cannot be decoded."""
    try:
        return EMBED[coder](read_pixels(content, _IMAGE_SIZE, box=box))
    except ImageError:
        return None


@dataclass(frozen=True)
class Held:
    """What a gallery holds of an item.

    Args:
        item: The record, with what was corrected by hand.
        content_hash: Of the photo that was encoded.
        vector: Its embedding.
        corrected: Targets whose labels were set by hand.
        record: The record as the catalog had it; None where the next run takes it anew.
    """

    item: CatalogItem
    content_hash: str
    vector: NDArray[np.float32]
    corrected: frozenset[str] = frozenset()
    record: CatalogItem | None = None


Rows = dict[str, Held]


@dataclass
class Build:
    """All rows by one encoder."""

    coder: int
    rows: Rows = field(default_factory=dict)


@dataclass
class Counts:
    """What a run should report; failures as (item_id, source)."""

    added: int = 0
    changed: int = 0
    relabelled: int = 0
    unchanged: int = 0
    failures: list[tuple[str | None, str]] = field(default_factory=list)


def refreshed(build: Build, rows: Sequence[CatalogItem | BadRow]) -> tuple[Rows, Counts]:
    """The rows after a run over a catalog, without pruning: a photo's bytes and box decide, nothing else."""
    after, counts, met = dict(build.rows), Counts(), set()
    for row in rows:
        if isinstance(row, BadRow):
            counts.failures.append((None, str(row.source)))
            continue
        source = str(row.image) if isinstance(row.image, Path) else f"the photo of item {row.item_id}"
        content, held = content_of(row), build.rows.get(row.item_id)
        is_same = content is not None and held is not None and _is_photo_of(held, content, row.box)
        vector = (
            None if content is None else held.vector if is_same and held else embedding(content, row.box, build.coder)
        )
        if row.item_id in met or content is None or vector is None:
            counts.failures.append((row.item_id, source))
        elif is_same and held is not None and held.record == row:
            counts.unchanged += 1
        else:
            kind = "relabelled" if is_same else "added" if held is None else "changed"
            setattr(counts, kind, getattr(counts, kind) + 1)
            after[row.item_id] = _taken_in(row, content, vector, held)
        met.add(row.item_id)
    return after, counts


def content_of(item: CatalogItem) -> bytes | None:
    """The photo of an item as it is now, or None."""
    if isinstance(item.image, bytes):
        return item.image
    return item.image.read_bytes() if item.image.exists() else None


def placed(rows: Rows, build: Build, *, same_photo: bool) -> Rows:
    """The rows with the embeddings of a build, without those that it lacks."""
    found = {}
    for item_id, held in rows.items():
        other = build.rows.get(item_id)
        if other and other.item.box == held.item.box and (not same_photo or other.content_hash == held.content_hash):
            found[item_id] = replace(held, content_hash=other.content_hash, vector=other.vector)
    return found


def duplicates(rows: Rows) -> int:
    """Items whose photo and box are those of another that is not counted."""
    return len(rows) - len({(held.content_hash, held.item.box) for held in rows.values()})


def counts_of(rows: Rows) -> dict[str, dict[str, int]]:
    """How many items carry each label, by target."""
    counts: dict[str, dict[str, int]] = {}
    for held in rows.values():
        for target, names in labels_with_split(held.item).items():
            for name in names:
                labels = counts.setdefault(target, {})
                labels[name] = labels.get(name, 0) + 1
    return counts


def labels_with_split(item: CatalogItem) -> Labels:
    """The labels that a filter sees."""
    return {**item.labels, **({SPLIT: (item.split,)} if item.split else {})}


def check_rows(snapshot: Snapshot, rows: Rows) -> None:
    """A version holds these items, each once and whole."""
    records = snapshot.columns(*ITEM_COLUMNS, *STATE_COLUMNS).to_pylist()
    assert sorted(record["item_id"] for record in records) == sorted(rows)
    assert len(snapshot) == len(rows)
    for record, vector in zip(records, snapshot.embeddings(), strict=True):
        held = rows[record["item_id"]]
        assert item_of(record) == held.item
        assert record["content_hash"] == held.content_hash
        assert frozenset(record["corrected"]) == held.corrected
        assert record["metadata_key"] == (0 if held.record is None else metadata_key(held.record))
        np.testing.assert_array_equal(vector, held.vector)
        assert record["vector_key"] == vector_key(held.item.item_id, held.vector)
        assert record["checksum"] == checksum({**record, "embedding": vector})


def check_answer(
    answer: Sequence[Neighbour],
    rows: Rows,
    query: NDArray[np.float32],
    k: int,
    *,
    where: Where | None = None,
    max_distance: float | None = None,
    group_by_product: bool = False,
    exclude: str | None = None,
) -> None:
    """The answer is that of comparing every row of the dict.

    Each item stands at its own distance, the distances are the smallest there are, in order: so the items are the
    nearest too, except that those which rounding cannot tell apart may stand for each other.
    """
    passing = {
        item_id: held for item_id, held in rows.items() if item_id != exclude and _passes(held.item, where or {})
    }
    # Products of float32 are exact in float64.
    distances = {item_id: 1 - float(held.vector.astype(float) @ query) for item_id, held in passing.items()}
    nearest = sorted(distances, key=distances.__getitem__)
    if max_distance is not None:
        nearest = [item_id for item_id in nearest if distances[item_id] <= max_distance]
    if group_by_product:
        firsts: dict[str, str] = {}
        for item_id in nearest:
            firsts.setdefault(_product_of(passing[item_id].item), item_id)
        nearest = list(firsts.values())
        assert len({_product_of(one.item) for one in answer}) == len(answer)
    wanted = [distances[item_id] for item_id in nearest[:k]]
    found = [one.distance for one in answer]
    assert len({one.item.item_id for one in answer}) == len(answer)
    assert found == sorted(found)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=_ROUNDING)
    for one in answer:
        assert one.item == passing[one.item.item_id].item
        assert abs(one.distance - distances[one.item.item_id]) <= _ROUNDING


@dataclass
class Shelf:
    """A catalog that can be changed: records by item_id, and a folder of photos.

    Every file that is written has a name and a time of its own, long ago: content decides what a run does.
    """

    folder: Path
    catalog: dict[str, CatalogItem] = field(default_factory=dict)
    _writes: int = 0

    def write(self, content: bytes, path: Path | None = None) -> Path:
        """A new photo file, or another photo in an old one."""
        self._writes += 1
        path = path or self.folder / f"{self._writes}.png"
        path.write_bytes(content)
        self.touch(path)
        return path

    def touch(self, path: Path) -> None:
        """Gives a file another time."""
        self._writes += 1
        os.utime(path, (10**9 + self._writes, 10**9 + self._writes))

    def change(self, kind: str, given: CatalogItem, number: int) -> None:
        """Changes the catalog by a record and the number of a photo; an item that is not there is put there."""
        item_id, known = given.item_id, self.catalog.get(given.item_id)
        path = known.image if known is not None and isinstance(known.image, Path) else None
        if known is None or kind == "put" or (path is None and kind not in ("record", "box", "split")):
            self.catalog[item_id] = replace(given, image=self.write(photo(number)))
        elif kind == "bytes":
            self.catalog[item_id] = replace(known, image=photo(number))
        elif kind == "drop":
            del self.catalog[item_id]
        elif kind == "record":
            self.catalog[item_id] = replace(given, image=known.image, box=known.box)
        elif kind in ("box", "split"):
            self.catalog[item_id] = replace(known, **{kind: getattr(given, kind)})
        elif path is not None and (kind == "photo" or not path.exists()):
            self.write(photo(number), path)
        elif path is not None:
            self._change_file(kind, path, known)

    def _change_file(self, kind: str, path: Path, known: CatalogItem) -> None:
        self._writes += 1
        if kind == "touch":
            self.touch(path)
        elif kind == "break":
            self.write(photo(BROKEN), path)
        elif kind == "lose":
            path.unlink()
        elif kind == "rename":
            moved = path.rename(self.folder / f"{self._writes}.png")
            self.catalog[known.item_id] = replace(known, image=moved)


def _is_photo_of(held: Held, content: bytes, box: Box | None) -> bool:
    return held.content_hash == content_hash_of(content) and held.item.box == box


def _taken_in(row: CatalogItem, content: bytes, vector: NDArray[np.float32], held: Held | None) -> Held:
    corrected = held.corrected if held else frozenset()
    by_hand = held.item.labels if held else {}
    labels = {target: names for target, names in row.labels.items() if target not in corrected}
    labels |= {target: names for target, names in by_hand.items() if target in corrected}
    return Held(replace(row, labels=labels), content_hash_of(content), vector, corrected, row)


def _passes(item: CatalogItem, where: Where) -> bool:
    labels: Mapping[str, tuple[str, ...]] = labels_with_split(item)
    return all(set(labels.get(target, ())) & set(names) for target, names in where.items())


def _product_of(item: CatalogItem) -> str:
    return item.product_id or f"\0{item.item_id}"
