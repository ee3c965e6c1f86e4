"""The contract of every head: embeddings in, probabilities out, in scikit-learn's manners."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from heads.checks import HeadError, check_query, check_training
from heads.folds import assign_folds
from heads.logits import log_odds, run_layers
from heads.sample import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heads.logits import Layers

# Of rows, those to learn from and how much each counts; None for all alike.
Sampling = Callable[["NDArray[np.int64]"], tuple["NDArray[np.int64]", "NDArray[np.float32] | None"]]


class Head(ABC):
    """Predicts labels from embeddings.

    What `fit` learned ends in an underscore. Settings that are None are chosen on validation photos by `fit` and can be
    read from `settings_` afterwards.

    A target with one label an item has `y` (N,) of class names or numbers, and probabilities that sum to 1. One with
    several (multi-label) has `y` (N, C) bool, and a probability of its own for each label.
    """

    kind: ClassVar[str]

    classes_: NDArray[Any]
    multi_label_: bool
    settings_: dict[str, Any]

    @abstractmethod
    def fit(
        self,
        embeddings: NDArray[np.float32],
        y: NDArray[Any],
        *,
        folds: NDArray[np.int64] | None = None,
        weights: NDArray[np.float32] | None = None,
    ) -> Self:
        """Learns from labelled embeddings.

        Args:
            embeddings: (N, D) float32.
            y: (N,) the label of each, or (N, C) bool which labels each has.
            folds: (N,) int, the fold of each; open settings are chosen with fold 0 as validation. None divides
                the rows by `heads.folds.assign_folds`.
            weights: (N,) how much each row counts, positive; None for all alike.

        Raises:
            HeadError: Shapes that do not fit, values that are not finite, fewer than two labels, or none
                in fold 0 that other folds have too, where settings are open.
        """

    @abstractmethod
    def predict_proba(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probabilities, (B, C) in the order of `classes_`, of (B, D) embeddings.

        Raises:
            HeadError: Another dimension than the head was fitted on.
        """

    def logits(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the head says before it becomes probabilities, (B, C), of (B, D) embeddings.

        A head without `layers` has none of its own and gives log odds: of its probabilities, or kNN of more votes.

        Raises:
            HeadError: As `predict_proba`.
        """
        if not self.layers:
            return log_odds(self.predict_proba(embeddings))
        check_query(embeddings, len(self.layers[0][0]))
        return run_layers(self.layers, embeddings)

    @property
    def layers(self) -> Layers:
        """The matrices (D_in, D_out) and biases (D_out,) whose last one gives logits, with a ReLU between each two.

        Empty for a head that is no such network.
        """
        return []

    def predict(self, embeddings: NDArray[np.float32]) -> NDArray[Any]:
        """The likeliest label of each, (B,); for several labels an item, which are likelier than not, (B, C) bool."""
        probabilities = self.predict_proba(embeddings)
        predicted: NDArray[Any] = probabilities > 0.5 if self.multi_label_ else self.classes_[probabilities.argmax(1)]
        return predicted

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What was learned, by name, for storage."""

    @classmethod
    @abstractmethod
    def restored(
        cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], classes: NDArray[Any], multi_label: bool
    ) -> Self:
        """The head that had these settings and arrays."""


class BaseHead(Head):
    """A head that learns from a sample; several that learn from the same rows share it."""

    def fit(
        self,
        embeddings: NDArray[np.float32],
        y: NDArray[Any],
        *,
        folds: NDArray[np.int64] | None = None,
        weights: NDArray[np.float32] | None = None,
    ) -> Self:
        """As `Head.fit`."""
        y = np.asarray(y)
        check_training(embeddings, y, weights)
        folds = assign_folds(y) if folds is None else folds
        fit_together([self], embeddings, y, folds=folds, sampling=sampling_of(weights))
        return self

    @abstractmethod
    def chosen(self) -> Self:
        """An unfitted head with the settings that this one has chosen, to learn from other rows."""

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether a setting is still to be chosen."""

    @abstractmethod
    def choose(self, sample: Sample, features: NDArray[np.float32], truth: NDArray[np.bool_]) -> None:
        """Chooses open settings, `settings_`, by the calibrated log loss on validation rows.

        Args:
            sample: What trial heads learn from.
            features: (V, E), validation rows in the sample's scaling.
            truth: (V, C) bool, their labels by the sample's classes, one or more each.
        """

    @abstractmethod
    def learn(self, sample: Sample) -> Self:
        """Learns from a sample, with settings that were given or chosen."""


def sampling_of(weights: NDArray[np.float32] | None) -> Sampling:
    """All rows, with the weights (N,) that they have; None for all alike."""
    return lambda rows: (rows, None if weights is None else weights[rows])


def fit_together(
    heads: Sequence[BaseHead],
    embeddings: NDArray[np.float32],
    y: NDArray[Any],
    *,
    folds: NDArray[np.int64],
    sampling: Sampling,
) -> None:
    """Fits heads on the same rows, which are scaled once for all of them.

    Args:
        heads: Unfitted.
        embeddings: (N, D).
        y: As in `Head.fit`.
        folds: (N,); open settings are chosen with fold 0 as validation.
        sampling: Of rows, those to learn from, and their weights.

    Raises:
        HeadError: Settings are open, and fold 0 has no row to choose them on.
    """
    still_open = [head for head in heads if head.is_open]
    if still_open:
        rows, weights = sampling(np.flatnonzero(folds != 0))
        asked = np.flatnonzero(folds == 0)
        sample = Sample.of(embeddings, y, rows, weights)
        # (V, C), which of the sample's classes each validation row has; one of a label that it lacks tells nothing
        truth = y[asked][:, sample.classes] if sample.multi_label else y[asked][:, None] == sample.classes
        known = truth.any(axis=1)
        if not known.any():
            raise HeadError(
                f"Settings are chosen on the rows of fold 0; of {len(asked)} none has a label of other folds. Give "
                f"more rows, or all settings."
            )
        features, truth = sample.scaling.transform(embeddings, asked[known]), truth[known]
        for head in still_open:
            head.choose(sample, features, truth)
        del sample, features
    rows, weights = sampling(np.arange(len(y)))
    whole = Sample.of(embeddings, y, rows, weights)
    for head in heads:
        head.learn(whole)
