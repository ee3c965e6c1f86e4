"""Processes that are started together and end together."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType

# Lines of a process that are kept, to be shown should it die.
_LINES = 12
# Seconds that a process has to end in, before it is killed.
_GRACE_S = 10.0
_POLL_S = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ProcessDiedError(RuntimeError):
    """A process that was to go on has ended.

    Args:
        name: Of the process, as the start of a sentence.
        status: Its exit status; below 0 the signal that killed it.
        lines: What it said last.
    """

    def __init__(self, name: str, status: int, lines: Sequence[str]) -> None:
        how = f"status {status}" if status >= 0 else f"signal {-status}"
        said = "".join(f"\n  {line}" for line in lines)
        super().__init__(f"{name} has ended with {how}. " + (f"It said last:{said}" if said else "It said nothing."))
        self.name, self.status, self.lines = name, status, tuple(lines)


class Running:
    """A process that runs until it is told to end.

    Args:
        name: As the start of a sentence: `The service`.
        child: The process.
        greeting: The line in which it says where it listens; the first group is the address.
    """

    def __init__(self, name: str, child: subprocess.Popen[str], greeting: str) -> None:
        self.name, self.child = name, child
        self.address: str | None = None
        self._greeting = re.compile(greeting)
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def last_lines(self) -> list[str]:
        """What it has said last, on stdout and stderr; of one that has ended all of it is there."""
        self._reader.join(1.0)
        return list(self._lines)

    def _read(self) -> None:
        assert self.child.stdout is not None
        with self.child.stdout as lines:
            for line in lines:
                self._lines.append(line.rstrip())
                if self.address is None and (found := self._greeting.search(line)):
                    self.address = found[1]


class Processes:
    """Children of this process: whatever ends the block ends them all, so that none is left over.

    Each has a session of its own: Ctrl-C on the terminal reaches this process alone, which ends them in order.
    """

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[str]] = []
        self._running: list[Running] = []
        self._before: dict[int, Any] = {}
        self._is_held = False
        self._pending: int | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._stop) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Ending takes seconds at most, and a second Ctrl-C must not leave a child behind.
        self._is_held = True
        for child in self._children:
            child.terminate()
        until = time.monotonic() + _GRACE_S
        for child in self._children:
            _end(child, until)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, command: Sequence[str], *, env: Mapping[str, str] | None = None, is_quiet: bool = False) -> int:
        """Waits for a command, which says itself what it has to say; its exit status.

        Args:
            command: Program and arguments.
            env: Its environment; None for this one's.
            is_quiet: Whether its answer, on stdout, is left out; what goes wrong is not.
        """
        child = self._start(command, env, stdout=subprocess.DEVNULL if is_quiet else None)
        status = child.wait()
        # Later its number may be another's.
        self._children.remove(child)
        return status

    def start(
        self, name: str, command: Sequence[str], greeting: str, *, env: Mapping[str, str] | None = None
    ) -> Running:
        """Starts a process that says where it listens.

        Args:
            name: As the start of a sentence: `The service`.
            command: Program and arguments.
            greeting: Regular expression of the line in which it says so; the first group is the address.
            env: Its environment; None for this one's.
        """
        child = self._start(command, env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._running.append(Running(name, child, greeting))
        return self._running[-1]

    def address_of(self, running: Running) -> str:
        """Where a process listens, once it does.

        Raises:
            ProcessDiedError: It has ended, or another one has.
        """
        while running.address is None:
            self.check()
            time.sleep(_POLL_S)
        return running.address

    def check(self) -> None:
        """Looks whether all that were started go on.

        Raises:
            ProcessDiedError: One has ended.
        """
        for running in self._running:
            status = running.child.poll()
            if status is not None:
                raise ProcessDiedError(running.name, status, running.last_lines())

    def wait(self) -> NoReturn:
        """Waits until one has ended.

        Raises:
            ProcessDiedError: It always does.
        """
        while True:
            self.check()
            time.sleep(_POLL_S)

    def _start(self, command: Sequence[str], env: Mapping[str, str] | None, **options: Any) -> subprocess.Popen[str]:
        with self._held():
            child = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                text=True,
                errors="replace",
                **options,
            )
            self._children.append(child)
        return child

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """A signal counts once the block is over: between its start and its entry a child would be nobody's."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._pending is not None:
            self._raise(self._pending)

    def _stop(self, number: int, _: FrameType | None) -> None:
        if self._is_held:
            self._pending = number
        else:
            self._raise(number)

    def _raise(self, number: int) -> NoReturn:
        # From here on it ends, whatever else is sent.
        self._is_held = True
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)


def _end(child: subprocess.Popen[str], until: float) -> None:
    """Waits for a process that was asked to end, and kills what is left of its session."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(max(0.0, until - time.monotonic()))
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
