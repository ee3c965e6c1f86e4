"""Exact search: every vector is compared. It is the default while that is fast enough, and the oracle everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Similarities held at once: 64 MiB of float32.
_BLOCK = 2**24
# Up to this share of the rows, copying their vectors is cheaper than comparing all and looking at some.
_GATHER_SHARE = 0.25
# What sums of float32 products in another order may differ by, for vectors of unit length.
_ROUNDING = np.float32(1e-5)
# Rows that are gathered at once.
_GATHERED = 4096


def exact_search(
    matrix: NDArray[np.float32],
    queries: NDArray[np.float32],
    k: int,
    *,
    among: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k nearest rows of a matrix for each query; equal distances stand in row order.

    Args:
        matrix: (N, D) float32 of unit length.
        queries: (B, D) float32 of unit length.
        k: Neighbours wanted, 1 or more.
        among: Only these rows compete, ascending; None for all.

    Returns:
        (B, k) row numbers, -1 where there are fewer rows, and (B, k) distances `1 - cosine`, 0..2, inf there.
    """
    if among is not None and len(among) < len(matrix) * _GATHER_SHARE:
        places, near = exact_search(matrix[among], queries, k)
        return np.where(places < 0, -1, among[places] if len(among) else -1), near
    competing = len(matrix) if among is None else len(among)
    rows = np.full((len(queries), k), -1, np.int64)
    distances = np.full((len(queries), k), np.inf, np.float32)
    found = min(k, competing)
    if not found:
        return rows, distances
    step = max(1, _BLOCK // len(matrix))
    for start in range(0, len(queries), step):
        # (b, D) x (D, N) to (b, N)
        block = 1 - queries[start : start + step] @ matrix.T
        if among is not None:
            block = block[:, among]
        borders = np.partition(block, found - 1, axis=1)[:, found - 1]
        for number, (values, border) in enumerate(zip(block, borders, strict=True), start):
            close = np.flatnonzero(values <= border + _ROUNDING)
            candidates = close if among is None else among[close]
            exact = _distances(matrix, candidates, queries[number])
            # By distance, then by row.
            best = np.lexsort((candidates, exact))[:found]
            rows[number, :found], distances[number, :found] = candidates[best], exact[best]
    return rows, distances.clip(0, 2, out=distances, where=np.isfinite(distances))


def _distances(
    matrix: NDArray[np.float32], places: NDArray[np.int64], query: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Distances, (R,), of some rows of a matrix to a query (D,), the same for equal rows.

    A matrix product may add up in another order at its edges, so that equal rows differ in the last bit, by processor.
    """
    distances = np.empty(len(places), np.float32)
    for start in range(0, len(places), _GATHERED):
        part = slice(start, start + _GATHERED)
        distances[part] = 1 - (matrix[places[part]] * query).sum(axis=1)
    return distances


def merge(
    parts: list[tuple[NDArray[np.int64], NDArray[np.float32]]], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k nearest of several answers to the same queries, in the form of `exact_search`."""
    rows = np.concatenate([part[0] for part in parts], axis=1)
    distances = np.concatenate([part[1] for part in parts], axis=1)
    # By distance, then by row; the padding is at infinity.
    order = np.lexsort((rows, distances), axis=1)[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(distances, order, axis=1)


def smallest(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Column numbers of the `count` smallest values of each row of (B, N), by value and then by column."""
    if count == values.shape[1]:
        return np.argsort(values, axis=1, kind="stable")
    border = np.partition(values, count - 1, axis=1)[:, count - 1]
    nearest = np.empty((len(values), count), np.int64)
    for row, limit in enumerate(border):
        # All that tie with the last one compete for its place, so that the answer does not depend on the partition.
        candidates = np.flatnonzero(values[row] <= limit)
        nearest[row] = candidates[np.argsort(values[row, candidates], kind="stable")[:count]]
    return nearest
