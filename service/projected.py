"""A gallery's items at their places of the projection, and views of them that hold no more points than a page can draw.

A view is cut into cells, and each cell gives its items in a fixed random order: first one of every cell, then a second
one, until there are enough. So an item that lies alone is always shown, and dense places are thinned.
"""

from __future__ import annotations

import math
import threading
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from cachetools import LRUCache

from indexer.projection import Projection
from service import answers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from data.catalog import Box
    from indexer.filters import Where
    from indexer.gallery import Gallery

# Targets whose labels are kept prepared: 4 bytes an item each.
_TARGETS = 16
# Digits of a place: a hundredth of a pixel of the largest screen.
_DIGITS = 5


class ProjectionNotFoundError(LookupError):
    """The gallery has no projection of its encoder."""

    def __init__(self) -> None:
        super().__init__("The gallery has no map yet; a job of kind 'project' draws one.")


class Projected:
    """One version of a gallery with its projection, as it was at one moment.

    Args:
        gallery: Of that version.
        before: The moment before, whose projection is taken where it is the same.
    """

    def __init__(self, gallery: Gallery, before: Projected | None = None) -> None:
        # Before the file is read: where it is replaced meanwhile, the next look reads the new one.
        self.signature = Projection.signature(gallery.folder)
        self._gallery = gallery
        self._loading = threading.Lock()
        self._labels: LRUCache[str, tuple[list[str], NDArray[np.int32]]] = LRUCache(_TARGETS)
        self._encoder = gallery.card.fingerprint
        is_same = before is not None and (before.signature, before._encoder) == (self.signature, self._encoder)
        # None where there is none of the gallery's encoder.
        self.projection: Projection | None = (
            before.projection if before is not None and is_same else Projection.load(gallery.folder, self._encoder)
        )

    @cached_property
    def _keys(self) -> NDArray[np.int64]:
        """(N,) vector keys, which are random numbers too."""
        keys: NDArray[np.int64] = self._gallery.snapshot.columns("vector_key")["vector_key"].to_numpy()
        return keys

    @cached_property
    def _places(self) -> NDArray[np.float32]:
        """(N, 2) places, NaN where there is none."""
        assert self.projection is not None
        return self.projection.places_of(self._keys)

    def view(
        self, limit: int, *, target: str | None = None, view: Box | None = None, where: Where | None = None
    ) -> answers.Projection:
        """The points in a part of the map.

        Args:
            limit: Points at most, 1 or more.
            target: Whose labels come along.
            view: The part; None for all of it.
            where: Labels that items must have.

        Raises:
            ProjectionNotFoundError: There is no map.
            FilterError: A target or label that the gallery does not have.
        """
        projection = self.projection
        if projection is None:
            raise ProjectionNotFoundError
        places = self._places
        labels, codes = ([], None) if target is None else self._labels_of(target)
        is_within = _is_within(places, view)
        if where is not None:
            is_within &= np.isin(np.arange(len(places)), self._gallery.labels.rows(where), assume_unique=True)
        rows = np.flatnonzero(is_within)
        shown = rows if len(rows) <= limit else rows[_spread(places[rows], self._keys[rows], limit)]
        x, y = np.round(places[shown].astype(np.float64), _DIGITS).T.tolist() if len(shown) else ([], [])
        return answers.Projection(
            item_ids=self._gallery.snapshot.columns("item_id").column(0).take(shown).to_pylist(),
            x=x,
            y=y,
            label_of=[-1] * len(shown) if codes is None else codes[shown].tolist(),
            labels=labels,
            total=len(rows),
            missing=int(np.count_nonzero(np.isnan(places[:, 0]))),
            method=projection.card.method,
            gallery_version=self._gallery.snapshot.version,
            projected_version=projection.card.version,
            projected_at=projection.card.projected_at,
        )

    def _labels_of(self, target: str) -> tuple[list[str], NDArray[np.int32]]:
        """The labels of a target, most frequent first, and (N,) each row's place among them, -1 where it has none."""
        with self._loading:
            if target not in self._labels:
                rows_of = self._gallery.labels.labels_of(target)
                names = sorted(rows_of, key=lambda name: (-len(rows_of[name]), name))
                codes = np.full(len(self._gallery), -1, np.int32)
                # Of several labels of an item the most frequent one, which is written last.
                rows = np.concatenate([rows_of[name] for name in reversed(names)])
                counts = [len(rows_of[name]) for name in reversed(names)]
                codes[rows] = np.repeat(np.arange(len(names))[::-1], counts)
                self._labels[target] = names, codes
            labels: tuple[list[str], NDArray[np.int32]] = self._labels[target]
            return labels


def _is_within(places: NDArray[np.float32], view: Box | None) -> NDArray[np.bool_]:
    """Which (R, 2) places lie in a view, its edges too; NaN lies in none."""
    if view is None:
        return ~np.isnan(places[:, 0])
    x, y = places.T
    within: NDArray[np.bool_] = (x >= view.x) & (x <= view.x + view.width) & (y >= view.y) & (y <= view.y + view.height)
    return within


def _spread(places: NDArray[np.float32], order: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """The numbers of `limit` places, ascending, that show where places are and where they are dense.

    Args:
        places: (R, 2), more than `limit`.
        order: (R,) numbers that say which of a cell's places comes first.
        limit: 1 or more; there are no more cells than that.
    """
    side = math.isqrt(limit)
    lowest, highest = places.min(axis=0), places.max(axis=0)
    cells = ((places - lowest) / np.maximum(highest - lowest, 1e-9) * side).astype(np.int64).clip(max=side - 1)
    in_order = np.argsort(order)
    # 16 bits, which 20,000 cells fit in, are sorted several times faster.
    cell = (cells[:, 0] * side + cells[:, 1])[in_order].astype(np.int16 if limit < 2**15 else np.int64)
    by_cell = np.argsort(cell, kind="stable")
    first = np.flatnonzero(np.diff(cell[by_cell], prepend=-1))
    # (R,) how many of its cell come before each
    rank = np.arange(len(cell)) - np.repeat(first, np.diff(first, append=len(cell)))
    # The rank of which only some are shown, or all.
    last = int(np.searchsorted(np.cumsum(np.bincount(rank)), limit))
    numbers = in_order[by_cell]
    chosen, others = numbers[rank < last], numbers[rank == last]
    others = others[np.argsort(order[others])[: limit - len(chosen)]]
    return np.sort(np.concatenate([chosen, others]))
