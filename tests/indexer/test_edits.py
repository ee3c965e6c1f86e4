"""Edits: what is set by hand is there at once and outlasts the catalog, and a mistake changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.catalog import Box, CatalogItem
from data.images import read_pixels
from indexer.edits import EditError, add_photos, delete_items, forget_corrections, parse_labels, relabel_item
from indexer.encoders import EncoderError
from indexer.failures import Failure
from indexer.filters import FilterError
from indexer.gallery import Gallery
from indexer.snapshot import GalleryLockedError, GalleryNotFoundError, StoreError
from indexer.store import Store, writing
from tests.indexer.fakes import CARD, FakeEncoder, card_of, draw_photo, histogram, make_store, unit_vectors
from tests.indexer.world import World, check_gallery, counts, make_world, path_of

ODD_IDS = ["it's", 'say "no"', "'; DROP TABLE items; --", "träger/服", "%_", "a\\b"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Six indexed photos: i1, i3 and i5 are red, i2 has a box; a fresh encoder."""
    world = make_world(tmp_path)
    world.run()
    world.encoder = FakeEncoder()
    return world


def labels_of(world: World, item_id: str) -> dict[str, tuple[str, ...]]:
    return dict(Gallery(world.gallery).item(item_id).labels)


def add(world: World, *items: CatalogItem, new_targets: bool = False) -> tuple[dict[str, int], list[Failure]]:
    summary, failures = add_photos(items, world.gallery, world.encoder.lazy, new_targets=new_targets)
    assert (summary.absent, summary.pruned) == (0, 0)
    return counts(summary), failures


def new_photo(world: World, item_id: str = "new", **fields: object) -> CatalogItem:
    return CatalogItem(item_id, draw_photo(world.folder / "more" / "new.png", 70), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("assignments", "labels"),
    [
        (["colour=red"], {"colour": ("red",)}),
        (["colour=red|dark blue"], {"colour": ("red", "dark blue")}),
        (["colour=red", "colour=blue"], {"colour": ("red", "blue")}),
        (["colour=red", "colour=red|blue"], {"colour": ("red", "blue")}),
        (["colour=red,type=shirt"], {"colour": ("red",), "type": ("shirt",)}),
        ([r"colour=red\, dark\|light"], {"colour": ("red, dark|light",)}),
        (["colour="], {"colour": ()}),
        ([" colour = "], {"colour": ()}),
        (["size=", "size=XL"], {"size": ("XL",)}),
        (["note=a=b"], {"note": ("a=b",)}),
        ([], {}),
    ],
)
def test_labels_are_read_as_filters_are(assignments: list[str], labels: dict[str, tuple[str, ...]]) -> None:
    assert parse_labels(assignments) == labels


@pytest.mark.parametrize("text", ["colour", "", "=red", "=", "colour=red|", "colour=red,", "colour=red,colour=blue"])
def test_labels_that_cannot_be_read(text: str) -> None:
    with pytest.raises(FilterError, match=r"A filter is target=label|names 'colour' twice"):
        parse_labels([text])


def test_a_photo_is_added_to_a_gallery_and_the_catalog_leaves_it(world: World) -> None:
    new = new_photo(world, product_id="p9", labels={"colour": ("blue", "navy")}, box=Box(0, 0, 0.5, 1))
    assert add(world, new) == ({"added": 1}, [])
    check_gallery(world, [*world.items, new])
    assert add(world, new) == ({"unchanged": 1}, [])
    assert (world.encoder.encoded, world.encoder.loads) == (1, 1)
    summary = world.run()
    assert (counts(summary), summary.absent) == ({"unchanged": 6}, 1)
    check_gallery(world, [*world.items, new])


def test_a_first_photo_makes_a_gallery(tmp_path: Path) -> None:
    world = World(tmp_path, [], FakeEncoder())
    assert add(world, new_photo(world, labels={"colour": ("red",)}))[0] == {"added": 1}
    assert labels_of(world, "new") == {"colour": ("red",)}


def test_an_item_that_is_there_gets_labels_and_keeps_the_rest(world: World) -> None:
    """i2 has a box, i3 is red of product p1."""
    for number, box in ((2, None), (3, Box(0, 0, 1, 0.5))):
        known = world.items[number]
        again = CatalogItem(known.item_id, known.image, labels={"size": ("XL",)}, box=box)
        assert add(world, again, new_targets=True) == ({"relabelled": 1}, [])
        expected = replace(known, labels={**known.labels, "size": ("XL",)}, source_row=None)
        assert Gallery(world.gallery).item(known.item_id) == expected
    # One label of a target takes the place of another; a product too.
    add(world, replace(world.items[3], product_id="q", labels={"colour": ("blue",)}))
    item = Gallery(world.gallery).item("i3")
    assert (item.product_id, item.labels) == ("q", {"colour": ("blue",), "size": ("XL",)})
    assert world.encoder.loads == 0
    # They are no corrections: the catalog's next run takes its own.
    assert counts(world.run()) == {"relabelled": 2, "unchanged": 4}
    check_gallery(world)


def test_an_item_whose_photo_changed_is_encoded_anew(world: World) -> None:
    draw_photo(path_of(world.items[0]), 80)
    assert add(world, world.items[0]) == ({"changed": 1}, [])
    check_gallery(world)


def test_photos_that_cannot_be_taken_in_are_told_and_the_list_of_the_last_run_stays(world: World) -> None:
    world.rows.append(CatalogItem("gone", world.folder / "gone.png"))
    world.run()
    listed = world.failures()
    assert [failure.item_id for failure in listed] == ["gone"]
    text = world.folder / "text.png"
    text.write_text("no photo")
    done, failures = add(world, CatalogItem("text", text), new_photo(world))
    assert done == {"added": 1, "failed": 1}
    assert [(failure.item_id, failure.source) for failure in failures] == [("text", str(text))]
    assert world.failures() == listed


def refused(world: World, message: str, *items: CatalogItem, new_targets: bool = False) -> None:
    """Adding these is refused and changes nothing."""
    before = world.snapshot().version
    with pytest.raises(EditError, match=message):
        add(world, *items, new_targets=new_targets)
    assert (world.snapshot().version, world.encoder.loads) == (before, 0)


def test_an_id_that_another_photo_has(world: World) -> None:
    place = path_of(world.items[1])
    message = rf"has an item 'i1' already, which is {place}; nothing was added\. Give .* another --item-id"
    refused(world, message, new_photo(world, "fine"), replace(new_photo(world), item_id="i1"))


def test_an_id_that_a_photo_without_a_file_has(world: World) -> None:
    add(world, CatalogItem("bytes", path_of(world.items[0]).read_bytes()))
    world.encoder = FakeEncoder()
    refused(world, "'bytes' already, which is a photo without a file", new_photo(world, "bytes"))


def test_two_photos_of_one_name(world: World) -> None:
    refused(world, r"Two photos would both be item 'new'\. Add them one by one", new_photo(world), new_photo(world))
    with pytest.raises(EditError, match="both be item 'new'"):
        add_photos([new_photo(world)] * 2, world.folder / "other", world.encoder.lazy)
    assert not (world.folder / "other" / "items.lance").exists()


def test_a_target_that_was_set_by_hand_is_not_overwritten(world: World) -> None:
    relabel_item(world.gallery, "i1", {"colour": ("teal",)})
    again = replace(world.items[1], labels={"colour": ("red",)})
    refused(world, r"The colour of item 'i1' was set by hand; change it with `modiste relabel`\. Nothing", again)
    # Another target is free.
    assert add(world, replace(again, labels={"size": ("XL",)}), new_targets=True)[0] == {"relabelled": 1}
    assert labels_of(world, "i1") == {"colour": ("teal",), "size": ("XL",)}


def test_an_unknown_target_is_asked_about(world: World) -> None:
    message = r"no target 'color'; did you mean colour\? Pass --new-target to begin one\."
    refused(world, message, new_photo(world, labels={"color": ("red",)}))
    with pytest.raises(EditError, match=message):
        relabel_item(world.gallery, "i1", {"color": ("red",)})
    with pytest.raises(EditError, match=message):
        relabel_item(world.gallery, "i1", {"color": ()})
    assert add(world, new_photo(world, labels={"color": ("red",)}), new_targets=True)[0] == {"added": 1}
    assert relabel_item(world.gallery, "i1", {"color": ("blue",)}).labels["color"] == ("blue",)


@pytest.mark.parametrize("split", [None, "train"])
def test_a_gallery_without_labels_has_no_target_to_misspell(tmp_path: Path, split: str | None) -> None:
    store = make_store(tmp_path / "gallery", unit_vectors(1, CARD.dimension))
    world = World(tmp_path, [], FakeEncoder())
    assert add(world, new_photo(world, "first", split=split))[0] == {"added": 1}
    other = CatalogItem("second", draw_photo(tmp_path / "second.png", 71), labels={"colour": ("red",)})
    assert add(world, other)[0] == {"added": 1}
    assert len(store.snapshot()) == 3


def test_the_split_is_no_label(world: World) -> None:
    message = "'split' is where the catalog puts an item, not a label; change it in the catalog."
    refused(world, message, new_photo(world, labels={"split": ("train",)}), new_targets=True)
    for new_targets in (False, True):
        with pytest.raises(EditError, match=message):
            relabel_item(world.gallery, "i1", {"split": ("train",)}, new_targets=new_targets)


def test_another_encoder_is_refused(world: World) -> None:
    other = FakeEncoder(replace(CARD, precision="bf16"))
    with pytest.raises(EncoderError, match="precision"):
        add_photos([new_photo(world)], world.gallery, other.lazy)
    assert len(world.snapshot()) == 6


def test_labels_are_set_added_to_and_taken_away(world: World) -> None:
    before = world.snapshot()
    known = replace(world.items[3], source_row=None)
    item = relabel_item(world.gallery, "i3", {"size": ("XL", "one size"), "colour": ()}, new_targets=True)
    assert item == replace(known, labels={"size": ("XL", "one size")}) == Gallery(world.gallery).item("i3")
    item = relabel_item(world.gallery, "i3", {"colour": ("blue", "navy")})
    assert item.labels == {"size": ("XL", "one size"), "colour": ("blue", "navy")}
    gallery = Gallery(world.gallery)
    assert {one.item.item_id for one in gallery.neighbours_of("i0", where={"colour": ("navy",)})} == {"i3"}
    # Neither the photo nor any other item is touched.
    columns = ("item_id", "content_hash", "file_mtime_ns", "vector_key", "metadata_key")
    stored = [sorted(map(str, one.columns(*columns).to_pylist())) for one in (before, gallery.snapshot)]
    assert stored[0] == stored[1]
    assert world.encoder.loads == 0


def test_a_label_that_the_item_has_already_is_set_by_hand_too(world: World) -> None:
    relabel_item(world.gallery, "i3", {"colour": ("red",)})
    world.change(3, labels={"colour": ("blue",)})
    world.run()
    assert labels_of(world, "i3") == {"colour": ("red",)}


def change_record(world: World) -> None:
    world.change(3, labels={"colour": ("catalog",), "size": ("S",)}, product_id="other")


def change_photo(world: World) -> None:
    draw_photo(path_of(world.items[3]), 90)


def change_both(world: World) -> None:
    change_record(world)
    change_photo(world)


def touch(world: World) -> None:
    os.utime(path_of(world.items[3]), (10**9, 10**9))


def change_box(world: World) -> None:
    world.change(3, box=Box(0, 0, 1, 0.5))


@pytest.mark.parametrize("rehash", [False, True])
@pytest.mark.parametrize("change", [change_record, change_photo, change_both, touch, change_box])
def test_what_was_set_by_hand_outlasts_the_catalog(world: World, change: Callable[[World], None], rehash: bool) -> None:
    relabel_item(world.gallery, "i3", {"colour": ("by", "hand"), "type": ()}, new_targets=True)
    change(world)
    for _ in range(2):
        world.run(rehash=rehash)
        item, own = Gallery(world.gallery).item("i3"), world.items[3]
        assert item.labels == {**own.labels, "colour": ("by", "hand")}
        assert (item.product_id, item.box) == (own.product_id, own.box)
        expected = histogram(read_pixels(path_of(own), CARD.image_size, box=own.box))
        np.testing.assert_array_equal(Gallery(world.gallery).embedding_of("i3"), expected)
    assert counts(world.run(rehash=rehash)) == {"unchanged": 6}


def test_labels_taken_away_by_hand_stay_away(world: World) -> None:
    relabel_item(world.gallery, "i3", {"colour": ()})
    change_both(world)
    world.run(rehash=True)
    assert labels_of(world, "i3") == {"size": ("S",)}


@pytest.mark.parametrize("labels", [{"colour": tuple(map(str, range(1001)))}, {str(n): () for n in range(1001)}])
def test_more_labels_than_an_item_has(world: World, labels: dict[str, tuple[str, ...]]) -> None:
    """Whoever got such an item as a neighbour would get a megabyte of labels."""
    with pytest.raises(EditError, match=r"An item has at most 1,000 labels; got 1,001\."):
        relabel_item(world.gallery, "a", labels, new_targets=True)


def test_what_was_set_by_hand_is_forgotten_when_told(world: World) -> None:
    relabel_item(world.gallery, "i3", {"colour": ("teal",)})
    change_record(world)
    world.run()
    before = forget_corrections(world.gallery, "i3")
    assert before.labels == labels_of(world, "i3") == {"colour": ("teal",), "size": ("S",)}
    # Also where the catalog's record and photo are as they were.
    assert counts(world.run()) == {"relabelled": 1, "unchanged": 5}
    check_gallery(world)
    assert counts(world.run()) == {"unchanged": 6}
    assert world.encoder.loads == 0


def test_forgetting_where_nothing_was_set(world: World) -> None:
    assert forget_corrections(world.gallery, "i1") == replace(world.items[1], source_row=None)
    assert counts(world.run()) == {"relabelled": 1, "unchanged": 5}


def test_an_added_item_can_be_corrected_and_added_again(world: World) -> None:
    """No catalog brings its labels back."""
    new = new_photo(world, labels={"colour": ("red",)})
    add(world, new)
    relabel_item(world.gallery, "new", {"colour": ("blue",)})
    forget_corrections(world.gallery, "new")
    world.run()
    assert labels_of(world, "new") == {"colour": ("blue",)}
    assert add(world, new)[0] == {"relabelled": 1}
    assert labels_of(world, "new") == {"colour": ("red",)}


def test_items_are_deleted_and_the_catalog_brings_them_back(world: World) -> None:
    assert delete_items(world.gallery, ["i1", "i4", "i1"]) == 4
    check_gallery(world, [item for item in world.items if item.item_id not in ("i1", "i4")])
    assert delete_items(world.gallery, []) == 4
    assert counts(world.run()) == {"added": 2, "unchanged": 4}
    check_gallery(world)
    assert delete_items(world.gallery, [item.item_id for item in world.items]) == 0
    assert len(world.snapshot()) == 0


def test_a_deleted_item_comes_back_without_what_was_set_by_hand(world: World) -> None:
    relabel_item(world.gallery, "i3", {"colour": ("teal",)})
    delete_items(world.gallery, ["i3"])
    world.run()
    check_gallery(world)


def test_items_that_are_not_there(world: World) -> None:
    before = world.snapshot().version
    with pytest.raises(EditError, match=r"has no item 'nobody'; nothing was deleted\."):
        delete_items(world.gallery, ["i1", "nobody"])
    with pytest.raises(EditError, match=r"has no item 'x' and 2 more of those given; nothing was deleted\."):
        delete_items(world.gallery, ["x", "i1", "y", "z"])
    for edit in (lambda: relabel_item(world.gallery, "x", {}), lambda: forget_corrections(world.gallery, "x")):
        with pytest.raises(EditError, match=r"has no item 'x'\."):
            edit()
    assert world.snapshot().version == before


@pytest.mark.parametrize("item_id", ODD_IDS)
def test_ids_that_mean_something_elsewhere(world: World, item_id: str) -> None:
    new = new_photo(world, item_id, labels={"colour": ('o\'red, "dark"',)})
    assert add(world, new)[0] == {"added": 1}
    item = relabel_item(world.gallery, item_id, {"it's a |target|": ("''",)}, new_targets=True)
    assert Gallery(world.gallery).item(item_id) == item
    assert item.labels == {**new.labels, "it's a |target|": ("''",)}
    forget_corrections(world.gallery, item_id)
    assert delete_items(world.gallery, [item_id]) == 6
    check_gallery(world)


def edits_of(folder: Path, encoder: FakeEncoder) -> list[Callable[[], object]]:
    return [
        lambda: relabel_item(folder, "i1", {"colour": ("blue",)}),
        lambda: forget_corrections(folder, "i1"),
        lambda: delete_items(folder, ["i1"]),
        lambda: add_photos([], folder, encoder.lazy),
    ]


def test_another_writer_is_said(world: World) -> None:
    with writing(world.gallery):
        for edit in edits_of(world.gallery, world.encoder):
            with pytest.raises(GalleryLockedError, match="Another process is writing"):
                edit()
    check_gallery(world)


def test_a_folder_that_is_no_gallery_is_left_as_it_is(world: World, tmp_path: Path) -> None:
    for edit in edits_of(tmp_path / "misspelt", world.encoder)[:3]:
        with pytest.raises(GalleryNotFoundError, match="is no gallery"):
            edit()
    assert not (tmp_path / "misspelt").exists()
    with pytest.raises(StoreError, match="is not empty and no gallery"):
        add_photos([new_photo(world)], tmp_path / "photos", world.encoder.lazy)
    assert not list((tmp_path / "photos").glob(".*"))


def test_an_edit_sees_what_another_process_committed(world: World) -> None:
    Store(world.gallery, freshness_s=0).delete(["i1"])
    with pytest.raises(EditError, match="has no item 'i1'"):
        relabel_item(world.gallery, "i1", {"colour": ("blue",)})


def test_a_gallery_of_another_dimension_can_be_edited_without_its_encoder(tmp_path: Path) -> None:
    store = make_store(tmp_path / "gallery", unit_vectors(3, 5))
    assert store.card == card_of(5)
    assert relabel_item(tmp_path / "gallery", "i00001", {"colour": ("red",)}, new_targets=True).labels
    assert delete_items(tmp_path / "gallery", ["i00000"]) == 2
    np.testing.assert_array_equal(Gallery(tmp_path / "gallery").embedding_of("i00001"), unit_vectors(3, 5)[1])
