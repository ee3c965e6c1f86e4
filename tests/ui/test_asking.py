"""Asking: what is said while the service is busy, away or slow, and when the page gives up."""

from __future__ import annotations

import threading

import pytest

from service.client import OverloadedError, RefusedError, UnreachableError
from ui import asking
from ui.asking import ask, sentence_of


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only where the page waits."""
    now = [0.0]
    monkeypatch.setattr(asking.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(asking.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def follow(*outcomes):
    """What ask says, and what it answers, where the service does this in turn."""
    left = list(outcomes)

    def work():
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    *said, answer = follow_steps(ask(work))
    return said, answer


def follow_steps(steps):
    """What a generator yields, and last what it returns."""
    answer = yield from steps
    yield answer


def test_an_answer_at_once_says_nothing(clock):
    assert follow(5) == ([], 5)


def test_a_busy_service_is_asked_again_when_it_says(clock):
    said, answer = follow(OverloadedError("All are busy.", 503, retry_after=7), UnreachableError("Away."), 5)
    assert said == ["All are busy. Trying again in 7 s.", "Away. Trying again in 2 s."]
    assert (answer, clock[0]) == (5, 9)


def test_it_gives_up_after_a_minute(clock):
    with pytest.raises(OverloadedError, match="busy"):
        follow(*[OverloadedError("All are busy.", 503, retry_after=1)] * 100)
    assert clock[0] == 60


def test_it_does_not_wait_for_what_is_too_far_off(clock):
    with pytest.raises(OverloadedError, match="day"):
        follow(OverloadedError("Enough for a day.", 429, retry_after=3600))
    assert clock[0] == 0


def test_a_refusal_is_not_asked_again(clock):
    with pytest.raises(RefusedError):
        follow(RefusedError("No.", 422), 5)


def test_a_slow_answer_says_that_it_is_worked_on(monkeypatch):
    monkeypatch.setattr(asking, "_SOON_S", 0.01)
    monkeypatch.setattr(asking, "_AGAIN_S", 0.01)
    held = threading.Event()

    def work():
        held.wait()
        return 5

    steps = ask(work)
    for _ in range(2):
        assert next(steps) == "The service is working on it (0 s)."
    held.set()
    # It may have said it once more in between.
    *_, answer = follow_steps(steps)
    assert answer == 5


def test_people_read_the_services_own_sentence():
    assert sentence_of(RefusedError("Too small.", 422, "id-1")) == "Too small."
    assert sentence_of(ValueError("No box.")) == "No box."
