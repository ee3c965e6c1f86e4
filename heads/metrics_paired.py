"""Which of two heads is better on the same photos: McNemar's test, and the interval of the difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.metrics import Bools, MetricError

Values = NDArray[np.floating[Any]] | Bools

# A winner is named below this; the chance to name one of two equally good heads.
SIGNIFICANCE = 0.05

# A resample draws Q indices of 8 bytes and gathers as many values, so a chunk of a million draws holds about 16 MB.
_DRAWS_AT_A_TIME = 1_000_000


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's exact test.

    Args:
        only_first: Queries that only the first head has right.
        only_second: Queries that only the second head has right.
        p_value: The chance of a division at least as uneven, were both heads equally good; 1 where they never differ.
    """

    only_first: int
    only_second: int
    p_value: float


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """The second head's mean less the first's, with its bootstrap interval; nan without queries."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which of two heads is right more often.

    Args:
        winner: Its name; None where the test cannot tell them apart.
        difference: In accuracy, second less first.
        mcnemar: The test that decides.
        sentence: The verdict for a reader, the difference in percentage points.
    """

    winner: str | None
    difference: PairedDifference
    mcnemar: McNemar
    sentence: str


def mcnemar(first_correct: Bools, second_correct: Bools) -> McNemar:
    """Whether two heads are right equally often, judged by the queries that only one of them has right.

    Exact and two-sided: of those queries, each head would win half, as with a fair coin.

    Args:
        first_correct: (Q,) bool, whether the first head is right.
        second_correct: (Q,) bool, whether the second one is, on the same queries.

    Raises:
        MetricError: Wrong shape or type.

    Source: Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12 (1947), with the binomial distribution in place of its approximation.
    """
    _check_correct(first_correct, second_correct)
    only_first = int((first_correct & ~second_correct).sum())
    only_second = int((second_correct & ~first_correct).sum())
    if not only_first + only_second:
        return McNemar(0, 0, 1.0)
    from scipy.stats import binomtest

    return McNemar(only_first, only_second, float(binomtest(only_first, only_first + only_second).pvalue))


def paired_bootstrap(
    first: Values, second: Values, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> PairedDifference:
    """How much higher the second mean is than the first, and the interval for other queries of the same kind.

    Percentile bootstrap of the difference query by query. Memory is O(Q), not O(Q x resamples).

    Args:
        first: (Q,) float or bool, finite, one value a query.
        second: (Q,) likewise, of the same queries.
        confidence: Above 0 and below 1.
        resamples: 1 or more; below a few hundred the ends are noisy.
        seed: Of the draws; the same seed and values give the same interval.

    Raises:
        MetricError: Wrong shape, type or range.

    Source: Efron, Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
    """
    if not 0 < confidence < 1:
        raise MetricError(f"'confidence' must be above 0 and below 1, for example 0.95; got {confidence}.")
    if resamples < 1:
        raise MetricError(f"'resamples' must be 1 or more; got {resamples}.")
    if first.ndim != 1 or first.shape != second.shape:
        raise MetricError(f"Both must be (queries,), one value a query; got {first.shape} and {second.shape}.")
    differences = second.astype(np.float64) - first.astype(np.float64)
    if not np.isfinite(differences).all():
        raise MetricError("A value is not finite; leave out queries that one of the two cannot score.")
    count = len(differences)
    if not count:
        return PairedDifference(float("nan"), float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, _DRAWS_AT_A_TIME // count)
    for start in range(0, resamples, rows):
        chunk = means[start : start + rows]
        draws = rng.integers(count, size=(len(chunk), count))
        chunk[:] = differences[draws].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return PairedDifference(float(differences.mean()), float(low), float(high))


def verdict(first_name: str, second_name: str, first_correct: Bools, second_correct: Bools) -> Verdict:
    """Which of two heads is right more often on the same photos, in a sentence.

    McNemar's test decides, at 0.05. The bootstrap interval says how large the difference is.

    Args:
        first_name: For the sentence.
        second_name: For the sentence, another name.
        first_correct: (Q,) bool, whether the first head is right.
        second_correct: (Q,) bool, whether the second one is, on the same photos.

    Raises:
        MetricError: Wrong shape or type.
    """
    test = mcnemar(first_correct, second_correct)
    difference = paired_bootstrap(first_correct, second_correct)
    count = len(first_correct)
    if not count:
        return Verdict(None, difference, test, f"{first_name} and {second_name} have no photos to be compared on.")
    better, worse, mean, low, high = second_name, first_name, difference.mean, difference.low, difference.high
    if mean < 0:
        better, worse, mean, low, high = first_name, second_name, -mean, -high, -low
    points = f"{100 * mean:.1f} points ({100 * low:z.1f} to {100 * high:z.1f})"
    chance = "McNemar p < 0.001" if test.p_value < 0.001 else f"McNemar p = {test.p_value:.3f}"
    photos = "this photo" if count == 1 else f"these {count:,} photos"
    if test.p_value < SIGNIFICANCE:
        sentence = f"{better} is right more often than {worse}: {points}, {chance}, on {photos.removeprefix('these ')}."
        return Verdict(better, difference, test, sentence)
    how = f"{better} is ahead by {points}" if mean else f"a difference of {points}"
    sentence = f"{first_name} and {second_name} cannot be told apart on {photos}: {how}, {chance}."
    return Verdict(None, difference, test, sentence)


def _check_correct(first: NDArray[Any], second: NDArray[Any]) -> None:
    """Raise MetricError unless both are (Q,) bool, for the same queries."""
    if first.ndim != 1 or first.shape != second.shape or first.dtype != np.bool_ or second.dtype != np.bool_:
        raise MetricError(
            f"Whether two heads are right is two (queries,) bool; got {first.dtype} {first.shape} and "
            f"{second.dtype} {second.shape}."
        )
