"""How good a ranking of neighbours is: one value a query, so that queries can be averaged and resampled.

Shapes: Q queries, K neighbours a query, nearest first. A row with fewer than K neighbours is padded: `False` in
`relevant`, 0 in `gains`, -1 in ids. `docs/metrics.md` says what each metric is good for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Integers = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]
PerQuery = NDArray[np.float64]

PADDING_ID = -1

# A resample draws Q indices of 8 bytes and gathers as many values, so a chunk of a million draws holds about 16 MB.
_DRAWS_AT_A_TIME = 1_000_000


def _check_k(k: int, **tables: NDArray[Any]) -> None:
    """Raise ValueError unless every table is (Q, K) with the same Q and k is 1..K for the narrowest."""
    for name, table in tables.items():
        if table.ndim != 2:
            raise ValueError(f"'{name}' must be (queries, neighbours); got shape {table.shape}.")
    shapes = ", ".join(f"'{name}' {table.shape}" for name, table in tables.items())
    if len({len(table) for table in tables.values()}) > 1:
        raise ValueError(f"Every table must have one row a query; got {shapes}.")
    widest = min(table.shape[1] for table in tables.values())
    if not 1 <= k <= widest:
        raise ValueError(
            f"k must be 1..{widest}, the neighbours that {shapes} hold for a query; got k={k}. "
            f"Ask the search for more neighbours, or lower k."
        )


def _check_relevant(relevant: Bools, k: int) -> None:
    """Raise ValueError unless `relevant` is a (Q, K) table of bools with K of at least k."""
    if relevant.dtype != np.bool_:
        raise ValueError(f"'relevant' must be bool, True for a right neighbour; got {relevant.dtype}.")
    _check_k(k, relevant=relevant)


def hit_at_k(relevant: Bools, k: int) -> PerQuery:
    """Whether any of the first k neighbours is right; its mean over queries is `hit_rate_at_k`.

    Args:
        relevant: (Q, K) bool, whether the j-th neighbour of a query is right.
        k: 1..K.

    Returns:
        (Q,) float64, 0 or 1. 0 too where the gallery holds no right item: leave such queries out beforehand, or report
        how many there are.

    Raises:
        ValueError: `relevant` is not (Q, K) bool, or k is not 1..K.
    """
    _check_relevant(relevant, k)
    hit: Bools = np.any(relevant[:, :k], axis=1)
    return hit.astype(np.float64)


def precision_at_k(relevant: Bools, k: int) -> PerQuery:
    """The share of the first k neighbours that is right.

    Args:
        relevant: (Q, K) bool, whether the j-th neighbour of a query is right; padding is False and counts as wrong.
        k: 1..K.

    Returns:
        (Q,) float64, 0..1. It cannot reach 1 where the gallery holds fewer than k right items.

    Raises:
        ValueError: `relevant` is not (Q, K) bool, or k is not 1..K.

    Source: Manning, Raghavan, Schütze, "Introduction to Information Retrieval" (2008), section 8.4.
    """
    _check_relevant(relevant, k)
    share: PerQuery = relevant[:, :k].sum(axis=1) / k
    return share


def average_precision_at_k(relevant: Bools, relevant_count: Integers, k: int) -> PerQuery:
    """The precision at each right neighbour among the first k, summed and divided by the best possible, min(R, k).

    Args:
        relevant: (Q, K) bool, whether the j-th neighbour of a query is right.
        relevant_count: (Q,) int, R: how many right items the gallery holds for a query, the query itself not counted.
        k: 1..K.

    Returns:
        (Q,) float64, 0..1; nan where R = 0. With K = k = R for every query this is MAP@R before the mean.

    Raises:
        ValueError: Wrong shape or type, k is not 1..K, or a row holds more right neighbours than its R.

    Source: Manning et al. (2008), section 8.4, cut at k; MAP@R: Musgrave, Belongie, Lim, "A Metric Learning Reality
    Check" (ECCV 2020).
    """
    _check_relevant(relevant, k)
    _check_relevant_count(relevant, relevant_count)
    first = relevant[:, :k]
    ranks = np.arange(1, k + 1)
    precision = first.cumsum(axis=1) / ranks
    summed: PerQuery = np.where(first, precision, 0.0).sum(axis=1)
    return _divide(summed, np.minimum(relevant_count, k).astype(np.float64))


def _check_relevant_count(relevant: Bools, relevant_count: Integers) -> None:
    """Raise ValueError unless there is one whole number a query, not below the right neighbours in its row."""
    if relevant_count.shape != relevant.shape[:1] or not np.issubdtype(relevant_count.dtype, np.integer):
        raise ValueError(
            f"'relevant_count' must be {relevant.shape[:1]} integers, one a query; "
            f"got {relevant_count.dtype} of shape {relevant_count.shape}."
        )
    found = relevant.sum(axis=1)
    wrong = np.flatnonzero(found > relevant_count)
    if wrong.size:
        query = int(wrong[0])
        raise ValueError(
            f"Query {query} has {found[query]} right neighbours, more than the {relevant_count[query]} that "
            f"'relevant_count' says the gallery holds. Count over the whole gallery, by the same rule."
        )


def ndcg_at_k(gains: Floats, ideal_gains: Floats, k: int) -> PerQuery:
    """The gain of the first k neighbours, discounted by rank, as a share of the best that the gallery could give.

    DCG@k is the sum of gain / log2(rank + 1); the gain is linear, not 2 ** gain - 1.

    Args:
        gains: (Q, K) float, 0..1, how right the j-th neighbour of a query is; padding is 0.
        ideal_gains: (Q, K) float, 0..1, the K largest gains in the whole gallery, descending; padding is 0.
        k: 1..K.

    Returns:
        (Q,) float64, 0..1; nan where the ideal is zero.

    Raises:
        ValueError: Wrong shape, k is not 1..K, a gain is not 0..1, or the ideal is not descending or is beaten.

    Source: Järvelin, Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002, with the
    log2(rank + 1) discount of Burges et al., "Learning to rank using gradient descent" (ICML 2005).
    """
    _check_k(k, gains=gains, ideal_gains=ideal_gains)
    for name, table in (("gains", gains), ("ideal_gains", ideal_gains)):
        # Written so that a nan fails.
        if not np.all((table >= 0) & (table <= 1)):
            raise ValueError(f"'{name}' must be 0..1; got {table.min():g}..{table.max():g}.")
    if np.any(np.diff(ideal_gains, axis=1) > 0):
        raise ValueError("'ideal_gains' must descend along each row: the largest gains in the gallery, best first.")
    discounts = 1 / np.log2(np.arange(2, k + 2))
    found = gains[:, :k].astype(np.float64) @ discounts
    ideal = ideal_gains[:, :k].astype(np.float64) @ discounts
    wrong = np.flatnonzero(found > ideal * (1 + 1e-6))
    if wrong.size:
        query = int(wrong[0])
        raise ValueError(
            f"Query {query} has DCG@{k} {found[query]:g}, above its ideal {ideal[query]:g}: 'ideal_gains' must be the "
            f"largest gains in the whole gallery, by the same rule."
        )
    # The two sums may differ in their last digit for a perfect ranking.
    share: PerQuery = np.minimum(_divide(found, ideal), 1.0)
    return share


def index_recall_at_k(found_ids: Integers, exact_ids: Integers, k: int) -> PerQuery:
    """The share of the k nearest items, as an exact search gives them, that the index found among its first k.

    Order within the first k does not matter. Items at the same distance are told apart by id, so a gallery with the
    same photo twice can score below 1 without a fault.

    Args:
        found_ids: (Q, K) int, row ids that the index gave; -1 is padding and never counts.
        exact_ids: (Q, K) int, row ids of the exact search; -1 is padding where the gallery holds fewer.
        k: 1..K.

    Returns:
        (Q,) float64, 0..1, divided by min(k, available); nan where the exact search found nothing.

    Raises:
        ValueError: Not integers, wrong shape, k is not 1..K, or an exact row holds an id twice.

    Source: overlap of ids; Aumüller, Bernhardsson, Faithfull, "ANN-Benchmarks"
    (Information Systems 87, 2020) compare distances instead, which forgives ties.
    """
    _check_k(k, found_ids=found_ids, exact_ids=exact_ids)
    for name, table in (("found_ids", found_ids), ("exact_ids", exact_ids)):
        if not np.issubdtype(table.dtype, np.integer):
            raise ValueError(f"'{name}' must be integer row ids, -1 for padding; got {table.dtype}.")
    found, exact = found_ids[:, :k], exact_ids[:, :k]
    ordered = np.sort(exact, axis=1)
    if np.any((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != PADDING_ID)):
        raise ValueError("'exact_ids' holds an id twice in a row; an exact search gives each item once.")
    overlap = np.zeros(len(exact))
    # One column at a time: comparing all with all would hold Q x k x k. Asking which exact ids were found, and not the
    # other way round, counts an id that the index gave twice only once.
    for column in exact.T:
        overlap += (found == column[:, None]).any(axis=1) & (column != PADDING_ID)
    return _divide(overlap, (exact != PADDING_ID).sum(axis=1).astype(np.float64))


def _divide(numerator: PerQuery, denominator: PerQuery) -> PerQuery:
    """The quotient (Q,), nan where the denominator is zero."""
    quotient: PerQuery = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def bootstrap_interval(
    values: Floats, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The interval in which the mean over queries would fall with other queries of the same kind.

    Percentile bootstrap: draw as many queries as there are, with replacement, take the mean, repeat; the interval is
    the middle `confidence` of those means. Memory is O(Q), not O(Q x resamples).

    Args:
        values: (Q,) float, one metric value a query; nan is left out.
        confidence: Above 0 and below 1.
        resamples: 1 or more; below a few hundred the ends are noisy.
        seed: Of the draws; the same seed, values and resamples give the same interval.

    Returns:
        (low, high); (nan, nan) where no value is left, and twice the same number where all are equal.

    Raises:
        ValueError: `values` is not (Q,), or `confidence` or `resamples` is out of range.

    Source: Efron, Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"'confidence' must be above 0 and below 1, for example 0.95; got {confidence}.")
    if resamples < 1:
        raise ValueError(f"'resamples' must be 1 or more; got {resamples}.")
    known = _known(values)
    if not known.size:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, _DRAWS_AT_A_TIME // known.size)
    for start in range(0, resamples, rows):
        chunk = means[start : start + rows]
        draws = rng.integers(known.size, size=(len(chunk), known.size))
        chunk[:] = known[draws].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """One metric over all queries.

    Args:
        mean: Over the queries that count; nan where none does.
        low: Lower end of the bootstrap interval of the mean.
        high: Upper end.
        query_count: Queries that count.
        left_out_count: Queries without a value (nan), because the gallery holds nothing right for them.
    """

    mean: float
    low: float
    high: float
    query_count: int
    left_out_count: int


def summarise_metric(
    values: Floats, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> MetricSummary:
    """The mean of a metric, its bootstrap interval, and how many queries counted and were left out.

    Args:
        values: (Q,) float, one metric value a query, nan for a query that cannot be scored.
        confidence: As in `bootstrap_interval`.
        resamples: As in `bootstrap_interval`.
        seed: As in `bootstrap_interval`.

    Returns:
        The summary; mean and interval are nan where no query counts.

    Raises:
        ValueError: As in `bootstrap_interval`.
    """
    low, high = bootstrap_interval(values, confidence=confidence, resamples=resamples, seed=seed)
    known = _known(values)
    mean = float(known.mean()) if known.size else float("nan")
    return MetricSummary(mean, low, high, known.size, values.size - known.size)


def _known(values: Floats) -> PerQuery:
    """The values (Q,) that are not nan, as float64; ValueError unless one-dimensional."""
    if values.ndim != 1:
        raise ValueError(f"'values' must be (queries,), one metric value a query; got shape {values.shape}.")
    kept: PerQuery = values[~np.isnan(values)].astype(np.float64)
    return kept
