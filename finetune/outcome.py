"""How training goes: its epochs, its progress, what it says of validation photos, and what it came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training photos, and how good the network was after it.

    Args:
        number: From 1, over all stages.
        stage: From 1.
        train_loss: Mean over photos, as trained: summed over targets, of changed photos.
        train_accuracy: Mean over targets, of changed photos, 0..1.
        validation_loss: Mean cross-entropy, summed over targets by their weights.
        validation_accuracy: Mean over targets, 0..1.
        accuracies: Of validation, by target.
        rate: Highest learning rate of the backbone in the stage; 0 where it is closed.
        head_rate: And of the classifier.
        photos: That were learned from.
        seconds: That it took, validation apart.
        validation_seconds: That this took.
        is_best: Whether it was the best so far.
        unreadable: Photos that could not be read so far.
    """

    number: int
    stage: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    accuracies: Mapping[str, float]
    rate: float
    head_rate: float
    photos: int
    seconds: float
    validation_seconds: float
    is_best: bool
    unreadable: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far training is.

    Args:
        stage: From 1.
        stages: Of the recipe.
        epoch: From 1.
        epochs: Of all stages.
        step: Of the epoch, from 1.
        steps: Of the epoch.
        loss: Mean of the epoch so far.
        accuracy: Likewise, 0..1.
        photos_per_second: Since training began or went on.
        eta_s: Seconds to the end at that rate.
    """

    stage: int
    stages: int
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    photos_per_second: float
    eta_s: float


@dataclass(frozen=True, slots=True)
class Validation:
    """What the network says of V validation photos.

    Args:
        item_ids: Of the photos that could be read.
        logits: By target (V, C) float32.
        y: By target (V,) int64 class numbers, -1 without a label that is learned.
    """

    item_ids: tuple[str, ...]
    logits: Mapping[str, NDArray[np.float32]]
    y: Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Trained:
    """How training went.

    Args:
        epochs: In order, those before a resume too.
        best: Number of the epoch that was kept.
        stopped: Why it ended before the recipe did; empty where it did not.
        diverged: Whether that was because the loss left for good, so that a smaller rate is wanted.
        validation: Of the best epoch.
        seconds: Of all epochs.
        unreadable: By item_id, why a photo could not be read.
        device: `cpu` or `cuda`.
        precision: `fp32` or `bf16`.
    """

    epochs: tuple[Epoch, ...]
    best: int
    stopped: str
    diverged: bool
    validation: Validation
    seconds: float
    unreadable: Mapping[str, str]
    device: str
    precision: str
