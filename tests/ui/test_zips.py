"""Photos in zips: what is read, what is left out, and what a hostile zip costs."""

from __future__ import annotations

import io
import struct
import tracemalloc
import weakref
import zipfile
from pathlib import Path

import pytest

from ui.held_files import HeldFileError, HeldFiles
from ui.zips import MOST_ENTRIES, PhotoZip, PhotoZips, Skipped, ZipError, is_system_file, shown_name

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4
_MIB = 2**20


@pytest.fixture
def pack(tmp_path):
    """Writes a zip of (name, bytes) pairs; its path."""

    def write(*entries, method=zipfile.ZIP_DEFLATED):
        path = tmp_path / "photos.zip"
        with zipfile.ZipFile(path, "w", method) as file:
            for name, content in entries:
                file.writestr(zipfile.ZipInfo(name) if "\\" in name else name, content)
        return path

    return write


def _listed(path: Path) -> tuple[list[tuple[int, str]], dict[str, Skipped]]:
    skipped: dict[str, Skipped] = {}
    return list(PhotoZip(path).photos(skipped)), skipped


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_photos_are_listed_in_order_and_junk_is_counted_by_reason(pack):
    path = pack(
        ("a/1.jpg", JPEG),
        ("a/", b""),
        ("__MACOSX/a/._1.jpg", b"x"),
        (".hidden.jpg", JPEG),
        ("a/Thumbs.db", b"x"),
        ("notes.txt", b"hello"),
        ("empty", b""),
        ("more.zip", b"PK\x03\x04"),
        # A photo by what it is, though not by its name, and one by its name alone.
        ("photo-without-suffix", JPEG),
        ("iphone.HEIC", b"ftypheic"),
        ("a/1.jpg", JPEG + b"2"),
    )
    photos, skipped = _listed(path)
    assert photos == [(0, "a/1.jpg"), (8, "photo-without-suffix"), (9, "iphone.HEIC"), (10, "a/1.jpg")]
    assert {reason: (one.count, one.names) for reason, one in skipped.items()} == {
        "files of the system": (3, ["__MACOSX/a/._1.jpg", ".hidden.jpg", "a/Thumbs.db"]),
        "no photos": (2, ["notes.txt", "empty"]),
        "zips within the zip; send them by themselves": (1, ["more.zip"]),
    }
    # Of two that are called the same, each is read by its own place.
    assert (PhotoZip(path).read(0), PhotoZip(path).read(10)) == (JPEG, JPEG + b"2")


def test_only_the_first_names_are_kept_of_many(pack):
    _, skipped = _listed(pack(*((f"{place}.txt", b"x") for place in range(412))))
    assert (skipped["no photos"].count, len(skipped["no photos"].names)) == (412, 3)


def test_names_that_climb_are_text_only(pack, tmp_path):
    photos, _ = _listed(pack(("../../up.jpg", JPEG), ("/etc/up.jpg", JPEG)))
    assert [name for _, name in photos] == ["../../up.jpg", "/etc/up.jpg"]
    assert [path.name for path in tmp_path.iterdir()] == ["photos.zip"]


def test_a_bomb_is_not_unpacked(pack):
    path = pack(("bomb.jpg", JPEG + bytes(64 * _MIB)))
    tracemalloc.start()
    with pytest.raises(ZipError, match=r"grows more than 100 times"):
        PhotoZip(path).read(0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 64 MiB from 64 KiB: no more than a hundred times the latter is unpacked, in two buffers at a time.
    assert most < 30 * _MIB


def test_small_photos_may_grow_as_they_like(pack):
    # Half a MiB of zeros: a white photo may be so.
    content = JPEG + bytes(_MIB // 2)
    assert PhotoZip(pack(("white.png", content))).read(0) == content


def test_a_photo_that_is_too_large_is_refused_whatever_it_declares(pack):
    path = pack(("large.jpg", JPEG + bytes(3 * _MIB)), method=zipfile.ZIP_STORED)
    with pytest.raises(ZipError, match=r"has more than 2 MB; send a smaller photo"):
        PhotoZip(path).read(0, most=2 * _MIB)
    assert len(PhotoZip(path).read(0, most=4 * _MIB)) == len(JPEG) + 3 * _MIB


def test_an_entry_that_lies_about_its_size_is_damaged(pack):
    path = pack(("a.jpg", JPEG))
    # The uncompressed size in the list of entries: 24 bytes into its record.
    _patch(path, b"PK\x01\x02", 24, struct.pack("<I", 10))
    with pytest.raises(ZipError, match="damaged in the zip"):
        PhotoZip(path).read(0)


@pytest.mark.parametrize(
    ("record", "offset", "value", "reason"),
    [
        (b"PK\x01\x02", 16, b"\0\0\0\0", "damaged in the zip"),  # the checksum
        (b"PK\x03\x04", 30, b"other", "damaged in the zip"),  # the name in the entry's own header
        (b"PK\x01\x02", 42, b"\xff\xff\xff\x7f", "damaged in the zip"),  # where the entry is
        (b"PK\x01\x02", 8, b"\x01\x00", "locked with a password"),
        (b"PK\x01\x02", 10, b"\x09\x00", r"not read here \(Deflate64\)"),
        (b"PK\x01\x02", 10, b"\x0e\x00", r"not read here \(LZMA\)"),  # whose dictionary may be 4 GiB
        (b"PK\x01\x02", 10, b"\x63\x00", r"not read here \(number 99\)"),
    ],
)
def test_an_entry_that_cannot_be_read_says_why(pack, record, offset, value, reason):
    path = pack(("a.jpg", JPEG), ("good.jpg", JPEG))
    _patch(path, record, offset, value)
    assert len(_listed(path)[0]) == 2
    with pytest.raises(ZipError, match=reason):
        PhotoZip(path).read(0)
    assert PhotoZip(path).read(1) == JPEG


def test_what_cannot_be_looked_into_and_is_not_called_a_photo_is_skipped(pack):
    path = pack(("a", JPEG), ("b", JPEG))
    _patch(path, b"PK\x01\x02", 8, b"\x01\x00")
    photos, skipped = _listed(path)
    assert photos == [(1, "b")]
    assert skipped["no photos"].names == ["a"]


@pytest.mark.parametrize("number", [-1, 1])
def test_there_is_no_such_entry(pack, number):
    with pytest.raises(ZipError, match="no such file"):
        PhotoZip(pack(("a.jpg", JPEG))).read(number)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"not a zip at all",
        lambda content: content[:-30],
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"PK\x01\x02", b"QK\x01\x02"),
        # A name that is said to be UTF-8, and is none.
        lambda content: _patched(content, b"PK\x01\x02", 8, b"\x00\x08").replace(b"a.jpg", b"\xff.jpg"),
    ],
)
def test_a_file_that_is_no_zip_is_refused(pack, damage):
    path = pack(("a.jpg", JPEG))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ZipError, match="no zip, or is damaged or cut off"):
        PhotoZip(path)


def test_an_empty_zip_has_no_photos(pack):
    assert _listed(pack()) == ([], {})


def test_a_zip64_is_read(tmp_path):
    path = tmp_path / "large.zip"
    with zipfile.ZipFile(path, "w") as file, file.open("a.jpg", "w", force_zip64=True) as entry:
        entry.write(JPEG)
    assert PhotoZip(path).read(0) == JPEG


def test_ten_thousand_photos_are_listed_and_more_than_twenty_thousand_refused(pack):
    assert len(_listed(pack(*((f"{place}.jpg", b"") for place in range(10_000))))[0]) == 10_000
    path = pack(*((f"{place}.jpg", b"") for place in range(MOST_ENTRIES + 1)))
    with pytest.raises(ZipError, match=r"at most 20,000 files here; this one has 20,001"):
        PhotoZip(path)


def test_a_long_list_of_entries_is_not_read_into_memory(pack):
    path = pack(("a.jpg", JPEG), ("b.jpg", bytes(9 * _MIB)), method=zipfile.ZIP_STORED)
    content = path.read_bytes()
    # The list is said to begin at the file's start: 9 MiB of it.
    start = content.rindex(b"PK\x05\x06")
    path.write_bytes(content[: start + 12] + struct.pack("<II", start, 0) + content[start + 20 :])
    with pytest.raises(ZipError, match=r"at most 20,000 files here; this one lists more"):
        PhotoZip(path)


def test_zips_are_kept_open_and_closed_when_others_are_read():
    with HeldFiles(64) as files:
        tokens = []
        for place in range(3):
            content = io.BytesIO()
            with zipfile.ZipFile(content, "w") as file:
                file.writestr("a.jpg", JPEG + bytes([place]))
            tokens.append(files.keep("photos.zip", content.getvalue()).token)
        zips = PhotoZips(files, most=2)
        first = zips.get(tokens[0])
        assert zips.get(tokens[0]) is first
        assert [zips.read(token, 0)[-1] for token in tokens] == [0, 1, 2]
        assert zips.get(tokens[0]) is not first
        # The one that was read last stays: that is the third here, and not the second.
        third = zips.get(tokens[2])
        zips.get(tokens[1])
        assert zips.get(tokens[2]) is third
        # Who has it still can read it.
        assert first.read(0)[-1] == 0
        with pytest.raises(HeldFileError, match="no longer held"):
            zips.read("unknown", 0)


def test_a_zip_that_is_no_longer_held_is_not_kept_open(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("a.jpg", JPEG)
    with HeldFiles(1) as files:
        zips = PhotoZips(files)
        token = files.keep("photos.zip", content.getvalue()).token
        gone = weakref.ref(zips.get(token))
        # Two of this size are more than is held.
        for _ in range(2):
            files.keep("large.zip", bytes(_MIB))
        with pytest.raises(HeldFileError, match="no longer held"):
            zips.read(token, 0)
        assert gone() is None
    with pytest.raises(ZipError, match="no longer held"):
        PhotoZip(tmp_path / "gone.zip")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain.jpg", "plain.jpg"),
        ("Größe 👗.jpg", "Größe 👗.jpg"),
        ("a\nb\x00\x7f.jpg", "a\ufffdb\ufffd\ufffd.jpg"),
        # A name that a browser would show as "photoexe.jpg" turned around.
        ("photo\u202egpj.exe", "photo\ufffdgpj.exe"),
        ("\udcff.jpg", "?.jpg"),
        ("x" * 400, "…" + "x" * 300),
    ],
)
def test_names_deceive_nobody(name, shown):
    assert shown_name(name) == shown


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a/b.jpg", False), ("./a.jpg", False), ("../a.jpg", False), ("a/.git/b.jpg", True), ("desktop.INI", True)],
)
def test_files_of_the_system_are_known(path, expected):
    assert is_system_file(path) is expected


def _patched(content: bytes, record: bytes, offset: int, value: bytes) -> bytes:
    start = content.index(record) + offset
    return content[:start] + value + content[start + len(value) :]


def _patch(path: Path, record: bytes, offset: int, value: bytes) -> None:
    path.write_bytes(_patched(path.read_bytes(), record, offset, value))
