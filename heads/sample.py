"""A sample: labelled rows as heads see them, scaled once for all heads that learn from the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.logits import one_hot
from heads.scaling import Scaling

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows to learn from.

    Args:
        scaling: Fitted on these rows.
        features: (N, E) float32, the scaled rows.
        classes: (C,) the labels that these rows have, in order; of several labels an item the columns.
        y: (N,) int64 places in `classes`, or (N, C) bool.
        weights: (N,) float32, how much each row counts, of mean 1.
    """

    scaling: Scaling
    features: NDArray[np.float32]
    classes: NDArray[Any]
    y: NDArray[Any]
    weights: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        embeddings: NDArray[np.float32],
        y: NDArray[Any],
        rows: NDArray[np.int64] | None = None,
        weights: NDArray[np.float32] | None = None,
    ) -> Sample:
        """Some rows of (N, D) embeddings, or all.

        Args:
            embeddings: (N, D) float32; nothing of their size is copied.
            y: (N,) labels, or (N, C) bool.
            rows: (R,) which rows; None for all.
            weights: (R,) of those rows, positive; None for all alike.
        """
        labels = y if rows is None else y[rows]
        if labels.ndim == 1:
            classes, numbers = np.unique(labels, return_inverse=True)
        else:
            classes = np.flatnonzero(labels.any(axis=0))
            numbers = labels[:, classes]
        scaling = Scaling.fit(embeddings, numbers, rows=rows)
        counts = np.ones(len(labels), np.float32) if weights is None else weights / weights.mean()
        return cls(scaling, scaling.transform(embeddings, rows), classes, numbers, counts.astype(np.float32))

    @property
    def multi_label(self) -> bool:
        """Whether an item may have several labels."""
        return self.y.ndim == 2

    @property
    def truth(self) -> NDArray[np.bool_]:
        """(N, C) bool."""
        return self.y if self.multi_label else one_hot(self.y, len(self.classes))
