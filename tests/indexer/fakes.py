"""An encoder whose answers are known exactly, and galleries of given embeddings, for the tests of everything above."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.catalog import BadRow, Catalog, CatalogItem
from indexer.encoders import EncoderCard, EncoderError, LazyEncoder
from indexer.failures import Failure, FailureList
from indexer.rows import Row, key_of
from indexer.store import Store

BINS = 8
CARD = EncoderCard(
    name="fake-histogram",
    weights_sha256="0" * 64,
    runtime="torch",
    precision="fp32",
    pooling="mean",
    dimension=3 * BINS,
    image_size=32,
)


class FakeEncoder:
    """A colour histogram of the letterboxed photo, which counts what is asked of it.

    Args:
        card: What it says it is; `image_size` and 24 numbers are what it does.
        workers: Threads that encode side by side.
        on_encode: Called in each worker before it encodes.
        embed: What it does instead of a histogram, for a card of another dimension.
    """

    def __init__(
        self,
        card: EncoderCard = CARD,
        *,
        workers: int = 2,
        on_encode: Callable[[int], None] | None = None,
        embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None = None,
    ) -> None:
        self.card = card
        self._embed = embed or histogram
        self.workers = workers
        self.batches = False
        self.loads = 0
        self.encoded = 0
        self.alive = 0
        self.most_alive = 0
        self._on_encode = on_encode
        self._lock = threading.Lock()

    @property
    def lazy(self) -> LazyEncoder:
        """The encoder before it is loaded; `loads` counts how often that happens."""
        return LazyEncoder(self.card, self._load)

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The embeddings, (B, 24) float32 of unit length, of (B, S, S, 3) photos."""
        assert pixels.shape[1:] == (self.card.image_size, self.card.image_size, 3)
        assert pixels.dtype == np.uint8
        with self._lock:
            self.encoded += len(pixels)
            self.alive += len(pixels)
            self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(pixels, self._forget, len(pixels))
        if self._on_encode is not None:
            self._on_encode(len(pixels))
        return np.stack([self._embed(photo) for photo in pixels])

    def _load(self) -> FakeEncoder:
        self.loads += 1
        return self

    def _forget(self, count: int) -> None:
        with self._lock:
            self.alive -= count


def histogram(photo: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How often each eighth of each channel's range occurs in (S, S, 3) uint8, (24,) float32 of unit length."""
    counts = [np.bincount(photo[..., channel].ravel() // (256 // BINS), minlength=BINS) for channel in range(3)]
    flat = np.concatenate(counts).astype(np.float64)
    return (flat / np.linalg.norm(flat)).astype(np.float32)


def noise(photo: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A direction, (16,) float32, that only the same (S, S, 3) uint8 photo has again; near ones are by chance."""
    return unit_vectors(1, 16, seed=key_of(photo.tobytes()) % 2**32)[0]


def noise_encoder(**options: Any) -> FakeEncoder:
    """An encoder whose neighbours are no better than chance."""
    return FakeEncoder(card_of(16, name="fake-noise", weights_sha256="1" * 64), embed=noise, **options)


class BrokenEncoder(FakeEncoder):
    """One that fails at the given photo, counted from 1."""

    def __init__(self, fails_at: int) -> None:
        super().__init__(workers=1)
        self._fails_at = fails_at

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.encoded + len(pixels) >= self._fails_at:
            raise EncoderError("the fake encoder fails on purpose")
        return super().encode(pixels)


def card_of(dimension: int, **changes: Any) -> EncoderCard:
    """The fake card with another dimension."""
    return replace(CARD, dimension=dimension, **changes)


def unit_vectors(count: int, dimension: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Random directions, (count, dimension) float32 of unit length."""
    return unit(np.random.default_rng(seed).normal(size=(count, dimension)))


def unit(vectors: Any) -> NDArray[np.float32]:
    """The vectors, (N, D), as float32 of unit length."""
    array = np.asarray(vectors, np.float64)
    return (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(np.float32)


def rows_of(
    embeddings: NDArray[np.float32], items: Sequence[CatalogItem] | None = None, *, first: int = 0
) -> list[Row]:
    """Store rows of embeddings; items `i00000`, `i00001`, ... where none are given."""
    items = items or [item(number) for number in range(first, first + len(embeddings))]
    return [Row(one, f"hash of {one.item_id}", 100, 1, vector) for one, vector in zip(items, embeddings, strict=True)]


def item(number: int, **fields: Any) -> CatalogItem:
    """The item `i00007`, with a photo that is not there."""
    return CatalogItem(f"i{number:05}", Path(f"/photos/{number:05}.jpg"), **fields)


def make_store(
    folder: Path, embeddings: NDArray[np.float32], items: Sequence[CatalogItem] | None = None, *, commit: int = 500
) -> Store:
    """A gallery of the embeddings, written in commits of so many rows."""
    store = Store.create(folder, card_of(embeddings.shape[1]), freshness_s=0)
    rows = rows_of(embeddings, items)
    for start in range(0, len(rows), commit):
        store.upsert(rows[start : start + commit])
    return store


def write_failures(folder: Path, failures: Iterable[Failure]) -> None:
    """Makes these a gallery's list of failures."""
    listed = FailureList(folder)
    for failure in failures:
        listed.add(failure)
    listed.close(keep=True)


def catalog_of(rows: Sequence[CatalogItem | BadRow], root: Path = Path("catalog")) -> Catalog:
    """A catalog of rows that are at hand."""
    return Catalog(root, "fake", lambda: iter(rows), lambda: len(rows))


def draw_photo(path: Path, seed: int, *, width: int = 24, height: int = 40) -> Path:
    """A small photo of coloured noise, so that each seed has its own histogram, in the format of the suffix.

    It is an old file: one of this moment would be read again by the next run.
    """
    rng = np.random.default_rng(seed)
    tint = rng.integers(0, 200, 3)
    pixels = (tint + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    os.utime(path, (10**9 + seed, 10**9 + seed))
    return path
