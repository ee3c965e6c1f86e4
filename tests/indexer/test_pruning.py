"""Pruning, and which photos a run reads: nothing goes by mistake, and no file is opened that cannot have changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from data import images
from data.catalog import BadRow, Box, Catalog, CatalogItem
from indexer import encoding, manifest
from indexer.failures import Failure
from indexer.faiss_index import FAISS_FOLDER
from indexer.pipeline import OptionError, PruneRefusedError, RunOptions, refresh
from tests.indexer.fakes import FakeEncoder, draw_photo
from tests.indexer.world import World, check_gallery, counts, make_world, path_of


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Six indexed photos, and a fresh encoder."""
    world = make_world(tmp_path)
    world.run()
    world.encoder = FakeEncoder()
    return world


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path | bytes]:
    """The photos that are read from now on."""
    photos: list[Path | bytes] = []

    def read_bytes(source: Path | bytes) -> bytes:
        photos.append(source)
        return images.read_bytes(source)

    monkeypatch.setattr(encoding, "read_bytes", read_bytes)
    return photos


def run_in(world: World, root: Path, **options: object) -> None:
    """A run over the world's catalog as one that was found at that root."""
    catalog = Catalog(root, "folder", lambda: iter(world.rows), lambda: None)
    refresh(catalog, world.gallery, world.encoder.lazy, RunOptions(**options))  # type: ignore[arg-type]


def test_what_left_the_catalog_is_counted_and_removed_when_wanted(world: World) -> None:
    everything = world.items
    del world.rows[2:4]
    summary = world.run()
    assert (summary.absent, summary.pruned, summary.items) == (2, 0, 6)
    check_gallery(world, everything)
    summary = world.run(prune=True)
    assert (summary.absent, summary.pruned, summary.items) == (0, 2, 4)
    assert summary.version == world.snapshot().version
    check_gallery(world)
    summary = world.run(prune=True)
    assert (summary.absent, summary.pruned, counts(summary)) == (0, 0, {"unchanged": 4})
    assert world.encoder.loads == 0


def test_a_photo_that_cannot_be_read_has_not_left_the_catalog(world: World) -> None:
    path_of(world.items[1]).unlink()
    path_of(world.items[4]).write_bytes(b"no photo")
    summary = world.run(prune=True)
    assert (counts(summary), summary.pruned, summary.items) == ({"unchanged": 4, "failed": 2}, 0, 6)


def test_exactly_half_may_go_and_more_may_not(world: World) -> None:
    everything, world.rows = world.rows, world.rows[:3]
    assert world.run(prune=True).pruned == 3
    world.rows = everything
    world.run()
    world.rows = everything[:2]
    message = r"4 of the gallery's 6 items are not in catalog: more than half, .* Pass --force-prune"
    with pytest.raises(PruneRefusedError, match=message):
        world.run(prune=True)
    assert len(world.snapshot()) == 6
    assert world.run(prune=True, force_prune=True).pruned == 4
    check_gallery(world)


def test_what_is_new_does_not_make_the_missing_fewer(world: World) -> None:
    """Another catalog by mistake: 6 new photos, and all 6 old ones are gone."""
    other = make_world(world.folder / "other").items
    world.rows = [replace(item, item_id=f"other {item.item_id}") for item in other]
    with pytest.raises(PruneRefusedError, match="6 of the gallery's 6 items"):
        world.run(prune=True)


def test_a_refusal_comes_when_all_else_is_done(world: World) -> None:
    kept = world.items
    world.rows = [
        replace(kept[0], labels={"colour": ("blue",)}),
        CatalogItem("new", draw_photo(world.folder / "new.png", 60)),
        BadRow(Path("x.csv"), 3, "bad"),
    ]
    with pytest.raises(PruneRefusedError):
        world.run(prune=True, variant="hnsw")
    check_gallery(world, [*world.items, *kept[1:]])
    assert world.failures() == [Failure("x.csv", "bad", None, 3)]
    assert len(list((world.gallery / FAISS_FOLDER).iterdir())) == 2


def test_a_folder_that_could_not_be_listed_removes_nothing(world: World) -> None:
    """Its photos look as if they were gone; one item is far from half."""
    root, lost = world.folder / "shop", world.folder / "shop" / "shoes"
    lost.mkdir(parents=True)
    world.rows[5] = BadRow(lost, None, "The folder cannot be listed.")
    message = rf"{lost} could not be listed, .* left {root}\. Nothing was removed; .* or pass --force-prune"
    with pytest.raises(PruneRefusedError, match=message):
        run_in(world, root, prune=True)
    assert len(world.snapshot()) == 6
    assert [failure.source for failure in world.failures()] == [str(lost)]
    run_in(world, root)
    assert len(world.snapshot()) == 6
    run_in(world, root, prune=True, force_prune=True)
    check_gallery(world)


def test_other_bad_rows_do_not_keep_from_pruning(world: World) -> None:
    root = world.folder / "shop"
    (root / "shards").mkdir(parents=True)
    (root / "list.csv").touch()
    # A row of a file or of a folder of files, a photo that is none, and a note about the whole catalog.
    rows = [BadRow(root, 3, "x"), BadRow(root / "shards", 3, "x")]
    bad = [*rows, BadRow(root / "list.csv", None, "x"), BadRow(root, None, "x")]
    world.rows[5:] = bad
    run_in(world, root, prune=True)
    check_gallery(world)


def test_a_run_that_was_stopped_removes_nothing(world: World) -> None:
    del world.rows[0]
    summary = world.run(prune=True, force_prune=True, is_stopped=lambda: True)
    assert (summary.interrupted, summary.absent, summary.pruned, summary.items) == (True, 0, 0, 6)


def test_a_part_of_a_catalog_prunes_nothing(world: World) -> None:
    with pytest.raises(OptionError, match="first rows of a catalog cannot prune"):
        RunOptions(limit=3, prune=True)
    with pytest.raises(OptionError):
        RunOptions(limit=0, prune=True, force_prune=True)
    summary = world.run(limit=3)
    assert (summary.absent, summary.items) == (0, 6)
    failures: list[Failure] = []
    del world.rows[0]
    summary = world.run(on_failure=failures.append, prune=True)
    assert (summary.absent, summary.pruned, summary.items) == (0, 0, 6)


def test_failures_go_where_they_are_wanted(world: World) -> None:
    world.rows.append(BadRow(Path("x.csv"), 3, "first"))
    world.run()
    failures: list[Failure] = []
    world.rows[-1] = BadRow(Path("x.csv"), 3, "second")
    assert world.run(on_failure=failures.append).failed == 1
    assert failures == [Failure("x.csv", "second", None, 3)]
    assert world.failures() == [Failure("x.csv", "first", None, 3)]


def test_all_may_be_removed_by_an_empty_catalog(world: World) -> None:
    world.rows = []
    with pytest.raises(PruneRefusedError, match="6 of the gallery's 6"):
        world.run(prune=True)
    summary = world.run(prune=True, force_prune=True)
    assert (summary.pruned, summary.items, summary.variant) == (6, 0, "exact")
    assert world.run(prune=True).pruned == 0


def swap_unseen(path: Path, seed: int) -> None:
    """Another photo in a file, of the same size, at the same time."""
    times, size = path.stat(), path.stat().st_size
    content = draw_photo(path, seed).read_bytes()
    assert len(content) <= size
    path.write_bytes(content.ljust(size, b"\0"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_what_neither_size_nor_time_tells_is_found_by_rehashing(world: World, opened: list[Path | bytes]) -> None:
    path = path_of(world.items[0])
    path.write_bytes(path.read_bytes() + bytes(500))
    os.utime(path, (10**9, 10**9))
    world.run()
    opened.clear()
    swap_unseen(path, 91)
    assert counts(world.run()) == {"unchanged": 6}
    assert opened == []
    before = world.encoder.encoded
    assert counts(world.run(rehash=True)) == {"changed": 1, "unchanged": 5}
    assert world.encoder.encoded == before + 1
    assert set(opened) == {path_of(item) for item in world.items}
    check_gallery(world)


def test_a_file_of_this_moment_is_read_again_until_it_has_settled(
    world: World, opened: list[Path | bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, now = path_of(world.items[0]), time.time_ns()
    monkeypatch.setattr(manifest.time, "time_ns", lambda: now)
    path.write_bytes(draw_photo(path, 92).read_bytes() + bytes(500))
    os.utime(path, ns=(now, now))
    summary = world.run()
    assert (counts(summary), summary.unsettled) == ({"changed": 1, "unchanged": 5}, 1)
    # Written again within the tick of the file system's clock: size and time are the same.
    swap_unseen(path, 93)
    summary = world.run()
    assert (counts(summary), summary.unsettled) == ({"changed": 1, "unchanged": 5}, 1)
    check_gallery(world)
    version = world.snapshot().version
    for later, is_settled in ((manifest.TICK_NS, False), (manifest.TICK_NS + 1, True)):
        monkeypatch.setattr(manifest.time, "time_ns", lambda later=later: now + later)
        opened.clear()
        summary = world.run()
        assert (counts(summary), summary.unsettled) == ({"unchanged": 6}, 0 if is_settled else 1)
        assert opened == [path]
        # Its time is noted once it says something, which is a commit.
        assert (world.snapshot().version > version) == is_settled
    opened.clear()
    assert (counts(world.run()), opened) == ({"unchanged": 6}, [])


def test_a_time_to_come_tells_nothing(world: World, opened: list[Path | bytes]) -> None:
    path = path_of(world.items[0])
    os.utime(path, (2**32, 2**32))
    for _ in range(2):
        opened.clear()
        summary = world.run()
        assert (counts(summary), summary.unsettled, opened) == ({"unchanged": 6}, 1, [path])


def relabel(world: World, number: int) -> None:
    world.change(number, labels={"colour": ("blue",)}, product_id="q")


def touch(world: World, number: int) -> None:
    os.utime(path_of(world.items[number]), (10**9, 10**9))


def rename(world: World, number: int) -> None:
    path = path_of(world.items[number])
    world.change(number, image=path.rename(path.with_name(f"moved{path.suffix}")))


def copy(world: World, number: int) -> None:
    path = path_of(world.items[number])
    world.change(number, image=path.with_name(f"copy{path.suffix}"))
    path_of(world.items[number]).write_bytes(path.read_bytes())


@pytest.mark.parametrize(
    ("change", "outcome", "is_read"),
    [
        (relabel, "relabelled", False),
        (touch, "unchanged", True),
        (rename, "relabelled", True),
        (copy, "relabelled", True),
    ],
)
def test_the_same_photo_is_never_encoded_and_read_only_where_its_file_is_another(
    world: World,
    opened: list[Path | bytes],
    change: Callable[[World, int], None],
    outcome: str,
    is_read: bool,
) -> None:
    change(world, 2)
    done = counts(world.run())
    assert done == ({"unchanged": 6} if outcome == "unchanged" else {outcome: 1, "unchanged": 5})
    assert opened == ([path_of(world.items[2])] if is_read else [])
    assert world.encoder.loads == 0
    check_gallery(world)


def test_nothing_is_read_of_a_catalog_that_is_as_it_was(world: World, opened: list[Path | bytes]) -> None:
    world.run()
    assert opened == []


def test_one_photo_of_two_items_is_counted_and_kept(world: World) -> None:
    first = world.items[1]
    summary = world.run()
    assert summary.duplicates == 0
    twin = path_of(first).with_name("twin.jpg")
    twin.write_bytes(path_of(first).read_bytes())
    half = Box(0, 0, 1, 0.5)
    world.rows += [
        CatalogItem("same file", first.image),
        CatalogItem("same bytes", twin),
        # Two garments of one photo are two, and the second one of them twice.
        CatalogItem("box", first.image, box=half),
        CatalogItem("the same box", twin, box=half),
        CatalogItem("other box", twin, box=Box(0, 0.5, 1, 0.5)),
    ]
    summary = world.run()
    assert (counts(summary), summary.duplicates, summary.items) == ({"added": 5, "unchanged": 6}, 3, 11)
    assert delete_and_count(world, "same file") == 2


def delete_and_count(world: World, item_id: str) -> int:
    """Duplicates that are left when an item is pruned."""
    world.rows = [item for item in world.items if item.item_id != item_id]
    return world.run(prune=True).duplicates
