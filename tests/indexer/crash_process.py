"""A worker process seen from outside: how it is told what to do, and how it is killed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# Nothing here takes a second.
_PATIENCE_S = 120.0
# Lance's own system calls that change what is on the disk, at which strace kills.
_CALLS = "rename,renameat,renameat2,linkat,unlink,unlinkat"


class WorkerError(RuntimeError):
    """A worker failed, with its traceback."""


class Worker:
    """A process of tests.indexer.crash_worker."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "tests.indexer.crash_worker"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def order(self, **order: Any) -> None:
        """Gives it something to do.

        Raises:
            WorkerError: It is dead already.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise WorkerError("A worker could not start.") from error

    def kill(self) -> None:
        """Ends it at once."""
        self._process.send_signal(signal.SIGKILL)

    def answers(self) -> tuple[list[dict[str, Any]], Any]:
        """What it says on the way, and its answer at the end; None where it was killed before.

        Raises:
            WorkerError: It failed.
        """
        assert self._process.stdout is not None
        watch = threading.Timer(_PATIENCE_S, self.kill)
        watch.start()
        said: list[dict[str, Any]] = []
        try:
            for line in self._process.stdout:
                # A line that a kill has cut promises nothing.
                with suppress(json.JSONDecodeError):
                    words = json.loads(line)
                    if "error" in words:
                        raise WorkerError(words["error"])
                    if "answer" in words:
                        return said, words
                    said.append(words)
        finally:
            watch.cancel()
        return said, None

    def ask(self, **order: Any) -> Any:
        """The answer to an order.

        Raises:
            WorkerError: It failed or died.
        """
        self.order(**order)
        _, words = self.answers()
        if words is None:
            raise WorkerError(f"A worker died of {order['do']} {order.get('kind', '')}.")
        return words["answer"]

    def close(self) -> None:
        """Ends it, whatever it does."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


@contextmanager
def working() -> Iterator[Worker]:
    worker = Worker()
    try:
        yield worker
    finally:
        worker.close()


@contextmanager
def killed_at_call(pid: int, number: int) -> Iterator[None]:
    """Kills a process at that system call of one of its threads."""
    injected = f"inject={_CALLS}:signal=SIGKILL:when={number}"
    command = ["strace", "-f", "-p", str(pid), "-o", "/dev/null", "-e", f"trace={_CALLS}", "-e", injected]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert tracer.stderr is not None
        line = tracer.stderr.readline()
        if "attached" not in line:
            raise WorkerError(f"strace could not be attached: {line.strip()}")
        yield
    finally:
        # Asked to end, it would wait for a process that is dead already.
        tracer.kill()
        tracer.communicate()


def why_no_strace() -> str | None:
    """Why strace cannot kill here; None where it can."""
    if shutil.which("strace") is None:
        return "there is no strace"
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            with killed_at_call(process.pid, 1):
                return None
        except WorkerError as error:
            return str(error)
        finally:
            process.kill()
