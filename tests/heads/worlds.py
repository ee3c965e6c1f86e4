"""Small made-up embeddings whose labels can be learned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def clusters(
    count: int = 200, *, labels: int = 4, dimension: int = 16, spread: float = 0.15, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit embeddings around a centre a label, and class numbers as often each; the centres are the same for all seeds.

    With a spread of 0.15 nearly all can be told apart, with 0.5 half of them.
    """
    centres = np.linalg.qr(np.random.default_rng(99).standard_normal((dimension, labels)))[0].T
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(np.arange(count) % labels)
    return _unit(centres[numbers] + spread * rng.standard_normal((count, dimension))), numbers


def wardrobe(
    count: int = 200, *, labels: int = 3, dimension: int = 16, spread: float = 0.15, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Unit embeddings that are sums of the centres of their labels, one or more each, and (N, C) bool."""
    centres = np.linalg.qr(np.random.default_rng(99).standard_normal((dimension, labels)))[0].T
    rng = np.random.default_rng(seed)
    has = rng.random((count, labels)) < 0.4
    has[np.arange(count), np.arange(count) % labels] = True
    return _unit(has @ centres + spread * rng.standard_normal((count, dimension))), has


def _unit(embeddings: NDArray[np.float64]) -> NDArray[np.float32]:
    units: NDArray[np.float32] = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)
    return units
