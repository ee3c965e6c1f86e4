"""One contract for every way to search: a plain float64 loop over what the gallery should hold is the oracle."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.exact import exact_search, merge
from indexer.faiss_index import (
    _WANTED_RECALL,
    EXACT_LIMIT,
    FAISS_FOLDER,
    HNSW_LIMIT,
    FaissIndex,
    IndexCard,
    choose_variant,
)
from indexer.rows import Row
from indexer.searcher import QueryError, Searcher
from indexer.store import Store
from tests.indexer.fakes import card_of, item, make_store, rows_of, unit, unit_vectors

COUNT, DIMENSION = 2000, 32
CARD = card_of(DIMENSION)
VECTORS = unit_vectors(COUNT, DIMENSION, seed=1)
# Half of them near a row of the gallery, half anywhere.
QUERIES = unit(
    np.concatenate([VECTORS[:100:10] + 0.1 * unit_vectors(10, DIMENSION, seed=2), unit_vectors(10, DIMENSION, seed=3)])
)
# float32 against float64 over 32 products.
CLOSE = 1e-5
APPROXIMATE = {"hnsw", "ivf", "stale-hnsw", "stale-ivf"}


@dataclass
class Case:
    """A searcher, and what its gallery should hold whatever the table says: vectors by item_id."""

    name: str
    searcher: Searcher
    model: dict[str, NDArray[np.float32]]

    @cached_property
    def ids(self) -> list[str]:
        """The item_id of each row of the table."""
        return [str(name) for name in self.searcher.snapshot.columns("item_id").column(0).to_pylist()]

    @cached_property
    def vectors(self) -> list[NDArray[np.float64]]:
        """What each row of the table should hold."""
        return [self.model[item_id].astype(np.float64) for item_id in self.ids]

    def oracle(self, query: NDArray[np.float32], k: int, rows: set[int] | None = None) -> list[tuple[float, int]]:
        """(distance, row) of the k nearest, by distance and then by row, one at a time in float64."""
        pairs = []
        for row in range(len(self.vectors)):
            if rows is None or row in rows:
                pairs.append((self.distance(query, row), row))
        return sorted(pairs)[:k]

    def distance(self, query: NDArray[np.float32], row: int) -> float:
        """`1 - cosine` in float64."""
        return 1 - float(np.dot(self.vectors[row], query.astype(np.float64)))


def _model(vectors: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    return {f"i{number:05}": vector for number, vector in enumerate(vectors)}


def _move_on(store: Store, model: dict[str, NDArray[np.float32]]) -> None:
    """100 rows changed, 60 deleted, 80 added: 7 % of what the index holds is gone and 9 % of the rows are not in it."""
    fresh = unit_vectors(180, DIMENSION, seed=4)
    changed = [item(number) for number in range(0, 1000, 10)]
    added = [item(number) for number in range(COUNT, COUNT + 80)]
    store.upsert(rows_of(fresh[:100], changed))
    deleted = [f"i{number:05}" for number in range(1001, 1601, 10)]
    store.delete(deleted)
    store.upsert(rows_of(fresh[100:], added))
    for item_id in deleted:
        del model[item_id]
    model |= {one.item_id: vector for one, vector in zip(changed + added, fresh, strict=True)}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """All searchers over the same 2,000 random directions, or over what became of them after the FAISS build."""
    made = {}
    store = make_store(tmp_path_factory.mktemp("fresh") / "gallery", VECTORS)
    model = _model(VECTORS)
    indexes = {variant: FaissIndex.build(store.snapshot(), variant) for variant in ("hnsw", "ivf")}
    made["exact"] = Case("exact", Searcher(store.snapshot()), model)
    for variant, index in indexes.items():
        made[variant] = Case(variant, Searcher(store.snapshot(), index), model)
    moved = dict(model)
    _move_on(store, moved)
    made["stale-exact"] = Case("stale-exact", Searcher(store.snapshot()), moved)
    for variant, index in indexes.items():
        made[f"stale-{variant}"] = Case(f"stale-{variant}", Searcher(store.snapshot(), index), moved)
    # An index none of whose vectors is in the table any more.
    other = make_store(tmp_path_factory.mktemp("other") / "gallery", unit_vectors(COUNT, DIMENSION, seed=5))
    foreign = _model(unit_vectors(COUNT, DIMENSION, seed=5))
    made["foreign-hnsw"] = Case("foreign-hnsw", Searcher(other.snapshot(), indexes["hnsw"]), foreign)
    made["foreign-ivf"] = Case("foreign-ivf", Searcher(other.snapshot(), indexes["ivf"]), foreign)
    return made


NAMES = ("exact", "hnsw", "ivf", "stale-exact", "stale-hnsw", "stale-ivf", "foreign-hnsw", "foreign-ivf")


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


def check_answer(case: Case, queries: NDArray[np.float32], k: int, rows: NDArray[np.int64] | None = None) -> None:
    """Ids and distances are the oracle's; an approximate index may miss a few, but each distance is true."""
    found, distances = case.searcher.search(queries, k, rows=rows)
    assert found.shape == distances.shape == (len(queries), k)
    assert (found.dtype, distances.dtype) == (np.int64, np.float32)
    allowed = None if rows is None else set(rows.tolist())
    exists = min(k, len(case.model) if allowed is None else len(allowed))
    right = 0
    for query, got, far in zip(queries, found, distances, strict=True):
        assert (got[:exists] >= 0).all(), "k come back whenever k exist"
        assert (got[exists:] == -1).all()
        assert np.isposinf(far[exists:]).all()
        assert len(set(got[:exists].tolist())) == exists, "no row twice"
        assert allowed is None or set(got[:exists].tolist()) <= allowed
        assert (np.diff(far[:exists]) >= 0).all()
        true = [case.distance(query, int(row)) for row in got[:exists]]
        np.testing.assert_allclose(far[:exists], true, atol=CLOSE)
        wanted = case.oracle(query, k, allowed)
        if case.name in APPROXIMATE:
            right += len({row for _, row in wanted} & set(got.tolist()))
        else:
            right += exists
            assert got[:exists].tolist() == [row for _, row in wanted]
            np.testing.assert_allclose(far[:exists], [distance for distance, _ in wanted], atol=CLOSE)
    assert right >= 0.95 * exists * len(queries)


def test_the_case_is_what_its_name_says(case: Case) -> None:
    """Or the contract below would be one test eight times over."""
    searcher, is_exact = case.searcher, case.name.endswith("exact")
    assert searcher.variant == case.name.rpartition("-")[2]
    expected = {"stale": 180, "foreign": COUNT}.get(case.name.partition("-")[0], 0)
    assert searcher.tail_rows == (0 if is_exact else expected)
    assert sorted(case.ids) == sorted(case.model)


def test_ids_and_distances_are_the_oracles(case: Case) -> None:
    check_answer(case, QUERIES, 10)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 1.0])
def test_only_the_rows_of_a_filter_compete(case: Case, share: float) -> None:
    count = len(case.model)
    rows = np.random.default_rng(6).choice(count, int(share * count), replace=False).astype(np.int64)
    check_answer(case, QUERIES[5:15], 10, np.sort(rows))


def test_a_prepared_filter_is_the_filter(case: Case) -> None:
    rows = np.arange(3, len(case.model), 7)
    selection = case.searcher.select(rows)
    wanted = case.searcher.search(QUERIES, 10, rows=rows)
    for _ in range(2):
        found = case.searcher.search(QUERIES, 10, selection=selection)
        assert found[0].tolist() == wanted[0].tolist()
        assert found[1].tolist() == wanted[1].tolist()


def test_one_row_competes(case: Case) -> None:
    for row in (0, len(case.model) // 2, len(case.model) - 1):
        check_answer(case, QUERIES[:2], 3, np.array([row]))


def test_more_neighbours_than_rows(case: Case) -> None:
    count = len(case.model)
    found, distances = case.searcher.search(QUERIES[:2], count + 5)
    for got, far in zip(found, distances, strict=True):
        assert sorted(got[:count].tolist()) == list(range(count))
        assert got[count:].tolist() == [-1] * 5
        assert far[count:].tolist() == [np.inf] * 5
        assert (np.diff(far[:count]) >= 0).all()


def test_each_row_finds_itself_first(case: Case) -> None:
    rows = np.arange(0, len(case.model), 37)
    found, distances = case.searcher.search(case.searcher.snapshot.embeddings(rows), 1)
    if case.name in APPROXIMATE:
        assert np.mean(found[:, 0] == rows) >= 0.98
    else:
        assert found[:, 0].tolist() == rows.tolist()
    np.testing.assert_allclose(distances[found[:, 0] == rows], 0, atol=1e-6)
    assert (distances >= 0).all()


def test_the_opposite_direction_is_at_two(case: Case) -> None:
    row = 123
    found, distances = case.searcher.search(-case.searcher.snapshot.embeddings(np.array([row])), len(case.model))
    assert found[0, -1] == row
    np.testing.assert_allclose(distances[0, -1], 2, atol=1e-6)
    assert distances.max() <= 2


def test_many_queries_are_answered_as_one_by_one(case: Case) -> None:
    found, distances = case.searcher.search(QUERIES, 10)
    for number, query in enumerate(QUERIES):
        one, far = case.searcher.search(query[None], 10)
        assert one[0].tolist() == found[number].tolist()
        np.testing.assert_allclose(far[0], distances[number], atol=1e-6)


def test_no_query_is_no_answer(case: Case) -> None:
    found, distances = case.searcher.search(np.empty((0, DIMENSION), np.float32), 3)
    assert found.shape == distances.shape == (0, 3)


NAN = np.full((1, DIMENSION), np.nan, np.float32)
ZERO = np.zeros((1, DIMENSION), np.float32)
INF = np.where(np.arange(DIMENSION) == 3, np.inf, 0).astype(np.float32)[None]


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (ZERO, 3, r"unit length and finite; got a length of 0\."),
        (NAN, 3, r"unit length and finite; got a length of nan\."),
        (INF, 3, r"unit length and finite; got a length of inf\."),
        (2 * VECTORS[:1], 3, r"unit length and finite; got a length of 2\."),
        # The message names the length of the one that is wrong.
        (np.concatenate([VECTORS[:2], ZERO]), 3, r"got a length of 0\."),
        (VECTORS[:1, :31], 3, r"holds 32-number embeddings \(fake-histogram\); the query has shape \(1, 31\)"),
        (VECTORS[0], 3, r"the query has shape \(32,\)"),
        (VECTORS[:1], 0, r"k is the number of neighbours, 1 or more; got 0"),
        (VECTORS[:1], -1, r"1 or more; got -1"),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused(
    case: Case, queries: NDArray[np.float32], k: int, message: str
) -> None:
    with pytest.raises(QueryError, match=message):
        case.searcher.search(queries, k)


@pytest.mark.parametrize("name", ["stale-hnsw", "stale-ivf", "stale-exact"])
def test_deleted_rows_never_come_back_and_changed_ones_only_with_their_new_vector(
    cases: dict[str, Case], name: str
) -> None:
    case = cases[name]
    ids = case.ids
    deleted = np.arange(1001, 1601, 10)
    found, distances = case.searcher.search(VECTORS[deleted], 5)
    assert not {ids[row] for row in found.ravel()} & {f"i{number:05}" for number in deleted}
    # Random directions in 32 dimensions are far from each other: nothing is where a deleted vector was.
    assert distances.min() > 0.1
    changed = np.arange(0, 1000, 10)
    old, _ = case.searcher.search(VECTORS[changed], 1)
    assert not [number for number, (row,) in zip(changed, old, strict=True) if ids[row] == f"i{number:05}"]
    new, distances = case.searcher.search(unit_vectors(180, DIMENSION, seed=4)[:100], 1)
    assert [ids[row] for (row,) in new] == [f"i{number:05}" for number in changed]
    np.testing.assert_allclose(distances, 0, atol=1e-6)


@pytest.mark.parametrize("variant", ["hnsw", "ivf"])
@pytest.mark.parametrize("way", ["walk", "scan", "its own"])
def test_a_filter_far_from_the_query_still_gives_k(
    tmp_path: Path, variant: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lumps, the query in one and every allowed row in the other: a walk that only looks near it finds none."""
    near, count = 1200, 6000
    rng = np.random.default_rng(7)
    points = rng.normal(size=(count, 16))
    points[:near, 0] += 6
    points[near:, 0] -= 6
    vectors = unit(points)
    store = make_store(tmp_path / "gallery", vectors, commit=count)
    case = Case(variant, Searcher(store.snapshot(), FaissIndex.build(store.snapshot(), variant)), _model(vectors))
    if way != "its own":
        # Which way is cheaper changes with size; both must be right.
        monkeypatch.setattr(FaissIndex, "_scan_is_cheaper", lambda *_: way == "scan")
    for share in (0.75, 0.3, 0.05):
        rows = np.sort(rng.choice(np.arange(near, count), int(share * count), replace=False))
        check_answer(case, vectors[[0, 1, near - 1, near, count - 1]], 10, rows)


@pytest.mark.parametrize("variant", ["hnsw", "ivf"])
def test_a_photo_many_times_over_gives_k_all_the_same(tmp_path: Path, variant: str) -> None:
    """Equal vectors link only to each other in a graph, so that a walk among them cannot leave."""
    vectors = np.concatenate([np.repeat(unit_vectors(1, 16, seed=8), 300, axis=0), unit_vectors(300, 16, seed=9)])
    store = make_store(tmp_path / "gallery", vectors)
    searcher = Searcher(store.snapshot(), FaissIndex.build(store.snapshot(), variant))
    for k in (10, 310, 600, 700):
        found, distances = searcher.search(vectors[[0, 400]], k)
        assert [len(set(row[row >= 0].tolist())) for row in found] == [min(k, 600)] * 2
        assert (distances[0, :10] < 1e-6).all()
        assert (distances[0, 300 : min(k, 600)] > 0.01).all()


def test_equal_distances_stand_in_row_order(tmp_path: Path) -> None:
    """Each of 40 directions 25 times, scattered: the order is by row alone, and so is what the k-th place cuts off."""
    directions = unit_vectors(40, DIMENSION, seed=10)
    which = np.random.default_rng(11).permutation(np.repeat(np.arange(40), 25))
    store = make_store(tmp_path / "gallery", directions[which])
    searcher = Searcher(store.snapshot())
    for k in (1, 7, 25, 1000):
        found, _ = searcher.search(directions, k)
        for direction, got in enumerate(found):
            same = np.flatnonzero(which == direction)
            assert got[: min(k, 25)].tolist() == same[: min(k, 25)].tolist()


def test_merging_keeps_order_and_padding() -> None:
    left = (np.array([[4, 1, -1]]), np.array([[0.1, 0.5, np.inf]], np.float32))
    right = (np.array([[0, 2, 9]]), np.array([[0.1, 0.2, 0.5]], np.float32))
    rows, distances = merge([left, right], 4)
    # 0.1 twice and 0.5 twice: the lower row stands first, and 9 falls off the end.
    assert rows.tolist() == [[0, 4, 2, 1]]
    np.testing.assert_array_equal(distances, np.array([[0.1, 0.1, 0.2, 0.5]], np.float32))
    rows, distances = merge([left, left], 6)
    assert rows.tolist() == [[4, 4, 1, 1, -1, -1]]
    assert np.isposinf(distances[0, 4:]).all()


def test_exact_search_in_blocks_is_exact_search(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = exact_search(VECTORS, QUERIES, 7)
    # Three queries a block, the last block with fewer.
    monkeypatch.setattr("indexer.exact._BLOCK", 3 * COUNT)
    blocked = exact_search(VECTORS, QUERIES, 7)
    assert blocked[0].tolist() == whole[0].tolist()
    np.testing.assert_allclose(blocked[1], whole[1], atol=1e-6)


@pytest.mark.parametrize("is_emptied", [False, True])
def test_an_empty_gallery_has_no_neighbours(tmp_path: Path, cases: dict[str, Case], is_emptied: bool) -> None:
    store = make_store(tmp_path / "gallery", VECTORS[:2] if is_emptied else VECTORS[:0])
    if is_emptied:
        store.delete(["i00000", "i00001"])
    for index in (None, cases["hnsw"].searcher.index, cases["ivf"].searcher.index):
        for rows in (None, np.empty(0, np.int64)):
            found, distances = Searcher(store.snapshot(), index).search(VECTORS[:2], 3, rows=rows)
            assert found.tolist() == [[-1] * 3] * 2
            assert distances.tolist() == [[np.inf] * 3] * 2


def test_one_row_in_each_variant(tmp_path: Path) -> None:
    store = make_store(tmp_path / "gallery", VECTORS[:1])
    for variant in ("hnsw", "ivf"):
        index = FaissIndex.build(store.snapshot(), variant)
        found, distances = Searcher(store.snapshot(), index).search(VECTORS[:2], 2)
        assert found.tolist() == [[0, -1]] * 2
        np.testing.assert_allclose(distances[:, 0], [0, 1 - float(VECTORS[0] @ VECTORS[1])], atol=CLOSE)


@pytest.mark.parametrize("variant", ["hnsw", "ivf"])
def test_a_saved_index_answers_as_before(tmp_path: Path, cases: dict[str, Case], variant: str) -> None:
    searcher = cases[f"stale-{variant}"].searcher
    assert searcher.index is not None
    folder = tmp_path / "gallery" / FAISS_FOLDER
    folder.parent.mkdir()
    FaissIndex(searcher.index._mapped, searcher.index.card).save(folder)
    (path,) = folder.glob("*.faiss")
    loaded = FaissIndex.load(folder, CARD)
    assert loaded is not None
    assert loaded.card == FaissIndex.newest_card(folder, CARD)
    assert sorted(file.name for file in folder.iterdir()) == [path.name, path.with_suffix(".json").name]
    wanted = searcher.search(QUERIES, 10)
    found = Searcher(searcher.snapshot, loaded).search(QUERIES, 10)
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """200 rows with a saved index of each variant in folders beside."""
    store = make_store(tmp_path_factory.mktemp("small") / "gallery", VECTORS[:200])
    for variant in ("hnsw", "ivf"):
        FaissIndex.build(store.snapshot(), variant).save(store.folder / variant)
    return store


def _truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flip_in_a_vector(content: bytes) -> bytes:
    """One bit in the middle, which FAISS itself does not notice."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("variant", ["hnsw", "ivf"])
@pytest.mark.parametrize("damage", [_truncate, _flip_in_a_vector, lambda _: b"", lambda content: content + b"\0"])
def test_a_damaged_index_is_not_loaded_and_the_answers_stay_right(
    tmp_path: Path, small: Store, variant: str, damage: Callable[[bytes], bytes]
) -> None:
    for path in (small.folder / variant).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert FaissIndex.load(tmp_path, CARD) is not None
    (path,) = tmp_path.glob("*.faiss")
    path.write_bytes(damage(path.read_bytes()))
    assert FaissIndex.load(tmp_path, CARD) is None
    case = Case("exact", Searcher(small.snapshot(), FaissIndex.load(tmp_path, CARD)), _model(VECTORS[:200]))
    check_answer(case, QUERIES[:5], 10)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"variant": "hnsw"}', "\0\0"])
def test_a_damaged_card_is_not_loaded(tmp_path: Path, small: Store, content: str) -> None:
    for path in (small.folder / "hnsw").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (path,) = tmp_path.glob("*.json")
    path.write_text(content)
    assert FaissIndex.load(tmp_path, CARD) is None
    assert FaissIndex.newest_card(tmp_path, CARD) is None


def test_no_folder_is_no_index(tmp_path: Path) -> None:
    assert FaissIndex.load(tmp_path / "none", CARD) is None
    FaissIndex.remove(tmp_path / "none")


def test_a_file_left_by_a_killed_run_is_ignored_and_cleared_away(tmp_path: Path, small: Store) -> None:
    folder = tmp_path / "faiss"
    folder.mkdir()
    (folder / "hnsw-99.tmp").write_bytes(b"half an index")
    # Its card was not written yet.
    (folder / "hnsw-98.faiss").write_bytes(b"an index without a card")
    assert FaissIndex.load(folder, CARD) is None
    FaissIndex.build(small.snapshot(), "hnsw").save(folder)
    (path,) = folder.glob("*.faiss")
    assert sorted(file.name for file in folder.iterdir()) == [path.name, path.with_suffix(".json").name]


def test_who_was_overtaken_while_building_writes_nothing(tmp_path: Path, small: Store) -> None:
    folder = tmp_path / "faiss"
    older = FaissIndex.build(small.snapshot(), "hnsw")
    newer = FaissIndex(older._mapped, replace(older.card, version=older.card.version + 3))
    newer.save(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    older.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_index_of_another_encoder_is_not_loaded(tmp_path: Path, small: Store) -> None:
    FaissIndex.build(small.snapshot(), "hnsw").save(tmp_path)
    assert FaissIndex.load(tmp_path, CARD) is not None
    assert FaissIndex.load(tmp_path, replace(CARD, weights_sha256="1" * 64)) is None


def test_the_newest_whole_index_is_loaded(tmp_path: Path, small: Store) -> None:
    """The card of the newest is taken, or where its file is damaged the one before it."""
    for version in (9, 10, 2):
        for path in (small.folder / "hnsw").iterdir():
            copy = tmp_path / f"hnsw-{version}{path.suffix}"
            copy.write_bytes(path.read_bytes())
        card = json.loads(copy.with_suffix(".json").read_text())
        card = asdict(replace(IndexCard(**card), version=version).sealed())
        copy.with_suffix(".json").write_text(json.dumps(card))
    newest = FaissIndex.load(tmp_path, CARD)
    assert newest is not None
    assert newest.card.version == 10
    (tmp_path / "hnsw-10.faiss").write_bytes(b"")
    before = FaissIndex.load(tmp_path, CARD)
    assert before is not None
    assert before.card.version == 9


def test_an_index_that_cannot_be_written_leaves_the_earlier_one(
    tmp_path: Path, small: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    FaissIndex.build(small.snapshot(), "hnsw").save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def refuse(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("indexer.faiss_index.fsync", refuse)
    with pytest.raises(RuntimeError, match=r"FAISS index of .* could not be written: There is no room on the disk"):
        FaissIndex.build(small.snapshot(), "ivf").save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_measured_recall_is_what_is_measured(cases: dict[str, Case]) -> None:
    """The card's figure against one of our own, over queries that are no rows: the effort was chosen to reach it."""
    queries = unit_vectors(1000, DIMENSION, seed=12)
    wanted, _ = exact_search(VECTORS, queries, 10)
    for variant in ("hnsw", "ivf"):
        index, snapshot = cases[variant].searcher.index, cases[variant].searcher.snapshot
        assert index is not None
        assert (index.card.rows, index.card.version) == (COUNT, snapshot.version)
        assert sorted(index.vector_keys) == sorted(snapshot.columns("vector_key").column(0).to_pylist())
        found, _ = Searcher(snapshot, index).search(queries, 10)
        recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, wanted, strict=True)])
        assert abs(recall - index.card.index_recall_at_10) < 0.01
        assert index.card.index_recall_at_10 >= _WANTED_RECALL


def test_the_variant_is_chosen_by_size() -> None:
    # 2**26 numbers are 131,072 rows of 512, and 2**30 are 2,097,152.
    assert (EXACT_LIMIT, HNSW_LIMIT) == (131_072 * 512, 2_097_152 * 512)
    assert choose_variant(0, 512) == "exact"
    assert choose_variant(131_072, 512) == "exact"
    assert choose_variant(131_073, 512) == "hnsw"
    assert choose_variant(2_097_152, 512) == "hnsw"
    assert choose_variant(2_097_153, 512) == "ivf"


def test_a_vector_that_comes_back_is_found_in_the_index_again(tmp_path: Path) -> None:
    """A row that changes and changes back has its old key, so the index holds it again; nothing comes twice."""
    store = make_store(tmp_path / "gallery", VECTORS[:300])
    index = FaissIndex.build(store.snapshot(), "hnsw")
    store.upsert([Row(item(5), "other", 1, 1, VECTORS[1000])])
    assert Searcher(store.snapshot(), index).tail_rows == 1
    store.upsert([Row(item(5), "hash", 1, 1, VECTORS[5])])
    searcher = Searcher(store.snapshot(), index)
    assert searcher.tail_rows == 0
    check_answer(Case("exact", searcher, _model(VECTORS[:300])), VECTORS[:10], 5)


def test_the_same_vector_under_another_item_is_another_row(tmp_path: Path) -> None:
    """An index of one item's vector must not stand for another item that has the same photo."""
    store = make_store(tmp_path / "gallery", VECTORS[:50])
    index = FaissIndex.build(store.snapshot(), "hnsw")
    store.delete(["i00003"])
    store.upsert([Row(item(77), "hash", 1, 1, VECTORS[3])])
    searcher = Searcher(store.snapshot(), index)
    assert searcher.tail_rows == 1
    found, distances = searcher.search(VECTORS[3:4], 2)
    ids = searcher.snapshot.columns("item_id").column(0).to_pylist()
    assert ids[found[0, 0]] == "i00077"
    assert distances[0, 1] > 0.1


def test_the_card_decides_the_dimension(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "gallery", card_of(5), freshness_s=0)
    store.upsert(rows_of(unit_vectors(3, 5)))
    assert Searcher(store.snapshot()).search(unit_vectors(1, 5), 3)[0].shape == (1, 3)
