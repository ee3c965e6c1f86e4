"""The searcher: neighbours in one snapshot, exactly or through FAISS, right whatever the FAISS file has missed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from indexer.exact import exact_search, merge
from indexer.sketch import Sketch
from indexer.snapshot import batch_embeddings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.faiss_index import FaissIndex, Positions
    from indexer.snapshot import Snapshot


# A tail of more rows is sketched, so that one query need not read all of it; many queries at once do.
_SKETCHED = 1024
_TOGETHER = 8


class QueryError(ValueError):
    """A query that cannot be answered; the message says what was wanted and what came."""


@dataclass(frozen=True, slots=True)
class Selection:
    """A filter, prepared for one searcher.

    Args:
        tail: Places in the searcher's tail that compete.
        positions: Vectors of its FAISS index that compete; None without an index.
    """

    tail: NDArray[np.int64]
    positions: Positions | None


class Searcher:
    """Finds the nearest rows of a snapshot.

    Rows that the FAISS index holds are searched there; rows that came or changed after it (the tail) are compared
    exactly and merged, and vectors that are no longer in the table are masked. Without an index all rows are tail.

    Args:
        snapshot: What is searched.
        index: A FAISS index of this or an earlier version, or None.
    """

    def __init__(self, snapshot: Snapshot, index: FaissIndex | None = None) -> None:
        self.snapshot = snapshot
        self.index = index
        self._rows = len(snapshot)
        if index is None:
            self._tail = np.arange(self._rows)
            self._tail_vectors = snapshot.embeddings()
            return
        self._row_of, self._position_of = _align(snapshot, index.vector_keys)
        # None where every vector of the index is current, which is when none is masked.
        current = self._row_of >= 0
        self._current = None if current.all() else index.select(np.flatnonzero(current))
        self._tail = np.flatnonzero(self._position_of < 0)
        self._tail_vectors = snapshot.embeddings(self._tail)
        self._sketch = Sketch(self._tail_vectors) if len(self._tail) > _SKETCHED else None

    @property
    def variant(self) -> str:
        """`exact`, `hnsw` or `ivf`."""
        return "exact" if self.index is None else self.index.card.variant

    @property
    def tail_rows(self) -> int:
        """Rows that are compared exactly because the FAISS index does not hold them; 0 for exact search."""
        return 0 if self.index is None else len(self._tail)

    @property
    def drift(self) -> tuple[int, int]:
        """Rows that the FAISS index lacks, and its vectors that are of no row; nothing for exact search."""
        return (0, 0) if self.index is None else (len(self._tail), int(np.count_nonzero(self._row_of < 0)))

    def embeddings(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The stored embeddings, (R, D), of some rows; from memory where all are compared exactly."""
        if self.index is None:
            return self._tail_vectors[rows]
        return self.snapshot.embeddings(rows)

    def search_exactly(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `search`, by comparing every row, a part of them in memory at a time: what the index is measured by."""
        self._check(queries, k)
        best = merge([exact_search(np.empty((0, queries.shape[1]), np.float32), queries, k)], k)
        start = 0
        for batch in self.snapshot.batches("embedding"):
            vectors = batch_embeddings(batch)
            found, distances = exact_search(vectors, queries, k)
            best = merge([best, (np.where(found < 0, -1, found + start), distances)], k)
            start += len(vectors)
        return best

    def select(self, rows: NDArray[np.int64]) -> Selection:
        """Prepares a filter for `search`; worth keeping where the same filter is asked again.

        Args:
            rows: The rows that compete, ascending.
        """
        if self.index is None:
            return Selection(rows, None)
        positions = self._position_of[rows]
        in_index = positions >= 0
        # (T,) where in the tail the chosen rows stand.
        tail = np.searchsorted(self._tail, rows[~in_index])
        return Selection(tail, self.index.select(positions[in_index]))

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        rows: NDArray[np.int64] | None = None,
        selection: Selection | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k nearest rows for each query; k come back whenever k exist.

        Args:
            queries: (B, D) float32 of unit length.
            k: Neighbours wanted, 1 or more.
            rows: Only these rows compete, ascending; None for all.
            selection: The same, prepared by `select`.

        Returns:
            (B, k) row numbers, -1 where there are fewer rows, and (B, k) distances `1 - cosine`, 0..2, inf there.

        Raises:
            QueryError: Wrong dimension, not of unit length or not finite, or k below 1.
        """
        self._check(queries, k)
        if rows is not None:
            selection = self.select(rows)
        if self.index is None:
            return self._search_tail(queries, k, selection)
        found = self._search_index(self.index, queries, k, selection)
        if not len(self._tail) and found[0].shape[1] == k:
            return found
        if self._sketch is None or selection is not None or len(queries) > _TOGETHER:
            return merge([self._search_tail(queries, k, selection), found], k)
        found = merge([found], k)
        return merge([self._search_sketch(self._sketch, queries, k, found[1][:, -1]), found], k)

    def _search_tail(
        self, queries: NDArray[np.float32], k: int, selection: Selection | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        among = None if selection is None else selection.tail
        found, distances = exact_search(self._tail_vectors, queries, k, among=among)
        return _look_up(self._tail, found), distances

    def _search_sketch(
        self, sketch: Sketch, queries: NDArray[np.float32], k: int, farthest: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The tail's rows that can take a place among k of which the last is so far, (B,)."""
        rows, distances = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        for number, query in enumerate(queries):
            places = sketch.within(query, farthest[number])
            found, distances[number] = exact_search(sketch.vectors[places], query[None], k)
            rows[number] = _look_up(self._tail[places], found)
        return rows, distances

    def _search_index(
        self, index: FaissIndex, queries: NDArray[np.float32], k: int, selection: Selection | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        positions = self._current if selection is None else selection.positions
        found, distances = index.search(queries, k * index.candidates, positions=positions)
        found_rows = _look_up(self._row_of, found)
        if not index.is_exact_in_distance:
            distances = self._exact_distances(queries, found_rows)
        return found_rows, distances

    def _exact_distances(self, queries: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The true distances, (B, K), of rows that an index found by its codes."""
        distances = np.full(rows.shape, np.inf, np.float32)
        for query, (found, target) in zip(queries, zip(rows, distances, strict=True), strict=True):
            valid = found >= 0
            target[valid] = (1 - self.snapshot.embeddings(found[valid]) @ query).clip(0, 2)
        return distances

    def _check(self, queries: NDArray[np.float32], k: int) -> None:
        dimension = self.snapshot.card.dimension
        if k < 1:
            raise QueryError(f"k is the number of neighbours, 1 or more; got {k}.")
        if queries.ndim != 2 or queries.shape[1] != dimension:
            raise QueryError(
                f"Gallery {self.snapshot.folder} holds {dimension}-number embeddings ({self.snapshot.card.name}); the "
                f"query has shape {queries.shape}. Use the same encoder or re-index."
            )
        norms = np.linalg.norm(queries, axis=1)
        wrong = norms[~(np.abs(norms - 1) < 1e-3)]
        if len(wrong):
            raise QueryError(f"A query is of unit length and finite; got a length of {wrong[0]:g}.")


def _look_up(values: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The values at some places; -1 where the place is -1."""
    if not len(values):
        return np.full_like(places, -1)
    return np.where(places < 0, -1, values[places])


def _align(snapshot: Snapshot, vector_keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each vector of an index stands in the table, and each row in the index; -1 where it does not."""
    keys = snapshot.columns("vector_key").column(0).to_numpy()
    order = np.argsort(keys)
    places = np.searchsorted(keys, vector_keys, sorter=order).clip(max=max(0, len(keys) - 1))
    candidates = order[places] if len(keys) else np.zeros(len(vector_keys), np.int64)
    held = keys[candidates] == vector_keys if len(keys) else np.zeros(len(vector_keys), bool)
    row_of = np.where(held, candidates, -1)
    position_of = np.full(len(keys), -1, np.int64)
    position_of[row_of[held]] = np.flatnonzero(held)
    return row_of, position_of
