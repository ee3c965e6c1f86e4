"""A confusion matrix as a heat map: which labels are shown, in what order, and how dark each cell is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from heads.metrics import normalise_confusion
from service.phrases import hundredths

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_SHOWN = 25
# From this depth on a cell is dark enough for white digits, and below it light enough for black ones, at a contrast of
# 4.5 and more: tests/service/test_heatmap.py works it out from the colours in report.css.
_STRONG = 70


def heat_map(labels: list[str], matrix: NDArray[np.int64]) -> dict[str, Any]:
    """The heat map, with the labels that have most to do with mistakes where there are more than 25.

    Labels that are confused stand next to each other. The rest is folded into one row and one column, which are last.

    Args:
        labels: C names.
        matrix: (C, C) int64, a row for each true label.
    """
    seen = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))
    if len(seen) <= MOST_SHOWN:
        shown = seen
    else:
        wrong = matrix - np.diag(matrix.diagonal())
        mistakes = wrong.sum(axis=0) + wrong.sum(axis=1)
        shown = np.sort(np.lexsort((-matrix.sum(axis=1), -mistakes))[:MOST_SHOWN])
    shown = shown[_side_by_side(matrix[np.ix_(shown, shown)])]
    folded = np.setdiff1d(seen, shown)
    names = [labels[number] for number in shown]
    if len(folded):
        names.append(f"{len(folded)} others")
    return _drawn(names, _folded(matrix, shown, folded), len(folded))


def full_map(labels: list[str], matrix: NDArray[np.int64]) -> dict[str, Any]:
    """The heat map of all labels that occur or are predicted, in class order."""
    seen = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))
    return _drawn([labels[number] for number in seen], matrix[np.ix_(seen, seen)], 0)


def _side_by_side(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    """An order, (S,), in which neighbours are confused the most."""
    if len(matrix) < 3:
        return np.arange(len(matrix))
    from scipy.cluster.hierarchy import leaves_list, linkage

    shares = np.nan_to_num(normalise_confusion(matrix))
    distances = 1 - (shares + shares.T) / 2
    # (S, S) -> (S * (S - 1) / 2,), the upper triangle, which is what `linkage` takes
    order: NDArray[np.int64] = leaves_list(
        linkage(distances[np.triu_indices(len(matrix), k=1)], "average", optimal_ordering=True)
    ).astype(np.int64)
    return order


def _folded(matrix: NDArray[np.int64], shown: NDArray[np.int64], folded: NDArray[np.int64]) -> NDArray[np.int64]:
    """The matrix of the labels shown, with the others as one last row and column, where there are any."""
    size = len(shown)
    places = np.full(len(matrix), size)
    places[shown] = np.arange(size)
    small = np.zeros((size + 1, size + 1), np.int64)
    np.add.at(small, (places[:, None], places[None, :]), matrix)
    return small if len(folded) else small[:size, :size]


def _drawn(names: list[str], matrix: NDArray[np.int64], folded: int) -> dict[str, Any]:
    """What the template draws: `names`, `rows` of `cells` (None for nothing), the largest count, labels folded."""
    shares = normalise_confusion(matrix)
    # Photos of others called others are right or wrong, so their cell has no colour, and sets no scale.
    coloured = matrix.ravel()[: matrix.size - bool(folded)]
    most = max(1, int(coloured.max(initial=0)))
    diagonal = ["r"] * (len(names) - bool(folded)) + ["o"] * bool(folded)
    rows = [
        {
            "name": name,
            "queries": int(matrix[row].sum()),
            "cells": [
                _cell(matrix[row, column], shares[row, column], most, kind=diagonal[row] if row == column else "w")
                | {"title": f"{name}, called {other}: {matrix[row, column]} ({100 * shares[row, column]:.0f} %)"}
                if matrix[row, column]
                else None
                for column, other in enumerate(names)
            ],
        }
        for row, name in enumerate(names)
    ]
    return {"names": names, "rows": rows, "most": most, "folded": folded}


def _cell(count: np.int64, share: np.float64, most: int, *, kind: str) -> dict[str, Any]:
    """A cell of kind r (right), w (wrong) or o (others): its two figures, and how dark each makes it, 0..100."""
    share_depth, count_depth = round(100 * share), min(100, round(100 * (count / most) ** 0.5))
    return {
        "kind": kind,
        "count": int(count),
        "share": hundredths(float(share)).removesuffix(".0"),
        "share_depth": share_depth,
        "count_depth": count_depth,
        "strong_share": share_depth >= _STRONG and kind != "o",
        "strong_count": count_depth >= _STRONG and kind != "o",
    }
