"""Which of several heads is better on the same photos: McNemar's test, and the interval of the difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
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

    @property
    def reversed(self) -> PairedDifference:
        """The first less the second."""
        return PairedDifference(-self.mean, -self.high, -self.low)


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


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values of several tests, corrected so that one below 0.05 is a false alarm in 5 of 100 cases at most.

    The smallest is multiplied by the number of tests, the next by one less, and so on; none becomes smaller than the
    one before it, nor larger than 1. It holds however the tests depend on each other, and for whichever is picked.

    Args:
        p_values: Of each test, 0..1.

    Raises:
        MetricError: One is not in 0..1.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
    (1979).
    """
    if not all(0 <= value <= 1 for value in p_values):
        raise MetricError(f"A p value is 0 to 1; got {', '.join(map(str, p_values))}.")
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = least
    return corrected


def photos_needed(
    only_first: int, only_second: int, count: int, *, significance: float = SIGNIFICANCE, power: float = 0.8
) -> int | None:
    """How many photos it takes for McNemar's test to show the difference that was seen, if that is the true one.

    Args:
        only_first: Of the photos seen, those that only the first head has right.
        only_second: Those that only the second one has right.
        count: All of them.
        significance: Below which p a difference counts as shown, above 0 and below 1.
        power: In which share of such trials it would be shown, above 0 and below 1.

    Returns:
        The whole number of photos; None where both heads win equally many, and no number would do.

    Source: R. Connor, "Sample size for testing differences in proportions for the paired-sample design", Biometrics 43
    (1987), formula 2.
    """
    if only_first == only_second:
        return None
    differing, difference = (only_first + only_second) / count, abs(only_first - only_second) / count
    normal = NormalDist()
    surely, often = normal.inv_cdf(1 - significance / 2), normal.inv_cdf(power)
    spread = surely * math.sqrt(differing) + often * math.sqrt(differing - difference**2)
    return math.ceil((spread / difference) ** 2)


def points(difference: PairedDifference) -> str:
    """A difference of shares in percentage points with its interval, such as `3.0 points (1.3 to 4.9)`."""
    return f"{100 * difference.mean:.1f} points ({100 * difference.low:z.1f} to {100 * difference.high:z.1f})"


def chance(p_value: float) -> str:
    """A p value of McNemar's test for a sentence, such as `McNemar p = 0.020`."""
    return "McNemar p < 0.001" if p_value < 0.001 else f"McNemar p = {p_value:.3f}"


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
    better, worse, ahead = second_name, first_name, difference
    if difference.mean < 0:
        better, worse, ahead = first_name, second_name, difference.reversed
    by, p = points(ahead), chance(test.p_value)
    photos = "this photo" if count == 1 else f"these {count:,} photos"
    if test.p_value < SIGNIFICANCE:
        sentence = f"{better} is right more often than {worse}: {by}, {p}, on {photos.removeprefix('these ')}."
        return Verdict(better, difference, test, sentence)
    how = f"{better} is ahead by {by}" if ahead.mean else f"a difference of {by}"
    sentence = f"{first_name} and {second_name} cannot be told apart on {photos}: {how}, {p}."
    return Verdict(None, difference, test, sentence)


def _check_correct(first: NDArray[Any], second: NDArray[Any]) -> None:
    """Raise MetricError unless both are (Q,) bool, for the same queries."""
    if first.ndim != 1 or first.shape != second.shape or first.dtype != np.bool_ or second.dtype != np.bool_:
        raise MetricError(
            f"Whether two heads are right is two (queries,) bool; got {first.dtype} {first.shape} and "
            f"{second.dtype} {second.shape}."
        )
