"""Verification: what it finds, what is damage and what a note, and that it changes nothing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.checksums import CHECKSUMS
from indexer.lance_files import manifest_of, named_in, orphans_of, parts_of, versions_of
from indexer.rows import content_hash_of, to_arrow
from indexer.snapshot import GalleryDamagedError, GalleryNotFoundError
from indexer.store import Store
from indexer.verification import Report, verify
from tests.indexer import damage
from tests.indexer.damage import VECTORS, copy_of, make_gallery
from tests.indexer.fakes import CARD, item, make_store, rows_of


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gallery(tmp_path_factory.mktemp("verification") / "gallery")


@pytest.fixture
def gallery(original: Path, tmp_path: Path) -> Path:
    return copy_of(original, tmp_path / "gallery")


def kinds(report: Report) -> list[tuple[str, str, bool]]:
    return [(finding.kind, finding.place, finding.is_damage) for finding in report.findings]


def manifest(gallery: Path, version: int) -> str:
    return manifest_of(gallery / "items.lance", version).relative_to(gallery).as_posix()


def test_a_whole_gallery_has_no_findings_and_stays_as_it_is(gallery: Path) -> None:
    before = {path: path.read_bytes() for path in gallery.rglob("*") if path.is_file()}
    report = verify(gallery)
    assert (report.findings, report.is_whole) == ([], True)
    # 6 manifests, 6 transactions, 4 data files, 3 deletion files; 60 rows without the two deleted.
    assert (report.files, report.rows, report.versions, report.failures) == (19, 58, 6, 2)
    assert report.unindexed_rows == 0
    assert report.oldest_version_s is not None
    assert {path: path.read_bytes() for path in gallery.rglob("*") if path.is_file()} == before


def test_a_folder_without_a_table(tmp_path: Path) -> None:
    with pytest.raises(GalleryNotFoundError, match=r"is no gallery: it has no items\.lance\.$"):
        verify(tmp_path)


def test_what_a_version_is_read_from(gallery: Path) -> None:
    """The commit that deleted touched two fragments, the one after it the first of them again."""
    table = gallery / "items.lance"
    parts = {version: list(parts_of(table, version)) for version in versions_of(table)}
    count = {version: [sum(path.parent.name == name for path in paths) for name in ("data", "_deletions")]
             for version, paths in parts.items()}  # fmt: skip
    assert count == {1: [0, 0], 2: [1, 0], 3: [2, 0], 4: [3, 0], 5: [3, 2], 6: [4, 2]}
    assert [version for version, paths in parts.items() if paths[0] != manifest_of(table, version)] == []
    shared = set(parts[5]) & set(parts[6])
    assert sorted(path.name[:3] for path in shared if path.parent.name == "_deletions") == ["1-4"]
    # Neither manifests nor transactions are what rows are in, even where their number stands somewhere.
    assert named_in(table, 6, [*(table / "_versions").iterdir(), *(table / "_transactions").iterdir()]) == []


def test_what_a_commit_replaced_is_no_part_of_its_version(gallery: Path) -> None:
    """A compaction names the files that it merged, before the manifest itself."""
    store = Store(gallery, freshness_s=0)
    store.compact()
    parts = list(parts_of(store.table_folder, store.version))
    assert [path.parent.name for path in parts] == ["_versions", "data"]


def test_what_killed_runs_leave_is_a_note(gallery: Path) -> None:
    table = gallery / "items.lance"
    (gallery / "failures.jsonl.tmp").write_bytes(b"{")
    (gallery / ".creating" / "items.lance").mkdir(parents=True)
    (gallery / "faiss" / "hnsw-9.faiss.tmp").write_bytes(b"")
    (gallery / "replaced-by-next").mkdir()
    orphan = shutil.copy(next((table / "data").iterdir()), table / "data" / "abc.lance")
    assert orphans_of(table) == [orphan]
    report = verify(gallery)
    assert report.is_whole
    assert kinds(report) == [
        ("unnoted", CHECKSUMS, False),
        *(("leftover", name, False) for name in (".creating", "failures.jsonl.tmp", "faiss/hnsw-9.faiss.tmp")),
        ("orphan", "items.lance/data/abc.lance", False),
        ("migration", "replaced-by-next", False),
    ]


def test_commits_that_were_not_noted_are_a_note_and_none_at_all_are_damage(gallery: Path) -> None:
    """A killed run leaves the commits of one step, which a compaction has several of; the first step is noted alone."""
    path = gallery / CHECKSUMS
    lines = path.read_bytes().splitlines(keepends=True)
    # Of the last commit: its transaction, manifest, deletions and data.
    path.write_bytes(b"".join(lines[:-4]))
    assert kinds(verify(gallery)) == [("unnoted", CHECKSUMS, False)]
    path.write_bytes(b"")
    report = verify(gallery)
    assert kinds(report) == [("unnoted", CHECKSUMS, True)]
    assert report.findings[0].sentence == "19 files are not in it: its lines are lost."


def test_a_torn_line_is_damage_until_the_next_writer_writes(gallery: Path) -> None:
    path = gallery / CHECKSUMS
    content = path.read_bytes()
    path.write_bytes(content + b"abc\titems.lance/x")
    assert kinds(verify(gallery)) == [("checksums", CHECKSUMS, True)]
    # A line without its end is torn too, though all of it is there.
    path.write_bytes(content[:-1])
    assert kinds(verify(gallery)) == [("checksums", CHECKSUMS, True), ("unnoted", CHECKSUMS, False)]
    Store(gallery, freshness_s=0).delete(["i00000"])
    assert verify(gallery).is_whole
    assert kinds(verify(gallery)) == []


def test_a_newest_version_that_is_gone_is_missed(gallery: Path) -> None:
    """Lance would answer from the one before it."""
    name = manifest(gallery, 6)
    (gallery / name).unlink()
    with pytest.raises(GalleryDamagedError, match=rf"{name} is gone\. `modiste verify`"):
        Store(gallery)
    report = verify(gallery)
    assert ("file", name, True) in kinds(report)
    assert ("table", "items.lance", True) in kinds(report)
    assert report.rows == 0


def test_files_that_are_gone_are_damage_only_where_the_newest_version_needs_them(gallery: Path) -> None:
    table = gallery / "items.lance"
    earlier, newest = (
        set(parts_of(table, 5)) - set(parts_of(table, 6)),
        set(parts_of(table, 6)) - set(parts_of(table, 5)),
    )
    unneeded = next(path for path in earlier if path.parent.name == "_deletions")
    needed = next(path for path in newest if path.suffix == ".lance")
    unneeded.unlink()
    needed.unlink()
    found = kinds(verify(gallery))
    assert ("gone", unneeded.relative_to(gallery).as_posix(), False) in found
    assert ("file", needed.relative_to(gallery).as_posix(), True) in found
    # Only the row in that file.
    assert [kind for kind, _, _ in found].count("row") == 1


def test_an_earlier_version_that_does_not_open(gallery: Path) -> None:
    path = manifest_of(gallery / "items.lance", 4)
    path.write_bytes(b"")
    (gallery / CHECKSUMS).write_bytes(
        b"".join(line for line in (gallery / CHECKSUMS).read_bytes().splitlines(keepends=True)
                 if path.name.encode() not in line)
    )  # fmt: skip
    report = verify(gallery)
    assert ("file", manifest(gallery, 4), True) in kinds(report)
    assert "Version 4 cannot be opened." in [finding.sentence for finding in report.findings]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"split": "evil"}, "Row 10 has a record that is not what was written."),
        ({"vector_key": 3}, "Row 10 has an embedding that is not what was written."),
        ({"embedding": [1.0, 0, 0, 0]}, "Row 10 has an embedding that is not what was written."),
    ],
)
def test_a_row_that_is_not_what_was_written_is_named(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    """As by another program, which knows nothing of the checksums."""
    store = make_store(tmp_path / "gallery", damage.unit_vectors(300, 4))
    store._table.update(where="item_id = 'i00007'", values=change)
    store._sync()
    rows = [finding for finding in verify(store.folder).findings if finding.kind == "row"]
    # Lance puts a changed row at the end.
    assert [(row.place, row.sentence.split(" ", 2)[2]) for row in rows] == [("i00007", sentence.split(" ", 2)[2])]


def test_rows_that_should_never_have_been_written(tmp_path: Path) -> None:
    store = make_store(tmp_path / "gallery", VECTORS[:3])
    long, photo = rows_of(VECTORS[3:5], first=3)
    photo = replace(photo, item=replace(photo.item, image=b"photo"), content_hash=content_hash_of(b"another"))
    fine = replace(photo, item=item(5, split="train"), content_hash=content_hash_of(b"photo"))
    store.upsert([replace(long, embedding=2 * long.embedding), photo, fine])
    store._table.add(to_arrow(rows_of(VECTORS[:1]), replace(CARD, dimension=8)))
    store._sync()
    assert [(finding.place, finding.sentence) for finding in verify(store.folder).findings] == [
        ("i00000", "Row 0 is of an item that has a later row."),
        ("i00003", "Row 3 has an embedding that is not of unit length."),
        ("i00004", "Row 4 has a photo that is not what was written."),
    ]


def test_a_file_that_cannot_be_read_costs_no_more_than_its_rows(gallery: Path) -> None:
    table = gallery / "items.lance"
    # What the second commit wrote: 20 rows, one of them deleted since.
    second = next(iter(set(parts_of(table, 3)) - set(parts_of(table, 2)) - {manifest_of(table, 3)}))
    second.write_bytes(b"")
    rows = [finding for finding in verify(gallery).findings if finding.kind == "row"]
    assert [row.sentence for row in rows] == [f"Row {number} cannot be read." for number in range(18, 37)]


def test_the_faiss_files_and_their_cards(gallery: Path) -> None:
    file, card = gallery / "faiss" / "hnsw-6.faiss", gallery / "faiss" / "hnsw-6.json"
    content = card.read_bytes()
    # Of equal meaning, and not what was written.
    card.write_bytes(content + b"\n")
    assert kinds(verify(gallery)) == [("index", "faiss/hnsw-6.json", True)]
    card.unlink()
    report = verify(gallery)
    assert kinds(report) == [("missing", "faiss/hnsw-6.faiss", False)]
    assert report.unindexed_rows is None
    card.write_bytes(content)
    file.unlink()
    assert kinds(verify(gallery)) == [("missing", "faiss/hnsw-6.json", False)]


def test_a_large_gallery_without_an_index_and_an_outdated_one_are_notes(
    gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(gallery, freshness_s=0)
    store.upsert(rows_of(damage.unit_vectors(100, 8, seed=1), first=100))
    report = verify(gallery)
    assert (kinds(report), report.unindexed_rows) == ([("outdated", "faiss", False)], 100)
    shutil.rmtree(gallery / "faiss")
    assert kinds(verify(gallery)) == []
    monkeypatch.setattr("indexer.faiss_index.EXACT_LIMIT", 100)
    assert kinds(verify(gallery)) == [("missing", "faiss", False)]


def test_the_galleries_in_a_gallery_are_looked_at_too(gallery: Path, original: Path) -> None:
    for name in ("next", "previous"):
        inner = copy_of(original, gallery / name)
        (inner / "failures.jsonl").write_bytes(b"")
    report = verify(gallery)
    assert kinds(report) == [(("failures"), f"{name}/failures.jsonl", True) for name in ("next", "previous")]
    assert report.findings[0].sentence.startswith("next: ")
    assert np.isclose(report.rows, 58)
