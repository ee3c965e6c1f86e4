"""Duplicates: items of a gallery that show the same photo, byte for byte or nearly.

Groups do not chain: a group is its first item and what is near to that one, so a series in which each photo is near to
the next does not become one group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.encoding import batched
from indexer.rows import ITEM_COLUMNS, item_of
from indexer.searcher import Searcher
from indexer.snapshot import batch_embeddings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from data.catalog import CatalogItem
    from indexer.encoders import EncoderCard
    from indexer.faiss_index import FaissIndex
    from indexer.snapshot import Snapshot

# By encoder and pooling: below it lie photos that were saved again, above it other photos. Told by looking at pairs of
# two catalogs (docs/experiments.md); each encoder has a scale of its own.
KNOWN_DISTANCES = {("efficientnet-lite0", "mean+early"): 0.01}
# Similarities held at once: 64 MiB of float32.
_SIMILARITIES = 2**24
# Items whose near ones are looked for together, and how many neighbours FAISS is asked for at first.
_BLOCK, _NEIGHBOURS = 256, 16
# Groups whose records are read together.
_READ = 256

# A row, its distance to the first of its group, and its kind.
_Member = tuple[int, float, str]
# A place, those near to it, and their distances.
_Found = tuple[int, "NDArray[np.int64]", "NDArray[np.float32]"]


class DistanceError(ValueError):
    """A largest distance that is none."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """One item of a group.

    Args:
        item: The catalog's record.
        distance: To the group's first item, 0..2.
        kind: `first`, `exact` (photo and box are the first one's, byte for byte) or `near`.
    """

    item: CatalogItem
    distance: float
    kind: str


@dataclass(frozen=True, slots=True)
class Group:
    """Items that show one photo.

    Args:
        items: Two or more: the first by item_id, exact copies of it, and near ones, closest first.
    """

    items: tuple[Duplicate, ...]

    @property
    def kind(self) -> str:
        """`exact` where all are copies of the first, `near` where one is only near to it."""
        return "near" if any(duplicate.kind == "near" for duplicate in self.items) else "exact"


def known_distance(card: EncoderCard) -> float | None:
    """The distance up to which an encoder's embeddings are of one photo; None where nobody has looked."""
    return KNOWN_DISTANCES.get((card.name, card.pooling))


def find_duplicates(
    snapshot: Snapshot, max_distance: float | None, *, index: FaissIndex | None = None
) -> Iterator[Group]:
    """The groups of a gallery, in order of their first item; an item is in one group at most.

    By item_id, each item that is in no group yet takes all near ones that are in none. Whoever keeps the first of each
    group, and what is in none, keeps no two that are near, and drops only what is near to one that is kept.

    Args:
        snapshot: The gallery.
        max_distance: How far a near item may be from the first of its group, 0..2; None for exact copies alone.
        index: Finds near ones through FAISS, which may miss some; None compares all with all, in N * N * D / 2
            multiplications and with the embeddings in memory.

    Raises:
        DistanceError: The distance is out of range.
        StoreError: The gallery cannot be read.
    """
    if max_distance is not None and not 0 <= max_distance <= 2:
        raise DistanceError(f"A distance is 1 - cosine, 0..2; got a largest distance of {max_distance:g}.")
    return _read(snapshot, _groups(snapshot, max_distance, index))


def count_repeated_photos(snapshot: Snapshot) -> int:
    """Items whose photo and box are, byte for byte, those of another item that is not counted."""
    photos = _photos(snapshot)
    return len(photos) - len(np.unique(photos))


def _photos(snapshot: Snapshot) -> NDArray[np.int64]:
    """A number for each row, (N,), that tells its photo and box from others."""
    table = snapshot.columns("content_hash", "box").combine_chunks()
    hashes = table["content_hash"].combine_chunks().dictionary_encode()
    photos: NDArray[np.int64] = hashes.indices.to_numpy().astype(np.int64)
    repeated = np.flatnonzero(np.bincount(photos)[photos] > 1)
    boxes = pc.fill_null(table["box"].combine_chunks().take(pa.array(repeated)), [-1.0] * 4)
    # (R, 5): a photo and its box; two boxes on one photo are two garments.
    regions = np.column_stack([photos[repeated], boxes.flatten().to_numpy().reshape(-1, 4)])
    photos[repeated] = len(photos) + np.unique(regions, axis=0, return_inverse=True)[1].reshape(-1)
    return photos


def _groups(snapshot: Snapshot, max_distance: float | None, index: FaissIndex | None) -> Iterator[list[_Member]]:
    order = pc.sort_indices(snapshot.columns("item_id").column(0)).to_numpy().astype(np.int64)
    rows, copies_of = _distinct(_photos(snapshot), order)
    for first, near in _near_groups(snapshot, rows, max_distance, index):
        members = [(first, 0.0, "first"), *((copy, 0.0, "exact") for copy in copies_of.get(first, ()))]
        for row, distance in near:
            members += ((copy, distance, "near") for copy in (row, *copies_of.get(row, ())))
        if len(members) > 1:
            yield members


def _distinct(photos: NDArray[np.int64], order: NDArray[np.int64]) -> tuple[NDArray[np.int64], dict[int, list[int]]]:
    """The first row of each photo, in the given order of rows, and the other rows of those that have some."""
    _, first, photo_of, counts = np.unique(photos[order], return_index=True, return_inverse=True, return_counts=True)
    by_photo = order[np.argsort(photo_of, kind="stable")]
    ends = np.cumsum(counts)
    alike = (by_photo[ends[photo] - counts[photo] : ends[photo]].tolist() for photo in np.flatnonzero(counts > 1))
    return order[np.sort(first)], {one: others for one, *others in alike}


def _near_groups(
    snapshot: Snapshot, rows: NDArray[np.int64], max_distance: float | None, index: FaissIndex | None
) -> Iterator[tuple[int, Iterable[tuple[int, float]]]]:
    """Each of the rows that is not near to one before it, and with it those that are near and no other's yet."""
    if max_distance is None:
        yield from ((row, ()) for row in rows.tolist())
        return
    finder: _Finder
    if index is None:
        finder = _ByComparing(snapshot, rows, max_distance)
    else:
        finder = _ByFaiss(Searcher(snapshot, index), rows, max_distance)
    is_taken = np.zeros(len(rows), bool)
    for start in range(0, len(rows), finder.block):
        free = start + np.flatnonzero(~is_taken[start : start + finder.block])
        for place, near, distances in finder.near(free, is_taken):
            is_taken[place] = True
            is_new = ~is_taken[near]
            is_taken[near] = True
            found, far = near[is_new], distances[is_new]
            closest = np.argsort(far, kind="stable")
            yield int(rows[place]), zip(rows[found[closest]].tolist(), far[closest].tolist(), strict=True)


class _Finder(Protocol):
    """Finds near ones among some rows, which it knows by their place; `block` places are asked for together."""

    block: int

    def near(self, places: NDArray[np.int64], is_taken: NDArray[np.bool_]) -> Iterator[_Found]:
        """For each of the places that is not taken when its turn comes: the near places, itself too, and distances."""


class _ByComparing:
    """Compares all with all that come after them."""

    def __init__(self, snapshot: Snapshot, rows: NDArray[np.int64], max_distance: float) -> None:
        self.block = max(1, min(_BLOCK, _SIMILARITIES // max(1, len(rows))))
        self._max_distance = max_distance
        self._matrix = np.empty((len(rows), snapshot.card.dimension), np.float32)
        place_of = np.full(len(snapshot), -1, np.int64)
        place_of[rows] = np.arange(len(rows))
        start = 0
        for batch in snapshot.batches("embedding"):
            places = place_of[start : start + batch.num_rows]
            self._matrix[places[places >= 0]] = batch_embeddings(batch)[places >= 0]
            start += batch.num_rows

    def near(self, places: NDArray[np.int64], is_taken: NDArray[np.bool_]) -> Iterator[_Found]:
        if not len(places):
            return
        # (b, D) x (D, N) to (b, N), of which all columns before the block were dealt with.
        block = 1 - self._matrix[places] @ self._matrix[places[0] :].T
        for place, distances in zip(places.tolist(), block, strict=True):
            if not is_taken[place]:
                near = np.flatnonzero(distances <= self._max_distance)
                yield place, near + places[0], distances[near].clip(0, 2)


class _ByFaiss:
    """Asks a searcher for neighbours, and for more as long as all of them are near."""

    def __init__(self, searcher: Searcher, rows: NDArray[np.int64], max_distance: float) -> None:
        self.block = _BLOCK
        self._searcher = searcher
        self._rows = rows
        self._max_distance = max_distance
        self._place_of = np.full(len(searcher.snapshot), -1, np.int64)
        self._place_of[rows] = np.arange(len(rows))
        self._selection = None if len(rows) == len(searcher.snapshot) else searcher.select(np.sort(rows))

    def near(self, places: NDArray[np.int64], is_taken: NDArray[np.bool_]) -> Iterator[_Found]:
        if not len(places):
            return
        queries = self._searcher.snapshot.embeddings(self._rows[places])
        found, distances = self._searcher.search(queries, _NEIGHBOURS, selection=self._selection)
        for number, place in enumerate(places.tolist()):
            if not is_taken[place]:
                rows, far = self._all(queries[number], found[number], distances[number])
                yield place, self._place_of[rows], far

    def _all(
        self, query: NDArray[np.float32], found: NDArray[np.int64], distances: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """All near rows, beginning with the neighbours that were found so far."""
        while found[-1] >= 0 and distances[-1] <= self._max_distance and len(found) < len(self._rows):
            wanted = min(4 * len(found), len(self._rows))
            (found,), (distances,) = self._searcher.search(query[None], wanted, selection=self._selection)
        near = (found >= 0) & (distances <= self._max_distance)
        return found[near], distances[near]


def _read(snapshot: Snapshot, groups: Iterator[list[_Member]]) -> Iterator[Group]:
    """The groups with the records of their items."""
    for part in batched(groups, _READ):
        rows = np.array([row for members in part for row, _, _ in members], np.int64)
        records = iter(snapshot.take(rows, *ITEM_COLUMNS))
        for members in part:
            yield Group(tuple(Duplicate(item_of(next(records)), far, kind) for _, far, kind in members))
