"""The kNN head: votes by hand, neighbours by brute force, and settings that nothing else beats."""

from __future__ import annotations

import numpy as np
import pytest

from heads import knn
from heads.calibration import calibrated_log_loss
from heads.checks import HeadError
from heads.knn import NEIGHBOURS, TEMPERATURES, KnnHead, nearest
from heads.logits import one_hot
from heads.sample import Sample
from tests.heads.worlds import clusters

# The weights of the cosines 1 and 0.6 are then 3 to 1.
TEMPERATURE = 0.4 / np.log(3)


def of_three(labels, *, weights=(1, 1, 1), multi_label=False, k=2):
    """A head of three photos in a plane, whose scaling changes nothing; the query (1, 0) is at cosines 1, 0, 0.6."""
    arrays = {
        "features": np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32),
        "labels": np.array(labels),
        "weights": np.array(weights, np.float32),
        "mean": np.zeros(2, np.float32),
        "projection": np.eye(2, dtype=np.float32),
    }
    settings = {"k": k, "temperature": TEMPERATURE, "dimension": 2}
    return KnnHead.restored(settings, arrays, np.array(["dress", "shirt"]), multi_label)


def test_votes_by_hand():
    head = of_three([0, 1, 1])
    votes = head.neighbours(np.array([[2, 0]], np.float32))
    assert votes.rows.tolist() == [[0, 2]]
    np.testing.assert_allclose(votes.similarities, [[1, 0.6]], atol=1e-6)
    np.testing.assert_allclose(votes.weights, [[0.75, 0.25]], atol=1e-6)
    # Two votes, 1.5 for dress and 0.5 for shirt, and one by frequency, 1/3 and 2/3.
    probabilities = head.predict_proba(np.array([[2, 0]], np.float32))
    np.testing.assert_allclose(probabilities, [[(1.5 + 1 / 3) / 3, (0.5 + 2 / 3) / 3]], atol=1e-6)
    assert head.predict(np.array([[2, 0]], np.float32)).tolist() == ["dress"]


def test_weighed_votes_by_hand():
    # 0.75 x 0.5 and 0.25 x 1.25 are 6 to 5: of two votes 12/11 and 10/11. By frequency 0.5 and 2.5 of three.
    head = of_three([0, 1, 1], weights=(0.5, 1.25, 1.25))
    probabilities = head.predict_proba(np.array([[1, 0]], np.float32))
    np.testing.assert_allclose(probabilities, [[(12 / 11 + 0.5 / 3) / 3, (10 / 11 + 2.5 / 3) / 3]], atol=1e-6)
    # The evidence is how similar they are, whatever their label weighs.
    np.testing.assert_allclose(head.neighbours(np.array([[1, 0]], np.float32)).weights, [[0.75, 0.25]], atol=1e-6)


def test_logits_let_all_rows_vote_by_hand():
    # A cosine counts 3 ** (cosine / 0.4): 3 ** 2.5 for dress, and for shirt 1 and 3 ** 1.5, of which k = 1 sees none.
    odds = np.log(3**2.5 / (1 + 3**1.5))
    head = of_three([0, 1, 1], k=1)
    np.testing.assert_allclose(head.logits(np.array([[2, 0]], np.float32)), [[odds, -odds]], atol=1e-5)
    weighed = of_three([0, 1, 1], weights=(0.5, 1.25, 1.25))
    np.testing.assert_allclose(
        weighed.logits(np.array([[1, 0]], np.float32))[0, 0], odds + np.log(0.5 / 1.25), atol=1e-5
    )
    # Of several labels each is asked by itself: the first is on rows 0 and 2, the second on 1 and 2.
    several = of_three([[True, False], [False, True], [True, True]], multi_label=True)
    expected = [[np.log(3**2.5 + 3**1.5), np.log(1 + 3**1.5) - 2.5 * np.log(3)]]
    np.testing.assert_allclose(several.logits(np.array([[1, 0]], np.float32)), expected, atol=1e-5)


def test_logits_of_a_label_that_all_rows_have_are_finite():
    several = of_three([[True, False], [True, True], [True, True]], multi_label=True)
    logits = several.logits(np.array([[1, 0]], np.float32))
    assert np.isfinite(logits).all()
    assert logits[0, 0] > 80


def test_votes_for_several_labels_by_hand():
    # Both neighbours have the first label, one of them the second too. By frequency 2/3 each.
    head = of_three([[True, False], [False, True], [True, True]], multi_label=True)
    probabilities = head.predict_proba(np.array([[1, 0]], np.float32))
    np.testing.assert_allclose(probabilities, [[(2 + 2 / 3) / 3, (0.5 + 2 / 3) / 3]], atol=1e-6)
    weighed = of_three([[True, False], [False, True], [True, True]], multi_label=True, weights=(0.5, 1.25, 1.25))
    probabilities = weighed.predict_proba(np.array([[1, 0]], np.float32))
    np.testing.assert_allclose(probabilities, [[(2 + 1.75 / 3) / 3, (10 / 11 + 2.5 / 3) / 3]], atol=1e-6)


def test_an_embedding_at_the_mean_is_like_nothing():
    votes = of_three([0, 1, 1], k=3).neighbours(np.zeros((1, 2), np.float32))
    assert votes.rows.tolist() == [[0, 1, 2]]
    assert votes.similarities.tolist() == [[0, 0, 0]]
    np.testing.assert_allclose(votes.weights, 1 / 3, atol=1e-6)


@pytest.mark.parametrize("similarities", [None, 1, 150])
@pytest.mark.parametrize("k", [1, 3, 39, 40])
def test_nearest_agrees_with_brute_force(monkeypatch, similarities, k):
    if similarities:
        # One query at a time, or three.
        monkeypatch.setattr(knn, "_SIMILARITIES", similarities)
    features, queries = clusters(40)[0], clusters(10, seed=1)[0]
    rows, cosines = nearest(features, queries, k)
    assert (rows.dtype, cosines.dtype) == (np.int64, np.float32)
    for query, found, values in zip(queries, rows, cosines, strict=True):
        exact = [float(np.dot(query, row)) for row in features]
        assert found.tolist() == sorted(range(40), key=lambda row: -exact[row])[:k]
        np.testing.assert_allclose(values, sorted(exact, reverse=True)[:k], atol=1e-6)


def test_of_equally_similar_rows_the_lower_one_is_first():
    features = np.eye(3, dtype=np.float32)[[2, 0, 1, 0, 2, 0]]
    queries = np.eye(3, dtype=np.float32)[:1]
    assert nearest(features, queries, 3)[0].tolist() == [[1, 3, 5]]
    assert nearest(features, queries, 6)[0].tolist() == [[1, 3, 5, 0, 2, 4]]


def test_neighbours_are_rows_that_it_was_fitted_on():
    embeddings, y = clusters(60)
    votes = KnnHead(k=4, temperature=0.1, dimension=16).fit(embeddings, y).neighbours(embeddings)
    assert votes.rows.shape == votes.similarities.shape == votes.weights.shape == (60, 4)
    # Each photo is most like itself.
    assert votes.rows[:, 0].tolist() == list(range(60))
    np.testing.assert_allclose(votes.similarities[:, 0], 1, atol=1e-5)
    np.testing.assert_allclose(votes.weights.sum(axis=1), 1, atol=1e-5)
    assert (np.diff(votes.weights, axis=1) <= 0).all()


def test_similarity_is_measured_in_so_many_features():
    embeddings, y = clusters(60)
    head = KnnHead(k=4, temperature=0.1, dimension=3).fit(embeddings, y)
    features = head.scaling_.transform(embeddings)
    assert features.shape == (60, 3)
    cosines = features @ features.T / np.linalg.norm(features, axis=1) / np.linalg.norm(features, axis=1)[:, None]
    np.testing.assert_allclose(head.neighbours(embeddings).similarities, np.sort(cosines)[:, :-5:-1], atol=1e-5)


def validation_loss(embeddings, y, folds, **settings):
    head = KnnHead(**settings).fit(embeddings[folds != 0], y[folds != 0])
    truth = one_hot(y[folds == 0], len(head.classes_))
    return calibrated_log_loss(truth, head.predict_proba(embeddings[folds == 0]), multi_label=False)


def test_chooses_the_settings_of_the_least_loss_on_fold_0():
    embeddings, y = clusters(120, spread=0.4)
    folds = np.arange(120) % 4
    chosen = KnnHead().fit(embeddings, y, folds=folds).settings_
    losses = {
        (k, temperature): validation_loss(embeddings, y, folds, k=k, temperature=temperature, dimension=16)
        for k in NEIGHBOURS
        for temperature in TEMPERATURES
    }
    assert losses[chosen["k"], chosen["temperature"]] <= min(losses.values()) + 1e-4
    # The test would see little if all were alike.
    assert max(losses.values()) > min(losses.values()) + 0.05
    assert chosen["dimension"] == 16


def test_chooses_as_many_features_as_labels_live_in(monkeypatch):
    monkeypatch.setattr(knn, "DIMENSIONS", (1, 3, 32))
    embeddings, y = clusters(120, dimension=32, spread=0.4)
    folds = np.arange(120) % 4
    head = KnnHead(k=10, temperature=0.1).fit(embeddings, y, folds=folds)
    losses = {
        dimension: validation_loss(embeddings, y, folds, k=10, temperature=0.1, dimension=dimension)
        for dimension in (1, 3, 32)
    }
    # Four labels differ in three directions.
    assert head.settings_["dimension"] == min(losses, key=losses.__getitem__) == 3
    assert head.features_.shape == (120, 3)


def test_what_is_given_is_not_chosen():
    embeddings, y = clusters(60)
    assert KnnHead(k=7).fit(embeddings, y).settings_["k"] == 7
    assert KnnHead(temperature=0.3).fit(embeddings, y).settings_["temperature"] == 0.3
    assert KnnHead(dimension=2).fit(embeddings, y).settings_["dimension"] == 2


def test_weights_are_1_in_the_mean():
    embeddings, y = clusters(40)
    head = KnnHead(k=1, temperature=0.1, dimension=2)
    assert head.fit(embeddings, y).weights_.tolist() == [1] * 40
    weights = np.where(y == 0, 3, 1).astype(np.float32)
    np.testing.assert_allclose(head.fit(embeddings, y, weights=weights).weights_, weights / 1.5)


def test_k_is_at_most_the_rows():
    embeddings, y = clusters(8)
    assert KnnHead(k=8).fit(embeddings, y).settings_["k"] == 8
    with pytest.raises(HeadError, match="'k' is at most the number of labelled items, 8; got 9"):
        KnnHead(k=9).fit(embeddings, y)
    # k is chosen of what there is.
    assert KnnHead().fit(embeddings, y).settings_["k"] <= 8


def test_a_chosen_k_may_be_more_than_the_rows_left():
    embeddings, y = clusters(60)
    head = KnnHead(k=50, temperature=0.1, dimension=16).fit(embeddings, y)
    fewer = head.chosen().learn(Sample.of(embeddings, y, np.arange(40)))
    assert fewer.settings_ == head.settings_
    assert fewer.neighbours(embeddings).rows.shape == (60, 40)


@pytest.mark.parametrize("settings", [{"k": 0}, {"temperature": 0.0}, {"temperature": -1.0}, {"dimension": 0}])
def test_refuses_settings_that_are_none(settings):
    ((name, value),) = settings.items()
    with pytest.raises(HeadError, match=f"'{name}' is a number above 0, or None to choose it; got {value}"):
        KnnHead(**settings)
