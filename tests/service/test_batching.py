from __future__ import annotations

import threading

import numpy as np
import pytest

from service.batching import BatchingEncoder
from tests.indexer.fakes import BrokenEncoder, FakeEncoder


def photos(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)


class Slow(FakeEncoder):
    """One that waits to be let through, and notes how many photos came together."""

    def __init__(self) -> None:
        super().__init__()
        self.together: list[int] = []
        self.begun, self.opened = threading.Semaphore(0), threading.Event()

    def encode(self, pixels):
        self.together.append(len(pixels))
        self.begun.release()
        assert self.opened.wait(10)
        return super().encode(pixels)


def test_each_asker_gets_the_embeddings_of_its_own_photos():
    encoder = BatchingEncoder(FakeEncoder(), largest=8)
    answers: dict[int, np.ndarray] = {}

    def ask(seed: int) -> None:
        answers[seed] = encoder.encode(photos(1 + seed % 3, seed))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    encoder.close()
    for seed, answer in answers.items():
        assert np.array_equal(answer, FakeEncoder().encode(photos(1 + seed % 3, seed)))
    assert encoder.card == FakeEncoder().card
    assert not encoder.batches


def test_what_is_asked_meanwhile_is_encoded_together_up_to_the_largest():
    slow = Slow()
    encoder = BatchingEncoder(slow, largest=4, wait_s=0.01)
    threads = [threading.Thread(target=encoder.encode, args=(photos(1),)) for _ in range(7)]
    threads[0].start()
    assert slow.begun.acquire(timeout=10)
    for thread in threads[1:]:
        thread.start()
    while encoder._asked.qsize() < 6:
        threading.Event().wait(0.001)
    slow.opened.set()
    for thread in threads:
        thread.join()
    encoder.close()
    # The first came alone; of the six that waited four fit together.
    assert slow.together == [1, 4, 2]


def test_an_error_reaches_all_who_asked_and_the_next_are_answered():
    broken = BrokenEncoder(fails_at=1)
    encoder = BatchingEncoder(broken)
    with pytest.raises(RuntimeError, match="fails on purpose"):
        encoder.encode(photos(1))
    broken._fails_at = 100
    assert encoder.encode(photos(1)).shape == (1, 24)
    encoder.close()


def test_who_holds_it_when_it_is_closed_is_answered_all_the_same():
    encoder = BatchingEncoder(FakeEncoder())
    encoder.close()
    assert np.array_equal(encoder.encode(photos(2)), FakeEncoder().encode(photos(2)))
    assert not [thread for thread in threading.enumerate() if thread.name == "batch"]
