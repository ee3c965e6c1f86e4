"""A child process that decodes photos, as its parent sees it: started, asked under a wall limit, ended."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from data.catalog import Box
from data.images import ImageError
from service.decoder import (
    ANSWER,
    DONE,
    MAX_SENTENCE,
    OUT_OF_MEMORY,
    PIXELS,
    REFUSED,
    SHAPE,
    VIEW,
    question,
    receive,
    widen,
)

# A process that has not started by then never will.
_START_S = 60.0
# A JPEG takes less a pixel, and its tables less in all; a compromised process may claim what it likes.
_JPEG_BYTES_A_PIXEL, _JPEG_TABLES = 6, 4096
# The child finds this package where the parent has it, and nothing in the folder that the parent was started in (-P).
_CODE = "import sys; sys.path.append(sys.argv.pop(1)); from service.decoder import main; main()"
_ROOT = str(Path(__file__).parents[1])
# Keys and settings of the service stay with the parent.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP")


class DecoderProcess:
    """A child process and the socket to it, for one thread at a time.

    Args:
        seconds: How long a photo may take.
        memory_mb: Its address space.

    Attributes:
        photos: How many it has answered.
        lost: Why it is of no use any more; empty while it is.
        is_ready: Whether it has started.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, seconds: float, memory_mb: int) -> None:
        self.photos = 0
        self.lost = ""
        self.is_ready = False
        self._seconds = seconds
        self._memory_mb = memory_mb
        self._start = time.monotonic()
        self._pipe, theirs = socket.socketpair()
        with theirs:
            try:
                widen(self._pipe)
                widen(theirs)
                self.process = _spawn(theirs, memory_mb, seconds)
            except BaseException:
                self._pipe.close()
                raise

    def has_reported(self, seconds: float) -> bool:
        """Whether there is something to be read within so many seconds, be it the end."""
        self._pipe.settimeout(seconds)
        try:
            self._pipe.recv(1, socket.MSG_PEEK)
        except (TimeoutError, BlockingIOError):
            return False
        except ConnectionError:
            pass
        return True

    def is_usable(self, deadline: float) -> bool:
        """Whether it can be asked; false where it is lost.

        Args:
            deadline: Until when its start is waited for, in terms of `time.monotonic`.

        Raises:
            TimeoutError: It has not started by then.
        """
        if not self.lost and not self.is_ready:
            self._await_start(deadline)
        elif not self.lost and self.process.poll() is not None:
            self.lost = f"{self._fate()} while it was idle"
        return not self.lost

    def ask(self, kind: int, size: int, box: Box | None, content: bytes) -> bytearray:
        """The pixels or the JPEG of a photo, or its view after its shape.

        Args:
            kind: PIXELS, JPEG or VIEW.
            size: Side of the square, or the longer side, in pixels.
            box: Region of the photo.
            content: Its bytes.

        Raises:
            ImageError: The photo is not taken in; where that cost the process, `lost` says so.
        """
        # Whoever is interrupted leaves the rest of an answer behind.
        self.lost = "was left in the middle of a photo"
        try:
            self._pipe.settimeout(self._seconds)
            deadline = time.monotonic() + self._seconds
            self._pipe.sendall(question(kind, size, box, content))
            status, body = self._receive(deadline, *_expected(kind, size))
            if kind == VIEW and status == DONE and not _is_view(body, size):
                raise ConnectionError
        except TimeoutError as error:
            self._lose("took too long", content)
            raise ImageError(
                f"The photo could not be decoded within {self._seconds:g} s. Save it anew, or scale it down."
            ) from error
        except (EOFError, ConnectionError) as error:
            self._lose(self._fate(), content)
            raise ImageError("Decoding the photo failed; it is damaged. Save it anew.") from error
        if status == OUT_OF_MEMORY:
            self._lose("ran out of memory", content)
            raise ImageError(f"Decoding the photo takes more than {self._memory_mb} MB of memory. Scale it down.")
        if status not in (DONE, REFUSED):
            self._lose(f"failed ({_text(body)!r})", content)
            raise ImageError("Decoding the photo failed; it is damaged. Save it anew.")
        self.lost = ""
        self.photos += 1
        if status == REFUSED:
            raise ImageError(_text(body))
        return body

    def end(self) -> None:
        """Ends it, whatever it is at."""
        self._pipe.close()
        self.process.kill()
        self.process.wait()

    def _await_start(self, deadline: float) -> None:
        if not self.has_reported(max(0.0, deadline - time.monotonic())):
            if time.monotonic() - self._start < _START_S:
                raise TimeoutError
            self.lost = f"did not start within {_START_S:.0f} s"
            return
        try:
            status, body = self._receive(time.monotonic() + self._seconds, 0, 0)
        except (EOFError, OSError):
            self.lost = f"{self._fate()} while it was starting"
            return
        self.is_ready = status == DONE
        if not self.is_ready:
            self.lost = f"could not start ({_text(body)!r})"

    def _receive(self, deadline: float, least: int, most: int) -> tuple[int, bytearray]:
        """The status and what follows it, which is of so many bytes where it is no sentence."""
        head = bytearray(ANSWER.size)
        receive(self._pipe, head, deadline=deadline)
        status, length = ANSWER.unpack(head)
        if not (least <= length <= most if status == DONE else length <= MAX_SENTENCE):
            raise ConnectionError
        body = bytearray(length)
        receive(self._pipe, body, deadline=deadline)
        return status, body

    def _lose(self, cause: str, content: bytes) -> None:
        self.lost = f"{cause} with a photo of {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}"

    def _fate(self) -> str:
        """How it ended, where it did."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(timeout=1)
            return f"ended with code {code}" if code >= 0 else f"was ended by {signal.strsignal(-code)} ({-code})"
        return "does not keep to the protocol"


def _expected(kind: int, size: int) -> tuple[int, int]:
    """The least and the most bytes of an answer."""
    pixels = 3 * size * size
    if kind == VIEW:
        return SHAPE.size, SHAPE.size + pixels
    return (pixels, pixels) if kind == PIXELS else (1, _JPEG_BYTES_A_PIXEL * size * size + _JPEG_TABLES)


def _is_view(body: bytearray, size: int) -> bool:
    """Whether the pixels are as many as the shape before them says, and no side is longer than asked."""
    height, width = (int(side) for side in SHAPE.unpack_from(body))
    return min(height, width) >= 1 and max(height, width) <= size and len(body) == SHAPE.size + 3 * height * width


def _text(body: bytearray) -> str:
    return body.decode(errors="replace")


def _spawn(pipe: socket.socket, memory_mb: int, seconds: float) -> subprocess.Popen[bytes]:
    """Starts the process, with one end of the socket and nothing else of what the parent has open."""
    command = [sys.executable, "-P", "-c", _CODE, _ROOT, str(pipe.fileno()), str(memory_mb), str(seconds)]
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment["OPENBLAS_NUM_THREADS"] = "1"
    null = subprocess.DEVNULL
    if sys.platform == "win32":
        # There the numbers of sockets are inherited all or none, and others of ours are none.
        pipe.set_inheritable(True)
        return subprocess.Popen(command, stdin=null, stdout=null, env=environment, close_fds=False)
    return subprocess.Popen(command, stdin=null, stdout=null, env=environment, pass_fds=(pipe.fileno(),))
