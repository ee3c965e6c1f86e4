"""Two encoders on the same items: hit rates worked by hand, and neighbours as a plain loop finds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data.catalog import CatalogItem
from indexer import comparison
from indexer.comparison import Comparison, TargetComparison, compare
from indexer.snapshot import Snapshot
from tests.indexer.fakes import item, make_store, unit, unit_vectors

# So many products that a target decides, in two colours.
COUNT = 40


def snapshot_of(folder: Path, embeddings: NDArray[np.float32], items: list[CatalogItem], *, commit: int) -> Snapshot:
    return make_store(folder, embeddings, items, commit=commit).snapshot()


def compared(
    folder: Path, old: NDArray[np.float32], new: NDArray[np.float32], items: list[CatalogItem], *, commit: int = 500
) -> Comparison:
    """The comparison of two galleries of the same items in the same order."""
    ours = snapshot_of(folder / "old", old, items, commit=commit)
    theirs = snapshot_of(folder / "new", new, items, commit=commit)
    return compare(ours, theirs, np.arange(len(items)))


def coloured(count: int = COUNT) -> list[CatalogItem]:
    return [item(number, labels={"colour": (("red", "blue")[number % 2],)}) for number in range(count)]


def by_colour(count: int = COUNT) -> NDArray[np.float32]:
    """Red things here, blue ones there, each a little apart from the next."""
    angles = [0.001 * number + (number % 2) * np.pi / 2 for number in range(count)]
    return unit(np.column_stack([np.cos(angles), np.sin(angles)]))


def in_pairs(count: int = COUNT) -> NDArray[np.float32]:
    """Each red thing beside a blue one, far from all others: every first neighbour is wrong."""
    angles = [2 * np.pi * (number // 2) / (count / 2) + 0.001 * (number % 2) for number in range(count)]
    return unit(np.column_stack([np.cos(angles), np.sin(angles)]))


def test_the_same_embeddings_have_the_same_neighbours(tmp_path):
    found = compared(tmp_path, by_colour(), by_colour(), coloured())
    assert found == Comparison(
        COUNT,
        1.0,
        1.0,
        1.0,
        {"colour": TargetComparison(COUNT, COUNT, 1.0, 1.0, 0.0, 0.0, 0.0, decides=True)},
        "not worse",
    )


@pytest.mark.parametrize(("old", "new", "verdict"), [(0, 1, "worse"), (1, 0, "not worse")])
def test_the_difference_is_new_less_old(tmp_path, old, new, verdict):
    both = [by_colour(), in_pairs()]
    found = compared(tmp_path, both[old], both[new], coloured())
    colour = found.by_target["colour"]
    assert (colour.hit_rate_at_1_old, colour.hit_rate_at_1_new) == (1 - old, 1 - new)
    # All queries differ by as much, so that the interval is a point.
    assert (colour.difference, colour.difference_low, colour.difference_high) == (old - new,) * 3
    assert (found.verdict, colour.is_worse) == (verdict, verdict == "worse")


def test_a_difference_within_chance_is_not_worse(tmp_path):
    old, new = by_colour(), by_colour()
    # One blue thing of 40 is on the side of the red ones now, too far from them to be anybody's first neighbour.
    new[1] = unit([[np.cos(-0.3), np.sin(-0.3)]])
    found = compared(tmp_path, old, new, coloured())
    colour = found.by_target["colour"]
    assert colour.difference is not None
    assert colour.difference_low is not None
    assert colour.difference_low < colour.difference < 0 == colour.difference_high
    assert found.verdict == "not worse"


def test_photos_of_one_product_are_no_neighbours_and_one_query(tmp_path):
    # Two photos of each product at the same place; the nearest other product has the other colour.
    items = [
        item(number, product_id=f"p{number // 2}", labels={"colour": (("red", "blue")[number // 2 % 2],)})
        for number in range(2 * COUNT)
    ]
    found = compared(tmp_path, np.repeat(in_pairs(), 2, axis=0), np.repeat(by_colour(), 2, axis=0), items)
    assert found.queries == COUNT
    colour = found.by_target["colour"]
    assert (colour.queries, colour.hit_rate_at_1_old, colour.hit_rate_at_1_new) == (COUNT, 0.0, 1.0)


def test_a_label_that_no_other_product_has_is_not_asked_for(tmp_path):
    labels = [{"colour": ("red",), "title": (f"Dress {number}",)} for number in range(COUNT)]
    labels[7]["colour"] = ("puce",)
    # Two titles are there twice, once on two products and once on two photos of one.
    labels[1]["title"] = labels[0]["title"]
    labels[3]["title"] = labels[2]["title"]
    products = [None, None, "p", "p", *[None] * (COUNT - 4)]
    items = [
        item(number, labels=labels[number], product_id=product)
        for number, product in zip(range(COUNT), products, strict=True)
    ]
    embeddings = by_colour()
    embeddings[7] = [-1, 0]
    found = compared(tmp_path, embeddings, embeddings, items)
    assert (found.by_target["colour"].queries, found.by_target["colour"].queries_with_label) == (COUNT - 2, COUNT - 1)
    assert found.by_target["colour"].hit_rate_at_1_old == 1.0
    title = found.by_target["title"]
    assert (title.queries, title.queries_with_label, title.decides) == (2, COUNT - 1, False)
    assert found.verdict == "not worse"


@pytest.mark.parametrize(("count", "verdict"), [(28, "unknown"), (30, "worse")])
def test_few_queries_decide_nothing(tmp_path, count, verdict):
    assert compared(tmp_path, by_colour(count), in_pairs(count), coloured(count)).verdict == verdict


@pytest.mark.parametrize(("repeated", "verdict"), [(30, "unknown"), (32, "worse")])
def test_a_target_of_names_decides_nothing(tmp_path, repeated, verdict):
    # Of 64 products so many share their name with every second other one; all others have one of their own.
    items = [
        item(number, labels={"name": ((f"{number % 2}" if number < repeated else f"own {number}"),)})
        for number in range(64)
    ]
    found = compared(tmp_path, by_colour(64), in_pairs(64), items)
    assert (found.by_target["name"].queries, found.verdict) == (repeated, verdict)


def test_any_of_several_labels_will_do(tmp_path):
    # Neighbours in pairs: the left one has both colours, the right one has one of them or neither.
    labels = [("red", "blue"), ("blue",), ("red", "blue"), ("green",)]
    items = [item(number, labels={"colour": labels[number % 4]}) for number in range(COUNT)]
    found = compared(tmp_path, in_pairs(), in_pairs(), items)
    assert found.by_target["colour"].hit_rate_at_1_old == 0.5


def test_without_labels_nothing_can_be_said_of_them(tmp_path):
    items = [item(number) for number in range(COUNT)]
    found = compared(tmp_path, by_colour(), in_pairs(), items)
    assert (found.by_target, found.verdict) == ({}, "unknown")
    assert found.neighbour_overlap_at_10 is not None
    assert found.neighbour_overlap_at_10 < 0.5


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_items(tmp_path, count):
    found = compared(tmp_path, by_colour(2)[:count], by_colour(2)[:count], coloured(2)[:count])
    assert (found.queries, found.verdict) == (count, "unknown")
    assert found.neighbour_overlap_at_10 == (1.0 if count == 2 else None)


def test_no_more_queries_than_wanted_and_the_same_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "QUERIES", 31)
    found = compared(tmp_path, by_colour(), in_pairs(), coloured())
    assert (found.queries, found.by_target["colour"].queries) == (31, 31)
    ours, theirs = (make_store(tmp_path / name, by_colour(), coloured()).snapshot() for name in ("a", "b"))
    assert compare(ours, theirs, np.arange(COUNT)) == compare(ours, theirs, np.arange(COUNT))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**20), count=st.integers(2, 60), commit=st.sampled_from([7, 500]))
def test_neighbours_are_those_that_a_plain_loop_finds(tmp_path_factory, seed, count, commit):
    folder, rng = tmp_path_factory.mktemp("compared"), np.random.default_rng(seed)
    products = [f"p{number}" if number < 5 else None for number in rng.integers(0, 15, count)]
    items = [
        item(number, product_id=product, labels={"colour": (f"{rng.integers(3)}",)})
        for number, product in enumerate(products)
    ]
    # The build has another order and lacks some.
    kept = rng.permutation(count)[: rng.integers(1, count + 1)]
    old, new = unit_vectors(count, 4, seed=seed), unit_vectors(count, 6, seed=seed + 1)
    ours = snapshot_of(folder / "old", old, items, commit=commit)
    theirs = snapshot_of(folder / "new", new[kept], [items[number] for number in kept], commit=commit)
    places = np.full(count, -1)
    places[kept] = np.arange(len(kept))
    with pytest.MonkeyPatch.context() as patch:
        # All are asked, and not one a product.
        patch.setattr(comparison, "_sample", lambda products: np.arange(len(products)))
        found = compare(ours, theirs, places)

    def nearest(vectors: NDArray[np.float32], query: int) -> list[int]:
        return sorted(others(query), key=lambda n: (1 - vectors[n] @ vectors[query], n))[:10]

    def others(query: int) -> list[int]:
        return [n for n in kept if n != query and (products[n] is None or products[n] != products[query])]

    hits, overlaps = [], []
    for query in sorted(kept):
        near = nearest(old, query), nearest(new, query)
        if near[0]:
            overlaps.append(len(set(near[0]) & set(near[1])) / len(near[0]))
        colour = items[query].labels["colour"]
        if any(items[n].labels["colour"] == colour for n in others(query)):
            hits.append([items[first[0]].labels["colour"] == colour for first in near])
    assert found.neighbour_overlap_at_10 == (pytest.approx(np.mean(overlaps), abs=1e-4) if overlaps else None)
    target = found.by_target["colour"]
    assert target.queries == len(hits)
    if hits:
        rates = (target.hit_rate_at_1_old, target.hit_rate_at_1_new)
        assert rates == pytest.approx(np.mean(hits, axis=0), abs=1e-4)
