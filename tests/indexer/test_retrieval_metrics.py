"""The ranking metrics against arithmetic done by hand, and against plain loops on random rankings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from indexer.retrieval_metrics import (
    average_precision_at_k,
    bootstrap_interval,
    hit_at_k,
    index_recall_at_k,
    ndcg_at_k,
    precision_at_k,
    summarise_metric,
)

# The example of docs/metrics.md. The query is a red dress; right means the same type and colour, and a gain is 1 for
# that and 0.5 for the type alone. The neighbours: red dress, blue dress, red dress, shoe. The gallery holds three red
# dresses and several of other colours.
RELEVANT = np.array([[True, False, True, False]])
GAINS = np.array([[1.0, 0.5, 1.0, 0.0]])
IDEAL_GAINS = np.array([[1.0, 1.0, 1.0, 0.5]])
RELEVANT_COUNT = np.array([3])


def test_hit_looks_at_the_first_k_only() -> None:
    relevant = np.array([[False, False, True], [True, False, False], [False, False, False]])
    # The first right neighbour stands at rank 3, rank 1, nowhere.
    np.testing.assert_array_equal(hit_at_k(relevant, 1), [0, 1, 0])
    np.testing.assert_array_equal(hit_at_k(relevant, 2), [0, 1, 0])
    np.testing.assert_array_equal(hit_at_k(relevant, 3), [1, 1, 0])


@pytest.mark.parametrize(("k", "expected"), [(1, 1 / 1), (2, 1 / 2), (3, 2 / 3), (4, 2 / 4)])
def test_precision_is_the_right_share_of_k(k: int, expected: float) -> None:
    np.testing.assert_allclose(precision_at_k(RELEVANT, k), [expected])


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (1, 1.0),  # (1/1) / min(3, 1)
        (2, 0.5),  # (1/1) / min(3, 2)
        (3, 5 / 9),  # (1/1 + 2/3) / min(3, 3)
        (4, 5 / 9),  # (1/1 + 2/3) / min(3, 4): the shoe at rank 4 costs nothing, the missing third dress does
    ],
)
def test_average_precision_divides_by_the_best_possible(k: int, expected: float) -> None:
    np.testing.assert_allclose(average_precision_at_k(RELEVANT, RELEVANT_COUNT, k), [expected])


def test_average_precision_prefers_right_neighbours_early() -> None:
    relevant = np.array([[True, True, False, False], [False, False, True, True]])
    # Early: (1/1 + 2/2) / 2 = 1. Late: (1/3 + 2/4) / 2 = 5/12. Precision at 4 is 1/2 for both.
    np.testing.assert_allclose(average_precision_at_k(relevant, np.array([2, 2]), 4), [1.0, 5 / 12])


def test_a_query_with_nothing_right_in_the_gallery_has_no_average_precision() -> None:
    relevant = np.array([[False, False], [False, False]])
    # The first query has one right item that was not found: 0. The second has none to find: no value.
    np.testing.assert_array_equal(average_precision_at_k(relevant, np.array([1, 0]), 2), [0.0, np.nan])


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (1, 1.0),  # 1 / 1
        (2, (1 + 0.5 / math.log2(3)) / (1 + 1 / math.log2(3))),  # 1.315465 / 1.630930 = 0.806573
        # The discounts log2(rank + 1) are 1, 1.584963, 2 and 2.321928: found is 1 + 0.315465 + 0.5 + 0 = 1.815465, the
        # ideal is 1 + 0.630930 + 0.5 + 0.215338 = 2.346268, and 1.815465 over 2.346268 is 0.773767.
        (4, 0.773767),
    ],
)
def test_ndcg_is_the_discounted_gain_as_a_share_of_the_ideal(k: int, expected: float) -> None:
    np.testing.assert_allclose(ndcg_at_k(GAINS, IDEAL_GAINS, k), [expected], atol=5e-7)


def test_ndcg_is_one_for_an_ideal_ranking_zero_for_a_useless_one_and_absent_without_gains() -> None:
    gains = np.array([[1.0, 0.5, 0.3], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=np.float32)
    ideal = np.array([[1.0, 0.5, 0.3], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=np.float32)
    np.testing.assert_array_equal(ndcg_at_k(gains, ideal, 3), [1.0, 0.0, np.nan])


def test_index_recall_ignores_order_and_what_lies_beyond_k() -> None:
    exact = np.array([[10, 11, 12, 13]])
    # Of {10, 11, 12} the first three found ids hold 12 and 10; 11 comes at rank 4, too late for k=3: 2/3.
    found = np.array([[12, 10, 99, 11]])
    np.testing.assert_allclose(index_recall_at_k(found, exact, 3), [2 / 3])
    # All four against {12, 10, 99, 11}: 13 is missing.
    np.testing.assert_allclose(index_recall_at_k(found, exact, 4), [3 / 4])


def test_index_recall_of_a_gallery_smaller_than_k_divides_by_what_there_is() -> None:
    exact = np.array([[5, 6, -1, -1], [5, 6, -1, -1], [-1, -1, -1, -1]])
    found = np.array([[6, 5, -1, -1], [6, -1, -1, -1], [-1, -1, -1, -1]])
    # Two of two; one of two, the padding on both sides not being a match; nothing to find.
    np.testing.assert_array_equal(index_recall_at_k(found, exact, 4), [1.0, 0.5, np.nan])


def test_index_recall_counts_an_id_that_the_index_gave_twice_once() -> None:
    # {1, 2, 3} are wanted and only 1 was found, three times: 1/3.
    np.testing.assert_allclose(index_recall_at_k(np.array([[1, 1, 1]]), np.array([[1, 2, 3]]), 3), [1 / 3])


def slow_average_precision(row: np.ndarray, right: int, k: int) -> float:
    found, total = 0, 0.0
    for rank in range(1, k + 1):
        if row[rank - 1]:
            found += 1
            total += found / rank
    return total / min(right, k) if right else math.nan


def slow_dcg(row: np.ndarray, k: int) -> float:
    return sum(float(row[rank - 1]) / math.log2(rank + 1) for rank in range(1, k + 1))


@pytest.mark.parametrize("k", [1, 3, 12])
def test_the_metrics_equal_plain_loops_on_random_rankings(k: int) -> None:
    rng = np.random.default_rng(k)
    queries, width, gallery = 200, 12, 40
    # Each row is a whole gallery in the order of a ranking, so that counts and ideals are true ones. Most queries
    # have few right items, some have none.
    everything = np.where(rng.random((queries, gallery)) < 0.1, rng.integers(1, 4, (queries, gallery)) / 3, 0.0)
    everything[:10] = 0
    gains, ideal = everything[:, :width], -np.sort(-everything, axis=1)[:, :width]
    relevant, right = gains > 0, (everything > 0).sum(axis=1)
    ids = np.argsort(rng.random((queries, 30)), axis=1)
    found, exact = ids[:, :width], np.argsort(rng.random((queries, 30)), axis=1)[:, :width]

    np.testing.assert_array_equal(hit_at_k(relevant, k), [float(any(row[:k])) for row in relevant])
    np.testing.assert_allclose(precision_at_k(relevant, k), [sum(row[:k].tolist()) / k for row in relevant])
    np.testing.assert_allclose(
        average_precision_at_k(relevant, right, k),
        [slow_average_precision(row, int(count), k) for row, count in zip(relevant, right, strict=True)],
    )
    ideal_dcg = [slow_dcg(row, k) for row in ideal]
    np.testing.assert_allclose(
        ndcg_at_k(gains, ideal, k),
        [slow_dcg(row, k) / best if best else math.nan for row, best in zip(gains, ideal_dcg, strict=True)],
    )
    np.testing.assert_allclose(
        index_recall_at_k(found, exact, k),
        [len(set(mine[:k]) & set(true[:k])) / k for mine, true in zip(found.tolist(), exact.tolist(), strict=True)],
    )


def test_no_queries_give_no_values() -> None:
    none = np.empty((0, 4))
    assert hit_at_k(none.astype(bool), 4).shape == (0,)
    assert precision_at_k(none.astype(bool), 4).shape == (0,)
    assert average_precision_at_k(none.astype(bool), np.empty(0, dtype=np.int64), 4).shape == (0,)
    assert ndcg_at_k(none, none, 4).shape == (0,)
    assert index_recall_at_k(none.astype(int), none.astype(int), 4).shape == (0,)


CALLS: list[Callable[[int], Any]] = [
    lambda k: hit_at_k(RELEVANT, k),
    lambda k: precision_at_k(RELEVANT, k),
    lambda k: average_precision_at_k(RELEVANT, RELEVANT_COUNT, k),
    lambda k: ndcg_at_k(GAINS, IDEAL_GAINS, k),
    lambda k: index_recall_at_k(np.array([[1, 2, 3, 4]]), np.array([[1, 2, 3, 4]]), k),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("k", [0, -1, 5])
def test_a_k_that_the_neighbours_do_not_reach_is_refused(call: Callable[[int], Any], k: int) -> None:
    with pytest.raises(ValueError, match=rf"k must be 1\.\.4.*got k={k}"):
        call(k)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hit_at_k(RELEVANT[0], 1), r"'relevant' must be \(queries, neighbours\); got shape \(4,\)"),
        (lambda: precision_at_k(np.array([[1, 0]]), 1), "must be bool"),
        (lambda: average_precision_at_k(RELEVANT, np.array([3, 3]), 4), r"must be \(1,\) integers"),
        (lambda: average_precision_at_k(RELEVANT, np.array([3.0]), 4), "got float64"),
        # Two right neighbours were found although the gallery is said to hold one: average precision would pass 1.
        (lambda: average_precision_at_k(RELEVANT, np.array([1]), 1), "Query 0 has 2 right neighbours, more than the 1"),
        (lambda: ndcg_at_k(GAINS * 3, IDEAL_GAINS, 4), r"'gains' must be 0\.\.1; got 0\.\.3"),
        (lambda: ndcg_at_k(GAINS, IDEAL_GAINS * np.nan, 4), r"'ideal_gains' must be 0\.\.1; got nan"),
        (lambda: ndcg_at_k(GAINS, IDEAL_GAINS[:, ::-1], 4), "must descend"),
        # 1 + 0.5/log2(3) found, against an ideal of 1.
        (lambda: ndcg_at_k(GAINS, np.array([[1.0, 0, 0, 0]]), 2), "DCG@2 1.31546, above its ideal 1"),
        (lambda: ndcg_at_k(GAINS, np.tile(IDEAL_GAINS, (2, 1)), 2), "one row a query"),
        (lambda: index_recall_at_k(np.array([[1.0]]), np.array([[1]]), 1), "'found_ids' must be integer"),
        (lambda: index_recall_at_k(np.array([[1, 2]]), np.array([[7, 7]]), 2), "'exact_ids' holds an id twice"),
        (lambda: bootstrap_interval(GAINS), r"'values' must be \(queries,\)"),
        (lambda: bootstrap_interval(GAINS[0], confidence=95), "'confidence' must be above 0 and below 1"),
        (lambda: bootstrap_interval(GAINS[0], resamples=0), "'resamples' must be 1 or more"),
    ],
)
def test_a_wrong_argument_is_refused_with_a_sentence(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_the_interval_of_a_share_agrees_with_the_normal_approximation() -> None:
    values = np.repeat([1.0, 0.0], [600, 400])
    low, high = bootstrap_interval(values, resamples=4000)
    # A share of 0.6 over 1,000 queries has a standard error of sqrt(0.6 * 0.4 / 1000) = 0.01549;
    # 0.6 -+ 1.96 * 0.01549 = 0.5696..0.6304. The ends of 4,000 resamples wobble by about 0.001.
    assert low == pytest.approx(0.5696, abs=0.003)
    assert high == pytest.approx(0.6304, abs=0.003)
    narrow_low, narrow_high = bootstrap_interval(values, confidence=0.5, resamples=4000)
    # The middle half: 0.6 -+ 0.6745 * 0.01549 = 0.5896..0.6104.
    assert narrow_low == pytest.approx(0.5896, abs=0.003)
    assert narrow_high == pytest.approx(0.6104, abs=0.003)


def test_the_interval_is_the_same_for_the_same_seed_and_in_any_number_of_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(1).random(50)
    whole = bootstrap_interval(values, seed=3)
    assert whole == bootstrap_interval(values, seed=3)
    assert whole != bootstrap_interval(values, seed=4)
    # Two resamples at a time, then one at a time because a single one passes the limit.
    for draws in (100, 10):
        monkeypatch.setattr("indexer.retrieval_metrics._DRAWS_AT_A_TIME", draws)
        assert bootstrap_interval(values, seed=3) == pytest.approx(whole, abs=1e-12)


def test_the_interval_leaves_nan_out() -> None:
    values = np.random.default_rng(2).random(40)
    holes = np.insert(values, [0, 7, 40], np.nan)
    assert bootstrap_interval(holes) == bootstrap_interval(values)


def test_the_interval_of_nothing_is_nan_and_of_equal_values_a_point() -> None:
    for nothing in (np.empty(0), np.full(3, np.nan)):
        assert all(math.isnan(end) for end in bootstrap_interval(nothing))
    assert bootstrap_interval(np.full(5, 0.25)) == (0.25, 0.25)


def test_a_summary_says_how_many_queries_count() -> None:
    summary = summarise_metric(np.array([1.0, np.nan, 0.5, 0.0]))
    # (1 + 0.5 + 0) / 3; one query is left out.
    assert summary.mean == pytest.approx(0.5)
    assert (summary.query_count, summary.left_out_count) == (3, 1)
    assert summary.low < 0.5 < summary.high
    empty = summarise_metric(np.array([np.nan]))
    assert math.isnan(empty.mean)
    assert (empty.query_count, empty.left_out_count) == (0, 1)
