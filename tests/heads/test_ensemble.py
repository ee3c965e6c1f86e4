"""The ensemble head: who is heard, and how much, by hand and by trying all weights."""

from __future__ import annotations

import numpy as np
import pytest

from heads.calibration import apply_temperature, fit_temperature
from heads.checks import HeadError
from heads.ensemble import EnsembleHead, _choose_weights
from heads.knn import KnnHead
from heads.linear import LinearHead
from heads.logits import one_hot, softmax
from tests.heads.worlds import Memory, clusters, wardrobe


def members(*, multi_label=False):
    embeddings, y = (wardrobe if multi_label else clusters)(60)
    return [KnnHead(k=5, temperature=0.1, dimension=16).fit(embeddings, y), LinearHead(penalty=0.01).fit(embeddings, y)]


def said_of(y, certainty, *, seed=0):
    """Probabilities (N, 4) that lean to the truth by as much, and otherwise to anything."""
    logits = np.random.default_rng(seed).standard_normal((len(y), 4)) + certainty * one_hot(y, 4)
    return softmax(logits.astype(np.float32))


def test_a_member_that_says_nothing_of_use_is_not_heard():
    y = clusters(400)[1]
    ensemble = EnsembleHead(members()).combine(members(), [said_of(y, 3), said_of(y, 0, seed=1)], y)
    assert ensemble.weights_[0] > 0.98
    ensemble.combine(members(), [said_of(y, 0, seed=1), said_of(y, 3)], y)
    assert ensemble.weights_[0] < 0.02
    assert ensemble.weights_.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("certainties", [(2, 2), (2, 1.8), (2.5, 2), (1, 2)])
def test_weights_are_the_best_there_are(certainties):
    y = clusters(400)[1]
    truth = one_hot(y, 4)
    said = np.stack([said_of(y, certainty, seed=seed) for seed, certainty in enumerate(certainties)])
    found = _choose_weights(said, truth, multi_label=False)

    def loss(weight):
        return -np.log(weight * said[0][truth] + (1 - weight) * said[1][truth]).mean()

    least = min(loss(weight) for weight in np.linspace(0, 1, 1001))
    assert loss(float(found[0])) <= least + 1e-5
    assert (found.dtype, found.shape) == (np.float32, (2,))


def test_weights_do_not_stay_alike_where_that_is_nearly_as_good():
    # One is right with 0.5 and 0.4, the other with 0.4 and 0.49: the slope at equal weights is slight, as that of close
    # heads is, and the search once ended there.
    said = np.array([[[0.5], [0.4]], [[0.4], [0.495]]], np.float32)
    weights = np.linspace(0, 1, 10_001)
    losses = -np.log(weights * 0.5 + (1 - weights) * 0.4) - np.log(weights * 0.4 + (1 - weights) * 0.495)
    best = weights[losses.argmin()]
    assert abs(best - 0.5) > 0.02
    found = _choose_weights(said, np.ones((2, 1), bool), multi_label=False)
    assert found[0] == pytest.approx(best, abs=0.02)


def test_several_labels_weigh_each_yes_and_no():
    rng = np.random.default_rng(0)
    truth = rng.random((200, 3)) < 0.3
    good = np.where(truth, 0.8, 0.1) + rng.normal(0, 0.05, truth.shape)
    useless = rng.uniform(0.1, 0.9, truth.shape)
    said = np.stack([good, useless]).astype(np.float32)
    assert _choose_weights(said, truth, multi_label=True)[0] > 0.95
    # Of a head that knows each no, and calls each yes even, beside one that is even throughout.
    said = np.stack([np.where(truth, 0.5, 0.1), np.full(truth.shape, 0.5)]).astype(np.float32)
    assert _choose_weights(said, truth, multi_label=True)[0] > 0.95


def test_three_members_have_three_weights():
    y = clusters(400)[1]
    said = np.stack([said_of(y, 2), said_of(y, 0, seed=1), said_of(y, 2, seed=2)])
    weights = _choose_weights(said, one_hot(y, 4), multi_label=False)
    assert weights[1] < 0.03
    assert weights[0] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_mean_by_hand(multi_label):
    ensemble = EnsembleHead(members(multi_label=multi_label))
    ensemble.multi_label_ = multi_label
    ensemble.temperatures_, ensemble.weights_ = np.array([2, 1], np.float32), np.array([0.25, 0.75], np.float32)
    # Odds of 4 to 1 become 2 to 1.
    mixed = ensemble.mix([np.array([[0.8, 0.2]], np.float32), np.array([[0.4, 0.6]], np.float32)])
    np.testing.assert_allclose(mixed, [[0.25 * 2 / 3 + 0.3, 0.25 / 3 + 0.45]], atol=1e-6)
    assert mixed.dtype == np.float32


def test_combined_heads_are_calibrated_each_by_itself():
    y = clusters(400)[1]
    said = [said_of(y, 3) ** 3, said_of(y, 2, seed=1)]
    said[0] /= said[0].sum(axis=1, keepdims=True)
    ensemble = EnsembleHead(members()).combine(members(), said, y)
    truth = one_hot(y, 4)
    temperatures = [fit_temperature(truth, part, multi_label=False) for part in said]
    np.testing.assert_allclose(ensemble.temperatures_, temperatures, rtol=1e-6)
    # The first one exaggerates.
    assert temperatures[0] > 1.5 * temperatures[1]
    queries = clusters(10, seed=1)[0]
    expected = sum(
        weight * apply_temperature(member.predict_proba(queries), temperature, multi_label=False)
        for weight, member, temperature in zip(ensemble.weights_, members(), temperatures, strict=True)
    )
    np.testing.assert_allclose(ensemble.predict_proba(queries), expected, atol=1e-5)


@pytest.mark.parametrize("multi_label", [False, True])
def test_weights_come_from_rows_that_members_have_not_seen(multi_label):
    # On rows that it was fitted on the memory is always right.
    world = wardrobe if multi_label else clusters
    ensemble = EnsembleHead([Memory(), LinearHead()]).fit(*world(spread=0.4))
    assert ensemble.weights_[0] < 0.1
    assert [member.kind for member in ensemble.members_] == ["memory", "linear"]


def test_members_are_given_folds_and_weights():
    validated, weighed = [], []

    class Spy(LinearHead):
        def choose(self, sample, features, truth):
            validated.append(len(truth))
            super().choose(sample, features, truth)

        def learn(self, sample):
            weighed.append((len(sample.y), sample.weights.max() / sample.weights.min()))
            return super().learn(sample)

    embeddings, y = clusters(60)
    # Twelve photos in fold 0 and 24 in each other.
    folds = np.repeat([0, 1, 2], [12, 24, 24])
    weights = np.linspace(1, 2, 60).astype(np.float32)
    weights[::6] = 5
    EnsembleHead([Spy(), KnnHead()]).fit(embeddings, y, folds=folds, weights=weights)
    assert validated == [12]
    assert [count for count, _ in weighed] == [60, 48, 36, 36]
    assert all(ratio > 2.5 for _, ratio in weighed)


def test_settings_say_who_is_heard():
    head = EnsembleHead().fit(*clusters(60))
    said = head.settings_["members"]
    assert [member["kind"] for member in said] == ["knn", "linear"]
    assert said[0]["settings"].keys() == {"k", "temperature", "dimension"}
    assert sum(member["weight"] for member in said) == pytest.approx(1, abs=2e-4)


def test_settings_that_were_given_to_members_stay():
    head = EnsembleHead([LinearHead(penalty=0.02), KnnHead(k=3)]).fit(*clusters(60))
    settings = [member["settings"] for member in head.settings_["members"]]
    assert settings[0] == {"penalty": 0.02}
    assert settings[1]["k"] == 3


@pytest.mark.parametrize(
    ("heads", "kinds"), [([], "none"), ([KnnHead()], "knn"), ([KnnHead(k=1), KnnHead(k=5)], "knn, knn")]
)
def test_refuses_members_that_are_no_ensemble(heads, kinds):
    with pytest.raises(HeadError, match=f"two heads or more, one of a kind; got {kinds}"):
        EnsembleHead(heads)
