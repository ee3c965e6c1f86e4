"""Heads from end to end on real photos with the embedded encoder: indexed, fitted, asked, tried, and suspected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from data.catalog import CatalogItem
from data.folder import read_folder
from indexer.edits import relabel_item
from indexer.encoders import EMBEDDED, Encoder, LazyEncoder, load_encoder
from indexer.gallery import Gallery
from indexer.pipeline import RunOptions, refresh
from service.classification import Classifier, ClassifyOptions
from service.head_evaluation import evaluate_target
from service.head_store import best_kind, load_heads
from service.head_trial import encode_queries, try_heads
from service.suspects import find_suspects
from tests.indexer.fakes import catalog_of
from tests.service.galleries import fit, load, reopen

CLOTHING = Path(__file__).parents[3] / "shared" / "datasets" / "clothing-small"

pytestmark = pytest.mark.skipif(not CLOTHING.is_dir(), reason=f"{CLOTHING} is not here")


def photos(part: str, each: int) -> list[CatalogItem]:
    """The first photos of each label, which goes by the name of `type`."""
    taken: dict[str, list[CatalogItem]] = {}
    for row in read_folder(CLOTHING / part):
        assert isinstance(row, CatalogItem)
        (label,) = row.labels["label"]
        taken.setdefault(label, []).append(replace(row, labels={"type": (label,)}))
    return [item for items in taken.values() for item in items[:each]]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encoder]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODISTE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield load_encoder(EMBEDDED)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Gallery:
    """Ten types of 20 photos each, with three heads."""
    folder = tmp_path_factory.mktemp("shop") / "gallery"
    lazy = LazyEncoder(encoder.card, lambda: encoder)
    summary = refresh(catalog_of(photos("train", 20)), folder, lazy, RunOptions())
    assert summary.added == 200
    gallery = reopen(folder)
    fit(gallery, "knn", "linear", "ensemble")
    return gallery


def test_heads_know_new_photos(gallery: Gallery, encoder: Encoder) -> None:
    """Of ten types; far from the figures of docs/benchmarks.md, which ten times the photos give."""
    asked = encode_queries(gallery, catalog_of(photos("validation", 10)), encoder)
    figures = evaluate_target(try_heads(gallery, asked, load_heads(gallery.folder, "type", None, gallery.card)))
    assert figures["queries"] == len(asked.items) > 90
    for kind in ("knn", "linear", "ensemble"):
        assert figures["heads"][kind]["accuracy"] > 0.65
        # What is promised of new photos, give or take three standard deviations of 100 photos.
        assert 0.8 < figures["heads"][kind]["set_coverage"] <= 1


def test_a_photo_is_labelled_with_what_speaks_for_it(gallery: Gallery, encoder: Encoder, tmp_path: Path) -> None:
    new = photos("validation", 1)
    torn = tmp_path / "torn.jpg"
    assert isinstance(new[0].image, Path)
    torn.write_bytes(new[0].image.read_bytes()[:5000])
    head = load(gallery, best_kind(gallery.folder, "type", gallery.card))
    rows = [*new[:5], CatalogItem("torn", torn), *new[5:]]
    answers = list(Classifier(gallery, [head, load(gallery, "knn")], ClassifyOptions()).classify(rows, encoder))
    assert [answer.photo for answer in answers] == [row.item_id for row in rows]
    assert answers.pop(5).reason
    said = [answer.predictions[0].labels[0][0] for answer in answers]
    right = sum(label == item.labels["type"][0] for label, item in zip(said, new, strict=True))
    assert right >= 6
    for answer in answers:
        assert len(answer.predictions[1].votes) == len(answer.neighbours) == 5


def test_a_photo_in_the_wrong_folder_is_suspected(gallery: Gallery) -> None:
    shoes = gallery.items(gallery.labels.labels_of("type")["shoes"])[3]
    relabel_item(gallery.folder, shoes.item_id, {"type": ("dress",)})
    found = find_suspects(reopen(gallery), "type")
    assert (shoes.item_id, "dress", "shoes") in [(one.item.item_id, one.label, one.suggested) for one in found[:10]]
    relabel_item(gallery.folder, shoes.item_id, {"type": ("shoes",)})
