"""Filters: what is written, and which rows pass, against a plain loop."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data.catalog import CatalogItem
from indexer import filters
from indexer.filters import FilterError, LabelIndex, parse_where
from indexer.store import Store
from tests.indexer.fakes import card_of, item, make_store, rows_of, unit_vectors


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("colour=Blue", {"colour": ("Blue",)}),
        ("articleType=Shirts,colour=Blue|Navy Blue", {"articleType": ("Shirts",), "colour": ("Blue", "Navy Blue")}),
        ("  colour =  Navy Blue | Blue , fit=slim ", {"colour": ("Navy Blue", "Blue"), "fit": ("slim",)}),
        (r"name=Shirt\, blue", {"name": ("Shirt, blue",)}),
        (r"name=a\|b|c", {"name": ("a|b", "c")}),
        (r"name=a\\|c", {"name": ("a\\", "c")}),
        (r"name=a\\\|c", {"name": ("a\\|c",)}),
        # A backslash before anything else is a backslash, at the end too.
        (r"name=C:\new", {"name": (r"C:\new",)}),
        ("name=a\\", {"name": ("a\\",)}),
        (r"colour\, main=Blue", {"colour, main": ("Blue",)}),
        ("size=a=b", {"size": ("a=b",)}),
        ("kleur=Brûlé 'x' \"y\"; --", {"kleur": ("Brûlé 'x' \"y\"; --",)}),
    ],
)
def test_what_is_written_is_what_is_meant(text: str, where: dict[str, tuple[str, ...]]) -> None:
    assert parse_where(text) == where


@pytest.mark.parametrize("text", ["", ",", "colour", "=Blue", " =Blue", "colour=", "a=b,", ",a=b", "a=b,,c=d", "a=b|"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(FilterError, match=r"A filter is target=label or target=label\|label, joined by commas; got '"):
        parse_where(text)


def test_the_part_that_is_wrong_is_shown() -> None:
    with pytest.raises(FilterError, match=r"joined by commas; got 'blue'\."):
        parse_where("colour=red,blue")


def test_a_target_named_twice_is_refused() -> None:
    with pytest.raises(FilterError, match=r"names 'colour' twice; write colour=label\|label"):
        parse_where("colour=Blue, colour =Red")


COLOURS = ("red", "navy, dark", "a|b", "'; DROP", "Größe", "red ")
MATERIALS = ("wool", "silk", "red")


def _random_items(count: int) -> list[CatalogItem]:
    """None to three colours, at most one material, sometimes a split."""
    rng = np.random.default_rng(3)
    items = []
    for number in range(count):
        labels = {"material": (str(rng.choice(MATERIALS)),)} if rng.random() < 0.6 else {}
        colours = tuple(str(one) for one in rng.choice(COLOURS, rng.integers(0, 4)))
        if colours:
            # With replacement: the same label twice is one label.
            labels["colour"] = colours
        split = str(rng.choice(["train", "test"])) if rng.random() < 0.5 else None
        items.append(item(number, labels=labels, split=split))
    return items


ITEMS = _random_items(400)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """400 items, some of which were written again and some deleted, so that rows are not in the order of their ids."""
    folder = tmp_path_factory.mktemp("filters") / "gallery"
    store = make_store(folder, unit_vectors(400, 4), [item(number) for number in range(400)], commit=150)
    store.upsert(rows_of(unit_vectors(400, 4), ITEMS))
    store.upsert(rows_of(unit_vectors(50, 4), ITEMS[100:150]))
    store.delete([f"i{number:05}" for number in range(0, 400, 9)])
    return store


def _naive(store: Store, where: dict[str, tuple[str, ...]]) -> list[int]:
    by_id = {one.item_id: one for one in ITEMS}
    passing = []
    for row, item_id in enumerate(store.snapshot().columns("item_id").column(0).to_pylist()):
        labels = dict(by_id[item_id].labels)
        if by_id[item_id].split is not None:
            labels["split"] = (str(by_id[item_id].split),)
        if all(set(labels.get(target, ())) & set(names) for target, names in where.items()):
            passing.append(row)
    return passing


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"colour": ("red",)},
        {"colour": ("navy, dark",)},
        {"colour": ("a|b",)},
        {"colour": ("'; DROP",)},
        {"colour": ("red", "Größe", "red ")},
        {"material": ("red",)},
        {"split": ("test",)},
        {"split": ("train", "test")},
        {"colour": ("red", "a|b"), "material": ("wool", "silk"), "split": ("test",)},
    ],
)
def test_the_rows_that_pass_are_those_of_a_plain_loop(store: Store, where: dict[str, tuple[str, ...]]) -> None:
    rows = LabelIndex(store.snapshot()).rows(where)
    wanted = _naive(store, where)
    assert rows.tolist() == wanted
    assert rows.dtype == np.int64
    assert len(wanted) > 10


def test_the_counts_are_those_of_a_plain_loop(store: Store) -> None:
    by_id = {one.item_id: one for one in ITEMS}
    wanted: dict[str, Counter[str]] = {"colour": Counter(), "material": Counter(), "split": Counter()}
    for item_id in store.snapshot().columns("item_id").column(0).to_pylist():
        for target, names in by_id[item_id].labels.items():
            wanted[target].update(set(names))
        if by_id[item_id].split is not None:
            wanted["split"][str(by_id[item_id].split)] += 1
    counts = LabelIndex(store.snapshot()).counts()
    assert counts == wanted
    assert list(counts) == sorted(wanted)
    assert [list(labels) for labels in counts.values()] == [sorted(wanted[target]) for target in counts]


def test_nothing_passes_where_targets_never_meet(tmp_path: Path) -> None:
    items = [item(0, labels={"a": ("x",)}), item(1, labels={"b": ("y",)})]
    labels = LabelIndex(make_store(tmp_path / "gallery", unit_vectors(2, 3), items).snapshot())
    rows = labels.rows({"a": ("x",), "b": ("y",)})
    assert rows.tolist() == []
    assert rows.dtype == np.int64


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"color": ("red",)}, r"The gallery has no target 'color'; did you mean colour\?"),
        ({"colour": ("groesse",)}, r"No item of the gallery has colour=groesse; did you mean Größe\?"),
        ({"COLOUR": ("red",)}, r"no target 'COLOUR'; did you mean colour\?"),
        ({"zzz": ("red",)}, r"no target 'zzz'; it has colour, material, split\."),
        ({"material": ("nylon",)}, r"has material=nylon; it has red, silk, wool\."),
        ({"colour": ("red",), "material": ("silc",)}, r"has material=silc; did you mean silk\?"),
    ],
)
def test_what_the_gallery_has_not_is_refused_with_what_it_has(
    store: Store, where: dict[str, tuple[str, ...]], message: str
) -> None:
    with pytest.raises(FilterError, match=message):
        LabelIndex(store.snapshot()).rows(where)


def test_a_name_is_compared_with_so_many_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 100,000 it took more than a second, for which nothing else could be asked."""
    items = [CatalogItem(name, Path("a.jpg"), labels={"colour": (name,)}) for name in ("red", "reds")]
    index = LabelIndex(make_store(tmp_path / "gallery", unit_vectors(2, 4), items).snapshot())
    monkeypatch.setattr(filters, "_COMPARED", 1)
    with pytest.raises(FilterError, match=r"did you mean red\?"):
        index.rows({"colour": ("redss",)})


def test_the_first_few_of_many_are_named(tmp_path: Path) -> None:
    items = [item(number, labels={"size": (f"{number}",)}) for number in range(20)]
    labels = LabelIndex(make_store(tmp_path / "gallery", unit_vectors(20, 3), items).snapshot())
    with pytest.raises(FilterError, match=r"size=huge; it has 0, 1, 10, 11, 12, 13, 14, 15 \.\.\."):
        labels.rows({"size": ("huge",)})


def test_a_gallery_without_items_or_labels_has_no_targets(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "gallery", card_of(3), freshness_s=0)
    for count in (0, 2):
        store.upsert(rows_of(unit_vectors(2, 3))) if count else None
        labels = LabelIndex(store.snapshot())
        assert labels.counts() == {}
        assert labels.rows({}).tolist() == list(range(count))
        with pytest.raises(FilterError, match=r"has no target 'colour'; it has none\."):
            labels.rows({"colour": ("red",)})
