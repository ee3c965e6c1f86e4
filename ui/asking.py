"""Asking the service: what to tell people while it is busy or away, and what it says where it refuses."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import TypeVar

from service.client import OverloadedError, ServiceError, UnreachableError

T = TypeVar("T")

# A service that names no time to come back at is asked again after so many seconds, and given up after so many.
_PAUSE_S, _PATIENCE_S = 2.0, 60.0
_LONGEST_PAUSE_S = 10.0


def ask(work: Callable[[], T]) -> Generator[str, None, T]:
    """What the service answers, asked again for a minute while it is busy or away.

    Example:
        found = yield from ask(lambda: client.neighbours(photo))

    Args:
        work: Asks it, by a client without retries of its own.

    Yields:
        A sentence for people, before each wait.

    Raises:
        ServiceError: It refuses, or is still busy or away after a minute; `detail` says why.
    """
    start = time.monotonic()
    while True:
        try:
            return work()
        except (OverloadedError, UnreachableError) as error:
            pause = min(getattr(error, "retry_after", None) or _PAUSE_S, _LONGEST_PAUSE_S)
            if time.monotonic() - start + pause > _PATIENCE_S:
                raise
            yield f"{error.detail} Trying again in {pause:.0f} s."
        time.sleep(pause)


def sentence_of(error: Exception) -> str:
    """What an error says to people: the service's own sentence where it is one of the service's."""
    return error.detail if isinstance(error, ServiceError) else str(error)
