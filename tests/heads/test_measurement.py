"""Calibration and figures from what a head says of photos that are new to it."""

from __future__ import annotations

import numpy as np
import pytest

from heads.logits import one_hot, softmax
from heads.measurement import _held_back, calibrate
from heads.novelty import Novelty


def test_one_margin_by_hand() -> None:
    # Two labels, always four apart, right 15 times of 20: a logistic of 4 / T is 0.75 where T is 4 / ln 3.
    y = np.arange(20) % 2
    said = softmax(np.where(one_hot(np.where(np.arange(20) < 15, y, 1 - y), 2), 4, 0).astype(np.float32))
    asked = []

    def novelty_at(temperature: float) -> Novelty:
        asked.append(temperature)
        return Novelty(np.zeros(3, np.float32), np.zeros(1, np.float32), {"novel_found": 0.5})

    learned = calibrate(one_hot(y, 2), said, multi_label=False, novelty_at=novelty_at)
    assert learned.temperature == pytest.approx(4 / np.log(3), rel=2e-3)
    assert asked == [learned.temperature] == [learned.figures["temperature"]]
    # The true label got 0.75 fifteen times, and 0.25 five times.
    np.testing.assert_allclose(learned.scores, [0.25] * 15 + [0.75] * 5, atol=1e-3)
    assert learned.thresholds is None
    assert (learned.figures["photos"], learned.figures["accuracy"], learned.figures["novel_found"]) == (20, 0.75, 0.5)
    # Before: always sure of 0.982, and right in 0.75.
    assert learned.figures["calibration_error_before"] == pytest.approx(1 / (1 + np.exp(-4)) - 0.75, abs=1e-5)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_row_has_no_say_in_how_it_is_measured(multi_label: bool) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    truth = rng.random((60, 3)) < 0.4 if multi_label else np.arange(3) == y[:, None]
    said = rng.dirichlet([1, 1, 1], 60).astype(np.float32)
    calibrated, sets = _held_back(truth, said, multi_label=multi_label, seed=0)
    assert sets.any() != multi_label
    for row in (0, 7, 33):
        other = truth.copy()
        other[row] = ~truth[row] if multi_label else np.roll(truth[row], 1)
        changed = (_held_back(other, said, multi_label=multi_label, seed=0)[0] != calibrated).any(axis=1)
        assert not changed[row]
        # Those of the other half have another temperature.
        assert changed.sum() == 30
    assert _held_back(truth, said, multi_label=multi_label, seed=1)[0].tolist() != calibrated.tolist()
