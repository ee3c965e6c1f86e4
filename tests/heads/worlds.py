"""Small made-up embeddings whose labels can be learned, and a head that learns by heart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heads.head import BaseHead


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


class Memory(BaseHead):
    """Certain of the rows that it learned from; of all others it knows nothing."""

    kind = "memory"
    is_open = False

    def choose(self, sample, features, truth):
        """As `BaseHead.choose`; there is nothing to choose."""
        raise NotImplementedError

    def learn(self, sample):
        """As `BaseHead.learn`; keeps the sample."""
        self.sample_, self.classes_, self.multi_label_, self.settings_ = sample, sample.classes, sample.multi_label, {}
        return self

    def predict_proba(self, embeddings):
        """As `Head.predict_proba`."""
        nothing = 0.5 if self.multi_label_ else 1 / len(self.classes_)
        features = self.sample_.scaling.transform(embeddings)
        # how far each query is from each row, (B, N)
        distances = np.linalg.norm(features[:, None] - self.sample_.features, axis=2)
        known = distances.min(axis=1, keepdims=True) < 1e-3
        return np.where(known, self.sample_.truth[distances.argmin(axis=1)], nothing).astype(np.float32)

    def chosen(self):
        """As `BaseHead.chosen`."""
        return type(self)()

    def arrays(self):
        """As `Head.arrays`; it is not stored."""
        return {}

    @classmethod
    def restored(cls, settings, arrays, classes, multi_label):
        """As `Head.restored`; it is not stored."""
        raise NotImplementedError
