"""What heads are fitted on: which items of a gallery teach, and what has changed when others would."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from heads.checks import HeadError
from heads.fitting import FitOptions
from indexer.compaction import compact
from indexer.edits import delete_items, relabel_item
from indexer.filters import FilterError
from indexer.gallery import Gallery
from indexer.rows import vector_key
from service.head_fitting import fit_gallery
from service.training_set import Staleness, label_names, staleness, training_set
from tests.heads.worlds import clusters, wardrobe
from tests.indexer.fakes import rows_of, unit_vectors
from tests.service.galleries import NAMES, fit, load, make_gallery, make_typed, reopen

VECTORS, VECTORS16 = unit_vectors(8, 4), unit_vectors(3, 16)


@pytest.fixture
def typed(tmp_path: Path) -> Gallery:
    """Sixty items of three types, and a head that was fitted on them."""
    gallery = make_typed(tmp_path / "gallery")
    fit(gallery, "knn")
    return gallery


def upsert(gallery: Gallery, number: int, name: str | None, embedding: np.ndarray) -> None:  # type: ignore[type-arg]
    """Adds an item, or gives it another photo."""
    items = [
        replace(gallery.items(np.array([0]))[0], item_id=f"i{number:05}", labels={"type": (name,)} if name else {})
    ]
    gallery.store.upsert(rows_of(embedding[None], items))


def stale(gallery: Gallery) -> Staleness:
    return staleness(load(gallery, "knn"), reopen(gallery))


def test_rows_labels_keys_and_products_belong_together(tmp_path: Path) -> None:
    names = ["dress", None, "NA", "dress", "rare", "NA", (), "dress"]
    products = ["A", "B", "", "A", "C", "", "C", "i00002"]
    gallery = make_gallery(tmp_path / "gallery", VECTORS, names, product_id=lambda number: products[number])
    training = training_set(gallery, "type")
    # The items with a label that two have or more, by what they are.
    kept = [0, 2, 3, 5, 7]
    order = [gallery.items(np.array([row]))[0].item_id for row in gallery.rows_of_keys(training.keys)]
    assert sorted(order) == [f"i{number:05}" for number in kept]
    numbers = [int(item_id[1:]) for item_id in order]
    np.testing.assert_array_equal(training.embeddings, VECTORS[numbers])
    assert training.keys.tolist() == [vector_key(item_id, VECTORS[int(item_id[1:])]) for item_id in order]
    assert [training.labels.names[label] for label in training.labels.y] == [names[number] for number in numbers]
    # Items without a product are each their own, even where a product is called as one of them.
    group = dict(zip(numbers, training.groups, strict=True))
    assert group[0] == group[3]
    assert len({*group.values()}) == 4
    assert (training.labels.names, training.labels.rare, training.labels.unlabelled) == (
        ("NA", "dress"),
        {"rare": 1},
        2,
    )
    assert (training.encoder, training.encoder_fingerprint) == (gallery.card.name, gallery.card.fingerprint)
    assert training.gallery_version == gallery.snapshot.version


def test_items_of_the_split_test_do_not_teach(tmp_path: Path) -> None:
    splits = ["train", "test", None, "test", "validation", "Test", "test", "train"]
    names = ["dress", "dress", "skirt", "skirt", "dress", "skirt", "only in test", "skirt"]
    gallery = make_gallery(tmp_path / "gallery", VECTORS, names, split=lambda number: splits[number])
    training = training_set(gallery, "type", min_count=1)
    np.testing.assert_array_equal(np.sort(gallery.rows_of_keys(training.keys)), [0, 2, 4, 5, 7])
    assert training.labels.names == ("dress", "skirt")
    assert training.labels.rare == {}
    # Where only tests have a second label, there is nothing to learn.
    with pytest.raises(
        HeadError, match="target 'type' needs two labels or more with 3 photos each; 5 items have skirt"
    ):
        training_set(gallery, "type", min_count=3)


def test_na_is_a_label_and_empty_is_none(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path / "gallery", VECTORS, ["NA", "NA", None, (), "dress", "dress", "NA", None])
    assert label_names(gallery, "type") == [("NA",), ("NA",), (), (), ("dress",), ("dress",), ("NA",), ()]
    training = training_set(gallery, "type")
    assert training.labels.names == ("NA", "dress")
    assert np.bincount(training.labels.y).tolist() == [3, 2]
    assert training.labels.unlabelled == 3


def test_an_item_may_have_several_labels(tmp_path: Path) -> None:
    names = [("red",), ("blue", "red"), ("red", "red"), (), ("blue",), ("white", "blue"), ("white",), ("red",)]
    training = training_set(make_gallery(tmp_path / "gallery", VECTORS, names), "type")
    assert training.labels.multi_label
    assert training.labels.names == ("blue", "red", "white")
    rows = [[0, 1, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 1, 0]]
    np.testing.assert_array_equal(training.labels.y, np.array(rows, bool))


def test_a_target_that_there_is_not(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path / "gallery", VECTORS, ["dress", "skirt"] * 4)
    with pytest.raises(FilterError, match=r"The gallery has no target 'typ'; did you mean type\?"):
        training_set(gallery, "typ")
    with pytest.raises(FilterError, match=r"no target 'season'; it has type\."):
        training_set(gallery, "season")
    bare = make_gallery(tmp_path / "bare", VECTORS, [None] * 8)
    with pytest.raises(FilterError, match=r"no target 'type'; it has none\."):
        training_set(bare, "type")


def test_a_gallery_that_has_not_changed_is_fresh(typed: Gallery) -> None:
    now = stale(typed)
    assert now == Staleness(0, 0, 0, 0)
    assert not now.is_stale
    assert str(now) == "fresh"


def test_compaction_changes_nothing_to_learn(typed: Gallery) -> None:
    """It makes a version of its own, whose rows have the keys that they had."""
    for number in range(0, 60, 10):
        (name,) = typed.item(f"i{number:05}").labels["type"]
        upsert(typed, number, name, typed.embedding_of(f"i{number:05}"))
    fit(reopen(typed), "knn")
    compact(typed.folder)
    now = stale(typed)
    assert now.versions > 0
    assert (now.added, now.removed, now.relabelled, now.is_stale, str(now)) == (0, 0, 0, False, "fresh")


def test_what_was_added_removed_and_relabelled_is_counted(typed: Gallery) -> None:
    upsert(typed, 100, "dress", VECTORS16[0])
    upsert(typed, 101, None, VECTORS16[1])
    assert stale(typed) == Staleness(2, 1, 0, 0)
    delete_items(typed.folder, ["i00003", "i00004"])
    assert stale(typed) == Staleness(3, 1, 2, 0)
    before = load(typed, "knn").card.labels
    other = {"NA": "dress", "dress": "skirt", "skirt": "NA"}
    for number in (10, 11, 12):
        (name,) = reopen(typed).item(f"i{number:05}").labels["type"]
        relabel_item(typed.folder, f"i{number:05}", {"type": (other[name],)})
    now = stale(typed)
    assert now == Staleness(6, 1, 2, 3)
    assert now.is_stale
    assert str(now) == "stale by 6 versions: 1 added, 2 removed, 3 relabelled"
    assert before == NAMES
    # Fitting again makes it fresh.
    fit(reopen(typed), "knn")
    assert str(stale(typed)) == "fresh"


def test_a_relabelling_undone_is_none(typed: Gallery) -> None:
    (name,) = typed.item("i00010").labels["type"]
    relabel_item(typed.folder, "i00010", {"type": ("dress" if name != "dress" else "skirt",)})
    assert str(stale(typed)) == "stale by 1 version: 1 relabelled"
    relabel_item(typed.folder, "i00010", {"type": (name,)})
    assert stale(typed) == Staleness(2, 0, 0, 0)
    assert not stale(typed).is_stale


def test_a_label_taken_away_or_given_is_an_item_removed_or_added(typed: Gallery) -> None:
    relabel_item(typed.folder, "i00010", {"type": ()})
    assert stale(typed) == Staleness(1, 0, 1, 0)
    fit(reopen(typed), "knn")
    relabel_item(typed.folder, "i00010", {"type": ("dress",)})
    assert stale(typed) == Staleness(1, 1, 0, 0)


def test_a_new_photo_of_an_item_is_one_removed_and_one_added(typed: Gallery) -> None:
    upsert(typed, 7, typed.item("i00007").labels["type"][0], VECTORS16[2])
    assert stale(typed) == Staleness(1, 1, 1, 0)


def test_other_targets_and_products_do_not_matter(typed: Gallery) -> None:
    relabel_item(typed.folder, "i00010", {"colour": ("red",)}, new_targets=True)
    assert stale(typed) == Staleness(1, 0, 0, 0)


def test_items_of_the_split_test_are_not_missed(tmp_path: Path) -> None:
    splits = dict.fromkeys(range(10), "test")
    gallery = make_typed(tmp_path / "gallery", split=splits.get)
    fit(gallery, "knn")
    delete_items(gallery.folder, ["i00000", "i00001"])
    assert stale(gallery) == Staleness(1, 0, 0, 0)
    delete_items(gallery.folder, ["i00010"])
    assert stale(gallery) == Staleness(2, 0, 1, 0)


def test_a_label_that_becomes_frequent_enough_brings_its_items(tmp_path: Path) -> None:
    embeddings, numbers = clusters(41, labels=2)
    names = [("dress", "skirt")[number] for number in numbers]
    names[20] = "shawl"
    gallery = make_gallery(tmp_path / "gallery", embeddings, names)
    assert fit(gallery, "knn")["knn"].card.rare == {"shawl": 1}
    relabel_item(gallery.folder, "i00021", {"type": ("shawl",)})
    # The one that was rare is new, the other one has another label.
    assert stale(gallery) == Staleness(1, 1, 0, 1)
    assert fit(reopen(gallery), "knn")["knn"].card.labels == ("dress", "shawl", "skirt")
    # And back: both are too rare again.
    relabel_item(gallery.folder, "i00021", {"type": ("dress",)})
    assert stale(gallery) == Staleness(1, 0, 1, 1)


def test_the_head_s_own_least_count_decides(tmp_path: Path) -> None:
    embeddings, numbers = clusters(40, labels=2)
    names = [("dress", "skirt")[number] for number in numbers]
    names[:3] = ["shawl"] * 3
    gallery = make_gallery(tmp_path / "gallery", embeddings, names)
    [[refit]] = fit_gallery(gallery, ["type"], FitOptions(kinds=["knn"]), min_count=5)
    assert (refit.card.rare, refit.card.min_count) == ({"shawl": 3}, 5)
    relabel_item(gallery.folder, "i00000", {"colour": ("red",)}, new_targets=True)
    assert stale(gallery) == Staleness(1, 0, 0, 0)


def test_one_of_several_labels_changed_is_a_relabelling(tmp_path: Path) -> None:
    embeddings, has = wardrobe(60)
    names = [tuple(np.array(["red", "green", "blue"])[row]) for row in has]
    gallery = make_gallery(tmp_path / "gallery", embeddings, names)
    fit(gallery, "knn")
    several = next(number for number, labels in enumerate(names) if len(labels) > 1)
    # Their order is of no account.
    relabel_item(gallery.folder, f"i{several:05}", {"type": names[several][::-1]})
    assert stale(gallery) == Staleness(1, 0, 0, 0)
    relabel_item(gallery.folder, f"i{several:05}", {"type": names[several][1:]})
    assert stale(gallery) == Staleness(2, 0, 0, 1)


def test_a_gallery_without_the_target_leaves_nothing(typed: Gallery) -> None:
    """The head still answers; it is only that nothing could be fitted now."""
    items = typed.items(np.arange(60))
    delete_items(typed.folder, [item.item_id for item in items if item.labels["type"] != ("dress",)])
    assert len(reopen(typed)) == 20
    # One label is nothing to tell apart, none at all no target.
    assert stale(typed) == Staleness(1, 0, 60, 0)
    delete_items(typed.folder, [item.item_id for item in items if item.labels["type"] == ("dress",)])
    assert stale(typed) == Staleness(2, 0, 60, 0)
