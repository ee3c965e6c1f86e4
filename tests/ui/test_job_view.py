"""Jobs as people read them."""

from __future__ import annotations

from typing import Any

import pytest

from service.client import Job, Progress
from ui.job_view import change_of, newest, show_jobs, when, words
from ui.settings import Settings

CREATED = "2026-11-22T03:50:31.412+00:00"


def job_of(kind: Any, state: Any = "done", **fields: Any) -> Job:
    asked = {
        "id": "j1",
        "options": {},
        "progress": Progress(),
        "result": None,
        "error": None,
        "created_at": CREATED,
    }
    return Job(kind=kind, state=state, **{**asked, **fields})


def fitted(after: float, before: dict[str, Any] | None) -> dict[str, Any]:
    return {"target": "colour", "kind": "linear", "validation": {"accuracy": after, "photos": 90}, "before": before}


def test_the_newest_of_a_kind_is_the_first_that_was_asked_so():
    jobs = [
        job_of("fit", "running", id="a", options={"targets": ["colour", "category"]}),
        job_of("suspects", "failed", id="b", options={"target": "colour"}),
        job_of("suspects", "done", id="c", options={"target": "colour"}),
        job_of("suspects", "done", id="d", options={"target": "category"}),
    ]

    def found(*asked: Any, **options: Any) -> str | None:
        job = newest(jobs, *asked, **options)
        return job and job.id

    assert found("suspects") == "b"
    assert found("suspects", "done") == "c"
    assert found("suspects", "done", "failed", target="category") == "d"
    assert found("fit", targets="category") == "a"
    # A part of a name is no name.
    assert found("fit", targets="cat") is None
    assert found("suspects", target="col") is None
    assert found("compact") is None


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        (
            job_of("refresh", result={"added": 1, "changed": 0, "unchanged": 1200, "failed": 2, "items": 1201}),
            "1 added, 1,200 as they were, 2 not taken in. The gallery has 1,201 items.",
        ),
        (job_of("refresh", result={"items": 7}), "Nothing to do. The gallery has 7 items."),
        (
            job_of(
                "compact",
                result={"bytes_before": 2.5e9, "bytes_after": 45e6, "versions_before": 9, "versions_after": 2},
            ),
            "2.5 GB before, 45.0 MB now; 2 of 9 versions kept.",
        ),
        (
            job_of("fit", result={"heads": [fitted(0.925, {"gallery_version": 2, "accuracy": 0.9})]}),
            # 92.5 - 90.0
            "colour, linear: accuracy 92.5 %, before 90.0 % (+2.5).",
        ),
        (job_of("fit", result={"heads": [fitted(0.925, None)]}), "colour, linear: accuracy 92.5 %."),
        (job_of("duplicates", result={"found": 1}), "1 group found."),
        (
            job_of("migrate", result={"promoted": False, "encoded": 12, "old_encoder": "a", "new_encoder": "b"}),
            "12 photos encoded; the gallery is still by a.",
        ),
        (
            job_of("migrate", result={"promoted": True, "old_encoder": "a", "new_encoder": "b"}),
            "The gallery is by b now. Fit its heads again: they are of the encoder before.",
        ),
        (job_of("compact", "running"), ""),
    ],
)
def test_what_a_job_did_is_said_in_words(job, sentence):
    assert words(job) == sentence


def test_a_change_has_the_measure_that_the_head_has():
    several = {"target": "t", "kind": "knn", "validation": {"micro_f1": 0.5, "photos": 9}, "before": {"micro_f1": 0.4}}
    assert change_of(several) == {"kind": "knn", "measure": "micro F1", "before": 0.4, "after": 0.5, "photos": 9}
    assert change_of(fitted(0.9, None))["before"] is None


def test_moments_are_told_in_utc():
    assert when("2026-11-22T03:05:31+02:00") == "22 Nov 2026, 01:05 UTC"


def test_what_runs_has_a_share_and_a_way_to_stop_and_names_are_escaped():
    running = job_of(
        "fit",
        "running",
        options={"targets": ["<b>"]},
        progress=Progress(30, 120, 5, "<i>knn</i>"),
        started_at=CREATED,
    )
    shown = show_jobs([running], Settings())
    assert 'value="25.0"' in shown
    assert 'data-cancel="j1"' in shown
    assert 'data-running="j1"' in shown
    assert "&lt;b&gt;" in shown
    assert "&lt;i&gt;knn&lt;/i&gt; · 30 of 120 · 5 photos encoded" in shown
    assert "<i>" not in shown


def test_what_is_over_has_its_words_or_the_sentence_of_its_failure():
    failed = show_jobs([job_of("fit", "failed", error="Too few <labels>.")], Settings())
    assert "Too few &lt;labels&gt;." in failed
    assert 'role="alert"' in failed
    assert "data-running" not in failed
    assert "data-cancel" not in failed
    assert "1 group found." in show_jobs([job_of("duplicates", result={"found": 1})], Settings())


def test_a_page_that_only_looks_stops_no_work_on_the_gallery():
    settings = Settings(read_only=True)
    assert "data-cancel" not in show_jobs([job_of("refresh", "running")], settings)
    assert "data-cancel" in show_jobs([job_of("refresh", "running")], Settings())
