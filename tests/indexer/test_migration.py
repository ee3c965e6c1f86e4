"""A change of encoder: it is taken where it is no worse, it can be undone, and nothing that ends it early does harm."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data.catalog import Box, CatalogItem
from data.images import read_pixels
from indexer import faiss_index, migration, promotion
from indexer.checksums import Checksums
from indexer.encoders import EncoderCard, EncoderError
from indexer.failures import read_failures
from indexer.faiss_index import FAISS_FOLDER, FaissIndex
from indexer.gallery import Gallery
from indexer.lance_files import files_of
from indexer.migration import Migration, MigrationError, MigrationOptions, NothingToUndoError, migrate, rollback
from indexer.pipeline import RunOptions, Summary, refresh
from indexer.promotion import NEXT, PREVIOUS, find_places
from indexer.rows import ITEM_COLUMNS, STATE_COLUMNS, Row, content_hash_of, row_of
from indexer.snapshot import GalleryLockedError, Snapshot, StoreError
from indexer.store import TABLE, Store, writing
from tests.indexer.fakes import (
    CARD,
    FakeEncoder,
    catalog_of,
    draw_photo,
    item,
    make_store,
    noise_encoder,
    rows_of,
    unit_vectors,
)

COUNT = 36
COLOURS = ("red", "green", "blue")


@dataclass
class World:
    """A catalog of photos in three colours, and a gallery of it."""

    folder: Path
    items: list[CatalogItem]

    @property
    def gallery(self) -> Path:
        return self.folder / "gallery"

    def index(self, encoder: FakeEncoder, **options: Any) -> Summary:
        return refresh(catalog_of(self.items), self.gallery, encoder.lazy, RunOptions(**options))

    def snapshot(self, folder: str = "") -> Snapshot:
        return Store(self.gallery / folder, freshness_s=0).snapshot()

    def rows(self, folder: str = "") -> dict[str, Row]:
        return rows_in(self.gallery / folder)

    def add(self, count: int = 1) -> None:
        first = len(self.items)
        self.items += [draw(self.folder, number) for number in range(first, first + count)]

    def migrate(self, encoder: FakeEncoder, **options: Any) -> Migration:
        return migrate(self.gallery, encoder.lazy, MigrationOptions(**options))

    def rollback(self, encoder: FakeEncoder | None = None, **options: Any) -> Migration:
        """A rollback with an encoder at hand, or with none."""

        def load(card: EncoderCard) -> FakeEncoder:
            if encoder is None:
                raise EncoderError("The weights are gone.")
            assert card == encoder.card
            return encoder

        return rollback(self.gallery, load, MigrationOptions(**options))


def rows_in(folder: Path) -> dict[str, Row]:
    """The rows of a gallery by item_id."""
    snapshot = Store(folder, freshness_s=0).snapshot()
    records = snapshot.columns(*ITEM_COLUMNS, *STATE_COLUMNS).to_pylist()
    return {
        record["item_id"]: row_of(record, embedding)
        for record, embedding in zip(records, snapshot.embeddings(), strict=True)
    }


def draw(folder: Path, number: int) -> CatalogItem:
    """An old photo of noise in the colour that it is labelled with."""
    colour = COLOURS[number % len(COLOURS)]
    path = folder / "photos" / f"{number:03}.png"
    path.parent.mkdir(exist_ok=True)
    pixels = np.zeros((40, 24, 3), np.uint8)
    pixels[..., COLOURS.index(colour)] = 200
    pixels += np.random.default_rng(number).integers(0, 56, pixels.shape, np.uint8)
    Image.fromarray(pixels).save(path)
    os.utime(path, (10**9, 10**9))
    return replace(item(number), image=path, labels={"colour": (colour,)})


def embedded(encoder: FakeEncoder, row: Row) -> NDArray[np.float32]:
    return encoder.encode(read_pixels(row.item.image, encoder.card.image_size, box=row.item.box)[None])[0]


def is_wholly_of(folder: Path, encoder: FakeEncoder) -> bool:
    """Whether a gallery has an encoder's card, and every embedding is that encoder's of the photo."""
    rows = rows_in(folder)
    card = Store(folder).card
    if card != encoder.card:
        return False
    for row in rows.values():
        np.testing.assert_allclose(row.embedding, embedded(encoder, row), atol=1e-6)
    return True


def left_over(folder: Path) -> list[str]:
    """What is in a gallery's folder and belongs to no gallery at rest."""
    names = {"items.lance", "checksums.tsv", "failures.jsonl", "faiss", PREVIOUS}
    return sorted(path.name for path in folder.iterdir() if path.name not in names and path.suffix != ".lock")


@pytest.fixture
def histograms() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def noise() -> FakeEncoder:
    return noise_encoder()


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Not indexed yet."""
    return World(tmp_path, [draw(tmp_path, number) for number in range(COUNT)])


@pytest.fixture
def noisy(world: World, noise: FakeEncoder) -> World:
    """Indexed by an encoder that is as good as chance."""
    world.index(noise)
    return world


@pytest.fixture
def good(world: World, histograms: FakeEncoder) -> World:
    """Indexed by an encoder that tells the colours apart."""
    world.index(histograms)
    return world


# Taking a better encoder


def test_a_better_encoder_is_taken_and_all_else_stays(noisy, histograms, noise):
    by_hand = replace(noisy.items[3], labels={"colour": ("mauve",)})
    store, before = Store(noisy.gallery), noisy.rows()
    key = before["i00003"].metadata_key
    store.upsert([replace(before["i00003"], item=by_hand, metadata_key=key, corrected=("colour",))])
    before, version = noisy.rows(), noisy.snapshot().version

    done = noisy.migrate(histograms)

    assert (done.promoted, done.refusal, done.interrupted, done.lost) == (True, None, False, 0)
    assert (done.encoded, done.items, done.version, done.variant) == (COUNT, COUNT, version + 1, "exact")
    assert done.old_encoder == "fake-noise (mean, torch fp32, 16 numbers)"
    assert done.new_encoder == "fake-histogram (mean, torch fp32, 24 numbers)"
    assert done.comparison is not None
    assert done.comparison.verdict == "not worse"
    assert done.comparison.by_target["colour"].hit_rate_at_1_new == 1.0
    assert is_wholly_of(noisy.gallery, histograms)
    after = noisy.rows()
    assert [replace(row, embedding=None) for row in after.values()] == [
        replace(row, embedding=None) for row in before.values()
    ]
    assert after["i00003"].corrected == ("colour",)
    assert left_over(noisy.gallery) == []
    # What it replaced is a gallery of its own.
    assert is_wholly_of(noisy.gallery / PREVIOUS, noise)
    assert noisy.rows(PREVIOUS).keys() == before.keys()
    noted = Checksums(noisy.gallery / PREVIOUS)
    assert noted.missing() == []
    assert all(path in noted for path in files_of(noisy.gallery / PREVIOUS / TABLE))

    loads = histograms.loads
    again = noisy.index(histograms)
    assert (again.unchanged, again.read, again.version, histograms.loads) == (COUNT, COUNT, done.version, loads)


def test_a_gallery_goes_on_being_written_while_photos_are_encoded(noisy, noise):
    def meddle(_: int) -> None:
        histograms._on_encode = None
        noisy.add()
        del noisy.items[0]
        noisy.items[4] = replace(noisy.items[4], labels={"colour": ("mauve",)})
        box = noisy.items[5] = replace(noisy.items[5], box=Box(0, 0, 1, 0.5))
        assert box.item_id == "i00006"
        noisy.index(noise, prune=True)

    histograms = FakeEncoder(workers=1, on_encode=meddle)
    done = noisy.migrate(histograms)
    # The item that came meanwhile, and the one whose box is another now.
    assert (done.promoted, done.encoded, done.items) == (True, COUNT + 2, COUNT)
    assert is_wholly_of(noisy.gallery, histograms)
    after = noisy.rows()
    assert after.keys() == {one.item_id for one in noisy.items}
    assert after["i00005"].item.labels == {"colour": ("mauve",)}
    assert after["i00006"].item.box == Box(0, 0, 1, 0.5)
    assert noisy.index(histograms).unchanged == COUNT


def test_a_photo_that_changed_since_it_was_indexed_is_known_as_it_was_encoded(noisy, histograms):
    path = noisy.items[2].image
    assert isinstance(path, Path)
    draw_photo(path, 99)
    noisy.migrate(histograms)
    row = noisy.rows()["i00002"]
    assert (row.content_hash, row.file_size) == (content_hash_of(path.read_bytes()), path.stat().st_size)
    assert is_wholly_of(noisy.gallery, histograms)
    assert noisy.index(histograms).unchanged == COUNT


def test_a_version_that_compaction_takes_away_is_left_for_the_newest(noisy, noise, histograms, monkeypatch):
    catalog_of_gallery, taken = migration._catalog_of, []

    def lose_the_first(snapshot: Snapshot) -> Any:
        taken.append(snapshot.version)
        if len(taken) > 1:
            return catalog_of_gallery(snapshot)
        noisy.add()
        noisy.index(noise)
        Store(noisy.gallery).compact(timedelta(milliseconds=1))

        def read() -> Iterator[CatalogItem]:
            raise StoreError("its files are gone")
            yield

        return replace(catalog_of_gallery(snapshot), read=read)

    monkeypatch.setattr(migration, "_catalog_of", lose_the_first)
    assert noisy.migrate(histograms).items == COUNT + 1
    assert taken[0] < taken[1] == taken[2]


def test_an_open_gallery_holds_still_and_a_new_one_has_the_new_encoder(noisy, histograms, noise):
    reader = Gallery(noisy.gallery, Store(noisy.gallery, freshness_s=0))
    searcher, query = reader.searcher, reader.embedding_of("i00007")
    late = Gallery(noisy.gallery)
    expected = searcher.search(query[None], 5)
    noisy.migrate(histograms)
    # The late one has not even read its vectors when the commit comes.
    for opened in (reader, late):
        assert opened.card == noise.card
        np.testing.assert_array_equal(opened.searcher.search(query[None], 5)[0], expected[0])
        assert opened.neighbours(query, 1)[0].item.item_id == "i00007"
    fresh = Gallery(noisy.gallery, reader.store)
    assert fresh.card == histograms.card
    assert fresh.neighbours(fresh.embedding_of("i00007"), 1)[0].distance < 1e-6


def test_the_index_of_the_new_vectors_is_there_at_once(noisy, histograms, noise, monkeypatch):
    monkeypatch.setattr(faiss_index, "EXACT_LIMIT", 0)
    noisy.index(noise)
    before = FaissIndex.newest_card(noisy.gallery / FAISS_FOLDER, noise.card)
    overwrite, seen = Store.overwrite, []

    def look(store: Store, *arguments: Any) -> int:
        # Until the commit, those who search have the old one.
        seen.append(FaissIndex.load(noisy.gallery / FAISS_FOLDER, noise.card))
        return overwrite(store, *arguments)

    monkeypatch.setattr(Store, "overwrite", look)
    done = noisy.migrate(histograms)
    assert seen[0] is not None
    assert (done.variant, seen[0].card) == ("hnsw", before)
    gallery = Gallery(noisy.gallery)
    assert (gallery.searcher.variant, gallery.searcher.tail_rows) == ("hnsw", 0)
    assert gallery.searcher.index is not None
    assert gallery.searcher.index.card.version == done.version
    assert {path.stem for path in (noisy.gallery / FAISS_FOLDER).iterdir()} == {f"hnsw-{done.version}"}
    assert noisy.index(histograms).version == done.version
    # What was replaced has kept its own.
    assert FaissIndex.newest_card(noisy.gallery / PREVIOUS / FAISS_FOLDER, noise.card) == before
    assert noisy.rollback().variant == "hnsw"
    assert Gallery(noisy.gallery).searcher.tail_rows == 0


# Refusing


def test_a_worse_encoder_is_refused_and_taken_by_force_without_encoding_again(good, histograms, noise):
    version = good.snapshot().version
    refused = good.migrate(noise)
    assert (refused.promoted, refused.version, refused.encoded) == (False, version, COUNT)
    assert refused.refusal is not None
    assert refused.refusal.startswith("The first neighbour is right less often with fake-noise (")
    assert "by colour. The gallery was left as it was; pass --force" in refused.refusal
    assert refused.comparison is not None
    assert refused.comparison.verdict == "worse"
    assert is_wholly_of(good.gallery, histograms)
    assert not (good.gallery / PREVIOUS).exists()
    # It can be looked at, and holds what the gallery holds.
    assert is_wholly_of(good.gallery / NEXT, noise)
    Store(good.gallery).delete(["i00000"])
    refused = good.migrate(noise)
    assert refused.refusal is not None
    assert good.rows(NEXT).keys() == good.rows().keys()

    forced = good.migrate(noise, force=True)
    assert (forced.promoted, forced.refusal, forced.encoded, noise.loads) == (True, None, 0, 1)
    assert forced.comparison == refused.comparison
    assert is_wholly_of(good.gallery, noise)


def test_another_photo_of_the_same_size_and_time_is_seen_once_the_gallery_has_seen_it(good, histograms, noise):
    good.migrate(noise)
    path = good.items[2].image
    assert isinstance(path, Path)
    other = path.with_name("other.png")
    size = path.stat().st_size
    draws = (draw_photo(other, seed).read_bytes() for seed in range(99))
    content = next(drawn for drawn in draws if len(drawn) < size)
    # What follows a PNG's end is not looked at.
    path.write_bytes(content.ljust(size, b"\0"))
    os.utime(path, (10**9, 10**9))
    assert good.index(histograms, rehash=True).changed == 1
    assert good.migrate(noise, force=True).encoded == 1
    assert is_wholly_of(good.gallery, noise)
    assert good.index(noise, rehash=True).unchanged == COUNT


def test_without_labels_it_cannot_be_judged(world, noise, histograms):
    world.items = [replace(one, labels={}) for one in world.items]
    world.index(noise)
    refused = world.migrate(histograms)
    assert refused.refusal is not None
    assert refused.refusal.startswith("Whether neighbours are worse with fake-histogram")
    assert "no target has labels for 30 queries" in refused.refusal
    assert not refused.promoted
    assert world.migrate(histograms, force=True).promoted


def test_photos_that_are_gone_would_be_lost(noisy, histograms, noise):
    content = {}
    for number in (3, 8):
        path = noisy.items[number].image
        assert isinstance(path, Path)
        content[path] = path.read_bytes()
        path.unlink()
    refused = noisy.migrate(histograms)
    assert (refused.promoted, refused.lost) == (False, 2)
    assert refused.refusal is not None
    assert refused.refusal.startswith(f"2 of the gallery's {COUNT} items could not be encoded and would be lost")
    assert f"`modiste stats --gallery {noisy.gallery / NEXT} --failures`" in refused.refusal
    assert {failure.item_id for failure in read_failures(noisy.gallery / NEXT)} == {"i00003", "i00008"}
    assert len(noisy.rows()) == COUNT

    forced = noisy.migrate(histograms, force=True)
    assert (forced.promoted, forced.lost, forced.items) == (True, 2, COUNT - 2)
    assert not {"i00003", "i00008"} & noisy.rows().keys()
    for path, photo in content.items():
        path.write_bytes(photo)
    assert noisy.index(histograms).added == 2


def test_an_old_embedding_is_not_taken_for_another_box(tmp_path):
    boxes = [None, Box(0, 0, 0.5, 1), Box(0, 0, 1, 1), None]
    vectors = unit_vectors(4, 8)
    ours = [item(number, box=box) for number, box in enumerate(boxes)]
    theirs = [item(number, box=box) for number, box in enumerate([None, None, Box(0, 0, 1, 1)])]
    old = make_store(tmp_path / "old", vectors, ours).snapshot()
    other = rows_of(vectors[:3], theirs)[::-1]
    other[0] = replace(other[0], content_hash="another photo")
    store = Store.create(tmp_path / "new", replace(CARD, dimension=8), freshness_s=0)
    store.upsert(other)
    new = store.snapshot()
    rows = [record["item_id"] for record in new.columns("item_id").to_pylist()]
    at = {item_id: row for row, item_id in enumerate(rows)}
    assert find_places(old, new).tolist() == [at["i00000"], -1, at["i00002"], -1]
    assert find_places(old, new, same_photo=True).tolist() == [at["i00000"], -1, -1, -1]


def test_the_encoder_that_the_gallery_has_is_refused(good, histograms):
    with pytest.raises(MigrationError, match=r"has this encoder already: fake-histogram \(mean"):
        good.migrate(histograms)
    assert left_over(good.gallery) == []


def test_no_gallery(tmp_path, histograms):
    with pytest.raises(StoreError, match="is no gallery"):
        migrate(tmp_path / "none", histograms.lazy)
    assert not (tmp_path / "none").exists()


def test_an_unfinished_migration_to_a_third_encoder_is_not_thrown_away(good, noise):
    good.migrate(noise)
    third = FakeEncoder(replace(CARD, weights_sha256="3" * 64))
    with pytest.raises(
        MigrationError, match=r"to fake-noise .* not finished, or refused; this one is to fake-histogram .*--discard"
    ):
        good.migrate(third)
    assert is_wholly_of(good.gallery / NEXT, noise)
    done = good.migrate(third, discard=True)
    assert (done.promoted, done.encoded) == (True, COUNT)
    assert is_wholly_of(good.gallery, third)


def test_an_empty_gallery_changes_its_encoder_by_force(world, noise, histograms):
    world.items = []
    world.index(noise)
    assert not world.migrate(histograms).promoted
    done = world.migrate(histograms, force=True)
    assert (done.promoted, done.items) == (True, 0)
    world.add(2)
    assert world.index(histograms).added == 2


# Ending early


def test_a_stopped_run_goes_on_where_it_was(noisy, noise):
    # More than can be under way at once.
    noisy.add(60)
    noisy.index(noise)
    stop: list[bool] = []
    histograms = FakeEncoder(workers=1, on_encode=lambda _: stop.append(True))
    stopped = noisy.migrate(histograms, is_stopped=lambda: bool(stop))
    assert (stopped.interrupted, stopped.promoted, stopped.comparison) == (True, False, None)
    assert 0 < stopped.encoded < COUNT + 60
    assert is_wholly_of(noisy.gallery, noise)
    done = noisy.migrate(histograms)
    assert (done.promoted, done.encoded + stopped.encoded, histograms.encoded) == (True,) + 2 * (COUNT + 60,)


def test_a_stop_that_comes_late_still_leaves_the_gallery_as_it_was(noisy, histograms, noise, monkeypatch):
    stop: list[bool] = []
    compare = migration.compare
    monkeypatch.setattr(migration, "compare", lambda *parts: stop.append(True) or compare(*parts))
    stopped = noisy.migrate(histograms, is_stopped=lambda: bool(stop))
    assert (stopped.interrupted, stopped.promoted) == (True, False)
    assert is_wholly_of(noisy.gallery, noise)


def test_one_change_at_a_time(noisy, histograms):
    with filelock.FileLock(noisy.gallery / ".migration.lock"):
        for change in (lambda: noisy.migrate(histograms), noisy.rollback):
            with pytest.raises(GalleryLockedError, match=r"is changing the encoder of gallery .*--wait"):
                change()


def test_a_writer_is_waited_for_or_said(noisy, histograms, noise):
    with writing(noisy.gallery), pytest.raises(GalleryLockedError, match="Another process is writing to gallery"):
        noisy.migrate(histograms)
    assert is_wholly_of(noisy.gallery, noise)
    done = noisy.migrate(histograms)
    assert (done.promoted, done.encoded) == (True, 0)


class Killed(BaseException):
    """The end of a process, as far as one process can play it."""


@dataclass(frozen=True)
class Change:
    """A change from one encoder to another."""

    world: World
    old: FakeEncoder
    new: FakeEncoder
    run: Callable[[], Migration]


class Killer:
    """Ends a change at the n-th of the steps that it takes on the disk."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int) -> None:
        self.left = at
        self.steps: list[str] = []
        for owner, name in (
            *((promotion, name) for name in ("_keep", "_link", "remove", "refresh_index")),
            *((Path, "rename"), (Store, "overwrite"), (FaissIndex, "save"), (FaissIndex, "remove")),
        ):
            patch.setattr(owner, name, self._killing(name, getattr(owner, name)))

    def _killing(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def taken(*arguments: Any, **options: Any) -> Any:
            # Deleting what is not there is no step, and each of many links is like the first.
            is_step = arguments[0].exists() if name == "remove" else not (name == "_link" and name in self.steps)
            self.steps.append(name)
            self.left -= is_step
            if is_step and not self.left:
                raise Killed(name)
            done = step(*arguments, **options)
            # And once more after the one commit that counts.
            if name == "overwrite":
                self.left -= 1
                if not self.left:
                    raise Killed("after the commit")
            return done

        return staticmethod(taken) if name == "remove" else taken  # type: ignore[return-value]


@pytest.fixture(params=["migrate", "rollback"])
def change(request, world, histograms, noise, monkeypatch) -> Change:
    """A change for which nothing is left to encode, in a gallery that has something to undo already."""
    monkeypatch.setattr(faiss_index, "EXACT_LIMIT", 0)
    world.index(FakeEncoder(replace(CARD, weights_sha256="3" * 64)))
    world.migrate(noise, force=True)
    if request.param == "rollback":
        world.migrate(histograms)
        return Change(world, histograms, noise, lambda: world.rollback(noise))
    refresh(migration._catalog_of(world.snapshot()), world.gallery / NEXT, histograms.lazy)
    return Change(world, noise, histograms, lambda: world.migrate(histograms))


def test_killed_at_any_step_it_answers_with_one_encoder_and_can_be_run_again(change, tmp_path):
    gallery, prepared = change.world.gallery, tmp_path / "prepared"
    rows = change.world.rows()
    gallery.rename(prepared)
    seen = set()
    for at in range(1, 200):
        shutil.rmtree(gallery, ignore_errors=True)
        shutil.copytree(prepared, gallery)
        with pytest.MonkeyPatch.context() as patch:
            killer = Killer(patch, at)
            try:
                change.run()
                break
            except Killed as killed:
                seen.add(str(killed))
        is_new = Store(gallery).card == change.new.card
        assert is_wholly_of(gallery, change.new if is_new else change.old), killer.steps
        assert change.world.rows().keys() == rows.keys()
        again = change.run()
        assert (again.promoted, again.variant, again.encoded) == (True, "hnsw", 0), killer.steps
        assert is_wholly_of(gallery, change.new)
        assert is_wholly_of(gallery / PREVIOUS, change.old)
        assert left_over(gallery) == [], killer.steps
        assert Gallery(gallery).searcher.tail_rows == 0
        # Nor does an index of the other encoder stay behind.
        assert len({path.stem for path in (gallery / FAISS_FOLDER).iterdir()}) == 1
    steps = {"_keep", "_link", "rename", "refresh_index", "save", "overwrite", "after the commit", "remove"}
    assert seen == steps


def test_no_room_for_the_commit(noisy, histograms, noise, monkeypatch):
    def fail(*_: Any) -> None:
        raise StoreError("There is no room on the disk.")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "overwrite", fail)
        with pytest.raises(StoreError, match="no room"):
            noisy.migrate(histograms)
    assert is_wholly_of(noisy.gallery, noise)
    with pytest.raises(NothingToUndoError, match="there is nothing to undo"):
        noisy.rollback()
    assert noisy.migrate(histograms).encoded == 0
    assert is_wholly_of(noisy.gallery, histograms)


def test_without_hard_links_files_are_copied(noisy, histograms, noise, monkeypatch):
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    noisy.migrate(histograms)
    assert is_wholly_of(noisy.gallery / PREVIOUS, noise)


# Undoing


def test_a_rollback_gives_the_embeddings_back_and_keeps_the_records(noisy, histograms, noise):
    noisy.migrate(histograms)
    noisy.add(2)
    noisy.items[5] = replace(noisy.items[5], labels={"colour": ("mauve",)})
    del noisy.items[0]
    noisy.index(histograms, prune=True)
    records = noisy.rows()
    encoded = noise.encoded

    done = noisy.rollback(noise)
    assert (done.promoted, done.comparison, done.refusal, done.lost) == (True, None, None, 0)
    assert (done.encoded, noise.encoded - encoded, done.items) == (2, 2, COUNT + 1)
    assert (done.old_encoder.split()[0], done.new_encoder.split()[0]) == ("fake-histogram", "fake-noise")
    assert is_wholly_of(noisy.gallery, noise)
    after = noisy.rows()
    assert after["i00005"].item.labels == {"colour": ("mauve",)}
    assert {key: row.metadata_key for key, row in after.items()} == {k: row.metadata_key for k, row in records.items()}
    assert noisy.index(noise).unchanged == COUNT + 1
    assert left_over(noisy.gallery) == []

    # Undone in turn, without any encoder.
    assert noisy.rollback().promoted
    assert is_wholly_of(noisy.gallery, histograms)
    assert is_wholly_of(noisy.gallery / PREVIOUS, noise)


def test_a_rollback_needs_no_encoder_where_no_photo_came(noisy, histograms, noise):
    noisy.migrate(histograms)
    # A photo that was touched since is of no concern.
    path = noisy.items[2].image
    assert isinstance(path, Path)
    path.write_bytes(path.read_bytes())
    assert noisy.rollback().promoted
    assert is_wholly_of(noisy.gallery, noise)


def test_a_rollback_whose_encoder_is_gone(noisy, histograms, noise):
    noisy.migrate(histograms)
    noisy.add()
    path = noisy.items[2].image
    assert isinstance(path, Path)
    draw_photo(path, 99)
    noisy.index(histograms)
    message = r"2 items came or changed since the gallery had fake-noise .*: The weights are gone\. Or pass --force"
    with pytest.raises(StoreError, match=message):
        noisy.rollback()
    assert is_wholly_of(noisy.gallery, histograms)
    done = noisy.rollback(force=True)
    assert (done.promoted, done.lost, done.items) == (True, 2, COUNT - 1)
    assert is_wholly_of(noisy.gallery, noise)
    assert noisy.index(noise).added == 2


def test_what_comes_while_a_rollback_runs_is_not_lost(noisy, histograms, noise, monkeypatch):
    noisy.migrate(histograms)
    is_first = [True]

    def add(_: Store) -> None:
        if is_first:
            is_first.clear()
            noisy.add()
            with monkeypatch.context() as patch:
                patch.setattr(migration, "settle", promotion.settle)
                FaissIndex.remove(noisy.gallery / FAISS_FOLDER)
                store = Store(noisy.gallery, freshness_s=0)
                store.upsert([replace(noisy.rows()["i00001"], item=noisy.items[-1])])

    monkeypatch.setattr(migration, "settle", add)
    refused = noisy.rollback()
    assert refused.refusal == "1 items came or changed while this ran. Run it again."
    assert is_wholly_of(noisy.gallery / PREVIOUS, noise)


def test_a_stopped_rollback_goes_on_where_it_was(noisy, histograms):
    noisy.migrate(histograms)
    noisy.add(40)
    noisy.index(histograms)
    stop: list[bool] = []
    noise = noise_encoder(workers=1, on_encode=lambda _: stop.append(True))
    stopped = noisy.rollback(noise, is_stopped=lambda: bool(stop))
    assert (stopped.interrupted, stopped.promoted) == (True, False)
    assert is_wholly_of(noisy.gallery, histograms)
    done = noisy.rollback(noise)
    assert (done.promoted, stopped.encoded + done.encoded, noise.encoded) == (True, 40, 40)
    assert is_wholly_of(noisy.gallery, noise)


def test_nothing_to_undo(good, histograms):
    with pytest.raises(NothingToUndoError, match="has no version by another encoder; there is nothing to undo"):
        good.rollback()
    shutil.copytree(good.gallery, good.gallery / PREVIOUS)
    with pytest.raises(NothingToUndoError, match=r"has the gallery's encoder, fake-histogram .* nothing to undo"):
        good.rollback()
