"""Drawn photos whose label hangs on one mark at a place that is known, and a gallery of them by a real encoder."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from data.catalog import CatalogItem
from data.images import read_pixels, read_view
from indexer.encoders import Encoder
from indexer.gallery import Gallery
from indexer.store import Store
from service.saliency import Subject
from tests.indexer.fakes import rows_of

SIDE = 224
MARK = 72
# A photo without the mark has the third.
LABELS = ("disc", "stripes", "none")


@dataclass(frozen=True, slots=True)
class Planted:
    """A photo, its label, and the corner of the mark that it hangs on."""

    photo: bytes
    label: str
    left: int
    top: int

    def holds(self, values: NDArray[np.float32], *, slack: int = 0) -> bool:
        """Whether a map's (S, S) peak lies on the mark, or so many pixels beside it."""
        row, column = np.unravel_index(int(values.argmax()), values.shape)
        return bool(
            self.left - slack <= column < self.left + MARK + slack and self.top - slack <= row < self.top + MARK + slack
        )


def plant(seed: int, label: str | None = None) -> Planted:
    """A photo of a red disc, of red stripes or of neither on grey, with pale bars that say nothing."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (SIDE, SIDE), (205, 205, 200))
    pen = ImageDraw.Draw(image)
    for _ in range(4):
        left, top = random.integers(SIDE, size=2).tolist()
        pen.rectangle((left, top, left + 40, top + 12), tuple(random.integers(150, 230, size=3).tolist()))
    left, top = random.integers(SIDE - MARK + 1, size=2).tolist()
    label = label or LABELS[seed % 3]
    if label != "none":
        pen.rectangle((left, top, left + MARK - 1, top + MARK - 1), (240, 240, 240))
    if label == "disc":
        pen.ellipse((left + 6, top + 6, left + MARK - 7, top + MARK - 7), (200, 20, 30))
    if label == "stripes":
        for start in range(0, MARK, 18):
            pen.rectangle((left, top + start, left + MARK - 1, top + start + 8), (200, 20, 30))
    file = io.BytesIO()
    image.save(file, "PNG")
    return Planted(file.getvalue(), label, left, top)


def subject_of(planted: Planted) -> Subject:
    """The photo as an encoder and as people see it."""
    return Subject(read_pixels(planted.photo, SIDE), read_view(planted.photo, SIDE))


def make_planted_gallery(folder: Path, encoder: Encoder, count: int = 120) -> Gallery:
    """A gallery of photos 0, 1, ... with the target `mark`."""
    photos = [plant(seed) for seed in range(count)]
    embeddings = encoder.encode(np.stack([subject_of(one).pixels for one in photos]))
    items = [
        CatalogItem(f"i{number:05}", one.photo, labels={"mark": (one.label,)}) for number, one in enumerate(photos)
    ]
    store = Store.create(folder, encoder.card, freshness_s=0)
    store.upsert(rows_of(embeddings, items))
    return Gallery(folder, store)
