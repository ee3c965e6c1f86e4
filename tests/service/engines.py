"""Engines over galleries of made-up embeddings, whose answers a plain calculation knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.encoders import Encoder, EncoderCard
from service.engine import Engine
from service.lanes import Ticket
from service.settings import Settings
from tests.indexer.fakes import unit_vectors
from tests.service.galleries import encoder_of

DIMENSION = 16
# What photo number n is encoded as.
WORLD = unit_vectors(4000, DIMENSION, seed=5)


def settings_of(folder: Path, **changes: Any) -> Settings:
    """Settings that no environment changes, with little patience."""
    return Settings(**{"gallery": folder, "rate_limit": None, "freshness_s": 0.2, **changes})


def load(_: EncoderCard) -> Encoder:
    """The encoder of `WORLD`."""
    return encoder_of(WORLD)


@contextmanager
def engine_over(folder: Path, loader: Any = load, **changes: Any) -> Iterator[Engine]:
    """An engine over a gallery that is there."""
    with Engine(settings_of(folder, **changes), loader) as engine:
        yield engine


def ticket(seconds: float = 10) -> Ticket:
    """Of somebody who waits so long."""
    return Ticket(seconds)


def nearest(query: NDArray[np.float32], numbers: list[int], k: int) -> list[int]:
    """The k photo numbers nearest to a query, closest first, by a plain calculation."""
    distances = 1 - WORLD[numbers] @ query
    return [numbers[place] for place in np.argsort(distances, kind="stable")[:k]]
