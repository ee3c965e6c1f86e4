"""The store: one Lance table that is catalog, embeddings and manifest at once, with one writer at a time.

What is relied on and what is worked around is measured in docs/decisions/0003-store.md; docs/gallery.md says what is on
the disk and what is guaranteed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import filelock
import lancedb
import pyarrow as pa

from indexer.checksums import Checksums
from indexer.encoders import EncoderCard
from indexer.files import fsync
from indexer.lance_files import HINT, files_of, leftovers_of, manifest_of, parts_of, version_of, versions_of
from indexer.rows import GALLERY_VERSION, Row, table_schema, to_arrow
from indexer.snapshot import (
    GalleryDamagedError,
    GalleryLockedError,
    GalleryNotFoundError,
    Snapshot,
    StoreError,
    translated,
)

TABLE = "items.lance"
# How long a version stays readable after the next one: a reader that holds an older one must not lose its files.
RETENTION = timedelta(hours=1)
# Lance's own defaults are 6 + 1 GiB.
_CACHE_BYTES = 64 * 2**20
_FRAGMENT_LIMIT = 32
# Items that one deletion names; each is a commit.
_DELETION = 5_000
_LOCK, CREATING = ".writer.lock", ".creating"


class Store:
    """The items table of one gallery folder.

    Args:
        folder: The gallery.
        freshness_s: Seconds after which a commit of another process is seen; 0 sees it at once.

    Raises:
        GalleryNotFoundError: The folder holds no gallery.
        StoreError: A gallery of another Modiste, or a table that cannot be opened.
    """

    def __init__(self, folder: Path, *, freshness_s: float = 5.0) -> None:
        self.folder = folder
        self.table_folder = folder / TABLE
        if not self.table_folder.is_dir():
            raise GalleryNotFoundError(
                f"{folder} is no gallery: it has no {TABLE}. Make one with `modiste index CATALOG --gallery {folder}`."
            )
        self._database = _connect(folder, freshness_s)
        with translated(f"Gallery {folder} cannot be opened (try `modiste repair --gallery {folder}`)"):
            self.checksums = Checksums(folder)
            self._whole: set[Path] = set()
            # Before Lance reads it: a damaged manifest can look like any other table, or bring Lance down.
            self._check_newest(noted=max(filter(None, map(version_of, self.checksums)), default=0))
            self._table = self._database.open_table("items")
            _card_of(self._table, folder)

    @classmethod
    def create(cls, folder: Path, card: EncoderCard, *, freshness_s: float = 5.0) -> Store:
        """A new, empty gallery.

        Raises:
            StoreError: The folder is a gallery, holds other things, or cannot be written.
        """
        cls.check_place(folder)
        if (folder / TABLE).is_dir():
            raise StoreError(f"Gallery {folder} already exists; open it.")
        with translated(f"Gallery {folder} cannot be created"):
            # Made aside and renamed: a table that was killed half-made would be taken for a gallery ever after.
            aside = folder / CREATING
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            _connect(aside, freshness_s).create_table("items", schema=table_schema(card))
            (aside / TABLE).rename(folder / TABLE)
            aside.rmdir()
        store = cls(folder, freshness_s=freshness_s)
        with translated(f"Gallery {folder} cannot be created"):
            store._sync()
        return store

    @staticmethod
    def check_place(folder: Path) -> None:
        """Returns where a folder is a gallery or can become one.

        Raises:
            StoreError: It holds other things.
        """
        others = (entry.name for entry in folder.iterdir()) if folder.is_dir() else iter(())
        if not (folder / TABLE).is_dir() and any(name not in (_LOCK, CREATING) for name in others):
            raise StoreError(f"{folder} is not empty and no gallery. Choose a new folder for --gallery.")

    @property
    def version(self) -> int:
        """The table's version, one higher with each commit."""
        return int(self._table.version)

    @property
    def card(self) -> EncoderCard:
        """Which encoder made the embeddings of the newest version."""
        return _card_of(self._table, self.folder)

    def upsert(self, rows: Sequence[Row]) -> int:
        """Commits rows, durably: new items are added, known ones replaced. Hold `writing` around it.

        Args:
            rows: At most one for an item_id.

        Returns:
            The version that holds them.

        Raises:
            StoreError: No room on the disk, or it cannot be written; earlier commits stand.
        """
        batch = to_arrow(rows, self.card)
        with translated(f"{len(rows)} items could not be written to gallery {self.folder}"):
            merge = self._table.merge_insert("item_id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(batch)
            self._sync()
        return self.version

    def delete(self, item_ids: Sequence[str]) -> int:
        """Deletes items, durably, a commit for some thousands; ids that are not there are passed over.

        Returns:
            The version without them.

        Raises:
            StoreError: No room on the disk, or it cannot be written; what was deleted before stays deleted.
        """
        for start in range(0, len(item_ids), _DELETION):
            part = item_ids[start : start + _DELETION]
            # Lance takes no bound values here; a quote is the only character that SQL gives a meaning in a string.
            listed = ", ".join("'" + item_id.replace("'", "''") + "'" for item_id in part)
            with translated(f"{len(part)} items could not be deleted from gallery {self.folder}"):
                self._table.delete(f"item_id IN ({listed})")
                self._sync()
        return self.version

    def overwrite(self, rows: Iterable[Sequence[Row]], card: EncoderCard) -> int:
        """Replaces all rows, and the encoder, in one commit; the version before stays readable for a while.

        Args:
            rows: Batches, of which memory holds one at a time.
            card: Which encoder made their embeddings.

        Returns:
            The version that holds them.

        Raises:
            StoreError: No room on the disk, or it cannot be written; the rows are what they were.
        """
        batches = (batch for part in rows for batch in to_arrow(part, card).to_batches())
        with translated(f"Gallery {self.folder} could not be rewritten"):
            reader = pa.RecordBatchReader.from_batches(table_schema(card), batches)
            self._database.create_table("items", reader, mode="overwrite")
            self._sync()
        return self.version

    def optimize(self) -> None:
        """Merges small fragments where there are many, so that reading stays fast."""
        with translated(f"Gallery {self.folder} could not be optimized"):
            is_needed = self._table.stats()["fragment_stats"]["num_small_fragments"] > _FRAGMENT_LIMIT
        if is_needed:
            self.compact()

    def compact(self, retention: timedelta = RETENTION) -> None:
        """Merges fragments, drops deleted rows, and removes versions and orphans older than `retention`.

        Args:
            retention: An hour or more where anything else may be reading.

        Raises:
            StoreError: No room on the disk, or it cannot be written; the rows are what they were.
        """
        # What it copies gets checksums of its own, which would make damage look whole.
        self.snapshot()
        with translated(f"Gallery {self.folder} could not be compacted"):
            # The one writer is us: what no version names belongs to nobody's commit.
            self._table.optimize(cleanup_older_than=self._age_to_clean(retention), delete_unverified=True)
            for path in leftovers_of(self.table_folder):
                # Lance passes over what it was writing when it was killed.
                path.unlink(missing_ok=True)
            # Empty: what was made there is the gallery.
            shutil.rmtree(self.folder / CREATING, ignore_errors=True)
            self._sync()
            if self.checksums.missing():
                self.checksums.rewrite()

    def _age_to_clean(self, retention: timedelta) -> timedelta:
        """The age beyond which no version was the newest one within `retention`.

        Lance counts from a version's own commit, however long it was the newest one and held by readers.
        """
        now = datetime.now()
        written = [version["timestamp"] for version in self._table.list_versions()]
        held = max((time for time in written if time <= now - retention), default=now - retention)
        return now - held + timedelta(seconds=1)

    def snapshot(self, *, check: bool = True) -> Snapshot:
        """The newest version, held still: what is read from it later belongs together.

        Args:
            check: Whether to compare its files with their checksums, those that this store has not seen yet.

        Raises:
            GalleryDamagedError: A file is not what was written.
            StoreError: The table cannot be read.
        """
        with translated(f"Gallery {self.folder} cannot be read"):
            # Reads through the live handle would each see the version of their moment.
            table = self._database.open_table("items")
            table.checkout(self.version)
            if check:
                self._check(int(table.version))
        return Snapshot(self.folder, table, _card_of(table, self.folder))

    def recommit(self, above: int) -> int:
        """Commits the rows as they are until the version is above one that was lost: a version never comes twice.

        Raises:
            StoreError: No room on the disk, or it cannot be written.
        """
        with translated(f"Gallery {self.folder} cannot be written"):
            while self.version <= above:
                self._table.checkout(self.version)
                self._table.restore()
            self._sync()
        return self.version

    def can_open(self, version: int) -> bool:
        """Whether a version can be opened, which does not say that its rows can be read."""
        try:
            with translated("No matter"):
                self._database.open_table("items").checkout(version)
        except StoreError:
            return False
        return True

    def _check(self, version: int) -> None:
        self._check_newest()
        new = [path for path in parts_of(self.table_folder, version) if path not in self._whole]
        if any(path not in self.checksums for path in new):
            self.checksums.reload()
        for path in new:
            self._check_file(path)

    def _check_newest(self, *, noted: int = 0) -> None:
        """Refuses where the newest version is damaged or gone: an earlier one would answer in its place."""
        versions = versions_of(self.table_folder)
        newest = manifest_of(self.table_folder, max([noted, *versions[-1:]]))
        if newest in self._whole:
            return
        if newest not in self.checksums:
            self.checksums.reload()
        self._check_file(newest, is_there=not versions or noted <= versions[-1])

    def _check_file(self, path: Path, *, is_there: bool = True) -> None:
        if not is_there or self.checksums.is_damaged(path):
            raise GalleryDamagedError(
                f"Gallery {self.folder} is damaged: {path.relative_to(self.folder)} is "
                f"{'not what was written' if is_there else 'gone'}. "
                f"`modiste verify` lists all damage, `modiste repair` mends what can be mended."
            )
        if path in self.checksums:
            self._whole.add(path)

    def _sync(self) -> None:
        """Makes what Lance wrote survive a power cut (it renames, but does not fsync), and notes its checksums."""
        new = [path for path in files_of(self.table_folder) if path not in self.checksums]
        for path in (*new, self.table_folder / "_versions" / HINT):
            fsync(path)
        for folder in sorted({path.parent for path in new}):
            fsync(folder)
        for folder in (self.table_folder, self.folder):
            fsync(folder)
        self.checksums.add(new)
        self._whole.update(new)


def why_not_opened(folder: Path) -> StoreError | None:
    """Why Lance cannot open the newest version of a table, whatever is in it; None where it can."""
    try:
        with translated(f"Gallery {folder} cannot be opened"):
            _connect(folder, 0).open_table("items")
    except StoreError as error:
        return error
    return None


@contextmanager
def writing(folder: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Holds the only writing place of a gallery folder, which is created where it is missing.

    Raises:
        GalleryLockedError: Another process is still writing after `wait_s` seconds.
        StoreError: The folder cannot be written.
    """
    with translated(f"Gallery {folder} cannot be written"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / _LOCK)
        try:
            lock.acquire(timeout=wait_s)
        except filelock.Timeout as error:
            raise GalleryLockedError(
                f"Another process is writing to gallery {folder}. Wait for it to end, or pass --wait SECONDS."
            ) from error
    try:
        yield
    finally:
        lock.release()


def _connect(folder: Path, freshness_s: float) -> Any:
    session = lancedb.Session(index_cache_size_bytes=_CACHE_BYTES, metadata_cache_size_bytes=_CACHE_BYTES)
    return lancedb.connect(folder, read_consistency_interval=timedelta(seconds=freshness_s), session=session)


def _card_of(table: Any, folder: Path) -> EncoderCard:
    """The encoder card of a table's version."""
    metadata = table.schema.metadata or {}
    version = int(metadata.get(b"modiste.gallery_version", b"0"))
    if version < 1 or b"modiste.encoder_card" not in metadata:
        raise GalleryNotFoundError(f"{folder} holds a Lance table that is not Modiste's: it has no encoder card.")
    if version != GALLERY_VERSION:
        is_later = version > GALLERY_VERSION
        raise StoreError(
            f"Gallery {folder} was written by {'a later' if is_later else 'an earlier'} Modiste (gallery version "
            f"{version}; this one knows {GALLERY_VERSION}). "
            + ("Upgrade Modiste." if is_later else "Index the catalog into a new folder.")
        )
    try:
        return EncoderCard.from_json(metadata[b"modiste.encoder_card"].decode())
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"Gallery {folder} cannot be opened, since its encoder card is damaged; try `modiste repair --gallery "
            f"{folder}`."
        ) from error
