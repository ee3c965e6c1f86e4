"""Several processes on one gallery: readers see whole commits and only newer ones, and one writer writes at a time."""

from __future__ import annotations

import multiprocessing
import time
from collections import defaultdict
from multiprocessing.queues import Queue
from multiprocessing.sharedctypes import Synchronized, SynchronizedArray
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import numpy as np
import pytest

from data.catalog import CatalogItem
from indexer.edits import delete_items
from indexer.encoders import EncoderCard
from indexer.faiss_index import FAISS_FOLDER, FaissIndex
from indexer.pipeline import RunOptions, refresh
from indexer.renewal import refresh_index
from indexer.searcher import Searcher
from indexer.snapshot import GalleryLockedError, Snapshot
from indexer.store import Store, writing
from tests.indexer.fakes import FakeEncoder, catalog_of, draw_photo, make_store, rows_of, unit_vectors

# Lance does not survive a fork.
SPAWNED = multiprocessing.get_context("spawn")
SECONDS = 15.0
GROUPS, GROUP = 4, 16
DEFAULT_FRESHNESS = 5.0
MOST_VERSIONS = 5000
ROUNDS = 20


def group_items(group: int, batch: int) -> list[CatalogItem]:
    """A group of items that are only ever written together, and carry the number of the batch."""
    return [
        CatalogItem(f"{group}-{number:02}", Path(f"/{number}.jpg"), labels={"batch": (str(batch),)})
        for number in range(GROUP)
    ]


def write_batch(store: Store, batch: int) -> int:
    vectors = unit_vectors(GROUP, 8, seed=batch)
    return store.upsert(rows_of(vectors, group_items(batch % GROUPS, batch)))


def batches_in(snapshot: Snapshot) -> dict[str, str]:
    """The batch that each group is of; an error where it is of several or not all there."""
    groups = defaultdict(list)
    for row in snapshot.columns("item_id", "labels").to_pylist():
        groups[row["item_id"].partition("-")[0]].append(row["labels"][0])
    for group, batches in groups.items():
        assert len(batches) == GROUP, f"group {group} has {len(batches)} rows in version {snapshot.version}"
        assert len(set(batches)) == 1, f"group {group} is of several batches in version {snapshot.version}"
    return {group: batches[0] for group, batches in groups.items()}


def check_search(folder: Path, snapshot: Snapshot, card: EncoderCard) -> None:
    queries = unit_vectors(3, 8, seed=snapshot.version)
    rows, distances = Searcher(snapshot, FaissIndex.load(folder / FAISS_FOLDER, card)).search(queries, 5)
    exact_rows, exact_distances = Searcher(snapshot).search(queries, 5)
    # A graph of so few rows is complete.
    np.testing.assert_array_equal(rows, exact_rows)
    np.testing.assert_allclose(distances, exact_distances, atol=1e-6)


def read(
    folder: Path, freshness_s: float, committed: SynchronizedArray[float], is_over: Event, news: Queue[tuple[int, int]]
) -> None:
    """Reads all the time; raises where something is not as it must be."""
    store = Store(folder, freshness_s=freshness_s)
    reads, versions, newest = 0, set[int](), dict[str, int]()
    news.put((0, 0))
    while not is_over.is_set():
        old_enough = time.monotonic() - freshness_s
        known = np.array(committed.get_obj())
        expected = np.flatnonzero((known > 0) & (known <= old_enough)).max(initial=0)
        snapshot = store.snapshot()
        assert snapshot.version >= expected, f"version {snapshot.version}, {freshness_s} s after version {expected}"
        assert snapshot.version >= max(versions, default=0), "versions went back"
        versions.add(snapshot.version)
        for group, batch in batches_in(snapshot).items():
            assert int(batch) >= newest.get(group, 0), "batches went back"
            newest[group] = int(batch)
        check_search(folder, snapshot, store.card)
        reads += 1
    news.put((reads, len(versions)))


def test_readers_see_whole_commits_and_never_an_older_one(tmp_path: Path) -> None:
    folder = tmp_path / "gallery"
    store = make_store(folder, unit_vectors(GROUP, 8), group_items(0, 0))
    committed: SynchronizedArray[float] = SPAWNED.Array("d", MOST_VERSIONS)
    is_over, news = SPAWNED.Event(), SPAWNED.Queue()
    readers = [
        SPAWNED.Process(target=read, args=(folder, freshness_s, committed, is_over, news), daemon=True)
        for freshness_s in (0.0, DEFAULT_FRESHNESS)
    ]
    for reader in readers:
        reader.start()
    for _ in readers:
        news.get(timeout=60)
    end, batch = time.monotonic() + SECONDS, 0
    while time.monotonic() < end and all(reader.is_alive() for reader in readers):
        batch += 1
        with writing(folder):
            version = write_batch(store, batch)
            committed[version] = time.monotonic()
            if batch % 7 == 0:
                version = store.delete([item.item_id for item in group_items((batch + 1) % GROUPS, 0)])
                committed[version] = time.monotonic()
            if batch % 11 == 0:
                store.compact()
        if batch % 5 == 0:
            refresh_index(store.snapshot(), folder, "hnsw")
    is_over.set()
    for reader in readers:
        reader.join(60)
    assert [reader.exitcode for reader in readers] == [0, 0]
    for reads, versions in (news.get(timeout=10) for _ in readers):
        # Otherwise nothing was tried.
        assert reads >= 5
        assert versions >= 2
    assert batch >= 11


def write(who: str, folder: Path, photos: Path, barrier: Barrier, news: Queue[tuple[str, int, str]]) -> None:
    """Brings the gallery up to date in each round, at the same moment as the other writer."""
    encoder = FakeEncoder()
    for turn in range(ROUNDS):
        items = [CatalogItem(f"{who}-{turn}", photos / f"{who}.png"), CatalogItem("both", photos / f"{who}.png")]
        barrier.wait(60)
        try:
            # In every other round the second one waits.
            refresh(catalog_of(items), folder, encoder.lazy, RunOptions(wait_s=60.0 * (turn % 2)))
            news.put((who, turn, ""))
        except GalleryLockedError as error:
            news.put((who, turn, str(error)))


def test_of_two_writers_the_second_waits_or_fails_and_nothing_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "gallery"
    barrier, news = SPAWNED.Barrier(2), SPAWNED.Queue()
    for number, who in enumerate("ab"):
        draw_photo(tmp_path / f"{who}.png", number)
    writers = [SPAWNED.Process(target=write, args=(who, folder, tmp_path, barrier, news), daemon=True) for who in "ab"]
    for writer in writers:
        writer.start()
    told = [news.get(timeout=60) for _ in range(2 * ROUNDS)]
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    for who, turn, error in told:
        if error:
            assert turn % 2 == 0, f"{who} did not wait"
            assert error.startswith(f"Another process is writing to gallery {folder}. Wait for it to end, or pass")
    done = {f"{who}-{turn}" for who, turn, error in told if not error}
    assert len({name[2:] for name in done}) == ROUNDS, "in some round nobody wrote"
    held = Store(folder).snapshot().columns("item_id").column(0).to_pylist()
    assert sorted(held) == sorted({"both", *done})


def hold(folder: Path, is_held: Synchronized[int]) -> None:
    """Writes for ever."""
    with writing(folder):
        is_held.value = 1
        time.sleep(600)


@pytest.mark.parametrize("is_alive", [True, False])
def test_a_lock_lasts_as_long_as_its_process(tmp_path: Path, is_alive: bool) -> None:
    folder = tmp_path / "gallery"
    make_store(folder, unit_vectors(3, 4))
    is_held: Synchronized[int] = SPAWNED.Value("i", 0)
    holder = SPAWNED.Process(target=hold, args=(folder, is_held), daemon=True)
    holder.start()
    try:
        while not is_held.value:
            assert holder.is_alive()
            time.sleep(0.01)
        if is_alive:
            with pytest.raises(GalleryLockedError, match="Another process is writing to gallery"):
                delete_items(folder, ["i00000"])
            assert len(Store(folder).snapshot()) == 3
        else:
            holder.kill()
            holder.join()
            assert delete_items(folder, ["i00000"]) == 2
    finally:
        holder.kill()
        holder.join()
