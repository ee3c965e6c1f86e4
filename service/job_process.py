"""The process of one job: it works on the gallery, says how far it is, and answers with a result or a sentence.

It is spawned by service.jobs, which imports this module too: everything heavy is imported where the work is done.
"""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.answers import Progress
from service.job_findings import duplicates, project, suspects
from service.job_options import (
    CompactJob,
    DuplicatesJob,
    FitJob,
    JobOptions,
    MigrateJob,
    ProjectJob,
    RefreshJob,
    Source,
    SuspectsJob,
)

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from indexer.encoders import LazyEncoder
    from service.head_fitting import Refit

# Questions go first.
_NICENESS = 10
# BLAS threads that wait for each other on busy cores; heads.validation.one_thread has the figures.
_THREADS = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# Seconds between two reports.
_PACE_S = 0.2
# Seconds that work has to stop in once nobody waits for it.
_ORPHAN_S = 30.0
_PACKAGES = ("data", "heads", "indexer", "service")


@dataclass(frozen=True, slots=True)
class Work:
    """What the process is given.

    Args:
        gallery: The gallery's folder, absolute.
        options: What to do.
        wait_s: Seconds to wait for another writer.
        source: The catalog of a refresh.
        encoder: What `prepare_encoder` takes, of a migration.
    """

    gallery: Path
    options: JobOptions
    wait_s: float
    source: Source | None = None
    encoder: str | None = None


def run(work: Work, connection: Connection) -> None:
    """Does the work and sends JSON: `progress` now and then, and last a `result`, an `error` sentence or a `defect`.

    Args:
        work: What to do.
        connection: Where to; `send_bytes` is all that is used of it.
    """
    os.nice(_NICENESS)
    os.environ.update(_THREADS)
    # Ctrl-C in a terminal comes to this process too; the service says what becomes of the job.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopped = threading.Event()
    if isinstance(work.options, RefreshJob | MigrateJob):
        signal.signal(signal.SIGTERM, lambda _number, _frame: stopped.set())
    threading.Thread(target=_stop_with_parent, name="orphan", daemon=True).start()
    reports = _Reports(connection)
    try:
        last = _message(result=do(work, reports.tell, stopped.is_set))
    except BaseException as error:  # Lance's panics are no Exceptions.
        sentence = sentence_of(error)
        last = _message(defect=traceback.format_exc()) if sentence is None else _message(error=sentence)
    reports.end(last)


def do(work: Work, tell: Callable[[Progress], None], is_stopped: Callable[[], bool]) -> dict[str, Any]:
    """Does the work, and says what was done as JSON-ready values.

    Args:
        work: What to do.
        tell: Called whenever it is further.
        is_stopped: True ends a refresh or a migration early, with everything kept that was encoded.

    Raises:
        ValueError, RuntimeError, OSError: As the packages below say; `sentence_of` tells them from defects.
    """
    match work.options:
        case RefreshJob():
            done = _refresh(work, work.options, tell, is_stopped)
        case FitJob():
            done = _fit(work, work.options, tell)
        case CompactJob():
            done = _compact(work, work.options, tell)
        case MigrateJob():
            done = _migrate(work, work.options, tell, is_stopped)
        case ProjectJob():
            done = project(work.gallery, work.options, tell)
        case SuspectsJob():
            done = suspects(work.gallery, work.options, tell)
        case DuplicatesJob():
            done = duplicates(work.gallery, work.options, tell)
    ready: dict[str, Any] = _json_ready(done)
    return ready


def sentence_of(error: BaseException) -> str | None:
    """What an error says to people; None where it is a defect, of which the log is to know."""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}."
    is_own = type(error).__module__.split(".")[0] in _PACKAGES
    return str(error) if is_own and isinstance(error, ValueError | RuntimeError) else None


def _refresh(
    work: Work, options: RefreshJob, tell: Callable[[Progress], None], is_stopped: Callable[[], bool]
) -> dict[str, Any]:
    from data.readers import open_catalog

    source = work.source
    if source is None:
        raise TypeError("The work of a refresh has a source.")
    tell(Progress(message="opening the catalog"))
    catalog = open_catalog(source.path, format=source.format, mapping=source.map)

    from indexer.pipeline import RunOptions, refresh

    run_options = RunOptions(
        wait_s=work.wait_s,
        progress=lambda done, total, encoded: tell(Progress(done, total, encoded, "comparing and encoding photos")),
        is_stopped=is_stopped,
        rehash=options.rehash,
        prune=options.prune or options.force_prune,
        force_prune=options.force_prune,
    )
    summary = refresh(catalog, work.gallery, _own_encoder(work.gallery), run_options)
    total = None if summary.interrupted else summary.read
    tell(Progress(summary.read, total, summary.added + summary.changed, "over"))
    return asdict(summary)


def _own_encoder(gallery: Path) -> LazyEncoder:
    """The encoder that a gallery has."""
    from indexer.encoders import prepare_encoder
    from indexer.store import Store

    card = Store(gallery).card
    return prepare_encoder(card.name, pooling=card.pooling, runtime=card.runtime, precision=card.precision)


def _fit(work: Work, options: FitJob, tell: Callable[[Progress], None]) -> dict[str, Any]:
    done, total, heads = 0, len(options.targets), []
    tell(Progress(done, total, message="reading embeddings and labels"))
    from heads.fitting import FitOptions
    from indexer.gallery import Gallery
    from service.head_fitting import fit_gallery

    fit_options = FitOptions(options.heads, options.balance, options.trials, options.timeout, options.seed)
    gallery = Gallery(work.gallery)
    fits = fit_gallery(
        gallery,
        options.targets,
        fit_options,
        min_count=options.min_count,
        progress=lambda sentence: tell(Progress(done, total, message=sentence)),
    )
    for refits in fits:
        done += 1
        heads += [_fitted(refit) for refit in refits]
    tell(Progress(done, total, message="over"))
    return {"version": gallery.snapshot.version, "heads": heads}


def _fitted(refit: Refit) -> dict[str, Any]:
    """What `modiste fit --json` says of a head."""
    before = refit.before and {
        "gallery_version": refit.before.gallery_version,
        refit.measure: refit.before.validation.get(refit.measure),
    }
    # An encoder in a folder is known by the folder's name.
    return {**asdict(refit.card), "encoder": Path(refit.card.encoder).name, "before": before}


def _compact(work: Work, options: CompactJob, tell: Callable[[Progress], None]) -> dict[str, Any]:
    tell(Progress(message="merging files"))
    from indexer.compaction import compact

    done = compact(
        work.gallery,
        keep_hours=options.keep_hours,
        forget_previous=options.forget_previous,
        wait_s=work.wait_s,
    )
    tell(Progress(done.items, done.items, message="over"))
    return asdict(done)


def _migrate(
    work: Work, options: MigrateJob, tell: Callable[[Progress], None], is_stopped: Callable[[], bool]
) -> dict[str, Any]:
    tell(Progress(message="preparing the encoder"))
    from indexer.encoders import prepare_encoder
    from indexer.migration import MigrationOptions, migrate

    lazy = prepare_encoder(work.encoder or options.encoder, pooling=options.pooling, precision=options.precision)
    migration = MigrationOptions(
        force=options.force,
        discard=options.discard,
        wait_s=work.wait_s,
        progress=lambda done, total, encoded: tell(Progress(done, total, encoded, "encoding photos anew")),
        is_stopped=is_stopped,
    )
    done = migrate(work.gallery, lazy, migration)
    total = None if done.interrupted else done.items
    tell(Progress(done.items, total, done.encoded, "over"))
    return asdict(done)


def _json_ready(value: Any) -> Any:
    """Values that JSON has; a figure that is not finite is none."""
    match value:
        case Mapping():
            return {_json_ready(str(key)): _json_ready(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_json_ready(inner) for inner in value]
        case str():
            # A name that is no text has signs in it that JSON does not take.
            return value.encode(errors="backslashreplace").decode()
        case float():
            return float(value) if math.isfinite(value) else None
        case _:
            return value


def _message(**content: Any) -> bytes:
    return json.dumps(content, allow_nan=False).encode()


class _Reports:
    """Sends the newest progress at a steady pace, however often there is any."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._newest: Progress | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send_now_and_then, name="reports", daemon=True)
        self._thread.start()

    def tell(self, progress: Progress) -> None:
        """Takes the newest progress."""
        self._newest = progress

    def end(self, last: bytes) -> None:
        """Sends the newest progress and then the last message."""
        self._ended.set()
        self._thread.join()
        self._send_newest()
        self._send(last)

    def _send_now_and_then(self) -> None:
        while not self._ended.wait(_PACE_S):
            self._send_newest()

    def _send_newest(self) -> None:
        progress, self._newest = self._newest, None
        if progress is not None:
            self._send(_message(progress=asdict(progress)))

    def _send(self, message: bytes) -> None:
        try:
            self._connection.send_bytes(message)
        except OSError:
            # The service is gone; _stop_with_parent ends the work.
            self._ended.set()


def _stop_with_parent() -> None:
    """Ends the work of a service that was killed: a new one would wait for its writing place."""
    parent = parent_process()
    if parent is None:
        return
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_ORPHAN_S)
    os._exit(1)
