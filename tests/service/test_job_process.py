"""The process of a job: what it asks of the packages below, what it says, and how it ends with the service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from data.catalog import CatalogError
from heads.checks import HeadError
from indexer import compaction, encoders, migration, pipeline
from indexer.compaction import Compaction
from indexer.migration import Migration
from indexer.pipeline import Summary
from indexer.snapshot import StoreError
from indexer.store import Store, writing
from service import head_fitting, job_process
from service.answers import Progress
from service.head_fitting import Refit
from service.head_store import stored_cards
from service.job_options import CompactJob, FitJob, JobOptions, MigrateJob, RefreshJob, Source
from service.job_process import Work, do, sentence_of
from service.lanes import OverloadedError
from tests.indexer.fakes import FakeEncoder, draw_photo, make_store, unit_vectors
from tests.service.galleries import make_typed

ROOT = Path(__file__).parents[2]


class Sent:
    """A connection's end that keeps what is sent."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def send_bytes(self, content: bytes) -> None:
        self.messages.append(json.loads(content, parse_constant=pytest.fail))


def work_on(gallery: Path, options: JobOptions, **more: Any) -> tuple[dict[str, Any], list[Progress]]:
    """What was done, in this process, and how far it was said to be."""
    told: list[Progress] = []
    stop: Callable[[], bool] = more.pop("is_stopped", bool)
    return do(Work(gallery, options, 0.0, **more), told.append, stop), told


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEncoder:
    """The encoder that all names lead to, and the names and settings that were asked for."""
    encoder = FakeEncoder()
    encoder.asked = []

    def prepare(name: str, **settings: Any) -> Any:
        encoder.asked.append((name, settings))
        return encoder.lazy

    monkeypatch.setattr(encoders, "prepare_encoder", prepare)
    return encoder


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    return make_store(tmp_path / "gallery", unit_vectors(3, 24)).folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Forty photos, more than are dealt with between two reports."""
    for number in range(40):
        draw_photo(tmp_path / "photos" / f"{number:02}.png", number)
    return tmp_path / "photos"


# What is done


def test_a_refresh_is_by_the_encoder_that_the_gallery_has(gallery, photos, fake):
    result, told = work_on(gallery, RefreshJob(), source=Source(photos))
    assert fake.asked == [("fake-histogram", {"pooling": "mean", "runtime": "torch", "precision": "fp32"})]
    assert (result["read"], result["added"], result["absent"], result["items"]) == (40, 40, 3, 43)
    assert set(result) == set(asdict(Summary()))
    assert told[0] == Progress(message="opening the catalog")
    assert told[1].done == 16
    assert told[1].total == 40
    assert told[-1] == Progress(40, 40, 40, "over")
    # A second one has nothing to encode.
    assert work_on(gallery, RefreshJob(), source=Source(photos))[1][-1] == Progress(40, 40, 0, "over")


def test_a_refresh_that_is_stopped_says_so(gallery, photos, fake):
    result, told = work_on(gallery, RefreshJob(), source=Source(photos), is_stopped=lambda: True)
    assert (result["interrupted"], result["added"]) == (True, 0)
    assert told[-1] == Progress(0, None, 0, "over")


def test_a_table_is_read_as_it_is_configured(gallery, photos, fake, tmp_path):
    table = photos / "stock.txt"
    table.write_text("sku,file,tint\na,00.png,red\nb,01.png,blue\n")
    source = Source(table, "csv", {"item_id": "sku", "image": "file", "labels": "tint"})
    assert work_on(gallery, RefreshJob(), source=source)[0]["added"] == 2
    records = Store(gallery).snapshot().columns("item_id").column(0).to_pylist()
    assert {"a", "b"} <= set(records)
    with pytest.raises(CatalogError):
        work_on(gallery, RefreshJob(), source=Source(table, "csv", {"item_id": "nothing"}))
    with pytest.raises(CatalogError, match="There is no format"):
        work_on(gallery, RefreshJob(), source=Source(table, "xls"))


@pytest.mark.parametrize(
    ("options", "prune", "force_prune", "rehash"),
    [
        (RefreshJob(), False, False, False),
        (RefreshJob(prune=True), True, False, False),
        (RefreshJob(force_prune=True), True, True, False),
        (RefreshJob(rehash=True), False, False, True),
    ],
)
def test_the_options_of_a_refresh(gallery, photos, fake, monkeypatch, options, prune, force_prune, rehash):
    asked: list[Any] = []
    monkeypatch.setattr(pipeline, "refresh", lambda *arguments: asked.append(arguments) or Summary())
    do(Work(gallery, options, 7.0, Source(photos)), lambda _: None, lambda: True)
    (_, folder, _, run), *_ = asked
    assert folder == gallery
    assert (run.prune, run.force_prune, run.rehash, run.wait_s, run.is_stopped()) == (
        prune,
        force_prune,
        rehash,
        7.0,
        True,
    )


def test_the_options_of_a_fit(tmp_path, monkeypatch):
    gallery = make_typed(tmp_path / "gallery", 30).folder
    asked: list[Any] = []
    monkeypatch.setattr(head_fitting, "fit_gallery", lambda *a, **b: asked.append((*a, b)) or iter(()))
    options = FitJob(("a", "b"), ("mlp",), "weights", min_count=3, trials=4, timeout=5.0, seed=6)
    result, told = work_on(gallery, options)
    assert result == {"version": Store(gallery).version, "heads": []}
    _, targets, fit, more = asked[0]
    assert (targets, more["min_count"]) == (("a", "b"), 3)
    assert (fit.kinds, fit.balance, fit.trials, fit.timeout, fit.seed) == (("mlp",), "weights", 4, 5.0, 6)
    more["progress"]("a: mlp")
    assert told[0] == Progress(0, 2, message="reading embeddings and labels")


def test_a_fit_counts_its_targets(tmp_path):
    gallery = make_typed(tmp_path / "gallery", 30).folder
    result, told = work_on(gallery, FitJob(("type", "type"), ("knn",)))
    assert [(one.done, one.total) for one in told[:2]] == [(0, 2), (0, 2)]
    assert told[1].message == "type: knn: choosing settings, then learning"
    assert [one.done for one in told] == sorted(one.done for one in told)
    assert told[-1] == Progress(2, 2, message="over")
    assert len(result["heads"]) == 2
    # An encoder in a folder goes by the folder's name.
    card = replace(stored_cards(gallery)[0], encoder="/srv/run-7")
    assert job_process._fitted(Refit(card, None))["encoder"] == "run-7"


def test_the_options_of_a_compaction(gallery, monkeypatch):
    asked: list[Any] = []
    done = Compaction(3, 2, "exact", 5, 1, 10, 9)
    monkeypatch.setattr(compaction, "compact", lambda *a, **b: asked.append((*a, b)) or done)
    result, told = work_on(gallery, CompactJob(2.5, forget_previous=True))
    assert asked == [(gallery, {"keep_hours": 2.5, "forget_previous": True, "wait_s": 0.0})]
    assert result == asdict(done)
    assert told == [Progress(message="merging files"), Progress(3, 3, message="over")]


def test_the_options_of_a_migration(gallery, fake, monkeypatch):
    asked: list[Any] = []
    done = Migration("old", "new", encoded=2, items=3)
    monkeypatch.setattr(migration, "migrate", lambda *arguments: asked.append(arguments) or done)
    options = MigrateJob("run-7", "gem", "bf16", force=True, discard=True)
    work = Work(gallery, options, 7.0, encoder="/srv/run-7")
    told: list[Progress] = []
    assert do(work, told.append, lambda: True) == asdict(done)
    assert fake.asked == [("/srv/run-7", {"pooling": "gem", "precision": "bf16"})]
    (folder, lazy, run), *_ = asked
    assert (folder, lazy.card) == (gallery, fake.card)
    assert (run.force, run.discard, run.wait_s, run.is_stopped()) == (True, True, 7.0, True)
    run.progress(1, 2, 1)
    assert told[-2:] == [Progress(3, 3, 2, "over"), Progress(1, 2, 1, "encoding photos anew")]


def test_a_result_is_ready_for_json(gallery, monkeypatch):
    done = {"a": float("nan"), "b": float("inf"), "c": (1, [2.5]), 3: {"\udc80": "name \udc80"}, "d": None, "e": True}
    monkeypatch.setattr(job_process, "_compact", lambda *_: done)
    # Signs that are no text come of file names; JSON has no figure that is not finite.
    assert work_on(gallery, CompactJob())[0] == {
        "a": None,
        "b": None,
        "c": [1, [2.5]],
        "3": {"\\udc80": "name \\udc80"},
        "d": None,
        "e": True,
    }


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (StoreError("Our sentence."), "Our sentence."),
        (HeadError("Our sentence."), "Our sentence."),
        (CatalogError("Our sentence."), "Our sentence."),
        (OverloadedError("jobs", 1.0), "All places for jobs are taken; ask again in 1 s."),
        (FileNotFoundError(2, "No such file or directory", "/x"), "/x: No such file or directory."),
        (OSError("odd"), "odd."),
        (ValueError("math domain error"), None),
        (RuntimeError("torch says so"), None),
        (KeyError("x"), None),
        (KeyboardInterrupt(), None),
    ],
)
def test_sentences_are_told_from_defects(error, sentence):
    assert sentence_of(error) == sentence


# What is said


def test_reports_keep_a_pace_and_lose_neither_the_newest_nor_the_last():
    sent = Sent()
    reports = job_process._Reports(sent)
    started = time.monotonic()
    for number in range(20_000):
        reports.tell(Progress(number))
    reports.end(b'{"result": {}}')
    took = time.monotonic() - started
    assert sent.messages[-2:] == [{"progress": asdict(Progress(19_999))}, {"result": {}}]
    assert len(sent.messages) <= took / job_process._PACE_S + 2
    assert "reports" not in [thread.name for thread in threading.enumerate()]


def test_a_report_comes_without_another_after_it():
    sent = Sent()
    reports = job_process._Reports(sent)
    reports.tell(Progress(7))
    end = time.monotonic() + 60
    while not sent.messages:
        assert time.monotonic() < end
        time.sleep(0.01)
    reports.end(b'{"error": "x"}')
    # What was said once is not said again.
    assert sent.messages == [{"progress": asdict(Progress(7))}, {"error": "x"}]


def test_a_service_that_is_gone_makes_no_noise():
    class Gone:
        def send_bytes(self, _: bytes) -> None:
            raise BrokenPipeError

    reports = job_process._Reports(Gone())
    reports.tell(Progress(1))
    reports.end(b"{}")


# The process itself

PROCESS = """
import json, os, signal, sys
from pathlib import Path
from service import job_process
from service.job_options import CompactJob, RefreshJob, Source
from service.job_process import Work, run

class Printed:
    def send_bytes(self, content):
        print(content.decode())

{before}
niceness = os.nice(0)
run({work}, Printed())
web = [name for name in ("fastapi", "starlette", "uvicorn", "service.app", "service.jobs") if name in sys.modules]
blas = __import__("threadpoolctl").threadpool_info()
print(json.dumps([os.nice(0) - niceness, web, sorted({{one["num_threads"] for one in blas}}),
    signal.getsignal(signal.SIGINT) == signal.SIG_IGN, callable(signal.getsignal(signal.SIGTERM))]))
"""


def process(work: str, before: str = "") -> list[Any]:
    """What a process says that does the work."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("NUM_THREADS")}
    code = PROCESS.format(work=work, before=before)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_process_gives_way_and_knows_nothing_of_the_web(tmp_path, photos):
    # A gallery of the embedded encoder, whose photos are none that need it: all of it is loaded but the network.
    from indexer.encoders import EMBEDDED, prepare_encoder

    Store.create(tmp_path / "gallery", prepare_encoder(EMBEDDED).card)
    *told, last, facts = process(
        f"Work(Path({str(tmp_path / 'gallery')!r}), RefreshJob(), 0, Source(Path({str(photos)!r})))"
    )
    assert last["result"]["added"] == 40
    assert all(list(one) == ["progress"] for one in told)
    assert facts == [10, [], [1], True, True]


def test_a_compaction_is_ended_by_a_signal_and_a_defect_is_told_with_its_trace(tmp_path):
    before = "def fail(*_): raise KeyError('told')\njob_process._compact = fail"
    last, facts = process(f"Work(Path({str(tmp_path)!r}), CompactJob(), 0)", before)
    assert list(last) == ["defect"]
    assert last["defect"].startswith("Traceback")
    assert "KeyError: 'told'" in last["defect"]
    assert facts[0] == 10
    assert facts[3:] == [True, False]


def test_a_result_that_is_none_is_a_defect(tmp_path):
    before = "job_process._compact = lambda *_: {'path': Path('x')}"
    last, _ = process(f"Work(Path({str(tmp_path)!r}), CompactJob(), 0)", before)
    assert "not JSON serializable" in last["defect"]


def test_a_sentence_is_told_as_it_is(tmp_path):
    *_, last, _ = process(f"Work(Path({str(tmp_path)!r}), CompactJob(), 0)")
    assert last["error"].startswith(f"{tmp_path} is no gallery")


SERVICE = """
import sys
from pathlib import Path
from service.job_child import JobChild
from service.job_options import CompactJob
from service.job_process import Work

if __name__ == "__main__":
    with JobChild(Work(Path(sys.argv[1]), CompactJob(), 600.0)) as child:
        for message in child.messages(bool, lambda: 600.0):
            print(child._process.pid, flush=True)
"""


def test_work_ends_with_a_service_that_is_killed(gallery, tmp_path):
    script = tmp_path / "serve.py"
    script.write_text(SERVICE)
    with writing(gallery):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        service = subprocess.Popen(
            [sys.executable, script, gallery], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
        )
        with service:
            assert service.stdout is not None
            worker = int(service.stdout.readline())
            service.send_signal(signal.SIGKILL)
            service.wait()
            end = time.monotonic() + 60
            while is_alive(worker):
                assert time.monotonic() < end, "it goes on, though nobody waits for it"
                time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process is there, and no zombie that its new parent has not seen to yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
