"""Fitting heads whole: what is measured is of photos that no head had seen, and the card says so."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime

import numpy as np
import pytest

from heads import mlp
from heads.calibration import apply_temperature, fit_temperature
from heads.checks import HeadError
from heads.conformal import conformal_scores
from heads.fitting import FitOptions, Training, fit_heads
from heads.folds import assign_folds
from heads.head import sampling_of
from heads.labels import encode_labels, label_codes
from heads.metrics import calibration_error, wilson_interval
from heads.validation import out_of_fold
from tests.heads.worlds import clusters, wardrobe

NAMES = np.array(["Dress", "Hat", "Shirt", "Shoe", "Sock", "Top"])


def training(embeddings, y, *, groups=None, target="type", min_count=2):
    """What the caller gives, for class numbers, or (N, C) bool, whose names are NAMES."""
    has = y if y.ndim == 2 else np.arange(len(NAMES)) == y[:, None]
    labels = encode_labels(target, [tuple(NAMES[np.flatnonzero(row)]) for row in has], min_count=min_count)
    groups = np.arange(len(y)) if groups is None else groups
    keys = labels.rows + 1000
    return Training(embeddings[labels.rows], labels, groups[labels.rows], keys, "lite0", "lite0-abc", 7)


@pytest.fixture(scope="module")
def world():
    """Six labels that overlap a little."""
    return training(*clusters(240, labels=6, spread=0.3))


@pytest.fixture(scope="module")
def heads(world):
    return fit_heads(world, FitOptions())


@pytest.fixture(scope="module")
def multi():
    """Heads of three labels, several an item."""
    return fit_heads(training(*wardrobe(150, spread=0.3)), FitOptions())


def test_heads_are_of_the_kinds_that_were_asked_for(heads, world):
    assert {kind: fitted.head.kind for kind, fitted in heads.items()} == {k: k for k in ("knn", "linear", "ensemble")}
    (only,) = fit_heads(world, FitOptions(kinds=["ensemble"])).values()
    assert [member.kind for member in only.head.members_] == ["knn", "linear"]
    assert list(fit_heads(world, FitOptions(kinds=["linear"]))) == ["linear"]


def test_heads_have_learned(heads):
    queries, y = clusters(300, labels=6, spread=0.3, seed=1)
    for fitted in heads.values():
        accuracy = (fitted.answer(queries).predicted == y).mean()
        assert accuracy > 0.9
        # The card promised no more.
        assert fitted.card.validation["accuracy"] == pytest.approx(accuracy, abs=0.05)


@pytest.mark.parametrize("kind", ["knn", "linear"])
def test_figures_are_of_heads_that_had_not_seen_the_photos(heads, world, kind):
    fitted, figures, y = heads[kind], heads[kind].card.validation, world.labels.y
    (said,) = out_of_fold([fitted.head], world.embeddings, y, folds=assign_folds(y), sampling=sampling_of(None))[1]
    right = said.argmax(axis=1) == y
    assert figures["photos"] == 240
    assert figures["accuracy"] == right.mean()
    assert (figures["accuracy_low"], figures["accuracy_high"]) == wilson_interval(int(right.sum()), 240)
    assert figures["calibration_error_before"] == pytest.approx(calibration_error(said.max(axis=1), right), abs=1e-4)
    temperature = fit_temperature(world.labels.truth, said, multi_label=False)
    assert figures["temperature"] == fitted.temperature == pytest.approx(temperature, rel=1e-3)
    calibrated = apply_temperature(said, temperature, multi_label=False)
    np.testing.assert_allclose(fitted.scores, conformal_scores(world.labels.truth, calibrated), atol=1e-3)
    # Each half has a temperature of its own, close to that of both.
    assert figures["log_loss"] == pytest.approx(-np.log(calibrated[world.labels.truth]).mean(), abs=0.05)


def test_figures_of_an_ensemble_are_of_the_mean_of_such_heads(heads, world):
    fitted, y = heads["ensemble"], world.labels.y
    members = fitted.head.members_
    said = out_of_fold(members, world.embeddings, y, folds=assign_folds(y), sampling=sampling_of(None))[1]
    mixed = fitted.head.mix(said)
    assert fitted.card.validation["accuracy"] == (mixed.argmax(axis=1) == y).mean()
    calibrated = apply_temperature(mixed, fitted.temperature, multi_label=False)
    np.testing.assert_allclose(fitted.scores, conformal_scores(world.labels.truth, calibrated), atol=1e-4)


def test_figures_keep_their_promises(heads):
    for fitted in heads.values():
        figures = fitted.card.validation
        assert figures["coverage_wanted"] == 0.9
        assert figures["coverage"] == pytest.approx(0.9, abs=0.06)
        assert 0.9 <= figures["set_size"] < 1.5
        assert 0 <= figures["empty_sets"] < 0.1
        assert figures["calibration_error"] < 0.08
        assert figures["known_rejected"] == pytest.approx(0.05, abs=0.06)
        assert figures["novel_found"] > 0.5
        assert figures["macro_f1"] == pytest.approx(figures["accuracy"], abs=0.02)


def test_the_card_says_what_the_head_is(heads, world):
    before = datetime.now(UTC)
    for kind, fitted in heads.items():
        card = fitted.card
        assert (card.kind, card.target, card.labels, card.multi_label) == (kind, "type", tuple(NAMES), False)
        assert (card.encoder, card.encoder_fingerprint, card.gallery_version) == ("lite0", "lite0-abc", 7)
        assert (card.items, card.unlabelled, card.rare, card.min_count, card.balance) == (240, 0, {}, 2, "none")
        assert card.settings == fitted.head.settings_
        assert 0 <= (before - datetime.fromisoformat(card.fitted_at)).total_seconds() < 3600
        assert card.seconds >= 0
        assert json.loads(json.dumps(asdict(card)))["validation"] == card.validation
        np.testing.assert_array_equal(fitted.keys, world.keys)
        np.testing.assert_array_equal(fitted.codes, label_codes(world.labels.truth, NAMES))


def test_the_card_says_what_was_left_out():
    embeddings, y = clusters(60, labels=3)
    has = np.arange(6) == y[:, None]
    has[:4] = False
    has[4] = NAMES == "Sock"
    card = fit_heads(training(embeddings, has, min_count=3), FitOptions(kinds=["knn"]))["knn"].card
    assert (card.items, card.unlabelled, card.rare, card.min_count) == (55, 4, {"Sock": 1}, 3)
    assert card.labels == ("Dress", "Hat", "Shirt")


def test_several_labels_an_item(multi):
    queries, has = wardrobe(200, spread=0.3, seed=1)
    for fitted in multi.values():
        answers = fitted.answer(queries)
        assert (answers.predicted == has).mean() > 0.9
        assert (answers.sets, answers.familiarity, fitted.novelty) == (None, None, None)
        assert (fitted.thresholds.shape, fitted.scores.shape) == ((3,), (0,))
        figures = fitted.card.validation
        assert figures.keys() == {"photos", "micro_f1", "macro_f1", "log_loss", "temperature"}
        assert figures["photos"] == 150
        assert 0.85 < figures["micro_f1"] <= 1
        assert fitted.card.multi_label
        assert json.loads(json.dumps(asdict(fitted.card)))["validation"] == figures


def test_two_labels_are_enough_but_none_is_held_out():
    for fitted in fit_heads(training(*clusters(60, labels=2)), FitOptions()).values():
        assert fitted.card.validation["accuracy"] == 1
        assert "novel_found" not in fitted.card.validation
        # Distance alone.
        assert fitted.novelty.weights.tolist() == [0, 1, 0]


def test_photos_of_a_product_are_not_on_both_sides():
    # Four photos of each product are nearly alike, and its label is anything.
    rng = np.random.default_rng(0)
    products = np.repeat(np.arange(50), 4)
    embeddings = rng.standard_normal((50, 16))[products] + 0.01 * rng.standard_normal((200, 16))
    embeddings = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)
    y = rng.integers(0, 4, 50)[products]

    def accuracy(groups):
        return fit_heads(training(embeddings, y, groups=groups), FitOptions(kinds=["knn"]))["knn"].card.validation[
            "accuracy"
        ]

    assert accuracy(None) > 0.9
    assert accuracy(products) < 0.5


def test_the_same_seed_gives_the_same_heads(heads, world):
    again = fit_heads(world, FitOptions())
    for kind, fitted in heads.items():
        assert again[kind].card.validation == fitted.card.validation
        for name, array in fitted.head.arrays().items():
            np.testing.assert_array_equal(again[kind].head.arrays()[name], array)
        np.testing.assert_array_equal(again[kind].novelty.known, fitted.novelty.known)
    (other,) = fit_heads(world, FitOptions(kinds=["linear"], seed=1)).values()
    assert other.card.validation != heads["linear"].card.validation
    # It decides the folds too.
    folds = assign_folds(world.labels.y, seed=1)
    (said,) = out_of_fold([other.head], world.embeddings, world.labels.y, folds=folds, sampling=sampling_of(None))[1]
    assert other.card.validation["accuracy"] == (said.argmax(axis=1) == world.labels.y).mean()


def test_progress_says_what_comes_next(world):
    said = []
    fit_heads(world, FitOptions(progress=said.append))
    steps = ("choosing settings, then learning", "measuring on photos that they were not fitted on")
    assert said == [f"knn and linear: {step}" for step in steps]
    said.clear()
    # They learn from other rows each.
    fit_heads(world, FitOptions(balance="resample", progress=said.append))
    assert said == [f"{kind}: {step}" for kind in ("knn", "linear") for step in steps]


def test_an_mlp_head_is_fitted_too(monkeypatch):
    monkeypatch.setattr(mlp, "_MOST_EPOCHS", 6)
    said = []
    options = FitOptions(kinds=["mlp", "ensemble"], trials=1, progress=said.append)
    heads = fit_heads(training(*clusters(60, labels=3)), options)
    assert list(heads) == ["mlp", "ensemble"]
    assert [member.kind for member in heads["ensemble"].head.members_] == ["knn", "linear", "mlp"]
    assert heads["mlp"].card.validation["accuracy"] > 0.8
    assert "mlp: trial 1 of 1, 1.000 right at best" in said
    json.dumps(asdict(heads["ensemble"].card))


@pytest.mark.parametrize("kind", ["knn", "linear"])
@pytest.mark.parametrize("balance", ["weights", "resample"])
def test_balance_finds_more_of_rare_labels(kind, balance):
    embeddings, y = clusters(300, labels=2, spread=0.6)
    # One in eleven is a hat.
    rows = np.flatnonzero((y == 0) | (np.arange(300) % 10 == 0))
    queries = clusters(300, labels=2, spread=0.6, seed=1)[0]
    found = {}
    for how in ("none", balance):
        fitted = fit_heads(training(embeddings[rows], y[rows]), FitOptions(kinds=[kind], balance=how))[kind]
        found[how] = (fitted.answer(queries).predicted == 1).mean()
        assert fitted.card.balance == how
        # The rows that voted are shown, so that none stands there twice.
        assert kind != "knn" or len(fitted.head.features_) == len(rows)
    assert found[balance] > found["none"] + 0.05


@pytest.mark.parametrize("count", [10, 12, 20, 70])
def test_few_photos_are_fitted(count):
    # In a trial without some labels fewer rows are left than a k that was chosen.
    for spread in (0.15, 0.8):
        heads = fit_heads(training(*clusters(count, spread=spread)), FitOptions())
        assert all(np.isfinite(fitted.answer(clusters(5)[0]).probabilities).all() for fitted in heads.values())


def test_a_label_of_one_product_is_fitted():
    embeddings, y = clusters(60, labels=2)
    products = np.arange(60)
    products[y == 1] = 999
    for fitted in fit_heads(training(embeddings, y, groups=products), FitOptions()).values():
        # No head could know a hat without having seen that product.
        assert fitted.card.validation["accuracy"] == 0.5
        assert (fitted.answer(embeddings).predicted == y).all()


def test_one_of_several_labels_of_one_product_is_not_given_to_all():
    embeddings, has = wardrobe(60)
    has[:, 2] = False
    has[:4] = [False, True, True]
    has[~has.any(axis=1), 0] = True
    products = np.arange(60)
    products[:4] = 0
    for fitted in fit_heads(training(embeddings, has, groups=products), FitOptions()).values():
        assert fitted.answer(embeddings[4:]).predicted[:, 2].mean() < 0.2


@pytest.mark.parametrize(("count", "products"), [(9, 9), (40, 4), (40, 1)])
def test_refuses_too_few_to_check(count, products):
    few = training(*clusters(count, labels=2), groups=np.arange(count) % products)
    with pytest.raises(HeadError, match=rf"Heads of 'type' .* 5 products or more, .*got {count} of {products}\."):
        fit_heads(few, FitOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ["knn", "tree", "svm"]}, "A head is knn, linear, mlp, ensemble; got tree, svm"),
        ({"kinds": []}, "A head is knn, linear, mlp, ensemble; got none"),
        ({"balance": "both"}, "'balance' is none, weights, resample; got 'both'"),
    ],
)
def test_refuses_options_that_are_none(options, message):
    with pytest.raises(HeadError, match=message):
        FitOptions(**options)
