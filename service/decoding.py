"""A fixed number of child processes that turn untrusted bytes into pixels, replaced when they die or are old."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from data.catalog import Box
from data.images import ImageError, read_bytes
from service.decoder import JPEG, PIXELS, SHAPE, VIEW
from service.decoder_process import DecoderProcess
from service.lanes import OverloadedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

# In a row; then something is wrong that another start does not mend.
_MAX_FAILED_STARTS = 3
# Seconds after which it is tried again all the same: what was wrong may have been a full machine.
_RETRY_S = 10.0


class DecodersError(RuntimeError):
    """No photo can be decoded: the processes for it do not start, or were closed."""

    # After which another start is tried.
    retry_after_s = 10.0


class Decoders:
    """Child processes that decode photos, to be asked from any number of threads.

    Args:
        count: Processes, 1 or more. They start at once, side by side; the first request, or `wait_ready`, awaits them.
        seconds: How long a photo may take, and how long a request waits for a process.
        memory_mb: Address space of a process; not limited on Windows.
        photos: Photos after which a process is replaced by a fresh one.
    """

    def __init__(self, count: int, *, seconds: float = 5.0, memory_mb: int = 1024, photos: int = 5000) -> None:
        if min(count, memory_mb, photos) < 1 or seconds <= 0:
            raise ValueError(
                "Decoders need one process, some seconds, one MB and one photo at least; "
                f"got {count} processes, {seconds:g} s, {memory_mb} MB and {photos} photos."
            )
        self._count = count
        self._seconds = seconds
        self._memory_mb = memory_mb
        self._photos = photos
        # Those that nobody has; None once they are closed.
        self._idle: queue.SimpleQueue[DecoderProcess | None] = queue.SimpleQueue()
        # All that are there, and the successors of those that are about to be retired.
        self._processes: set[DecoderProcess] = set()
        self._successors: dict[DecoderProcess, DecoderProcess] = {}
        self._changed = threading.Condition()
        self._readying = threading.Lock()
        self._closed = False
        self._deaths = 0
        self._restarts = 0
        self._failed_starts = 0
        self._failure = ""
        self._retry_at = 0.0
        try:
            for _ in range(count):
                self._idle.put(self._start())
        except BaseException:
            self.close()
            raise

    @property
    def deaths(self) -> int:
        """Processes that ended before they were retired: died, did not start, or took too much time or memory."""
        return self._deaths

    @property
    def restarts(self) -> int:
        """Processes that took the place of others, retired ones too."""
        return self._restarts

    @property
    def process_ids(self) -> list[int]:
        """The numbers of the processes that there are."""
        with self._changed:
            return [decoder.process.pid for decoder in self._processes]

    def pixels(self, content: bytes, size: int, box: Box | None = None) -> NDArray[np.uint8]:
        """What an encoder sees of an untrusted photo: `data.images.read_pixels`, in a child process.

        Args:
            content: The photo's bytes.
            size: Side of the square in pixels, 1 or more.
            box: Region of the EXIF-turned photo; None for all of it.

        Returns:
            (size, size, 3) uint8, RGB.

        Raises:
            ImageError: The photo is not taken in, or decoding it takes too much time or memory.
            OverloadedError: No process was free for as long as a photo may take.
            DecodersError: No process can be started, or they are closed.
        """
        return np.frombuffer(self._ask(PIXELS, content, size, box), np.uint8).reshape(size, size, 3)

    def jpeg(self, content: bytes, size: int, box: Box | None = None) -> bytes:
        """An untrusted photo as a small JPEG without metadata: `data.images.encode_jpeg`, in a child process.

        Args:
            content: The photo's bytes.
            size: The longer side in pixels, at most; a smaller photo is not blown up.
            box: Region of the EXIF-turned photo; None for all of it.

        Raises:
            ImageError, OverloadedError, DecodersError: As `pixels`.
        """
        return bytes(self._ask(JPEG, content, size, box))

    def view(self, content: bytes, size: int) -> NDArray[np.uint8]:
        """An untrusted photo as people are shown it: `data.images.read_view`, in a child process.

        Args:
            content: The photo's bytes.
            size: The longer side in pixels, at most; a smaller photo is not blown up.

        Returns:
            (H, W, 3) uint8, RGB, upright.

        Raises:
            ImageError, OverloadedError, DecodersError: As `pixels`.
        """
        body = self._ask(VIEW, content, size, None)
        # (8 + H * W * 3,) -> (H, W, 3)
        return np.frombuffer(body, np.uint8, offset=SHAPE.size).reshape(*SHAPE.unpack_from(body), 3)

    def wait_ready(self, seconds: float = 60.0) -> None:
        """Returns when every process has started.

        Args:
            seconds: How long each is waited for.

        Raises:
            OverloadedError: One has not started, or is busy, for so long.
            DecodersError: They do not start, or they are closed.
        """
        taken: list[DecoderProcess] = []
        # Two that each hold a part of them would wait for each other.
        with self._readying:
            try:
                for _ in range(self._count):
                    taken.append(self._take(seconds))
            finally:
                for decoder in taken:
                    self._put(decoder)

    def close(self) -> None:
        """Ends all processes; a photo under way is given up with DecodersError."""
        with self._changed:
            self._closed = True
            for decoder in self._processes:
                decoder.process.kill()
        # Whoever waits for a process is woken by the None. Who has one buries it; the idle ones are buried here.
        self._idle.put(None)
        while (idle := self._idle.get()) is not None:
            self._bury(idle)
        self._idle.put(None)
        with self._changed:
            self._changed.wait_for(lambda: not self._processes, timeout=self._seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, kind: int, content: bytes, size: int, box: Box | None) -> bytearray:
        if size < 1:
            raise ValueError(f"A photo is decoded to one pixel or more; got {size}.")
        content = read_bytes(content)
        decoder = self._take(self._seconds)
        try:
            return decoder.ask(kind, size, box, content)
        except ImageError as error:
            if self._closed:
                raise _closed() from error
            raise
        finally:
            self._give(decoder)

    def _take(self, seconds: float) -> DecoderProcess:
        """A process that has started and that nobody else has, until `_give`; waits so long."""
        deadline = time.monotonic() + seconds
        try:
            decoder = self._idle.get(timeout=seconds)
        except queue.Empty:
            raise OverloadedError("decoding", 1.0) from None
        if decoder is None:
            self._idle.put(None)
            raise _closed()
        has_started = decoder.is_ready
        try:
            while not decoder.is_usable(deadline):
                decoder = self._replace(decoder)
                has_started = False
        except BaseException as error:
            self._put(decoder)
            if isinstance(error, TimeoutError):
                raise OverloadedError("decoding", 1.0) from None
            raise
        if not has_started:
            self._failed_starts = 0
        return decoder

    def _give(self, decoder: DecoderProcess) -> None:
        """Lets others have a process, or the one that takes its place."""
        # Where none can be started, the next request tries again.
        with contextlib.suppress(DecodersError):
            if decoder.lost:
                decoder = self._replace(decoder)
            elif decoder.photos >= self._photos:
                decoder = self._retire(decoder)
        self._put(decoder)

    def _put(self, decoder: DecoderProcess) -> None:
        with self._changed:
            if not self._closed:
                self._idle.put(decoder)
                return
        self._bury(decoder)

    def _replace(self, decoder: DecoderProcess) -> DecoderProcess:
        """Another process in the place of one that is lost."""
        successor = self._successors.get(decoder)
        if decoder in self._processes:
            self._bury(decoder)
            self._count_death(decoder)
        if successor is None:
            if self._failed_starts >= _MAX_FAILED_STARTS and time.monotonic() < self._retry_at:
                raise DecodersError(
                    f"The processes that decode photos, of {self._memory_mb} MB each, do not start; the last of "
                    f"{self._failed_starts} in a row {self._failure}."
                )
            successor = self._start()
        self._restarts += 1
        return successor

    def _retire(self, decoder: DecoderProcess) -> DecoderProcess:
        """The successor of an old process once it has started, and the old one until then: nobody waits for it."""
        successor = self._successors.get(decoder)
        if successor is None:
            if self._successors:
                # Those of one age would all be replaced at once, and each start takes a core for a third of a second.
                return decoder
            successor = self._successors[decoder] = self._start()
        if not successor.has_reported(0):
            return decoder
        self._bury(decoder)
        self._restarts += 1
        return successor

    def _start(self) -> DecoderProcess:
        with self._changed:
            if self._closed:
                raise _closed()
            try:
                decoder = DecoderProcess(self._seconds, self._memory_mb)
            except OSError as error:
                raise DecodersError(f"No process to decode photos can be started: {error.strerror}.") from error
            self._processes.add(decoder)
        return decoder

    def _bury(self, decoder: DecoderProcess) -> None:
        """Ends a process, and the successor that is of no use then."""
        decoder.end()
        successor = self._successors.pop(decoder, None)
        if successor is not None and self._closed:
            self._bury(successor)
        with self._changed:
            self._processes.discard(decoder)
            self._changed.notify_all()

    def _count_death(self, decoder: DecoderProcess) -> None:
        with self._changed:
            if self._closed:
                return
            self._deaths += 1
            if not decoder.is_ready:
                self._failed_starts += 1
                self._failure = decoder.lost
                self._retry_at = time.monotonic() + _RETRY_S
        _log.warning("Decoding process %d %s, after %d photos.", decoder.process.pid, decoder.lost, decoder.photos)


def _closed() -> DecodersError:
    return DecodersError("The processes that decode photos are closed.")
