"""The queue of jobs: its order on scripted processes; what jobs do, and what ends them, on real ones."""

from __future__ import annotations

import json
import multiprocessing
import os
import queue as queues
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pytest

from data.readers import open_catalog
from data.sample import write_sample
from indexer.encoders import EMBEDDED, prepare_encoder
from indexer.gallery import Gallery
from indexer.migration import MigrationError
from indexer.pipeline import RunOptions, refresh
from indexer.store import Store, writing
from service import jobs
from service.answers import Job
from service.head_store import stored_cards
from service.job_options import CompactJob, FitJob, JobOptionError, JobOptions, MigrateJob, RefreshJob, Source
from service.job_process import Work
from service.jobs import KEPT, PLACES, JobNotFoundError, JobQueue, Patience
from service.lanes import OverloadedError
from tests.service.galleries import make_typed

# Far above what a job here takes; a wait that never ends is a defect.
LONG_S = 120.0
# Longer than any test waits: what does not come about otherwise fails.
FOREVER_S = 3600.0


class ConfiguredSource(Source):
    """As the settings have one."""


@dataclass
class Shop:
    """A gallery, the catalogs that are configured, and queues that are closed afterwards."""

    folder: Path
    queues: list[JobQueue] = field(default_factory=list)

    @property
    def gallery(self) -> Path:
        return self.folder / "secret gallery"

    @property
    def catalog(self) -> Path:
        return self.folder / "secret catalog"

    def queue(self, **options: Any) -> JobQueue:
        sources = {"default": Source(self.catalog / "items.csv"), "gone": ConfiguredSource(self.folder / "gone")}
        self.queues.append(JobQueue(self.gallery, sources, options.pop("encoders", ()), **options))
        return self.queues[-1]

    def close(self) -> None:
        for queue in self.queues:
            queue.close()
        assert multiprocessing.active_children() == []
        assert "jobs" not in [thread.name for thread in threading.enumerate()]

    def record(self, job: Job) -> dict[str, Any]:
        return json.loads((self.gallery / "jobs" / f"{job.id}.json").read_bytes())


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A gallery of made-up embeddings; its encoder is no real one."""
    made = Shop(tmp_path)
    make_typed(made.gallery, 60)
    yield made
    made.close()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog of twelve drawn photos, and a gallery of its first four by the embedded encoder."""
    folder = tmp_path_factory.mktemp("drawn")
    write_sample(folder / "secret catalog", count=12, seed=0)
    catalog = open_catalog(folder / "secret catalog" / "items.csv")
    refresh(catalog, folder / "secret gallery", prepare_encoder(EMBEDDED), RunOptions(limit=4))
    return folder


@pytest.fixture
def photos(drawn: Path, tmp_path: Path) -> Iterator[Shop]:
    """The same, for one test alone."""
    for name in ("secret catalog", "secret gallery"):
        shutil.copytree(drawn / name, tmp_path / name)
    made = Shop(tmp_path)
    yield made
    made.close()


@dataclass
class Script:
    """What stands for a job's process: it says what the test tells it to."""

    work: Work
    lines: queues.SimpleQueue[dict[str, Any] | int] = field(default_factory=queues.SimpleQueue)
    status: int | None = None
    was_stopped: bool = False
    grace_s: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def messages(self, is_stopped: Callable[[], bool], grace_s: Callable[[], float]) -> Iterator[dict[str, Any]]:
        while True:
            try:
                line = self.lines.get(timeout=0.01)
            except queues.Empty:
                if is_stopped() and not self.was_stopped:
                    self.was_stopped, self.grace_s = True, grace_s()
                continue
            if isinstance(line, int):
                self.status = line
                return
            yield line

    def succeed(self, **result: Any) -> None:
        self.lines.put({"result": result})

    def die(self, status: int) -> None:
        self.lines.put(status)


class Stage:
    """A gallery without rows, whose jobs follow a script."""

    def __init__(self, folder: Path) -> None:
        self.shop = Shop(folder)
        self.shop.gallery.mkdir()
        self.scripts: list[Script] = []
        self._next = 0

    def start(self, work: Work) -> Script:
        self.scripts.append(Script(work))
        return self.scripts[-1]

    def next(self) -> Script:
        """The process of the next job that is started."""
        self._next += 1
        return until(lambda: self.scripts[self._next - 1 :])[0]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path)
    monkeypatch.setattr(jobs, "JobChild", made.start)
    yield made
    # Else one that is stopped would never end.
    for script in made.scripts:
        script.die(0)
    made.shop.close()


def until(condition: Callable[[], Any]) -> Any:
    """What the condition gives once it gives something."""
    end = time.monotonic() + LONG_S
    while not (found := condition()):
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.02)
    return found


def over(queue: JobQueue, job: Job) -> Job:
    """The job once it is over."""
    return until(lambda: (now := queue.get(job.id)).is_over and now)


def done(queue: JobQueue, options: JobOptions) -> Job:
    """A job that was asked for, once it is over."""
    return over(queue, queue.submit(options))


def running(queue: JobQueue, job: Job) -> multiprocessing.process.BaseProcess:
    """The process of a job, once it works: it has said something."""
    until(lambda: queue.get(job.id).progress.message)
    (process,) = multiprocessing.active_children()
    return process


# What jobs do, each in a real process


def test_a_refresh_takes_in_what_is_new(photos):
    seen: list[Job] = []
    queue = photos.queue(on_change=seen.append)
    job = queue.submit(RefreshJob())
    assert (job.kind, job.state, job.result, job.error) == ("refresh", "queued", None, None)
    assert job.options == asdict(RefreshJob())
    ended = over(queue, job)
    assert (ended.state, ended.error) == ("done", None)
    assert {name: ended.result[name] for name in ("read", "added", "relabelled", "items", "interrupted")} == {
        "read": 12,
        "added": 8,
        # They lie elsewhere now.
        "relabelled": 4,
        "items": 12,
        "interrupted": False,
    }
    assert len(Gallery(photos.gallery)) == 12
    assert (ended.progress.done, ended.progress.total, ended.progress.encoded) == (12, 12, 8)
    assert ended.created_at <= ended.started_at <= ended.ended_at
    # Who follows is told of each state in order, and last of the job as it is.
    queue.close()
    states = [one.state for one in seen]
    assert list(dict.fromkeys(states)) == ["queued", "running", "done"]
    assert states == sorted(states, key=["queued", "running", "done"].index)
    assert seen[-1] == ended
    assert photos.record(job) == asdict(ended)


def test_a_refresh_that_is_cancelled_keeps_what_it_has_encoded(photos):
    first, *lines = (photos.catalog / "items.csv").read_text().splitlines()
    assert first.startswith("item_id,")
    # Many more than are encoded before it is cancelled.
    copies = [f"n{number}-{line}" for number in range(300) for line in lines]
    (photos.catalog / "items.csv").write_text("\n".join([first, *copies]))
    called: list[Job] = []
    queue = photos.queue(on_done=called.append)
    job = queue.submit(RefreshJob())
    until(lambda: queue.get(job.id).progress.encoded)
    queue.cancel(job.id)
    ended = over(queue, job)
    assert (ended.state, ended.error, ended.result["interrupted"]) == ("cancelled", None, True)
    assert 0 < ended.result["added"] < 3_600
    assert len(Gallery(photos.gallery)) == 4 + ended.result["added"]
    assert called == []
    queue.close()
    assert photos.record(job)["result"] == ended.result


def test_the_encoder_is_changed_where_that_is_forced(photos):
    queue = photos.queue()
    # Four items decide nothing.
    refused = done(queue, MigrateJob(EMBEDDED, pooling="mean"))
    assert (refused.state, refused.result["promoted"]) == ("failed", False)
    assert refused.error == refused.result["refusal"]
    assert "cannot be judged" in refused.error
    assert "GALLERY/next" in refused.error
    forced = done(queue, MigrateJob(EMBEDDED, pooling="mean", force=True))
    assert (forced.error, forced.state, forced.result["promoted"], forced.result["items"]) == (None, "done", True, 4)
    assert Store(photos.gallery).card.pooling == "mean"
    # The next refresh goes on with the encoder that the gallery has now.
    assert done(queue, RefreshJob()).result["added"] == 8


def test_heads_are_fitted_and_compared_with_those_before(shop):
    queue = shop.queue()
    first = done(queue, FitJob(("type",), ("knn", "mlp"), trials=1, timeout=5.0))
    assert (first.state, first.error) == ("done", None)
    assert first.progress.done == first.progress.total == 1
    kinds = [(head["target"], head["kind"], head["items"], head["before"]) for head in first.result["heads"]]
    assert kinds == [("type", "knn", 60, None), ("type", "mlp", 60, None)]
    head = first.result["heads"][0]
    assert (head["labels"], head["encoder"]) == (["NA", "dress", "skirt"], "fake-histogram")
    assert [card.kind for card in stored_cards(shop.gallery, "type")] == ["knn", "mlp"]
    again = done(queue, FitJob(("type",), ("knn",)))
    assert again.result["heads"][0]["before"] == {
        "gallery_version": head["gallery_version"],
        "accuracy": head["validation"]["accuracy"],
    }


def test_two_jobs_run_one_after_the_other(shop):
    Store(shop.gallery).delete(["i00000"])
    queue = shop.queue()
    # Each waits for its writing place, so a job is under way for as long as the test likes.
    with writing(shop.gallery):
        first, second = queue.submit(CompactJob()), queue.submit(FitJob(("colour",)))
        process = running(queue, first)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
        assert [(job.id, job.state) for job in queue.all()] == [(second.id, "queued"), (first.id, "running")]
    merged, failed = over(queue, first), over(queue, second)
    assert (merged.state, merged.error, merged.result["items"], merged.progress.done) == ("done", None, 59, 59)
    assert (failed.state, failed.result) == ("failed", None)
    assert "'colour'" in failed.error
    assert merged.ended_at <= failed.started_at


# What ends a real process early


@pytest.mark.parametrize("options", [CompactJob(), FitJob(("type",), ("mlp",), trials=1000, timeout=600.0)])
def test_a_compaction_and_a_fit_are_ended_where_they_are(shop, options):
    queue = shop.queue(patience=Patience(FOREVER_S, cancel_s=FOREVER_S))
    with writing(shop.gallery):
        job = queue.submit(options)
        running(queue, job)
        assert queue.cancel(job.id).progress.message == "stopping"
        ended = over(queue, job)
    assert (ended.state, ended.result, ended.error) == ("cancelled", None, None)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_dies_fails_its_job_and_no_other(shop, number):
    queue = shop.queue()
    with writing(shop.gallery):
        job, next_one = queue.submit(CompactJob()), queue.submit(RefreshJob("gone"))
        os.kill(running(queue, job).pid, number)
        ended = over(queue, job)
    assert (ended.state, ended.result) == ("failed", None)
    assert f"ended from outside (signal {number:d}, {signal.strsignal(number)})" in ended.error
    assert over(queue, next_one).error is not None


def test_a_job_that_does_not_stop_is_killed(photos):
    queue = photos.queue(patience=Patience(FOREVER_S, cancel_s=0.5))
    with writing(photos.gallery):
        # It waits for its writing place, and looks at nothing else meanwhile.
        job = queue.submit(RefreshJob())
        process = running(queue, job)
        until(lambda: handles_sigterm(process.pid))
        queue.cancel(job.id)
        assert over(queue, job).state == "cancelled"


def test_closing_stops_what_runs_and_what_waits(photos):
    queue = photos.queue(patience=Patience(FOREVER_S, close_s=0.2))
    with writing(photos.gallery):
        first, second = queue.submit(RefreshJob()), queue.submit(CompactJob())
        process = running(queue, first)
        until(lambda: handles_sigterm(process.pid))
        queue.close()
    for job, state in ((first, "running"), (second, "queued")):
        now = queue.get(job.id)
        assert (now.state, now.error) == (
            "failed",
            f"The service was stopped while this job was {state}; start it again.",
        )
        assert photos.record(job) == asdict(now)
    with pytest.raises(OverloadedError):
        queue.submit(CompactJob())
    queue.close()


def test_a_process_that_cannot_be_started_fails_its_job(shop, monkeypatch):
    def refuse(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    queue = shop.queue()
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing.get_context("spawn").Process, "start", refuse)
        ended = done(queue, CompactJob())
    assert (ended.state, ended.error) == ("failed", "Resource temporarily unavailable.")
    # A job has ended a moment before its pipe is closed.
    until(lambda: descriptors() <= before)


def test_another_writer_fails_a_job_that_has_waited_for_it(shop):
    with writing(shop.gallery):
        ended = done(shop.queue(patience=Patience(writer_s=0.1)), CompactJob())
    assert ended.state == "failed"
    assert ended.error.startswith("Another process is writing to gallery GALLERY.")


def test_no_answer_has_a_path_of_the_machine_and_nothing_is_left_open(shop):
    queue = shop.queue()
    gone = done(queue, RefreshJob("gone"))
    assert gone.error == "A catalog was wanted, a folder or a file; there is no catalog 'gone'."
    before = descriptors(), threading.active_count()
    (shop.gallery / "items.lance").rename(shop.folder / "elsewhere")
    missing = done(queue, CompactJob())
    assert missing.error.startswith("GALLERY is no gallery: it has no items.lance.")
    until(lambda: descriptors() <= before[0] and threading.active_count() <= before[1])
    for job in queue.all():
        for text in (str(job), (shop.gallery / "jobs" / f"{job.id}.json").read_text()):
            assert "secret" not in text
            assert str(shop.folder) not in text


# In order, on scripted processes


def test_a_job_is_started_with_what_it_needs(stage):
    queue = stage.shop.queue(encoders=("/srv/secret/run-7", EMBEDDED), patience=Patience(writer_s=7.0))
    source = Source(stage.shop.folder / "gone")
    for options, more in (
        (CompactJob(), {}),
        (RefreshJob("gone"), {"source": source}),
        # One that is configured is known by its last part.
        (MigrateJob("run-7"), {"encoder": "/srv/secret/run-7"}),
        (MigrateJob(EMBEDDED), {"encoder": EMBEDDED}),
        (MigrateJob("dinov2-base"), {"encoder": "dinov2-base"}),
    ):
        job = queue.submit(options)
        script = stage.next()
        assert script.work == Work(stage.shop.gallery, options, 7.0, **more)
        # Whatever the settings made of it: the process imports what it is of.
        assert type(script.work.source) in (Source, type(None))
        script.succeed()
        over(queue, job)


def test_jobs_are_started_in_the_order_in_which_they_came(stage):
    queue = stage.shop.queue()
    submitted = [queue.submit(CompactJob(keep_hours=hours)) for hours in (1, 2, 3)]
    assert [job.id for job in queue.all()] == [job.id for job in reversed(submitted)]
    # Their ids sort as they do.
    assert sorted(job.id for job in submitted) == [job.id for job in submitted]
    for hours in (1, 2, 3):
        script = stage.next()
        assert script.work.options.keep_hours == hours
        assert [job.state for job in queue.all()].count("running") == 1
        script.succeed()
    assert over(queue, submitted[-1]).state == "done"


def test_progress_is_told_as_it_comes_and_recorded_now_and_then(stage, monkeypatch):
    monkeypatch.setattr(jobs, "_RECORD_S", 3600.0)
    seen: list[Job] = []
    queue = stage.shop.queue(on_change=seen.append)
    job = queue.submit(FitJob(("type",)))
    script = stage.next()
    for number in (1, 2):
        message = f"{stage.shop.gallery}: at {number}"
        script.lines.put({"progress": {"done": number, "total": 9, "encoded": 3, "message": message}})
    until(lambda: queue.get(job.id).progress.done == 2)
    assert asdict(queue.get(job.id).progress) == {"done": 2, "total": 9, "encoded": 3, "message": "GALLERY: at 2"}
    assert stage.shop.record(job)["progress"]["done"] == 0
    monkeypatch.setattr(jobs, "_RECORD_S", 0.0)
    script.lines.put({"progress": {"done": 3}})
    until(lambda: stage.shop.record(job)["progress"]["done"] == 3)
    until(lambda: [one.progress.done for one in seen if one.state == "running"] == [0, 1, 2, 3])
    queue.cancel(job.id)
    script.lines.put({"progress": {"done": 4, "message": "at 4"}})
    until(lambda: queue.get(job.id).progress.done == 4)
    assert queue.get(job.id).progress.message == "stopping"


def test_the_new_state_is_in_place_before_the_job_says_so(stage):
    calls: list[tuple[Job, str]] = []
    queue = stage.shop.queue(on_done=lambda job: calls.append((job, queue.get(job.id).state)))
    job = queue.submit(CompactJob())
    stage.next().succeed(items=60)
    ended = over(queue, job)
    (told, state), *others = calls
    assert (told.id, told.kind, told.result, state, others) == (job.id, "compact", {"items": 60}, "running", [])
    assert (ended.state, ended.result) == ("done", {"items": 60})


@pytest.mark.parametrize(
    ("last", "state", "error"),
    [
        ({"error": "There is no {gallery}."}, "failed", "There is no GALLERY."),
        ({"defect": "Traceback {gallery}"}, "failed", "The job failed by a defect; the log knows it as job {id}."),
        ({"result": {"interrupted": True}}, "cancelled", None),
        ({"result": {"interrupted": False, "refusal": "See {gallery}."}}, "failed", "See GALLERY."),
        (1, "failed", "The job's process ended early with status 1; the service's log may say why."),
    ],
)
def test_what_does_not_succeed_puts_nothing_in_place(stage, caplog, last, state, error):
    calls: list[Job] = []
    queue = stage.shop.queue(on_done=calls.append)
    job = queue.submit(CompactJob())
    said = json.dumps(last).replace("{gallery}", str(stage.shop.gallery))
    stage.next().lines.put(json.loads(said))
    ended = over(queue, job)
    assert (ended.state, ended.error) == (state, error and error.format(id=job.id))
    assert calls == []
    # The traceback is for the log alone, whole.
    assert (f"Traceback {stage.shop.gallery}" in caplog.text) == ("defect" in said)
    assert (ended.result is not None) == ("result" in said)
    assert str(stage.shop.gallery) not in str(ended)


def test_names_of_data_in_a_result_stay(stage):
    queue = stage.shop.queue()
    job = queue.submit(CompactJob())
    stage.next().succeed(old_encoder=f"{stage.shop.gallery}/enc (cls)", heads=[{"labels": ["/a/b"]}], share=0.5)
    assert over(queue, job).result == {
        "old_encoder": "GALLERY/enc (cls)",
        "heads": [{"labels": ["/a/b"]}],
        "share": 0.5,
    }


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MigrationError("Gallery {gallery} has moved on."), "Gallery GALLERY has moved on."),
        (OSError(28, "No space left on device", "/var/x/y"), "y: No space left on device."),
        (KeyError("/var/x/y"), "The job failed by a defect; the log knows it as job {id}."),
        (SystemExit(1), "The job failed by a defect; the log knows it as job {id}."),
    ],
)
def test_a_state_that_cannot_be_put_in_place_fails_the_job(stage, caplog, error, sentence):
    error.args = tuple(str(part).format(gallery=stage.shop.gallery) for part in error.args)

    def refuse(_: Job) -> None:
        raise error

    queue = stage.shop.queue(on_done=refuse)
    job, next_one = queue.submit(CompactJob()), queue.submit(CompactJob())
    stage.next().succeed(items=60)
    ended = over(queue, job)
    assert (ended.state, ended.error) == ("failed", sentence.format(id=ended.id))
    assert ended.result == {"items": 60}
    assert caplog.records[0].exc_info[1] is error
    # The queue goes on.
    stage.next().die(0)
    assert over(queue, next_one).state == "failed"


def test_a_follower_that_fails_harms_no_job(stage, caplog):
    def fail(_: Job) -> None:
        raise KeyError("no")

    queue = stage.shop.queue(on_change=fail)
    job = queue.submit(CompactJob())
    stage.next().succeed()
    assert over(queue, job).state == "done"
    assert "could not be told" in caplog.text


def test_a_job_that_waits_is_cancelled_at_once(stage):
    queue = stage.shop.queue()
    first, second, third = (queue.submit(CompactJob()) for _ in range(3))
    script = stage.next()
    cancelled = queue.cancel(second.id)
    assert (cancelled.state, cancelled.started_at) == ("cancelled", None)
    assert cancelled.ended_at is not None
    assert stage.shop.record(second) == asdict(cancelled)
    assert [queue.get(job.id).state for job in (first, third)] == ["running", "queued"]
    script.succeed()
    stage.next().succeed()
    assert over(queue, third).state == "done"
    assert not script.was_stopped
    assert len(stage.scripts) == 2
    # What is over changes no more.
    assert queue.cancel(second.id) == queue.get(second.id) == cancelled
    assert queue.cancel(first.id) == queue.get(first.id)
    assert queue.get(first.id).state == "done"


def test_a_cancellation_is_of_one_job_and_comes_too_late_for_one_that_has_succeeded(stage):
    queue = stage.shop.queue()
    first, second = queue.submit(RefreshJob()), queue.submit(RefreshJob())
    script = stage.next()
    queue.cancel(first.id)
    until(lambda: script.was_stopped)
    assert script.grace_s == Patience().cancel_s
    script.succeed(interrupted=False)
    assert over(queue, first).state == "done"
    after = stage.next()
    after.die(-9)
    # Nobody has cancelled the second one.
    assert over(queue, second).state == "failed"
    assert not after.was_stopped


def test_unknown_catalogs_and_encoders_are_refused_at_once(stage):
    queue = stage.shop.queue(encoders=("/srv/secret/run-7", EMBEDDED))
    with pytest.raises(JobOptionError, match=r"There is no catalog 'other' for jobs; there are: default, gone\.$"):
        queue.submit(RefreshJob("other"))
    with pytest.raises(JobOptionError, match=r"There is no encoder '/srv/secret/run-7' .*dinov2-giant-reg, run-7\.$"):
        queue.submit(MigrateJob("/srv/secret/run-7"))
    with pytest.raises(JobOptionError, match=r"^.{0,300}$"):
        queue.submit(MigrateJob("x" * 1_000_000))
    assert queue.all() == []
    stage.shop.queues.append(JobQueue(stage.shop.gallery, {}))
    with pytest.raises(JobOptionError, match="there are: none"):
        stage.shop.queues[-1].submit(RefreshJob())


def test_more_jobs_than_may_wait_are_refused(stage):
    queue = stage.shop.queue()
    first = queue.submit(CompactJob())
    script = stage.next()
    waiting = [queue.submit(CompactJob()) for _ in range(PLACES)]
    with pytest.raises(OverloadedError, match="All places for jobs are taken"):
        queue.submit(CompactJob())
    queue.cancel(waiting[0].id)
    waiting.append(queue.submit(CompactJob()))
    for job in waiting:
        queue.cancel(job.id)
    script.succeed()
    assert over(queue, first).state == "done"


def test_a_job_that_is_not_there(stage):
    queue = stage.shop.queue()
    for ask in (queue.get, queue.cancel):
        with pytest.raises(JobNotFoundError, match=r"There is no job '\.\./\.\./x'; the newest 100 are remembered"):
            ask("../../x")


def test_closing_kills_sooner(stage):
    queue = stage.shop.queue(patience=Patience(close_s=3.0))
    job = queue.submit(RefreshJob())
    script = stage.next()
    closing = threading.Thread(target=queue.close)
    closing.start()
    until(lambda: script.was_stopped)
    assert script.grace_s == 3.0
    script.succeed(interrupted=True, added=5)
    closing.join()
    ended = queue.get(job.id)
    # What it did is told all the same.
    assert (ended.state, ended.result) == ("failed", {"interrupted": True, "added": 5})
    assert ended.error == "The service was stopped while this job was running; start it again."


# What outlasts the service


@pytest.fixture
def ended(stage) -> Job:
    """A job that is over, of a service that has ended."""
    queue = stage.shop.queue()
    job = queue.submit(CompactJob())
    stage.next().succeed(items=60)
    over(queue, job)
    queue.close()
    return queue.get(job.id)


def test_jobs_that_were_not_over_have_failed_after_a_restart(stage, ended):
    folder = stage.shop.gallery / "jobs"
    for name, state in (("29990101T000000000000-a", "queued"), ("29990101T000000000001-b", "running")):
        job = replace(ended, id=name, state=state, result=None, ended_at=None)
        (folder / f"{name}.json").write_text(json.dumps(asdict(job)))
    (folder / "half.json.tmp").write_text("{")
    running_one, queued_one, done_one = stage.shop.queue().all()
    assert done_one == ended
    for job, state in ((queued_one, "queued"), (running_one, "running")):
        assert job.state == "failed"
        assert job.error == f"The service was restarted while this job was {state}; start it again."
        assert job.ended_at is not None
        assert stage.shop.record(job) == asdict(job)
    assert not (folder / "half.json.tmp").exists()


def test_damaged_records_are_set_aside(stage, ended, caplog):
    record, folder = asdict(ended), stage.shop.gallery / "jobs"
    damaged = {
        "a": "",
        "b": "{",
        "c": json.dumps({**record, "id": "c", "state": "asleep"}),
        # Of another name.
        "d": json.dumps(record),
        "e": "[]",
    }
    for name, text in damaged.items():
        (folder / f"{name}.json").write_text(text)
    (folder / "f.json").mkdir()
    assert stage.shop.queue().all() == [ended]
    assert sorted(path.name for path in folder.glob("*.damaged")) == [f"{name}.damaged" for name in (*damaged, "f")]
    assert caplog.text.count("damaged, and set aside") == 6


def test_the_newest_hundred_are_kept(stage, ended):
    folder = stage.shop.gallery / "jobs"
    for number in range(KEPT + 4):
        name = f"1999{number:05}"
        (folder / f"{name}.json").write_text(json.dumps(asdict(replace(ended, id=name))))
    queue = stage.shop.queue()
    kept = [job.id for job in queue.all()]
    # 105 are there; the five oldest go.
    assert kept == [ended.id, *(f"1999{number:05}" for number in range(KEPT + 3, 4, -1))]
    assert sorted(path.stem for path in folder.iterdir()) == sorted(kept)
    new = queue.submit(CompactJob())
    stage.next().succeed()
    over(queue, new)
    kept = [job.id for job in queue.all()]
    assert (len(kept), kept[0], kept[-1]) == (KEPT, new.id, "199900006")
    assert len([*folder.glob("*.json")]) == KEPT


def test_a_disk_that_takes_no_records_stops_no_job(stage, caplog):
    (stage.shop.gallery / "jobs").write_text("in the way")
    queue = stage.shop.queue()
    job = queue.submit(CompactJob())
    stage.next().succeed()
    assert over(queue, job).state == "done"
    assert "could not be written" in caplog.text


def descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def handles_sigterm(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM: it stands in the mask of caught signals."""
    (caught,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
