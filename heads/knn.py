"""The kNN head: the labels of the most similar training photos, whose weights are its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from heads.calibration import calibrated_log_loss
from heads.checks import HeadError
from heads.head import BaseHead
from heads.logits import softmax
from heads.sample import Sample
from heads.scaling import Scaling

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEIGHBOURS = (5, 10, 20, 50)
TEMPERATURES = (0.02, 0.05, 0.1, 0.2)
# Colour lives in few directions, the cut of a season in many.
DIMENSIONS = (64, 128, 256, 512)
# Queries that are compared at once, so that similarities take 1 MB and their order 2.
_SIMILARITIES = 1 << 18


@dataclass(frozen=True, slots=True)
class Votes:
    """The training rows that voted on B queries.

    Args:
        rows: (B, k) int64, most similar first.
        similarities: (B, k) float32, cosine in the head's scaling.
        weights: (B, k) float32, which sum to 1.
    """

    rows: NDArray[np.int64]
    similarities: NDArray[np.float32]
    weights: NDArray[np.float32]


class KnnHead(BaseHead):
    """A vote of the k most similar training photos, each weighing exp(cosine / temperature).

    One further vote goes to the labels by their frequency, so that no label is impossible.

    Args:
        k: Neighbours that vote, 1 or more; None chooses it by calibrated log loss on validation.
        temperature: Of the weights, above 0; the lower, the more the nearest counts. None chooses it.
        dimension: Features of the scaling that similarity is measured in; None chooses it.

    Attributes:
        features_: (N, E) float32.
        lengths_: (N,) float32, of the features.
        labels_: (N,) int64 class numbers, or (N, C) bool.
        weights_: (N,) float32, how much a row's vote counts; 1 in the mean.
        scaling_: From embeddings to features.

    Source: the weights are those of Wu, Xiong, Yu, Lin (CVPR 2018), as in dinov2/eval/knn.py, normalised over the k
    that vote.
    """

    kind = "knn"
    features_: NDArray[np.float32]
    lengths_: NDArray[np.float32]
    labels_: NDArray[Any]
    weights_: NDArray[np.float32]
    scaling_: Scaling

    def __init__(self, *, k: int | None = None, temperature: float | None = None, dimension: int | None = None) -> None:
        for name, value in (("k", k), ("temperature", temperature), ("dimension", dimension)):
            if value is not None and not value > 0:
                raise HeadError(f"'{name}' is a number above 0, or None to choose it; got {value}.")
        self.k, self.temperature, self.dimension = k, temperature, dimension

    def fit(
        self,
        embeddings: NDArray[np.float32],
        y: NDArray[Any],
        *,
        folds: NDArray[np.int64] | None = None,
        weights: NDArray[np.float32] | None = None,
    ) -> Self:
        """As `Head.fit`; a row's weight multiplies its vote.

        Raises:
            HeadError: Also for k larger than the number of rows.
        """
        if self.k is not None and self.k > len(embeddings):
            raise HeadError(f"'k' is at most the number of labelled items, {len(embeddings)}; got {self.k}.")
        return super().fit(embeddings, y, folds=folds, weights=weights)

    @property
    def is_open(self) -> bool:
        """As `BaseHead.is_open`."""
        return None in (self.k, self.temperature, self.dimension)

    def choose(self, sample: Sample, features: NDArray[np.float32], truth: NDArray[np.bool_]) -> None:
        """As `BaseHead.choose`: the dimension first, with the middle of the others, then these together."""
        trial = type(self)(k=1, temperature=1.0, dimension=1).learn(sample)
        rows, width = sample.features.shape
        ks = sorted({min(k, rows) for k in NEIGHBOURS}) if self.k is None else [self.k]
        temperatures = TEMPERATURES if self.temperature is None else (self.temperature,)
        dimensions = sorted({min(d, width) for d in DIMENSIONS}) if self.dimension is None else [self.dimension]
        found: dict[int, tuple[NDArray[np.int64], NDArray[np.float32]]] = {}

        def loss(k: int, temperature: float, dimension: int) -> float:
            if dimension not in found:
                known, asked = sample.features[:, :dimension], features[:, :dimension]
                found[dimension] = nearest(known, asked, min(max(ks), rows))
            voters, similarities = found[dimension][0][:, :k], found[dimension][1][:, :k]
            shares = trial.share(Votes(voters, similarities, _weigh(similarities, temperature)))
            return calibrated_log_loss(truth, shares, multi_label=sample.multi_label)

        middle = ks[len(ks) // 2], temperatures[len(temperatures) // 2]
        dimension = min(dimensions, key=lambda d: loss(*middle, d)) if len(dimensions) > 1 else dimensions[0]
        k, temperature = min(product(ks, temperatures), key=lambda pair: loss(pair[0], pair[1], dimension))
        self.settings_ = {"k": k, "temperature": temperature, "dimension": dimension}

    def learn(self, sample: Sample) -> Self:
        """As `BaseHead.learn`; where fewer than k rows are left, as in a trial without some labels, all vote."""
        if not self.is_open:
            self.settings_ = {"k": self.k, "temperature": self.temperature, "dimension": self.dimension}
        self.classes_, self.multi_label_ = sample.classes, sample.multi_label
        self.labels_, self.weights_ = sample.y, sample.weights
        self.scaling_ = sample.scaling.narrowed(self.settings_["dimension"])
        # Nothing is copied where all features count.
        self.features_ = np.ascontiguousarray(sample.features[:, : self.settings_["dimension"]])
        self.lengths_ = _lengths(self.features_)
        return self

    def predict_proba(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `Head.predict_proba`."""
        return self.share(self.neighbours(embeddings))

    def logits(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `Head.logits`: the log odds of each label, (B, C), if all rows voted, and not the nearest k alone.

        The nearest k mostly agree, and go on doing so when a photo changes a little; these odds move with it.
        """
        cosines = _cosines(self.features_, self.scaling_.transform(embeddings), self.lengths_)
        votes = cosines / np.float32(self.settings_["temperature"]) + np.log(self.weights_)
        has = self.labels_.T if self.multi_label_ else self.labels_ == np.arange(len(self.classes_))[:, None]
        logits = [_log_sum(votes[:, one]) - _log_sum(votes[:, ~one]) for one in has]
        return np.stack(logits, axis=1)

    def neighbours(self, embeddings: NDArray[np.float32]) -> Votes:
        """The training rows that vote on (B, D) embeddings, and how much each says.

        Raises:
            HeadError: Another dimension than the head was fitted on.
        """
        k, temperature = min(self.settings_["k"], len(self.features_)), self.settings_["temperature"]
        rows, similarities = nearest(self.features_, self.scaling_.transform(embeddings), k, lengths=self.lengths_)
        return Votes(rows, similarities, _weigh(similarities, temperature))

    def chosen(self) -> Self:
        """As `BaseHead.chosen`."""
        return type(self)(**self.settings_)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As `Head.arrays`."""
        return {
            "features": self.features_,
            "labels": self.labels_,
            "weights": self.weights_,
            "mean": self.scaling_.mean,
            "projection": self.scaling_.projection,
        }

    @classmethod
    def restored(
        cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], classes: NDArray[Any], multi_label: bool
    ) -> Self:
        """As `Head.restored`."""
        head = cls(**settings)
        head.classes_, head.multi_label_, head.settings_ = classes, multi_label, dict(settings)
        head.features_, head.lengths_ = arrays["features"], _lengths(arrays["features"])
        head.labels_, head.weights_ = arrays["labels"], arrays["weights"]
        head.scaling_ = Scaling(arrays["mean"], arrays["projection"])
        return head

    def share(self, votes: Votes) -> NDArray[np.float32]:
        """The probabilities, (B, C), of `predict_proba`: the labels' shares of the votes and of one by frequency."""
        weights = votes.weights * self.weights_[votes.rows]
        weights *= votes.rows.shape[1] / weights.sum(axis=1, keepdims=True)
        if self.multi_label_:
            shares = np.einsum("bk,bkc->bc", weights, self.labels_[votes.rows])
            prior = self.weights_ @ self.labels_ / len(self.labels_)
        else:
            shares = np.zeros((len(weights), len(self.classes_)), np.float32)
            np.add.at(shares, (np.arange(len(weights))[:, None], self.labels_[votes.rows]), weights)
            prior = np.bincount(self.labels_, self.weights_, len(self.classes_)) / len(self.labels_)
        probabilities: NDArray[np.float32] = ((shares + prior) / (votes.rows.shape[1] + 1)).astype(np.float32)
        return probabilities


def _weigh(similarities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Weights (B, k), which sum to 1."""
    return softmax(similarities / np.float32(temperature))


def _cosines(
    features: NDArray[np.float32], queries: NDArray[np.float32], lengths: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The cosines, (B, N), of queries (B, E) with features (N, E) of lengths (N,)."""
    cosines = queries @ features.T
    cosines /= lengths
    cosines /= _lengths(queries)[:, None]
    return cosines


def _log_sum(votes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logarithm of the sum of exponentials, (B,), of (B, M); of no votes it is that of the least float32."""
    if not votes.shape[1]:
        return np.full(len(votes), np.log(np.finfo(np.float32).tiny), np.float32)
    sums: NDArray[np.float32] = np.logaddexp.reduce(votes, axis=1)
    return sums


def _lengths(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """The length of each row, (N,); a row of zeros is like nothing, whatever its length."""
    lengths: NDArray[np.float32] = np.sqrt(np.einsum("ne,ne->n", features, features)).clip(min=1e-12)
    return lengths


def nearest(
    features: NDArray[np.float32],
    queries: NDArray[np.float32],
    k: int,
    *,
    lengths: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k most similar rows for each query, (B, k), and their cosines, best first; of equals the lower row first.

    Where the k-th has equals, any of them is taken.

    Args:
        features: (N, E) float32.
        queries: (B, E) likewise.
        k: 1..N.
        lengths: (N,) of the features, above 0; None works them out.
    """
    rows, similarities = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    lengths = _lengths(features) if lengths is None else lengths
    own = _lengths(queries)
    step = max(1, _SIMILARITIES // len(features))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        cosines = queries[part] @ features.T
        cosines /= lengths
        best = np.argpartition(-cosines, k - 1, axis=1)[:, :k] if k < len(features) else np.argsort(-cosines, axis=1)
        values = np.take_along_axis(cosines, best, axis=1)
        order = np.lexsort((best, -values), axis=1)
        rows[part] = np.take_along_axis(best, order, axis=1)
        similarities[part] = np.take_along_axis(values, order, axis=1) / own[part, None]
    return rows, similarities
