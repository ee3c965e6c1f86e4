"""The gallery: neighbours of a query under every option, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from data.catalog import Box, CatalogItem
from indexer.failures import Failure
from indexer.faiss_index import FAISS_FOLDER, FaissIndex
from indexer.filters import FilterError
from indexer.gallery import Gallery, Neighbour
from indexer.searcher import QueryError
from indexer.snapshot import GalleryNotFoundError
from indexer.store import Store
from tests.indexer.fakes import make_store, rows_of, unit, unit_vectors, write_failures

# Eight items on a quarter circle, 10 degrees apart: item n is at n * 10 degrees, and distances are 1 - cos.
ANGLES = np.radians(np.arange(8) * 10)
VECTORS = unit(np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1))
BOX = Box(0.1, 0.2, 0.30000000000000004, 0.4)
ITEMS = [
    CatalogItem("a0", Path("/photos/a0.jpg"), "A", {"colour": ("red",), "type": ("dress",)}, BOX, "train"),
    CatalogItem("a1", Path("/photos/a1.jpg"), "A", {"colour": ("red", "blue")}),
    CatalogItem("a2", Path("/photos/a2.jpg"), "A", {"colour": ("blue",)}),
    CatalogItem("b3", b"the bytes of a photo", "B", {"colour": ("red",), "type": ("shirt",)}, split="test"),
    CatalogItem("n4", Path("/photos/n4.jpg"), None, {"colour": ("blue",)}),
    CatalogItem("n5", Path("/photos/n5.jpg"), None, {}),
    CatalogItem("c6", Path("/photos/ü c6.jpg"), "C", {"colour": ("navy, dark",), "type": ("dress",)}),
    CatalogItem("b7", Path("/photos/b7.jpg"), "B", {"colour": ("red",)}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("gallery") / "shoes", VECTORS, ITEMS, commit=3).folder


@pytest.fixture
def gallery(folder: Path) -> Gallery:
    return Gallery(folder)


def ids(neighbours: list[Neighbour]) -> list[str]:
    return [neighbour.item.item_id for neighbour in neighbours]


def test_neighbours_come_closest_first_with_their_records(gallery: Gallery) -> None:
    found = gallery.neighbours(VECTORS[0], 4)
    assert [neighbour.item for neighbour in found] == ITEMS[:4]
    assert isinstance(found[0].item.image, Path)
    # cos 0, 10, 20 and 30 degrees.
    np.testing.assert_allclose([one.distance for one in found], [0, 0.0151922, 0.0603074, 0.1339746], atol=1e-6)
    np.testing.assert_allclose([one.similarity for one in found], [1, 0.9848078, 0.9396926, 0.8660254], atol=1e-6)
    assert {type(one.distance) for one in found} == {float}


def test_records_come_back_as_they_were(gallery: Gallery) -> None:
    """Box digits, photos as bytes, several labels, no labels, no product, odd characters."""
    for one in ITEMS:
        assert gallery.item(one.item_id) == one
    assert gallery.item("a0").box == BOX


def test_more_than_there_are(gallery: Gallery) -> None:
    assert ids(gallery.neighbours(VECTORS[7], 99)) == ["b7", "c6", "n5", "n4", "b3", "a2", "a1", "a0"]


def test_one_of_each_product(gallery: Gallery) -> None:
    """The closest of A, B and C; items without a product are each their own."""
    found = gallery.neighbours(VECTORS[0], 5, group_by_product=True)
    assert ids(found) == ["a0", "b3", "n4", "n5", "c6"]
    assert ids(gallery.neighbours(VECTORS[0], 2, group_by_product=True)) == ["a0", "b3"]
    assert ids(gallery.neighbours(VECTORS[0], 9, group_by_product=True)) == ["a0", "b3", "n4", "n5", "c6"]


def test_many_photos_of_one_product_do_not_hide_the_others(tmp_path: Path) -> None:
    """300 photos of one product stand before the next: the search goes on until k products are there."""
    vectors = np.concatenate([np.repeat(VECTORS[:1], 300, axis=0), VECTORS[1:]])
    items = [CatalogItem(f"x{number}", Path("x.jpg"), "X") for number in range(300)] + ITEMS[1:]
    gallery = Gallery(make_store(tmp_path / "gallery", vectors, items).folder)
    assert ids(gallery.neighbours(VECTORS[0], 3, group_by_product=True)) == ["x0", "a1", "b3"]


def test_only_records_that_are_shown_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for a second product goes through all 300 rows, whose records would take seconds in a large gallery."""
    items = [CatalogItem(f"x{number}", Path("x.jpg"), "X") for number in range(300)]
    gallery = Gallery(make_store(tmp_path / "gallery", unit_vectors(300, 2), items).folder)
    read = []
    items_of = gallery.items
    monkeypatch.setattr(gallery, "items", lambda rows: read.extend(rows) or items_of(rows))
    assert len(gallery.neighbours(VECTORS[0], 2, group_by_product=True, exclude="x0")) == 1
    assert len(read) == 1


def test_the_excluded_item_makes_room_for_another(gallery: Gallery) -> None:
    assert ids(gallery.neighbours(VECTORS[0], 3, exclude="a1")) == ["a0", "a2", "b3"]
    assert ids(gallery.neighbours(VECTORS[0], 8, exclude="b7")) == ["a0", "a1", "a2", "b3", "n4", "n5", "c6"]
    assert ids(gallery.neighbours(VECTORS[0], 2, exclude="unknown")) == ["a0", "a1"]
    # An excluded photo does not stand for its product either.
    assert ids(gallery.neighbours(VECTORS[0], 2, exclude="a0", group_by_product=True)) == ["a1", "b3"]


def test_only_as_far_as_wanted(gallery: Gallery) -> None:
    # 25 degrees: 1 - cos 25 = 0.0937.
    assert ids(gallery.neighbours(VECTORS[0], 8, max_distance=0.0937)) == ["a0", "a1", "a2"]
    assert ids(gallery.neighbours(VECTORS[0], 2, max_distance=0.0937)) == ["a0", "a1"]
    assert ids(gallery.neighbours(-VECTORS[0], 8, max_distance=0.5)) == []
    assert len(gallery.neighbours(-VECTORS[0], 8, max_distance=2)) == 8
    assert ids(gallery.neighbours(VECTORS[0], 8, max_distance=0.0937, group_by_product=True)) == ["a0"]


@pytest.mark.parametrize("distance", [-0.1, 2.1, float("nan"), float("inf")])
def test_a_distance_that_cannot_be_is_refused(gallery: Gallery, distance: float) -> None:
    with pytest.raises(QueryError, match=r"A distance is 1 - cosine, 0\.\.2; got a largest distance of"):
        gallery.neighbours(VECTORS[0], max_distance=distance)


def test_labels_choose_who_competes(gallery: Gallery) -> None:
    for _ in range(2):  # The second answer comes from the prepared filter.
        assert ids(gallery.neighbours(VECTORS[7], 2, where={"colour": ("red",)})) == ["b7", "b3"]
        assert ids(gallery.neighbours(VECTORS[7], 9, where={"colour": ("red",)})) == ["b7", "b3", "a1", "a0"]
        both = {"colour": ("red", "navy, dark"), "type": ("dress",)}
        assert ids(gallery.neighbours(VECTORS[0], 9, where=both)) == ["a0", "c6"]
    assert ids(gallery.neighbours(VECTORS[0], 9, where={"split": ("test",)})) == ["b3"]
    assert ids(gallery.neighbours(VECTORS[0], 9, where={"split": ("train",), "colour": ("blue",)})) == []
    assert len(gallery.neighbours(VECTORS[0], 9, where={})) == 8
    found = gallery.neighbours(VECTORS[0], 9, where={"colour": ("red",)}, exclude="a0", group_by_product=True)
    assert ids(found) == ["a1", "b3"]


def test_more_filters_than_are_kept_prepared_stay_right(tmp_path: Path) -> None:
    items = [CatalogItem(f"i{number}", Path("x.jpg"), None, {"n": (f"{number}",)}) for number in range(80)]
    gallery = Gallery(make_store(tmp_path / "gallery", unit_vectors(80, 4), items).folder)
    for _ in range(2):
        for number in range(80):
            assert ids(gallery.neighbours(unit_vectors(1, 4)[0], where={"n": (f"{number}",)})) == [f"i{number}"]


def test_an_unknown_label_is_refused(gallery: Gallery) -> None:
    with pytest.raises(FilterError, match=r"has colour=rde; did you mean red\?"):
        gallery.neighbours(VECTORS[0], where={"colour": ("rde",)})


def test_neighbours_of_an_item_leave_it_out(gallery: Gallery) -> None:
    assert ids(gallery.neighbours_of("a1", 2)) == ["a0", "a2"]
    assert ids(gallery.neighbours_of("b3", 9)) == ["a2", "n4", "a1", "n5", "a0", "c6", "b7"]
    assert ids(gallery.neighbours_of("b3", 2, where={"colour": ("red",)})) == ["a1", "a0"]
    np.testing.assert_array_equal(gallery.embedding_of("n5"), VECTORS[5])


def test_an_unknown_item_is_refused(gallery: Gallery) -> None:
    for ask in (gallery.neighbours_of, gallery.embedding_of, gallery.item):
        with pytest.raises(QueryError, match=r"Gallery .*shoes has no item 'A0'\."):
            ask("A0")
    assert gallery.rows_of(["n4", "A0", "a0", "n4"]).tolist() == [4, -1, 0, 4]
    assert gallery.rows_of([]).tolist() == []


@pytest.mark.parametrize("k", [0, -1])
def test_no_neighbours_wanted_is_refused(gallery: Gallery, k: int) -> None:
    with pytest.raises(QueryError, match=f"1 or more; got {k}"):
        gallery.neighbours(VECTORS[0], k)
    with pytest.raises(QueryError, match=f"1 or more; got {k}"):
        gallery.neighbours_of("a0", k)


def test_a_query_of_another_encoder_is_refused(gallery: Gallery) -> None:
    with pytest.raises(QueryError, match=r"holds 2-number embeddings \(fake-histogram\); the query has shape \(1, 3\)"):
        gallery.neighbours(unit_vectors(1, 3)[0])


def test_an_empty_gallery(tmp_path: Path) -> None:
    gallery = Gallery(make_store(tmp_path / "gallery", VECTORS[:0]).folder)
    assert len(gallery) == 0
    assert gallery.neighbours(VECTORS[0], 3) == []
    assert (gallery.stats()["items"], gallery.stats()["targets"]) == (0, {})
    with pytest.raises(QueryError, match=r"has no item 'a0'"):
        gallery.neighbours_of("a0")


def test_no_gallery(tmp_path: Path) -> None:
    with pytest.raises(GalleryNotFoundError, match=r"is no gallery: it has no items.lance\. Make one with `modiste"):
        Gallery(tmp_path)


def test_the_statistics(tmp_path: Path) -> None:
    store = make_store(tmp_path / "gallery", VECTORS, ITEMS)
    write_failures(store.folder, [Failure("x.jpg", "bad")])
    stats = Gallery(store.folder).stats()
    assert stats == {
        "gallery": str(store.folder),
        "version": store.version,
        "items": 8,
        # A, B, C, and two items that are products of their own.
        "products": 5,
        "failures": 1,
        "encoder": "fake-histogram",
        "encoder_card": asdict(store.card),
        "variant": "exact",
        "index": None,
        "bytes_on_disk": sum(path.stat().st_size for path in store.folder.rglob("*") if path.is_file()),
        "targets": {
            "colour": {"red": 4, "blue": 3, "navy, dark": 1},
            "split": {"test": 1, "train": 1},
            "type": {"dress": 2, "shirt": 1},
        },
    }
    assert json.loads(json.dumps(stats))["targets"] == stats["targets"]
    FaissIndex.build(store.snapshot(), "hnsw").save(store.folder / FAISS_FOLDER)
    gallery = Gallery(store.folder)
    stats = gallery.stats()
    assert (stats["variant"], stats["index"]["variant"], stats["index"]["rows"]) == ("hnsw", "hnsw", 8)
    assert gallery.searcher.variant == "hnsw"
    assert ids(gallery.neighbours(VECTORS[7], 2, where={"colour": ("red",)})) == ["b7", "b3"]


def test_an_open_gallery_holds_still(tmp_path: Path) -> None:
    """What was opened answers from its version; opening again sees what came."""
    store = make_store(tmp_path / "gallery", VECTORS, ITEMS)
    gallery = Gallery(store.folder)
    moved = [CatalogItem(one.item_id, Path("/moved.jpg")) for one in ITEMS[:4]]
    Store(store.folder, freshness_s=0).upsert(rows_of(VECTORS[4:], moved))
    assert gallery.neighbours(VECTORS[0], 1)[0].item == ITEMS[0]
    assert gallery.labels.counts()["colour"]["red"] == 4
    fresh = Gallery(store.folder).neighbours(VECTORS[4], 2)
    assert {neighbour.item.item_id for neighbour in fresh} == {"n4", "a0"}
