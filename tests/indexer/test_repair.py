"""Repair and compaction: what they do, what they say, and that a repair may be killed at any moment."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from itertools import chain, repeat
from pathlib import Path
from random import Random
from unittest.mock import Mock

import pytest

from indexer.compaction import CompactionError, compact
from indexer.failures import read_failures
from indexer.faiss_index import FaissIndex
from indexer.gallery import Gallery
from indexer.lance_files import HINT, manifest_of, orphans_of, parts_of, versions_of
from indexer.repair import QUARANTINE, Repair, repair
from indexer.rows import ITEM_COLUMNS, STATE_COLUMNS, content_hash_of, row_of, to_arrow
from indexer.snapshot import GalleryDamagedError, GalleryLockedError, GalleryNotFoundError, StoreError
from indexer.store import Store, writing
from indexer.verification import verify
from tests.indexer.damage import VECTORS, copy_of, files_in, make_gallery, rows_in
from tests.indexer.fakes import CARD, item, make_store, rows_of


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gallery(tmp_path_factory.mktemp("repair") / "gallery")


@pytest.fixture
def gallery(original: Path, tmp_path: Path) -> Path:
    return copy_of(original, tmp_path / "gallery")


def newest(gallery: Path) -> Path:
    table = gallery / "items.lance"
    return manifest_of(table, versions_of(table)[-1])


def data_of_version(gallery: Path, version: int) -> Path:
    """The data file that a version added."""
    table = gallery / "items.lance"
    new = set(parts_of(table, version)) - set(parts_of(table, version - 1))
    return next(path for path in new if path.suffix == ".lance")


def test_a_whole_gallery_stays_as_it_is(gallery: Path) -> None:
    before = {name: (gallery / name).read_bytes() for name in files_in(gallery)}
    assert repair(gallery) == Repair(items=58, version=6)
    assert {name: (gallery / name).read_bytes() for name in files_in(gallery)} == before


def test_a_folder_that_is_none_and_another_writer(gallery: Path, tmp_path: Path) -> None:
    with pytest.raises(GalleryNotFoundError, match="is no gallery"):
        repair(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with writing(gallery), pytest.raises(GalleryLockedError, match="Another process is writing"):
        repair(gallery)


def test_a_torn_newest_manifest_brings_the_version_before_back(gallery: Path) -> None:
    path = newest(gallery)
    path.write_bytes(path.read_bytes()[:100])
    report = repair(gallery)
    assert report.done[0] == ("Version 6 could not be read and went to quarantine/; version 5 is current again, as 7.")
    assert report.undone == [
        "What was added, changed or deleted since is lost: run `modiste index` with the catalog to take it in again, "
        "and repeat what was edited by hand."
    ]
    assert (gallery / QUARANTINE / path.relative_to(gallery)).stat().st_size == 100
    # The commit that was lost had made it green.
    assert Gallery(gallery).item("i00005").labels == {"colour": ("red",)}
    # A version never comes twice, and the table takes commits as before.
    store = Store(gallery, freshness_s=0)
    assert store.delete(["i00000"]) == 8
    assert len(store.snapshot()) == 57
    assert verify(gallery).is_whole


def test_a_torn_manifest_that_was_never_noted(gallery: Path) -> None:
    """What a power cut leaves: neither the manifest nor its checksum came to the disk."""
    lines = (gallery / "checksums.tsv").read_bytes().splitlines(keepends=True)
    (gallery / "checksums.tsv").write_bytes(b"".join(lines[:-4]))
    newest(gallery).write_bytes(b"")
    with pytest.raises(StoreError, match=r"cannot be opened \(try `modiste repair"):
        Store(gallery)
    assert repair(gallery).done[0].startswith("Version 6 could not be read")
    assert verify(gallery).is_whole
    assert len(Store(gallery).snapshot()) == 58


def test_a_torn_manifest_and_damaged_rows_at_once(gallery: Path) -> None:
    data_of_version(gallery, 2).write_bytes(b"")
    newest(gallery).write_bytes(b"")
    report = repair(gallery)
    # 18 of the first 20 and 19 of the second are left by the deletions.
    assert (report.items, report.version) == (39, 8)
    assert verify(gallery).is_whole
    assert Store(gallery, freshness_s=0).delete(["i00040"]) == 9


def test_several_lost_versions(gallery: Path) -> None:
    table = gallery / "items.lance"
    for version in (4, 5):
        manifest_of(table, version).write_bytes(b"")
    newest(gallery).unlink()
    report = repair(gallery)
    assert report.done[0].startswith("Versions 4 to 6 could not be read")
    assert (report.items, report.version) == (40, 7)
    assert verify(gallery).is_whole


def test_deletions_that_are_others_bring_the_version_before_back(gallery: Path) -> None:
    """They read back without an error: i00025 would be there again, and i00023 gone."""
    first, second = sorted((gallery / "items.lance" / "_deletions").glob("*-4-*"))
    second.write_bytes(first.read_bytes())
    report = repair(gallery)
    assert report.done[0].startswith("Versions 5 to 6 could not be read and went to quarantine/; version 4 is current")
    assert (report.items, report.version) == (60, 7)
    assert verify(gallery).is_whole


def test_a_gallery_without_a_whole_version_is_not_touched(gallery: Path) -> None:
    table = gallery / "items.lance"
    for version in versions_of(table):
        manifest_of(table, version).write_bytes(b"")
    before = files_in(gallery)
    with pytest.raises(StoreError, match=r"No version of gallery .* Index the catalog into a new folder"):
        repair(gallery)
    assert files_in(gallery) == before


def test_a_gallery_of_another_modiste_is_not_taken_apart(gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files_in(gallery)
    monkeypatch.setattr("indexer.store.GALLERY_VERSION", 1)
    with pytest.raises(StoreError, match="was written by a later Modiste"):
        repair(gallery)
    assert files_in(gallery) == before


def test_a_whole_gallery_that_lance_does_not_open_is_not_taken_apart(
    gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the process may open no more files: what hinders is not in the gallery."""
    before = files_in(gallery)
    monkeypatch.setattr("indexer.repair.why_not_opened", lambda _: StoreError("Too many open files."))
    with pytest.raises(StoreError, match="Too many open files"):
        repair(gallery)
    assert files_in(gallery) == before


def test_lost_rows_are_listed_and_the_rest_is_kept_whole(gallery: Path) -> None:
    before = Store(gallery).snapshot().columns(*ITEM_COLUMNS, *STATE_COLUMNS).to_pylist()
    path = data_of_version(gallery, 3)
    content = bytearray(path.read_bytes())
    # The embeddings of the 20 items stand there as they are; number 30 gets another.
    place = content.index(VECTORS[30].tobytes())
    content[place + 2] ^= 1
    path.write_bytes(content)
    report = repair(gallery)
    assert (report.lost, report.items, report.version) == (["i00030"], 57, 7)
    assert report.done[0] == "The table was written anew from its 57 whole rows, as version 7."
    assert report.undone == [
        "1 rows were damaged and are lost, 1 of them with a known item_id. Run `modiste index` with the catalog to "
        "take them in again."
    ]
    assert (gallery / QUARANTINE / "lost-of-version-6.txt").read_text() == "i00030\n"
    assert path.relative_to(gallery / "items.lance").name in {file.name for file in (gallery / QUARANTINE).rglob("*")}
    after = Store(gallery).snapshot().columns(*ITEM_COLUMNS, *STATE_COLUMNS).to_pylist()
    assert sorted(map(str, after)) == sorted(str(row) for row in before if row["item_id"] != "i00030")
    assert verify(gallery).is_whole


def test_what_is_kept_is_all_of_a_row(tmp_path: Path) -> None:
    """Photos in the table, and labels that were set by hand."""
    one, two, damaged = rows_of(VECTORS[:3])
    one = replace(one, item=replace(one.item, image=b"photo"), content_hash=content_hash_of(b"photo"))
    two = replace(two, metadata_key=77, corrected=("colour",))
    store = make_store(tmp_path / "gallery", VECTORS[:0])
    store = Store(tmp_path / "gallery", freshness_s=0)
    store.upsert([one, two, replace(damaged, embedding=2 * damaged.embedding)])
    assert repair(store.folder).lost == ["i00002"]
    snapshot = Store(store.folder).snapshot()
    records = snapshot.columns(*ITEM_COLUMNS, *STATE_COLUMNS).to_pylist()
    kept = [row_of(record, vector) for record, vector in zip(records, snapshot.embeddings(), strict=True)]
    assert [(row.item, row.metadata_key, row.corrected) for row in kept] == [
        (one.item, records[0]["metadata_key"], ()),
        (two.item, 77, ("colour",)),
    ]


def test_of_an_item_that_is_there_twice_the_later_row_stays(tmp_path: Path) -> None:
    store = make_store(tmp_path / "gallery", VECTORS[:3])
    later = rows_of(VECTORS[9:10], [item(1, split="test")])
    store._table.add(to_arrow(later, replace(CARD, dimension=8)))
    store._sync()
    report = repair(store.folder)
    assert (report.lost, report.items) == ([], 3)
    assert "1 rows of items that have a later row were left out." in report.done
    assert Gallery(store.folder).item("i00001").split == "test"


def test_what_earlier_versions_need_is_set_aside_so_that_compaction_works(gallery: Path) -> None:
    whole = rows_in(gallery)
    manifest_of(gallery / "items.lance", 3).write_bytes(b"")
    with pytest.raises(GalleryDamagedError, match=r"\.manifest is not what was written\. Run `modiste repair"):
        compact(gallery)
    report = repair(gallery)
    assert report.version == 6
    assert "of the earlier versions these can no longer be read back: 3." in report.done[0]
    assert compact(gallery).items == 58
    assert orphans_of(gallery / "items.lance") == []
    assert rows_in(gallery) == whole


def test_the_hint_the_failures_the_checksums_and_leftovers(gallery: Path) -> None:
    (gallery / "items.lance" / "_versions" / HINT).write_bytes(b'{"version":3}')
    (gallery / "failures.jsonl").write_bytes(b"[]\n")
    (gallery / "checksums.tsv").write_bytes(b"\n")
    (gallery / "failures.jsonl.tmp").write_bytes(b"")
    (gallery / ".creating").mkdir()
    report = repair(gallery)
    assert report.done == [
        "Removed what killed runs had left: .creating, failures.jsonl.tmp.",
        "latest_version_hint.json names the newest version again.",
        "checksums.tsv was written anew.",
        "failures.jsonl was damaged and went to quarantine/.",
    ]
    assert report.undone == ["The next `modiste index` lists anew what it cannot take in."]
    assert read_failures(gallery) == []
    assert (gallery / "items.lance" / "_versions" / HINT).read_bytes() == b'{"version":6}'
    assert verify(gallery).findings == []


@pytest.mark.parametrize("name", ["hnsw-6.faiss", "hnsw-6.json"])
def test_a_damaged_index_is_built_anew_as_it_was(gallery: Path, name: str) -> None:
    """A gallery this small would be searched exactly by itself."""
    (gallery / "faiss" / name).write_bytes(b"")
    assert repair(gallery).done == ["The FAISS index was damaged, missing or outdated: it was built anew (hnsw)."]
    index = FaissIndex.load(gallery / "faiss", Store(gallery).card)
    assert index is not None
    assert len(index.vector_keys) == 58


def test_what_is_set_aside_does_not_replace_what_lies_there(gallery: Path) -> None:
    for content in (b"1", b"2"):
        (gallery / "failures.jsonl").write_bytes(content)
        repair(gallery)
    kept = sorted((gallery / QUARANTINE).iterdir())
    assert [(path.name, path.read_bytes()) for path in kept] == [
        ("failures.jsonl", b"1"),
        ("failures.jsonl.1", b"2"),
    ]


def test_the_galleries_in_a_gallery_are_mended_too(gallery: Path, original: Path) -> None:
    newest(copy_of(original, gallery / "previous")).write_bytes(b"")
    report = repair(gallery)
    assert report.done[0].startswith("previous: Version 6 could not be read")
    assert (report.items, report.version) == (58, 6)
    assert verify(gallery).is_whole


class Killed(BaseException):
    """As if the process had been killed here."""


@pytest.mark.parametrize("damage", ["newest manifest", "data"])
def test_a_repair_that_is_killed_is_run_again(
    original: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of the moments at which something has come to the disk."""
    outcomes = []
    for moment in range(1, 200, 4):
        own = copy_of(original, tmp_path / "own")
        if damage == "data":
            path = data_of_version(own, 2)
            content = bytearray(path.read_bytes())
            content[content.index(VECTORS[8].tobytes())] ^= 1
            path.write_bytes(content)
        else:
            newest(own).write_bytes(b"")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", Mock(side_effect=chain(repeat(None, moment), [Killed])))
            try:
                repair(own)
                is_killed = False
            except Killed:
                is_killed = True
        if is_killed:
            repair(own)
        assert verify(own).is_whole, moment
        outcomes.append(rows_in(own))
        if not is_killed:
            break
    assert len(outcomes) > 3
    assert all(rows == outcomes[-1] for rows in outcomes)


def test_compaction_says_what_it_did_and_keeps_an_hour(gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rows_in(gallery)
    done = compact(gallery)
    assert (done.items, done.variant, done.versions_before) == (58, "hnsw", 6)
    assert done.versions_after == len(versions_of(gallery / "items.lance")) >= 6
    assert done.bytes_after == sum((gallery / name).stat().st_size for name in files_in(gallery))
    assert rows_in(gallery) == whole
    assert verify(gallery).findings == []
    # As if hours had passed.
    monkeypatch.setattr(Store, "_age_to_clean", lambda *_: timedelta(milliseconds=1))
    Store(gallery, freshness_s=0).compact()
    assert versions_of(gallery / "items.lance")[0] > 6
    assert rows_in(gallery) == whole
    assert verify(gallery).is_whole


@pytest.mark.parametrize("hours", [0.99, 0.0, -1.0, float("nan")])
def test_less_than_an_hour_is_refused(gallery: Path, hours: float) -> None:
    before = files_in(gallery)
    with pytest.raises(CompactionError, match="kept for an hour or more, since readers may be using them; got"):
        compact(gallery, keep_hours=hours)
    assert files_in(gallery) == before


def test_what_a_rollback_needs_is_forgotten_only_when_told(gallery: Path, original: Path) -> None:
    copy_of(original, gallery / "previous")
    compact(gallery)
    assert (gallery / "previous").is_dir()
    compact(gallery, forget_previous=True)
    assert not (gallery / "previous").exists()


def test_damaged_data_is_never_copied_into_files_that_look_whole(gallery: Path) -> None:
    """A turned bit in an embedding reads back without an error, and a compaction would note it as what was written."""
    path = data_of_version(gallery, 2)
    content = bytearray(path.read_bytes())
    content[content.index(VECTORS[8].tobytes()) + Random(0).randrange(16)] ^= 1
    path.write_bytes(content)
    with pytest.raises(GalleryDamagedError, match=r"\.lance is not what was written"):
        Store(gallery, freshness_s=0).compact(timedelta(hours=1))
    assert len(versions_of(gallery / "items.lance")) == 6
