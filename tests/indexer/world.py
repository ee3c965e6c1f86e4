"""A catalog of drawn photos and the gallery it goes into, for the tests of what writes to galleries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data.catalog import BadRow, Box, CatalogItem
from data.images import read_pixels
from indexer.failures import Failure, read_failures
from indexer.pipeline import RunOptions, Summary, refresh
from indexer.rows import item_of
from indexer.searcher import Searcher
from indexer.snapshot import Snapshot
from indexer.store import Store
from tests.indexer.fakes import CARD, FakeEncoder, catalog_of, draw_photo, histogram


@dataclass
class World:
    """A catalog of drawn photos, the gallery it goes into, and the encoder that does it."""

    folder: Path
    rows: list[CatalogItem | BadRow]
    encoder: FakeEncoder

    @property
    def gallery(self) -> Path:
        return self.folder / "gallery"

    @property
    def items(self) -> list[CatalogItem]:
        return [row for row in self.rows if isinstance(row, CatalogItem)]

    def run(self, **options: object) -> Summary:
        return refresh(catalog_of(self.rows), self.gallery, self.encoder.lazy, RunOptions(**options))  # type: ignore[arg-type]

    def snapshot(self) -> Snapshot:
        return Store(self.gallery, freshness_s=0).snapshot()

    def failures(self) -> list[Failure]:
        return read_failures(self.gallery)

    def change(self, number: int, **fields: object) -> None:
        self.rows[number] = replace(self.items[number], **fields)  # type: ignore[arg-type]


def counts(summary: Summary) -> dict[str, int]:
    """The counts that are not zero."""
    names = ("added", "changed", "relabelled", "unchanged", "failed")
    assert summary.read == sum(getattr(summary, name) for name in names)
    return {name: getattr(summary, name) for name in names if getattr(summary, name)}


def path_of(item: CatalogItem) -> Path:
    assert isinstance(item.image, Path)
    return item.image


def check_gallery(world: World, items: list[CatalogItem] | None = None) -> None:
    """The gallery holds these items, each with the embedding of its photo as it is now."""
    items = world.items if items is None else items
    snapshot = world.snapshot()
    names = ["item_id", "product_id", "image", "image_bytes", "targets", "labels", "box", "split"]
    stored = {row["item_id"]: item_of(row) for row in snapshot.columns(*names).to_pylist()}
    assert len(stored) == len(snapshot)
    assert stored == {item.item_id: replace(item, source_row=None) for item in items}
    order = snapshot.columns("item_id").column(0).to_pylist()
    vectors = dict(zip(order, snapshot.embeddings(), strict=True))
    for item in items:
        expected = histogram(read_pixels(item.image, CARD.image_size, box=item.box))
        np.testing.assert_array_equal(vectors[item.item_id], expected, err_msg=item.item_id)
        found, _ = Searcher(snapshot).search(expected[None], 1)
        assert order[found[0, 0]] == item.item_id


def make_world(folder: Path, count: int = 6) -> World:
    photos = folder / "photos"
    rows: list[CatalogItem | BadRow] = [
        CatalogItem(
            f"i{number}",
            draw_photo(photos / f"{number}{(('.png', '.jpg', '.webp')[number % 3])}", number),
            f"p{number // 2}",
            {"colour": ("red",)} if number % 2 else {},
            Box(0, 0.25, 1, 0.5) if number == 2 else None,
            source_row=number + 2,
        )
        for number in range(count)
    ]
    return World(folder, rows, FakeEncoder())
