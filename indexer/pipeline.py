"""The pipeline: brings a gallery up to date with a catalog, encoding only what it has not seen.

The workers of indexer.encoding read, decode and encode while the calling thread reads the catalog and commits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np

from data.catalog import BadRow, Catalog, CatalogItem
from indexer.duplicates import count_repeated_photos
from indexer.encoders import LazyEncoder, check_same_encoder
from indexer.encoding import (
    CHUNK,
    FAILED,
    STORED_COLUMNS,
    UNCHANGED,
    Result,
    Task,
    batched,
    encode_tasks,
    examine,
    failure_of,
)
from indexer.failures import Failure, FailureList
from indexer.manifest import Fingerprint, Manifest, Status
from indexer.renewal import refresh_index
from indexer.rows import Row
from indexer.snapshot import StoreError
from indexer.store import TABLE, Store, writing

# Rows a commit: Lance wants 256 or more, and a killed run loses no more than the photos since the last one.
_COMMIT = 512
# Catalog rows that are compared with the manifest together.
_BLOCK = 256
# Files that are read side by side to see whether they have changed.
_READERS = 4


class PruneRefusedError(StoreError):
    """So much has left the catalog that it looks like a mistake; nothing was removed."""


class OptionError(ValueError):
    """Options of a run that contradict each other."""


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
        unsettled: Photos written so lately that they may change again unseen; the next run reads them again.
        absent: Items of the gallery that the catalog does not have, and that stay; 0 where the run did not see it all.
        pruned: Items that the catalog does not have and that were removed.
        duplicates: Items of the gallery whose photo and box are, byte for byte, those of an earlier one.
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
    unsettled: int = 0
    absent: int = 0
    pruned: int = 0
    duplicates: int = 0
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
        rehash: Read every photo, even where its file's size and time are as they were.
        prune: Remove items that the catalog does not have.
        force_prune: Even where that is more than half of them, or a folder could not be listed.
        on_failure: Takes each failure instead of the gallery's list, for a catalog that is only a part of the whole.
    """

    limit: int | None = None
    variant: str = "auto"
    wait_s: float = 0.0
    progress: Progress | None = None
    is_stopped: Callable[[], bool] = bool
    rehash: bool = False
    prune: bool = False
    force_prune: bool = False
    on_failure: Callable[[Failure], None] | None = None

    def __post_init__(self) -> None:
        """Raises:
        OptionError: Pruning by a part of a catalog.
        """
        if self.prune and self.limit is not None:
            raise OptionError("The first rows of a catalog cannot prune a gallery; leave out the limit or the pruning.")


def refresh(catalog: Catalog, folder: Path, encoder: LazyEncoder, options: RunOptions | None = None) -> Summary:
    """Brings a gallery up to date with a catalog, creating it where there is none.

    Args:
        catalog: What to index.
        folder: The gallery.
        encoder: Loaded only if a photo has to be encoded; an existing gallery must have the same card.
        options: None for the defaults.

    Raises:
        EncoderError: The gallery is another encoder's, or the encoder cannot be loaded.
        PruneRefusedError: Too much would be removed; all the rest was done.
        StoreError: Another writer, no room on the disk, no gallery. What was committed before stays.
    """
    options = options or RunOptions()
    Store.check_place(folder)
    with writing(folder, wait_s=options.wait_s):
        return refresh_locked(catalog, folder, encoder, options)


def refresh_locked(catalog: Catalog, folder: Path, encoder: LazyEncoder, options: RunOptions) -> Summary:
    """The same for a caller who holds `writing`."""
    is_new = not (folder / TABLE).is_dir()
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
        self._manifest = Manifest(self._snapshot, trust_times=not options.rehash)
        self._summary = Summary()
        self._rows: list[Row] = []
        self._failures: FailureList | None = None
        self._unlisted: Path | None = None
        self._total: int | None = None

    def run(self, catalog: Catalog) -> Summary:
        start = time.perf_counter()
        limit = self._options.limit
        self._total = catalog.count()
        if limit is not None:
            self._total = limit if self._total is None else min(self._total, limit)
        self._take_all(catalog)
        refusal = self._prune(catalog)
        self._store.optimize()
        summary = self._summary
        snapshot = self._store.snapshot()
        summary.items, summary.version = len(snapshot), snapshot.version
        summary.duplicates = count_repeated_photos(snapshot)
        if not summary.interrupted:
            summary.variant = refresh_index(snapshot, self._store.folder, self._options.variant)
        summary.seconds = round(time.perf_counter() - start, 2)
        if refusal:
            raise PruneRefusedError(refusal)
        return summary

    def _take_all(self, catalog: Catalog) -> None:
        """Deals with the rows of the catalog; what was encoded before an error is committed all the same."""
        is_kept = False
        if self._options.on_failure is None:
            self._failures = FailureList(self._store.folder)
        try:
            for result in self._results(self._tasks(catalog)):
                self._take(result)
            self._commit()
            is_kept = True
        finally:
            if self._failures is not None:
                self._failures.close(keep=is_kept)

    def _tasks(self, catalog: Catalog) -> Iterator[Task]:
        """The items whose photos have to be encoded; everything else is dealt with on the way."""
        with ThreadPoolExecutor(_READERS, "examine") as readers:
            for block in batched(islice(catalog, self._options.limit), _BLOCK):
                if self._is_stopped():
                    return
                tasks: list[Task] = []
                suspects = self._suspects(self._meet(block, catalog, tasks))
                for outcome in readers.map(partial(examine, trust_times=not self._options.rehash), suspects):
                    if isinstance(outcome, Task):
                        tasks.append(outcome)
                    else:
                        self._take(outcome)
                for task in tasks:
                    if self._is_stopped():
                        return
                    yield task

    def _meet(
        self, block: list[CatalogItem | BadRow], catalog: Catalog, new: list[Task]
    ) -> list[tuple[CatalogItem, Fingerprint, int]]:
        """The items of a block that may have changed, with their rows; new ones join `new`, the rest is counted."""
        for bad in (row for row in block if isinstance(row, BadRow)):
            if bad.source_row is None and bad.source != catalog.root and bad.source.is_dir():
                self._unlisted = bad.source
            self._fail(Failure(str(bad.source), bad.reason, None, bad.source_row))
        items = [row for row in block if isinstance(row, CatalogItem)]
        fingerprints = [Fingerprint.of(item) for item in items]
        self._summary.unsettled += sum(
            isinstance(item.image, Path) and fingerprint.file_size >= 0 and not fingerprint.file_mtime_ns
            for item, fingerprint in zip(items, fingerprints, strict=True)
        )
        suspects = []
        for item, fingerprint, (status, row) in zip(
            items, fingerprints, self._manifest.meet(fingerprints), strict=True
        ):
            if status is Status.REPEATED:
                self._fail(failure_of(item, f"The catalog has item_id '{item.item_id}' twice; the first is taken."))
            elif status is Status.UNCHANGED:
                self._count(UNCHANGED)
            elif status is Status.NEW:
                new.append(Task(item, fingerprint))
            else:
                suspects.append((item, fingerprint, row))
        return suspects

    def _is_stopped(self) -> bool:
        self._summary.interrupted = self._options.is_stopped()
        return self._summary.interrupted

    def _suspects(self, suspects: list[tuple[CatalogItem, Fingerprint, int]]) -> list[Task]:
        """The tasks of items that the gallery holds, with what it holds of them."""
        rows = np.array([row for _, _, row in suspects], np.int64)
        records = self._snapshot.take(rows, *STORED_COLUMNS)
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
        # Without a time to note, the row of an unchanged photo is as it was.
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
        if self._options.on_failure is not None:
            self._options.on_failure(failure)
        if self._failures is not None:
            self._failures.add(failure)
        self._count(FAILED)

    def _prune(self, catalog: Catalog) -> str | None:
        """Removes what the catalog does not have, where that is wanted; why it was not done, or None."""
        summary, options = self._summary, self._options
        if summary.interrupted or options.limit is not None or options.on_failure is not None:
            return None
        rows = self._manifest.unmet()
        summary.absent = len(rows)
        if not options.prune or not len(rows):
            return None
        if self._unlisted is not None and not options.force_prune:
            return (
                f"{self._unlisted} could not be listed, so its items look as if they had left {catalog.root}. Nothing "
                "was removed; the rest of the run was done. Mend the folder, or pass --force-prune."
            )
        if 2 * len(rows) > len(self._snapshot) and not options.force_prune:
            return (
                f"{len(rows)} of the gallery's {len(self._snapshot)} items are not in {catalog.root}: more than half, "
                "which looks like a missing folder or another catalog. Nothing was removed; the rest of the run was "
                "done. Pass --force-prune to remove them."
            )
        self._store.delete([record["item_id"] for record in self._snapshot.take(rows, "item_id")])
        summary.pruned, summary.absent = len(rows), 0
        return None
