"""The files of a Lance table: the table itself says whether those that are said to be a version's are."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import lancedb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.lance_files import (
    HINT,
    files_of,
    is_hint_right,
    leftovers_of,
    manifest_of,
    named_in,
    orphans_of,
    parts_of,
    version_of,
    versions_of,
)
from indexer.snapshot import translated
from indexer.store import Store
from tests.indexer.damage import copy_of
from tests.indexer.fakes import make_store, rows_of, unit_vectors

VECTORS = unit_vectors(40, 4)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight versions: none, three commits of ten items, two deletions, two items anew, a compaction."""
    folder = tmp_path_factory.mktemp("lance") / "gallery"
    store = make_store(folder, VECTORS[:30], commit=10)
    store.delete(["i00001", "i00011"])
    store.delete(["i00002"])
    store.upsert(rows_of(VECTORS[2:4], first=2))
    store.compact()
    return folder


@pytest.fixture
def table(original: Path, tmp_path: Path) -> Path:
    """A copy of that table."""
    return copy_of(original, tmp_path / "gallery") / "items.lance"


def rows_at(table: Path, version: int) -> list[str]:
    """The items of a version, as Lance reads them from the disk."""
    with translated("The table cannot be read"):
        opened = lancedb.connect(table.parent).open_table("items")
        opened.checkout(version)
        return sorted(row["item_id"] for row in opened.search().select(["item_id", "embedding"]).to_list())


def breaks(table: Path, version: int) -> bool:
    try:
        rows_at(table, version)
    except RuntimeError:
        return True
    return False


def hidden(paths: list[Path]) -> Iterator[Path]:
    """Takes one file away after the other, and puts it back."""
    for path in paths:
        aside = path.rename(path.with_name("aside"))
        yield path
        aside.rename(path)


def test_a_version_is_read_from_its_parts_alone_and_from_each_of_them(table: Path, tmp_path: Path) -> None:
    counts = []
    for version in versions_of(table):
        parts = list(parts_of(table, version))
        alone = tmp_path / f"{version}" / "items.lance"
        for path in parts:
            (alone / path.relative_to(table)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, alone / path.relative_to(table))
        rows = rows_at(table, version)
        assert rows_at(alone, version) == rows
        counts.append((len(rows), len(parts)))
        for path in hidden([alone / path.relative_to(table) for path in parts]):
            assert breaks(alone, version), path.name
    # A manifest, its data files and its deletion files: the fifth commit deletes in two fragments, the sixth in one of
    # them again, the seventh too, where it replaces i00003 and adds i00002.
    assert counts[:7] == [(0, 1), (10, 2), (20, 3), (30, 4), (28, 6), (27, 6), (28, 7)]
    # Compaction leaves one data file; it may be several commits.
    assert counts[-1] == (28, 2)


def test_other_files_are_not_needed(table: Path) -> None:
    newest = versions_of(table)[-1]
    others = [path for path in files_of(table) if path not in set(parts_of(table, newest))]
    assert len(others) > 10
    for path in others:
        path.unlink()
    assert len(rows_at(table, newest)) == 28


def test_parts_that_are_gone_are_left_out_and_a_manifest_that_is_gone_is_an_error(table: Path) -> None:
    parts = list(parts_of(table, 7))
    data = next(path for path in parts if path.parent.name == "data")
    data.unlink()
    assert list(parts_of(table, 7)) == [path for path in parts if path != data]
    # Whoever knows its name can ask for it all the same.
    assert named_in(table, 7, [data, data.with_name("other.lance"), table / "_versions" / data.name]) == [data]
    parts[0].unlink()
    with pytest.raises(FileNotFoundError):
        list(parts_of(table, 7))


def test_a_damaged_manifest_names_what_it_can(table: Path) -> None:
    path = manifest_of(table, 4)
    content = path.read_bytes()
    for length in (0, 1, 15, 16, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert len(list(parts_of(table, 4))) <= 4
    path.write_bytes(b"\xff" * len(content))
    assert list(parts_of(table, 4)) == [path]


def test_what_no_version_names_is_an_orphan(table: Path) -> None:
    assert orphans_of(table) == []
    data, deletions = (sorted((table / name).iterdir())[0] for name in ("data", "_deletions"))
    copies = [
        Path(shutil.copy(data, data.with_name("0" * 40 + ".lance"))),
        Path(shutil.copy(deletions, deletions.with_name(f"0-9-{2**62 + 1}{deletions.suffix}"))),
        Path(shutil.copy(deletions, deletions.with_name("strange"))),
    ]
    assert orphans_of(table) == copies
    assert leftovers_of(table) == []


def test_an_orphan_is_one_when_the_last_version_that_names_it_goes(table: Path) -> None:
    """The data of the second version are those of all before the compaction, which is two commits."""
    data = next(path for path in parts_of(table, 2) if path.parent.name == "data")
    naming = [version for version in versions_of(table) if data in parts_of(table, version)]
    assert naming == list(range(2, versions_of(table)[-1]))
    for version in naming:
        assert data not in orphans_of(table)
        manifest_of(table, version).unlink()
    assert data in orphans_of(table)
    newest = versions_of(table)[-1]
    assert not set(orphans_of(table)) & set(parts_of(table, newest))
    for path in orphans_of(table):
        path.unlink()
    assert len(rows_at(table, newest)) == 28


def test_what_was_never_finished(table: Path) -> None:
    names = ["data/.tmp_x.lance", f"_versions/{2**64 - 9:020}.manifest#1", "_transactions/x.txn.tmp", "_versions/.x"]
    for name in names:
        (table / name).write_bytes(b"")
    assert [path.relative_to(table).as_posix() for path in leftovers_of(table)] == sorted(names)
    assert versions_of(table)[-1] == Store(table.parent).version


def test_files_are_all_but_the_hint(table: Path) -> None:
    found = files_of(table)
    assert found == sorted(found)
    assert {path.name for path in table.rglob("*") if path.is_file()} - {path.name for path in found} == {HINT}


def test_the_hint_names_the_newest_version(table: Path) -> None:
    hint, newest = table / "_versions" / HINT, versions_of(table)[-1]
    assert is_hint_right(table)
    for content in (b'{"version": 1}', b"", b"{", b"[]", b"\xff", b'{"version": "%d"}' % newest, b"null"):
        hint.write_bytes(content)
        assert not is_hint_right(table)
        # It is advice, and Lance takes none.
        assert len(rows_at(table, newest)) == len(Store(table.parent).snapshot()) == 28
    hint.write_bytes(b'{"version":%d}' % newest)
    assert is_hint_right(table)
    hint.unlink()
    assert is_hint_right(table)
    hint.mkdir()
    assert not is_hint_right(table)


def test_a_hint_without_versions_is_not_wrong(tmp_path: Path) -> None:
    (tmp_path / "_versions").mkdir()
    (tmp_path / "_versions" / HINT).write_bytes(b"{}")
    assert is_hint_right(tmp_path)
    assert (versions_of(tmp_path), orphans_of(tmp_path), files_of(tmp_path)) == ([], [], [])


@given(st.integers(1, 2**63))
def test_a_manifest_is_named_by_its_version(version: int) -> None:
    path = manifest_of(Path("items.lance"), version)
    assert (version_of(path), len(path.stem), path.suffix) == (version, 20, ".manifest")
    assert path < manifest_of(Path("items.lance"), version - 1)


@pytest.mark.parametrize("name", ["1.manifest#1", "x.manifest", ".manifest", "-1.manifest", "1.txn", "1", HINT])
def test_other_names_are_no_manifests(name: str) -> None:
    assert version_of(Path(name)) is None
