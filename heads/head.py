"""The contract of every head: embeddings in, probabilities out, in scikit-learn's manners."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class HeadError(ValueError):
    """A head that cannot be fitted or asked; the message says what was wanted, what came, and what to do next."""


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
            HeadError: Shapes that do not fit, values that are not finite, or fewer than two labels.
        """

    @abstractmethod
    def predict_proba(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probabilities, (B, C) in the order of `classes_`, of (B, D) embeddings.

        Raises:
            HeadError: Another dimension than the head was fitted on.
        """

    def predict(self, embeddings: NDArray[np.float32]) -> NDArray[Any]:
        """The likeliest label of each, (B,); for several labels an item, which are likelier than not, (B, C) bool."""
        probabilities = self.predict_proba(embeddings)
        predicted: NDArray[Any] = probabilities > 0.5 if self.multi_label_ else self.classes_[probabilities.argmax(1)]
        return predicted

    @abstractmethod
    def chosen(self) -> Self:
        """An unfitted head with the settings that this one has chosen, to be fitted on other rows."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What was learned, by name, for storage."""

    @classmethod
    @abstractmethod
    def restored(
        cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], classes: NDArray[Any], multi_label: bool
    ) -> Self:
        """The head that had these settings and arrays."""


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


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities, (B, C) that sum to 1, of logits (B, C)."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float32] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities, each by itself, of logits of any shape; no overflow for large ones."""
    probabilities: NDArray[np.float32] = np.exp(-np.logaddexp(0, -logits))
    return probabilities


def one_hot(numbers: NDArray[np.int64], class_count: int) -> NDArray[np.bool_]:
    """(N, C) bool of class numbers (N,)."""
    truth = np.zeros((len(numbers), class_count), bool)
    truth[np.arange(len(numbers)), numbers] = True
    return truth
