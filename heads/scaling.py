"""Scaling: directions in which photos of one label differ among themselves count less. All heads see this."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.checks import check_query
from heads.logits import one_hot

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
        rows: NDArray[np.int64] | None = None,
        shrinkage: float = SHRINKAGE,
        dimension: int = DIMENSION,
    ) -> Scaling:
        """The scaling under which the covariance within labels, plus a share of the identity, is the identity.

        The share is `shrinkage` times the mean variance, so that directions of no variance are not blown up. The
        features are turned so that the first have the largest variance in all, and the last are dropped. For several
        labels an item there is no covariance within labels, and the whole one takes its place.

        Args:
            embeddings: (N, D) float32.
            y: (R,) int class numbers from 0, or (R, C) bool, of the rows.
            rows: (R,) which rows; None for all.
            shrinkage: Above 0; the more, the less is changed.
            dimension: The most features to keep.

        Source: within-class covariance normalisation, Hatch, Kajarekar, Stolcke (Interspeech 2006).
        """
        from scipy.linalg import eigh

        count, classes = len(y), int(y.max()) + 1 if y.ndim == 1 else 0
        mean = np.zeros(embeddings.shape[1])
        for _, part in _parts(embeddings, rows):
            mean += part.sum(axis=0, dtype=np.float64) / count
        total = np.zeros((len(mean), len(mean)), np.float32)
        sums = np.zeros((classes, len(mean)), np.float32)
        for place, part in _parts(embeddings, rows):
            centred = part - mean.astype(np.float32)
            total += centred.T @ centred
            if classes:
                sums += one_hot(y[place], classes).T.astype(np.float32) @ centred
        total /= count
        within = total.copy()
        if classes:
            # (C, D), the label means less the whole one, weighed by how often they occur
            means = sums / np.sqrt(np.bincount(y).clip(min=1) * count)[:, None].astype(np.float32)
            within -= means.T @ means
        width = len(mean)
        # Where each row has a label of its own nothing is left within labels but rounding.
        share = max(shrinkage * np.trace(within), 1e-3 * np.trace(total), 1e-12) / width
        within[np.diag_indices(width)] += share
        kept = (max(0, width - dimension), width - 1)
        # Both are symmetric; turned round they lie in memory as LAPACK wants them, and are not copied.
        _, directions = eigh(
            total.T, within.T, subset_by_index=kept, overwrite_a=True, overwrite_b=True, check_finite=False
        )
        return cls(mean.astype(np.float32), np.ascontiguousarray(directions[:, ::-1], np.float32))

    def narrowed(self, dimension: int) -> Scaling:
        """The scaling to the first features only, which have the largest variance."""
        return Scaling(self.mean, np.ascontiguousarray(self.projection[:, :dimension]))

    def transform(self, embeddings: NDArray[np.float32], rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """The features, (R, E), of some rows of (B, D) embeddings, or all.

        Raises:
            HeadError: Another dimension.
        """
        check_query(embeddings, len(self.mean))
        features = np.empty((len(embeddings) if rows is None else len(rows), self.projection.shape[1]), np.float32)
        for place, part in _parts(embeddings, rows):
            np.matmul(part, self.projection, out=features[place])
        features -= self.mean @ self.projection
        return features


def _parts(
    embeddings: NDArray[np.float32], rows: NDArray[np.int64] | None
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Some rows a part at a time, and their places among those asked for; memory is that of a part."""
    count = len(embeddings) if rows is None else len(rows)
    for start in range(0, count, _ROWS):
        place = slice(start, min(start + _ROWS, count))
        yield place, embeddings[place] if rows is None else embeddings[rows[place]]
