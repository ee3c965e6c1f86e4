"""The pipeline: brings a gallery up to date with a catalog, encoding only what it has not seen.

The workers of indexer.encoding read, decode and encode while the calling thread reads the catalog and commits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.catalog import BadRow, Catalog, CatalogItem
from indexer.encoders import LazyEncoder, check_same_encoder
from indexer.encoding import CHUNK, FAILED, UNCHANGED, Result, Task, batched, encode_tasks, failure_of
from indexer.faiss_index import FAISS_FOLDER, FaissIndex, choose_variant
from indexer.manifest import Fingerprint, Manifest, Status
from indexer.store import Failure, Row, Store, writing

if TYPE_CHECKING:
    from indexer.snapshot import Snapshot

# Rows a commit: Lance wants 256 or more, and a killed run loses no more than the photos since the last one.
_COMMIT = 512
# Catalog rows that are compared with the manifest together.
_BLOCK = 256
# Share of the rows that FAISS may lack, and that are compared exactly, before it is built anew.
_REBUILD_SHARE = 0.1


@dataclass(slots=True)
class Summary:
    """What a run did; the counts from `added` to `failed` add up to `read`.

    Args:
        read: Rows of the catalog that were dealt with.
        added: New items, encoded.
        changed: Items whose photo or box is another now, encoded again.
        relabelled: Items whose photo is the same and whose record is another now, not encoded.
        unchanged: Items that are as they were.
        failed: Rows and photos in the list of failures.
        items: Items in the gallery afterwards.
        version: The table's version afterwards.
        variant: How the gallery is searched: `exact`, `hnsw` or `ivf`.
        seconds: From the first row to the last commit and the FAISS index.
        interrupted: Whether the run was stopped before the catalog's end; the next one goes on from there.
    """

    read: int = 0
    added: int = 0
    changed: int = 0
    relabelled: int = 0
    unchanged: int = 0
    failed: int = 0
    items: int = 0
    version: int = 0
    variant: str = "exact"
    seconds: float = 0.0
    interrupted: bool = False


# Rows dealt with, rows in all where known, photos encoded.
Progress = Callable[[int, "int | None", int], None]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run goes.

    Args:
        limit: Deal with at most this many rows of the catalog.
        variant: `exact`, `hnsw`, `ivf`, or `auto` to choose by size.
        wait_s: Seconds to wait for another writer.
        progress: Called as the run goes on.
        is_stopped: Asked between photos; True ends the run with everything committed that was encoded.
    """

    limit: int | None = None
    variant: str = "auto"
    wait_s: float = 0.0
    progress: Progress | None = None
    is_stopped: Callable[[], bool] = bool


def refresh(catalog: Catalog, folder: Path, encoder: LazyEncoder, options: RunOptions | None = None) -> Summary:
    """Brings a gallery up to date with a catalog, creating it where there is none.

    Args:
        catalog: What to index.
        folder: The gallery.
        encoder: Loaded only if a photo has to be encoded; an existing gallery must have the same card.
        options: None for the defaults.

    Raises:
        EncoderError: The gallery is another encoder's, or the encoder cannot be loaded.
        StoreError: Another writer, no room on the disk, no gallery. What was committed before stays.
    """
    options = options or RunOptions()
    Store.check_place(folder)
    with writing(folder, wait_s=options.wait_s):
        is_new = not (folder / "items.lance").is_dir()
        store = Store.create(folder, encoder.card, freshness_s=0) if is_new else Store(folder, freshness_s=0)
        check_same_encoder(store.card, encoder.card, f"Gallery {folder}")
        return _Run(store, encoder, options).run(catalog)


class _Run:
    """One run of the pipeline over one catalog."""

    def __init__(self, store: Store, encoder: LazyEncoder, options: RunOptions) -> None:
        self._store = store
        self._encoder = encoder
        self._options = options
        self._snapshot = store.snapshot()
        self._summary = Summary()
        self._rows: list[Row] = []
        self._failures: list[Failure] = []
        self._failures_begun = False
        self._total: int | None = None

    def run(self, catalog: Catalog) -> Summary:
        start = time.perf_counter()
        limit = self._options.limit
        self._total = catalog.count()
        if limit is not None:
            self._total = limit if self._total is None else min(self._total, limit)
        for result in self._results(self._tasks(islice(catalog, limit))):
            self._take(result)
        self._commit()
        self._write_failures()
        self._store.optimize()
        summary = self._summary
        self._snapshot = self._store.snapshot()
        summary.items, summary.version = len(self._snapshot), self._snapshot.version
        if not summary.interrupted:
            summary.variant = self._index()
        summary.seconds = round(time.perf_counter() - start, 2)
        return summary

    def _tasks(self, rows: Iterable[CatalogItem | BadRow]) -> Iterator[Task]:
        """The items whose photos have to be read; everything else is counted on the way."""
        manifest = Manifest(self._snapshot)
        for block in batched(rows, _BLOCK):
            if self._is_stopped():
                return
            items = [row for row in block if isinstance(row, CatalogItem)]
            for bad in (row for row in block if isinstance(row, BadRow)):
                self._fail(Failure(str(bad.source), bad.reason, None, bad.source_row))
            fingerprints = [Fingerprint.of(item) for item in items]
            met = list(zip(items, fingerprints, manifest.meet(fingerprints), strict=True))
            for item, _, (status, _) in met:
                if status is Status.REPEATED:
                    self._fail(failure_of(item, f"The catalog has item_id '{item.item_id}' twice; the first is taken."))
                elif status is Status.UNCHANGED:
                    self._count(UNCHANGED)
            tasks = [Task(item, fp) for item, fp, (status, _) in met if status is Status.NEW]
            tasks += self._suspects([(item, fp, row) for item, fp, (status, row) in met if status is Status.SUSPECT])
            for task in tasks:
                if self._is_stopped():
                    return
                yield task

    def _is_stopped(self) -> bool:
        self._summary.interrupted = self._options.is_stopped()
        return self._summary.interrupted

    def _suspects(self, suspects: list[tuple[CatalogItem, Fingerprint, int]]) -> list[Task]:
        """The tasks of items that the gallery holds, with what it holds of them."""
        rows = np.array([row for _, _, row in suspects], np.int64)
        records = self._snapshot.take(rows, "content_hash", "box", "metadata_key")
        embeddings = self._snapshot.embeddings(rows)
        return [
            Task(item, fingerprint, {**record, "embedding": embedding})
            for (item, fingerprint, _), record, embedding in zip(suspects, records, embeddings, strict=True)
        ]

    def _results(self, tasks: Iterator[Task]) -> Iterator[Result]:
        """The results of the tasks; the encoder is loaded when the first one comes."""
        first = next(tasks, None)
        if first is None:
            return
        encoder = self._encoder.load()
        check_same_encoder(self._store.card, encoder.card, f"Gallery {self._store.folder}")
        yield from encode_tasks(chain([first], tasks), encoder)

    def _take(self, result: Result) -> None:
        if isinstance(result.row, Failure):
            self._fail(result.row)
            return
        # A photo without a file has no modification time to note: its row is as it was.
        if result.outcome != UNCHANGED or result.row.file_mtime_ns:
            self._rows.append(result.row)
        self._count(result.outcome)
        if len(self._rows) >= _COMMIT:
            self._commit()

    def _commit(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self._store.upsert(rows)

    def _count(self, outcome: str) -> None:
        summary = self._summary
        setattr(summary, outcome, getattr(summary, outcome) + 1)
        summary.read += 1
        if self._options.progress is not None and summary.read % CHUNK == 0:
            self._options.progress(summary.read, self._total, summary.added + summary.changed)

    def _fail(self, failure: Failure) -> None:
        self._failures.append(failure)
        self._count(FAILED)
        if len(self._failures) >= _COMMIT:
            self._write_failures()

    def _write_failures(self) -> None:
        """Adds to the failures of this run, which replace those of the run before."""
        if self._failures or not self._failures_begun:
            self._store.write_failures(self._failures, append=self._failures_begun)
        self._failures, self._failures_begun = [], True

    def _index(self) -> str:
        """Builds the FAISS index where the gallery is large enough for one and the one it has is missing too much."""
        snapshot, folder = self._snapshot, self._store.folder / FAISS_FOLDER
        variant = self._options.variant
        if variant == "auto":
            variant = choose_variant(len(snapshot), snapshot.card.dimension)
        if variant == "exact" or not len(snapshot):
            FaissIndex.remove(folder)
            return "exact"
        index = FaissIndex.load(folder)
        if index is None or index.card.variant != variant or _missing_share(snapshot, index) > _REBUILD_SHARE:
            FaissIndex.build(snapshot, variant).save(folder)
        return variant


def _missing_share(snapshot: Snapshot, index: FaissIndex) -> float:
    """The share of a snapshot's rows that an index does not hold."""
    keys = snapshot.columns("vector_key").column(0).to_numpy()
    return float(np.isin(keys, index.vector_keys, invert=True).mean())
