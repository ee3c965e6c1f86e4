"""Balance: what is done about labels with many more photos than others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from heads.checks import HeadError

if TYPE_CHECKING:
    from numpy.typing import NDArray

BALANCES = ("none", "weights", "resample")


def check_balance(balance: str) -> None:
    """Refuses what is no balance.

    Raises:
        HeadError: It is not among BALANCES.
    """
    if balance not in BALANCES:
        raise HeadError(f"'balance' is {', '.join(BALANCES)}; got '{balance}'.")


def balanced(
    y: NDArray[Any], rows: NDArray[np.int64], balance: str, *, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
    """Rows to fit on, and how much each counts; None for all alike.

    `weights` keeps the rows and lets each count in inverse proportion to how many have its label. `resample` draws as
    many rows as there were, with replacement, with those proportions. An item with several labels goes by its rarest
    one.

    Args:
        y: (N,) labels or numbers, or (N, C) bool.
        rows: (R,) the rows to balance.
        balance: One of BALANCES.
        seed: Of the draw.
    """
    if balance == "none":
        return rows, None
    counts = _label_counts(y[rows])
    if balance == "weights":
        weights = (1 / counts).astype(np.float32)
        return rows, weights / weights.mean()
    rng = np.random.default_rng(seed)
    drawn = rows[rng.choice(len(rows), len(rows), p=(1 / counts) / (1 / counts).sum())]
    # Each label is kept, if only by one row, or the head would not know it.
    firsts = rows[np.unique(y[rows], return_index=True)[1]] if y.ndim == 1 else rows[y[rows].argmax(axis=0)]
    return np.sort(np.concatenate([drawn, firsts])), None


def _label_counts(y: NDArray[Any]) -> NDArray[np.int64]:
    """How many rows have each row's label, (R,); of several labels the rarest one's."""
    if y.ndim == 1:
        _, numbers, counts = np.unique(y, return_inverse=True, return_counts=True)
        of_row: NDArray[np.int64] = counts[numbers]
        return of_row
    rarest: NDArray[np.int64] = np.where(y, y.sum(axis=0), len(y)).min(axis=1)
    return rarest
