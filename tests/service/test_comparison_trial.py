"""Heads and comparators on trial: which photos they are asked about, on which labels, and what is known of leaks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.catalog import BadRow, CatalogItem
from heads.checks import HeadError
from indexer.encoders import EMBEDDED, find_weights
from indexer.gallery import Gallery
from indexer.rows import content_hash_of
from service.comparators import open_run
from service.comparison_leaks import Leaks, describe_leaks, find_leaks
from service.comparison_trial import (
    EncodedPhotos,
    EncoderCost,
    Entrant,
    encode_photos,
    features_of,
    load_encoders,
    open_entrants,
    try_contenders,
)
from tests.heads.worlds import clusters, wardrobe
from tests.indexer.fakes import FakeEncoder, card_of, catalog_of
from tests.service.galleries import NAMES, encoder_of, fit, load, make_gallery, photo
from tests.service.runs import DIMENSION, make_run

EMBEDDINGS, NUMBERS = clusters(60, labels=3)
QUERIES, TRUTH = clusters(12, labels=3, seed=1)
# What the run knows: no `NA`, and a coat, which the gallery has not.
RUN_LABELS = ("skirt", "coat", "dress")
COST = EncoderCost(5.0, 100, 400)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """Sixty items, every fifth of the split test, with a linear and a kNN head."""
    opened = make_gallery(
        tmp_path_factory.mktemp("shop") / "gallery",
        EMBEDDINGS,
        [NAMES[number] for number in NUMBERS],
        split=lambda row: "test" if row % 5 == 0 else None,
    )
    fit(opened, "knn", "linear")
    return opened


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose layer reads the class number off the first three numbers of an embedding."""
    weight = np.eye(3, DIMENSION, dtype=np.float32)
    folder = tmp_path_factory.mktemp("runs") / "night"
    make_run(folder, {"type": RUN_LABELS}, layers={"type": (weight, np.zeros(3, np.float32))}, catalog="a/shop")
    (folder / "validation.csv").write_text("item_id,type,type_predicted\nq1,dress,dress\nq2,dress,coat\n")
    return folder


@pytest.fixture
def entrant(run: Path, gallery: Gallery) -> Entrant:
    return open_entrants([run], ["type"], gallery)[0]


def item(number: int, *names: str, **fields: Any) -> CatalogItem:
    return CatalogItem(f"q{number}", photo(number), labels={"type": names} if names else {}, **fields)


def encoded(gallery: Gallery, entrant: Entrant, items: list[CatalogItem], said: list[str]) -> EncodedPhotos:
    """Photos as the gallery's encoder has them, and as the run's, which says those labels."""
    of_run = np.zeros((len(items), DIMENSION), np.float32)
    of_run[np.arange(len(items)), [RUN_LABELS.index(name) for name in said]] = 1
    hashes = tuple(content_hash_of(photo(int(one.item_id[1:]))) for one in items)
    embeddings = {gallery.card.fingerprint: QUERIES[: len(items)], entrant.run.encoder.fingerprint: of_run}
    return EncodedPhotos(tuple(items), hashes, embeddings, 0)


def costs(gallery: Gallery, entrant: Entrant) -> dict[str, EncoderCost]:
    return {gallery.card.fingerprint: COST, entrant.run.encoder.fingerprint: replace(COST, milliseconds=7.0)}


def test_a_run_is_known_by_its_folder(run: Path, gallery: Gallery, tmp_path: Path) -> None:
    found = open_entrants([run], ["type"], gallery)[0]
    assert (found.name, found.catalog, found.validation) == ("comparator night", "a/shop", {"q1", "q2"})
    assert found.run.labels == {"type": RUN_LABELS}
    other = make_run(tmp_path / "night", {"type": RUN_LABELS})
    with pytest.raises(HeadError, match=r"told apart by the names of their folders; .* and another one are"):
        open_entrants([run, other], ["type"], gallery)
    without = open_entrants([other], ["type"], gallery)[0]
    assert (without.catalog, without.validation) == ("", frozenset())
    with pytest.raises(HeadError, match=r"has learned type, and not colour"):
        open_entrants([run], ["type", "colour"], gallery)
    with pytest.raises(HeadError, match="There is no run in"):
        open_entrants([tmp_path], ["type"], gallery)


def test_heads_are_compared_on_the_names_of_labels(gallery: Gallery, entrant: Entrant) -> None:
    names = [NAMES[number] for number in TRUTH]
    names[0], names[1] = "coat", "a kimono"
    said = ["coat", "coat", *("dress" for _ in range(10))]
    photos = encoded(gallery, entrant, [item(number, name) for number, name in enumerate(names)], said)
    heads = [load(gallery, kind) for kind in ("knn", "linear")]
    answers, contenders = try_contenders(gallery, photos, heads, [entrant], costs(gallery, entrant))
    assert [one.kind for one in answers.heads] == list(contenders) == ["knn", "linear", "comparator night"]
    assert answers.labels == ("NA", "coat", "dress", "skirt")
    assert [answers.labels[number] if number >= 0 else "?" for number in answers.truth] == [
        "?" if name == "a kimono" else name for name in names
    ]
    assert answers.true_names == tuple(names)
    by_name = {one.kind: one for one in answers.heads}
    # Among all labels, each head says what it says among its own.
    expected = heads[1].answer(QUERIES)
    linear, comparator = by_name["linear"], by_name["comparator night"]
    np.testing.assert_allclose(linear.probabilities[:, [0, 2, 3]], expected.probabilities, atol=1e-6)
    np.testing.assert_allclose(linear.uncalibrated[:, [0, 2, 3]], expected.uncalibrated, atol=1e-6)
    assert [answers.labels[number] for number in linear.predicted] == [NAMES[number] for number in expected.predicted]
    assert [answers.labels[number] for number in comparator.predicted] == said
    # What a head does not know has no probability, and is in no set.
    assert not linear.probabilities[:, 1].any()
    assert not comparator.probabilities[:, 0].any()
    assert linear.sets is not None
    assert not linear.sets[:, 1].any()
    np.testing.assert_array_equal(linear.sets[:, [0, 2, 3]], expected.sets)
    # So only the comparator can be right about the coat, and only the others about `NA`.
    assert [one.predicted[0] == answers.truth[0] for one in answers.heads] == [False, False, True]
    assert answers.gallery_counts["dress"] == 20


def test_what_contenders_are_and_cost(gallery: Gallery, entrant: Entrant) -> None:
    photos = encoded(gallery, entrant, [item(0, "dress"), item(1, "skirt")], ["dress", "dress"])
    heads = [load(gallery, kind) for kind in ("knn", "linear")]
    _, found = try_contenders(gallery, photos, heads, [entrant], costs(gallery, entrant))
    linear, comparator = found["linear"], found["comparator night"]
    assert (linear.family, comparator.family) == ("head", "comparator")
    assert (linear.encoding_milliseconds, comparator.encoding_milliseconds) == (5.0, 7.0)
    assert (linear.encoder_parameters, linear.encoder_bytes) == (100, 400)
    # 16 numbers an embedding and 3 labels: coefficients and intercepts.
    assert linear.head_parameters == 16 * 3 + 3
    assert comparator.head_parameters == DIMENSION * 3 + 3
    assert (linear.labels, comparator.labels) == (NAMES, ("coat", "dress", "skirt"))
    # kNN keeps the 48 items that teach; their class numbers are none of its parameters.
    knn = load(gallery, "knn").head.arrays()
    assert found["knn"].head_parameters == sum(knn[name].size for name in knn if name != "labels")
    folder = gallery.folder / "heads" / "type"
    stored = [folder / "linear.json", *folder.glob("linear-*")]
    assert linear.head_bytes == sum(file.stat().st_size for file in stored)
    assert comparator.encoder == str(entrant.run.folder)


def test_photos_without_a_label_in_the_target_are_left_out(gallery: Gallery, entrant: Entrant) -> None:
    photos = encoded(gallery, entrant, [item(0), item(1, "skirt"), item(2)], ["dress", "skirt", "coat"])
    heads = [load(gallery, "linear")]
    answers, _ = try_contenders(gallery, photos, heads, [entrant], costs(gallery, entrant))
    assert [one.item_id for one in answers.items] == ["q1"]
    assert [answers.labels[one.predicted[0]] for one in answers.heads][1] == "skirt"
    with pytest.raises(HeadError, match=r"Heads of 'type' are compared on photos with a label in it; .* none is left"):
        try_contenders(gallery, photos.only(np.array([0, 2])), heads, [entrant], costs(gallery, entrant))


def test_targets_with_several_labels_have_no_comparator(tmp_path: Path, gallery: Gallery, entrant: Entrant) -> None:
    embeddings, has = wardrobe(60)
    several = make_gallery(
        tmp_path / "gallery",
        embeddings,
        [tuple(name for name, one in zip("abc", row, strict=True) if one) for row in has],
    )
    fit(several, "linear")
    photos = encoded(gallery, entrant, [item(0, "a")], ["dress"])
    with pytest.raises(HeadError, match="compared on targets with one; items of 'type' have several"):
        try_contenders(several, photos, [load(several, "linear")], [entrant], {})


def test_photos_are_encoded_by_every_encoder() -> None:
    first = encoder_of(QUERIES)
    second = FakeEncoder(card_of(16, weights_sha256="2" * 64), embed=lambda _: EMBEDDINGS[0])
    rows = [item(2, "skirt"), BadRow(Path("x.csv"), 3, "torn"), item(0), item(1, "dress")]
    rows.append(CatalogItem("q9", b"no photo", labels={"type": ("skirt",)}))
    told: list[tuple[int, int | None, int]] = []
    found = encode_photos(catalog_of(rows), ["type"], [first, second], progress=lambda *line: told.append(line))
    assert [one.item_id for one in found.items] == ["q2", "q1"]
    assert found.hashes == (content_hash_of(photo(2)), content_hash_of(photo(1)))
    np.testing.assert_array_equal(found.embeddings[first.card.fingerprint], QUERIES[[2, 1]])
    np.testing.assert_array_equal(found.embeddings[second.card.fingerprint], EMBEDDINGS[[0, 0]])
    # The torn row and the photo that is none; one without a label was not asked for.
    assert found.failed == 2
    assert told[-1] == (6, 6, 6)
    with pytest.raises(HeadError, match=r"photos with labels of colour; catalog has 5, 0 of them with one, and none"):
        encode_photos(catalog_of(rows), ["colour"], [first])


def test_an_encoder_that_two_share_is_loaded_once(gallery: Gallery, entrant: Entrant, monkeypatch: Any) -> None:
    monkeypatch.setattr("service.comparison_trial.load_encoder_of", lambda card: card)
    assert load_encoders(gallery, [entrant, entrant]) == [gallery.card, entrant.run.encoder]


def test_what_a_gallery_stands_on(run: Path) -> None:
    card = find_weights(EMBEDDED).card(pooling=None, runtime="torch", precision="fp32")
    assert features_of(card) == "frozen features"
    assert features_of(open_run(run).encoder) == "the gallery's features, fine-tuned before,"


# Leaks


def leaks_of(gallery: Gallery, entrant: Entrant, items: list[CatalogItem], catalog: Path = Path("elsewhere")) -> Leaks:
    return find_leaks(gallery, encoded(gallery, entrant, items, ["dress"] * len(items)), catalog, [entrant])


def test_photos_that_the_gallery_holds(gallery: Gallery, entrant: Entrant) -> None:
    # q200 is new; one has the id of an item and another photo; q3 is item 3 by its content.
    renamed = replace(item(201), item_id="i00007")
    photos = encoded(gallery, entrant, [item(200), item(3), item(5)], ["dress"] * 3)
    photos = replace(photos, items=(*photos.items[:2], renamed))
    stored = gallery.snapshot.columns("content_hash").to_pydict()["content_hash"]
    photos = replace(photos, hashes=(photos.hashes[0], stored[3], photos.hashes[0]))
    found = find_leaks(gallery, photos, Path("elsewhere"), [entrant])
    assert found.in_gallery.tolist() == found.learned.tolist() == [False, True, True]
    # Items of the split test teach nobody.
    photos = replace(photos, items=(photos.items[0], photos.items[1], replace(renamed, item_id="i00005")))
    photos = replace(photos, hashes=(photos.hashes[0], "0", photos.hashes[0]))
    assert find_leaks(gallery, photos, Path("elsewhere"), [entrant]).in_gallery.tolist() == [False, False, False]


def test_photos_of_a_run_s_own_catalog(gallery: Gallery, entrant: Entrant, tmp_path: Path) -> None:
    own = replace(entrant, catalog=str(tmp_path / "shop"))
    # q1 chose the best epoch, 105 is of the split test, 106 was learned.
    items = [item(1), item(105, split="test"), item(106, split="train")]
    found = leaks_of(gallery, own, items, tmp_path / "x" / ".." / "shop")
    assert found.trained_on["comparator night"].tolist() == found.learned.tolist() == [False, False, True]
    assert found.validated_on["comparator night"].tolist() == [True, False, False]
    assert found.elsewhere == {}
    # The table of that folder is the same catalog, whichever of the two was named; another folder's is not.
    table = tmp_path / "shop" / "items.csv"
    table.parent.mkdir()
    table.touch()
    assert leaks_of(gallery, own, items, table).learned.tolist() == [False, False, True]
    by_table = replace(entrant, catalog=str(table))
    assert leaks_of(gallery, by_table, items, tmp_path / "shop").learned.tolist() == [False, False, True]
    assert not leaks_of(gallery, by_table, items, tmp_path).learned.any()
    # Of another catalog nothing is known, whatever its items are called.
    other = leaks_of(gallery, own, items, tmp_path / "other")
    assert not other.learned.any()
    assert not other.validated_on["comparator night"].any()
    assert other.elsewhere == {"comparator night": str(tmp_path / "shop")}


def test_learned_photos_are_left_out(gallery: Gallery, entrant: Entrant) -> None:
    photos = encoded(gallery, entrant, [item(number) for number in range(3)], ["dress", "coat", "skirt"])
    left = photos.without(np.array([True, False, True]))
    assert [one.item_id for one in left.items] == ["q1"]
    assert left.hashes == photos.hashes[1:2]
    for name, embeddings in left.embeddings.items():
        np.testing.assert_array_equal(embeddings, photos.embeddings[name][[1]])
    with pytest.raises(HeadError, match=r"that none of them has learned; all 3 are in the gallery or .* --allow-leaks"):
        photos.without(np.ones(3, bool))


def test_what_is_said_of_leaks() -> None:
    def bools(*signs: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return np.array(signs, bool)

    leaks = Leaks(
        bools(1, 0, 0, 0),
        {"comparator a": bools(1, 1, 0, 0), "comparator b": bools(0, 0, 0, 0)},
        {"comparator a": bools(0, 0, 1, 1), "comparator b": bools(0, 0, 0, 0)},
        {"comparator b": "a/shop", "comparator c": "a/shop", "comparator d": ""},
    )
    assert describe_leaks(leaks, allowed=False) == [
        "1 photo is in the gallery, by item_id or content, so that its heads learned them: left out.",
        "2 photos are of the catalog that comparator a learned from, and not kept from it: left out.",
        "2 photos are validation photos of comparator a: they chose its best epoch and its calibration, so that its "
        "figures are slightly too high.",
        "comparator b and comparator c learned from a/shop; whether photos of these queries are in it cannot be told.",
        "comparator d learned from a catalog that no config.json names; whether photos of these queries are in it "
        "cannot be told.",
    ]
    allowed = describe_leaks(leaks, allowed=True)[0]
    assert allowed.endswith("learned them: they stay in, and the figures are too high.")


def test_a_run_s_folder_may_say_nothing_of_its_catalog(run: Path, gallery: Gallery, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "bare", {"type": RUN_LABELS})
    assert "catalog" not in json.loads((folder / "config.json").read_text())
    assert leaks_of(gallery, open_entrants([folder], ["type"], gallery)[0], [item(200)]).elsewhere == {
        "comparator bare": ""
    }
