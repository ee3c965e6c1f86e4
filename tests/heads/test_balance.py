"""Balance: frequent labels count less, by weights or by draw."""

from __future__ import annotations

import numpy as np
import pytest

from heads.balance import BALANCES, balanced, check_balance
from heads.checks import HeadError

Y = np.repeat(["dress", "hat", "shirt"], [60, 2, 30])
ROWS = np.arange(len(Y))


def test_none_changes_nothing():
    rows, weights = balanced(Y, ROWS[:70], "none")
    np.testing.assert_array_equal(rows, ROWS[:70])
    assert weights is None


def test_weights_give_each_label_the_same_sum():
    rows, weights = balanced(Y, ROWS, "weights")
    np.testing.assert_array_equal(rows, ROWS)
    assert weights.dtype == np.float32
    assert weights.mean() == pytest.approx(1)
    sums = [weights[label == Y].sum() for label in ("dress", "hat", "shirt")]
    np.testing.assert_allclose(sums, len(Y) / 3, rtol=1e-5)


def test_weights_go_by_the_rows_that_are_left():
    # Of these, 10 are dresses and 30 shirts.
    rows = np.flatnonzero((np.arange(len(Y)) >= 50) & (Y != "hat"))
    weights = balanced(Y, rows, "weights")[1]
    assert weights[0] / weights[-1] == pytest.approx(3)
    assert len(weights) == 40


def test_a_draw_has_each_label_alike():
    rows, weights = balanced(np.tile(Y, 20), np.arange(20 * len(Y)), "resample")
    assert weights is None
    # As many as there were, and one of each label that is there in any case.
    assert len(rows) == 20 * len(Y) + 3
    assert (np.diff(rows) >= 0).all()
    counts = np.unique(np.tile(Y, 20)[rows], return_counts=True)[1]
    np.testing.assert_allclose(counts / len(rows), 1 / 3, atol=0.05)


def test_a_draw_keeps_each_label():
    y = np.arange(50)
    rows = balanced(y, np.arange(50), "resample")[0]
    # 50 of 50 with replacement leave out a third.
    assert set(y[rows]) == set(range(50))
    assert len(set(balanced(np.zeros(50), np.arange(50), "resample")[0])) < 45


def test_a_draw_is_of_the_rows_and_by_the_seed():
    rows = np.flatnonzero(ROWS % 2)
    drawn = balanced(Y, rows, "resample")[0]
    assert set(drawn) <= set(rows)
    np.testing.assert_array_equal(balanced(Y, rows, "resample")[0], drawn)
    assert not np.array_equal(balanced(Y, rows, "resample", seed=1)[0], drawn)


# Three have the first label, two the second, one the third, the last has none.
HAS = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 0], [0, 0, 0]], bool)


def test_items_of_several_labels_go_by_the_rarest():
    weights = balanced(HAS, np.arange(5), "weights")[1]
    expected = np.array([1 / 3, 1 / 2, 1, 1 / 2, 1 / 5])
    np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-6)


def test_a_draw_keeps_each_of_several_labels():
    for seed in range(20):
        rows, weights = balanced(HAS, np.arange(5), "resample", seed=seed)
        assert weights is None
        assert len(rows) == 8
        assert HAS[rows].any(axis=0).all()


def test_refuses_what_is_no_balance():
    for balance in BALANCES:
        check_balance(balance)
    with pytest.raises(HeadError, match="'balance' is none, weights, resample; got 'both'"):
        check_balance("both")
