"""Calibration: probabilities that mean what they say, by one temperature fitted on photos new to the head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from heads.checks import HeadError
from heads.logits import sigmoid, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Further probabilities than this from 0 and 1 mean nothing with a few thousand photos.
_LEAST = 1e-6
_COLDEST, _HOTTEST = 0.05, 20.0


def fit_temperature(truth: NDArray[np.bool_], probabilities: NDArray[np.float32], *, multi_label: bool) -> float:
    """The temperature, 0.05..20, under which the log loss is least.

    Args:
        truth: (N, C) bool: which labels each row has; one each unless `multi_label`.
        probabilities: (N, C), of rows that the head was not fitted on.
        multi_label: Each label has a probability of its own.

    Raises:
        HeadError: No rows, or shapes that differ.

    Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks" (ICML 2017), section 4.2.
    """
    from scipy.optimize import minimize_scalar

    if truth.shape != probabilities.shape or not len(truth):
        raise HeadError(
            f"A temperature needs as many labels as probabilities; got {truth.shape}, {probabilities.shape}."
        )

    def loss(log_temperature: float) -> float:
        return log_loss_at(float(np.exp(log_temperature)), truth, probabilities, multi_label=multi_label)

    bounds = (float(np.log(_COLDEST)), float(np.log(_HOTTEST)))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-3}).x))


def apply_temperature(
    probabilities: NDArray[np.float32], temperature: float, *, multi_label: bool
) -> NDArray[np.float32]:
    """Probabilities (B, C) with their logits divided by the temperature; above 1 they become less sure.

    Args:
        probabilities: (B, C).
        temperature: Above 0.
        multi_label: Each label has a probability of its own; otherwise they sum to 1.
    """
    likely = probabilities.clip(_LEAST, 1 - _LEAST)
    if multi_label:
        return sigmoid((np.log(likely) - np.log1p(-likely)) / np.float32(temperature))
    return softmax(np.log(likely) / np.float32(temperature))


def log_loss_at(
    temperature: float, truth: NDArray[np.bool_], probabilities: NDArray[np.float32], *, multi_label: bool
) -> float:
    """The mean log loss under a temperature; for several labels an item, the mean over labels too."""
    likely = apply_temperature(probabilities, temperature, multi_label=multi_label).clip(_LEAST, 1 - _LEAST)
    if multi_label:
        return float(-np.where(truth, np.log(likely), np.log1p(-likely)).mean(dtype=np.float64))
    return float(-np.log(likely[truth]).mean(dtype=np.float64))


def calibrated_log_loss(truth: NDArray[np.bool_], probabilities: NDArray[np.float32], *, multi_label: bool) -> float:
    """The log loss under the best temperature; settings are chosen by it, since a temperature is fitted afterwards."""
    temperature = fit_temperature(truth, probabilities, multi_label=multi_label)
    return log_loss_at(temperature, truth, probabilities, multi_label=multi_label)


def choose_thresholds(truth: NDArray[np.bool_], probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probability, (C,), from which on an item has each label: the one of the best F1.

    It is 0.5 for a label of no row, and for one that every row would best have though most have it not: the head has
    not learned it, as where all its photos are of one product.

    Args:
        truth: (N, C) bool.
        probabilities: (N, C), calibrated, of rows that the head was not fitted on.
    """
    thresholds = np.full(truth.shape[1], 0.5, np.float32)
    for label in np.flatnonzero(truth.any(axis=0)):
        order = np.argsort(-probabilities[:, label], kind="stable")
        values, hits = probabilities[order, label], np.cumsum(truth[order, label])
        # F1 where the first n are taken; equal probabilities are taken together.
        scores = 2 * hits / (np.arange(1, len(order) + 1) + hits[-1])
        scores[:-1][values[:-1] == values[1:]] = 0
        best = int(scores.argmax())
        if best + 1 == len(order) and 2 * hits[-1] < len(order):
            continue
        below = values[best + 1] if best + 1 < len(values) else values[best] / 2
        # Half way to the next photo, which has none.
        thresholds[label] = (values[best] + below) / 2
    return thresholds
