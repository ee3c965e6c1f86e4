"""Files that must be whole and stay: their digest, the way to the disk itself, and replacement in one step."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

# What a file is called until it is whole.
ASIDE = ".tmp"


def sha256(path: Path) -> str:
    """The digest of a file, 64 hexadecimal digits.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    finally:
        aside.unlink(missing_ok=True)
    fsync(path.parent)
