"""The files of a Lance table: which of them a version is made of, found without opening it.

Lance has no call for this. Names as lance 13 writes them: docs/gallery.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

# Manifests are named so that the newest comes first in a listing.
_LAST = 2**64 - 1
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
    names = (path.stem for path in (table / "_versions").glob("*.manifest"))
    return sorted(_LAST - int(name) for name in names if name.isdecimal())


def parts_of(table: Path, version: int) -> Iterator[Path]:
    """The files that a version is read from: its manifest, the data files that this names, and all deletion files.

    Raises:
        OSError: The manifest cannot be read.
    """
    manifest = manifest_of(table, version)
    yield manifest
    named = manifest.read_bytes()
    yield from (path for path in sorted((table / "data").glob("*.lance")) if path.name.encode() in named)
    yield from sorted((table / "_deletions").glob("*"))


def orphans_of(table: Path) -> list[Path]:
    """Data files that no version names, left by a run that was killed before its commit."""
    named = [manifest_of(table, version).read_bytes() for version in versions_of(table)]
    data = sorted((table / "data").glob("*.lance"))
    return [path for path in data if not any(path.name.encode() in manifest for manifest in named)]


def is_hint_right(table: Path) -> bool:
    """Whether the hint, where there is one, names the newest version."""
    hint, versions = table / "_versions" / HINT, versions_of(table)
    if not hint.exists() or not versions:
        return True
    try:
        return bool(json.loads(hint.read_bytes()) == {"version": versions[-1]})
    except (OSError, ValueError):
        return False
