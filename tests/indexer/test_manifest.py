"""The manifest: what an item is to the gallery, told without reading its photo."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from data.catalog import Box, CatalogItem
from indexer.manifest import Fingerprint, Manifest, Status
from indexer.rows import Row
from indexer.store import Store
from tests.indexer.fakes import card_of, unit_vectors

VECTOR = unit_vectors(1, 4)[0]


def stored(store: Store, items: list[CatalogItem]) -> None:
    prints = [Fingerprint.of(item) for item in items]
    store.upsert(
        [Row(one, "hash", fp.file_size, fp.file_mtime_ns, VECTOR) for one, fp in zip(items, prints, strict=True)]
    )


@pytest.fixture
def photos(tmp_path: Path) -> list[CatalogItem]:
    """Five items with a file each."""
    items = [CatalogItem(f"{number}", tmp_path / f"{number}.jpg", "p") for number in range(5)]
    for number, one in enumerate(items):
        assert isinstance(one.image, Path)
        one.image.write_bytes(b"x" * (number + 1))
        # Old files: those of this moment are read again.
        os.utime(one.image, (10**9, 10**9))
    return items


@pytest.fixture
def store(tmp_path: Path, photos: list[CatalogItem]) -> Store:
    """A gallery of the first three, written in another order than the catalog's."""
    store = Store.create(tmp_path / "gallery", card_of(4), freshness_s=0)
    stored(store, [photos[2], photos[0], photos[1]])
    return store


def meet(manifest: Manifest, *items: CatalogItem) -> list[tuple[Status, int]]:
    return manifest.meet([Fingerprint.of(item) for item in items])


def test_known_new_and_repeated(store: Store, photos: list[CatalogItem]) -> None:
    manifest = Manifest(store.snapshot())
    same, new, again = Status.UNCHANGED, Status.NEW, Status.REPEATED
    assert meet(manifest, *photos[:4]) == [(same, 1), (same, 2), (same, 0), (new, -1)]
    # In a later block and in the same one.
    assert meet(manifest, photos[3], photos[4], photos[4], photos[0]) == [
        (again, -1),
        (new, -1),
        (again, -1),
        (again, 1),
    ]
    # Each run begins anew.
    assert meet(Manifest(store.snapshot()), photos[3], photos[0]) == [(new, -1), (same, 1)]


def test_whatever_differs_makes_a_suspect(store: Store, photos: list[CatalogItem]) -> None:
    first = photos[0]
    for change in (
        {"product_id": "q"},
        {"labels": {"a": ("b",)}},
        {"box": Box(0, 0, 1, 1)},
        {"split": "test"},
        {"image": photos[1].image},
        {"image": Path("/nowhere.jpg")},
        {"image": b"x"},
    ):
        assert meet(Manifest(store.snapshot()), replace(first, **change)) == [(Status.SUSPECT, 1)]  # type: ignore[arg-type]
    assert meet(Manifest(store.snapshot()), replace(first, source_row=99)) == [(Status.UNCHANGED, 1)]


def test_another_size_or_time_makes_a_suspect(store: Store, photos: list[CatalogItem]) -> None:
    path = photos[0].image
    assert isinstance(path, Path)
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert meet(Manifest(store.snapshot()), photos[0]) == [(Status.SUSPECT, 1)]
    path.write_bytes(b"xx")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert meet(Manifest(store.snapshot()), photos[0]) == [(Status.SUSPECT, 1)]
    path.write_bytes(b"y")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert meet(Manifest(store.snapshot()), photos[0]) == [(Status.UNCHANGED, 1)]


def test_a_photo_without_a_file_is_always_read(store: Store) -> None:
    one = CatalogItem("bytes", b"a photo")
    stored(store, [one])
    assert Fingerprint.of(one).file_size == 7
    assert meet(Manifest(store.snapshot()), one) == [(Status.SUSPECT, 3)]


def test_a_photo_that_is_gone_is_a_suspect(store: Store, photos: list[CatalogItem]) -> None:
    assert isinstance(photos[0].image, Path)
    photos[0].image.unlink()
    fingerprint = Fingerprint.of(photos[0])
    assert (fingerprint.file_size, fingerprint.file_mtime_ns) == (-1, 0)
    assert meet(Manifest(store.snapshot()), photos[0]) == [(Status.SUSPECT, 1)]
    # A path that no system call takes.
    assert Fingerprint.of(CatalogItem("1", Path("a\0b.jpg"))).file_size == -1


def test_many_commits_and_a_deletion(store: Store, photos: list[CatalogItem]) -> None:
    """Row numbers are those of the snapshot, whatever was replaced and deleted on the way."""
    stored(store, photos[3:])
    stored(store, [photos[2]])
    store.delete(["1"])
    snapshot = store.snapshot()
    names = snapshot.columns("item_id").column(0).to_pylist()
    for one, (status, row) in zip(photos, meet(Manifest(snapshot), *photos), strict=True):
        if one.item_id == "1":
            assert (status, row) == (Status.NEW, -1)
        else:
            assert (status, names[row]) == (Status.UNCHANGED, one.item_id)


def test_an_empty_gallery_knows_nothing(tmp_path: Path, photos: list[CatalogItem]) -> None:
    manifest = Manifest(Store.create(tmp_path / "empty", card_of(4), freshness_s=0).snapshot())
    assert meet(manifest, *photos[:2], photos[0]) == [(Status.NEW, -1), (Status.NEW, -1), (Status.REPEATED, -1)]
    assert meet(manifest) == []
