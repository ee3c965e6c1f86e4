"""Watching: keeps a gallery up to date with a catalog whose files come, change and go."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import watchfiles
from watchfiles import Change

from data.catalog import Catalog, CatalogError, EmptyCatalogError
from indexer.encoders import EncoderError, LazyEncoder
from indexer.manifest import TICK_NS
from indexer.pipeline import RunOptions, Summary, refresh
from indexer.snapshot import GalleryLockedError, StoreError
from indexer.store import Store

# A burst of changes ends when so long nothing more has changed; one that goes on is dealt with in parts.
_QUIET_MS, _LONGEST_MS = 500, 10_000
# How often it is looked whether to stop, whether something is due and whether the folder is still the same.
_TICK_MS = 1_000
_POLL_MS = 2_000
# When to refresh again without a change: once photos that were just written cannot change unseen any more, while
# another process writes to the gallery, and after any other error.
_SETTLED_S = TICK_NS / 1e9 + 0.5
_LOCKED_S = 2.0
_RETRY_S = 60.0


class WatchError(RuntimeError):
    """The system cannot tell of changes in a folder."""


class Refresher:
    """Refreshes one gallery by one catalog, again and again.

    Args:
        open_as: Opens the catalog, as a format or, for None, as the one that it shows.
        gallery: Its folder.
        encoder: Loaded once, if at all.
        options: How the next run goes.
    """

    def __init__(
        self,
        open_as: Callable[[str | None], Catalog],
        gallery: Path,
        encoder: LazyEncoder,
        options: Callable[[], RunOptions] = RunOptions,
    ) -> None:
        self._open_as = open_as
        self._gallery = gallery
        self._encoder = encoder
        self._options = options
        # Once found it stays: a table that is put beside photos does not make other items of them.
        self._format: str | None = None
        self._has_gallery = False

    def __call__(self) -> Summary:
        """Refreshes the gallery.

        Raises:
            CatalogError: There is no catalog, or it cannot be read or is empty; the gallery was not touched.
            EncoderError, StoreError, OSError: As `pipeline.refresh`; the gallery was there and is gone.
        """
        catalog = self._open_as(self._format)
        self._format = catalog.format
        if self._has_gallery:
            # Its disk may be away for a while: a new one in its place would be filled all over.
            Store(self._gallery)
        summary = refresh(catalog, self._gallery, self._encoder, self._options())
        self._has_gallery = True
        return summary


def keep_up(
    refresh: Callable[[], Summary], ticks: Iterable[bool], *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Summary | str]:
    """Refreshes when something has changed, and tells what came of it where there is anything to tell.

    An error of a later refresh is told, once, and what it was about is tried again: with the next change, and a minute
    later without one. Another encoder than the gallery's is an error that stays, so it ends the watch.

    Args:
        refresh: Brings the gallery up to date; interrupted, it is the last.
        ticks: True where something has changed, first of all, and False now and then.
        clock: Seconds.

    Returns:
        Summaries of refreshes that did something, or met other failures than the one before, and sentences.

    Raises:
        EncoderError: The gallery is another encoder's, or the encoder cannot be loaded.
        StoreError, CatalogError, OSError: The very first refresh failed: what was asked for cannot work.
    """
    due, is_settling, has_begun = 0.0, False, False
    said: str | None = None
    before: tuple[int, int] | None = None
    for is_changed in ticks:
        if not is_changed and clock() < due:
            continue
        try:
            summary = refresh()
        except EncoderError:
            raise
        except (CatalogError, StoreError, OSError) as error:
            if not has_begun and not isinstance(error, EmptyCatalogError | GalleryLockedError):
                raise
            due, is_settling = clock() + (_LOCKED_S if isinstance(error, GalleryLockedError) else _RETRY_S), False
            sentence = _sentence(error)
            if sentence != said:
                yield sentence
            said = sentence
            continue
        has_begun, said = True, None
        # Once only: a file from the future never settles.
        is_settling = summary.unsettled > 0 and (is_changed or not is_settling)
        due = clock() + _SETTLED_S if is_settling else float("inf")
        if _has_done_something(summary) or before != (summary.failed, summary.absent):
            yield summary
        before = summary.failed, summary.absent
        if summary.interrupted:
            return


def _has_done_something(summary: Summary) -> bool:
    return bool(summary.added or summary.changed or summary.relabelled or summary.pruned or summary.interrupted)


def _sentence(error: Exception) -> str:
    if isinstance(error, GalleryLockedError):
        return "Another process is writing to the gallery; waiting for it to end."
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}." if error.filename else f"{error}."
    return str(error)


@dataclass(frozen=True, slots=True)
class FileChanges:
    """Whether files have changed below a folder, tick by tick, until it is stopped.

    The first tick of a folder, of one that has come back and of another one in its place is True: whatever happened
    before is a change. What is hidden does not count, nor what happens in the gallery, which may lie in the catalog.

    Args:
        catalog: A folder, or a table, whose folder is watched then.
        gallery: The gallery's folder.
        is_stopped: Asked a few times a second.
        is_polled: Look at all files every two seconds, for a file system that does not tell of changes.
    """

    catalog: Path
    gallery: Path
    is_stopped: Callable[[], bool] = bool
    is_polled: bool = False

    def __iter__(self) -> Iterator[bool]:
        """Raises:
        WatchError: The system cannot tell of changes here.
        """
        catalog = self.catalog.absolute()
        folder = catalog.parent if catalog.is_file() else catalog
        while not self.is_stopped():
            if identity := _identity(folder):
                yield from self._ticks(folder, identity)
            else:
                time.sleep(_TICK_MS / 1000)
                yield False

    def is_set(self) -> bool:
        """Whether it is stopped, as watchfiles asks."""
        return self.is_stopped()

    def _ticks(self, folder: Path, identity: tuple[int, int]) -> Iterator[bool]:
        """The ticks of a folder until it is gone."""
        root = os.path.realpath(folder)
        is_first = True
        try:
            for changes in watchfiles.watch(
                root,
                watch_filter=self._filter(root),
                debounce=_LONGEST_MS,
                step=_QUIET_MS,
                stop_event=self,
                rust_timeout=_TICK_MS,
                yield_on_timeout=True,
                force_polling=self.is_polled or None,
                poll_delay_ms=_POLL_MS,
                ignore_permission_denied=True,
            ):
                yield is_first or bool(changes)
                is_first = False
                # The system tells nothing of a folder that was moved away or put in its place.
                if _identity(folder) != identity:
                    yield True
                    return
        except FileNotFoundError:
            return
        except (OSError, RuntimeError) as error:
            raise WatchError(
                f"Changes in {folder} cannot be watched: {error}. Pass --poll to look at its files every two seconds."
            ) from error

    def _filter(self, root: str) -> Callable[[Change, str], bool]:
        """Which changes below a folder count."""
        gallery = os.path.realpath(self.gallery)
        inside = gallery + os.sep

        def counts(_change: Change, path: str) -> bool:
            if any(part.startswith(".") for part in Path(os.path.relpath(path, root)).parts):
                return False
            real = os.path.realpath(path)
            return root.startswith(inside) or not (real == gallery or real.startswith(inside))

        return counts


def _identity(folder: Path) -> tuple[int, int] | None:
    """What tells a folder from another of its name; None where there is none."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
