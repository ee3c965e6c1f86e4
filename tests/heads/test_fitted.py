"""A fitted head's answers, from probabilities that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from heads.checks import HeadError
from heads.ensemble import EnsembleHead
from heads.fitted import FittedHead, HeadCard
from heads.knn import KnnHead
from heads.linear import LinearHead
from heads.novelty import Novelty
from tests.heads.worlds import clusters

CARD = HeadCard(
    kind="linear",
    target="type",
    labels=("Dress", "Hat", "Shirt"),
    multi_label=False,
    encoder="lite0",
    encoder_fingerprint="lite0-abc",
    gallery_version=1,
    items=9,
    unlabelled=0,
    rare={},
    min_count=2,
    balance="none",
    settings={"penalty": 1.0},
    validation={},
    fitted_at="2026-11-21T16:00:00+00:00",
    seconds=0.1,
)
# Nine validation photos: at 50 % the fifth counts, 0.5; at 80 % the eighth, 0.8.
SCORES = np.arange(1, 10, dtype=np.float32) / 10
# Known photos at distances 0.1 to 0.4; doubt is of no account.
DISTANCE = Novelty(np.array([0, 1, 0], np.float32), np.log(np.array([1, 2, 3, 4]) / 10 + 1e-3).astype(np.float32), {})
# A photo looks stranger the less its likeliest label has: known ones had 0.77, 0.65, 0.55 and 0.45.
DOUBT = Novelty(
    np.array([0, 0, -1], np.float32),
    -np.log([0.77 / 0.23, 0.65 / 0.35, 0.55 / 0.45, 0.45 / 0.55]).astype(np.float32),
    {},
)


def fitted(*, multi_label=False, temperature=1.0, novelty=DISTANCE, thresholds=None):
    """A head to which embeddings are the logarithms of the probabilities, or of the odds."""
    arrays = {"coef": np.eye(3, dtype=np.float32), "intercept": np.zeros(3, np.float32)}
    head = LinearHead.restored({"penalty": 1.0}, arrays, np.arange(3), multi_label)
    scores = SCORES[:0] if multi_label else SCORES
    nothing = np.zeros(0, np.int64)
    return FittedHead(head, CARD, temperature, scores, None if multi_label else novelty, thresholds, nothing, nothing)


def of(*probabilities):
    return np.log(np.array(probabilities, np.float32))


def test_answers_by_hand():
    answers = fitted().answer(of([0.6, 0.3, 0.1], [0.1, 0.45, 0.45]), coverage=0.5)
    np.testing.assert_allclose(answers.probabilities, [[0.6, 0.3, 0.1], [0.1, 0.45, 0.45]], atol=1e-5)
    np.testing.assert_allclose(answers.uncalibrated, answers.probabilities, atol=1e-5)
    assert answers.predicted.tolist() == [0, 1]
    # From 0.5 on.
    assert answers.sets.tolist() == [[True, False, False], [False, False, False]]
    assert answers.familiarity is None
    assert (answers.probabilities.dtype, answers.predicted.dtype, answers.sets.dtype) == (np.float32, np.int64, bool)


def test_the_coverage_decides_how_large_sets_are():
    # From 0.2 on; and by default, at 90 %, from 0.1 on.
    embeddings = of([0.6, 0.3, 0.1], [0.5, 0.45, 0.05])
    assert fitted().answer(embeddings, coverage=0.8).sets.tolist() == [[True, True, False], [True, True, False]]
    assert fitted().answer(of([0.6, 0.26, 0.14], [0.5, 0.45, 0.05])).sets.tolist() == [
        [True, True, True],
        [True, True, False],
    ]
    with pytest.raises(HeadError, match="'coverage' is a share"):
        fitted().answer(embeddings, coverage=1.0)


def test_the_temperature_calibrates_all_but_what_the_head_said():
    # 16, 4 and 1 parts become 4, 2 and 1.
    answers = fitted(temperature=2.0).answer(of([16 / 21, 4 / 21, 1 / 21]), coverage=0.5)
    np.testing.assert_allclose(answers.probabilities, [[4 / 7, 2 / 7, 1 / 7]], atol=1e-5)
    np.testing.assert_allclose(answers.uncalibrated, [[16 / 21, 4 / 21, 1 / 21]], atol=1e-5)
    # 4/7 is over 0.5; before calibration no more was.
    assert answers.sets.tolist() == [[True, False, False]]
    assert fitted(temperature=2.0).answer(of([0.69, 0.3, 0.01]), coverage=0.5).sets.tolist() == [[True, False, False]]
    assert not fitted(temperature=5.0).answer(of([0.69, 0.3, 0.01]), coverage=0.5).sets.any()


def test_factors_change_the_prediction_but_not_what_is_known():
    factors = np.array([0, 1, 1], np.float32)
    embeddings, distances = of([0.6, 0.3, 0.1]), np.array([0.25], np.float32)
    answers = fitted(novelty=DOUBT).answer(embeddings, distances=distances, factors=factors, coverage=0.8)
    # 0.3 and 0.1 of 0.4.
    np.testing.assert_allclose(answers.probabilities, [[0, 0.75, 0.25]], atol=1e-5)
    np.testing.assert_allclose(answers.uncalibrated, [[0.6, 0.3, 0.1]], atol=1e-5)
    assert answers.predicted.tolist() == [1]
    # From 0.2 on before the factors, of which the dress is not allowed; a shirt has 0.25 only by them.
    assert answers.sets.tolist() == [[False, True, False]]
    plain = fitted(novelty=DOUBT).answer(embeddings, distances=distances, coverage=0.8)
    assert plain.sets.tolist() == [[True, True, False]]
    # Two known ones had less than 0.6; three had less than 0.75.
    assert answers.familiarity.tolist() == plain.familiarity.tolist() == [0.5]


def test_familiarity_by_hand():
    embeddings = of(*[[0.6, 0.3, 0.1]] * 5)
    distances = np.array([0.05, 0.15, 0.25, 0.35, 0.45], np.float32)
    answers = fitted().answer(embeddings, distances=distances)
    assert answers.familiarity.tolist() == [1, 0.75, 0.5, 0.25, 0]
    # It is of calibrated probabilities: 16/21 of the first label becomes 4/7.
    known = fitted(temperature=2.0, novelty=DOUBT).answer(of([16 / 21, 4 / 21, 1 / 21]), distances=distances[:1])
    assert known.familiarity.tolist() == [0.5]
    assert fitted(novelty=None).answer(embeddings, distances=distances).familiarity is None


def test_several_labels_by_hand():
    # Odds of 4, 1 and 1/4.
    head = fitted(multi_label=True, thresholds=np.array([0.9, 0.5, 0.2], np.float32))
    answers = head.answer(of([4, 1, 0.25]), distances=np.zeros(1, np.float32))
    np.testing.assert_allclose(answers.probabilities, [[0.8, 0.5, 0.2]], atol=1e-5)
    assert answers.predicted.tolist()[0][0] is False
    assert head.answer(of([10, 1.1, 0.3])).predicted.tolist() == [[True, True, True]]
    # At the threshold it has the label.
    assert fitted(multi_label=True, thresholds=answers.probabilities[0]).answer(of([4, 1, 0.25])).predicted.all()
    assert head.answer(of([8, 0.9, 0.2])).predicted.tolist() == [[False, False, False]]
    assert (answers.sets, answers.familiarity) == (None, None)


def test_factors_multiply_the_odds_of_several_labels():
    head = fitted(multi_label=True, thresholds=np.array([0.5, 0.5, 0.5], np.float32), temperature=2.0)
    # Odds of 16, 4 and 1/4 become 4, 2 and 1/2, and by the factors 0, 1 and 2.
    answers = head.answer(of([16, 4, 0.25]), factors=np.array([0, 0.25, 4], np.float32))
    np.testing.assert_allclose(answers.probabilities, [[0, 1 / 3, 2 / 3]], atol=1e-5)
    np.testing.assert_allclose(answers.uncalibrated, [[16 / 17, 4 / 5, 1 / 5]], atol=1e-5)
    assert answers.predicted.tolist() == [[False, False, True]]


def test_no_photos_have_no_answers():
    answers = fitted().answer(np.zeros((0, 3), np.float32), distances=np.zeros(0, np.float32))
    assert (answers.probabilities.shape, answers.predicted.shape) == ((0, 3), (0,))
    assert (answers.sets.shape, answers.familiarity.shape) == ((0, 3), (0,))


def test_refuses_embeddings_of_another_encoder():
    with pytest.raises(HeadError, match="fitted on 3-number embeddings; the query has shape"):
        fitted().answer(np.zeros((1, 4), np.float32))


@pytest.mark.parametrize("make", [KnnHead, lambda: EnsembleHead([KnnHead(), LinearHead()])])
def test_votes_at_hand_give_the_same_answer_without_another_search(make, monkeypatch):
    embeddings, y = clusters(60, labels=3, spread=0.6)
    one = replace(fitted(), head=make().fit(embeddings[:40], y[:40]))
    expected, votes = one.answer(embeddings[40:]), one.votes(embeddings[40:])
    monkeypatch.setattr(KnnHead, "neighbours", lambda *_: pytest.fail("It searched again."))
    answer = one.answer(embeddings[40:], votes=votes)
    np.testing.assert_array_equal(answer.uncalibrated, expected.uncalibrated)
    np.testing.assert_array_equal(answer.sets, expected.sets)


def test_a_head_without_knn_has_no_votes():
    assert fitted().votes(np.eye(3, dtype=np.float32)) is None
