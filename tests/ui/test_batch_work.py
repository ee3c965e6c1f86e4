"""The work of a batch: requests of a sensible size, refusals, waits, and an end at any time."""

from __future__ import annotations

import io
import threading
import time
import zipfile

import pytest

from service.client import (
    Classification,
    ClassifiedPhoto,
    LabelProbability,
    OverloadedError,
    Prediction,
    Receipt,
    RefusedError,
    ServiceError,
    UnreachableError,
)
from ui import batch as batch_module
from ui.batch import Answer, Batch, Batches, collect, work
from ui.held_files import HeldFiles
from ui.zips import PhotoZips


class Service:
    """Answers with the photo's own first word; refuses as it is told."""

    def __init__(self, *, most=16, most_bytes=25 * 2**20):
        self.requests = []
        self.most, self.most_bytes = most, most_bytes
        self.errors = []
        self.lock = threading.Lock()

    def classify(self, *photos, **ask):
        with self.lock:
            self.requests.append((len(photos), ask))
            if self.errors:
                raise self.errors.pop(0)
        if len(photos) > self.most:
            raise RefusedError(f"A request has at most {self.most} photos.", 422)
        if sum(map(len, photos)) > self.most_bytes:
            raise RefusedError("The body is too large.", 413)
        answers = [self._answer(str(place), photo.split()[0].decode()) for place, photo in enumerate(photos)]
        if all(one.error for one in answers):
            raise RefusedError(answers[0].error if len(answers) == 1 else "None of the photos could be read.", 422)
        return Classification(answers, Receipt(7, 1, "e", "f", "exact"))

    def _answer(self, name, word):
        if word == "bad":
            return ClassifiedPhoto(name, "The photo is damaged.", [], [])
        is_none = word == "strange"
        likeliest = LabelProbability(word, 0.25)
        one = Prediction("kind", "knn", [] if is_none else [word], is_none, [likeliest], None, None, [])
        return ClassifiedPhoto(name, None, [one], [])


@pytest.fixture
def held():
    with HeldFiles(64) as files:
        yield files


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(batch_module, "_PAUSE_S", 0.01)


def _batch(held, words, **options):
    batch = Batch(options.get("targets"), options.get("head"))
    sent = [{"name": f"{place}.jpg", "token": held.keep("x", word.encode()).token} for place, word in enumerate(words)]
    collect(batch, sent, [], PhotoZips(held))
    return batch


def _finish(batch, service, held):
    sentences = []
    for _ in work(batch, service, held, PhotoZips(held)):
        sentences.append(batch.sentence)
    return sentences


def _said(batch):
    return [(row.answers["kind"].likeliest if row.answers else row.error) for row in batch.rows]


def test_each_photo_has_its_own_answer(held):
    words = [f"label{place}" for place in range(21)]
    batch, service = _batch(held, words, targets=["kind"], head="knn"), Service()
    _finish(batch, service, held)
    assert _said(batch) == words
    assert batch.rows[3].answers == {"kind": Answer(("label3",), "label3", 0.25, False, "knn")}
    assert (batch.state, batch.done, batch.failed, batch.gallery_version) == ("done", 21, 0, 7)
    assert sorted(count for count, _ in service.requests) == [5, 8, 8]
    assert service.requests[0][1] == {"targets": ["kind"], "head": "knn", "top": 1, "evidence": 0}


def test_a_photo_that_is_refused_costs_the_others_nothing(held):
    # The last two go in a request of their own, which is refused as a whole.
    batch = _batch(held, ["bad", *"abcdef", "strange", "bad", "bad"])
    _finish(batch, Service(), held)
    damaged = "The photo is damaged."
    assert _said(batch) == [damaged, *"abcdef", "strange", damaged, damaged]
    assert (batch.done, batch.failed) == (10, 3)
    strange = batch.rows[7].answers["kind"]
    assert (strange.labels, strange.none_of_these) == ((), True)


def test_a_service_that_takes_fewer_photos_or_bytes_gets_them_in_parts(held):
    words = [f"w{place} " + "x" * 1000 for place in range(9)]
    for service in (Service(most=3), Service(most_bytes=2500)):
        batch = _batch(held, words)
        _finish(batch, service, held)
        assert _said(batch) == [word.split()[0] for word in words]


def test_large_photos_go_in_smaller_requests(held, monkeypatch):
    monkeypatch.setattr(batch_module, "_BYTES", 2500)
    batch, service = _batch(held, ["x" * 1000] * 4 + ["y" * 5000]), Service()
    _finish(batch, service, held)
    # Two of 1,000 bytes fit; one of 5,000 goes by itself.
    assert [count for count, _ in service.requests] == [2, 2, 1]


def test_a_photo_that_is_too_large_for_the_service_says_so(held):
    batch = _batch(held, ["a", "b" * 3000])
    _finish(batch, Service(most_bytes=2500), held)
    assert _said(batch) == ["a", "The body is too large."]


@pytest.mark.parametrize("error", [OverloadedError("It is full.", 503, None, 0.01), UnreachableError("It is away.")])
def test_a_service_that_is_full_or_away_is_asked_again(held, error, monkeypatch):
    monkeypatch.setattr(batch_module, "_LOOK_S", 0.02)
    error.retry_after = 0.2
    batch, service = _batch(held, ["a", "b"]), Service()
    service.errors = [error]
    sentences = _finish(batch, service, held)
    assert f"{error.detail} Trying again in 0 s." in sentences
    assert (_said(batch), batch.state, batch.sentence) == (["a", "b"], "done", "")


def test_a_service_that_stays_away_stops_the_batch_which_can_go_on(held, monkeypatch):
    monkeypatch.setattr(batch_module, "_PATIENCE_S", 0.0)
    batch, service = _batch(held, ["a"]), Service()
    service.errors = [UnreachableError("It is away.")]
    _finish(batch, service, held)
    assert (batch.state, batch.sentence, batch.done) == ("stopped", "It is away.", 0)
    _finish(batch, service, held)
    assert (batch.state, batch.sentence, _said(batch)) == ("done", "", ["a"])


@pytest.mark.parametrize("error", [RefusedError("No key.", 401), RefusedError("No head.", 409), ServiceError("?", 500)])
def test_a_refusal_of_the_question_stops_the_batch_at_once(held, error):
    batch, service = _batch(held, "abcdefgh"), Service()
    service.errors = [error]
    _finish(batch, service, held)
    assert (batch.state, batch.sentence, len(service.requests)) == ("stopped", error.detail, 1)


def test_a_service_that_gives_up_is_asked_about_fewer_at_a_time(held, monkeypatch):
    monkeypatch.setattr(batch_module, "_SLOW_S", -1.0)
    batch, service = _batch(held, "abcdefgh"), Service()
    service.errors = [OverloadedError("It took too long.", 503)]
    _finish(batch, service, held)
    assert [count for count, _ in service.requests] == [8, 4, 4]
    assert (batch.size, _said(batch)) == (4, list("abcdefgh"))


def test_what_is_done_when_it_is_cancelled_is_kept_and_the_rest_done_later(held, monkeypatch):
    monkeypatch.setattr(batch_module, "_AT_ONCE", 1)
    batch, service = _batch(held, ["a"] * 40), Service()
    running = work(batch, service, held, PhotoZips(held))
    next(running)
    batch.cancelled.set()
    assert list(running) == []
    assert (batch.state, batch.done) == ("cancelled", 8)
    _finish(batch, service, held)
    assert (batch.state, batch.done, sum(count for count, _ in service.requests)) == ("done", 40, 40)


def test_nobody_who_listens_ends_the_work(held, monkeypatch):
    monkeypatch.setattr(batch_module, "_AT_ONCE", 1)
    batch, service = _batch(held, ["a"] * 40), Service()
    running = work(batch, service, held, PhotoZips(held))
    next(running)
    running.close()
    assert (batch.state, len(service.requests)) == ("cancelled", 1)


def test_a_request_that_waits_for_the_service_ends_with_the_batch(held, monkeypatch):
    monkeypatch.setattr(batch_module, "_LOOK_S", 0.02)
    batch, service = _batch(held, "a"), Service()
    service.errors = [UnreachableError("It is away.")] * 1000
    running = work(batch, service, held, PhotoZips(held))
    next(running)
    running.close()
    asked = len(service.requests)
    time.sleep(0.1)
    # One may have been on its way.
    assert len(service.requests) <= asked + 1


def test_a_batch_that_is_cancelled_while_the_service_is_away_has_not_failed(held):
    batch, service = _batch(held, "a"), Service()
    service.errors = [UnreachableError("It is away.", retry_after=60.0)]
    running = work(batch, service, held, PhotoZips(held))
    next(running)
    assert batch.sentence == "It is away. Trying again in 60 s."
    # While the work waits for the request, which wakes first.
    threading.Timer(0.1, batch.cancelled.set).start()
    list(running)
    assert (batch.state, batch.sentence, batch.done) == ("cancelled", "", 0)


def test_photos_come_from_zips_and_by_themselves(held):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in ("a/first.jpg", "second.jpg", "notes.txt"):
            file.writestr(name, name.split(".")[0])
    sent = [
        {"name": "photos.ZIP", "token": held.keep("z", content.getvalue()).token},
        {"name": "own.jpg", "token": held.keep("own.jpg", b"own").token},
        {"name": "none.zip", "token": held.keep("none.zip", b"none").token},
        {"name": "lost.jpg", "token": "unknown"},
        {"name": "huge.jpg", "error": "'huge.jpg' is larger than 20 MB."},
    ]
    batch = Batch(None, None)
    collect(batch, sent, [{"reason": "no photos", "count": 2, "names": ["a.txt", "b\u202e.txt"]}], PhotoZips(held))
    _finish(batch, Service(), held)
    assert [(row.name, row.number) for row in batch.rows] == [
        ("a/first.jpg", 0),
        ("second.jpg", 1),
        ("own.jpg", None),
        ("none.zip", None),
        ("lost.jpg", None),
        ("huge.jpg", None),
    ]
    assert _said(batch)[:3] == ["a/first", "second", "own"]
    assert "It is no zip" in _said(batch)[3]
    assert "no longer held" in _said(batch)[4]
    assert _said(batch)[5] == "'huge.jpg' is larger than 20 MB."
    # What the browser left out, and what the zip had besides.
    assert (batch.skipped["no photos"].count, batch.skipped["no photos"].names) == (
        3,
        ["a.txt", "b\ufffd.txt", "notes.txt"],
    )
    token = batch.rows[0].token
    assert [row.url for row in batch.rows[:3]] == [
        f"/zips/{token}/0",
        f"/zips/{token}/1",
        f"/uploads/{batch.rows[2].token}",
    ]


def test_photos_beyond_the_most_are_skipped(held, monkeypatch):
    monkeypatch.setattr(batch_module, "MOST_PHOTOS", 2)
    batch = _batch(held, "abc")
    assert (len(batch.rows), [one.count for one in batch.skipped.values()]) == (2, [1])
    assert "more than the 2 photos of a batch" in next(iter(batch.skipped))


def test_a_service_without_heads_says_so_of_each_photo(held):
    service = Service()
    service._answer = lambda name, _: ClassifiedPhoto(name, None, [], [])
    batch = _batch(held, "a")
    _finish(batch, service, held)
    assert _said(batch) == ["The service predicts nothing: no target has a head."]


def test_the_rate_is_of_late(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(batch_module.time, "monotonic", lambda: now[0])
    batch = Batch(None, None)
    assert (batch.rate, batch.left_s) == (None, None)
    batch.rows = [None] * 500
    for seconds, done in ((0, 200), (10, 250), (30, 300), (40, 400)):
        now[0], batch.done = seconds, done
        batch.tick()
    # What is older than 20 s does not count: (400 - 300) photos in 10 s, and 100 are left.
    assert (batch.rate, batch.left_s) == (10.0, 10.0)


def test_the_batch_that_was_not_looked_at_for_longest_goes():
    batches = Batches(most=2)
    first, second, third = (Batch(None, None) for _ in range(3))
    batches.hold(first)
    batches.hold(second)
    assert batches.get(first.token) is first
    batches.hold(third)
    assert [batches.get(one.token) is one for one in (first, second, third)] == [True, False, True]
    assert batches.get("") is None
    assert len(first.token) > 20
