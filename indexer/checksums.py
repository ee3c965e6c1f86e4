"""Checksums of a gallery's files: Lance reads a flipped byte back in silence, so what was written is written down.

`checksums.tsv` gains a line a new file with each commit: sha256, path, and a checksum of the line itself. The files are
immutable. A file without a line (a run was killed between commit and line) is one about which nothing is known; the
next writer adds it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from indexer.files import fsync, replace_file, sha256

CHECKSUMS = "checksums.tsv"


class Checksums:
    """The digests of a gallery's files, by path below its folder.

    Args:
        folder: The gallery.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / CHECKSUMS
        self.damaged_lines = 0
        self._digests: dict[str, str] = {}
        # Ends in a whole line, so that the next one begins a line of its own.
        self._is_whole = True
        self.reload()

    def reload(self) -> None:
        """Reads what another process may have written since."""
        self._digests, self.damaged_lines = {}, 0
        *lines, torn = (self._path.read_bytes() if self._path.exists() else b"").split(b"\n")
        self._is_whole = not torn
        for line in [*lines, torn] if torn else lines:
            digest, _, rest = line.decode("utf-8", "replace").partition("\t")
            name, _, check = rest.rpartition("\t")
            if check == _check(digest, name) and line is not torn:
                self._digests[name] = digest
            else:
                self.damaged_lines += 1

    def __contains__(self, path: Path) -> bool:
        return self._name(path) in self._digests

    def __iter__(self) -> Iterator[Path]:
        return map(self._folder.joinpath, self._digests)

    def missing(self) -> list[Path]:
        """Files that have a line and are gone."""
        return [path for path in self if not path.exists()]

    def is_damaged(self, path: Path) -> bool:
        """Whether a file is not what was written; False where nothing is known of it.

        Raises:
            OSError: It cannot be read.
        """
        digest = self._digests.get(self._name(path))
        return digest is not None and sha256(path) != digest

    def add(self, paths: Iterable[Path]) -> None:
        """Adds files as they are now, durably; those that are gone meanwhile are passed over.

        Raises:
            OSError: No room on the disk, or one cannot be read.
        """
        digests = {self._name(path): sha256(path) for path in paths if path.exists()}
        if not digests:
            return
        if not self._is_whole:
            # A line that a full disk cut off would stay damaged for ever.
            self.rewrite(self._folder / name for name in digests)
            return
        is_new = not self._path.exists()
        with self._path.open("ab") as file:
            file.write(_lines(digests))
        fsync(self._path)
        if is_new:
            fsync(self._folder)
        self._digests |= digests

    def rewrite(self, paths: Iterable[Path] = ()) -> None:
        """Leaves out damaged lines and files that are gone, and takes in the given ones as they are now.

        Raises:
            OSError: No room on the disk; the old list stands.
        """
        kept = {name: digest for name, digest in self._digests.items() if (self._folder / name).exists()}
        kept |= {self._name(path): sha256(path) for path in paths}
        replace_file(self._path, _lines(kept))
        self.reload()

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


def _lines(digests: dict[str, str]) -> bytes:
    return "".join(f"{digest}\t{name}\t{_check(digest, name)}\n" for name, digest in digests.items()).encode()


def _check(digest: str, name: str) -> str:
    return f"{zlib.crc32(f'{digest} {name}'.encode()):08x}"
