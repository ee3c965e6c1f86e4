"""Prediction sets: the labels that hold the true one in a chosen share of cases, whatever the head gets wrong."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from heads.checks import HeadError

if TYPE_CHECKING:
    from numpy.typing import NDArray

COVERAGE = 0.9


def conformal_scores(truth: NDArray[np.bool_], probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """How little probability the true labels got, `1 - p`, ascending (N,).

    Args:
        truth: (N, C) bool, one label each.
        probabilities: (N, C), calibrated, of rows that the head was not fitted on.
    """
    scores: NDArray[np.float32] = np.sort(1 - probabilities[truth])
    return scores


def prediction_sets(
    probabilities: NDArray[np.float32], scores: NDArray[np.float32], *, coverage: float = COVERAGE
) -> NDArray[np.bool_]:
    """The labels, (B, C) bool, that together hold the true one with probability `coverage`.

    A label is in the set where it is no less likely than the true label was in that share of validation photos. A set
    is empty where not even the likeliest label is: the photo is harder than that share of known ones.

    Args:
        probabilities: (B, C), calibrated.
        scores: (N,) of `conformal_scores`.
        coverage: Above 0 and below 1.

    Raises:
        HeadError: Another coverage.

    Source: split conformal prediction with the score of Sadinle, Lei, Wasserman, "Least Ambiguous Set-Valued
    Classifiers with Bounded Error Levels" (JASA 2019); the quantile is that of Angelopoulos, Bates, "A Gentle
    Introduction to Conformal Prediction" (2021), section 1.
    """
    if not 0 < coverage < 1:
        raise HeadError(f"'coverage' is a share above 0 and below 1, for example 0.9; got {coverage}.")
    place = math.ceil((len(scores) + 1) * coverage) - 1
    # With too few validation photos only the set of all labels is sure enough.
    largest = scores[place] if place < len(scores) else np.float32(1)
    sets: NDArray[np.bool_] = 1 - probabilities <= largest
    return sets
