"""Duplicates: what a group is, worked by hand, and that every way of finding them finds the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data.catalog import Box
from indexer.duplicates import DistanceError, Group, count_repeated_photos, find_duplicates, known_distance
from indexer.faiss_index import FaissIndex
from indexer.rows import Row
from indexer.snapshot import Snapshot
from indexer.store import Store
from tests.indexer.fakes import card_of, item, rows_of, unit, unit_vectors

HALVES = [Box(0, 0, 1, 0.5), Box(0, 0.5, 1, 0.5)]


def snapshot_of(folder: Path, rows: Sequence[Row], dimension: int = 2) -> Snapshot:
    store = Store.create(folder, card_of(dimension), freshness_s=0)
    if rows:
        store.upsert(rows)
    return store.snapshot()


def at(*degrees: float) -> list[Row]:
    """Items i00000, i00001, ... in two dimensions, at these angles; two are 1 - cos(difference) apart."""
    angles = np.deg2rad(degrees)
    return rows_of(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))


def same(rows: list[Row], *numbers: int) -> list[Row]:
    """The rows, of which these have one photo."""
    return [replace(row, content_hash="one") if number in numbers else row for number, row in enumerate(rows)]


def told(groups: Sequence[Group]) -> list[list[tuple[int, str]]]:
    """Number and kind of each item."""
    return [[(int(one.item.item_id[1:]), one.kind) for one in group.items] for group in groups]


def angle(degrees: float) -> float:
    return float(1 - np.cos(np.deg2rad(degrees)))


def test_exact_copies_are_a_group_whatever_their_distance(tmp_path):
    snapshot = snapshot_of(tmp_path / "g", same(at(0, 90, 180, 270), 3, 1))
    (group,) = groups = list(find_duplicates(snapshot, None))
    assert told(groups) == [[(1, "first"), (3, "exact")]]
    assert group.kind == "exact"
    assert [one.distance for one in group.items] == [0, 0]
    assert told(list(find_duplicates(snapshot, 0.1))) == told(groups)
    assert count_repeated_photos(snapshot) == 1


def test_two_boxes_on_one_photo_are_two_garments_and_the_same_box_twice_is_one(tmp_path):
    rows = same(at(0, 40, 80, 120, 160), 0, 1, 2, 3, 4)
    boxes = [None, HALVES[0], HALVES[1], HALVES[0], None]
    rows = [replace(row, item=replace(row.item, box=box)) for row, box in zip(rows, boxes, strict=True)]
    snapshot = snapshot_of(tmp_path / "g", rows)
    assert told(list(find_duplicates(snapshot, 0.01))) == [[(0, "first"), (4, "exact")], [(1, "first"), (3, "exact")]]
    assert count_repeated_photos(snapshot) == 2


def test_near_ones_stand_closest_first_with_their_distances(tmp_path):
    snapshot = snapshot_of(tmp_path / "g", at(0, 9, 3, 60, 62, 120))
    groups = list(find_duplicates(snapshot, angle(10)))
    assert told(groups) == [[(0, "first"), (2, "near"), (1, "near")], [(3, "first"), (4, "near")]]
    assert [group.kind for group in groups] == ["near", "near"]
    assert [one.distance for one in groups[0].items] == pytest.approx([0, angle(3), angle(9)], abs=1e-6)
    assert told(list(find_duplicates(snapshot, angle(2.5)))) == [[(3, "first"), (4, "near")]]


def test_a_group_does_not_chain(tmp_path):
    # Each is 8 degrees from the next. The third is near to the second, which is the first one's, and starts its own.
    snapshot = snapshot_of(tmp_path / "g", at(0, 8, 16, 24, 32))
    assert told(list(find_duplicates(snapshot, angle(10)))) == [
        [(0, "first"), (1, "near")],
        [(2, "first"), (3, "near")],
    ]


def test_a_copy_comes_with_what_its_photo_is_near_to(tmp_path):
    # 0 and 3 are one photo, 1 and 4 another, near to the first.
    rows = [
        replace(row, content_hash=name) for row, name in zip(at(0, 5, 90, 0, 5), ("a", "b", "c", "a", "b"), strict=True)
    ]
    (group,) = groups = list(find_duplicates(snapshot_of(tmp_path / "g", rows), angle(10)))
    assert told(groups) == [[(0, "first"), (3, "exact"), (1, "near"), (4, "near")]]
    assert group.kind == "near"


def test_the_order_of_the_table_does_not_matter(tmp_path):
    rows = same(at(0, 8, 16, 24, 100, 101), 1, 4)
    backwards = snapshot_of(tmp_path / "b", rows[::-1])
    assert told(list(find_duplicates(backwards, angle(10)))) == told(
        list(find_duplicates(snapshot_of(tmp_path / "g", rows), angle(10)))
    )


def test_a_gallery_without_duplicates_and_one_without_items(tmp_path):
    empty = snapshot_of(tmp_path / "empty", [])
    for snapshot in (empty, snapshot_of(tmp_path / "g", at(0, 90))):
        for limit in (None, 0.01):
            assert list(find_duplicates(snapshot, limit)) == []
        assert count_repeated_photos(snapshot) == 0


@pytest.mark.parametrize("distance", [-0.01, 2.01, float("nan"), float("inf")])
def test_a_distance_out_of_range_is_refused_before_anything_is_read(tmp_path, distance):
    with pytest.raises(DistanceError, match=r"0\.\.2; got a largest distance of"):
        find_duplicates(snapshot_of(tmp_path / "g", []), distance)


def test_the_known_distance_is_of_an_encoder_and_its_pooling():
    embedded = card_of(4, name="efficientnet-lite0", pooling="mean+early")
    assert known_distance(embedded) == 0.01
    assert known_distance(replace(embedded, pooling="gem")) is None
    assert known_distance(card_of(4)) is None


def clustered(count: int, dimension: int, seed: int, spread: float = 0.06) -> NDArray[np.float32]:
    """Vectors around a tenth as many centres."""
    rng = np.random.default_rng(seed)
    centres = unit_vectors(max(1, count // 10), dimension, seed=seed)
    around = centres[rng.integers(0, len(centres), count)]
    return unit(around + rng.normal(scale=spread, size=around.shape) / dimension**0.5)


def by_hand(vectors: NDArray[np.float32], limit: float) -> list[list[int]]:
    """The groups by the definition, item by item."""
    distances = 1 - vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    taken: set[int] = set()
    groups = []
    for first in range(len(vectors)):
        if first not in taken:
            near = [n for n in range(first + 1, len(vectors)) if n not in taken and distances[first, n] <= limit]
            taken |= {first, *near}
            groups += [[first, *sorted(near, key=lambda n: distances[first, n])]] if near else []
    return groups


@pytest.mark.parametrize("variant", ["exact", "hnsw", "ivf"])
def test_every_way_of_searching_finds_the_groups_of_the_definition(tmp_path, monkeypatch, variant):
    vectors, limit = clustered(600, 16, seed=1), 0.003
    store = Store.create(tmp_path / "g", card_of(16), freshness_s=0)
    store.upsert(rows_of(vectors[:560]))
    index = None if variant == "exact" else FaissIndex.build(store.snapshot(), variant)
    # Rows that the index does not hold, vectors of it that are gone, and copies, which do not compete.
    originals = rows_of(vectors[20:40], first=20)
    copies = [replace(row, item=item(600 + number)) for number, row in enumerate(originals)]
    store.upsert([*rows_of(vectors[560:], first=560), *copies])
    store.delete(["i00000", "i00007"])
    kept = [number for number in range(600) if number not in (0, 7)]
    # Few neighbours at first and small blocks, so that it asks again, and groups reach over blocks.
    monkeypatch.setattr("indexer.duplicates._NEIGHBOURS", 2)
    monkeypatch.setattr("indexer.duplicates._BLOCK", 50)
    groups = list(find_duplicates(store.snapshot(), limit, index=index))
    numbers = [[number for number, _ in group] for group in told(groups)]
    expected = [[kept[place] for place in group] for group in by_hand(vectors[kept], limit)]
    assert len(expected) > 30
    assert max(map(len, expected)) > 3
    without_copies = [[number for number in group if number < 600] for group in numbers]
    assert [group for group in without_copies if len(group) > 1] == expected
    # A copy stands behind its original.
    for group in numbers:
        for place, number in enumerate(group):
            if number >= 600:
                assert number - 600 + 20 in group[:place]
    assert sorted(number for group in numbers for number in group if number >= 600) == list(range(600, 620))
    for group in groups:
        first, *others = [
            vectors[n - 580 if n >= 600 else n] for n in (int(one.item.item_id[1:]) for one in group.items)
        ]
        distances = [one.distance for one in group.items[1:]]
        assert distances == pytest.approx([1 - float(first @ other) for other in others], abs=1e-5)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=0, max_size=25), st.integers(0, 6))
def test_keeping_the_first_of_each_group_leaves_no_two_near_and_drops_only_near_ones(tmp_path_factory, degrees, limit):
    # Whole degrees, and a limit between them, so that rounding decides nothing.
    snapshot = snapshot_of(tmp_path_factory.mktemp("g") / "g", at(*degrees))
    groups = told(list(find_duplicates(snapshot, angle(limit + 0.5))))
    numbers = [number for group in groups for number, _ in group]
    assert len(numbers) == len(set(numbers))
    kept = set(range(len(degrees))) - {number for group in groups for number, _ in group[1:]}
    assert all(abs(degrees[a] - degrees[b]) > limit for a in kept for b in kept if a < b)
    assert all(abs(degrees[group[0][0]] - degrees[number]) <= limit for group in groups for number, _ in group)
    assert all(group[0][0] == min(number for number, _ in group) for group in groups)


def test_a_group_may_be_far_larger_than_what_is_asked_for_at_first(tmp_path):
    vectors = np.repeat(unit_vectors(1, 8), 400, axis=0)
    snapshot = snapshot_of(tmp_path / "g", rows_of(vectors, [item(n) for n in range(400)]), 8)
    index = FaissIndex.build(snapshot, "hnsw")
    for found in (find_duplicates(snapshot, 0.01), find_duplicates(snapshot, 0.01, index=index)):
        assert [len(group.items) for group in found] == [400]
