"""Files that must be whole and stay: their digest, the way to the disk itself, and replacement in one step."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

# What a file is called until it is whole.
ASIDE = ".tmp"

# File systems take 255 bytes for a name, and parts are put before and after.
_LONGEST = 200
# Bytes that are hashed in one go.
_PART = 2**24
# What tells one content of a path from another: inode, size and time of modification.
_Stamp = tuple[int, int, int]
_ahead: dict[Path, tuple[_Stamp, Future[str]]] = {}


def sha256(path: Path) -> str:
    """The digest of a file, 64 hexadecimal digits.

    Raises:
        OSError: It cannot be read.
    """
    begun = _ahead.pop(path, None)
    if begun is not None and begun[0] == _stamp(path):
        return begun[1].result()
    return _digest(path)


def digest_ahead(paths: Iterable[Path]) -> None:
    """Begins to work out digests in a thread of its own, in order, for whoever asks for them soon.

    Worth it where this process has no other use for a core meanwhile: hashing leaves the interpreter to others.
    """
    begun = []
    for path in paths:
        # One that is gone is missed by whoever asks for it.
        with suppress(OSError):
            future: Future[str] = Future()
            _ahead[path] = _stamp(path), future
            begun.append((path, future))
    threading.Thread(target=_digest_all, args=(begun,), name="digest", daemon=True).start()


def _digest_all(begun: list[tuple[Path, Future[str]]]) -> None:
    for path, future in begun:
        try:
            future.set_result(_digest(path))
        except BaseException as error:  # Whoever asks would wait for ever.
            future.set_exception(error)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        # Each part waits for the interpreter twice, so hashlib.file_digest's 256 KB took twice as long beside others.
        buffer = memoryview(bytearray(min(_PART, os.fstat(file.fileno()).st_size)))
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
    return digest.hexdigest()


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def file_part(text: str) -> str:
    """Any text as part of a file's name, 200 bytes at most; texts that differ give parts that differ."""
    part = quote(text, safe=" ")
    if len(part) > _LONGEST:
        # No quoted text has a %~.
        part = f"{part[:100]}%~{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"
    return part


def size_on_disk(folder: Path) -> int:
    """Bytes of the files below a folder; one of several names counts once, and one that goes meanwhile does not."""
    sizes = {}
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def fsync(path: Path) -> None:
    """Makes a file, or the names in a folder, survive a power cut; one that is gone meanwhile needs none.

    Raises:
        OSError: The disk refused.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file so that it is, at any moment and after a power cut, the old one or the new one.

    Raises:
        OSError: It could not be written; the old one stands.
    """
    aside = path.with_name(path.name + ASIDE)
    try:
        aside.write_bytes(content)
        fsync(aside)
        aside.rename(path)
    except OSError as error:
        # Who asked knows this name, and not the one aside.
        error.filename = str(path)
        raise
    finally:
        aside.unlink(missing_ok=True)
    fsync(path.parent)
