"""Folds: products stay together, labels are spread evenly, and the seed decides."""

from __future__ import annotations

import numpy as np
import pytest

from heads.folds import assign_folds

LABELS = np.repeat(["NA", "dress", "rare", "shirt"], [23, 60, 2, 40])


@pytest.mark.parametrize("count", [2, 5])
def test_each_label_is_spread_within_one(count):
    folds = assign_folds(LABELS, count=count)
    assert folds.dtype == np.int64
    sizes = np.bincount(folds, minlength=count)
    assert len(sizes) == count
    assert np.ptp(sizes) <= 1
    for label in np.unique(LABELS):
        assert np.ptp(np.bincount(folds[label == LABELS], minlength=count)) <= 1


def test_a_group_is_in_one_fold_and_groups_are_spread_by_label():
    rng = np.random.default_rng(0)
    # 40 products of 1 to 6 photos, in any order; the label is the product's.
    sizes = rng.integers(1, 7, 40)
    groups = rng.permutation(np.repeat([f"product {number}" for number in range(40)], sizes))
    numbers = np.array([int(name.split()[1]) for name in groups])
    y = numbers % 3
    folds = assign_folds(y, groups=groups)
    fold_of = {}
    for group, fold in zip(groups, folds, strict=True):
        assert fold_of.setdefault(group, fold) == fold
    for label in range(3):
        of_label = [fold for group, fold in fold_of.items() if int(group.split()[1]) % 3 == label]
        assert np.ptp(np.bincount(of_label, minlength=5)) <= 1


def test_items_of_several_labels_go_by_the_rarest_one():
    rng = np.random.default_rng(0)
    has = np.zeros((120, 3), bool)
    has[:, 0] = True
    has[rng.choice(120, 30, replace=False), 1] = True
    has[rng.choice(120, 10, replace=False), 2] = True
    folds = assign_folds(has)
    assert np.bincount(folds[has[:, 2]]).tolist() == [2] * 5
    assert np.ptp(np.bincount(folds[has[:, 1] & ~has[:, 2]])) <= 1
    assert np.bincount(folds).tolist() == [24] * 5


def test_items_without_a_label_are_spread_too():
    has = np.zeros((20, 2), bool)
    has[:5, 0] = has[5:10, 1] = True
    assert np.bincount(assign_folds(has)[10:]).tolist() == [2] * 5


def test_the_seed_decides():
    folds = assign_folds(LABELS)
    np.testing.assert_array_equal(assign_folds(LABELS), folds)
    assert (assign_folds(LABELS, seed=1) != folds).any()


def test_fewer_rows_than_folds_are_apart():
    assert sorted(assign_folds(np.array([0, 1, 1]))) == [0, 1, 2]
    assert assign_folds(np.array([0, 1, 1]), groups=np.zeros(3)).tolist() == [0, 0, 0]
