"""Records of jobs in a gallery's folder: `jobs/<id>.json`, which outlast the service."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

from indexer.files import ASIDE, replace_file
from service.answers import Job

JOBS_FOLDER = "jobs"

log = logging.getLogger(__name__)
_JOB = TypeAdapter(Job)


class JobRecords:
    """The records of one gallery. A disk that refuses them is logged and stops no job: compacting may be the cure.

    Args:
        gallery: The gallery's folder; `jobs/` is made in it with the first record.
    """

    def __init__(self, gallery: Path) -> None:
        self._folder = gallery / JOBS_FOLDER

    def load(self) -> list[Job]:
        """The jobs of earlier days, oldest first: failed where they were not over. Damaged records are set aside."""
        for path in self._folder.glob(f"*{ASIDE}"):
            with contextlib.suppress(OSError):
                path.unlink()
        return [job for path in sorted(self._folder.glob("*.json")) if (job := self._read(path)) is not None]

    def write(self, job: Job) -> None:
        """Puts the record in the place of the one before."""
        try:
            self._folder.mkdir(exist_ok=True)
            replace_file(self._folder / f"{job.id}.json", _JOB.dump_json(job, indent=1))
        except OSError as error:
            log.error("The record of job %s could not be written: %s", job.id, error)

    def remove(self, job_id: str) -> None:
        """Forgets a job; one that has no record is passed over."""
        try:
            (self._folder / f"{job_id}.json").unlink(missing_ok=True)
        except OSError as error:
            log.error("The record of job %s could not be removed: %s", job_id, error)

    def _read(self, path: Path) -> Job | None:
        try:
            job = _JOB.validate_json(path.read_bytes())
            if job.id != path.stem:
                raise ValueError(f"It is of job {job.id}.")
        except (OSError, ValueError) as error:
            self._set_aside(path, error)
            return None
        if job.is_over:
            return job
        sentence = f"The service was restarted while this job was {job.state}; start it again."
        job = replace(job, state="failed", error=sentence, ended_at=now())
        self.write(job)
        return job

    def _set_aside(self, path: Path, error: Exception) -> None:
        log.warning("The record %s of a job is damaged, and set aside: %s", path, error)
        try:
            path.replace(path.with_suffix(".damaged"))
        except OSError as refused:
            log.error("The record %s could not be set aside: %s", path, refused)


def now() -> str:
    """Date and time, UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
