"""The metrics of labels against arithmetic done by hand, and against scikit-learn on random labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve

from heads.metrics import (
    MetricError,
    accuracy,
    calibration_error,
    confusion_matrix,
    exact_match,
    label_scores,
    log_loss,
    macro,
    micro_f1,
    multi_label_log_loss,
    multi_label_scores,
    normalise_confusion,
    reliability,
    top_k_accuracy,
    wilson_interval,
)

# The example of docs/metrics.md. A head knows dress (0), shirt (1), skirt (2) and hat (3); no query is a hat, and the
# last one is a sari, which it does not know.
PROBABILITIES = np.array(
    [
        [0.75, 0.20, 0.05, 0.00],
        [0.65, 0.10, 0.25, 0.00],
        [0.50, 0.20, 0.30, 0.00],
        [0.10, 0.85, 0.05, 0.00],
        [0.60, 0.35, 0.05, 0.00],
        [0.45, 0.15, 0.40, 0.00],
        [0.70, 0.05, 0.25, 0.00],
        [0.55, 0.00, 0.25, 0.20],
    ]
)
TRUTH = np.array([0, 0, 0, 1, 1, 2, 2, -1])
PREDICTED = PROBABILITIES.argmax(axis=1)

# Which of floral, striped and long four dresses are, and what was predicted.
SEVERAL = np.array([[True, False, True], [False, True, False], [True, True, False], [False, False, False]])
GUESSED = np.array([[True, False, True], [False, True, True], [True, False, False], [False, False, False]])


def test_accuracy_counts_an_unknown_label_as_wrong():
    # Predicted are 0 0 0 1 0 0 0 0: right for the three dresses and one shirt, of eight.
    assert accuracy(TRUTH, PREDICTED) == 4 / 8


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (1, 4 / 8),  # as the accuracy
        (2, 7 / 8),  # the shirt at 0.35, the skirts at 0.40 and 0.25 come second; the sari never comes
        (3, 7 / 8),
        (4, 7 / 8),
        (99, 7 / 8),  # more than there are
    ],
)
def test_top_k_looks_among_the_k_likeliest(k, expected):
    assert top_k_accuracy(TRUTH, PROBABILITIES, k) == expected


def test_of_equally_likely_labels_the_lower_number_comes_first():
    tied = np.full((4, 4), 0.25)
    # Label 0 is first, 1 second, and so on.
    assert [top_k_accuracy(np.arange(4), tied, k) for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1]


def test_the_wilson_interval_of_three_of_four():
    # z = 1.959964, z^2 = 3.841459. Centre (3 + 1.920729) / (4 + 3.841459) = 0.627527; half width
    # 1.959964 * sqrt(3 * 1 / 4 + 0.960365) / 7.841459 = 0.326885.
    assert wilson_interval(3, 4) == pytest.approx((0.300642, 0.954413), abs=1e-6)
    # z = 0.674490 for the middle half, z^2 = 0.454936: (3 + 0.227468) / 4.454936 = 0.724470, and
    # 0.674490 * sqrt(0.75 + 0.113734) / 4.454936 = 0.140710.
    assert wilson_interval(3, 4, confidence=0.5) == pytest.approx((0.583760, 0.865180), abs=1e-6)


def test_the_wilson_interval_of_none_of_all_and_of_nothing():
    # With 0 of n the upper end is z^2 / (n + z^2) = 3.841459 / 13.841459; 0 and 1 are exact.
    low, high = wilson_interval(0, 10)
    assert low == 0
    assert high == pytest.approx(0.277533, abs=1e-6)
    assert wilson_interval(10, 10) == (pytest.approx(1 - 0.277533, abs=1e-6), 1)
    for level in (0.5, 0.9, 0.95, 0.999):
        assert {wilson_interval(0, count, confidence=level)[0] for count in range(1, 100)} == {0}
        assert {wilson_interval(count, count, confidence=level)[1] for count in range(1, 100)} == {1}
    assert all(math.isnan(end) for end in wilson_interval(0, 0))


@settings(deadline=None)
@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.01, 0.999))
def test_the_wilson_interval_holds_the_share_and_mirrors(counts, confidence):
    successes, trials = counts
    low, high = wilson_interval(successes, trials, confidence=confidence)
    assert 0 <= low <= successes / trials <= high <= 1
    mirrored = wilson_interval(trials - successes, trials, confidence=confidence)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)
    expected = binomtest(successes, trials).proportion_ci(confidence_level=confidence, method="wilson")
    assert (low, high) == pytest.approx(expected, abs=1e-9)


def test_confusion_has_a_row_for_each_true_label_and_leaves_the_unknown_out():
    matrix = confusion_matrix(TRUTH, PREDICTED, 4)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, [[3, 0, 0, 0], [1, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]])
    # Rows of 3, 2, 2 and 0 queries.
    nan = np.nan
    np.testing.assert_array_equal(
        normalise_confusion(matrix), [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [1, 0, 0, 0], [nan, nan, nan, nan]]
    )


def test_the_scores_of_each_label():
    scores = label_scores(TRUTH, PREDICTED, 4)
    # Dress was predicted seven times, three times rightly: one shirt, two skirts and the sari are false positives.
    # Skirt and hat are never predicted, hat never occurs.
    np.testing.assert_array_equal(scores.support, [3, 2, 2, 0])
    np.testing.assert_array_equal(scores.predicted_count, [7, 1, 0, 0])
    np.testing.assert_allclose(scores.precision, [3 / 7, 1, np.nan, np.nan])
    np.testing.assert_allclose(scores.recall, [1, 1 / 2, 0, np.nan])
    # Twice the right ones by those that occur and those predicted: 6 / 10, 2 / 3, 0 / 2, and 0 / 0 for hat.
    np.testing.assert_allclose(scores.f1, [0.6, 2 / 3, 0, np.nan])
    for low, high, right, count in (
        (scores.precision_low, scores.precision_high, [3, 1, 0, 0], [7, 1, 0, 0]),
        (scores.recall_low, scores.recall_high, [3, 1, 0, 0], [3, 2, 2, 0]),
    ):
        expected = [wilson_interval(*pair) for pair in zip(right, count, strict=True)]
        np.testing.assert_allclose(np.stack([low, high], axis=1), expected)


def test_macro_is_the_mean_over_labels_that_occur():
    scores = macro(label_scores(TRUTH, PREDICTED, 4))
    assert scores.label_count == 3
    # Skirt occurs and is never predicted: its precision counts as 0. Hat does not count.
    assert scores.precision == pytest.approx((3 / 7 + 1 + 0) / 3)
    assert scores.recall == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert scores.f1 == pytest.approx((0.6 + 2 / 3 + 0) / 3)
    # A hat predicted for the sari takes one false positive from dress: 3 of 6. Hat still does not count.
    with_hat = macro(label_scores(TRUTH, np.array([0, 0, 0, 1, 0, 0, 0, 3]), 4))
    assert with_hat.label_count == 3
    assert with_hat.precision == pytest.approx((3 / 6 + 1 + 0) / 3)


def test_log_loss_leaves_unknown_labels_out():
    # The true labels have 0.75, 0.65, 0.5, 0.85, 0.35, 0.4 and 0.25.
    expected = -math.log(0.75 * 0.65 * 0.5 * 0.85 * 0.35 * 0.4 * 0.25) / 7
    assert log_loss(TRUTH, PROBABILITIES) == pytest.approx(expected)
    assert math.isnan(log_loss(np.array([-1]), PROBABILITIES[:1]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_loss_of_a_certain_mistake_is_finite(dtype):
    # Clipped to eps: -log(1.19e-7) = 15.9424 for float32, -log(2.22e-16) = 36.0437 for float64.
    expected = {np.float32: 15.942385, np.float64: 36.043653}[dtype]
    certain = np.array([[1.0, 0.0]], dtype)
    assert log_loss(np.array([1]), certain) == pytest.approx(expected, abs=1e-6)
    # And to 1 - eps above.
    assert 0 < log_loss(np.array([0]), certain) < 2e-7
    assert multi_label_log_loss(np.array([[False, True]]), certain) == pytest.approx(expected, abs=1e-6)


def test_reliability_and_calibration_error_in_four_bins():
    confidence = PROBABILITIES.max(axis=1)
    table = reliability(confidence, TRUTH == PREDICTED, bins=4)
    np.testing.assert_array_equal(table.edges, [0, 0.25, 0.5, 0.75, 1])
    # 0.50 and 0.45 in (0.25, 0.5]: one of two right. 0.75, 0.65, 0.60, 0.70 and 0.55 in (0.5, 0.75]: the first two
    # right. 0.85 in (0.75, 1]: right.
    np.testing.assert_array_equal(table.counts, [0, 2, 5, 1])
    np.testing.assert_allclose(table.confidence, [np.nan, 0.475, 0.65, 0.85])
    np.testing.assert_allclose(table.accuracy, [np.nan, 0.5, 0.4, 1])
    # The gaps are 0.025, 0.25 and 0.15, of 2, 5 and 1 queries: 0.05 + 1.25 + 0.15 = 1.45 by 8.
    assert calibration_error(confidence, TRUTH == PREDICTED, bins=4) == pytest.approx(1.45 / 8)
    # In fifteen bins only 0.60 and 0.55 share one, both wrong, so each photo counts by itself.
    expected = (0.25 + 0.35 + 0.5 + 0.15 + 0.6 + 0.45 + 0.7 + 0.55) / 8
    assert calibration_error(confidence, TRUTH == PREDICTED) == pytest.approx(expected)


def test_the_ends_of_the_scale_are_in_a_bin():
    # 0 is in the first bin, 1 and what rounding has put above it in the last.
    table = reliability(np.array([0, 1, 1 + 2e-7, -1e-9]), np.array([False, True, True, False]))
    assert len(table.edges) == 16
    np.testing.assert_array_equal(table.counts, [2] + [0] * 13 + [2])
    np.testing.assert_array_equal(np.nan_to_num(table.accuracy), [0] * 14 + [1])


def test_the_scores_of_several_labels_a_query():
    scores = multi_label_scores(SEVERAL, GUESSED)
    # Floral is right twice. Striped is found once of twice. Long is right once and guessed once too often.
    np.testing.assert_array_equal(scores.support, [2, 2, 1])
    np.testing.assert_array_equal(scores.predicted_count, [2, 1, 2])
    np.testing.assert_allclose(scores.precision, [1, 1, 1 / 2])
    np.testing.assert_allclose(scores.recall, [1, 1 / 2, 1])
    np.testing.assert_allclose(scores.f1, [1, 2 / 3, 2 / 3])
    np.testing.assert_allclose(scores.recall_high[1], wilson_interval(1, 2)[1])
    # Four right, five true, five guessed.
    assert micro_f1(SEVERAL, GUESSED) == pytest.approx(2 * 4 / (5 + 5))
    # The first and the last query are right in full.
    assert exact_match(SEVERAL, GUESSED) == 2 / 4


def test_the_log_loss_of_several_labels_a_query():
    truth = np.array([[True, False], [True, True]])
    probabilities = np.array([[0.8, 0.4], [0.5, 0.9]])
    # 0.8, 1 - 0.4, 0.5 and 0.9 for what is true.
    expected = -math.log(0.8 * 0.6 * 0.5 * 0.9) / 4
    assert multi_label_log_loss(truth, probabilities) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_label_a_query_agrees_with_scikit_learn(seed, dtype):
    rng = np.random.default_rng(seed)
    count, classes = 300, 7
    labels = np.arange(classes)
    # The last label never occurs and the first is never predicted; every tenth query has a label of another head.
    truth = rng.integers(0, classes - 1, count)
    scores = rng.normal(size=(count, classes)) + 2 * np.eye(classes)[truth]
    scores[:, 0] -= 20
    probabilities = (np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)).astype(dtype)
    predicted = probabilities.argmax(axis=1)
    known = truth.copy()
    truth[::10] = -1

    assert accuracy(truth, predicted) == pytest.approx(sklearn.metrics.accuracy_score(truth, predicted))
    for k in range(1, classes):
        expected = sklearn.metrics.top_k_accuracy_score(known, probabilities, k=k, labels=labels)
        assert top_k_accuracy(known, probabilities, k) == pytest.approx(expected)
    matrix = confusion_matrix(truth, predicted, classes)
    np.testing.assert_array_equal(matrix, sklearn.metrics.confusion_matrix(truth, predicted, labels=labels))
    normalised = sklearn.metrics.confusion_matrix(known, predicted, labels=labels, normalize="true")
    mine = normalise_confusion(confusion_matrix(known, predicted, classes))
    np.testing.assert_allclose(mine[:-1], normalised[:-1])
    table = label_scores(truth, predicted, classes)
    expected = sklearn.metrics.precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=np.nan)
    np.testing.assert_allclose([table.precision, table.recall, table.f1, table.support], expected)
    # The arguments that the docstring of `macro` names.
    *expected, _ = sklearn.metrics.precision_recall_fscore_support(
        truth, predicted, labels=np.unique(truth[truth >= 0]), average="macro", zero_division=0
    )
    mean = macro(table)
    np.testing.assert_allclose([mean.precision, mean.recall, mean.f1], expected)
    kept = truth >= 0
    expected_loss = sklearn.metrics.log_loss(truth[kept], probabilities[kept], labels=labels)
    assert log_loss(truth, probabilities) == pytest.approx(expected_loss, rel=1e-5)
    confidence, correct = probabilities.max(axis=1), truth == predicted
    bins = reliability(confidence, correct, bins=10)
    filled = bins.counts > 0
    right, sure = calibration_curve(correct, confidence, n_bins=10)
    np.testing.assert_allclose(bins.accuracy[filled], right)
    np.testing.assert_allclose(bins.confidence[filled], sure)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_several_labels_a_query_agree_with_scikit_learn(seed, dtype):
    rng = np.random.default_rng(seed)
    truth = rng.random((200, 5)) < 0.3
    probabilities = np.where(truth, rng.random(truth.shape), rng.random(truth.shape) ** 2).astype(dtype)
    # Certain of some, rightly and wrongly.
    probabilities[:5], probabilities[5:10] = 0, 1
    predicted = probabilities > 0.5
    truth[:, 4] = predicted[:, 4] = False
    table = multi_label_scores(truth, predicted)
    expected = sklearn.metrics.precision_recall_fscore_support(truth, predicted, zero_division=np.nan)
    np.testing.assert_allclose([table.precision, table.recall, table.f1, table.support], expected)
    *expected, _ = sklearn.metrics.precision_recall_fscore_support(
        truth, predicted, labels=np.arange(4), average="macro", zero_division=0
    )
    mean = macro(table)
    assert mean.label_count == 4
    np.testing.assert_allclose([mean.precision, mean.recall, mean.f1], expected)
    assert micro_f1(truth, predicted) == pytest.approx(sklearn.metrics.f1_score(truth, predicted, average="micro"))
    assert exact_match(truth, predicted) == pytest.approx(sklearn.metrics.accuracy_score(truth, predicted))
    losses = [sklearn.metrics.log_loss(truth[:, c], probabilities[:, c], labels=[False, True]) for c in range(5)]
    assert multi_label_log_loss(truth, probabilities) == pytest.approx(np.mean(losses), rel=1e-5)


@st.composite
def labelled(draw: st.DrawFn) -> tuple[Any, Any]:
    """Truth (Q,) with unknown labels, and probabilities (Q, C) with ties."""
    classes, count = draw(st.integers(1, 5)), draw(st.integers(1, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    votes = rng.integers(0, 3, (count, classes)) + 1
    return rng.integers(-1, classes, count), (votes / votes.sum(axis=1, keepdims=True)).astype(np.float32)


@settings(deadline=None)
@given(labelled())
def test_the_metrics_agree_with_each_other(example):
    truth, probabilities = example
    classes, predicted = probabilities.shape[1], probabilities.argmax(axis=1)
    correct, confidence = truth == predicted, probabilities.max(axis=1)
    right = accuracy(truth, predicted)
    # The first of the likeliest is what is predicted; more labels never lose; all labels hold every known one.
    shares = [top_k_accuracy(truth, probabilities, k) for k in range(1, classes + 1)]
    assert shares[0] == right
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx((truth >= 0).mean())
    matrix, scores = confusion_matrix(truth, predicted, classes), label_scores(truth, predicted, classes)
    assert np.trace(matrix) == correct.sum()
    np.testing.assert_array_equal(matrix.sum(axis=1), scores.support)
    np.testing.assert_array_equal(normalise_confusion(matrix).diagonal(), scores.recall)
    # The same numbers as those of several labels a query, of which each has one or none.
    several = multi_label_scores(np.eye(classes + 1, dtype=bool)[truth][:, :-1], np.eye(classes, dtype=bool)[predicted])
    np.testing.assert_array_equal(several.f1, scores.f1)
    # In one bin only the means count; finer bins can only find more.
    whole = calibration_error(confidence, correct, bins=1)
    assert whole == pytest.approx(abs(right - confidence.mean(dtype=np.float64)))
    assert whole - 1e-9 <= calibration_error(confidence, correct) <= 1


def test_nothing_has_no_metrics():
    none, empty = np.empty(0, np.int64), np.empty((0, 3), np.float32)
    assert math.isnan(accuracy(none, none))
    assert math.isnan(top_k_accuracy(none, empty, 1))
    assert math.isnan(log_loss(none, empty))
    assert math.isnan(calibration_error(empty[:, 0], np.empty(0, bool)))
    np.testing.assert_array_equal(confusion_matrix(none, none, 3), np.zeros((3, 3)))
    scores = macro(label_scores(none, none, 3))
    assert scores.label_count == 0
    assert all(math.isnan(value) for value in (scores.precision, scores.recall, scores.f1))
    nobody = np.empty((0, 3), bool)
    assert macro(multi_label_scores(nobody, nobody)).label_count == 0
    assert math.isnan(exact_match(nobody, nobody))
    assert math.isnan(multi_label_log_loss(nobody, empty))
    # Queries without any label have a share of exact matches, and no F1.
    assert math.isnan(micro_f1(np.zeros((2, 3), bool), np.zeros((2, 3), bool)))
    assert exact_match(np.zeros((2, 3), bool), np.zeros((2, 3), bool)) == 1


SURE = np.array([0.5, 0.7])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accuracy(TRUTH[:3], PREDICTED), "There are 3 true labels and 8 predicted ones"),
        (lambda: accuracy(TRUTH[:, None], PREDICTED), r"'truth' must be \(queries,\) int64 .* got int64 \(8, 1\)"),
        (lambda: accuracy(TRUTH, PROBABILITIES), r"'predicted' must be .* got float64 \(8, 4\)"),
        (lambda: accuracy(TRUTH, TRUTH), "'predicted' must be 0 or more; got -1 to 2"),
        (lambda: accuracy(TRUTH - 1, PREDICTED), "'truth' must be -1 or more; got -2 to 1"),
        (lambda: accuracy(np.array(["dress"]), np.array([0])), r"'truth' must be .* got <U5 \(1,\)"),
        (lambda: accuracy(PREDICTED.astype(np.uint64), PREDICTED), r"'truth' must be .* got uint64 \(8,\)"),
        (lambda: confusion_matrix(TRUTH, PREDICTED, 2), r"'truth' must be -1 to 1; got -1 to 2"),
        (lambda: confusion_matrix(TRUTH.clip(max=0), PREDICTED, 1), r"'predicted' must be 0 to 0; got 0 to 1"),
        (lambda: confusion_matrix(TRUTH, PREDICTED, 0), "1 label or more; got 0"),
        (lambda: label_scores(TRUTH, PREDICTED, 2), r"'truth' must be -1 to 1"),
        (lambda: label_scores(TRUTH, TRUTH, 4), "'predicted' must be 0 to 3; got -1"),
        (lambda: normalise_confusion(np.zeros((2, 3), np.int64)), r"\(C, C\) counts.*got int64 \(2, 3\)"),
        (lambda: normalise_confusion(np.zeros(4, np.int64)), r"got int64 \(4,\)"),
        (lambda: normalise_confusion(np.eye(2)), "got float64"),
        (lambda: normalise_confusion(-np.eye(2, dtype=np.int64)), "counts of 0 or more"),
        (lambda: top_k_accuracy(TRUTH, PROBABILITIES, 0), "k must be 1 or more; got 0"),
        (lambda: top_k_accuracy(TRUTH, PROBABILITIES[0], 1), r"'probabilities' must be \(queries, labels\)"),
        (lambda: top_k_accuracy(TRUTH[:2], PROBABILITIES, 1), "2 true labels and probabilities of 8 queries"),
        (lambda: top_k_accuracy(TRUTH, PROBABILITIES[:, :2], 1), "'truth' must be -1 to 1; got -1 to 2"),
        (lambda: top_k_accuracy(TRUTH, PROBABILITIES * np.nan, 1), "'probabilities' must be 0 to 1; got nan"),
        (lambda: top_k_accuracy(TRUTH, PROBABILITIES[:, :0], 1), "1 label or more; got 0"),
        (lambda: log_loss(TRUTH, PROBABILITIES - 0.1), "'probabilities' must be 0 to 1; got -0.1"),
        (lambda: log_loss(TRUTH, PROBABILITIES * 2), r"'probabilities' must be 0 to 1; got 0.0 to 1.7"),
        (lambda: log_loss(TRUTH, PROBABILITIES.astype(int)), "'probabilities' must be float; got int64"),
        # A sum of 1.1 in the fourth query.
        (lambda: log_loss(TRUTH, PROBABILITIES + _extra(3)), "query 3 sum to 1.1"),
        (lambda: wilson_interval(5, 4), "got 5 of 4"),
        (lambda: wilson_interval(-1, 4), "got -1 of 4"),
        (lambda: wilson_interval(1, 4, confidence=95), "'confidence' must be above 0 and below 1.*got 95"),
        (lambda: reliability(SURE, np.array([True])), r"'correct' must be bool of shape \(2,\); got bool \(1,\)"),
        (lambda: reliability(SURE, SURE), "'correct' must be bool .* got float64"),
        (lambda: reliability(SURE * np.nan, SURE > 0), "'confidence' must be 0 to 1; got nan"),
        (lambda: calibration_error(np.array([0.5, np.nan]), SURE > 0), "'confidence' must be 0 to 1; got nan"),
        (lambda: reliability(SURE * 2, SURE > 0), "'confidence' must be 0 to 1; got 1.0 to 1.4"),
        (lambda: reliability(SURE[:, None], SURE > 0), r"'confidence' must be \(queries,\); got shape \(2, 1\)"),
        (lambda: reliability(SURE, SURE > 0, bins=0), "'bins' must be 1 or more; got 0"),
        (lambda: micro_f1(SEVERAL, GUESSED[:, :2]), r"'predicted' must be bool of shape \(4, 3\); got bool \(4, 2\)"),
        (lambda: exact_match(SEVERAL.astype(int), GUESSED), "'truth' must be bool of shape .* got int64"),
        (lambda: multi_label_scores(SEVERAL[0], GUESSED[0]), r"\(queries, labels\) bool; got shape \(3,\)"),
        (lambda: multi_label_scores(SEVERAL, GUESSED * 0.5), "'predicted' must be bool .* got float64"),
        (lambda: multi_label_log_loss(SEVERAL, PROBABILITIES), r"shape of 'truth', \(4, 3\); got \(8, 4\)"),
        (lambda: multi_label_log_loss(SEVERAL, SEVERAL * 2.0), "'probabilities' must be 0 to 1; got 0.0 to 2.0"),
        (lambda: multi_label_log_loss(GUESSED * 1, SEVERAL * 1.0), "'truth' must be bool"),
    ],
)
def test_a_wrong_argument_is_refused_with_a_sentence(call: Callable[[], Any], message: str):
    with pytest.raises(MetricError, match=message):
        call()


def _extra(query: int) -> Any:
    """A tenth more for one label of one query of the example."""
    more = np.zeros(PROBABILITIES.shape)
    more[query, 0] = 0.1
    return more
