"""The files of a Lance table: which of them a version is made of, found without opening it.

Lance has no call for this. Names as lance 13 writes them: docs/gallery.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from indexer.files import ASIDE

# Manifests are named so that the newest comes first in a listing.
_LAST = 2**64 - 1
# What holds rows, and what says which of them are deleted.
DELETIONS = "_deletions"
_ROW_FOLDERS = ("data", DELETIONS)
# The only file that is written twice; it is advisory, and any content of it opens the right version.
HINT = "latest_version_hint.json"


def files_of(table: Path) -> list[Path]:
    """All files of a table but the hint, in order of name."""
    return sorted(path for path in table.rglob("*") if path.is_file() and path.name != HINT)


def manifest_of(table: Path, version: int) -> Path:
    """The manifest of a version."""
    return table / "_versions" / f"{_LAST - version:020}.manifest"


def versions_of(table: Path) -> list[int]:
    """The versions that have a manifest, oldest first."""
    return sorted(filter(None, map(version_of, (table / "_versions").glob("*.manifest"))))


def version_of(path: Path) -> int | None:
    """The version that a file is the manifest of; None where it is another file."""
    return _LAST - int(path.stem) if path.suffix == ".manifest" and path.stem.isdecimal() else None


def parts_of(table: Path, version: int) -> Iterator[Path]:
    """The files that a version is read from: its manifest, and the data and deletion files that this names.

    Raises:
        OSError: The manifest cannot be read.
    """
    yield manifest_of(table, version)
    yield from named_in(table, version, _row_files(table))


def named_in(table: Path, version: int, paths: Iterable[Path]) -> list[Path]:
    """Those of some files that hold the rows of a version, whether they are there or not.

    Raises:
        OSError: The manifest cannot be read.
    """
    content = manifest_of(table, version).read_bytes()
    # Before the manifest itself stands what the commit did, which names files of earlier versions too.
    start = int.from_bytes(content[-16:-8], "little")
    content = content[start:] if start < len(content) else content
    return [path for path in paths if path.parent.name in _ROW_FOLDERS and _name_in_manifest(path) in content]


def orphans_of(table: Path) -> list[Path]:
    """Data and deletion files that no version names, left by a run that was killed before its commit."""
    orphans = _row_files(table)
    for version in versions_of(table):
        named = set(named_in(table, version, orphans))
        orphans = [path for path in orphans if path not in named]
    return orphans


def leftovers_of(table: Path) -> list[Path]:
    """Files that were never finished: Lance writes `.tmp...` and `...#1`, and renames."""
    return [path for path in files_of(table) if path.name.startswith(".") or "#" in path.name or ASIDE in path.name]


def is_hint_right(table: Path) -> bool:
    """Whether the hint, where there is one, names the newest version."""
    hint, versions = table / "_versions" / HINT, versions_of(table)
    if not hint.exists() or not versions:
        return True
    try:
        return bool(json.loads(hint.read_bytes()) == {"version": versions[-1]})
    except (OSError, ValueError):
        return False


def _row_files(table: Path) -> list[Path]:
    return [*sorted((table / "data").glob("*.lance")), *sorted((table / DELETIONS).glob("*"))]


def _name_in_manifest(path: Path) -> bytes:
    """How a manifest names a file: data by name, deletions by the number at the end of theirs, field 3 as a varint."""
    number = path.stem.rpartition("-")[2]
    if path.suffix == ".lance" or not number.isdecimal():
        return path.name.encode()
    groups = [int(number) >> shift & 127 for shift in range(0, max(1, int(number).bit_length()), 7)]
    return bytes([3 << 3, *(group | 128 for group in groups[:-1]), groups[-1]])
