"""The store: one Lance table that is catalog, embeddings and manifest at once, with one writer at a time.

What is relied on and what is worked around is measured in docs/decisions/0003-store.md.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import lancedb
import numpy as np
import pyarrow as pa

from data.catalog import CatalogItem
from indexer.encoders import EncoderCard
from indexer.files import fsync
from indexer.snapshot import GalleryLockedError, GalleryNotFoundError, Snapshot, StoreError, translated

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A gallery with a larger number was written by a later Modiste.
GALLERY_VERSION = 1
# Lance's own defaults are 6 + 1 GiB.
_CACHE_BYTES = 64 * 2**20
_RETENTION = timedelta(hours=1)
_FRAGMENT_LIMIT = 32
_LOCK, _ASIDE = ".writer.lock", ".creating"


@dataclass(frozen=True, slots=True)
class Row:
    """One item as it is stored.

    Args:
        item: The catalog's record.
        content_hash: blake2b-16 of the photo file, hexadecimal.
        file_size: Bytes of the photo file.
        file_mtime_ns: Its modification time; 0 for a photo without a file.
        embedding: (D,) float32 of unit length.
    """

    item: CatalogItem
    content_hash: str
    file_size: int
    file_mtime_ns: int
    embedding: NDArray[np.float32]


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


def key_of(text: str | bytes) -> int:
    """A 64-bit key (blake2b) of an item_id, a photo or a record, as a signed integer."""
    data = text.encode() if isinstance(text, str) else text
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)


def metadata_key(item: CatalogItem) -> int:
    """The 64-bit key of everything about an item but its photo's content and the row that it stood in."""
    image = str(item.image) if isinstance(item.image, Path) else None
    box = None if item.box is None else [item.box.x, item.box.y, item.box.width, item.box.height]
    labels = sorted((target, list(names)) for target, names in item.labels.items())
    return key_of(json.dumps([item.item_id, item.product_id, image, labels, box, item.split], ensure_ascii=False))


def vector_key(item_id: str, embedding: NDArray[np.float32]) -> int:
    """The 64-bit key of an item's embedding: its checksum, and the name under which FAISS knows it."""
    return key_of(item_id.encode() + b"\0" + np.ascontiguousarray(embedding, "<f4").tobytes())


def table_schema(card: EncoderCard) -> pa.Schema:
    """The columns of the items table; the encoder card and the gallery's version are its metadata."""
    fields = [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("product_id", pa.string()),
        pa.field("image", pa.string()),
        pa.field("image_bytes", pa.large_binary()),
        # Parallel lists: new targets need no new column, so every commit stays one commit.
        pa.field("targets", pa.list_(pa.string())),
        pa.field("labels", pa.list_(pa.string())),
        pa.field("box", pa.list_(pa.float64(), 4)),
        pa.field("split", pa.string()),
        pa.field("content_hash", pa.string()),
        pa.field("file_size", pa.int64()),
        pa.field("file_mtime_ns", pa.int64()),
        pa.field("metadata_key", pa.int64()),
        pa.field("vector_key", pa.int64()),
        pa.field("embedding", pa.list_(pa.float32(), card.dimension)),
    ]
    metadata = {"modiste.gallery_version": str(GALLERY_VERSION), "modiste.encoder_card": card.to_json()}
    return pa.schema(fields, metadata=metadata)


_FAILURES_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("reason", pa.string()),
        ("item_id", pa.string()),
        ("source_row", pa.int64()),
    ]
)


class Store:
    """The items table of one gallery folder, and the list of failures beside it.

    Args:
        folder: The gallery.
        freshness_s: Seconds after which a commit of another process is seen; 0 sees it at once.

    Raises:
        GalleryNotFoundError: The folder holds no gallery.
        StoreError: A gallery of a later Modiste, or a table that cannot be opened.
    """

    def __init__(self, folder: Path, *, freshness_s: float = 5.0) -> None:
        self.folder = folder
        if not (folder / "items.lance").is_dir():
            raise GalleryNotFoundError(
                f"{folder} is no gallery: it has no items.lance. "
                f"Make one with `modiste index CATALOG --gallery {folder}`."
            )
        self._database = _connect(folder, freshness_s)
        with translated(f"Gallery {folder} cannot be opened"):
            self._table = self._database.open_table("items")
            metadata = self._table.schema.metadata or {}
        version = int(metadata.get(b"modiste.gallery_version", b"0"))
        if version > GALLERY_VERSION:
            raise StoreError(
                f"Gallery {folder} was written by a later Modiste (gallery version {version}; this one knows "
                f"{GALLERY_VERSION}). Upgrade Modiste."
            )
        if version < 1 or b"modiste.encoder_card" not in metadata:
            raise GalleryNotFoundError(f"{folder} holds a Lance table that is not Modiste's: it has no encoder card.")
        self.card = EncoderCard.from_json(metadata[b"modiste.encoder_card"].decode())
        self._synced: set[Path] = set()

    @classmethod
    def create(cls, folder: Path, card: EncoderCard, *, freshness_s: float = 5.0) -> Store:
        """A new, empty gallery.

        Raises:
            StoreError: The folder is a gallery, holds other things, or cannot be written.
        """
        cls.check_place(folder)
        if (folder / "items.lance").is_dir():
            raise StoreError(f"Gallery {folder} already exists; open it.")
        with translated(f"Gallery {folder} cannot be created"):
            # Made aside and renamed: a table that was killed half-made would be taken for a gallery ever after.
            aside = folder / _ASIDE
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            table = _connect(aside, freshness_s).create_table("items", schema=table_schema(card))
            # Lance then refuses a second row of one key as long as there is one writer.
            table.set_unenforced_primary_key("item_id")
            (aside / "items.lance").rename(folder / "items.lance")
            aside.rmdir()
        store = cls(folder, freshness_s=freshness_s)
        store._sync()
        return store

    @staticmethod
    def check_place(folder: Path) -> None:
        """Returns where a folder is a gallery or can become one.

        Raises:
            StoreError: It holds other things.
        """
        others = (entry.name for entry in folder.iterdir()) if folder.is_dir() else iter(())
        if not (folder / "items.lance").is_dir() and any(name not in (_LOCK, _ASIDE) for name in others):
            raise StoreError(f"{folder} is not empty and no gallery. Choose a new folder for --gallery.")

    @property
    def version(self) -> int:
        """The table's version, one higher with each commit."""
        return int(self._table.version)

    def upsert(self, rows: Sequence[Row]) -> int:
        """Commits rows, durably: new items are added, known ones replaced. Hold `writing` around it.

        Args:
            rows: At most one for an item_id.

        Returns:
            The version that holds them.

        Raises:
            StoreError: No room on the disk, or it cannot be written; earlier commits stand.
        """
        batch = _to_arrow(rows, self.card)
        with translated(f"{len(rows)} items could not be written to gallery {self.folder}"):
            merge = self._table.merge_insert("item_id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(batch)
            self._sync()
        return self.version

    def optimize(self) -> None:
        """Merges small fragments, so that reading stays fast; versions of the last hour stay readable."""
        with translated(f"Gallery {self.folder} could not be optimized"):
            if self._table.stats()["fragment_stats"]["num_small_fragments"] > _FRAGMENT_LIMIT:
                self._table.optimize(cleanup_older_than=_RETENTION)
                self._sync()

    def write_failures(self, failures: Iterable[Failure], *, append: bool) -> None:
        """Adds to the list of failures, or begins it anew."""
        data = pa.Table.from_pylist([asdict(failure) for failure in failures], schema=_FAILURES_SCHEMA)
        with translated(f"The failures of gallery {self.folder} could not be written"):
            if not (self.folder / "failures.lance").is_dir():
                if len(data):
                    self._database.create_table("failures", data)
            else:
                self._database.open_table("failures").add(data, mode="append" if append else "overwrite")
            self._sync()

    def failures(self) -> list[Failure]:
        """What the last indexing run could not take in."""
        if not (self.folder / "failures.lance").is_dir():
            return []
        with translated(f"The failures of gallery {self.folder} cannot be read"):
            return [Failure(**row) for row in self._database.open_table("failures").to_arrow().to_pylist()]

    def snapshot(self) -> Snapshot:
        """The newest version, held still: what is read from it later belongs together.

        Raises:
            StoreError: The table cannot be read.
        """
        with translated(f"Gallery {self.folder} cannot be read"):
            # Reads through the live handle would each see the version of their moment.
            table = self._database.open_table("items")
            table.checkout(self.version)
        return Snapshot(self.folder, table, self.card)

    def _sync(self) -> None:
        """Makes what Lance wrote survive a power cut: it renames, but does not fsync."""
        tables = sorted(self.folder.glob("*.lance"))
        for folder in sorted(path for table in tables for path in table.rglob("*") if path.is_dir()):
            new = [path for path in folder.iterdir() if path.is_file() and path not in self._synced]
            for path in new:
                fsync(path)
            if new:
                fsync(folder)
            self._synced.update(new)
        for folder in (*tables, self.folder):
            fsync(folder)


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


def _to_arrow(rows: Sequence[Row], card: EncoderCard) -> pa.Table:
    items = [row.item for row in rows]
    if len({item.item_id for item in items}) != len(items):
        raise AssertionError("a batch holds one item twice; Lance would insert both")
    pairs = [[(target, name) for target, names in item.labels.items() for name in names] for item in items]
    embeddings = np.stack([row.embedding for row in rows])
    boxes = [None if item.box is None else [item.box.x, item.box.y, item.box.width, item.box.height] for item in items]
    columns = {
        "item_id": [item.item_id for item in items],
        "product_id": [item.product_id for item in items],
        "image": [str(item.image) if isinstance(item.image, Path) else None for item in items],
        "image_bytes": [item.image if isinstance(item.image, bytes) else None for item in items],
        "targets": [[target for target, _ in row] for row in pairs],
        "labels": [[name for _, name in row] for row in pairs],
        "box": boxes,
        "split": [item.split for item in items],
        "content_hash": [row.content_hash for row in rows],
        "file_size": [row.file_size for row in rows],
        "file_mtime_ns": [row.file_mtime_ns for row in rows],
        "metadata_key": [metadata_key(item) for item in items],
        "vector_key": [vector_key(row.item.item_id, row.embedding) for row in rows],
        # (B, D) to (B * D,)
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), card.dimension),
    }
    return pa.table(columns, schema=table_schema(card))
