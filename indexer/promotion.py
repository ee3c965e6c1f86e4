"""Promotion: a gallery takes the embeddings of another encoder's build of it, in one commit that can be undone.

A build lies in a folder of the gallery and is a gallery itself. What the commit replaces is kept aside before it; which
encoder the gallery has tells afterwards, whatever moment a run was killed at, whether the commit came about.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.checksums import CHECKSUMS, Checksums
from indexer.faiss_index import FAISS_FOLDER, FaissIndex
from indexer.files import ASIDE, fsync
from indexer.lance_files import parts_of
from indexer.renewal import refresh_index
from indexer.rows import ITEM_COLUMNS, STATE_COLUMNS, Row, row_of
from indexer.snapshot import translated
from indexer.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.encoders import EncoderCard
    from indexer.snapshot import Snapshot

# Builds of a gallery, in folders of it: by the encoder that is to come, and by the one before.
NEXT, PREVIOUS = "next", "previous"
# What the promotion of each of them replaces, until that is settled.
_REPLACED = {name: f"replaced-by-{name}" for name in (NEXT, PREVIOUS)}
_FILE_COLUMNS = ("content_hash", "file_size", "file_mtime_ns")


def find_places(old: Snapshot, new: Snapshot, *, same_photo: bool = False) -> NDArray[np.int64]:
    """The row of a build for each row of the gallery, (N,), -1 where it has none or one of another box.

    Args:
        old: The gallery.
        new: The build.
        same_photo: Whether the photo must have the same bytes: for a build that was not brought up to date.
    """
    ours, theirs = (part.columns("item_id", "box", "content_hash").combine_chunks() for part in (old, new))
    item_ids, known = (table["item_id"].combine_chunks() for table in (ours, theirs))
    places: NDArray[np.int64] = pc.index_in(item_ids, known).fill_null(-1).to_numpy().astype(np.int64)
    rows = np.flatnonzero(places >= 0)
    is_same = (_boxes(ours)[rows] == _boxes(theirs)[places[rows]]).all(axis=1)
    if same_photo:
        hashes = ours["content_hash"].take(pa.array(rows)), theirs["content_hash"].take(pa.array(places[rows]))
        is_same &= pc.equal(*hashes).to_numpy()
    places[rows[~is_same]] = -1
    return places


def promote(store: Store, old: Snapshot, new: Snapshot, places: NDArray[np.int64]) -> None:
    """Makes the embeddings of a build those of the gallery, in one commit; what was replaced becomes `previous`.

    Records and what was corrected by hand are the gallery's. Hold `writing` around it.

    Args:
        store: The gallery.
        old: Its newest version.
        new: The build.
        places: As `find_places`; items without a place are left out.

    Raises:
        StoreError: No room on the disk, or it cannot be written; the gallery is what it was, or is the new one.
    """
    _keep(store, old, new.folder.name)
    refresh_index(new, new.folder)
    index = FaissIndex.load(new.folder / FAISS_FOLDER, new.card)
    if index is not None:
        # Vectors have the same keys there; readers of the version to come have it at once.
        index.card = replace(index.card, version=old.version + 1)
        index.save(store.folder / FAISS_FOLDER)
    store.overwrite(_rows(old, new, places), new.card)
    settle(store)


def settle(store: Store) -> str | None:
    """Ends a promotion that was killed, and clears away what was half-made. Hold `writing` around it.

    Returns:
        The name of the build whose commit had come about, or None.

    Raises:
        StoreError: What was kept cannot be read or moved.
    """
    folder, card = store.folder, store.card
    settled = None
    for name, replaced in _REPLACED.items():
        _clear(folder / replaced)
        _clear(folder / name)
        if not (folder / replaced).exists():
            continue
        has_come = Store(folder / replaced).card.fingerprint != card.fingerprint
        for done in {name, PREVIOUS} if has_come else {replaced}:
            remove(folder / done)
        _forget_indexes(folder / FAISS_FOLDER, card)
        if has_come:
            settled = name
            # Last, for it is the name of what was kept that says what is left to be done.
            with translated(f"{folder / replaced} cannot be renamed"):
                (folder / replaced).rename(folder / PREVIOUS)
                fsync(folder)
    return settled


def is_unsettled(folder: Path) -> bool:
    """Whether a promotion was killed, or is under way."""
    return any((folder / replaced).exists() for replaced in _REPLACED.values())


def remove(folder: Path) -> None:
    """Deletes a build, at once as far as its name goes; one that is not there is passed over.

    Raises:
        StoreError: It cannot be deleted.
    """
    _clear(folder)
    if folder.exists():
        with translated(f"{folder} cannot be deleted"):
            folder.rename(folder.with_name(folder.name + ASIDE))
        _clear(folder)


def _clear(folder: Path) -> None:
    """Deletes what was half-made or half-deleted under a name."""
    shutil.rmtree(folder.with_name(folder.name + ASIDE), ignore_errors=True)


def _keep(store: Store, old: Snapshot, source: str) -> None:
    """Keeps the version that is to be replaced, as a gallery of its own that shares its files."""
    folder = store.folder / _REPLACED[source]
    remove(folder)
    aside = folder.with_name(folder.name + ASIDE)
    with translated(f"The version before cannot be kept in {folder}"):
        indexes = (path for path in (store.folder / FAISS_FOLDER).glob("*") if path.suffix != ASIDE)
        for path in (*parts_of(store.table_folder, old.version), *indexes):
            _link(path, aside / path.relative_to(store.folder))
        # Not shared: it is written in its place.
        shutil.copyfile(store.folder / CHECKSUMS, aside / CHECKSUMS)
        Checksums(aside).rewrite()
        for inner in (*(path for path in aside.rglob("*") if path.is_dir()), aside):
            fsync(inner)
        aside.rename(folder)
        fsync(store.folder)


def _link(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)
    except OSError:
        # A file system without links.
        shutil.copyfile(path, target)
        fsync(target)


def _rows(old: Snapshot, new: Snapshot, places: NDArray[np.int64]) -> Iterator[list[Row]]:
    """The rows to come: records of the gallery with the embeddings of the build, and the photos these are of."""
    start = 0
    for batch in old.batches(*ITEM_COLUMNS, *STATE_COLUMNS):
        here = places[start : start + batch.num_rows]
        start += batch.num_rows
        kept = np.flatnonzero(here >= 0)
        if not len(kept):
            continue
        photos = new.take(here[kept], *_FILE_COLUMNS)
        records = batch.take(kept).to_pylist()
        yield [
            row_of({**record, **photo}, embedding)
            for record, photo, embedding in zip(records, photos, new.embeddings(here[kept]), strict=True)
        ]


def _forget_indexes(folder: Path, card: EncoderCard) -> None:
    """Deletes the FAISS indexes that are not the newest of the gallery's encoder."""
    newest = FaissIndex.newest_card(folder, card)
    FaissIndex.remove(folder, but=[] if newest is None else [newest])


def _boxes(table: pa.Table) -> NDArray[np.float64]:
    """The boxes, (N, 4); -1 where there is none."""
    filled = pc.fill_null(table["box"].combine_chunks(), [-1.0] * 4)
    # (N * 4,) to (N, 4)
    boxes: NDArray[np.float64] = filled.flatten().to_numpy().reshape(-1, 4)
    return boxes
