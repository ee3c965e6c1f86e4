"""Scaling: directions in which photos of one label differ among themselves count less. All heads see this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.head import check_query, one_hot

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Chosen on training photos of both datasets (docs/experiments.md): 1 to 10 and 256 or more are nearly alike.
SHRINKAGE = 3.0
DIMENSION = 512
_ROWS = 2048


@dataclass(frozen=True, slots=True)
class Scaling:
    """Centring, whitening and rotation: (D,) embeddings to (E,) features, E <= D, largest variance first.

    Args:
        mean: (D,) float32, subtracted first.
        projection: (D, E) float32.
    """

    mean: NDArray[np.float32]
    projection: NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        embeddings: NDArray[np.float32],
        y: NDArray[Any],
        *,
        shrinkage: float = SHRINKAGE,
        dimension: int = DIMENSION,
    ) -> Scaling:
        """The scaling under which the covariance within labels, plus a share of the identity, is the identity.

        The share is `shrinkage` times the mean variance, so that directions of no variance are not blown up. The
        features are turned so that the first have the largest variance in all, and the last are dropped. For several
        labels an item there is no covariance within labels, and the whole one takes its place.

        Args:
            embeddings: (N, D) float32.
            y: (N,) int class numbers from 0, or (N, C) bool.
            shrinkage: Above 0; the more, the less is changed.
            dimension: The most features to keep.

        Source: within-class covariance normalisation, Hatch, Kajarekar, Stolcke (Interspeech 2006).
        """
        from scipy.linalg import eigh

        mean = embeddings.mean(axis=0)
        total = _scatter(embeddings, mean)
        within = total.copy()
        if y.ndim == 1:
            counts = np.bincount(y)
            # (C, D), the label means less the whole one, weighed by how often they occur
            means = one_hot(y, len(counts)).T.astype(np.float32) @ embeddings / counts.clip(min=1)[:, None] - mean
            means = (means * np.sqrt(counts / len(y))[:, None]).astype(np.float32)
            within -= means.T @ means
        width = len(mean)
        within[np.diag_indices(width)] += max(shrinkage * np.trace(within) / width, 1e-12)
        kept = (max(0, width - dimension), width - 1)
        _, directions = eigh(
            total, within, subset_by_index=kept, overwrite_a=True, overwrite_b=True, check_finite=False
        )
        return cls(mean, np.ascontiguousarray(directions[:, ::-1], np.float32))

    def transform(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """The features, (B, E), of (B, D) embeddings.

        Raises:
            HeadError: Another dimension.
        """
        check_query(embeddings, len(self.mean))
        features: NDArray[np.float32] = embeddings @ self.projection
        features -= self.mean @ self.projection
        return features


def _scatter(embeddings: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean outer product, (D, D), of embeddings less their mean; a part at a time, for want of memory."""
    scatter = np.zeros((len(mean), len(mean)), np.float32)
    for start in range(0, len(embeddings), _ROWS):
        centred = embeddings[start : start + _ROWS] - mean
        scatter += centred.T @ centred
    scatter /= len(embeddings)
    return scatter
