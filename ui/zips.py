"""Zips: the photos in one, read an entry at a time, never unpacked to disk. Nothing that a zip declares is believed."""

from __future__ import annotations

import io
import os
import struct
import threading
import weakref
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ui.held_files import HeldFileError, HeldFiles, picture_type

# Entries that are looked at, and bytes of the list of them, which is read into memory as a whole.
MOST_ENTRIES = 20_000
_MOST_LIST = 8 * 2**20
_MIB = 2**20
MOST_PHOTO = 20 * _MIB
# Photos are packed already: what grows further than this when it is unpacked, and beyond 1 MiB, is none.
_MOST_GROWTH = 100
# What people may have meant as a photo: where it is none that can be read, they are told so of this very file.
_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif"))
_SYSTEM_NAMES = frozenset(("thumbs.db", "desktop.ini", "__macosx"))
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
# What zipfile raises for bytes that are not as they should be.
_DAMAGES = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
)
_SHOWN, _LONGEST_NAME = 3, 300
# Characters that turn the direction of text around, with which a name can look like another one.
_TURNING = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd")


class ZipError(ValueError):
    """A zip, or an entry, that cannot be read; the message is for people."""


@dataclass(slots=True)
class Skipped:
    """What was left out, and why.

    Args:
        reason: For people.
        count: Files.
        names: The first few.
    """

    reason: str
    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str, count: int = 1) -> None:
        """Counts a file, or several."""
        self.count += count
        if name and len(self.names) < _SHOWN:
            self.names.append(name)


class PhotoZip:
    """The photos in a zip. Safe to use from any thread.

    Args:
        path: The zip.

    Raises:
        ZipError: It is none, or has more than is read here.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._file = _Bounded(path)
        except FileNotFoundError as error:
            # It was held a moment ago.
            raise ZipError("It is no longer held here; send it again.") from error
        try:
            self._zip = zipfile.ZipFile(self._file)
            self._entries = self._zip.infolist()
            if len(self._entries) > MOST_ENTRIES:
                raise ZipError(_too_many(len(self._entries)))
        except ZipError:
            self._file.close()
            raise
        except _DAMAGES as error:
            self._file.close()
            raise ZipError("It is no zip, or is damaged or cut off; pack it again.") from error
        # Somebody may still read it when it is no longer among those kept open: it is closed when nobody has it.
        weakref.finalize(self, self._file.close)

    def photos(self, skipped: dict[str, Skipped]) -> Iterator[tuple[int, str]]:
        """Number and name of each photo, and of each file that is called one.

        Args:
            skipped: By reason; what is no photo is added to it.
        """
        for number, entry in enumerate(self._entries):
            name = shown_name(entry.filename)
            reason = self._why_none(number, entry)
            if reason is None:
                yield number, name
            elif reason:
                skipped.setdefault(reason, Skipped(reason)).add(name)

    def read(self, number: int, *, most: int = MOST_PHOTO) -> bytes:
        """An entry's bytes.

        Args:
            number: Its place in the zip, from 0.
            most: Bytes that it may have once unpacked.

        Raises:
            ZipError: It cannot be unpacked, or is larger.
        """
        if not 0 <= number < len(self._entries):
            raise ZipError("There is no such file in the zip.")
        entry = self._entries[number]
        if entry.flag_bits & _ENCRYPTED:
            raise ZipError("It is locked with a password; pack it again without one.")
        if entry.compress_type not in _METHODS:
            raise ZipError(
                f"It is packed by a method that is not read here ({_method(entry.compress_type)}); pack it again with "
                "the usual one, Deflate."
            )
        allowed = min(most, max(_MIB, _MOST_GROWTH * entry.compress_size))
        content = self._unpack(entry, allowed + 1)
        if len(content) > allowed:
            if allowed == most:
                raise ZipError(f"It has more than {most // _MIB} MB; send a smaller photo.")
            raise ZipError(f"It grows more than {_MOST_GROWTH} times when it is unpacked, which no photo does.")
        return content

    def _unpack(self, entry: zipfile.ZipInfo, most: int) -> bytes:
        """Its first bytes, at most so many; the checksum is compared where the end is reached."""
        try:
            with self._lock, self._zip.open(entry) as file:
                return file.read(most)
        except _DAMAGES as error:
            raise ZipError("It is damaged in the zip and cannot be unpacked; pack it again.") from error

    def _why_none(self, number: int, entry: zipfile.ZipInfo) -> str | None:
        """Why an entry is left out; None for a photo, and nothing for what nobody would miss."""
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if entry.is_dir():
            return ""
        if is_system_file(str(path)):
            return "files of the system"
        suffix = path.suffix.lower()
        if suffix in _SUFFIXES:
            return None
        if suffix == ".zip":
            return "zips within the zip; send them by themselves"
        try:
            is_photo = picture_type(self._first_bytes(number)) is not None
        except ZipError:
            is_photo = False
        return None if is_photo else "no photos"

    def _first_bytes(self, number: int) -> bytes:
        entry = self._entries[number]
        if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
            raise ZipError("It cannot be looked into.")
        return self._unpack(entry, 12)


class PhotoZips:
    """The zips among the held files, kept open while they are in use. Safe to use from any thread.

    Args:
        files: Where they are held.
        most: Zips that are open at a time.
    """

    def __init__(self, files: HeldFiles, most: int = 8) -> None:
        self._files = files
        self._most = most
        self._open: OrderedDict[str, PhotoZip] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, token: str) -> PhotoZip:
        """A zip by its file's token.

        Raises:
            HeldFileError: It is no longer held.
            ZipError: It is none.
        """
        try:
            path = self._files.get(token).path
        except HeldFileError:
            # An open file keeps its place on the disk.
            with self._lock:
                self._open.pop(token, None)
            raise
        with self._lock:
            if token not in self._open:
                self._open[token] = PhotoZip(path)
            self._open.move_to_end(token)
            while len(self._open) > self._most:
                self._open.popitem(last=False)
            return self._open[token]

    def read(self, token: str, number: int) -> bytes:
        """An entry's bytes, by its zip's token and its place in it.

        Raises:
            HeldFileError: The zip is no longer held.
            ZipError: It cannot be read.
        """
        return self.get(token).read(number)


def is_system_file(path: str) -> bool:
    """Whether a path is of a file that operating systems leave behind, such as `__MACOSX/._a.jpg` or `Thumbs.db`."""
    parts = [part.lower() for part in path.split("/") if part not in ("", ".", "..")]
    return any(part in _SYSTEM_NAMES or part.startswith(".") for part in parts)


def shown_name(name: str) -> str:
    """A file's name as text for people, who cannot be deceived by it."""
    seen = "".join(letter if letter >= " " and letter != "\x7f" else "\ufffd" for letter in name.translate(_TURNING))
    seen = seen.encode("utf-8", "replace").decode("utf-8")
    return seen if len(seen) <= _LONGEST_NAME else "…" + seen[-_LONGEST_NAME:]


class _Bounded(io.FileIO):
    """A file of which nothing long is read at once: zipfile reads the list of entries as long as it says that it is."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self._size - self.tell(), 0)
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > _MOST_LIST:
            raise ZipError(_too_many(None))
        return super().read(wanted) or b""


def _too_many(count: int | None) -> str:
    known = "" if count is None else f" this one has {count:,}."
    return f"A zip may hold at most {MOST_ENTRIES:,} files here;{known or ' this one lists more.'} Send it in parts."


def _method(number: int) -> str:
    return {9: "Deflate64", 12: "BZIP2", 14: "LZMA", 93: "Zstandard", 95: "XZ"}.get(number, f"number {number}")
