"""Lanes: a fixed number of threads behind a bounded queue, so that what cannot be done soon is refused at once."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

# How fast the mean time of a piece of work follows the last ones.
_SMOOTHING = 0.1


class OverloadedError(RuntimeError):
    """More was asked than can be answered soon.

    Args:
        lanes: Which queue is full.
        retry_after_s: Seconds after which it is worth asking again.
    """

    def __init__(self, lanes: str, retry_after_s: float) -> None:
        super().__init__(f"All places for {lanes} are taken; ask again in {retry_after_s:.0f} s.")
        self.retry_after_s = retry_after_s


class DeadlineError(RuntimeError):
    """A request took longer than it may; what was not begun of it was not done."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The request was not answered within {seconds:g} s; ask again when there is less to do.")
        self.retry_after_s = 1.0


class AbandonedError(RuntimeError):
    """Nobody waits for the answer any more."""


class Ticket:
    """One request on its way through a lane: how long it may take, and how long each stage took.

    Args:
        deadline_s: Seconds from now after which it is given up between two stages.
    """

    def __init__(self, deadline_s: float) -> None:
        self._start = time.perf_counter()
        self._deadline_s = deadline_s
        self._abandoned = threading.Event()
        self._stages: dict[str, float] = {}

    def abandon(self) -> None:
        """Gives the request up before its next stage."""
        self._abandoned.set()

    def check(self) -> None:
        """Returns where the request is still worth working on.

        Raises:
            AbandonedError: Nobody waits for it.
            DeadlineError: It has taken too long.
        """
        if self._abandoned.is_set():
            raise AbandonedError("The request was given up.")
        if self.elapsed_s > self._deadline_s:
            raise DeadlineError(self._deadline_s)

    @property
    def elapsed_s(self) -> float:
        """Seconds since it was asked."""
        return time.perf_counter() - self._start

    @property
    def left_s(self) -> float:
        """Seconds until its deadline, 0 or more."""
        return max(0.0, self._deadline_s - self.elapsed_s)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage, unless the request has been given up."""
        self.check()
        start = time.perf_counter()
        try:
            yield
        finally:
            self._stages[name] = self._stages.get(name, 0.0) + time.perf_counter() - start

    def timings_ms(self) -> dict[str, float]:
        """Milliseconds by stage, and in all until now."""
        stages = {name: round(1000 * seconds, 3) for name, seconds in self._stages.items()}
        return {**stages, "total": round(1000 * self.elapsed_s, 3)}

    def begin(self) -> None:
        """Notes that a lane has taken it up.

        Raises:
            AbandonedError, DeadlineError: As `check`.
        """
        self._stages["queue"] = self.elapsed_s
        self.check()


class Lanes:
    """Threads that each deal with one request at a time.

    Args:
        name: What they do, for messages and metrics.
        count: Threads, 1 or more.
        places: Requests that may wait; one more is refused.
        on_start: Called in each thread before its first request.
    """

    def __init__(self, name: str, count: int, places: int, on_start: Callable[[], None] = lambda: None) -> None:
        self.name = name
        self.count = count
        self.places = places
        self._on_start = on_start
        self._waiting: deque[tuple[Callable[[Ticket], Any], Ticket, Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._busy = 0
        self._mean_s = 0.01
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Requests that no lane has taken up."""
        return len(self._waiting)

    @property
    def busy(self) -> int:
        """Lanes at work."""
        return self._busy

    def submit(self, work: Callable[[Ticket], T], ticket: Ticket) -> Future[T]:
        """Queues a piece of work.

        Args:
            work: Called with its ticket in a lane.
            ticket: Its deadline. Cancelling the future frees the place at once; once a lane is at it, abandoning the
                ticket ends it before its next stage.

        Raises:
            OverloadedError: Every place is taken.
        """
        future: Future[T] = Future()
        with self._changed:
            is_full = self._busy >= self.count and len(self._waiting) >= self.places
            if self._closed or is_full or len(self._waiting) >= self.places + self.count:
                raise OverloadedError(self.name, self._retry_after_s())
            self._waiting.append((work, ticket, future))
            self._changed.notify()
        # It is not told of its work: both would hold each other, and a photo, until the collector comes round.
        future.add_done_callback(self._forget)
        return future

    def close(self) -> None:
        """Refuses what comes from now on, and waits for what is queued or under way."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _retry_after_s(self) -> float:
        """Seconds until what waits now will have been dealt with, in whole seconds, 1 or more."""
        return float(max(1, math.ceil(self._mean_s * (self.waiting + self.count) / self.count)))

    def _forget(self, done: Future[Any]) -> None:
        """Frees the place of one that was cancelled."""
        if done.cancelled():
            with self._changed:
                self._waiting = deque(entry for entry in self._waiting if entry[2] is not done)

    def _work(self) -> None:
        self._on_start()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                work, ticket, future = self._waiting.popleft()
                if not future.set_running_or_notify_cancel():
                    continue
                self._busy += 1
            start = time.perf_counter()
            error: BaseException | None = None
            try:
                ticket.begin()
                result = work(ticket)
            except BaseException as raised:  # Lance's panics are no Exceptions; who asked gets them all.
                error = raised
            with self._changed:
                self._busy -= 1
                self._mean_s += _SMOOTHING * (time.perf_counter() - start - self._mean_s)
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
            # Nothing of it is held while this lane waits for the next one.
            result = error = None
            del work, ticket, future
