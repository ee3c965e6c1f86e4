from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from service.lanes import AbandonedError, DeadlineError, Lanes, OverloadedError, Ticket
from tests.service.servers import until


class Gate:
    """Work that waits to be let through, and says that it has begun."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self, ticket: Ticket) -> str:
        self.begun.release()
        assert self.opened.wait(10)
        ticket.check()
        return "through"


@pytest.fixture
def make():
    made = []

    def lanes(count: int, places: int, **options: Any) -> Lanes:
        made.append(Lanes("tests", count, places, **options))
        return made[-1]

    yield lanes
    for one in made:
        one.close()


def fill(lanes: Lanes, gate: Gate) -> list[Future[str]]:
    """As many pieces of work as the lanes take."""
    futures = [lanes.submit(gate, Ticket(10)) for _ in range(lanes.count)]
    for _ in range(lanes.count):
        assert gate.begun.acquire(timeout=10)
    return futures + [lanes.submit(gate, Ticket(10)) for _ in range(lanes.places)]


def test_what_is_asked_is_answered_and_timed(make):
    lanes = make(1, 1)
    ticket = Ticket(10)

    def work(ticket: Ticket) -> int:
        with ticket.stage("decode"):
            pass
        with ticket.stage("decode"), ticket.stage("search"):
            pass
        return 7

    assert lanes.submit(work, ticket).result(10) == 7
    timings = ticket.timings_ms()
    assert list(timings) == ["queue", "decode", "search", "total"]
    assert 0 <= timings["decode"] <= timings["total"]


def test_one_more_than_lanes_and_places_is_refused_at_once(make):
    gate = Gate()
    lanes = make(2, 3)
    futures = fill(lanes, gate)
    assert (lanes.busy, lanes.waiting) == (2, 3)
    with pytest.raises(OverloadedError, match=r"All places for tests are taken; ask again in \d+ s\.") as refused:
        lanes.submit(gate, Ticket(10))
    assert refused.value.retry_after_s >= 1
    gate.opened.set()
    assert [future.result(10) for future in futures] == ["through"] * 5
    assert lanes.submit(gate, Ticket(10)).result(10) == "through"


def test_without_places_idle_lanes_still_take_work(make):
    gate = Gate()
    lanes = make(1, 0)
    futures = fill(lanes, gate)
    with pytest.raises(OverloadedError):
        lanes.submit(gate, Ticket(10))
    gate.opened.set()
    assert futures[0].result(10) == "through"


def test_who_gives_up_while_waiting_frees_the_place(make):
    gate = Gate()
    lanes = make(1, 1)
    _, waiting = fill(lanes, gate)
    assert waiting.cancel()
    assert lanes.waiting == 0
    replacing = lanes.submit(gate, Ticket(10))
    gate.opened.set()
    assert replacing.result(10) == "through"
    with pytest.raises(CancelledError):
        waiting.result(0)


def test_who_gives_up_under_way_ends_before_the_next_stage(make):
    gate, ticket = Gate(), Ticket(10)
    lanes = make(1, 1)
    future = lanes.submit(gate, ticket)
    assert gate.begun.acquire(timeout=10)
    ticket.abandon()
    gate.opened.set()
    with pytest.raises(AbandonedError):
        future.result(10)
    assert lanes.submit(lambda _: 1, Ticket(10)).result(10) == 1


def test_what_waited_past_its_deadline_is_not_begun(make):
    gate, done = Gate(), []
    lanes = make(1, 1)
    lanes.submit(gate, Ticket(10))
    assert gate.begun.acquire(timeout=10)
    late = lanes.submit(lambda _: done.append(1), Ticket(0.01))
    time.sleep(0.02)
    gate.opened.set()
    with pytest.raises(DeadlineError, match=r"not answered within 0\.01 s"):
        late.result(10)
    assert not done


def test_a_stage_past_the_deadline_is_not_begun():
    ticket = Ticket(0.01)
    time.sleep(0.02)
    assert ticket.left_s == 0
    with pytest.raises(DeadlineError), ticket.stage("encode"):
        pytest.fail("the stage began")


def test_errors_reach_who_asked_and_the_lane_goes_on(make):
    class Panic(BaseException):
        pass

    def fail(_: Ticket) -> None:
        raise Panic("deep down")

    lanes = make(1, 1)
    with pytest.raises(Panic, match="deep down"):
        lanes.submit(fail, Ticket(10)).result(10)
    assert lanes.submit(lambda _: 1, Ticket(10)).result(10) == 1


def test_each_lane_is_prepared_once(make):
    names = []
    lanes = make(3, 1, on_start=lambda: names.append(threading.current_thread().name))
    lanes.close()
    assert sorted(names) == ["tests-0", "tests-1", "tests-2"]


def test_closing_answers_what_was_asked_and_refuses_the_rest():
    gate = Gate()
    lanes = Lanes("tests", 1, 2)
    futures = fill(lanes, gate)
    closing = threading.Thread(target=lanes.close)
    closing.start()
    while not lanes._closed:
        time.sleep(0.001)
    with pytest.raises(OverloadedError):
        lanes.submit(gate, Ticket(10))
    gate.opened.set()
    closing.join(10)
    assert not closing.is_alive()
    assert [future.result(0) for future in futures] == ["through"] * 3


def test_the_time_to_come_back_grows_with_the_work(make):
    lanes = make(1, 30)
    for _ in range(60):
        lanes.submit(lambda _: time.sleep(0.02), Ticket(10)).result(10)
    gate = Gate()
    fill(lanes, gate)
    lanes._mean_s = 0.5
    with pytest.raises(OverloadedError) as refused:
        lanes.submit(gate, Ticket(10))
    # 30 wait and one is under way, half a second each.
    assert refused.value.retry_after_s == 16
    gate.opened.set()


def test_many_askers_are_each_answered_or_refused(make):
    lanes = make(2, 4)
    answered, refused = [], []

    def ask(number: int) -> None:
        try:
            answered.append(lanes.submit(lambda _: (time.sleep(0.001), number)[1], Ticket(10)).result(10))
        except OverloadedError:
            refused.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answered + refused) == list(range(200))
    assert (lanes.busy, lanes.waiting) == (0, 0)


@pytest.mark.parametrize("is_refused", [False, True])
def test_nothing_of_an_answered_request_is_held(make, is_refused):
    """Not even until the collector comes round: a photo may have 20 MB, and a thousand requests may be before it."""
    lanes = make(1, 1)
    held = []

    def work(ticket: Ticket) -> str:
        held.append(weakref.ref(ticket))
        if is_refused:
            raise ValueError
        return "answer"

    gc.disable()
    try:
        future = lanes.submit(work, Ticket(10))
        assert isinstance(future.exception(10), ValueError) == is_refused
        del future
        until(lambda: held[0]() is None, 5)
    finally:
        gc.enable()
