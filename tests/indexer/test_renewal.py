"""Renewal: small changes leave an index alone, larger ones extend it, and only poor ones are built anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexer import renewal
from indexer.exact import exact_search
from indexer.faiss_index import FAISS_FOLDER, FaissIndex
from indexer.renewal import is_outdated, refresh_index, renewed, variant_for
from indexer.searcher import Searcher
from indexer.store import Store
from tests.indexer.fakes import make_store, rows_of, unit_vectors

DIMENSION = 16
VECTORS = unit_vectors(400, DIMENSION, seed=3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """200 rows with an index of all of them."""
    store = make_store(tmp_path / "gallery", VECTORS[:200])
    assert refresh_index(store.snapshot(), store.folder, "hnsw") == "hnsw"
    return store


def index_of(store: Store) -> FaissIndex:
    index = FaissIndex.load(store.folder / FAISS_FOLDER, store.card)
    assert index is not None
    return index


def test_up_to_a_twentieth_missing_is_a_tail(store: Store) -> None:
    before = index_of(store).card
    assert before.measured_rows == 200
    # 10 of 210 are less than 5 %.
    store.upsert(rows_of(VECTORS[200:210], first=200))
    assert index_of(store).drift(store.snapshot()) == (10, 0)
    assert Searcher(store.snapshot(), index_of(store)).drift == (10, 0)
    assert not is_outdated(index_of(store), store.snapshot())
    refresh_index(store.snapshot(), store.folder, "hnsw")
    assert index_of(store).card == before
    # 11 of 211 are more.
    store.upsert(rows_of(VECTORS[210:211], first=210))
    assert is_outdated(index_of(store), store.snapshot())
    assert not is_outdated(index_of(store), store.snapshot(), tail_share=0.06)


def test_a_long_tail_is_too_much_whatever_its_share(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.upsert(rows_of(VECTORS[200:203], first=200))
    monkeypatch.setattr(renewal, "TAIL_NUMBERS", 3 * DIMENSION)
    assert not is_outdated(index_of(store), store.snapshot())
    monkeypatch.setattr(renewal, "TAIL_NUMBERS", 3 * DIMENSION - 1)
    assert is_outdated(index_of(store), store.snapshot())


def test_what_is_missing_is_added_and_nothing_is_built_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.upsert(rows_of(VECTORS[200:300], first=200))
    # Ten rows changed: their old vectors stay in the index, masked.
    store.upsert(rows_of(VECTORS[300:310], first=0))
    before = index_of(store)
    monkeypatch.setattr(FaissIndex, "build", lambda *_: pytest.fail("built anew"))
    refresh_index(store.snapshot(), store.folder, "hnsw")
    after = index_of(store)
    assert (after.card.rows, after.card.measured_rows, after.card.version) == (310, 200, store.version)
    assert after.card.effort == before.card.effort
    assert after.drift(store.snapshot()) == (0, 10)
    # The one at hand is as it was: it may be searched at this moment.
    assert len(before.vector_keys) == 200
    snapshot = store.snapshot()
    searcher = Searcher(snapshot, after)
    assert searcher.drift == after.drift(snapshot)
    matrix = snapshot.embeddings()
    found, distances = searcher.search(VECTORS, 5)
    wanted, exact = exact_search(matrix, VECTORS, 5)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(distances, exact, atol=1e-5)


def test_a_fifth_gone_or_half_as_much_again_is_built_anew(store: Store) -> None:
    store.delete([f"i{number:05}" for number in range(40)])
    # 40 of 200 vectors are stale: no more than a fifth.
    assert not is_outdated(index_of(store), store.snapshot())
    store.delete(["i00040"])
    assert is_outdated(index_of(store), store.snapshot())
    refresh_index(store.snapshot(), store.folder, "hnsw")
    assert index_of(store).drift(store.snapshot()) == (0, 0)
    assert index_of(store).card.measured_rows == 159
    # 239 rows are more than 1.5 times 159, in steps that each would be a tail to extend.
    store.upsert(rows_of(VECTORS[200:279], first=200))
    extended = renewed(index_of(store), store.snapshot(), "hnsw")
    assert (extended.card.rows, extended.card.measured_rows) == (238, 159)
    store.upsert(rows_of(VECTORS[279:280], first=279))
    assert renewed(extended, store.snapshot(), "hnsw").card.measured_rows == 239


def test_ivf_is_extended_too(tmp_path: Path) -> None:
    store = make_store(tmp_path / "gallery", VECTORS[:300])
    refresh_index(store.snapshot(), store.folder, "ivf")
    store.upsert(rows_of(VECTORS[300:], first=300))
    refresh_index(store.snapshot(), store.folder, "ivf")
    assert (index_of(store).card.rows, index_of(store).card.measured_rows) == (400, 300)
    found, _ = Searcher(store.snapshot(), index_of(store)).search(VECTORS[300:], 1)
    names = store.snapshot().columns("item_id").column(0).to_pylist()
    assert [names[row] for row in found[:, 0]] == [f"i{number:05}" for number in range(300, 400)]


def test_a_damaged_index_and_another_variant_are_built_anew(store: Store) -> None:
    (path,) = (store.folder / FAISS_FOLDER).glob("*.faiss")
    path.write_bytes(path.read_bytes()[:-1])
    refresh_index(store.snapshot(), store.folder, "hnsw")
    assert index_of(store).card.rows == 200
    assert renewed(index_of(store), store.snapshot(), "ivf").card.variant == "ivf"
    # Small galleries are searched exactly by themselves.
    assert variant_for(store.snapshot()) == refresh_index(store.snapshot(), store.folder) == "exact"
    assert list((store.folder / FAISS_FOLDER).iterdir()) == []


def test_an_empty_gallery_wants_no_index(tmp_path: Path) -> None:
    store = make_store(tmp_path / "gallery", VECTORS[:1])
    store.delete(["i00000"])
    assert variant_for(store.snapshot(), "hnsw") == "exact"
