"""Prediction sets: the quantile by hand, and the coverage that is promised."""

from __future__ import annotations

import numpy as np
import pytest

from heads.checks import HeadError
from heads.conformal import conformal_scores, prediction_sets
from heads.logits import one_hot, softmax


def test_scores_are_what_true_labels_lack():
    truth = one_hot(np.array([0, 1, 0]), 2)
    said = np.array([[0.7, 0.3], [0.5, 0.5], [0.9, 0.1]], np.float32)
    scores = conformal_scores(truth, said)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [0.1, 0.3, 0.5], atol=1e-6)


SCORES = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9], np.float32) / 16


@pytest.mark.parametrize(
    ("coverage", "least"),
    [
        # Of nine scores the ceil(10 x coverage)-th: the 5th, 5/16, so that 11/16 is enough.
        (0.5, 11 / 16),
        (0.45, 11 / 16),
        (0.4, 12 / 16),
        (0.1, 15 / 16),
        (0.9, 7 / 16),
        # The 10th is not there: all labels.
        (0.91, 0),
        (0.99, 0),
    ],
)
def test_the_quantile_by_hand(coverage, least):
    probabilities = (np.arange(17, dtype=np.float32) / 16)[:, None]
    sets = prediction_sets(probabilities, SCORES, coverage=coverage)
    assert sets.dtype == bool
    np.testing.assert_array_equal(sets, probabilities >= least)


def test_a_set_may_have_several_labels_or_none():
    # At 0.5 a label is in it from 11/16 on; at 0.9 from 7/16.
    probabilities = np.array([[0.5, 0.5, 0], [0.9, 0.1, 0], [0.4, 0.3, 0.3]], np.float32)
    assert prediction_sets(probabilities, SCORES).tolist() == [
        [True, True, False],
        [True, False, False],
        [False, False, False],
    ]
    assert not prediction_sets(probabilities, SCORES, coverage=0.5)[[0, 2]].any()


@pytest.mark.parametrize("count", [0, 1, 8])
def test_with_too_few_scores_a_set_has_all_labels(count):
    # 90 % asks for nine at least.
    assert prediction_sets(np.array([[1, 0, 0]], np.float32), SCORES[:count]).all()


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("sharpness", [0.5, 3.0])
def test_covers_what_was_asked_for_whatever_the_head_gets_wrong(coverage, sharpness):
    rng = np.random.default_rng(0)
    known, trials = 199, 60
    count = 2 * known * trials
    logits = rng.standard_normal((count, 5)).astype(np.float32)
    numbers = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    # Too sure or too unsure.
    said, truth = softmax(logits * np.float32(sharpness)), one_hot(numbers, 5)
    covered = []
    for start in range(0, count, 2 * known):
        seen, new = slice(start, start + known), slice(start + known, start + 2 * known)
        sets = prediction_sets(said[new], conformal_scores(truth[seen], said[seen]), coverage=coverage)
        covered.append(sets[truth[new]].mean())
    # With 199 scores these coverages are exact in expectation; each half of a trial adds a binomial variance.
    error = np.sqrt(2 * coverage * (1 - coverage) / known / trials)
    assert np.mean(covered) == pytest.approx(coverage, abs=4 * error)
    assert error < 0.01


@pytest.mark.parametrize("coverage", [0, 1, -0.5, 90, np.nan])
def test_refuses_a_coverage_that_is_none(coverage):
    with pytest.raises(HeadError, match=f"'coverage' is a share above 0 and below 1, for example 0.9; got {coverage}"):
        prediction_sets(np.eye(2, dtype=np.float32), SCORES, coverage=coverage)
