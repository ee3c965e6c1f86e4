"""Small made-up embeddings whose labels can be learned, and a head that learns by heart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heads.checks import check_training
from heads.head import Head
from heads.logits import one_hot


def clusters(
    count: int = 200, *, labels: int = 4, dimension: int = 16, spread: float = 0.15, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit embeddings around a centre a label, and class numbers as often each; the centres are the same for all seeds.

    With a spread of 0.15 all can be told apart, with 0.5 four fifths, with 1 half.
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


class Memory(Head):
    """Certain of the rows that it was fitted on; of all others it knows nothing."""

    kind = "memory"

    def fit(self, embeddings, y, *, folds=None, weights=None):  # noqa: ARG002 - the contract has them
        """As `Head.fit`; keeps what it was given."""
        self.classes_, numbers = check_training(embeddings, y, weights)
        self.multi_label_ = numbers.ndim == 2
        truth = numbers if self.multi_label_ else one_hot(numbers, len(self.classes_))
        self.known_ = {row.tobytes(): labels for row, labels in zip(embeddings, truth, strict=True)}
        self.embeddings_, self.y_, self.weights_, self.settings_ = embeddings, y, weights, {}
        return self

    def predict_proba(self, embeddings):
        """As `Head.predict_proba`."""
        nothing = np.full(len(self.classes_), 0.5 if self.multi_label_ else 1 / len(self.classes_))
        return np.array([self.known_.get(row.tobytes(), nothing) for row in embeddings], np.float32)

    def chosen(self):
        """As `Head.chosen`."""
        return Memory()

    def arrays(self):
        """As `Head.arrays`; it is not stored."""
        return {}

    @classmethod
    def restored(cls, settings, arrays, classes, multi_label):
        """As `Head.restored`; it is not stored."""
        raise NotImplementedError
