"""Heads on trial: which photos they are asked about, what is true of those, and what stands beside each answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.catalog import BadRow, CatalogItem
from heads.checks import HeadError
from heads.fitted import FittedHead
from heads.metrics import UNKNOWN
from heads.novelty import NEAREST, REJECTED
from indexer.edits import delete_items, relabel_item
from indexer.gallery import Gallery
from indexer.rows import vector_key
from service import head_trial
from service.head_evaluation import evaluate_target
from service.head_trial import Queries, encode_queries, try_heads
from tests.heads.worlds import clusters
from tests.indexer.fakes import catalog_of
from tests.service.galleries import NAMES, encoder_of, fit, load, make_gallery, photo, reopen

# The first 60 teach; of the others, 20 are of the split test.
EMBEDDINGS, NUMBERS = clusters(80, labels=3)
TYPES = [NAMES[number] for number in NUMBERS]
QUERIES, TRUTH = clusters(30, labels=3, seed=1)


def is_test(row: int) -> str:
    return "test" if row >= 60 else "train"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """Sixty items that teach and twenty of the split test, with two heads."""
    opened = make_gallery(tmp_path_factory.mktemp("shop") / "gallery", EMBEDDINGS, TYPES, split=is_test)
    fit(opened, "knn", "linear")
    return opened


@pytest.fixture
def heads(gallery: Gallery) -> list[FittedHead]:
    return [load(gallery, kind) for kind in ("knn", "linear")]


def query(number: int, *names: str, **fields: Any) -> CatalogItem:
    return CatalogItem(f"q{number}", photo(number), labels={"type": names} if names else {}, **fields)


def encoded(gallery: Gallery, *rows: CatalogItem | BadRow, embeddings: Any = QUERIES) -> Queries:
    return encode_queries(gallery, catalog_of(rows), encoder_of(embeddings))


def test_queries_of_a_catalog_are_encoded(gallery: Gallery) -> None:
    bad = BadRow(Path("x.csv"), 3, "torn")
    broken = CatalogItem("q9", b"no photo", labels={"type": ("skirt",)})
    asked = encoded(gallery, query(2, "skirt"), bad, query(0), broken, query(1, "dress"))
    assert [item.item_id for item in asked.items] == ["q2", "q0", "q1"]
    assert asked.failed == 2
    np.testing.assert_array_equal(asked.embeddings, QUERIES[[2, 0, 1]])
    assert asked.keys.tolist() == [vector_key(f"q{number}", QUERIES[number]) for number in (2, 0, 1)]
    # Neighbours are the exact ones: the largest cosines with all 80 items.
    cosines = QUERIES[[2, 0, 1]] @ EMBEDDINGS.T
    np.testing.assert_array_equal(asked.found, np.argsort(-cosines, axis=1)[:, :NEAREST])
    np.testing.assert_allclose(asked.distances, 1 - np.sort(cosines, axis=1)[:, ::-1][:, :NEAREST], atol=1e-6)


def test_a_catalog_of_which_nothing_can_be_read(gallery: Gallery) -> None:
    with pytest.raises(HeadError, match="Heads are tried on photos; catalog has 2, and none can be read"):
        encoded(gallery, CatalogItem("q0", b"no photo"), BadRow(Path("x.csv"), 3, "torn"))
    with pytest.raises(HeadError, match="catalog has 0, and none can be read"):
        encoded(gallery)


def test_the_gallery_s_own_tests(gallery: Gallery) -> None:
    asked = head_trial.test_queries(gallery)
    assert [item.item_id for item in asked.items] == [f"i{row:05}" for row in range(60, 80)]
    assert asked.failed == 0
    np.testing.assert_array_equal(asked.embeddings, EMBEDDINGS[60:])
    # No test is the neighbour of another, or of itself.
    cosines = EMBEDDINGS[60:] @ EMBEDDINGS[:60].T
    np.testing.assert_array_equal(asked.found, np.argsort(-cosines, axis=1)[:, :NEAREST])
    np.testing.assert_allclose(asked.distances, 1 - np.sort(cosines, axis=1)[:, ::-1][:, :NEAREST], atol=1e-6)


def test_a_gallery_without_tests(tmp_path: Path) -> None:
    for name, split in (("without", lambda _: None), ("train", lambda _: "train")):
        gallery = make_gallery(tmp_path / name, EMBEDDINGS[:9], TYPES[:9], split=split)
        with pytest.raises(
            HeadError, match=r"has no items of the split 'test'. Give labelled photos .* --queries CATALOG"
        ):
            head_trial.test_queries(gallery)


def test_each_head_answers_each_labelled_query(gallery: Gallery, heads: list[FittedHead]) -> None:
    rows = [query(number, NAMES[TRUTH[number]]) for number in range(12)]
    rows[5], rows[7] = query(5), query(7, "a coat")
    answers = try_heads(gallery, encoded(gallery, *rows), heads)
    left = [number for number in range(12) if number != 5]
    assert [item.item_id for item in answers.items] == [f"q{number}" for number in left]
    assert (answers.target, answers.labels) == ("type", NAMES)
    # A label that the heads do not know.
    assert answers.truth.tolist() == [UNKNOWN if number == 7 else TRUTH[number] for number in left]
    assert answers.true_names == tuple("a coat" if number == 7 else NAMES[TRUTH[number]] for number in left)
    assert answers.gallery_counts == {name: TYPES.count(name) for name in NAMES}
    assert [one.kind for one in answers.heads] == ["knn", "linear"]
    for fitted, one in zip(heads, answers.heads, strict=True):
        expected = fitted.answer(QUERIES[left])
        np.testing.assert_allclose(one.probabilities, expected.probabilities, atol=1e-6)
        np.testing.assert_allclose(one.uncalibrated, expected.uncalibrated, atol=1e-6)
        np.testing.assert_array_equal(one.predicted, expected.predicted)
        np.testing.assert_array_equal(one.sets, expected.sets)
        assert one.milliseconds > 0
        assert one.card["coverage"] == 0.9
        assert one.card["items"] == 60
        assert "thresholds" not in one.card
    figures = evaluate_target(answers)
    assert (figures["queries"], figures["heads"]["linear"]["accuracy"]) == (11, pytest.approx(10 / 11, abs=1e-4))


def test_strange_queries_are_turned_away(gallery: Gallery, heads: list[FittedHead]) -> None:
    strange = np.linalg.svd(EMBEDDINGS)[2][-2:].astype(np.float32)
    embeddings = np.concatenate([QUERIES[:10], strange])
    rows = [query(number, NAMES[TRUTH[number]]) for number in range(10)] + [query(10, "a coat"), query(11, "a coat")]
    # One without a label is not asked about.
    asked = encoded(gallery, query(5), *rows, embeddings=embeddings)
    answers = try_heads(gallery, asked, heads)
    near = (1 - np.sort(embeddings @ EMBEDDINGS.T, axis=1)[:, ::-1][:, :NEAREST]).mean(axis=1).astype(np.float32)
    for fitted, one in zip(heads, answers.heads, strict=True):
        familiarity = fitted.answer(embeddings, distances=near).familiarity
        assert familiarity is not None
        assert one.none_of_these is not None
        np.testing.assert_array_equal(one.none_of_these, familiarity < REJECTED)
        assert one.none_of_these[-2:].all()


def test_neighbours_stand_beside_each_query(gallery: Gallery, heads: list[FittedHead]) -> None:
    answers = try_heads(gallery, encoded(gallery, query(3), query(4, "NA"), query(6, "dress")), heads)
    order = np.argsort(-(QUERIES[[4, 6]] @ EMBEDDINGS.T), axis=1)[:, :NEAREST]
    for number in range(2):
        found = answers.neighbours(number)
        assert [item.item_id for item, _ in found] == [f"i{row:05}" for row in order[number]]
        assert [distance for _, distance in found] == sorted(distance for _, distance in found)


def test_fewer_neighbours_than_asked_for(tmp_path: Path, heads: list[FittedHead]) -> None:
    small = make_gallery(tmp_path / "gallery", EMBEDDINGS[:3], TYPES[:3])
    answers = try_heads(small, encoded(small, query(4, "NA")), heads)
    assert len(answers.neighbours(0)) == 3


def test_photos_that_heads_were_fitted_on_are_left_out(gallery: Gallery, heads: list[FittedHead]) -> None:
    """The same photo of the same item; another item with that photo, or another photo of the item, is new."""
    learned = [replace(item, split=None) for item in gallery.items(np.arange(5))]
    same_photo = replace(learned[1], item_id="another")
    new_photo = replace(learned[2], image=photo(70))
    answers = try_heads(gallery, encoded(gallery, *learned, same_photo, new_photo, embeddings=EMBEDDINGS), heads)
    assert [(item.item_id, item.image) for item in answers.items] == [("another", photo(1)), ("i00002", photo(70))]


def test_one_head_that_has_seen_it_is_enough(tmp_path: Path) -> None:
    """Heads are compared on the same photos, so it is left out for both."""
    gallery = make_gallery(tmp_path / "gallery", EMBEDDINGS, TYPES)
    fit(gallery, "knn")
    relabel_item(gallery.folder, "i00000", {"type": ()})
    fit(reopen(gallery), "linear")
    (item,) = gallery.items(np.array([0]))
    asked = encoded(gallery, item, query(1, "dress"), embeddings=EMBEDDINGS)
    for kinds, left in ((["knn", "linear"], ["q1"]), (["linear", "knn"], ["q1"]), (["linear"], ["i00000", "q1"])):
        answers = try_heads(gallery, asked, [load(gallery, kind) for kind in kinds])
        assert [one.item_id for one in answers.items] == left


def test_when_none_is_left(gallery: Gallery, heads: list[FittedHead]) -> None:
    learned = gallery.items(np.arange(5))
    message = (
        r"Heads of 'type' are tried on labelled photos that they were not fitted on; of 6 photos 5 have a label in it"
    )
    with pytest.raises(HeadError, match=message):
        try_heads(gallery, encoded(gallery, *learned, query(20), embeddings=EMBEDDINGS), heads)


def test_tests_are_tried_though_the_gallery_holds_them(gallery: Gallery, heads: list[FittedHead]) -> None:
    answers = try_heads(gallery, head_trial.test_queries(gallery), heads)
    assert len(answers.items) == 20
    np.testing.assert_array_equal(answers.truth, NUMBERS[60:])
    assert {item.split for number in range(20) for item, _ in answers.neighbours(number)} == {"train"}


def test_a_photo_that_the_gallery_holds_is_not_its_own_neighbour(gallery: Gallery) -> None:
    # Item 60 is of the split test, and the gallery has it.
    item = gallery.items(np.array([60]))[0]
    asked = encode_queries(gallery, catalog_of([item]), encoder_of(EMBEDDINGS))
    assert gallery.rows_of_keys(asked.keys).tolist() == [60]
    assert 60 not in asked.found[0]
    assert asked.found.shape == (1, NEAREST)
    assert asked.distances[0].min() > 1e-4
    assert (np.diff(asked.distances[0]) >= 0).all()


def test_several_labels_an_item(tmp_path: Path) -> None:
    names = [(("any", "warm"), ("cold",), ("warm",))[number] for number in NUMBERS]
    gallery = make_gallery(tmp_path / "gallery", EMBEDDINGS, names)
    fit(gallery, "linear", "knn")
    heads = [load(gallery, kind) for kind in ("linear", "knn")]
    asked = encoded(gallery, query(0, "warm", "any"), query(1, "new", "cold"), query(2, "new"), query(3))
    answers = try_heads(gallery, asked, heads)
    assert answers.labels == ("any", "cold", "warm")
    np.testing.assert_array_equal(answers.truth, np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0]], bool))
    assert answers.true_names == ("warm, any", "new, cold", "new")
    for fitted, one in zip(heads, answers.heads, strict=True):
        assert (one.sets, one.none_of_these) == (None, None)
        assert one.predicted.shape == (3, 3)
        assert fitted.thresholds is not None
        assert one.card["thresholds"] == fitted.thresholds.tolist()


def test_heads_of_other_labels_are_not_compared(tmp_path: Path) -> None:
    """One was fitted before a label came; its class numbers mean other names."""
    gallery = make_gallery(tmp_path / "gallery", EMBEDDINGS, TYPES)
    fit(gallery, "knn")
    for row in range(10):
        relabel_item(gallery.folder, f"i{row:05}", {"type": ("a coat",)})
    fit(reopen(gallery), "linear")
    heads = [load(gallery, kind) for kind in ("knn", "linear")]
    asked = encoded(gallery, query(0, "dress"))
    message = (
        r"Heads of 'type' are compared on the same labels; those of the knn head, of gallery version \d+, and of the "
        r"linear head, of version \d+, differ in a coat. Fit them again together"
    )
    with pytest.raises(HeadError, match=message):
        try_heads(reopen(gallery), asked, heads)
    for head in heads:
        assert try_heads(reopen(gallery), asked, [head]).labels == head.card.labels
    # The same labels, but an item may have several now.
    relabel_item(gallery.folder, "i00000", {"type": ("a coat", "dress")})
    fit(reopen(gallery), "knn")
    with pytest.raises(HeadError, match=r"differ in how many an item may have\. Fit them again together"):
        try_heads(reopen(gallery), asked, [load(gallery, kind) for kind in ("knn", "linear")])


def test_a_gallery_that_was_emptied_of_the_label_s_items(tmp_path: Path) -> None:
    """What the heads know stays what they are asked about; the gallery's counts are of now."""
    gallery = make_gallery(tmp_path / "gallery", EMBEDDINGS, TYPES)
    fit(gallery, "knn")
    skirts = [item.item_id for item in gallery.items(np.arange(80)) if item.labels["type"] == ("skirt",)]
    delete_items(gallery.folder, skirts)
    now = reopen(gallery)
    answers = try_heads(now, encoded(now, query(0, "skirt")), [load(gallery, "knn")])
    assert answers.truth.tolist() == [NAMES.index("skirt")]
    assert set(answers.gallery_counts) == {"NA", "dress"}
