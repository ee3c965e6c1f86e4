"""The store: what is written is what is read, durably, by one writer at a time, and what goes wrong is a sentence."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from data.catalog import Box, CatalogItem
from indexer.lance_files import versions_of
from indexer.rows import GALLERY_VERSION, item_of, key_of, metadata_key, table_schema, vector_key
from indexer.snapshot import GalleryDamagedError, GalleryLockedError, GalleryNotFoundError, StoreError, translated
from indexer.store import Store, writing
from tests.indexer.fakes import CARD, card_of, item, make_store, rows_of, unit_vectors

ROOT = Path(__file__).parents[2]
VECTORS = unit_vectors(20, 4)
FULL = CatalogItem(
    item_id="ä'1",
    image=Path("/photos/a b.jpg"),
    product_id="p",
    labels={"colour": ("red", "blue"), "type": ("dress",)},
    box=Box(0.1, 0.2, 0.3, 0.4),
    split="train",
    source_row=7,
)


def contents(store: Store) -> dict[str, list[float]]:
    """Embeddings by item_id, each column read on its own."""
    snapshot = store.snapshot()
    names = snapshot.columns("item_id").column(0).to_pylist()
    assert len(set(names)) == len(names) == len(snapshot)
    return dict(zip(names, snapshot.embeddings().tolist(), strict=True))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "gallery", card_of(4), freshness_s=0)
    items = [FULL, CatalogItem("2", b"\x89PNG bytes"), item(3)]
    store.upsert(rows_of(VECTORS[:3], items))
    for opened in (store, Store(store.folder), Store(store.folder, freshness_s=0)):
        snapshot = opened.snapshot()
        names = ["item_id", "product_id", "image", "image_bytes", "targets", "labels", "box", "split"]
        read = [item_of(row) for row in snapshot.columns(*names).to_pylist()]
        # The row of the catalog is for messages and not stored.
        assert read == [replace(FULL, source_row=None), *items[1:]]
        np.testing.assert_array_equal(snapshot.embeddings(), VECTORS[:3])
        assert opened.card == snapshot.card == card_of(4)
        keys = snapshot.columns("metadata_key", "vector_key", "content_hash", "file_size", "file_mtime_ns").to_pylist()
        for row, one, vector in zip(keys, items, VECTORS, strict=False):
            assert row["metadata_key"] == metadata_key(one)
            assert row["vector_key"] == vector_key(one.item_id, vector)
            assert (row["content_hash"], row["file_size"], row["file_mtime_ns"]) == (f"hash of {one.item_id}", 100, 1)


def test_an_item_written_again_is_replaced_and_never_doubled(tmp_path: Path) -> None:
    store = make_store(tmp_path / "gallery", VECTORS[:10])
    for seed in range(5):
        again = [item(number) for number in range(seed, seed + 10, 3)]
        store.upsert(rows_of(VECTORS[10 + seed : 10 + seed + len(again)], again))
        found = contents(store)
        for offset, one in enumerate(again):
            assert found[one.item_id] == VECTORS[10 + seed + offset].tolist()
    assert sorted(found) == [f"i{number:05}" for number in range(14)]


def test_a_batch_with_one_item_twice_is_refused(tmp_path: Path) -> None:
    """Lance would insert both."""
    store = make_store(tmp_path / "gallery", VECTORS[:2])
    with pytest.raises(AssertionError, match="one item twice"):
        store.upsert(rows_of(VECTORS[:2], [item(7), item(7)]))
    assert sorted(contents(store)) == ["i00000", "i00001"]


def test_the_version_grows_with_each_commit(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "gallery", card_of(4), freshness_s=0)
    versions = [store.version]
    for number in range(3):
        returned = store.upsert(rows_of(VECTORS[number : number + 1], first=number))
        versions.append(store.version)
        assert returned == store.version == store.snapshot().version
    assert versions == sorted(set(versions))


def test_a_snapshot_holds_still_while_the_store_moves_on(tmp_path: Path) -> None:
    store = make_store(tmp_path / "gallery", VECTORS[:10])
    snapshot = store.snapshot()
    names = snapshot.columns("item_id").column(0).to_pylist()
    store.upsert(rows_of(VECTORS[10:], first=5))
    store.delete(["i00001"])
    store._table.optimize()
    assert len(snapshot) == 10
    assert snapshot.version < store.version
    assert snapshot.columns("item_id").column(0).to_pylist() == names
    np.testing.assert_array_equal(snapshot.embeddings(), VECTORS[:10])
    np.testing.assert_array_equal(snapshot.embeddings(np.array([7, 1])), VECTORS[[7, 1]])
    assert [row["item_id"] for row in snapshot.take(np.array([7, 1]), "item_id")] == ["i00007", "i00001"]
    assert len(store.snapshot()) == 14


def test_rows_are_the_same_rows_in_every_way_of_reading(tmp_path: Path) -> None:
    """Columns, batches, and single rows in any order and twice, after deletions and changes."""
    store = make_store(tmp_path / "gallery", unit_vectors(300, 4), commit=70)
    store.delete([f"i{number:05}" for number in range(3, 300, 7)])
    store.upsert(rows_of(unit_vectors(60, 4, seed=2), first=270))
    store.delete(["i00280", "i00299"])
    snapshot = store.snapshot()
    names = snapshot.columns("item_id").column(0).to_pylist()
    matrix = snapshot.embeddings()
    assert len(snapshot) == len(names) == len(matrix)
    batched = [name for batch in snapshot.batches("item_id") for name in batch.column(0).to_pylist()]
    assert batched == names
    rows = np.random.default_rng(1).integers(0, len(names), 500)
    np.testing.assert_array_equal(snapshot.embeddings(rows), matrix[rows])
    taken = snapshot.take(rows, "item_id", "vector_key")
    assert [row["item_id"] for row in taken] == [names[row] for row in rows]
    assert [row["vector_key"] for row in taken] == [vector_key(names[row], matrix[row]) for row in rows]
    none = np.empty(0, np.int64)
    assert (snapshot.take(none, "item_id"), snapshot.embeddings(none).shape) == ([], (0, 4))


def test_another_process_commit_is_seen_at_once_or_when_asked_to(tmp_path: Path) -> None:
    store = make_store(tmp_path / "gallery", VECTORS[:3])
    late, fresh = Store(store.folder, freshness_s=3600), Store(store.folder, freshness_s=0)
    assert len(late.snapshot()) == len(fresh.snapshot()) == 3
    Store(store.folder, freshness_s=0).upsert(rows_of(VECTORS[3:5], first=3))
    assert (len(late.snapshot()), len(fresh.snapshot())) == (3, 5)


def test_many_small_commits_are_merged_without_loss(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "gallery", card_of(4), freshness_s=0)
    vectors = unit_vectors(60, 4)
    for number in range(30):
        store.upsert(rows_of(vectors[number : number + 1], first=number))
    before = store.version
    store.optimize()
    assert store.version == before, "30 fragments are few enough"
    for number in range(30, 45):
        store.upsert(rows_of(vectors[number : number + 1], first=number))
    store.upsert(rows_of(vectors[50:60], first=0))
    order = list(contents(store))
    snapshot = store.snapshot()
    store.optimize()
    assert store.version > before
    assert store._table.stats()["fragment_stats"]["num_fragments"] <= 2
    expected = {f"i{number:05}": vectors[number] for number in range(45)}
    expected |= {f"i{number:05}": vectors[50 + number] for number in range(10)}
    assert contents(store) == {name: vector.tolist() for name, vector in expected.items()}
    assert list(contents(store)) == order
    # A reader of the version before goes on.
    assert snapshot.columns("item_id").column(0).to_pylist() == order
    store.upsert(rows_of(vectors[:1], first=3))
    assert len(contents(store)) == 45


def test_the_version_that_was_the_newest_until_now_stays_readable(tmp_path: Path) -> None:
    """Lance would count from its commit, which may be days ago while a reader holds it."""
    store = make_store(tmp_path / "gallery", VECTORS[:5])
    held = store.snapshot()
    # Lance has the clock of the commit, so this test has to wait.
    time.sleep(1.2)
    store.upsert(rows_of(VECTORS[5:6], first=5))
    store.compact(timedelta(seconds=1))
    np.testing.assert_array_equal(held.embeddings(), VECTORS[:5])
    time.sleep(2.2)
    store.upsert(rows_of(VECTORS[6:7], first=6))
    store.compact(timedelta(seconds=1))
    assert held.version not in versions_of(store.table_folder)
    assert len(store.snapshot()) == 7


def test_a_folder_without_a_gallery(tmp_path: Path) -> None:
    with pytest.raises(
        GalleryNotFoundError, match=r"no gallery: it has no items\.lance\. Make one with `modiste index"
    ):
        Store(tmp_path / "none")
    with pytest.raises(GalleryNotFoundError, match="is no gallery"):
        Store(tmp_path)


def test_a_table_that_is_not_ours(tmp_path: Path) -> None:
    lancedb.connect(tmp_path / "other").create_table("items", pa.table({"id": [1]}))
    with pytest.raises(GalleryNotFoundError, match="a Lance table that is not Modiste's: it has no encoder card"):
        Store(tmp_path / "other")


def test_a_gallery_of_a_later_modiste(tmp_path: Path) -> None:
    schema = table_schema(CARD)
    later = {**schema.metadata, b"modiste.gallery_version": str(GALLERY_VERSION + 1).encode()}
    lancedb.connect(tmp_path / "later").create_table("items", schema=schema.with_metadata(later))
    with pytest.raises(
        StoreError, match=rf"later Modiste \(gallery version {GALLERY_VERSION + 1}; this one knows {GALLERY_VERSION}\)"
    ):
        Store(tmp_path / "later")


def test_a_folder_with_other_things_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(StoreError, match=r"is not empty and no gallery\. Choose a new folder for --gallery"):
        Store.create(tmp_path, CARD)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
    # The lock is there before the gallery is.
    with writing(tmp_path / "new"):
        Store.create(tmp_path / "new", CARD)
    with pytest.raises(StoreError, match="already exists"):
        Store.create(tmp_path / "new", CARD)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"Gallery .*file cannot be created: "):
        Store.create(tmp_path / "file", CARD)
    with pytest.raises(StoreError, match=r"Gallery .*file cannot be written: "), writing(tmp_path / "file"):
        pass


def test_a_damaged_table_is_a_sentence(tmp_path: Path) -> None:
    store = make_store(tmp_path / "gallery", VECTORS)
    for path in (store.folder / "items.lance" / "data").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    opened = Store(store.folder)
    with pytest.raises(GalleryDamagedError, match=r"data/\w+\.lance is not what was written\. `modiste verify`[^\n]*$"):
        opened.snapshot()
    snapshot = opened.snapshot(check=False)
    for read in (snapshot.embeddings, lambda: snapshot.columns("item_id")):
        with pytest.raises(StoreError, match=r"^Gallery .* cannot be read: [^\n]*$"):
            read()
    for path in (store.folder / "items.lance" / "_versions").iterdir():
        path.write_bytes(b"")
    with pytest.raises(
        GalleryDamagedError, match=r"_versions/\d+\.manifest is not what was written\. `modiste verify`"
    ):
        Store(store.folder)
    (store.folder / "checksums.tsv").unlink()
    with pytest.raises(StoreError, match=r"^Gallery .* cannot be opened \(try `modiste repair[^\n]*$"):
        Store(store.folder)


HOLD = """
import sys
from pathlib import Path
from indexer.store import writing
with writing(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
print("given back", flush=True)
sys.stdin.readline()
"""


@contextmanager
def another_writer(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until a line is written to it."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_writer_fails_at_once_or_waits(tmp_path: Path) -> None:
    folder = tmp_path / "gallery"
    with another_writer(folder) as process:
        assert process.stdin is not None
        for wait_s in (0.0, 0.2):
            start = time.monotonic()
            with (
                pytest.raises(GalleryLockedError, match=r"Another process is writing to gallery .*pass --wait SECONDS"),
                writing(folder, wait_s=wait_s),
            ):
                pass
            assert wait_s <= time.monotonic() - start < wait_s + 5
        process.stdin.write("\n")
        process.stdin.flush()
        with writing(folder, wait_s=20):
            pass
        assert process.poll() is None, "it gave the lock back before it ended"


def test_a_killed_writer_leaves_no_lock(tmp_path: Path) -> None:
    with another_writer(tmp_path / "gallery") as process:
        process.kill()
        process.wait()
        with writing(tmp_path / "gallery"):
            pass


def test_a_second_writer_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with writing(tmp_path), pytest.raises(GalleryLockedError, match="Another process"), writing(tmp_path):
        pass
    # An error inside gives the lock back.
    with pytest.raises(KeyError, match="inside"), writing(tmp_path):
        raise KeyError("inside")
    with writing(tmp_path):
        pass


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks /proc which file a descriptor is")
def test_every_file_is_synced_before_a_commit_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def record(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr("os.fsync", record)
    known: set[Path] = set()

    def check(store: Store) -> None:
        """Each file that came since the last check, and the folder that names it, and every folder above."""
        new = {path for path in store.folder.rglob("*") if path.is_file() and path.name != ".writer.lock"} - known
        assert new
        folders = {parent for path in new for parent in path.parents if parent.is_relative_to(store.folder)}
        assert {str(path) for path in new | folders} <= set(synced)
        # A name is durable only once its folder is synced after it.
        for path in new:
            assert str(path.parent) in synced[synced.index(str(path)) :]
        known.update(new)
        synced.clear()

    store = Store.create(tmp_path / "gallery", card_of(4), freshness_s=0)
    check(store)
    for number in range(35):
        store.upsert(rows_of(VECTORS[:1], first=number % 34))
        check(store)
    store.delete(["i00001"])
    check(store)
    store.optimize()
    check(store)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        RuntimeError("lance error: IO error: No space left on device (os error 28), /root/.cargo/x/y.rs:12:3"),
    ],
)
def test_a_full_disk_says_what_to_do(tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "gallery", VECTORS[:3])

    def fail(key: str) -> None:
        raise error

    monkeypatch.setattr(store._table, "merge_insert", fail)
    with pytest.raises(
        StoreError, match=r"^2 items could not be written to gallery .*: There is no room on the disk\."
    ):
        store.upsert(rows_of(VECTORS[:2]))
    with pytest.raises(StoreError, match="What was committed before is safe; free some space and run it again"):
        store.upsert(rows_of(VECTORS[:2]))
    assert len(contents(store)) == 3


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RuntimeError("lance error: torn, /root/.cargo/lance-13/src/io.rs:12:3\nbacktrace"), "lance error: torn"),
        (RuntimeError(r"torn C:\cargo\io.rs:1:22"), "torn"),
        (type("RustPanic", (Exception,), {})("rust future panicked"), "rust future panicked"),
        (OSError(13, "Permission denied", "/x"), r"[Errno 13] Permission denied: '/x'"),
        (ValueError("bad"), "bad"),
        (RuntimeError(), "RuntimeError"),
        (TimeoutError("  \n"), "TimeoutError"),
    ],
)
def test_what_lance_raises_becomes_one_sentence(error: Exception, sentence: str) -> None:
    with pytest.raises(StoreError) as caught, translated("Gallery x cannot be read"):
        raise error
    assert str(caught.value) == f"Gallery x cannot be read: {sentence}"
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [GalleryLockedError("locked"), AssertionError("ours"), KeyError("ours")])
def test_what_is_ours_passes_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, translated("Gallery x cannot be read"):
        raise error
    assert caught.value is error


def test_keys_are_the_same_in_every_process_and_release() -> None:
    """Worked once with hashlib; another value would make every gallery's rows strangers to its FAISS file."""
    assert key_of("i00001") == -6475482887161136761
    assert key_of(b"i00001") == key_of("i00001")
    assert key_of("größe") == -1613921676148213516
    assert metadata_key(FULL) == 4729346907165913970
    assert vector_key("1", np.array([1, 0.5], np.float32)) == -1152618481046579045
    strided = np.array([1, 9, 0.5, 9], np.float32)[::2]
    assert vector_key("1", strided) == vector_key("1", np.array([1, 0.5], np.float32))


@pytest.mark.parametrize(
    "change",
    [
        {"item_id": "2"},
        {"image": Path("/photos/b.jpg")},
        {"image": b"bytes"},
        {"product_id": None},
        {"product_id": "q"},
        {"labels": {"colour": ("red",), "type": ("dress",)}},
        {"labels": {"colour": ("red", "blue"), "kind": ("dress",)}},
        {"labels": {}},
        {"box": None},
        {"box": Box(0.1, 0.2, 0.3, 0.41)},
        {"split": "test"},
        {"split": None},
    ],
)
def test_every_field_changes_the_metadata_key(change: dict[str, object]) -> None:
    assert metadata_key(replace(FULL, **change)) != metadata_key(FULL)  # type: ignore[arg-type]


def test_the_row_and_the_order_of_targets_do_not_change_the_metadata_key() -> None:
    assert metadata_key(replace(FULL, source_row=8)) == metadata_key(FULL)
    turned = dict(reversed(list(FULL.labels.items())))
    assert metadata_key(replace(FULL, labels=turned)) == metadata_key(FULL)


def test_the_vector_key_is_of_item_and_vector() -> None:
    keys = {vector_key(name, vector) for name in ("1", "2") for vector in VECTORS}
    assert len(keys) == 2 * len(VECTORS)


def test_what_a_creation_that_was_killed_at_its_end_left_goes_with_a_compaction(tmp_path: Path) -> None:
    store = make_store(tmp_path / "gallery", VECTORS[:3])
    (store.folder / ".creating").mkdir()
    store.compact()
    assert not (store.folder / ".creating").exists()


def test_a_creation_that_was_killed_is_begun_anew(tmp_path: Path) -> None:
    """What a kill before the rename leaves is no gallery, and no obstacle to one."""
    (tmp_path / "gallery" / ".creating" / "items.lance" / "data").mkdir(parents=True)
    with pytest.raises(GalleryNotFoundError, match="is no gallery"):
        Store(tmp_path / "gallery")
    store = Store.create(tmp_path / "gallery", card_of(4), freshness_s=0)
    assert len(store.snapshot()) == 0
    assert not (tmp_path / "gallery" / ".creating").exists()
