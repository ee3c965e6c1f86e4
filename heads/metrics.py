"""How good predicted labels are, and how much a probability means.

Shapes: Q queries, C labels, B bins. Labels are class numbers 0..C - 1, and -1 is a true label that the head does not
know. Metrics of nothing are nan. `docs/metrics.md` says what each metric is good for.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Integers = NDArray[np.integer[Any]]
Probabilities = NDArray[np.floating[Any]]

UNKNOWN = -1

# What a sum or a mean of float32 may be beside the value that it should have.
_SUM_TOLERANCE = 1e-3
_ROUNDING = 1e-6


class MetricError(ValueError):
    """A metric that was asked of what it cannot score; the message says what was wanted and what came."""


@dataclass(frozen=True, slots=True)
class LabelScores:
    """How well each label is predicted; nan where undefined.

    Args:
        precision: (C,) float64, the share of what was predicted as the label that is it; nan where never predicted.
        recall: (C,) float64, the share of what is the label that was predicted as it; nan where it does not occur.
        f1: (C,) float64, harmonic mean of the two; nan where the label neither occurs nor is predicted.
        support: (C,) int64, queries that have the label.
        predicted_count: (C,) int64, queries for which it was predicted.
        precision_low: (C,) float64, lower end of the 95 % Wilson interval of the precision.
        precision_high: (C,) float64, its upper end.
        recall_low: (C,) float64, lower end of the 95 % Wilson interval of the recall.
        recall_high: (C,) float64, its upper end.
    """

    precision: Floats
    recall: Floats
    f1: Floats
    support: Counts
    predicted_count: Counts
    precision_low: Floats
    precision_high: Floats
    recall_low: Floats
    recall_high: Floats


@dataclass(frozen=True, slots=True)
class MacroScores:
    """Means over labels, each label counting alike; nan where there is no label.

    Args:
        precision: 0..1.
        recall: 0..1.
        f1: 0..1, the mean of the labels' F1.
        label_count: Labels that count.
    """

    precision: float
    recall: float
    f1: float
    label_count: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often predictions of each confidence are right.

    Args:
        edges: (B + 1,) float64, 0..1. A bin holds its upper edge and not its lower one; the first bin holds 0 too.
        counts: (B,) int64, queries in the bin.
        confidence: (B,) float64, their mean confidence; nan in an empty bin.
        accuracy: (B,) float64, the share of them that is right; nan in an empty bin.
    """

    edges: Floats
    counts: Counts
    confidence: Floats
    accuracy: Floats


def accuracy(truth: Integers, predicted: Integers) -> float:
    """The share of queries whose predicted label is the true one.

    Args:
        truth: (Q,) int, -1 for a label that the head does not know, which counts as wrong.
        predicted: (Q,) int, 0 or more.

    Returns:
        0..1; nan without queries.

    Raises:
        MetricError: Wrong shape, type or range.
    """
    _check_labels(truth, predicted)
    return _mean(truth == predicted)


def top_k_accuracy(truth: Integers, probabilities: Probabilities, k: int) -> float:
    """The share of queries whose true label is among the k likeliest.

    Of equally likely labels the one with the lower number comes first, as with `argmax`; scikit-learn's
    `top_k_accuracy_score` prefers the higher one.

    Args:
        truth: (Q,) int, -1 for a label that the head does not know, which counts as wrong.
        probabilities: (Q, C) float, 0..1.
        k: 1 or more; above C all labels are among the first k.

    Returns:
        0..1; nan without queries.

    Raises:
        MetricError: Wrong shape, type or range.
    """
    _check_probabilities(truth, probabilities)
    if k < 1:
        raise MetricError(f"k must be 1 or more; got {k}.")
    known = truth >= 0
    own = probabilities[np.arange(len(truth)), truth.clip(0)][:, None]
    lower_number = np.arange(probabilities.shape[1]) < truth[:, None]
    before = (probabilities > own) | ((probabilities == own) & lower_number)
    return _mean(known & (before.sum(axis=1) < k))


def wilson_interval(successes: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The lowest and highest share of which so many successes are still within chance.

    Args:
        successes: 0..trials.
        trials: 0 or more.
        confidence: Above 0 and below 1.

    Returns:
        (low, high), 0..1; (nan, nan) without trials.

    Raises:
        MetricError: A number out of range.

    Source: E. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if not 0 <= successes <= trials:
        raise MetricError(f"Successes must be 0 or more and no more than the trials; got {successes} of {trials}.")
    low, high = _wilson(np.array([successes]), np.array([trials]), confidence)
    return float(low[0]), float(high[0])


def confusion_matrix(truth: Integers, predicted: Integers, class_count: int) -> Counts:
    """How many queries of each label were predicted as each label.

    Args:
        truth: (Q,) int, -1..C - 1; queries with -1 are left out.
        predicted: (Q,) int, 0..C - 1.
        class_count: C, 1 or more.

    Returns:
        (C, C) int64, a row for each true label, a column for each predicted one.

    Raises:
        MetricError: Wrong shape, type or range.
    """
    _check_labels(truth, predicted, class_count)
    known = truth >= 0
    cells = truth[known].astype(np.int64) * class_count + predicted[known]
    # (C * C,) -> (C, C)
    return np.bincount(cells, minlength=class_count**2).astype(np.int64).reshape(class_count, class_count)


def normalise_confusion(matrix: Counts) -> Floats:
    """The share of each true label's queries that was predicted as each label; the diagonal is the recall.

    Args:
        matrix: (C, C) int, 0 or more, as `confusion_matrix` gives it.

    Returns:
        (C, C) float64; each row sums to 1, or is nan where no query has the label.

    Raises:
        MetricError: Not square, not integer, or below 0.
    """
    if (
        matrix.ndim != 2
        or matrix.shape[0] != matrix.shape[1]
        or not np.issubdtype(matrix.dtype, np.signedinteger)
        or (matrix < 0).any()
    ):
        raise MetricError(f"A confusion matrix is (C, C) counts of 0 or more; got {matrix.dtype} {matrix.shape}.")
    return _divide(matrix, matrix.sum(axis=1, keepdims=True))


def label_scores(truth: Integers, predicted: Integers, class_count: int) -> LabelScores:
    """Precision, recall and F1 of each label, with Wilson intervals.

    Args:
        truth: (Q,) int, -1..C - 1; a query with -1 is a false positive of what was predicted.
        predicted: (Q,) int, 0..C - 1.
        class_count: C, 1 or more.

    Raises:
        MetricError: Wrong shape, type or range.
    """
    _check_labels(truth, predicted, class_count)
    right = np.bincount(truth[truth == predicted], minlength=class_count)
    support = np.bincount(truth[truth >= 0], minlength=class_count)
    return _scores(right, support, np.bincount(predicted, minlength=class_count))


def macro(scores: LabelScores) -> MacroScores:
    """The mean precision, recall and F1 over the labels that occur in the truth.

    A label that occurs and is never predicted has a precision of 0 here, since leaving it out would reward a head for
    giving up on it. scikit-learn by default counts the labels that are only predicted as well, with a recall of 0, so
    that its mean depends on which wrong labels a head happens to choose. It gives the same numbers with
    `labels=np.unique(truth[truth >= 0]), average="macro", zero_division=0`.
    """
    occurs = scores.support > 0
    return MacroScores(
        precision=_mean(np.nan_to_num(scores.precision[occurs])),
        recall=_mean(scores.recall[occurs]),
        f1=_mean(scores.f1[occurs]),
        label_count=int(occurs.sum()),
    )


def log_loss(truth: Integers, probabilities: Probabilities) -> float:
    """The mean of minus the logarithm of the true label's probability; lower is better.

    Probabilities are clipped to eps..1 - eps of their type (1.2e-7 for float32), as scikit-learn does.

    Args:
        truth: (Q,) int, -1..C - 1; queries with -1 are left out.
        probabilities: (Q, C) float, 0..1, each row summing to 1.

    Returns:
        0 or more; nan where no query is left.

    Raises:
        MetricError: Wrong shape, type or range, or a row that does not sum to 1 within 0.001.
    """
    _check_probabilities(truth, probabilities)
    sums = probabilities.sum(axis=1, dtype=np.float64)
    worst = int(np.abs(sums - 1).argmax()) if len(sums) else 0
    if len(sums) and abs(sums[worst] - 1) > _SUM_TOLERANCE:
        raise MetricError(f"The probabilities of a query must sum to 1; those of query {worst} sum to {sums[worst]}.")
    known = np.flatnonzero(truth >= 0)
    return _mean(_minus_log(probabilities[known, truth[known]]))


def reliability(confidence: Probabilities, correct: Bools, *, bins: int = 15) -> Reliability:
    """How often predictions are right, by how confident they were, in bins of equal width.

    Args:
        confidence: (Q,) float, 0..1, the probability of what was predicted.
        correct: (Q,) bool, whether it was right.
        bins: B, 1 or more.

    Raises:
        MetricError: Wrong shape, type or range.

    Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks" (ICML 2017), section 2.
    """
    if bins < 1:
        raise MetricError(f"'bins' must be 1 or more; got {bins}.")
    if confidence.ndim != 1:
        raise MetricError(f"'confidence' must be (queries,); got shape {confidence.shape}.")
    _check_unit_range("confidence", confidence)
    _check_bools(confidence.shape, correct=correct)
    edges = np.arange(bins + 1) / bins
    # The last bin takes a confidence that rounding has put just above 1, the first one takes 0.
    places = (np.searchsorted(edges, confidence, side="left") - 1).clip(0, bins - 1)
    counts = np.bincount(places, minlength=bins).astype(np.int64)
    return Reliability(
        edges,
        counts,
        _divide(np.bincount(places, weights=confidence, minlength=bins), counts),
        _divide(np.bincount(places, weights=correct, minlength=bins), counts),
    )


def calibration_error(confidence: Probabilities, correct: Bools, *, bins: int = 15) -> float:
    """How far confidence and accuracy are apart, on average over the queries (expected calibration error, ECE).

    Args:
        confidence: As in `reliability`.
        correct: As in `reliability`.
        bins: As in `reliability`.

    Returns:
        0..1, lower is better; nan without queries.

    Raises:
        MetricError: As in `reliability`.

    Source: Guo et al. (2017), equation 3; Naeini, Cooper, Hauskrecht (AAAI 2015).
    """
    table = reliability(confidence, correct, bins=bins)
    filled = table.counts > 0
    if not filled.any():
        return float("nan")
    gaps = np.abs(table.accuracy - table.confidence)[filled]
    return float(np.average(gaps, weights=table.counts[filled]))


def multi_label_scores(truth: Bools, predicted: Bools) -> LabelScores:
    """Precision, recall and F1 of each label, where a query may have several labels.

    Args:
        truth: (Q, C) bool, which labels each query has.
        predicted: (Q, C) bool, which were predicted.

    Raises:
        MetricError: Wrong shape or type.
    """
    _check_tables(truth=truth, predicted=predicted)
    return _scores((truth & predicted).sum(axis=0), truth.sum(axis=0), predicted.sum(axis=0))


def micro_f1(truth: Bools, predicted: Bools) -> float:
    """The F1 of all labels of all queries thrown together, so that frequent labels count more.

    Args:
        truth: (Q, C) bool, which labels each query has.
        predicted: (Q, C) bool, which were predicted.

    Returns:
        0..1; nan where nothing is true and nothing predicted.

    Raises:
        MetricError: Wrong shape or type.
    """
    _check_tables(truth=truth, predicted=predicted)
    total = int(truth.sum() + predicted.sum())
    return 2 * int((truth & predicted).sum()) / total if total else float("nan")


def exact_match(truth: Bools, predicted: Bools) -> float:
    """The share of queries whose labels are all predicted, with none too many (subset accuracy).

    Args:
        truth: (Q, C) bool, which labels each query has.
        predicted: (Q, C) bool, which were predicted.

    Returns:
        0..1; nan without queries.

    Raises:
        MetricError: Wrong shape or type.
    """
    _check_tables(truth=truth, predicted=predicted)
    return _mean((truth == predicted).all(axis=1))


def multi_label_log_loss(truth: Bools, probabilities: Probabilities) -> float:
    """The log loss of each label's yes or no, averaged over labels and queries; clipped as in `log_loss`.

    Args:
        truth: (Q, C) bool, which labels each query has.
        probabilities: (Q, C) float, 0..1, each by itself.

    Returns:
        0 or more; nan without queries.

    Raises:
        MetricError: Wrong shape, type or range.
    """
    _check_tables(truth=truth)
    _check_unit_range("probabilities", probabilities)
    if probabilities.shape != truth.shape:
        raise MetricError(f"'probabilities' must be of the shape of 'truth', {truth.shape}; got {probabilities.shape}.")
    return _mean(_minus_log(np.where(truth, probabilities, 1 - probabilities)))


def _scores(right: Counts, support: Counts, predicted_count: Counts) -> LabelScores:
    """The scores of labels (C,) of which so many were right, occur, and were predicted."""
    return LabelScores(
        _divide(right, predicted_count),
        _divide(right, support),
        _divide(2 * right, support + predicted_count),
        support.astype(np.int64),
        predicted_count.astype(np.int64),
        *_wilson(right, predicted_count, 0.95),
        *_wilson(right, support, 0.95),
    )


def _wilson(successes: Counts, trials: Counts, confidence: float) -> tuple[Floats, Floats]:
    """Lower and upper ends of the Wilson intervals, of the shape of `trials`; nan without trials."""
    if not 0 < confidence < 1:
        raise MetricError(f"'confidence' must be above 0 and below 1, for example 0.95; got {confidence}.")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    failures = trials - successes
    count = np.where(trials > 0, trials, np.nan)
    centre = (successes + z**2 / 2) / (count + z**2)
    half = z * np.sqrt(successes * failures / count + z**2 / 4) / (count + z**2)
    # Without failures it is 1, which rounding may miss; without successes the root is z / 2, and the low end exactly 0.
    high = np.where((failures == 0) & (trials > 0), 1.0, centre + half)
    return centre - half, high


def _divide(numerator: NDArray[Any], denominator: NDArray[Any]) -> Floats:
    """The quotient, nan where the denominator is zero."""
    quotient: Floats = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def _mean(values: NDArray[Any]) -> float:
    """The mean of all values, nan of none."""
    return float(values.mean(dtype=np.float64)) if values.size else float("nan")


def _minus_log(probabilities: Probabilities) -> Floats:
    """Minus the logarithm of probabilities, clipped so that it is finite."""
    eps = np.finfo(probabilities.dtype).eps
    logarithms: Floats = -np.log(probabilities.clip(eps, 1 - eps), dtype=np.float64)
    return logarithms


def _check_labels(truth: Integers, predicted: Integers, class_count: int | None = None) -> None:
    """Raise MetricError unless both are class numbers of the same queries."""
    _check_class_numbers("truth", truth, UNKNOWN, class_count)
    _check_class_numbers("predicted", predicted, 0, class_count)
    if len(truth) != len(predicted):
        raise MetricError(f"There are {len(truth)} true labels and {len(predicted)} predicted ones; give one a query.")


def _check_class_numbers(name: str, numbers: Integers, lowest: int, class_count: int | None) -> None:
    """Raise MetricError unless `numbers` is (Q,) of whole numbers lowest..class_count - 1."""
    if class_count is not None and class_count < 1:
        raise MetricError(f"There must be 1 label or more; got {class_count}.")
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.signedinteger):
        raise MetricError(f"'{name}' must be (queries,) int64 class numbers; got {numbers.dtype} {numbers.shape}.")
    if numbers.size and (numbers.min() < lowest or (class_count is not None and numbers.max() >= class_count)):
        wanted = f"{lowest} or more" if class_count is None else f"{lowest} to {class_count - 1}"
        raise MetricError(f"'{name}' must be {wanted}; got {numbers.min()} to {numbers.max()}.")


def _check_probabilities(truth: Integers, probabilities: Probabilities) -> None:
    """Raise MetricError unless `probabilities` is (Q, C), 0..1, for (Q,) class numbers below C."""
    if probabilities.ndim != 2:
        raise MetricError(f"'probabilities' must be (queries, labels); got shape {probabilities.shape}.")
    _check_unit_range("probabilities", probabilities)
    _check_class_numbers("truth", truth, UNKNOWN, probabilities.shape[1])
    if len(truth) != len(probabilities):
        raise MetricError(f"There are {len(truth)} true labels and probabilities of {len(probabilities)} queries.")


def _check_unit_range(name: str, values: Probabilities) -> None:
    """Raise MetricError unless the values are floats in 0..1, but for rounding; nan is refused."""
    if not np.issubdtype(values.dtype, np.floating):
        raise MetricError(f"'{name}' must be float; got {values.dtype}.")
    # Written so that nan fails.
    if values.size and not (values.min() >= -_ROUNDING and values.max() <= 1 + _ROUNDING):
        raise MetricError(f"'{name}' must be 0 to 1; got {values.min()} to {values.max()}.")


def _check_bools(shape: tuple[int, ...], **tables: NDArray[Any]) -> None:
    """Raise MetricError unless every table is bool and has this shape."""
    for name, table in tables.items():
        if table.dtype != np.bool_ or table.shape != shape:
            raise MetricError(f"'{name}' must be bool of shape {shape}; got {table.dtype} {table.shape}.")


def _check_tables(**tables: Bools) -> None:
    """Raise MetricError unless every table is (Q, C) bool, all of one shape."""
    shape = next(iter(tables.values())).shape
    if len(shape) != 2:
        raise MetricError(f"Several labels a query are (queries, labels) bool; got shape {shape}.")
    _check_bools(shape, **tables)
