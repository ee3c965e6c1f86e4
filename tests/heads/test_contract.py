"""What every head promises, on the same data."""

from __future__ import annotations

import json

import numpy as np
import pytest

from heads.checks import HeadError
from heads.ensemble import EnsembleHead
from heads.head import Head
from heads.knn import KnnHead
from heads.linear import LinearHead
from heads.logits import sigmoid, softmax
from heads.mlp import MlpHead
from heads.sample import Sample
from tests.heads.worlds import clusters, wardrobe

# In order of number the names are in no order of name.
NAMES = np.array(["skirt", "dress", "NA", "Shirt"])
# The search of the MLP head has tests of its own.
MLP = {"hidden": (16,), "dropout": 0.0, "weight_decay": 0.0, "learning_rate": 0.02, "batch_size": 32, "epochs": 15}
HEADS = {"knn": KnnHead, "linear": LinearHead, "ensemble": EnsembleHead, "mlp": lambda: MlpHead(**MLP)}
TARGETS = {
    "names": lambda numbers: NAMES[numbers],
    "numbers": lambda numbers: np.array([7, -3, 40, 11])[numbers],
    "multi": lambda has: has,
}


def world(target, *, count=200, seed=0):
    """Embeddings and labels of a target."""
    embeddings, y = (wardrobe if target == "multi" else clusters)(count, seed=seed)
    return embeddings, TARGETS[target](y)


@pytest.fixture(params=HEADS)
def new(request):
    """Makes an unfitted head."""
    return HEADS[request.param]


@pytest.fixture(scope="module", params=[(kind, target) for kind in HEADS for target in TARGETS], ids="-".join)
def fitted(request):
    """A fitted head, and its target; no test changes it."""
    kind, target = request.param
    return HEADS[kind]().fit(*world(target)), target


def test_gives_probabilities_for_each_label(fitted):
    head, target = fitted
    embeddings = world(target, count=30, seed=1)[0]
    probabilities = head.predict_proba(embeddings)
    classes = len(head.classes_)
    assert (probabilities.shape, probabilities.dtype) == ((30, classes), np.float32)
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1
    if target == "multi":
        assert head.multi_label_
        # Several labels an item are several questions.
        assert np.ptp(probabilities.sum(axis=1)) > 0.5
    else:
        assert not head.multi_label_
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_logits_become_the_probabilities(fitted):
    head, target = fitted
    embeddings = world(target, count=30, seed=1)[0]
    logits, probabilities = head.logits(embeddings), head.predict_proba(embeddings)
    if head.kind == "knn":
        # All rows vote, not the nearest alone (tests/heads/test_knn.py); where those agree, so do all.
        sure = probabilities.max(axis=1) > 0.9
        assert sure.any()
        assert (logits[sure] > 0).tolist() == (probabilities[sure] > 0.5).tolist()
        return
    # Those of a head without layers are log odds, each by itself.
    as_odds = head.multi_label_ or not head.layers
    np.testing.assert_allclose(sigmoid(logits) if as_odds else softmax(logits), probabilities, atol=2e-6)


def test_layers_give_the_logits(fitted):
    head, target = fitted
    embeddings = world(target, count=30, seed=1)[0]
    said = embeddings
    for number, (weight, bias) in enumerate(head.layers):
        said = (np.maximum(said, 0) if number else said) @ weight + bias
    assert bool(head.layers) == (head.kind in {"linear", "mlp"})
    if head.layers:
        np.testing.assert_allclose(said, head.logits(embeddings), atol=1e-5)
    with pytest.raises(HeadError, match="16-number embeddings"):
        head.logits(embeddings[:, :3])


def test_classes_are_in_order(fitted):
    head, target = fitted
    ordered = {"names": ["NA", "Shirt", "dress", "skirt"], "numbers": [-3, 7, 11, 40], "multi": [0, 1, 2]}
    assert head.classes_.tolist() == ordered[target]


def test_predicts_what_is_likeliest(fitted):
    head, target = fitted
    embeddings = world(target, count=30, seed=1)[0]
    probabilities, predicted = head.predict_proba(embeddings), head.predict(embeddings)
    if target == "multi":
        assert predicted.dtype == bool
        np.testing.assert_array_equal(predicted, probabilities > 0.5)
    else:
        assert predicted.shape == (30,)
        columns = np.searchsorted(head.classes_, predicted)
        np.testing.assert_array_equal(probabilities[np.arange(30), columns], probabilities.max(axis=1))


def test_learns_what_can_be_told_apart(fitted):
    head, target = fitted
    embeddings, y = world(target, count=200, seed=1)
    assert (head.predict(embeddings) == y).mean() >= 0.9


def test_one_photo_is_answered_as_among_others(fitted):
    head, target = fitted
    embeddings = world(target, count=5, seed=1)[0]
    np.testing.assert_allclose(head.predict_proba(embeddings[:1]), head.predict_proba(embeddings)[:1], atol=1e-6)
    assert head.predict_proba(embeddings[:0]).shape == (0, len(head.classes_))
    assert head.predict(embeddings[:0]).shape == ((0, 3) if target == "multi" else (0,))


def test_chosen_settings_give_the_same_head(fitted):
    head, target = fitted
    assert None not in head.settings_.values()
    if isinstance(head, EnsembleHead):
        # Its members have settings of their own.
        return
    again = head.chosen()
    assert not again.is_open
    assert type(again) is type(head)
    assert not hasattr(again, "classes_")
    again.learn(Sample.of(*world(target)))
    assert again.settings_ == head.settings_
    queries = world(target, count=30, seed=1)[0]
    np.testing.assert_allclose(again.predict_proba(queries), head.predict_proba(queries), rtol=0, atol=1e-6)


def test_restored_heads_answer_to_the_last_bit(fitted):
    head, target = fitted
    # Settings are kept as JSON.
    settings = json.loads(json.dumps(head.settings_))
    arrays = {name: array.copy() for name, array in head.arrays().items()}
    again = type(head).restored(settings, arrays, head.classes_, head.multi_label_)
    queries = world(target, count=30, seed=1)[0]
    np.testing.assert_array_equal(again.predict_proba(queries), head.predict_proba(queries))
    np.testing.assert_array_equal(again.predict(queries), head.predict(queries))
    assert again.arrays().keys() == arrays.keys()
    assert again.settings_ == settings


def test_a_head_can_be_fitted_again_and_leaves_what_it_was_given(new):
    embeddings, y = world("names")
    before = embeddings.copy(), y.copy()
    head = new()
    first = head.fit(embeddings, y).predict_proba(embeddings)
    np.testing.assert_array_equal(embeddings, before[0])
    np.testing.assert_array_equal(y, before[1])
    head.fit(*clusters(40, labels=2, dimension=8))
    assert head.predict_proba(np.eye(8, dtype=np.float32)).shape == (8, 2)
    np.testing.assert_array_equal(head.fit(embeddings, y).predict_proba(embeddings), first)


def test_labels_that_weigh_more_are_predicted_more(new):
    embeddings, y = clusters(labels=2, spread=0.7)
    queries = clusters(labels=2, spread=0.7, seed=1)[0]
    plain = new().fit(embeddings, y)
    counts = []
    for favourite in (0, 1):
        weights = np.where(y == favourite, 10, 1).astype(np.float32)
        weighed = new().fit(embeddings, y, weights=weights)
        counts.append((weighed.predict(queries) == favourite).sum())
        assert counts[-1] > (plain.predict(queries) == favourite).sum() + 10
    # Weights all alike are none.
    alike = new().fit(embeddings, y, weights=np.full(len(y), 3, np.float32))
    np.testing.assert_allclose(alike.predict_proba(queries), plain.predict_proba(queries), atol=0.02)


def test_labels_that_weigh_more_are_likelier_among_several(new):
    embeddings, has = wardrobe(labels=2, spread=0.7)
    queries = wardrobe(labels=2, spread=0.7, seed=1)[0]
    weights = np.where(has[:, 0] & ~has[:, 1], 10, 1).astype(np.float32)
    plain, weighed = new().fit(embeddings, has), new().fit(embeddings, has, weights=weights)
    risen = (weighed.predict_proba(queries) - plain.predict_proba(queries)).mean(axis=0)
    assert risen[0] > risen[1] + 0.05


@pytest.mark.parametrize("only", [0, 1], ids=["only in fold 0", "only in others"])
def test_a_label_that_one_side_of_the_validation_lacks_is_learned(new, only):
    embeddings, y = world("names")
    folds = np.arange(len(y)) % 5
    folds[y == "dress"] = only
    head = new().fit(embeddings, y, folds=folds)
    assert (head.predict(embeddings[y == "dress"]) == "dress").mean() > 0.9


@pytest.mark.parametrize(
    ("embeddings", "y", "message"),
    [
        (np.ones((4, 2)), [0, 1, 0], r"\(N, D\) embeddings and N labels, or \(N, C\) bool; got \(4, 2\) and \(3,\)"),
        (np.ones(4), [0, 1, 0, 1], r"\(N, D\) embeddings.*got \(4,\) and \(4,\)"),
        (np.ones((2, 2)), [[[True]], [[True]]], r"\(N, D\) embeddings.*got \(2, 2\) and \(2, 1, 1\)"),
        (np.array([[0, np.nan], [1, 0]]), [0, 1], "not finite"),
        (np.array([[0, np.inf], [1, 0]]), [0, 1], "not finite"),
        (np.ones((4, 2)), ["dress"] * 4, "two or more; got 1 among 4 items"),
        (np.ones((0, 2)), [], "two or more; got 0 among 0 items"),
        (np.ones((2, 2)), [[1, 0], [0, 1]], r"\(N, C\) bool, each label at least once; got int64 \(2, 2\)"),
        (np.ones((2, 2)), [[True, False], [True, False]], r"each label at least once; got bool \(2, 2\)"),
        (np.ones((2, 2)), np.zeros((2, 0), bool), r"each label at least once; got bool \(2, 0\)"),
        (np.ones((0, 2)), np.zeros((0, 2), bool), r"each label at least once; got bool \(0, 2\)"),
    ],
)
def test_refuses_what_it_cannot_learn_from(new, embeddings, y, message):
    with pytest.raises(HeadError, match=message):
        new().fit(np.asarray(embeddings, np.float32), np.array(y))


@pytest.mark.parametrize("weights", [[1, 1], [1, 0, 1, 1], [1, -1, 1, 1], [1, np.nan, 1, 1], [1, np.inf, 1, 1]])
def test_refuses_weights_that_are_none(new, weights):
    with pytest.raises(HeadError, match="Weights are 4 positive numbers"):
        new().fit(np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1]), weights=np.array(weights, np.float32))


def test_refuses_queries_of_another_dimension(fitted):
    head, _ = fitted
    for shape in ((3, 15), (16,), (1, 3, 16)):
        for ask in (head.predict_proba, head.predict):
            with pytest.raises(HeadError, match=rf"fitted on 16-number embeddings; the query has shape \({shape[0]}"):
                ask(np.ones(shape, np.float32))


def test_kinds_are_the_names_that_cards_have():
    assert {kind: new().kind for kind, new in HEADS.items()} == {kind: kind for kind in HEADS}
    assert all(isinstance(new(), Head) for new in HEADS.values())
