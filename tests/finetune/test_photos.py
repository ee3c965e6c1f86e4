from __future__ import annotations

import threading

import numpy as np
import pytest

from data.catalog import CatalogItem
from data.images import ImageError
from finetune.photos import DivisionError, Loader, cut, divide, epoch_order
from finetune.recipe import Recipe, Stage

RECIPE = Recipe("plain", "", (Stage(1),))


def item(number: int, label: str | tuple[str, ...] | None = "a", **more) -> CatalogItem:
    labels = {} if label is None else {"type": (label,) if isinstance(label, str) else label}
    return CatalogItem(f"i{number}", b"", labels=labels, **more)


def two_kinds(count: int, **more) -> list[CatalogItem]:
    return [item(number, "ab"[number % 2], **more) for number in range(count)]


def test_a_catalogs_own_split_counts():
    items = [*two_kinds(6, split="train"), item(6, "a", split="validation"), item(7, "b", split="test"), item(8, "b")]
    division = divide(items, ["type"], RECIPE)
    # What has no split teaches, as the catalog says what validates.
    assert [one.item_id for one in division.train.items] == ["i0", "i1", "i2", "i3", "i4", "i5", "i8"]
    assert division.train.y["type"].tolist() == [0, 1, 0, 1, 0, 1, 1]
    assert [one.item_id for one in division.validation.items] == ["i6"]
    assert division.targets == {"type": ("a", "b")}
    assert division.left_out == 1


def test_products_are_divided_where_the_catalog_is_not():
    items = [item(number, "ab"[number % 2], product_id=f"p{number // 3}") for number in range(600)]
    division = divide(items, ["type"], RECIPE)
    sides = [{one.product_id for one in part.items} for part in (division.train, division.validation)]
    assert not sides[0] & sides[1]
    # A tenth of 200 products, give or take three standard deviations of sqrt(200 * 0.1 * 0.9) = 4.2.
    assert 8 <= len(sides[1]) <= 32
    assert divide(items[::-1], ["type"], RECIPE).validation.items == division.validation.items[::-1]


def test_a_test_split_is_never_looked_at():
    items = [*two_kinds(40, split="train"), *(item(100 + n, "c", split="test") for n in range(10))]
    division = divide(items, ["type"], RECIPE)
    assert division.targets == {"type": ("a", "b")}
    assert division.left_out == 10


def test_a_label_of_one_photo_is_left_out_and_named():
    items = [*two_kinds(6, split="train"), item(6, "lonely", split="train"), item(7, "a", split="validation")]
    items.append(item(8, "lonely", split="validation"))
    division = divide(items, ["type"], RECIPE)
    assert division.rare == {"type": {"lonely": 1}}
    assert division.targets == {"type": ("a", "b")}
    assert len(division.train.items) == 6
    assert [one.item_id for one in division.validation.items] == ["i7"]
    assert division.left_out == 2


def test_a_photo_may_lack_a_target():
    items = [
        CatalogItem(
            f"i{n}", b"", labels={"type": ("ab"[n % 2],), **({"hue": ("gr"[n % 2],)} if n < 4 else {})}, split=s
        )
        for n, s in enumerate(["train"] * 6 + ["validation"] * 2)
    ]
    items[7] = CatalogItem("i7", b"", labels={"type": ("b",), "hue": ("g",)}, split="validation")
    division = divide(items, ["type", "hue"], RECIPE)
    assert division.train.y["hue"].tolist() == [0, 1, 0, 1, -1, -1]
    assert division.validation.y["hue"].tolist() == [-1, 0]


def test_a_limit_takes_the_same_photos_whatever_their_order():
    items = two_kinds(200)
    first, second = (divide(order, ["type"], RECIPE, limit=50) for order in (items, items[::-1]))
    ids = [sorted(one.item_id for one in part.items) for part in (first.train, second.train)]
    assert ids[0] == ids[1]
    assert len(first.train.items) + len(first.validation.items) == 50
    assert first.left_out == 150


@pytest.mark.parametrize(
    ("items", "target", "sentence"),
    [
        (two_kinds(20), "colour", "No photo to train on has a label in 'colour'; the catalog's targets are type"),
        ([], "type", "the catalog's targets are none"),
        ([item(n) for n in range(20)], "type", r"'type' has 1 with 2 training photos or more \(a\)"),
        ([item(n, f"l{n}") for n in range(20)], "type", r"'type' has 0 with 2 training photos or more \(none\)"),
        ([*two_kinds(20), item(50, ("a", "b"))], "type", r"'i50' has several in 'type' \(a, b\)"),
        (
            [*two_kinds(20, split="train"), item(50, "c", split="validation")],
            "type",
            "No validation photo has a label of 'type' that is learned; of 21 photos 1 validate",
        ),
        (
            [item(n, "ab"[n % 2], product_id="shoe") for n in range(20)],  # whose hash is on the training side
            "type",
            "No validation photo has a label of 'type' that is learned; of 20 photos 0 validate",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_refused(items, target, sentence):
    with pytest.raises(DivisionError, match=sentence):
        divide(items, [target], RECIPE)


def test_batches_come_in_order_and_are_read_ahead():
    reads, gate = [], threading.Event()

    def read(row):
        reads.append(row)
        if row == 9:
            gate.set()
        return np.full((2, 2, 3), row, np.uint8)

    loader = Loader(2)
    batches = loader.batches([item(n) for n in range(20)], [np.array([3, 1]), np.array([7]), np.array([9, 9])], read)
    rows, pixels = next(batches)
    assert rows.tolist() == [3, 1]
    assert pixels[:, 0, 0, 0].tolist() == [3, 1]
    assert pixels.shape == (2, 2, 2, 3)
    # The third batch is read while the first is worked on.
    assert gate.wait(10)
    assert [rows.tolist() for rows, _ in batches] == [[7], [9, 9]]
    assert loader.unreadable == {}


def test_a_photo_that_cannot_be_read_is_left_out_and_named():
    def read(row):
        if row < 3:
            raise ImageError("It is damaged.")
        return np.zeros((2, 2, 3), np.uint8)

    loader = Loader(2)
    batches = list(loader.batches([item(n) for n in range(6)], [np.array([0, 4]), np.array([1, 2])], read))
    assert [rows.tolist() for rows, _ in batches] == [[4], []]
    assert loader.unreadable == dict.fromkeys(("i0", "i1", "i2"), "It is damaged.")


def test_any_other_error_comes_through():
    def read(row):
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        list(Loader(1).batches([item(0)], [np.array([0])], read))


def test_an_epoch_has_every_photo_once_and_its_own_order():
    y = np.zeros(50, np.int64)
    first, second = (epoch_order(y, RECIPE, epoch) for epoch in (1, 2))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first.tolist() != second.tolist()
    assert first.tolist() == epoch_order(y, RECIPE, 1).tolist()


def test_inverse_frequency_draws_labels_alike():
    y = np.array([0] * 900 + [1] * 90 + [-1] * 10)
    recipe = Recipe("r", "", (Stage(1),), sampler="inverse-frequency")
    drawn = np.concatenate([y[epoch_order(y, recipe, epoch)] for epoch in range(20)])
    # Each of the two labels has half of what the unlabelled, drawn as often as in a plain order, leave.
    shares = [(drawn == label).mean() for label in (0, 1, -1)]
    assert shares == pytest.approx([0.495, 0.495, 0.01], abs=0.02)


@pytest.mark.parametrize(
    ("count", "batch", "sizes"),
    [(64, 32, [32, 32]), (70, 32, [35, 35]), (90, 32, [30, 30, 30]), (5, 32, [5]), (3, 2, [3]), (7, 2, [3, 2, 2])],
)
def test_batches_are_of_nearly_equal_size(count, batch, sizes):
    parts = cut(np.arange(count), batch)
    assert [len(part) for part in parts] == sizes
    assert np.concatenate(parts).tolist() == list(range(count))
