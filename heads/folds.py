"""Folds: which rows are validated together. Photos of one product are never on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def assign_folds(
    y: NDArray[Any], *, count: int = 5, groups: NDArray[Any] | None = None, seed: int = 0
) -> NDArray[np.int64]:
    """The fold, 0..count - 1, of each row: each label is spread evenly, and a group is in one fold.

    Groups are dealt out in random order, label by label (that of their first row; for several labels an item, the
    rarest one), so that each fold has each label's share of groups within one.

    Args:
        y: (N,) labels or numbers, or (N, C) bool.
        count: 2 or more.
        groups: (N,) what belongs together, such as product ids; None for each row by itself.
        seed: Of the order; the same seed gives the same folds.

    Returns:
        (N,) int64.
    """
    labels = _rarest(y) if y.ndim == 2 else np.unique(y, return_inverse=True)[1]
    members = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    firsts = np.unique(members, return_index=True)[1]
    shuffled = np.random.default_rng(seed).permutation(len(firsts))
    # Groups in order of label, in random order within a label, dealt out like cards.
    dealt = shuffled[np.argsort(labels[firsts][shuffled], kind="stable")]
    fold_of = np.empty(len(firsts), np.int64)
    fold_of[dealt] = np.arange(len(dealt)) % count
    folds: NDArray[np.int64] = fold_of[members]
    return folds


def _rarest(y: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The rarest label of each row, (N,); C where it has none."""
    counts = y.sum(axis=0)
    costs = np.where(y, counts, len(y) + 1)
    rarest: NDArray[np.int64] = np.where(y.any(axis=1), costs.argmin(axis=1), y.shape[1])
    return rarest
