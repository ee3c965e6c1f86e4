"""What is learned about a head from photos that it has not seen: calibration, prediction sets, and how good it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.calibration import apply_temperature, choose_thresholds, fit_temperature
from heads.conformal import COVERAGE, conformal_scores, prediction_sets
from heads.metrics import (
    accuracy,
    calibration_error,
    label_scores,
    log_loss,
    macro,
    micro_f1,
    multi_label_log_loss,
    multi_label_scores,
    wilson_interval,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heads.novelty import Novelty


@dataclass(frozen=True, slots=True)
class Calibration:
    """What makes a head's probabilities mean what they say; the fields are those of heads.fitted.FittedHead.

    Args:
        temperature: Of heads.calibration.
        scores: (M,) float32 ascending; empty for several labels an item.
        novelty: None for several labels an item, or where nothing tells.
        thresholds: (C,) float32; None where an item has one label.
        figures: How good it is, by name, JSON-ready.
    """

    temperature: float
    scores: NDArray[np.float32]
    novelty: Novelty | None
    thresholds: NDArray[np.float32] | None
    figures: dict[str, Any]


def calibrate(
    truth: NDArray[np.bool_],
    said: NDArray[np.float32],
    *,
    multi_label: bool,
    novelty_at: Callable[[float], Novelty | None],
    seed: int = 0,
) -> Calibration:
    """What follows from what a head says of photos that are new to it; figures are of halves held back from each other.

    Args:
        truth: (M, C) bool, which labels each photo has; one each unless `multi_label`. Two photos or more.
        said: (M, C), the head's own probabilities of them.
        multi_label: Each label has a probability of its own.
        novelty_at: Gives the scale of strangeness for a temperature; asked where an item has one label.
        seed: Of the halves.

    Raises:
        HeadError: Shapes that differ.
    """
    temperature = fit_temperature(truth, said, multi_label=multi_label)
    calibrated = apply_temperature(said, temperature, multi_label=multi_label)
    held_back = _held_back(truth, said, multi_label=multi_label, seed=seed)
    known: dict[str, Any] = {"photos": len(said)}
    if multi_label:
        thresholds = choose_thresholds(truth, calibrated)
        figures = known | _multi_label_figures(truth, held_back, thresholds) | {"temperature": temperature}
        return Calibration(temperature, np.zeros(0, np.float32), None, thresholds, figures)
    novelty = novelty_at(temperature)
    rates = dict(novelty.rates) if novelty else {}
    figures = known | _figures(truth.argmax(axis=1), said, held_back) | rates | {"temperature": temperature}
    return Calibration(temperature, conformal_scores(truth, calibrated), novelty, None, figures)


def _held_back(
    truth: NDArray[np.bool_], said: NDArray[np.float32], *, multi_label: bool, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Probabilities and prediction sets, (M, C) each, of each half of the rows by what the other half gives."""
    half = np.random.default_rng(seed).permutation(len(truth)) < len(truth) // 2
    calibrated, sets = np.empty_like(said), np.zeros(truth.shape, bool)
    for own in (half, ~half):
        temperature = fit_temperature(truth[~own], said[~own], multi_label=multi_label)
        calibrated[own] = apply_temperature(said[own], temperature, multi_label=multi_label)
        if not multi_label:
            other = apply_temperature(said[~own], temperature, multi_label=False)
            sets[own] = prediction_sets(calibrated[own], conformal_scores(truth[~own], other))
    return calibrated, sets


def _figures(
    y: NDArray[np.int64], said: NDArray[np.float32], held_back: tuple[NDArray[np.float32], NDArray[np.bool_]]
) -> dict[str, Any]:
    """How good a head is on photos that it was not fitted on, of one label each."""
    calibrated, sets = held_back
    predicted = calibrated.argmax(axis=1)
    right, covered = predicted == y, sets[np.arange(len(y)), y]
    low, high = wilson_interval(int(right.sum()), len(y))
    return {
        "accuracy": accuracy(y, predicted),
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": macro(label_scores(y, predicted, calibrated.shape[1])).f1,
        "log_loss": log_loss(y, calibrated),
        "calibration_error_before": calibration_error(said.max(axis=1), said.argmax(axis=1) == y),
        "calibration_error": calibration_error(calibrated.max(axis=1), right),
        "coverage_wanted": COVERAGE,
        "coverage": float(covered.mean()),
        "set_size": float(sets.sum(axis=1).mean()),
        "empty_sets": float((~sets.any(axis=1)).mean()),
    }


def _multi_label_figures(
    truth: NDArray[np.bool_],
    held_back: tuple[NDArray[np.float32], NDArray[np.bool_]],
    thresholds: NDArray[np.float32],
) -> dict[str, Any]:
    """How good a head is on photos that it was not fitted on, of several labels each; thresholds are of the same."""
    calibrated = held_back[0]
    predicted = calibrated >= thresholds
    return {
        "micro_f1": micro_f1(truth, predicted),
        "macro_f1": macro(multi_label_scores(truth, predicted)).f1,
        "log_loss": multi_label_log_loss(truth, calibrated),
    }
