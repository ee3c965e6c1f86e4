"""What heads refuse, and in which words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class HeadError(ValueError):
    """A head that cannot be fitted or asked; the message says what was wanted, what came, and what to do next."""


def check_training(
    embeddings: NDArray[np.float32], y: NDArray[Any], weights: NDArray[np.float32] | None = None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The labels in order of name, (C,), and `y` by their numbers: (N,) int64, or (N, C) bool as it came.

    Raises:
        HeadError: What `Head.fit` says.
    """
    y = np.asarray(y)
    if embeddings.ndim != 2 or len(embeddings) != len(y) or y.ndim not in (1, 2):
        raise HeadError(
            f"A head is fitted on (N, D) embeddings and N labels, or (N, C) bool; got {embeddings.shape} and {y.shape}."
        )
    if weights is not None and not (weights.shape == (len(y),) and np.isfinite(weights).all() and (weights > 0).all()):
        raise HeadError(f"Weights are {len(y)} positive numbers, one an embedding; got shape {weights.shape}.")
    if not np.isfinite(embeddings).all():
        raise HeadError("An embedding has numbers that are not finite; `modiste verify` finds damaged rows.")
    if y.ndim == 2:
        present = y.any(axis=0)
        if y.dtype != bool or not present.size or not present.all():
            raise HeadError(
                f"Several labels an item are (N, C) bool, each label at least once; got {y.dtype} {y.shape}."
            )
        return np.arange(y.shape[1]), y
    classes, numbers = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise HeadError(f"A head tells labels apart, two or more; got {len(classes)} among {len(y)} items.")
    return classes, numbers.astype(np.int64)


def check_query(embeddings: NDArray[np.float32], dimension: int) -> None:
    """Refuses embeddings of another dimension.

    Raises:
        HeadError: Not (B, dimension).
    """
    if embeddings.ndim != 2 or embeddings.shape[1] != dimension:
        raise HeadError(
            f"The head was fitted on {dimension}-number embeddings; the query has shape {embeddings.shape}. Use the "
            f"encoder that it was fitted on, or fit again."
        )
