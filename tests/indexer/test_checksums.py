"""Checksums: what was written is known, and no damage to the list makes a damaged file look whole."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import pytest

from indexer.checksums import CHECKSUMS, Checksums

NAMES = ("a.lance", "data/b.lance", "data/c c.lance")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files with a line each, and one without."""
    (tmp_path / "data").mkdir()
    for name in (*NAMES, "unknown"):
        (tmp_path / name).write_text(f"content of {name}")
    Checksums(tmp_path).add(tmp_path / name for name in NAMES)
    return tmp_path


def line_of(folder: Path, name: str) -> bytes:
    """The line of a file as it is now."""
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return f"{digest}\t{name}\t{zlib.crc32(f'{digest} {name}'.encode()):08x}\n".encode()


def whole(folder: Path) -> dict[str, bool]:
    """Which of the three are known, and whether they look as they were written."""
    checksums = Checksums(folder)
    return {name: not checksums.is_damaged(folder / name) for name in NAMES if folder / name in checksums}


def test_a_line_a_file(folder: Path) -> None:
    assert (folder / CHECKSUMS).read_bytes() == b"".join(line_of(folder, name) for name in NAMES)
    checksums = Checksums(folder)
    assert list(checksums) == [folder / name for name in NAMES]
    assert (checksums.damaged_lines, checksums.missing()) == (0, [])
    assert whole(folder) == dict.fromkeys(NAMES, True)


def test_nothing_is_known_without_a_list(tmp_path: Path) -> None:
    checksums = Checksums(tmp_path)
    (tmp_path / "a").touch()
    assert (list(checksums), checksums.damaged_lines, checksums.is_damaged(tmp_path / "a")) == ([], 0, False)
    checksums.add([])
    checksums.add([tmp_path / "gone"])
    assert not (tmp_path / CHECKSUMS).exists()


def test_a_file_that_is_not_what_was_written(folder: Path) -> None:
    path = folder / NAMES[1]
    content = path.read_bytes()
    for damage in (content[:-1], b"", content + b"\0", bytes([content[0] ^ 1]) + content[1:]):
        path.write_bytes(damage)
        assert whole(folder) == {NAMES[0]: True, NAMES[1]: False, NAMES[2]: True}
    path.write_bytes(content)
    assert whole(folder)[NAMES[1]]
    checksums = Checksums(folder)
    assert folder / "unknown" not in checksums
    assert not checksums.is_damaged(folder / "unknown")


def test_a_file_that_is_gone(folder: Path) -> None:
    (folder / NAMES[0]).unlink()
    checksums = Checksums(folder)
    assert checksums.missing() == [folder / NAMES[0]]
    with pytest.raises(FileNotFoundError):
        checksums.is_damaged(folder / NAMES[0])
    checksums.rewrite()
    assert list(checksums) == list(Checksums(folder)) == [folder / name for name in NAMES[1:]]


def test_every_bit_of_the_list(folder: Path) -> None:
    """A flipped bit costs the lines that it touches and never says anything wrong of a file."""
    path = folder / CHECKSUMS
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in (1, 8, 64):
            path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
            checksums = Checksums(folder)
            assert checksums.damaged_lines > 0
            known = list(checksums)
            assert 1 <= len(known) <= 2
            assert not any(checksums.is_damaged(file) for file in known)


def test_a_list_that_is_cut_off_anywhere(folder: Path) -> None:
    path = folder / CHECKSUMS
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        lines = content[:length].count(b"\n")
        checksums = Checksums(folder)
        assert list(checksums) == [folder / name for name in NAMES[:lines]]
        is_torn = length > 0 and content[length - 1 : length] != b"\n"
        assert checksums.damaged_lines == is_torn


def test_what_is_added_after_a_torn_line_is_whole(folder: Path) -> None:
    """A full disk cut the last line off; without a care, the next line would be joined to its rest."""
    path = folder / CHECKSUMS
    for cut in (1, 10, 80):
        path.write_bytes(b"".join(line_of(folder, name) for name in NAMES)[:-cut])
        checksums = Checksums(folder)
        assert checksums.damaged_lines == 1
        checksums.add([folder / "unknown"])
        expected = [*NAMES[:2], "unknown"]
        assert path.read_bytes() == b"".join(line_of(folder, name) for name in expected)
        assert (checksums.damaged_lines, list(checksums)) == (0, [folder / name for name in expected])
        checksums.add([folder / NAMES[2]])
        assert whole(folder) == dict.fromkeys(NAMES, True)


def test_a_damaged_line_in_the_middle_stays_until_the_list_is_rewritten(folder: Path) -> None:
    path = folder / CHECKSUMS
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"0" + lines[1][1:] + lines[2])
    checksums = Checksums(folder)
    checksums.add([folder / "unknown"])
    checksums.reload()
    assert checksums.damaged_lines == 1
    assert list(checksums) == [folder / name for name in (NAMES[0], NAMES[2], "unknown")]
    checksums.rewrite([folder / NAMES[1]])
    assert Checksums(folder).damaged_lines == 0
    assert set(Checksums(folder)) == {folder / name for name in (*NAMES, "unknown")}


def test_lines_that_are_none(folder: Path) -> None:
    path = folder / CHECKSUMS
    content = path.read_bytes()
    other = [b"", b"\t\t", b"abc", b"\xff\xfe\t\xff\t00000000", line_of(folder, NAMES[0])[:-1] + b"\t"]
    path.write_bytes(content + b"\n".join(other) + b"\n")
    checksums = Checksums(folder)
    assert (checksums.damaged_lines, len(list(checksums))) == (len(other), 3)


def test_the_later_line_of_a_file_counts(folder: Path) -> None:
    """A writer that was killed before it had noted a file, and the file's name came again."""
    path = folder / NAMES[0]
    path.write_text("another")
    checksums = Checksums(folder)
    assert checksums.is_damaged(path)
    checksums.add([path])
    assert not checksums.is_damaged(path)
    assert whole(folder)[NAMES[0]]
    assert len((folder / CHECKSUMS).read_bytes().splitlines()) == 4
    checksums.rewrite()
    assert len((folder / CHECKSUMS).read_bytes().splitlines()) == 3


def test_lines_of_another_process_are_seen_when_read_again(folder: Path) -> None:
    ours, theirs = Checksums(folder), Checksums(folder)
    theirs.add([folder / "unknown"])
    assert folder / "unknown" not in ours
    ours.reload()
    assert folder / "unknown" in ours


@pytest.mark.parametrize("name", ["a\tb", "\t", "träger 服", "a\rb", "a\x0bb", "a\u2028b"])
def test_names_with_signs_that_part_elsewhere(folder: Path, name: str) -> None:
    (folder / name).write_text("x")
    Checksums(folder).add([folder / name])
    checksums = Checksums(folder)
    assert (folder / name in checksums, checksums.damaged_lines) == (True, 0)
    (folder / name).write_text("y")
    assert checksums.is_damaged(folder / name)


def test_a_name_of_two_lines_is_never_known_and_harms_no_other(folder: Path) -> None:
    """Neither Lance nor FAISS nor we name a file so; whoever does, nothing wrong is said."""
    (folder / "a\nb").write_text("x")
    Checksums(folder).add([folder / "a\nb", folder / "unknown"])
    checksums = Checksums(folder)
    assert (folder / "a\nb" in checksums, checksums.damaged_lines) == (False, 2)
    assert len(list(checksums)) == 4


def test_no_room_leaves_the_old_list(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / CHECKSUMS).read_bytes()

    def write_bytes(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OSError, match="No space left"):
        Checksums(folder).rewrite([folder / "unknown"])
    assert (folder / CHECKSUMS).read_bytes() == before
    assert not (folder / f"{CHECKSUMS}.tmp").exists()
