"""The linear head: the optimum is scikit-learn's, the gradient is the slope, and the search walks downhill."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
from sklearn.linear_model import LogisticRegression

from heads import linear
from heads.calibration import calibrated_log_loss
from heads.checks import HeadError
from heads.linear import PENALTIES, LinearHead
from heads.logits import one_hot
from heads.scaling import Scaling
from tests.heads.worlds import clusters, wardrobe


@pytest.fixture(params=[(1e-12, 1e-3), (linear._TOLERANCE, 0.03)], ids=["at the optimum", "as shipped"])
def tolerance(request, monkeypatch):
    """How far off a probability may be, where fitting stops."""
    gain, tolerance = request.param
    monkeypatch.setattr(linear, "_TOLERANCE", gain)
    return tolerance


def reference(features, y, penalty, queries, *, weights=None):
    """What scikit-learn's optimum says of queries."""
    total = len(y) if weights is None else weights.sum()
    model = LogisticRegression(C=1 / (total * penalty), tol=1e-8, max_iter=10_000)
    return model.fit(features, y, sample_weight=weights).predict_proba(queries)


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("penalty", [0.03, 0.001])
def test_finds_the_optimum_that_scikit_learn_finds(tolerance, penalty, weighed):
    embeddings, y = clusters(spread=0.4)
    queries = clusters(50, spread=0.4, seed=1)[0]
    weights = np.where(y == 0, 5, 0.7).astype(np.float32) if weighed else None
    head = LinearHead(penalty=penalty).fit(embeddings, y, weights=weights)
    scaling = Scaling.fit(embeddings, y)
    expected = reference(scaling.transform(embeddings), y, penalty, scaling.transform(queries), weights=weights)
    np.testing.assert_allclose(head.predict_proba(queries), expected, rtol=0, atol=tolerance)


def test_two_labels_are_two_columns(tolerance):
    # scikit-learn has one column for two labels, the difference of ours: half of its square is twice theirs together.
    embeddings, y = clusters(labels=2, spread=0.5)
    queries = clusters(50, labels=2, spread=0.5, seed=1)[0]
    scaling = Scaling.fit(embeddings, y)
    expected = reference(scaling.transform(embeddings), y, 0.01 / 2, scaling.transform(queries))
    head = LinearHead(penalty=0.01).fit(embeddings, y)
    assert head.coef_.shape == (16, 2)
    np.testing.assert_allclose(head.predict_proba(queries), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("weighed", [False, True])
def test_several_labels_are_as_many_fits(tolerance, weighed):
    embeddings, has = wardrobe(spread=0.4)
    queries = wardrobe(50, spread=0.4, seed=1)[0]
    weights = np.where(has[:, 0], 5, 0.7).astype(np.float32) if weighed else None
    head = LinearHead(penalty=0.01).fit(embeddings, has, weights=weights)
    scaling = Scaling.fit(embeddings, has)
    features, asked = scaling.transform(embeddings), scaling.transform(queries)
    for label in range(3):
        expected = reference(features, has[:, label], 0.01, asked, weights=weights)[:, 1]
        np.testing.assert_allclose(head.predict_proba(queries)[:, label], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
def test_the_gradient_is_the_slope_of_the_objective(monkeypatch, multi_label, weighed):
    features, y = (wardrobe if multi_label else clusters)(40, dimension=5, labels=3)
    truth = (y if multi_label else one_hot(y, 3)).astype(np.float32)
    seen = []
    minimise = scipy.optimize.minimize

    def spy(objective, first, **options):
        seen.append(objective)
        return minimise(objective, first, **options)

    monkeypatch.setattr(scipy.optimize, "minimize", spy)
    weights = np.linspace(0.5, 2, 40).astype(np.float32) if weighed else None
    linear._minimise(features, truth, 0.02, multi_label, weights)
    (objective,) = seen
    at = np.random.default_rng(0).standard_normal(6 * 3)
    gradient = objective(at)[1]
    step = 1e-2  # float32 inside
    slopes = [
        (objective(at + step * axis)[0] - objective(at - step * axis)[0]) / (2 * step) for axis in np.eye(len(at))
    ]
    np.testing.assert_allclose(gradient, slopes, atol=2e-4)
    assert np.abs(gradient).max() > 0.01


def test_the_objective_is_the_mean_log_loss_and_half_the_penalised_squares(monkeypatch):
    # One feature, 1 and -1; coefficients (a, -a) and no intercept. The log loss of both is log(1 + exp(-2 a)).
    found = {}

    def minimise(objective, first, **options):
        found["at 0"] = objective(np.zeros(4))
        found["first"] = first
        scaled = np.array([1.0, -1.0, 0.0, 0.0])
        found["at 1"] = objective(scaled)
        return scipy.optimize.OptimizeResult(x=scaled)

    monkeypatch.setattr(scipy.optimize, "minimize", minimise)
    features = np.array([[1], [-1]], np.float32)
    coefficients = linear._minimise(features, np.eye(2, dtype=np.float32), 0.1, False, None)
    assert found["at 0"][0] == pytest.approx(np.log(2), abs=1e-6)
    a = float(coefficients[0, 0])
    np.testing.assert_allclose(coefficients, [[a, -a], [0, 0]], atol=1e-7)
    assert found["at 1"][0] == pytest.approx(np.log1p(np.exp(-2 * a)) + 0.05 * 2 * a * a, abs=1e-6)
    assert found["first"].tolist() == [0, 0, 0, 0]


def test_the_loss_and_its_slope_by_hand():
    # The second is right. Of logits 200 and 0 it has nothing, a loss of 200; of 0 and 0 half. They weigh 3 to 1.
    shares, truth = np.array([[0.75], [0.25]], np.float32), np.array([[0, 1], [0, 1]], np.float32)
    logits = np.array([[200, 0], [0, 0]], np.float32)
    assert linear._residuals(logits, truth, shares, False) == pytest.approx(150 + np.log(2) / 4)
    np.testing.assert_allclose(logits, [[0.75, -0.75], [0.125, -0.125]], atol=1e-6)
    # For itself each: 200 and log 2; then log 2 twice.
    logits = np.array([[200, 0], [0, 0]], np.float32)
    assert linear._residuals(logits, truth, shares, True) == pytest.approx(150 + 1.25 * np.log(2))
    np.testing.assert_allclose(logits, [[0.75, -0.375], [0.125, -0.125]], atol=1e-6)


def test_a_label_that_all_items_have_is_likely():
    embeddings, has = wardrobe(60)
    has[:, 0] = True
    said = LinearHead().fit(embeddings, has).predict_proba(embeddings)
    assert said[:, 0].min() > 0.9
    assert ((said > 0.5) == has).mean() > 0.9


def test_coefficients_are_of_embeddings():
    embeddings, y = clusters()
    head = LinearHead(penalty=0.01).fit(embeddings, y)
    assert (head.coef_.shape, head.intercept_.shape) == ((16, 4), (4,))
    logits = embeddings @ head.coef_ + head.intercept_
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(head.predict_proba(embeddings), odds / odds.sum(axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize(
    ("losses", "tried"),
    [
        # Down the whole way.
        ([9, 9, 9, 5, 4, 3], [3, 4, 5]),
        # Down, then up.
        ([9, 9, 9, 5, 4, 6], [3, 4, 5]),
        # Up at once: the other way.
        ([9, 3, 4, 5, 6, 1], [3, 4, 2, 1, 0]),
        ([2, 3, 4, 5, 6, 1], [3, 4, 2, 1, 0]),
        ([1, 9, 4, 5, 6, 1], [3, 4, 2, 1]),
        # The start is the bottom.
        ([1, 1, 9, 5, 6, 1], [3, 4, 2]),
    ],
)
def test_the_search_walks_downhill(monkeypatch, losses, tried):
    seen, starts = [], []

    def minimise(features, truth, penalty, multi_label, weights, *, start=None):
        seen.append(PENALTIES.index(penalty))
        starts.append(start is not None)
        return np.zeros((features.shape[1] + 1, truth.shape[1]), np.float32)

    monkeypatch.setattr(linear, "_minimise", minimise)
    monkeypatch.setattr(linear, "calibrated_log_loss", lambda *_, **__: losses[seen[-1]])
    head = LinearHead().fit(*clusters(40))
    # The last is the fit on all rows, which starts afresh.
    assert seen[:-1] == tried
    assert starts == [False] + [True] * (len(tried) - 1) + [False]
    assert head.settings_ == {"penalty": PENALTIES[min(tried, key=losses.__getitem__)]}
    assert seen[-1] == PENALTIES.index(head.settings_["penalty"])


def test_the_penalty_is_chosen_on_fold_0():
    embeddings, y = clusters(120, spread=0.5)
    folds = np.arange(120) % 4
    losses = {}
    for penalty in PENALTIES:
        head = LinearHead(penalty=penalty).fit(embeddings[folds != 0], y[folds != 0])
        said = head.predict_proba(embeddings[folds == 0])
        losses[penalty] = calibrated_log_loss(one_hot(y[folds == 0], 4), said, multi_label=False)
    chosen = LinearHead().fit(embeddings, y, folds=folds).settings_["penalty"]
    assert losses[chosen] <= min(losses.values()) + 2e-3
    assert max(losses.values()) > min(losses.values()) + 0.02


def test_large_numbers_do_not_overflow():
    embeddings, y = clusters(40)
    head = LinearHead(penalty=1e-4).fit(1000 * embeddings, y)
    probabilities = head.predict_proba(1e6 * embeddings)
    assert np.isfinite(probabilities).all()
    assert (head.predict(1000 * embeddings) == y).mean() > 0.9


@pytest.mark.parametrize("penalty", [0, -1.0, np.nan])
def test_refuses_a_penalty_that_is_none(penalty):
    with pytest.raises(HeadError, match=f"'penalty' is a number above 0, or None to choose it; got {penalty}"):
        LinearHead(penalty=penalty)
