"""Calibration: a known temperature is found again; temperatures, losses and thresholds by hand."""

from __future__ import annotations

import numpy as np
import pytest

from heads.calibration import (
    apply_temperature,
    calibrated_log_loss,
    choose_thresholds,
    fit_temperature,
    log_loss_at,
)
from heads.checks import HeadError
from heads.logits import one_hot, sigmoid, softmax


def exaggerated(temperature, *, multi_label, count=4000):
    """Labels drawn from true probabilities, and what a head says whose logits are as many times theirs."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (count, 3)).astype(np.float32)
    if multi_label:
        return rng.random((count, 3)) < sigmoid(logits), sigmoid(logits * np.float32(temperature))
    cumulative = softmax(logits).cumsum(axis=1)
    numbers = (rng.random((count, 1)) > cumulative[:, :2]).sum(axis=1)
    return one_hot(numbers, 3), softmax(logits * np.float32(temperature))


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_found(temperature, multi_label):
    truth, said = exaggerated(temperature, multi_label=multi_label)
    found = fit_temperature(truth, said, multi_label=multi_label)
    assert found == pytest.approx(temperature, rel=0.08)
    # And it is the best there is.
    losses = [log_loss_at(found * by, truth, said, multi_label=multi_label) for by in (0.9, 1, 1.1)]
    assert losses.index(min(losses)) == 1
    assert calibrated_log_loss(truth, said, multi_label=multi_label) == pytest.approx(losses[1], abs=1e-6)


def test_a_head_that_is_always_right_gets_the_least_temperature():
    truth = one_hot(np.array([0, 1, 1]), 2)
    said = np.where(truth, 0.6, 0.4).astype(np.float32)
    assert fit_temperature(truth, said, multi_label=False) < 0.06
    # And one that is always wrong the greatest.
    assert fit_temperature(truth, 1 - said, multi_label=False) > 19


def test_temperature_by_hand():
    # Odds of 4 to 1 become, at temperature 2, 2 to 1; at 0.5, 16 to 1.
    said = np.array([[0.8, 0.2]], np.float32)
    np.testing.assert_allclose(apply_temperature(said, 2.0, multi_label=False), [[2 / 3, 1 / 3]], atol=1e-6)
    np.testing.assert_allclose(apply_temperature(said, 0.5, multi_label=False), [[16 / 17, 1 / 17]], atol=1e-6)
    # Each by itself: 4 to 1 and, for the second, 1 to 1.
    said = np.array([[0.8, 0.5]], np.float32)
    np.testing.assert_allclose(apply_temperature(said, 2.0, multi_label=True), [[2 / 3, 0.5]], atol=1e-6)
    assert apply_temperature(said, 2.0, multi_label=True).dtype == np.float32
    assert apply_temperature(said, 2.0, multi_label=False).dtype == np.float32


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
def test_certainty_stays_finite_and_in_order(temperature, multi_label):
    said = np.array([[1, 0, 0], [0.7, 0.3, 0], [0.2, 0.5, 0.3]], np.float32)
    calibrated = apply_temperature(said, temperature, multi_label=multi_label)
    assert np.isfinite(calibrated).all()
    assert calibrated.argmax(axis=1).tolist() == [0, 0, 1]
    if not multi_label:
        np.testing.assert_allclose(calibrated.sum(axis=1), 1, atol=1e-5)
    if temperature == 1:
        np.testing.assert_allclose(calibrated, said, atol=1e-5)
    assert np.isfinite(log_loss_at(temperature, ~said.astype(bool), said, multi_label=True))


def test_log_loss_by_hand():
    truth, said = one_hot(np.array([0, 1]), 2), np.array([[0.8, 0.2], [0.5, 0.5]], np.float32)
    expected = -(np.log(0.8) + np.log(0.5)) / 2
    assert log_loss_at(1.0, truth, said, multi_label=False) == pytest.approx(expected, abs=1e-5)
    expected = -(np.log(2 / 3) + np.log(0.5)) / 2
    assert log_loss_at(2.0, truth, said, multi_label=False) == pytest.approx(expected, abs=1e-5)
    # Yes of 0.8 and of 0.5, no of 0.2 and of 0.5.
    truth, said = np.array([[True, False], [True, False]]), np.array([[0.8, 0.2], [0.5, 0.5]], np.float32)
    expected = -(2 * np.log(0.8) + 2 * np.log(0.5)) / 4
    assert log_loss_at(1.0, truth, said, multi_label=True) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("rows", "labels"), [(0, 2), (3, 2), (4, 3)])
def test_refuses_labels_that_are_not_of_the_probabilities(rows, labels):
    said = np.full((0 if rows == 0 else 4, 2), 0.5, np.float32)
    with pytest.raises(
        HeadError, match=rf"as many labels as probabilities; got \({rows}, {labels}\), \({len(said)}, 2"
    ):
        fit_temperature(np.ones((rows, labels), bool), said, multi_label=False)


@pytest.mark.parametrize(
    ("probabilities", "has", "threshold"),
    [
        # Taking one gives F1 2/3, two 1, three 4/5, four 2/3: half way between 0.6 and 0.3.
        ([0.3, 0.9, 0.6, 0.1], [0, 1, 1, 0], 0.45),
        # 2/3, 1/2, 4/5, 2/3: half way between 0.6 and 0.2.
        ([0.9, 0.8, 0.6, 0.2], [1, 0, 1, 0], 0.4),
        # The two of 0.6 cannot be parted, where one alone would be right: 0, then 2/3 with both, then 1/2.
        ([0.6, 0.6, 0.2, 0.1], [1, 0, 0, 0], 0.4),
        ([0.6, 0.6, 0.2, 0.1], [0, 1, 0, 0], 0.4),
        # All have it: three quarters of the least.
        ([0.9, 0.8, 0.6], [1, 1, 1], 0.45),
        # No row has it.
        ([0.9, 0.8, 0.6], [0, 0, 0], 0.5),
        # The head has not learned it: all rows would be best, 2 of 5.
        ([0.9, 0.8, 0.6, 0.001], [0, 0, 0, 1], 0.5),
        ([0.9, 0.8, 0.6, 0.4, 0.001], [0, 0, 0, 1, 1], 0.5),
        # Half have it, which is not few.
        ([0.9, 0.8, 0.6, 0.4], [0, 0, 1, 1], 0.3),
        # All but one is not all.
        ([0.9, 0.8, 0.6, 0.2], [0, 0, 1, 0], 0.4),
        # One and four are as good, 2/3; it is the surer one.
        ([0.9, 0.8, 0.6, 0.4, 0.2], [1, 0, 0, 1, 0], 0.85),
        # Most have it, so that all of them may.
        ([0.9, 0.8, 0.6, 0.4], [0, 1, 1, 1], 0.3),
    ],
)
def test_thresholds_by_hand(probabilities, has, threshold):
    found = choose_thresholds(np.array(has, bool)[:, None], np.array(probabilities, np.float32)[:, None])
    assert found.dtype == np.float32
    assert found == pytest.approx([threshold])


def test_each_label_has_a_threshold_of_its_own():
    truth = np.array([[1, 0], [1, 0], [0, 1]], bool)
    probabilities = np.array([[0.9, 0.2], [0.7, 0.1], [0.5, 0.3]], np.float32)
    assert choose_thresholds(truth, probabilities) == pytest.approx([0.6, 0.25])
