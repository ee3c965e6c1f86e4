"""Evaluation: figures of a gallery of six that were worked by hand."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.catalog import BadRow, CatalogItem
from indexer.evaluation import EvaluationError, evaluate_neighbours
from indexer.faiss_index import FAISS_FOLDER, FaissIndex
from indexer.filters import FilterError
from indexer.gallery import Gallery
from tests.indexer.fakes import CARD, FakeEncoder, catalog_of, make_store, unit


class AngleEncoder(FakeEncoder):
    """The embedding of a grey photo of value v is the direction at v degrees."""

    def __init__(self) -> None:
        super().__init__(replace(CARD, dimension=2))

    def encode(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        # (B, S, S, 3) to (B,)
        return direction(pixels[:, 16, 16, 0])


def direction(degrees: Any) -> np.ndarray[Any, Any]:
    radians = np.radians(np.asarray(degrees, np.float64))
    return unit(np.stack([np.cos(radians), np.sin(radians)], axis=1))


def photo(degrees: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (degrees, degrees, degrees)).save(file, "PNG")
    return file.getvalue()


# Where each item is, its type and its colours. The neighbours of d0 (0 degrees) in order are s10, d20, d40, s60, d80.
PLACES = {
    "d0": (0, "dress", ("red",)),
    "s10": (10, "shirt", ("red",)),
    "d20": (20, "dress", ("blue",)),
    "d40": (40, "dress", ("red", "white")),
    "s60": (60, "shirt", ("white",)),
    "d80": (80, "dress", ()),
}


def labels(kind: str | None, colours: Sequence[str]) -> dict[str, tuple[str, ...]]:
    return ({"type": (kind,)} if kind else {}) | ({"colour": tuple(colours)} if colours else {})


ITEMS = [CatalogItem(name, photo(at), None, labels(kind, colours)) for name, (at, kind, colours) in PLACES.items()]


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    vectors = direction([at for at, _, _ in PLACES.values()])
    return Gallery(make_store(tmp_path / "gallery", vectors, ITEMS).folder)


def measure(gallery: Gallery, queries: list[Any], targets: list[str], ks: Sequence[int] = (1, 2, 3)) -> dict[str, Any]:
    return evaluate_neighbours(gallery, catalog_of(queries), AngleEncoder(), targets, ks=ks)


def check(figures: dict[str, Any], expected: dict[str, float]) -> None:
    """Figures are given to four digits."""
    assert {name: figures[name] for name in expected} == {name: round(value, 4) for name, value in expected.items()}


def test_one_query_and_one_target(gallery: Gallery) -> None:
    """A red dress at 1 degree that is not in the gallery.

    Neighbours: d0 dress, s10 shirt, d20 dress, of four dresses in all. Right: yes, no, yes.
    AP@3: (1/1 + 2/3) / min(4, 3) = 5/9. DCG@3 = 1 + 1/log2(4) = 1.5; ideal 1 + 1/log2(3) + 1/2 = 2.1309.
    """
    figures = measure(gallery, [CatalogItem("q", photo(1), None, labels("dress", ["red"]))], ["type"])
    check(figures, {"hit_rate_at_1": 1, "hit_rate_at_2": 1, "hit_rate_at_3": 1})
    check(figures, {"precision_at_1": 1, "precision_at_2": 1 / 2, "precision_at_3": 2 / 3, "map_at_3": 5 / 9})
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    check(figures, {"ndcg_at_1": 1, "ndcg_at_2": 1 / (1 + 1 / math.log2(3)), "ndcg_at_3": 1.5 / ideal})
    # One query, so that every resample is the same.
    check(figures, {"map_at_3_low": 5 / 9, "map_at_3_high": 5 / 9})
    assert figures["by_target"].keys() == {"type"}
    assert figures["by_target"]["type"].items() <= figures.items()
    counts = ["queries", "queries_without_labels", "queries_failed", "gallery_items", "relevant", "index_recall_at_3"]
    assert [figures[name] for name in counts] == [1, 0, 0, 6, ["type"], 1.0]
    assert json.loads(json.dumps(figures)) == figures


def test_two_targets(gallery: Gallery) -> None:
    """The same query; right is a red dress: d0 and d40.

    Neighbours: d0 (both), s10 (colour), d20 (type). Right in both: yes, no, no; two red dresses in all.
    AP@3 = (1/1) / 2 = 1/2. Gains 1, 1/2, 1/2; the ideal is d0, d40 and one of s10, d20, d80: 1, 1, 1/2.
    By colour (d0, s10, d40 are red): yes, yes, no: AP@3 = (1 + 1) / 3.
    """
    figures = measure(gallery, [CatalogItem("q", photo(1), None, labels("dress", ["red"]))], ["type", "colour"])
    check(figures, {"hit_rate_at_3": 1, "precision_at_3": 1 / 3, "map_at_3": 1 / 2})
    discount = [1, 1 / math.log2(3), 1 / 2]
    check(figures, {"ndcg_at_3": (1 + discount[1] / 2 + discount[2] / 2) / (1 + discount[1] + discount[2] / 2)})
    check(figures["by_target"]["type"], {"precision_at_3": 2 / 3, "map_at_3": 5 / 9})
    check(figures["by_target"]["colour"], {"precision_at_3": 2 / 3, "map_at_3": 2 / 3})


def test_several_labels_are_right_where_one_is_shared(gallery: Gallery) -> None:
    """A blue and white item at 59 degrees: s60 white yes, d40 white yes, d80 no, d20 blue would be the fourth."""
    figures = measure(gallery, [CatalogItem("q", photo(59), None, labels(None, ["white", "blue"]))], ["colour"])
    # Three items share a label: AP@3 = (1 + 1) / 3.
    check(figures, {"hit_rate_at_1": 1, "precision_at_3": 2 / 3, "map_at_3": 2 / 3})


def test_a_catalog_against_itself_leaves_the_query_out(gallery: Gallery) -> None:
    """By type, each item's nearest other.

    d0: s10 no. s10: d0 and d20 are as near; none is a shirt. d20: s10 no. d40: d20 and s60 are as near to the last
    digit, so its places 1 and 2 are a dress and a shirt in some order. s60: d40 or d80, no. d80: s60 no.
    Among two: d0: s10, d20 yes. s10: no. d20: s10, then d0 or d40, yes. d40: yes. s60: no. d80: s60, d40 yes: 4 of 6.
    Were the query its own neighbour, every one would be a hit at 1.
    """
    figures = measure(gallery, ITEMS, ["type"], ks=(2,))
    check(figures, {"hit_rate_at_2": 4 / 6, "precision_at_2": 4 / 12})
    # One right item is left for the two shirts, three for the four dresses; R = 0 for none.
    assert figures["queries"] == 6
    # With all five others: three of five are right for a dress, one of five for a shirt.
    figures = measure(gallery, ITEMS, ["type"], ks=(5,))
    check(figures, {"hit_rate_at_5": 1, "precision_at_5": (4 * 3 / 5 + 2 * 1 / 5) / 6, "index_recall_at_5": 1})


def test_more_neighbours_than_items(gallery: Gallery) -> None:
    """Ten wanted of six, for a query of the gallery beside one that is not: what is missing is wrong, not an error."""
    queries = [ITEMS[0], CatalogItem("q", photo(1), None, labels("dress", []))]
    figures = measure(gallery, queries, ["type"], ks=(10,))
    check(figures, {"hit_rate_at_10": 1, "precision_at_10": (3 / 10 + 4 / 10) / 2, "index_recall_at_10": 1})
    # d0 itself: dresses at places 2, 3 and 5 of s10, d20, d40, s60, d80. q: at 1, 3, 4 and 6.
    own, other = (1 / 2 + 2 / 3 + 3 / 5) / 3, (1 + 2 / 3 + 3 / 4 + 4 / 6) / 4
    check(figures, {"map_at_10": (own + other) / 2})


def test_queries_that_do_not_count_are_counted(gallery: Gallery) -> None:
    queries = [
        CatalogItem("q", photo(1), None, labels("dress", ["red"])),
        CatalogItem("no colour", photo(2), None, labels("dress", [])),
        CatalogItem("nothing", photo(3)),
        CatalogItem("no photo", b"", None, labels("dress", ["red"])),
        BadRow(Path("queries.csv"), 4, "no item_id"),
    ]
    figures = measure(gallery, queries, ["type", "colour"])
    assert [figures[name] for name in ("queries", "queries_without_labels", "queries_failed")] == [1, 2, 2]
    assert measure(gallery, queries, ["type"])["queries"] == 2


def test_a_label_that_the_gallery_lacks_is_never_right(gallery: Gallery) -> None:
    """It stays among the queries: as a miss, and without a value where a figure divides by the right items."""
    queries = [
        CatalogItem("q", photo(1), None, labels("dress", [])),
        CatalogItem("r", photo(1), None, labels("hat", [])),
    ]
    figures = measure(gallery, queries, ["type"])
    check(figures, {"hit_rate_at_3": 1 / 2, "precision_at_3": 1 / 3, "map_at_3": 5 / 9})


def test_the_index_is_measured_against_exact_search(gallery: Gallery) -> None:
    """An index that finds everything has recall 1, and the figures are those of exact search."""
    exact = measure(gallery, ITEMS[:3], ["type"])
    FaissIndex.build(gallery.snapshot, "hnsw").save(gallery.folder / FAISS_FOLDER)
    indexed = Gallery(gallery.folder)
    assert indexed.searcher.variant == "hnsw"
    figures = measure(indexed, [ITEMS[0], ITEMS[5]], ["type"])
    assert figures["index_recall_at_3"] == 1
    assert measure(indexed, ITEMS[:1], ["type"]) == measure(gallery, ITEMS[:1], ["type"])
    assert exact["queries"] == 3


def test_an_index_that_misses_shows(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that always answers the last three rows: of the nearest three of d0, only d40 is among them."""
    FaissIndex.build(gallery.snapshot, "hnsw").save(gallery.folder / FAISS_FOLDER)
    indexed = Gallery(gallery.folder)
    answer = np.array([[3, 4, 5, -1]]), np.array([[0.1, 0.2, 0.3, np.inf]], np.float32)
    monkeypatch.setattr(indexed.searcher, "search", lambda *_, **__: answer)
    figures = measure(indexed, ITEMS[:1], ["type"])
    # s10, d20, d40 are right.
    check(figures, {"index_recall_at_3": 1 / 3, "precision_at_3": 2 / 3})


def test_nothing_to_evaluate(gallery: Gallery) -> None:
    queries = [CatalogItem("q", photo(1)), CatalogItem("r", b"", None, labels("dress", []))]
    with pytest.raises(
        EvaluationError, match=r"No query of catalog has a label in each of type: 1 lack one and 1 could not be read\."
    ):
        measure(gallery, queries, ["type"])
    with pytest.raises(FilterError, match=r"no target 'kind'; it has colour, type\."):
        measure(gallery, queries, ["type", "kind"])


def test_more_queries_than_are_searched_together(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(gallery, ITEMS, ["type"])
    monkeypatch.setattr("indexer.evaluation._QUERIES_AT_ONCE", 4)
    assert measure(gallery, ITEMS, ["type"]) == whole
