"""Migration: a gallery changes its encoder while it is in use, only where the neighbours are no worse, and back.

The new build lies beside the old one (`next/`) and is brought up to date as any gallery is, so a run that was stopped
or killed goes on from there. docs/gallery.md says what is on the disk meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import numpy as np

from data.catalog import Catalog, CatalogItem
from indexer.comparison import LEAST_QUERIES, Comparison, compare
from indexer.encoders import Encoder, EncoderCard, EncoderError, LazyEncoder
from indexer.faiss_index import FAISS_FOLDER, FaissIndex
from indexer.pipeline import Progress, RunOptions, refresh
from indexer.promotion import NEXT, PREVIOUS, find_places, is_unsettled, promote, remove, settle
from indexer.rows import ITEM_COLUMNS, item_of
from indexer.snapshot import GalleryLockedError, StoreError, translated
from indexer.store import TABLE, Store, writing

if TYPE_CHECKING:
    from indexer.snapshot import Snapshot


_LOCK = ".migration.lock"


class MigrationError(ValueError):
    """A change of encoder that makes no sense for the gallery as it is."""


class NothingToUndoError(StoreError):
    """The gallery has no version by an encoder before."""


@dataclass(frozen=True, slots=True)
class MigrationOptions:
    """How a change of encoder goes.

    Args:
        force: Take the new build even if it is worse, cannot be judged, or lacks items.
        discard: Give up what `next/` holds, and begin anew.
        wait_s: Seconds to wait for another writer.
        progress: Called as photos are encoded.
        is_stopped: Asked between photos, and before the new build is taken.
    """

    force: bool = False
    discard: bool = False
    wait_s: float = 0.0
    progress: Progress | None = None
    is_stopped: Callable[[], bool] = bool


@dataclass(slots=True)
class Migration:
    """What a change of encoder did.

    Args:
        old_encoder: What the gallery had, in words.
        new_encoder: What it was to have, or has now.
        encoded: Photos that this run encoded.
        lost: Items that the new build could not take in.
        comparison: Of the neighbours; None for a rollback, and where the run ended before.
        refusal: Why the new build was not taken, one sentence; None where it was.
        promoted: Whether the gallery has the new encoder now.
        items: Items in the gallery afterwards.
        version: The table's version afterwards.
        variant: How the gallery is searched afterwards: `exact`, `hnsw` or `ivf`.
        seconds: How long it took.
        interrupted: Whether it was stopped; the same command goes on from there.
    """

    old_encoder: str
    new_encoder: str
    encoded: int = 0
    lost: int = 0
    comparison: Comparison | None = None
    refusal: str | None = None
    promoted: bool = False
    items: int = 0
    version: int = 0
    variant: str = "exact"
    seconds: float = 0.0
    interrupted: bool = False


def migrate(folder: Path, encoder: LazyEncoder, options: MigrationOptions | None = None) -> Migration:
    """Changes the encoder of a gallery, which stays readable and writable while photos are encoded.

    Args:
        folder: The gallery.
        encoder: The new one; loaded only if a photo has to be encoded.
        options: None for the defaults.

    Returns:
        What was done; `refusal` says why where the gallery was left as it was.

    Raises:
        MigrationError: The gallery has this encoder, or `next/` holds a build by a third one.
        EncoderError: The encoder cannot be loaded.
        StoreError: No gallery, another writer, no room on the disk; the gallery stays what it was.
    """
    options = options or MigrationOptions()
    build = folder / NEXT
    with _alone(folder, options.wait_s) as (store, settled):
        if store.card.fingerprint == encoder.card.fingerprint:
            if settled == NEXT:
                return _settled(store)
            raise MigrationError(f"Gallery {folder} has this encoder already: {_words(store.card)}.")
        if options.discard:
            remove(build)
        _check_build(build, encoder.card)
        return _Change(store, build, encoder, options).run(is_gated=True)


def rollback(
    folder: Path, load: Callable[[EncoderCard], Encoder], options: MigrationOptions | None = None
) -> Migration:
    """Gives a gallery the encoder back that it had before, with the records that it has now.

    What is replaced is kept in turn, so a rollback is undone by another.

    Args:
        folder: The gallery.
        load: Loads the encoder of a card, if photos came or changed since the gallery had it.
        options: None for the defaults; items that need the encoder before and cannot have it are left out by `force`.

    Raises:
        NothingToUndoError: There is no version by an encoder before.
        StoreError: That encoder is needed and cannot be loaded; another writer; no room on the disk.
    """
    options = options or MigrationOptions()
    build = folder / PREVIOUS
    with _alone(folder, options.wait_s) as (store, settled):
        if settled == PREVIOUS:
            return _settled(store)
        if not (build / TABLE).is_dir():
            raise NothingToUndoError(f"Gallery {folder} has no version by another encoder; there is nothing to undo.")
        before = Store(build)
        card = before.card
        if card.fingerprint == store.card.fingerprint:
            raise NothingToUndoError(f"{build} has the gallery's encoder, {_words(card)}; there is nothing to undo.")
        missing = int(np.count_nonzero(find_places(store.snapshot(), before.snapshot(), same_photo=True) < 0))
        encoder = _loaded(LazyEncoder(card, cache(partial(load, card))), missing, options) if missing else None
        return _Change(store, build, encoder, options).run(is_gated=False)


@contextmanager
def _alone(folder: Path, wait_s: float) -> Iterator[tuple[Store, str | None]]:
    """The gallery, with no other change of its encoder under way, and the build whose promotion was ended here."""
    store = Store(folder, freshness_s=0)
    lock = filelock.FileLock(folder / _LOCK)
    with translated(f"Gallery {folder} cannot be written"):
        try:
            lock.acquire(timeout=wait_s)
        except filelock.Timeout as error:
            raise GalleryLockedError(
                f"Another process is changing the encoder of gallery {folder}. Wait for it to end, or pass --wait "
                "SECONDS."
            ) from error
    try:
        if not is_unsettled(folder):
            yield store, None
            return
        with writing(folder, wait_s=wait_s):
            settled = settle(store)
        yield store, settled
    finally:
        lock.release()


def _settled(store: Store) -> Migration:
    """The report on a run that was killed after its commit."""
    snapshot = store.snapshot()
    before = Store(store.folder / PREVIOUS).card
    report = Migration(_words(before), _words(snapshot.card), promoted=True)
    return _completed(report, snapshot)


def _completed(report: Migration, newest: Snapshot) -> Migration:
    """The report, with what the gallery holds now."""
    index = FaissIndex.newest_card(newest.folder / FAISS_FOLDER, newest.card)
    report.items, report.version = len(newest), newest.version
    report.variant = "exact" if index is None else index.variant
    return report


def _check_build(build: Path, card: EncoderCard) -> None:
    if not (build / TABLE).is_dir():
        return
    other = Store(build).card
    if other.fingerprint != card.fingerprint:
        raise MigrationError(
            f"{build} holds a migration to {_words(other)} that was not finished, or refused; this one is to "
            f"{_words(card)}. Go on with that encoder, or pass --discard to give it up."
        )


def _loaded(encoder: LazyEncoder, missing: int, options: MigrationOptions) -> LazyEncoder | None:
    """The encoder; None where it cannot be loaded and its items may be left out."""
    try:
        encoder.load()
    except EncoderError as error:
        if options.force:
            return None
        raise StoreError(
            f"{missing} items came or changed since the gallery had {_words(encoder.card)}, which cannot be loaded to "
            f"encode them: {error} Or pass --force to leave them out; `modiste index` takes them in again."
        ) from error
    return encoder


class _Change:
    """One change from the gallery's encoder to that of a build. Without an encoder the build is taken as it is."""

    def __init__(self, store: Store, build: Path, encoder: LazyEncoder | None, options: MigrationOptions) -> None:
        self._store = store
        self._build = build
        self._encoder = encoder
        self._options = options
        self._start = time.perf_counter()
        after = Store(build).card if encoder is None else encoder.card
        self._report = Migration(_words(store.card), _words(after))

    def run(self, *, is_gated: bool) -> Migration:
        store, report = self._store, self._report
        # Most of it while others may write, the rest while they may not.
        self._catch_up_unlocked()
        with writing(store.folder, wait_s=self._options.wait_s):
            settle(store)
            old = store.snapshot()
            if not self._is_stopped():
                self._catch_up(old)
            if not self._is_stopped():
                self._decide(old, is_gated)
        report.seconds = round(time.perf_counter() - self._start, 2)
        return _completed(report, store.snapshot())

    def _catch_up_unlocked(self) -> None:
        while True:
            snapshot = self._store.snapshot()
            try:
                return self._catch_up(snapshot)
            except StoreError:
                # Compaction may have taken the version away from under a run of hours; the newest one goes on.
                if self._store.version == snapshot.version:
                    raise

    def _catch_up(self, old: Snapshot) -> None:
        """Brings the build up to date with the gallery."""
        if self._encoder is None:
            return
        options = self._options
        run = RunOptions(
            progress=options.progress,
            is_stopped=options.is_stopped,
            rehash=self._has_other_photos(old),
            prune=True,
            force_prune=True,
        )
        summary = refresh(_catalog_of(old), self._build, self._encoder, run)
        self._report.encoded += summary.added + summary.changed
        self._report.interrupted |= summary.interrupted

    def _has_other_photos(self, old: Snapshot) -> bool:
        """Whether a photo of the build is not the gallery's, so that the times of files may have told the same."""
        if not (self._build / TABLE).is_dir():
            return False
        new = Store(self._build, freshness_s=0).snapshot()
        return bool((find_places(old, new) != find_places(old, new, same_photo=True)).any())

    def _is_stopped(self) -> bool:
        self._report.interrupted |= self._options.is_stopped()
        return self._report.interrupted

    def _decide(self, old: Snapshot, is_gated: bool) -> None:
        new = Store(self._build, freshness_s=0).snapshot()
        places = find_places(old, new, same_photo=self._encoder is None)
        report = self._report
        report.lost = int(np.count_nonzero(places < 0))
        if is_gated:
            report.comparison = compare(old, new, places)
        if not self._options.force:
            report.refusal = self._refusal(len(places))
        if report.refusal is None and not self._is_stopped():
            promote(self._store, old, new, places)
            report.promoted = True

    def _refusal(self, items: int) -> str | None:
        """Why the build should not be taken; None where it may."""
        report, comparison = self._report, self._report.comparison
        if report.lost and self._encoder is None:
            return f"{report.lost} items came or changed while this ran. Run it again."
        if report.lost:
            return (
                f"{report.lost} of the gallery's {items} items could not be encoded and would be lost; "
                f"`modiste stats --gallery {self._build} --failures` lists them. Mend their photos and run it again, "
                "or pass --force to leave them out."
            )
        if comparison is None or comparison.verdict == "not worse":
            return None
        if comparison.verdict == "worse":
            worse = ", ".join(name for name, target in comparison.by_target.items() if target.is_worse)
            return (
                f"The first neighbour is right less often with {report.new_encoder} than with {report.old_encoder}, "
                f"by {worse}. The gallery was left as it was; pass --force to take the new encoder all the same."
            )
        return (
            f"Whether neighbours are worse with {report.new_encoder} cannot be judged: no target has labels for "
            f"{LEAST_QUERIES} queries. The gallery was left as it was; `modiste search --gallery {self._build}` shows "
            "what would come, and --force takes it."
        )


def _catalog_of(snapshot: Snapshot) -> Catalog:
    """A gallery's items as they are, as a catalog."""

    def read() -> Iterator[CatalogItem]:
        for batch in snapshot.batches(*ITEM_COLUMNS):
            yield from map(item_of, batch.to_pylist())

    return Catalog(snapshot.folder, "gallery", read, lambda: len(snapshot))


def _words(card: EncoderCard) -> str:
    return f"{card.name} ({card.pooling}, {card.runtime} {card.precision}, {card.dimension} numbers)"
