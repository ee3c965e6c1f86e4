"""Jobs as people read them: what they are called, how far they are, what they did."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from service.client import Job
from ui.markup import fill
from ui.settings import Settings

TITLES = {
    "refresh": "Refresh from the catalog",
    "fit": "Fit heads",
    "compact": "Compact",
    "migrate": "Change the encoder",
    "project": "Draw the map",
    "suspects": "Find suspects",
    "duplicates": "Find duplicates",
}


def newest(jobs: Iterable[Job], kind: str, *states: str, **options: Any) -> Job | None:
    """The newest job of a kind, or None.

    Args:
        jobs: Newest first.
        kind: Of jobs.
        states: It is in one of these; none for any.
        options: It was asked so; a list has to hold the value.
    """
    return next(
        (
            job
            for job in jobs
            if job.kind == kind
            and (not states or job.state in states)
            and all(_is_asked(job.options.get(name), value) for name, value in options.items())
        ),
        None,
    )


def _is_asked(option: Any, value: Any) -> bool:
    return value in option if isinstance(option, list) else bool(option == value)


def show_jobs(jobs: Iterable[Job], settings: Settings) -> str:
    """Jobs as markup: progress with a way to stop, what was done in words, or the sentence of a failure."""
    return fill("jobs.html", jobs=job_rows(jobs, settings))


def job_rows(jobs: Iterable[Job], settings: Settings) -> list[dict[str, Any]]:
    """What `jobs.html` shows of jobs, for a template that includes it."""
    return [_row(job, settings) for job in jobs]


def _row(job: Job, settings: Settings) -> dict[str, Any]:
    progress = job.progress
    share = min(100.0, 100 * progress.done / progress.total) if progress.total else None
    return {
        "id": job.id,
        "title": TITLES.get(job.kind, job.kind),
        "state": "waiting" if job.state == "queued" else job.state,
        "is_over": job.is_over,
        "can_cancel": not settings.read_only,
        "share": share,
        "progress": progress,
        "words": words(job),
        "error": job.error,
        "when": when(job.ended_at or job.started_at or job.created_at),
        "about": _about(job),
    }


def when(moment: str) -> str:
    """A moment, ISO 8601, as people read it: `22 Nov 2026, 03:50 UTC`."""
    at = datetime.fromisoformat(moment).astimezone(UTC)
    return f"{at.day} {at:%b %Y, %H:%M} UTC"


def words(job: Job) -> str:
    """What a job did, in a sentence or two; empty where it did nothing yet."""
    result = job.result
    return _WORDS[job.kind](result) if result and job.kind in _WORDS else ""


def _about(job: Job) -> str:
    """What a job is about besides its kind."""
    options = job.options
    match job.kind:
        case "fit":
            return ", ".join(options.get("targets", []))
        case "suspects":
            return str(options.get("target", ""))
        case "migrate":
            return str(options.get("encoder", ""))
        case "refresh":
            return "" if options.get("catalog") == "default" else str(options.get("catalog", ""))
    return ""


def _refresh_words(result: dict[str, Any]) -> str:
    counts = {
        "added": "added",
        "changed": "with another photo",
        "relabelled": "with other labels",
        "unchanged": "as they were",
        "pruned": "removed",
        "failed": "not taken in",
        "absent": "in the gallery but not in the catalog",
    }
    told = [f"{result[key]:,} {word}" for key, word in counts.items() if result.get(key)]
    return f"{', '.join(told) or 'Nothing to do'}. The gallery has {result.get('items', 0):,} items."


def figure_of(validation: dict[str, Any]) -> tuple[str, float | None]:
    """The figure that heads are compared by, in words, and its value, 0..1."""
    return (
        ("micro F1", validation["micro_f1"]) if "micro_f1" in validation else ("accuracy", validation.get("accuracy"))
    )


def _fit_words(result: dict[str, Any]) -> str:
    return " ".join(change_words(head) for head in result.get("heads", []))


def change_words(head: dict[str, Any]) -> str:
    """A fitted head beside the one before it, as the job's result has it."""
    measure, value = figure_of(head["validation"])
    now = "unknown" if value is None else f"{100 * value:.1f} %"
    before = _before(head)
    gain = "" if before is None or value is None else f", before {100 * before:.1f} % ({100 * (value - before):+.1f})"
    return f"{head['target']}, {head['kind']}: {measure} {now}{gain}."


def _before(head: dict[str, Any]) -> float | None:
    before = head.get("before") or {}
    return before.get("micro_f1", before.get("accuracy"))


def change_of(head: dict[str, Any]) -> dict[str, Any]:
    """The same for a table: kind, measure, before, after, photos."""
    measure, after = figure_of(head["validation"])
    return {
        "kind": head["kind"],
        "measure": measure,
        "before": _before(head),
        "after": after,
        "photos": head["validation"].get("photos"),
    }


def _compact_words(result: dict[str, Any]) -> str:
    return (
        f"{_size(result['bytes_before'])} before, {_size(result['bytes_after'])} now; "
        f"{result['versions_after']:,} of {result['versions_before']:,} versions kept."
    )


def _size(count: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.0f} kB"


def _migrate_words(result: dict[str, Any]) -> str:
    if result.get("promoted"):
        return f"The gallery is by {result['new_encoder']} now. Fit its heads again: they are of the encoder before."
    return f"{result.get('encoded', 0):,} photos encoded; the gallery is still by {result['old_encoder']}."


_WORDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "refresh": _refresh_words,
    "fit": _fit_words,
    "compact": _compact_words,
    "migrate": _migrate_words,
    "project": lambda result: f"{result['items']:,} items drawn in {result['seconds']:g} s: {result['method']}.",
    "suspects": lambda result: f"{result['found']:,} found in {result['target']}.",
    "duplicates": lambda result: f"{result['found']:,} {'group' if result['found'] == 1 else 'groups'} found.",
}
