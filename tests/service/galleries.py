"""Galleries of made-up embeddings whose labels can be learned, and photos that an encoder knows by their number."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.catalog import CatalogItem
from heads.fitted import FittedHead
from heads.fitting import FitOptions
from indexer.gallery import Gallery
from indexer.store import Store
from service.head_fitting import Refit, fit_gallery
from service.head_store import load_head
from tests.heads.worlds import clusters
from tests.indexer.fakes import FakeEncoder, card_of, make_store

# Of class numbers 0, 1 and 2; `NA` is a label as any other.
NAMES = ("NA", "dress", "skirt")


def make_gallery(
    folder: Path,
    embeddings: NDArray[np.float32],
    labels: Sequence[str | tuple[str, ...] | None],
    *,
    target: str = "type",
    **fields: Callable[[int], Any],
) -> Gallery:
    """A gallery of items i00000, i00001, ... with photos, labels of one target, and further fields by number."""
    items = [
        CatalogItem(
            f"i{number:05}",
            photo(number),
            labels={target: (names,) if isinstance(names, str) else names} if names else {},
            **{name: of(number) for name, of in fields.items()},
        )
        for number, names in enumerate(labels)
    ]
    return reopen(make_store(folder, embeddings, items).folder)


def make_typed(folder: Path, count: int = 60, *, spread: float = 0.15, seed: int = 0, **fields: Any) -> Gallery:
    """A gallery of three types that can be told apart, as often each."""
    embeddings, numbers = clusters(count, labels=3, spread=spread, seed=seed)
    return make_gallery(folder, embeddings, [NAMES[number] for number in numbers], **fields)


def reopen(folder: Path | Gallery) -> Gallery:
    """The gallery as it is now."""
    place = folder.folder if isinstance(folder, Gallery) else folder
    return Gallery(place, Store(place, freshness_s=0))


def fit(gallery: Gallery, *kinds: str, targets: Sequence[str] = ("type",), **options: Any) -> dict[str, Refit]:
    """Fits and stores heads; of the last target by kind."""
    fits = fit_gallery(gallery, targets, FitOptions(kinds=kinds or ("knn", "linear"), **options))
    return {one.card.kind: one for one in list(fits)[-1]}


def load(gallery: Gallery, kind: str, target: str = "type") -> FittedHead:
    """A stored head."""
    return load_head(gallery.folder, target, kind, gallery.card)


def photo(number: int) -> bytes:
    """A photo that says its number, 0..65535, in its colour."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (number % 256, number // 256, 77)).save(file, "PNG")
    return file.getvalue()


def encoder_of(embeddings: NDArray[np.float32], **options: Any) -> FakeEncoder:
    """The encoder that gives photo number n the embedding n."""

    def embed(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        red, green, blue = (int(value) for value in pixels[16, 16])
        assert blue == 77
        return embeddings[red + 256 * green]

    return FakeEncoder(card_of(embeddings.shape[1]), embed=embed, **options)
