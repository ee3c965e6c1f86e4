"""The manifest: what the gallery already holds, compact enough that a million items fit in a few dozen megabytes."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.rows import key_of, metadata_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from data.catalog import CatalogItem
    from indexer.snapshot import Snapshot

# The coarsest clock of a file system in use: FAT's and some network file systems' two seconds.
TICK_NS = 2 * 10**9


class Status(Enum):
    """What an item of a catalog is to the gallery, told without reading its photo."""

    NEW = "new"
    UNCHANGED = "unchanged"
    SUSPECT = "suspect"
    REPEATED = "repeated"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells, without reading the photo, whether an item may have changed.

    Args:
        item_key: Key of the item_id.
        metadata_key: Key of everything but the photo's content.
        file_size: Bytes; -1 where the file cannot be found.
        file_mtime_ns: Modification time; 0 where it tells nothing, so that the photo is read the next time too: for a
            photo without a file, and for a file that may change again without its time changing.
    """

    item_key: int
    metadata_key: int
    file_size: int
    file_mtime_ns: int

    @classmethod
    def of(cls, item: CatalogItem) -> Fingerprint:
        """The fingerprint of an item as it is now."""
        if isinstance(item.image, bytes):
            size, mtime = len(item.image), 0
        else:
            size, mtime = _stat(item.image)
        return cls(key_of(item.item_id), metadata_key(item), size, mtime)


class Manifest:
    """The items of a snapshot by key, and which of a catalog's rows have been met in this run.

    Args:
        snapshot: What the gallery held when the run began.
        trust_times: Whether a file of the same size and modification time is taken for the same.
    """

    def __init__(self, snapshot: Snapshot, *, trust_times: bool = True) -> None:
        self._trust_times = trust_times
        names = ("metadata_key", "file_size", "file_mtime_ns")
        keys, fields = [np.empty(0, np.int64)], [np.empty((0, len(names)), np.int64)]
        for batch in snapshot.batches("item_id", *names):
            keys.append(np.array([key_of(item_id) for item_id in batch.column("item_id").to_pylist()], np.int64))
            fields.append(np.stack([batch.column(name).to_numpy() for name in names], axis=1))
        unsorted = np.concatenate(keys)
        self._rows: NDArray[np.int64] = np.argsort(unsorted)
        self._keys: NDArray[np.int64] = unsorted[self._rows]
        # (N, 3): metadata_key, file_size, file_mtime_ns
        self._fields: NDArray[np.int64] = np.concatenate(fields)[self._rows]
        self._met = np.zeros(len(self._keys), bool)
        self._met_new: set[int] = set()

    def meet(self, fingerprints: Sequence[Fingerprint]) -> list[tuple[Status, int]]:
        """What the next items of the catalog are, and their rows in the snapshot, -1 for new ones.

        Each counts as met from now on: the same item_id again is `REPEATED`.
        """
        keys = np.array([fingerprint.item_key for fingerprint in fingerprints], np.int64)
        places = np.searchsorted(self._keys, keys)
        return [self._meet(fingerprint, int(place)) for fingerprint, place in zip(fingerprints, places, strict=True)]

    def unmet(self) -> NDArray[np.int64]:
        """The rows of the snapshot that no row of the catalog was, ascending."""
        return np.sort(self._rows[~self._met])

    def _meet(self, fingerprint: Fingerprint, place: int) -> tuple[Status, int]:
        if place >= len(self._keys) or self._keys[place] != fingerprint.item_key:
            repeated = fingerprint.item_key in self._met_new
            self._met_new.add(fingerprint.item_key)
            return (Status.REPEATED if repeated else Status.NEW), -1
        row = int(self._rows[place])
        if self._met[place]:
            return Status.REPEATED, row
        self._met[place] = True
        seen = (fingerprint.metadata_key, fingerprint.file_size, fingerprint.file_mtime_ns)
        is_same = self._trust_times and fingerprint.file_mtime_ns != 0 and seen == tuple(self._fields[place].tolist())
        return (Status.UNCHANGED if is_same else Status.SUSPECT), row


def _stat(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in ns; -1 and 0 where the file cannot be found."""
    try:
        found = os.stat(path)  # noqa: PTH116 - half the time of Path.stat, a million times
    except (OSError, ValueError):
        return -1, 0
    # A write within the clock's tick after ours would leave the time as it is, as git knows too.
    is_settled = found.st_mtime_ns < time.time_ns() - TICK_NS
    return found.st_size, found.st_mtime_ns if is_settled else 0
