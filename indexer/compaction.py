"""Compaction: a gallery that many small commits have grown is merged, and its earlier versions are cleaned away."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from indexer.faiss_index import FAISS_FOLDER, FaissIndex
from indexer.files import size_on_disk
from indexer.lance_files import versions_of
from indexer.promotion import PREVIOUS, remove
from indexer.renewal import refresh_index
from indexer.snapshot import GalleryDamagedError
from indexer.store import Store, writing
from indexer.verification import damaged_files


class CompactionError(ValueError):
    """Fewer hours to keep than a reader may need."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction did.

    Args:
        items: In the gallery, as before.
        version: The table's version afterwards.
        variant: How the gallery is searched: `exact`, `hnsw` or `ivf`.
        versions_before: Versions that could be read back.
        versions_after: Those that still can.
        bytes_before: On the disk, with indexes and an earlier encoder's build.
        bytes_after: The same afterwards.
    """

    items: int
    version: int
    variant: str
    versions_before: int
    versions_after: int
    bytes_before: int
    bytes_after: int


def compact(folder: Path, *, keep_hours: float = 1.0, forget_previous: bool = False, wait_s: float = 0.0) -> Compaction:
    """Merges a gallery's files, drops deleted rows and old versions, and brings its FAISS index up to date.

    Args:
        folder: The gallery.
        keep_hours: For how long a version stays readable, 1 or more.
        forget_previous: Whether to delete what `modiste rollback` would bring back.
        wait_s: Seconds to wait for another writer.

    Raises:
        CompactionError: `keep_hours` below 1.
        GalleryDamagedError: A file is not what was written; nothing was done.
        StoreError: No gallery, another writer, or no room on the disk; the rows are what they were.
    """
    if not keep_hours >= 1:
        raise CompactionError(
            f"Versions are kept for an hour or more, since readers may be using them; got {keep_hours:g} hours."
        )
    store = Store(folder, freshness_s=0)
    with writing(folder, wait_s=wait_s):
        damaged = damaged_files(store.checksums)
        if damaged:
            # Lance cannot clean where it cannot read, and would stop half-way.
            raise GalleryDamagedError(
                f"Gallery {folder} cannot be compacted: {damaged[0].relative_to(folder)} is not what was written. Run "
                f"`modiste repair --gallery {folder}` first."
            )
        versions, size = len(versions_of(store.table_folder)), size_on_disk(folder)
        store.compact(timedelta(hours=keep_hours))
        snapshot = store.snapshot()
        card = FaissIndex.newest_card(folder / FAISS_FOLDER, snapshot.card)
        variant = refresh_index(snapshot, folder, "auto" if card is None else card.variant)
        if forget_previous and (folder / PREVIOUS).is_dir():
            with writing(folder / PREVIOUS, wait_s=wait_s):
                remove(folder / PREVIOUS)
    left = len(versions_of(store.table_folder))
    return Compaction(len(snapshot), snapshot.version, variant, versions, left, size, size_on_disk(folder))
