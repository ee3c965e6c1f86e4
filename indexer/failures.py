"""The failures of a run: what a catalog has and the gallery could not take in. A report, not state.

`failures.jsonl` has a line a failure and a last one with the sha256 of those before it, so that damage shows.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from indexer.files import ASIDE, fsync
from indexer.snapshot import StoreError, translated

FAILURES = "failures.jsonl"


@dataclass(frozen=True, slots=True)
class Failure:
    """A photo or row of a catalog that did not become an item.

    Args:
        source: Path of the photo, or of the file with the row.
        reason: One sentence.
        item_id: None where the row had none.
        source_row: 1-based, or None.
    """

    source: str
    reason: str
    item_id: str | None = None
    source_row: int | None = None


class FailureList:
    """The list of a run under way; `close` puts it in the place of the one before, in one step.

    Args:
        folder: The gallery. Hold `writing` around it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FAILURES
        self._aside = folder / (FAILURES + ASIDE)
        self._what = f"The failures of gallery {folder} could not be written"
        with translated(self._what):
            self._file = self._aside.open("wb")
        self._digest = hashlib.sha256()

    def add(self, failure: Failure) -> None:
        """Adds a line.

        Raises:
            StoreError: No room on the disk.
        """
        line = json.dumps(asdict(failure)).encode() + b"\n"
        self._digest.update(line)
        with translated(self._what):
            self._file.write(line)

    def close(self, *, keep: bool) -> None:
        """Ends the list; where it is not to be kept, the one before stands.

        Raises:
            StoreError: No room on the disk; the one before stands.
        """
        with translated(self._what):
            try:
                if keep:
                    self._file.write(_seal(self._digest.hexdigest()))
                self._file.close()
                if keep:
                    fsync(self._aside)
                    self._aside.rename(self.path)
                    fsync(self.path.parent)
            finally:
                self._aside.unlink(missing_ok=True)


def read_failures(folder: Path) -> list[Failure]:
    """What the last run could not take in.

    Raises:
        StoreError: The list is damaged; the next run writes it anew.
    """
    path = folder / FAILURES
    try:
        *lines, seal = path.read_bytes().splitlines(keepends=True) or [b""]
        if seal != _seal(hashlib.sha256(b"".join(lines)).hexdigest()):
            raise ValueError("it is not what was written")
        return [Failure(**json.loads(line)) for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{path} cannot be read: {error}. The next `modiste index` writes it anew.") from error


def _seal(digest: str) -> bytes:
    return json.dumps({"sha256": digest}).encode() + b"\n"
