"""The sketch: it may let through too many and never too few."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer import searcher
from indexer.faiss_index import FaissIndex
from indexer.searcher import Searcher
from indexer.sketch import Sketch
from tests.indexer.fakes import make_store, rows_of, unit, unit_vectors


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 300),
    dimension=st.sampled_from([1, 2, 7, 64, 65, 200]),
    seed=st.integers(0, 2**32 - 1),
    distance=st.floats(0, 2),
    is_clustered=st.booleans(),
)
def test_no_row_within_the_distance_is_ruled_out(
    count: int, dimension: int, seed: int, distance: float, is_clustered: bool
) -> None:
    vectors = unit_vectors(count, dimension, seed=seed)
    if is_clustered:
        # Real embeddings are: few directions, many copies.
        vectors = unit(vectors[:1] * 3 + vectors)
    query = unit(vectors[:1] + 0.1 * unit_vectors(1, dimension, seed=seed ^ 1))[0]
    near = np.flatnonzero(1 - vectors @ query <= distance)
    assert set(near) <= set(Sketch(vectors).within(query, distance))


def test_infinitely_far_is_everything() -> None:
    vectors = unit_vectors(50, 8)
    np.testing.assert_array_equal(Sketch(vectors).within(vectors[3], np.inf), np.arange(50))


def test_most_of_what_is_far_is_ruled_out() -> None:
    """200 numbers of which 20 say nearly all, as those of photos do."""
    rng = np.random.default_rng(0)
    scale = np.where(np.arange(200) < 20, 1.0, 0.02)
    vectors = unit(rng.standard_normal((2000, 200)) * scale)
    query = unit(rng.standard_normal((1, 200)) * scale)[0]
    tenth = float(np.sort(1 - vectors @ query)[9])
    assert 10 <= len(Sketch(vectors).within(query, tenth)) < 40


@pytest.mark.parametrize("variant", ["hnsw", "ivf"])
@pytest.mark.parametrize("k", [1, 10, 300])
def test_a_sketched_tail_gives_what_a_whole_one_gives(
    tmp_path: Path, variant: str, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = unit_vectors(240, 16, seed=7)
    store = make_store(tmp_path / "gallery", vectors[:100])
    index = FaissIndex.build(store.snapshot(), variant)
    store.upsert(rows_of(vectors[100:], first=100))
    snapshot = store.snapshot()
    queries = np.concatenate([vectors[::60], unit_vectors(4, 16, seed=8)])
    wanted, exact = Searcher(snapshot, index).search(queries, k)
    monkeypatch.setattr(searcher, "_SKETCHED", 20)
    monkeypatch.setattr(searcher.Searcher, "_search_tail", lambda *_: pytest.fail("all of the tail was compared"))
    found, distances = Searcher(snapshot, index).search(queries, k)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(distances, exact, atol=1e-5)
