"""The process of a job as the service sees it: started, listened to, asked to stop, and gone afterwards."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from service.job_process import Work, run

# Seconds between two looks at whether it is to stop, and in which it has to be gone after its last word.
_LOOK_S = 0.2
_EXIT_S = 5.0


class JobChild:
    """A process that does one work; as a context manager, one that is gone at its end. For one thread.

    Args:
        work: What it does.

    Raises:
        OSError: It could not be started.
    """

    def __init__(self, work: Work) -> None:
        spawned = multiprocessing.get_context("spawn")
        self._connection, theirs = spawned.Pipe(duplex=False)
        self._process = spawned.Process(target=run, args=(work, theirs), name="job", daemon=True)
        self._asked_at: float | None = None
        # What it exited with; negative for a signal, None until it is gone.
        self.status: int | None = None
        try:
            self._process.start()
        except BaseException:
            self._connection.close()
            raise
        finally:
            # Else its end would never be noticed.
            theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Without a reader a process that still speaks ends too.
        self._connection.close()
        self._process.join(_EXIT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.status = self._process.exitcode
        self._process.close()

    def messages(self, is_stopped: Callable[[], bool], grace_s: Callable[[], float]) -> Iterator[dict[str, Any]]:
        """What it says, until it is gone.

        Args:
            is_stopped: True asks it to stop (SIGTERM).
            grace_s: Seconds from then, after which it is killed.
        """
        while True:
            try:
                if self._connection.poll(_LOOK_S):
                    yield json.loads(self._connection.recv_bytes())
            except (EOFError, OSError):
                return
            if is_stopped():
                self._stop(grace_s())

    def _stop(self, grace_s: float) -> None:
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            self._process.terminate()
        elif time.monotonic() - self._asked_at > grace_s:
            self._process.kill()
