"""Rows of the items table: their columns, their keys and checksums, and the way from records to Arrow and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from data.catalog import Box, CatalogItem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.encoders import EncoderCard

# A gallery with another number was written by another Modiste.
GALLERY_VERSION = 2
ITEM_COLUMNS: tuple[str, ...] = ("item_id", "product_id", "image", "image_bytes", "targets", "labels", "box", "split")
# The same without photos, which is little enough to be kept in memory.
LIGHT_COLUMNS: tuple[str, ...] = tuple(name for name in ITEM_COLUMNS if name != "image_bytes")
# What tells of an item's photo and record, beside the record itself.
STATE_COLUMNS = ("content_hash", "file_size", "file_mtime_ns", "metadata_key", "corrected", "vector_key", "checksum")
# Lance's name for a column that is a key; it then refuses a second row of one key as long as there is one writer.
_KEY = {"lance-schema:unenforced-primary-key:position": "1"}


@dataclass(frozen=True, slots=True)
class Row:
    """One item as it is stored.

    Args:
        item: The record, with what was corrected by hand.
        content_hash: blake2b-16 of the photo file, hexadecimal.
        file_size: Bytes of the photo file.
        file_mtime_ns: Its modification time; 0 where it does not tell whether the photo is the same.
        embedding: (D,) float32 of unit length.
        metadata_key: Key of the record as the catalog had it; None where that is the item.
        corrected: Targets whose labels were set by hand and outlast the catalog's.
    """

    item: CatalogItem
    content_hash: str
    file_size: int
    file_mtime_ns: int
    embedding: NDArray[np.float32]
    metadata_key: int | None = None
    corrected: tuple[str, ...] = ()


def key_of(text: str | bytes) -> int:
    """A 64-bit key (blake2b) of an item_id, a photo or a record, as a signed integer."""
    data = text.encode() if isinstance(text, str) else text
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)


def content_hash_of(content: bytes) -> str:
    """The digest by which a photo is known, whatever its file is called: blake2b, 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def metadata_key(item: CatalogItem) -> int:
    """The 64-bit key of everything about an item but its photo's content and the row that it stood in."""
    image = str(item.image) if isinstance(item.image, Path) else None
    box = _corners(item.box)
    labels = sorted((target, list(names)) for target, names in item.labels.items())
    return key_of(json.dumps([item.item_id, item.product_id, image, labels, box, item.split], ensure_ascii=False))


def vector_key(item_id: str, embedding: NDArray[np.float32]) -> int:
    """The 64-bit key of an item's embedding: its checksum, and the name under which FAISS knows it."""
    return key_of(item_id.encode() + b"\0" + np.ascontiguousarray(embedding, "<f4").tobytes())


def checksum(record: Mapping[str, Any]) -> int:
    """The 64-bit checksum of a stored row, as a dict: all columns but the two that keys in it stand for.

    `vector_key` stands for the embedding, `content_hash` for `image_bytes`.
    """
    left_out = ("embedding", "image_bytes", "checksum")
    return key_of(json.dumps({k: record[k] for k in sorted(record) if k not in left_out}, ensure_ascii=False))


def table_schema(card: EncoderCard) -> pa.Schema:
    """The columns of the items table; the encoder card and the gallery's version are its metadata."""
    fields = [
        pa.field("item_id", pa.string(), nullable=False, metadata=_KEY),
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
        pa.field("corrected", pa.list_(pa.string())),
        pa.field("vector_key", pa.int64()),
        pa.field("checksum", pa.int64()),
        pa.field("embedding", pa.list_(pa.float32(), card.dimension)),
    ]
    metadata = {"modiste.gallery_version": str(GALLERY_VERSION), "modiste.encoder_card": card.to_json()}
    return pa.schema(fields, metadata=metadata)


def to_arrow(rows: Sequence[Row], card: EncoderCard) -> pa.Table:
    """Rows as a table of that schema.

    Args:
        rows: At most one for an item_id; Lance would insert both.
        card: Which encoder made the embeddings.
    """
    if len({row.item.item_id for row in rows}) != len(rows):
        raise AssertionError("a batch holds one item twice; Lance would insert both")
    records = [_record(row) for row in rows]
    columns: dict[str, Any] = {name: [record[name] for record in records] for name in records[0]} if records else {}
    embeddings = np.array([row.embedding for row in rows], np.float32)
    # (B, D) to (B * D,)
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), card.dimension)
    schema = table_schema(card)
    return pa.table({name: columns.get(name, []) for name in schema.names}, schema=schema)


def _record(row: Row) -> dict[str, Any]:
    item = row.item
    pairs = [(target, name) for target, names in item.labels.items() for name in names]
    record: dict[str, Any] = {
        "item_id": item.item_id,
        "product_id": item.product_id,
        "image": str(item.image) if isinstance(item.image, Path) else None,
        "image_bytes": item.image if isinstance(item.image, bytes) else None,
        "targets": [target for target, _ in pairs],
        "labels": [name for _, name in pairs],
        "box": _corners(item.box),
        "split": item.split,
        "content_hash": row.content_hash,
        "file_size": row.file_size,
        "file_mtime_ns": row.file_mtime_ns,
        "metadata_key": metadata_key(item) if row.metadata_key is None else row.metadata_key,
        "corrected": list(row.corrected),
        "vector_key": vector_key(item.item_id, row.embedding),
    }
    return {**record, "checksum": checksum(record)}


def item_of(record: Mapping[str, Any]) -> CatalogItem:
    """The record of a stored row, given as a dict of the ITEM_COLUMNS; without `image_bytes` such a photo is empty."""
    return CatalogItem(
        item_id=record["item_id"],
        image=record.get("image_bytes", b"") if record["image"] is None else Path(record["image"]),
        product_id=record["product_id"],
        labels=labels_of(record),
        box=box_of(record["box"]),
        split=record["split"],
    )


def labels_of(record: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Label names by target, of the parallel lists of a stored row."""
    labels: dict[str, list[str]] = {}
    for target, name in zip(record["targets"] or (), record["labels"] or (), strict=True):
        labels.setdefault(target, []).append(name)
    return {target: tuple(names) for target, names in labels.items()}


def _corners(box: Box | None) -> list[float] | None:
    """A region as it is stored; whole numbers become what the table gives back."""
    return None if box is None else [float(value) for value in (box.x, box.y, box.width, box.height)]


def box_of(stored: Iterable[float] | None) -> Box | None:
    """The region of a stored row."""
    return None if stored is None else Box(*stored)


def row_of(record: Mapping[str, Any], embedding: NDArray[np.float32]) -> Row:
    """The row that was stored, given as a dict of the ITEM_COLUMNS and STATE_COLUMNS."""
    return Row(
        item_of(record),
        record["content_hash"],
        record["file_size"],
        record["file_mtime_ns"],
        embedding,
        record["metadata_key"],
        tuple(record["corrected"] or ()),
    )
