"""Splits by hash of the product."""

from __future__ import annotations

from collections import Counter

import pytest

from data.splits import SplitError, assign_split, split_name

EIGHTY = {"train": 0.8, "validation": 0.1, "test": 0.1}


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("train", "train"),
        (" Val ", "validation"),
        ("VALID", "validation"),
        ("test", "test"),
        ("query", None),
        ("", None),
    ],
)
def test_split_name(text, split):
    assert split_name(text) == split


def test_golden_values_so_that_no_release_moves_a_product():
    # Worked out with hashlib alone: blake2b-64 of "0:a" and so on is, over 2**64, 0.742, 0.828, 0.915.
    assert [assign_split(product, fractions=EIGHTY) for product in ("a", "boots-7", "g")] == [
        "train",
        "validation",
        "test",
    ]


def test_proportions_hold_and_depend_on_the_seed():
    products = [f"p{number}" for number in range(20_000)]
    sides = [assign_split(product, fractions=EIGHTY) for product in products]
    counts = Counter(sides)
    # sqrt(0.8 * 0.2 / 20,000) is 0.003; four of them.
    assert counts["train"] / 20_000 == pytest.approx(0.8, abs=0.012)
    assert counts["test"] / 20_000 == pytest.approx(0.1, abs=0.009)
    other = [assign_split(product, fractions=EIGHTY, seed=1) for product in products]
    # Two independent divisions agree on 0.64 + 0.01 + 0.01 of the products.
    assert sum(a == b for a, b in zip(sides, other, strict=True)) / 20_000 == pytest.approx(0.66, abs=0.02)


def test_order_of_fractions_moves_nothing_and_zero_gets_nothing():
    backwards = dict(reversed(EIGHTY.items()))
    for number in range(500):
        product = str(number)
        assert assign_split(product, fractions=EIGHTY) == assign_split(product, fractions=backwards)
        assert assign_split(product, fractions={"train": 0.5, "validation": 0, "test": 0.5}) != "validation"
        assert assign_split(product, fractions={"test": 1.0}) == "test"


def test_a_larger_train_share_only_moves_products_into_train():
    for number in range(500):
        if assign_split(str(number), fractions={"train": 0.6, "test": 0.4}) == "train":
            assert assign_split(str(number), fractions={"train": 0.7, "test": 0.3}) == "train"


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({}, "sum to 1; got none"),
        ({"train": 0.8, "test": 0.1}, "got train=0.8, test=0.1, which sum to 0.9"),
        ({"train": 1.2, "test": -0.2}, "share of the products, 0..1; got train=1.2"),
        ({"train": float("nan"), "test": 1}, "0..1; got train=nan"),
        ({"train": 0.9, "val": 0.1}, "given for train, validation, test; got train=0.9, val=0.1"),
    ],
)
def test_fractions_that_divide_nothing(fractions, message):
    with pytest.raises(SplitError, match=message) as caught:
        assign_split("a", fractions=fractions)
    assert caught.value.fractions.keys() == fractions.keys()
