"""Asking the service: what to tell people while it works, is busy or is away, and what it says where it refuses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, wait
from typing import TypeVar

from service.client import OverloadedError, ServiceError, UnreachableError

T = TypeVar("T")

# A service that names no time to come back at is asked again after so many seconds, and given up after so many.
_PAUSE_S, _PATIENCE_S = 2.0, 60.0
# An answer that takes longer than the first is worth a sentence, and a newer one each of the second.
_SOON_S, _AGAIN_S = 1.0, 5.0


def ask(work: Callable[[], T]) -> Generator[str, None, T]:
    """What the service answers, asked again for a minute while it is busy or away.

    Example:
        found = yield from ask(lambda: client.neighbours(photo))

    Args:
        work: Asks it, by a client without retries of its own; runs in a thread of its own.

    Yields:
        A sentence for people, while an answer takes long, and before each wait.

    Raises:
        ServiceError: It refuses, or is still busy or away after a minute, or wants to be left alone for longer; its
            `detail` says why.
    """
    start = time.monotonic()
    while True:
        try:
            return (yield from _watched(work))
        except (OverloadedError, UnreachableError) as error:
            pause = error.retry_after or _PAUSE_S
            if time.monotonic() - start + pause > _PATIENCE_S:
                raise
            yield f"{error.detail} Trying again in {pause:.0f} s."
        time.sleep(pause)


def _watched(work: Callable[[], T]) -> Generator[str, None, T]:
    """What work returns or raises, with a sentence now and then while it takes long."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(work())
        except BaseException as error:
            answer.set_exception(error)

    start = time.monotonic()
    # As a daemon, which keeps nobody waiting who has left or ends the page.
    threading.Thread(target=run, name="ask", daemon=True).start()
    pause = _SOON_S
    while not wait([answer], pause).done:
        yield f"The service is working on it ({time.monotonic() - start:.0f} s)."
        pause = _AGAIN_S
    return answer.result()


def sentence_of(error: Exception) -> str:
    """What an error says to people: the service's own sentence where it is one of the service's."""
    return error.detail if isinstance(error, ServiceError) else str(error)
