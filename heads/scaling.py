"""Scaling: directions in which photos of one label differ among themselves count less. All heads see this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.head import check_query

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Chosen on training photos of both datasets (docs/experiments.md): 1 to 10 and 256 or more are nearly alike.
SHRINKAGE = 3.0
DIMENSION = 512


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
        """The scaling under which the covariance within labels is nearly the identity.

        Each principal direction of that covariance, of variance v, is divided by the root of `v + shrinkage * mean(v)`,
        so that directions of no variance are not blown up. What is left is turned so that the first features have
        the largest variance, and the last are dropped. For several labels an item there is no covariance within
        labels, and the whole one takes its place.

        Args:
            embeddings: (N, D) float32.
            y: (N,) int class numbers from 0, or (N, C) bool.
            shrinkage: 0 or more; the more, the less is changed.
            dimension: The most features to keep.

        Source: within-class covariance normalisation, Hatch, Kajarekar, Stolcke (Interspeech 2006).
        """
        mean = embeddings.mean(axis=0)
        centred = embeddings - mean
        # (D, D), scatter in all, less that of the label means
        total = centred.T @ centred / len(centred)
        within = total
        if y.ndim == 1:
            counts = np.bincount(y)
            known = counts > 0
            sums = np.zeros((len(counts), centred.shape[1]), np.float32)
            np.add.at(sums, y, centred)
            means = sums[known] / counts[known, None]
            within = total - (means.T * (counts[known] / len(y))) @ means
        del centred
        variances, directions = np.linalg.eigh(within)
        variances = variances.clip(0)
        floor = max(shrinkage * variances.mean(), 1e-12)
        whitening = directions / np.sqrt(variances + floor)
        _, rotation = np.linalg.eigh(whitening.T @ total @ whitening)
        kept = rotation[:, ::-1][:, :dimension]
        return cls(mean.astype(np.float32), np.ascontiguousarray(whitening @ kept, np.float32))

    def transform(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """The features, (B, E), of (B, D) embeddings.

        Raises:
            HeadError: Another dimension.
        """
        check_query(embeddings, len(self.mean))
        features: NDArray[np.float32] = embeddings @ self.projection
        features -= self.mean @ self.projection
        return features
