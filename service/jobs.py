"""Jobs: long work on the gallery, one after the other, each in a process of its own."""

from __future__ import annotations

import json
import logging
import secrets
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from indexer.encoders import KNOWN
from service.answers import Job, Progress
from service.job_child import JobChild
from service.job_options import JobOptionError, JobOptions, MigrateJob, RefreshJob, Source
from service.job_process import Work, sentence_of
from service.job_records import JobRecords, now
from service.lanes import OverloadedError
from service.redaction import names_of_places, redacted

T = TypeVar("T")

log = logging.getLogger(__name__)

# Jobs that are remembered, and that may wait.
KEPT, PLACES = 100, 50
# Seconds between two records of a job's progress, and after which it is worth asking for a place again.
_RECORD_S = 2.0
_RETRY_S = 30.0


class JobNotFoundError(ValueError):
    """There is no such job, or it is forgotten.

    Args:
        job_id: Which was asked for.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(f"There is no job '{job_id[:64]}'; the newest {KEPT} are remembered.")
        self.job_id = job_id


@dataclass(frozen=True, slots=True)
class Patience:
    """How long jobs wait and are waited for.

    Args:
        writer_s: Seconds that a job waits for another writer.
        cancel_s: Seconds that a cancelled job has to stop in, before it is killed.
        close_s: Likewise where the service stops.
    """

    writer_s: float = 60.0
    cancel_s: float = 30.0
    close_s: float = 8.0


class JobQueue:
    """The jobs of one gallery, of which one runs at a time and the rest wait in order. Safe to call from any thread.

    Args:
        gallery: Whose jobs; records are in its folder `jobs/`.
        sources: Catalogs by the names that a refresh is asked for with.
        encoders: Folders of encoders that a migration may take, by their last part, besides the known ones.
        on_done: Called with a job that has succeeded before its state says so, in the thread that runs jobs: swap in
            the new state here. Where it raises, the job has failed.
        on_change: Called with a job whenever it has changed, in order; must be quick, and leave the queue alone.
        patience: How long is waited.
    """

    def __init__(
        self,
        gallery: Path,
        sources: Mapping[str, Source],
        encoders: Sequence[str] = (),
        *,
        on_done: Callable[[Job], None] | None = None,
        on_change: Callable[[Job], None] | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._gallery = gallery.absolute()
        # Plain ones: what the settings make of them would bring the web into a job's process.
        self._sources = {name: Source(source.path, source.format, source.map) for name, source in sources.items()}
        folders = {Path(folder).name: folder for folder in encoders if folder not in KNOWN}
        self._encoders = {name: name for name in KNOWN} | folders
        self._names = names_of_places(gallery, sources, folders)
        self._on_done, self._on_change = on_done, on_change
        self._patience = patience or Patience()
        self._records = JobRecords(self._gallery)
        self._jobs = {job.id: job for job in self._records.load()}
        self._waiting: deque[tuple[str, Work]] = deque()
        self._changed = threading.Condition()
        self._telling = threading.Lock()
        # Whether the job that runs is to stop.
        self._stop = threading.Event()
        self._closed = False
        self._forget_old()
        self._thread = threading.Thread(target=self._run_all, name="jobs", daemon=True)
        self._thread.start()

    @property
    def encoders(self) -> list[str]:
        """Names of the encoders that a migration may take."""
        return list(self._encoders)

    def submit(self, options: JobOptions) -> Job:
        """Queues a job.

        Raises:
            JobOptionError: There is no such catalog or encoder.
            OverloadedError: 50 jobs wait already, or the service is stopping.
        """
        work = self._work_of(options)
        # As its record will have them.
        asked = json.loads(json.dumps(asdict(options)))
        job = Job(_new_id(), options.kind, "queued", asked, Progress(), None, None, now())
        with self._changed:
            if self._closed or len(self._waiting) >= PLACES:
                raise OverloadedError("jobs", _RETRY_S)
            self._jobs[job.id] = job
            self._waiting.append((job.id, work))
            self._changed.notify_all()
        self._tell(job.id)
        self._forget_old()
        return job

    def get(self, job_id: str) -> Job:
        """A job as it is now.

        Raises:
            JobNotFoundError: There is none of that id.
        """
        with self._changed:
            return self._get(job_id)

    def all(self) -> list[Job]:
        """The jobs that are remembered, newest first."""
        with self._changed:
            return [*reversed(self._jobs.values())]

    def cancel(self, job_id: str) -> Job:
        """Ends a job: at once where it waits, soon where it runs; one that is over stays as it is.

        What a refresh or a migration has encoded so far is kept.

        Raises:
            JobNotFoundError: There is none of that id.
        """
        with self._changed:
            job = self._get(job_id)
            if job.is_over:
                return job
            if job.state == "queued":
                self._waiting = deque(entry for entry in self._waiting if entry[0] != job_id)
                job = replace(job, state="cancelled", ended_at=now())
            else:
                self._stop.set()
                job = replace(job, progress=replace(job.progress, message="stopping"))
            self._jobs[job_id] = job
        self._tell(job_id)
        return job

    def close(self) -> None:
        """Stops what runs, fails it and what waits, and returns when all is over."""
        with self._changed:
            self._closed = True
            waiting = [job_id for job_id, _ in self._waiting]
            self._waiting.clear()
            for job_id in waiting:
                self._jobs[job_id] = replace(self._jobs[job_id], **_stopped("queued"), ended_at=now())
            self._stop.set()
            self._changed.notify_all()
        for job_id in waiting:
            self._tell(job_id)
        self._thread.join()

    def _get(self, job_id: str) -> Job:
        if job_id not in self._jobs:
            raise JobNotFoundError(job_id)
        return self._jobs[job_id]

    def _work_of(self, options: JobOptions) -> Work:
        """The work of a job, checked as far as it can be without doing it."""
        work = Work(self._gallery, options, self._patience.writer_s)
        match options:
            case RefreshJob():
                return replace(work, source=_named(self._sources, options.catalog, "catalog"))
            case MigrateJob():
                return replace(work, encoder=_named(self._encoders, options.encoder, "encoder"))
            case _:
                return work

    def _run_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                job_id, work = self._waiting.popleft()
                self._stop.clear()
                self._jobs[job_id] = replace(self._jobs[job_id], state="running", started_at=now())
            self._tell(job_id)
            try:
                end = self._end_of(job_id, *self._run(job_id, work))
            except BaseException as error:  # The next job is to run all the same.
                end = self._failed(job_id, error)
            self._change(job_id, **end, ended_at=now())

    def _run(self, job_id: str, work: Work) -> tuple[dict[str, Any], int | None]:
        """The last message of a job's process, empty where it died without one, and its exit status.

        Raises:
            OSError: The process could not be started.
        """
        recorded = time.monotonic()
        with JobChild(work) as child:
            for message in child.messages(self._stop.is_set, self._grace_s):
                if "progress" not in message:
                    return message, None
                progress = Progress(**message["progress"])
                words = "stopping" if self._stop.is_set() else redacted(progress.message, self._names)
                is_due = time.monotonic() - recorded >= _RECORD_S
                recorded = time.monotonic() if is_due else recorded
                self._change(job_id, record=is_due, progress=replace(progress, message=words))
        return {}, child.status

    def _grace_s(self) -> float:
        return self._patience.close_s if self._closed else self._patience.cancel_s

    def _end_of(self, job_id: str, last: dict[str, Any], status: int | None) -> dict[str, Any]:
        """How a job ended: what changes in it."""
        if "defect" in last:
            log.error("Job %s failed by a defect:\n%s", job_id, last["defect"])
        result = last.get("result")
        if result is not None:
            result = {name: self._cleared(value) for name, value in result.items()}
            if not result.get("interrupted"):
                return self._finished(job_id, result)
        if self._closed:
            return {**_stopped("running"), "result": result}
        if self._stop.is_set() or result is not None:
            return {"state": "cancelled", "result": result}
        sentence = _defect(job_id) if "defect" in last else last.get("error") or _death(status)
        return {"state": "failed", "error": redacted(sentence, self._names)}

    def _finished(self, job_id: str, result: dict[str, Any]) -> dict[str, Any]:
        """How a job ended whose process came to its end."""
        if result.get("refusal"):
            return {"state": "failed", "error": result["refusal"], "result": result}
        try:
            if self._on_done is not None:
                self._on_done(replace(self.get(job_id), result=result))
        except BaseException as error:  # Lance's panics are no Exceptions.
            return {**self._failed(job_id, error), "result": result}
        return {"state": "done", "result": result}

    def _failed(self, job_id: str, error: BaseException) -> dict[str, Any]:
        """How a job ended that failed in this process."""
        log.error("Job %s failed in the service.", job_id, exc_info=error)
        return {"state": "failed", "error": redacted(sentence_of(error) or _defect(job_id), self._names)}

    def _cleared(self, value: Any) -> Any:
        """A value of a result; labels and other names of data are deeper in it, and stay."""
        return redacted(value, self._names) if isinstance(value, str) else value

    def _change(self, job_id: str, *, record: bool = True, **fields: Any) -> None:
        with self._changed:
            self._jobs[job_id] = replace(self._jobs[job_id], **fields)
        self._tell(job_id, record=record)

    def _tell(self, job_id: str, *, record: bool = True) -> None:
        """Records a job as it is by now, and tells who follows it."""
        with self._telling:
            job = self._jobs.get(job_id)
            if job is None:
                return
            if record:
                self._records.write(job)
            if self._on_change is not None:
                try:
                    self._on_change(job)
                except Exception:
                    log.exception("Who follows job %s could not be told.", job_id)

    def _forget_old(self) -> None:
        """Forgets the oldest jobs that are over, where there are more than are remembered."""
        with self._changed:
            over = [job.id for job in self._jobs.values() if job.is_over]
            old = over[: max(0, len(self._jobs) - KEPT)]
            for job_id in old:
                del self._jobs[job_id]
        with self._telling:
            for job_id in old:
                self._records.remove(job_id)


def _new_id() -> str:
    """An id that sorts by time, and that nobody guesses."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(6)}"


def _named(known: Mapping[str, T], name: str, what: str) -> T:
    if name not in known:
        raise JobOptionError(f"There is no {what} '{name[:64]}' for jobs; there are: {', '.join(known) or 'none'}.")
    return known[name]


def _stopped(state: str) -> dict[str, Any]:
    return {"state": "failed", "error": f"The service was stopped while this job was {state}; start it again."}


def _defect(job_id: str) -> str:
    return f"The job failed by a defect; the log knows it as job {job_id}."


def _death(status: int | None) -> str:
    """What is said of a process that died without a word."""
    if status is not None and status < 0:
        return (
            f"The job's process was ended from outside (signal {-status}, {signal.strsignal(-status)}), perhaps since "
            "memory ran out. What it had committed stays; start it again."
        )
    return f"The job's process ended early with status {status}; the service's log may say why."
