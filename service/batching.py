"""The micro-batcher: where a device is faster with many photos at once, those of one moment are encoded together."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.encoders import Encoder, EncoderCard


class BatchingEncoder:
    """An encoder that gathers what several threads ask of it.

    Args:
        encoder: What it asks.
        largest: Photos that are encoded together, at most.
        wait_s: Seconds that the first of them waits for others.
    """

    def __init__(self, encoder: Encoder, *, largest: int = 32, wait_s: float = 0.005) -> None:
        self._encoder, self._largest, self._wait_s = encoder, largest, wait_s
        self._closing = threading.Lock()
        self._closed = False
        self._asked: queue.Queue[tuple[NDArray[np.uint8], Future[NDArray[np.float32]]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="batch", daemon=True)
        self._thread.start()

    @property
    def card(self) -> EncoderCard:
        """What the encoder is."""
        return self._encoder.card

    @property
    def workers(self) -> int:
        """Threads that fill a batch."""
        return self._largest

    @property
    def batches(self) -> bool:
        """No longer: it does so itself."""
        return False

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The embeddings, (B, D) float32 of unit length, of (B, S, S, 3) uint8 letterboxed photos."""
        future: Future[NDArray[np.float32]] = Future()
        with self._closing:
            is_closed = self._closed
            if not is_closed:
                self._asked.put((pixels, future))
        # Who still holds the encoder of the state before is answered too.
        return self._encoder.encode(pixels) if is_closed else future.result()

    def close(self) -> None:
        """Ends the thread after what was asked."""
        with self._closing:
            self._closed = True
            self._asked.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._asked.get()) is not None:
            gathered, is_last = self._gather(first)
            try:
                embeddings = self._encoder.encode(np.concatenate([pixels for pixels, _ in gathered]))
            except Exception as error:
                for _, future in gathered:
                    future.set_exception(error)
            else:
                ends = np.cumsum([len(pixels) for pixels, _ in gathered])
                for part, (_, future) in zip(np.split(embeddings, ends[:-1]), gathered, strict=True):
                    future.set_result(part)
            if is_last:
                return

    def _gather(
        self, first: tuple[NDArray[np.uint8], Future[NDArray[np.float32]]]
    ) -> tuple[list[tuple[NDArray[np.uint8], Future[NDArray[np.float32]]]], bool]:
        """What is asked within the time, the first included, and whether nothing will be asked after it."""
        gathered, count = [first], len(first[0])
        until = time.monotonic() + self._wait_s
        while count < self._largest:
            try:
                following = self._asked.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if following is None:
                return gathered, True
            gathered.append(following)
            count += len(following[0])
        return gathered, False
