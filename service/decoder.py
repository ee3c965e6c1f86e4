"""The child process that decodes photos for `service.decoding`: few rights, little memory, nothing of the service.

A hostile photo that gets the better of a decoder has this process and no other. It gets questions and gives answers
over a socket, in frames of a fixed head and raw bytes.
"""

from __future__ import annotations

import contextlib
import io
import math
import signal
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING

from PIL import Image

from data.catalog import Box
from data.images import ImageError, encode_jpeg, read_pixels, read_view

if TYPE_CHECKING:
    from typing_extensions import Buffer

# What is wanted, size in pixels, the box (NaN without one), and the bytes of the photo that follow.
QUESTION = struct.Struct("=BI4dQ")
# What came of it, and the bytes that follow: what was wanted, or a sentence where it is an error.
ANSWER = struct.Struct("=BQ")
# Rows and columns of a view, before its pixels.
SHAPE = struct.Struct("=II")
PIXELS, JPEG, VIEW = 0, 1, 2
DONE, REFUSED, OUT_OF_MEMORY, BROKEN = 0, 1, 2, 3
MAX_SENTENCE = 1000

_NO_BOX = (math.nan,) * 4
# In this much of the socket's buffer a photo and its pixels cross at once.
_SOCKET_BYTES = 1 << 20
_PR_SET_NO_NEW_PRIVS = 38


def question(kind: int, size: int, box: Box | None, content: bytes) -> bytes:
    """The frame that asks for a photo."""
    corners = _NO_BOX if box is None else (box.x, box.y, box.width, box.height)
    return QUESTION.pack(kind, size, *corners, len(content)) + content


def receive(pipe: socket.socket, into: Buffer, *, deadline: float | None = None) -> None:
    """Fills a buffer with what comes.

    Args:
        pipe: Where it comes from.
        into: As large as what is expected.
        deadline: In terms of `time.monotonic`; None waits for ever.

    Raises:
        TimeoutError: It has not all come by then.
        EOFError: The other side is gone.
    """
    view = memoryview(into).cast("B")
    while view:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            pipe.settimeout(left)
        count = pipe.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]


def widen(pipe: socket.socket) -> None:
    """Lets more of a photo cross in one go."""
    for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        pipe.setsockopt(socket.SOL_SOCKET, buffer, _SOCKET_BYTES)


def main() -> None:
    """Answers until the other side is gone. Arguments: the socket's number, the memory in MB, the seconds a photo."""
    # Whoever stops the service, with Ctrl-C or as a group, stops it alone: requests under way still need this process.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    handle, memory_mb, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    with socket.socket(fileno=handle) as pipe:
        try:
            _limit(memory_mb)
            _rehearse()
        except Exception as error:
            _answer(pipe, BROKEN, f"{type(error).__name__}: {error}".encode())
            return
        _answer(pipe, DONE, b"")
        # A parent that is gone, in the middle of a frame or between two.
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                _serve(pipe, seconds)


def _serve(pipe: socket.socket, seconds: float) -> None:
    """Answers one question."""
    head = bytearray(QUESTION.size)
    receive(pipe, head)
    kind, size, *corners, length = QUESTION.unpack(head)
    content = bytearray(length)
    receive(pipe, content)
    _allow(seconds)
    status, body = _decode(kind, size, None if math.isnan(corners[0]) else Box(*corners), bytes(content))
    _answer(pipe, status, body)


def _decode(kind: int, size: int, box: Box | None, content: bytes) -> tuple[int, Buffer]:
    """The status, and the pixels, view, JPEG or sentence."""
    try:
        if kind == PIXELS:
            return DONE, read_pixels(content, size, box=box).data
        if kind == VIEW:
            view = read_view(content, size)
            return DONE, SHAPE.pack(*view.shape[:2]) + view.tobytes()
        return DONE, encode_jpeg(content, size, box=box)
    except ImageError as error:
        return REFUSED, error.reason.encode()
    except MemoryError:
        return OUT_OF_MEMORY, b""
    except Exception as error:  # What data.images does not foresee costs this process, and is told in the log.
        return BROKEN, f"{type(error).__name__}: {error}".encode()


def _answer(pipe: socket.socket, status: int, body: Buffer) -> None:
    view = memoryview(body).cast("B")
    if status != DONE:
        view = view[:MAX_SENTENCE]
    pipe.sendall(ANSWER.pack(status, len(view)))
    pipe.sendall(view)


def _rehearse() -> None:
    """Decodes a photo of each kind, so that the first request waits for no import, and too little memory shows now."""
    for kind in ("JPEG", "PNG", "WEBP"):
        file = io.BytesIO()
        Image.new("RGB", (512, 512)).save(file, kind)
        read_pixels(file.getvalue(), 224)
        encode_jpeg(file.getvalue(), 224)


try:
    import resource
except ModuleNotFoundError:  # Windows has no such limits.

    def _limit(memory_mb: int) -> None: ...

    def _allow(seconds: float) -> None: ...

else:

    def _limit(memory_mb: int) -> None:
        """Takes from this process what decoding does not need."""
        _lower(resource.RLIMIT_AS, memory_mb * 2**20)
        _lower(resource.RLIMIT_FSIZE, 0)
        _lower(resource.RLIMIT_CORE, 0)
        if sys.platform == "linux":
            import ctypes

            # It fails on kernels before 3.5 alone.
            ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)

    def _lower(limit: int, amount: int) -> None:
        hard = resource.getrlimit(limit)[1]
        amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        resource.setrlimit(limit, (amount, amount))

    def _allow(seconds: float) -> None:
        """Gives this process so much processor time from now on; the kernel ends it after that."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        # A second more than the parent waits, who says more of it.
        wanted = math.ceil(used.ru_utime + used.ru_stime + seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
