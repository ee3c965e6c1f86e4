"""Encoding a batch on several cores: the same embeddings in the same order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.encoding import encode_across
from tests.indexer.fakes import CARD


class Sums:
    """An encoder of one number: the sum of a photo's values.

    Args:
        runtime: What it says it runs on.
        on_encode: Called with the size of each batch.
    """

    workers = 3
    batches = False

    def __init__(self, runtime: str = "openvino", on_encode: Callable[[int], object] = int) -> None:
        self.card = replace(CARD, runtime=runtime)
        self._on_encode = on_encode

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self._on_encode(len(pixels))
        return sums(pixels)


def sums(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return pixels.sum(axis=(1, 2, 3), dtype=np.float32)[:, None]


def photos_of(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)


@pytest.mark.parametrize("count", [1, 4, 5, 16, 23])
@pytest.mark.parametrize("cores", [1, 2, 3])
def test_a_batch_comes_back_whole_and_in_order(count: int, cores: int) -> None:
    photos = photos_of(count)
    with encode_across(Sums(), cores) as encode:
        for _ in range(2):
            np.testing.assert_array_equal(encode(photos), sums(photos))


def test_cores_work_side_by_side() -> None:
    # Each of two threads waits for the other; one thread alone would wait until the barrier breaks.
    barrier, sizes = threading.Barrier(2, timeout=10), []
    with encode_across(Sums(on_encode=lambda size: (sizes.append(size), barrier.wait())), 2) as encode:
        encode(photos_of(16))
    # OpenVINO infers two photos together; parts of an odd size would make other pairs.
    assert sizes == [4, 4, 4, 4]


@pytest.mark.parametrize(("runtime", "cores"), [("torch", 2), ("openvino", 1)])
def test_what_needs_no_threads_has_none(runtime: str, cores: int) -> None:
    asked = []
    encoder = Sums(runtime, lambda size: asked.append((size, threading.current_thread())))
    with encode_across(encoder, cores) as encode:
        encode(photos_of(16))
    assert asked == [(16, threading.main_thread())]


def test_no_thread_stays_and_an_error_comes_through() -> None:
    before = threading.active_count()

    def fail(_: int) -> None:
        raise RuntimeError("the weights are damaged")

    with pytest.raises(RuntimeError, match="damaged"), encode_across(Sums(on_encode=fail), 2) as encode:
        encode(photos_of(16))
    assert threading.active_count() == before
