"""The pipeline: a gallery becomes what the catalog says, and nothing is encoded that was seen before."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.catalog import BadRow, Box, Catalog, CatalogItem
from indexer.encoders import EncoderError
from indexer.encoding import CHUNK, Task, encode_tasks
from indexer.failures import Failure
from indexer.faiss_index import FAISS_FOLDER, FaissIndex
from indexer.manifest import Fingerprint
from indexer.pipeline import RunOptions, refresh
from indexer.searcher import Searcher
from indexer.snapshot import GalleryLockedError, Snapshot, StoreError
from indexer.store import Store, writing
from tests.indexer.fakes import CARD, BrokenEncoder, FakeEncoder, catalog_of, draw_photo
from tests.indexer.world import World, check_gallery, counts, make_world, path_of

LARGE = 600


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Six photos in three formats, one with a box."""
    return make_world(tmp_path)


@pytest.fixture
def indexed(world: World) -> World:
    """The same after a first run, with a fresh encoder."""
    world.run()
    world.encoder = FakeEncoder()
    return world


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[CatalogItem]:
    """600 photos, more than a commit holds."""
    folder = tmp_path_factory.mktemp("photos")
    items = []
    for number in range(LARGE):
        path = draw_photo(folder / f"{number}.png", number, width=6, height=8)
        items.append(CatalogItem(f"i{number}", path))
    return items


def test_the_first_run_adds_everything_in_the_order_of_the_catalog(world: World) -> None:
    summary = world.run()
    assert counts(summary) == {"added": 6}
    assert (summary.items, summary.interrupted, summary.variant) == (6, False, "exact")
    assert summary.version == world.snapshot().version
    assert (world.encoder.loads, world.encoder.encoded) == (1, 6)
    check_gallery(world)
    assert world.snapshot().columns("item_id").column(0).to_pylist() == [item.item_id for item in world.items]
    assert world.failures() == []


def test_the_second_run_loads_no_encoder_and_writes_nothing(indexed: World) -> None:
    before = indexed.snapshot().version
    summary = indexed.run()
    assert counts(summary) == {"unchanged": 6}
    assert (indexed.encoder.loads, indexed.encoder.encoded) == (0, 0)
    assert indexed.snapshot().version == summary.version == before
    check_gallery(indexed)


def test_a_touched_file_is_read_but_not_encoded_and_next_time_not_even_read(indexed: World) -> None:
    path = path_of(indexed.items[1])
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9))
    assert counts(indexed.run()) == {"unchanged": 6}
    assert indexed.encoder.encoded == 0
    check_gallery(indexed)
    indexed.encoder = FakeEncoder()
    assert counts(indexed.run()) == {"unchanged": 6}
    assert indexed.encoder.loads == 0


def test_another_photo_in_the_file_is_encoded_again(indexed: World) -> None:
    path = path_of(indexed.items[0])
    before = path.stat()
    draw_photo(path, 99)
    # Even in the same nanosecond: the size gives it away.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size != before.st_size
    assert counts(indexed.run()) == {"changed": 1, "unchanged": 5}
    assert indexed.encoder.encoded == 1
    check_gallery(indexed)


@pytest.mark.parametrize(
    "fields", [{"labels": {"colour": ("blue", "navy")}}, {"product_id": None}, {"split": "test"}, {"labels": {}}]
)
def test_another_record_is_written_without_encoding(indexed: World, fields: dict[str, object]) -> None:
    indexed.change(3, **fields)
    assert counts(indexed.run()) == {"relabelled": 1, "unchanged": 5}
    assert indexed.encoder.encoded == 0
    check_gallery(indexed)
    assert counts(indexed.run()) == {"unchanged": 6}


def test_a_moved_file_is_written_without_encoding(indexed: World) -> None:
    old = path_of(indexed.items[4])
    new = old.rename(old.with_name("moved" + old.suffix))
    indexed.change(4, image=new)
    assert counts(indexed.run()) == {"relabelled": 1, "unchanged": 5}
    assert indexed.encoder.encoded == 0
    check_gallery(indexed)


@pytest.mark.parametrize(("number", "box"), [(2, None), (2, Box(0, 0.25, 1, 0.25)), (1, Box(0, 0, 0.5, 1))])
def test_another_box_is_encoded_again(indexed: World, number: int, box: Box | None) -> None:
    indexed.change(number, box=box)
    assert counts(indexed.run()) == {"changed": 1, "unchanged": 5}
    check_gallery(indexed)


def test_items_that_left_the_catalog_stay(indexed: World) -> None:
    everything = indexed.items
    del indexed.rows[2:4]
    assert counts(indexed.run()) == {"unchanged": 4}
    check_gallery(indexed, everything)


def test_a_new_photo_joins(indexed: World) -> None:
    indexed.rows.append(CatalogItem("new", draw_photo(indexed.folder / "new.png", 50)))
    summary = indexed.run()
    assert counts(summary) == {"added": 1, "unchanged": 6}
    assert (summary.items, indexed.encoder.encoded) == (7, 1)
    check_gallery(indexed)


@pytest.mark.parametrize("is_known", [False, True])
def test_the_first_of_two_rows_with_one_item_id_is_taken(world: World, is_known: bool) -> None:
    if is_known:
        world.run()
    first = world.items
    world.rows.append(replace(first[1], labels={"colour": ("second",)}, source_row=40))
    # Twice among new items too, far enough apart to be in another block.
    new = CatalogItem("new", draw_photo(world.folder / "new.png", 51))
    world.rows += [new, *[BadRow(Path("catalog.csv"), number, "bad") for number in range(300)]]
    world.rows.append(replace(new, image=draw_photo(world.folder / "other.png", 52), source_row=500))
    summary = world.run()
    assert summary.failed == 302
    check_gallery(world, [*first, new])
    repeated = [failure for failure in world.failures() if failure.reason != "bad"]
    message = "The catalog has item_id '{}' twice; the first is taken."
    assert repeated == [
        Failure(str(first[1].image), message.format("i1"), "i1", 40),
        Failure(str(world.folder / "other.png"), message.format("new"), "new", 500),
    ]


def test_a_bad_row_is_listed_and_the_rest_goes_on(world: World) -> None:
    world.rows.insert(2, BadRow(Path("/shop/items.csv"), 4, "The row has no item_id."))
    assert counts(world.run()) == {"added": 6, "failed": 1}
    assert world.failures() == [Failure("/shop/items.csv", "The row has no item_id.", None, 4)]
    check_gallery(world)


def test_a_corrupt_photo_is_listed_and_taken_in_when_it_is_mended(world: World) -> None:
    path = path_of(world.items[3])
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert counts(world.run()) == {"added": 5, "failed": 1}
    (failure,) = world.failures()
    assert (failure.source, failure.item_id, failure.source_row) == (str(path), "i3", 5)
    assert "truncated or damaged" in failure.reason
    check_gallery(world, [item for item in world.items if item.item_id != "i3"])
    path.write_bytes(whole)
    assert counts(world.run()) == {"added": 1, "unchanged": 5}
    assert world.failures() == []
    check_gallery(world)


def test_a_photo_that_is_gone_is_listed_and_its_row_stays(indexed: World) -> None:
    path = path_of(indexed.items[0])
    whole, times = path.read_bytes(), path.stat()
    path.unlink()
    indexed.rows.append(CatalogItem("never", indexed.folder / "never.png"))
    assert counts(indexed.run()) == {"unchanged": 5, "failed": 2}
    missing = "There is no such file."
    listed = {one.item_id: (one.source, one.reason) for one in indexed.failures()}
    assert listed == {"i0": (str(path), missing), "never": (str(indexed.folder / "never.png"), missing)}
    path.write_bytes(whole)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    del indexed.rows[-1]
    assert counts(indexed.run()) == {"unchanged": 6}
    assert indexed.failures() == []
    check_gallery(indexed)


def test_more_failures_than_are_held_at_once(world: World) -> None:
    world.rows += [BadRow(Path("x.csv"), number, f"bad {number}") for number in range(1100)]
    for _ in range(2):  # The second list replaces the first.
        assert world.run().failed == 1100
        assert [failure.reason for failure in world.failures()] == [f"bad {number}" for number in range(1100)]


def test_a_limit_takes_the_first_rows(world: World) -> None:
    assert counts(world.run(limit=2)) == {"added": 2}
    check_gallery(world, world.items[:2])
    assert counts(world.run(limit=4)) == {"added": 2, "unchanged": 2}
    assert counts(world.run(limit=99)) == {"added": 2, "unchanged": 4}
    assert counts(world.run(limit=0)) == {}
    check_gallery(world)


def test_photos_without_a_file(world: World) -> None:
    """A catalog of image bytes is read again each time, and not written again."""
    world.rows = [replace(item, image=path_of(item).read_bytes()) for item in world.items]
    assert counts(world.run()) == {"added": 6}
    check_gallery(world)
    before = world.snapshot().version
    assert counts(world.run()) == {"unchanged": 6}
    assert world.encoder.encoded == 6
    assert world.snapshot().version == before
    world.change(0, image=draw_photo(world.folder / "other.png", 70).read_bytes())
    world.change(1, labels={"colour": ("green",)})
    world.rows.append(CatalogItem("bad", b"no photo", source_row=9))
    assert counts(world.run()) == {"changed": 1, "relabelled": 1, "unchanged": 4, "failed": 1}
    (failure,) = world.failures()
    assert (failure.source, failure.item_id, failure.source_row) == ("the photo of item bad", "bad", 9)
    check_gallery(world, world.items[:-1])


def test_an_empty_catalog(world: World) -> None:
    world.rows.clear()
    summary = world.run()
    assert (counts(summary), summary.items, summary.variant) == ({}, 0, "exact")
    assert world.encoder.loads == 0
    assert counts(world.run(variant="hnsw")) == {}


def rows_of_table(snapshot: Snapshot) -> dict[str, tuple[object, ...]]:
    names = ["item_id", "image", "content_hash", "file_size", "file_mtime_ns", "metadata_key", "vector_key"]
    rows = snapshot.columns(*names).to_pylist()
    vectors = snapshot.embeddings().tolist()
    return {row["item_id"]: (*row.values(), *vector) for row, vector in zip(rows, vectors, strict=True)}


@pytest.mark.parametrize("stops_after", [0, 1, 37, 300, 599])
def test_a_run_that_is_stopped_is_completed_by_the_next(
    tmp_path: Path, photos: list[CatalogItem], stops_after: int
) -> None:
    whole = World(tmp_path / "whole", list(photos), FakeEncoder())
    whole.run()
    broken = World(tmp_path / "broken", list(photos), FakeEncoder())
    read = 0

    def taken() -> Iterator[CatalogItem | BadRow]:
        nonlocal read
        for read, row in enumerate(photos, 1):  # noqa: B007 - counts for `is_stopped`
            yield row

    catalog = Catalog(Path("catalog"), "fake", taken, lambda: LARGE)
    asked = 0

    def is_stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > stops_after

    first = refresh(catalog, broken.gallery, broken.encoder.lazy, RunOptions(is_stopped=is_stopped))
    assert first.interrupted
    # Everything that was encoded is committed, and it is the beginning of the catalog.
    assert first.items == first.added == broken.encoder.encoded == len(broken.snapshot())
    # It is asked once a block of 256 as well.
    blocks = stops_after // 257 + 1 if stops_after else 0
    assert first.added == stops_after - blocks
    order = broken.snapshot().columns("item_id").column(0).to_pylist()
    assert order == [item.item_id for item in photos[: first.added]]
    second = broken.run()
    assert counts(second) == {"added": LARGE - first.added} | ({"unchanged": first.added} if first.added else {})
    assert not second.interrupted
    assert broken.encoder.encoded == LARGE
    assert rows_of_table(broken.snapshot()) == rows_of_table(whole.snapshot())
    order = broken.snapshot().columns("item_id").column(0).to_pylist()
    assert order == whole.snapshot().columns("item_id").column(0).to_pylist() == [item.item_id for item in photos]


def test_a_run_without_news_can_be_stopped_too(tmp_path: Path, photos: list[CatalogItem]) -> None:
    world = World(tmp_path, list(photos), FakeEncoder())
    world.run()
    summary = world.run(is_stopped=lambda: True)
    assert (summary.interrupted, summary.read) == (True, 0)


def test_progress_is_told(tmp_path: Path, photos: list[CatalogItem]) -> None:
    told: list[tuple[int, int | None, int]] = []
    world = World(tmp_path, list(photos[:100]), FakeEncoder())
    world.run(progress=lambda *values: told.append(values), limit=80)
    assert told == [(number, 80, number) for number in range(CHUNK, 81, CHUNK)]


def test_the_commits_are_large_and_all_versions_whole(tmp_path: Path, photos: list[CatalogItem]) -> None:
    world = World(tmp_path, list(photos), FakeEncoder())
    world.run()
    fragments = Store(world.gallery)._table.stats()["fragment_stats"]
    # 512 and the 88 that are left.
    assert (fragments["num_fragments"], fragments["lengths"]["max"]) == (2, 512)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "bf16"}, r"precision bf16, not fp32"),
        ({"weights_sha256": "1" * 64}, r"weights_sha256 1+, not 0+"),
        ({"pooling": "cls"}, r"pooling cls, not mean"),
        ({"preprocessing": 99}, r"preprocessing 99, not \d+"),
        ({"dimension": 12}, r"holds 24-number embeddings of 'fake-histogram'.*dimension 12, not 24"),
    ],
)
def test_another_encoder_is_refused(indexed: World, change: dict[str, object], message: str) -> None:
    indexed.encoder = FakeEncoder(replace(CARD, **change))  # type: ignore[arg-type]
    before = indexed.snapshot().version
    with pytest.raises(EncoderError, match=rf"Gallery .*{message}.*Use the same encoder, or index into a new gallery"):
        indexed.run()
    assert indexed.encoder.loads == 0
    assert indexed.snapshot().version == before


def test_an_encoder_that_loads_as_another_is_refused(world: World) -> None:
    """The card was read before the weights changed, say."""
    other = FakeEncoder(replace(CARD, weights_sha256="1" * 64))
    lazy = replace(world.encoder.lazy, load=lambda: other)
    with pytest.raises(EncoderError, match="weights_sha256"):
        refresh(catalog_of(world.rows), world.gallery, lazy)
    assert other.encoded == 0


def test_the_same_encoder_under_another_name_is_the_same(indexed: World) -> None:
    indexed.encoder = FakeEncoder(replace(CARD, name="/another/path"))
    indexed.rows.append(CatalogItem("new", draw_photo(indexed.folder / "new.png", 50)))
    assert counts(indexed.run()) == {"added": 1, "unchanged": 6}


def test_an_encoder_that_fails_ends_the_run_and_keeps_what_was_committed(
    tmp_path: Path, photos: list[CatalogItem]
) -> None:
    world = World(tmp_path, list(photos), BrokenEncoder(fails_at=580))
    with pytest.raises(EncoderError, match="fails on purpose"):
        world.run()
    assert len(world.snapshot()) == 512
    # Its threads are gone, and so is its lock.
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encode")]
    world.encoder = FakeEncoder()
    assert counts(world.run()) == {"added": 88, "unchanged": 512}


def test_an_encoder_that_cannot_be_loaded_ends_the_run(world: World) -> None:
    def refuse() -> FakeEncoder:
        raise EncoderError("no weights here")

    with pytest.raises(EncoderError, match="no weights here"):
        refresh(catalog_of(world.rows), world.gallery, replace(world.encoder.lazy, load=refuse))
    assert counts(world.run()) == {"added": 6}


def test_a_catalog_that_breaks_off_is_an_error(world: World) -> None:
    def broken() -> Iterator[CatalogItem | BadRow]:
        yield from world.rows
        raise OSError("the share is gone")

    with pytest.raises(OSError, match="the share is gone"):
        refresh(Catalog(Path("c"), "fake", broken, lambda: None), world.gallery, world.encoder.lazy)
    assert counts(world.run())["added"] == 6


def test_one_writer_at_a_time(world: World) -> None:
    with writing(world.gallery), pytest.raises(GalleryLockedError, match="Another process is writing"):
        world.run()
    with pytest.raises(StoreError, match="is not empty and no gallery"):
        refresh(catalog_of(world.rows), world.folder, world.encoder.lazy)


def test_a_few_chunks_of_photos_are_under_way_and_no_more(photos: list[CatalogItem]) -> None:
    """Pixels are alive in the workers alone, and the catalog is read no further than a few chunks ahead."""
    workers = 3
    # All workers meet in their first chunk, so the bound is reached and not only kept.
    together = threading.Barrier(workers)
    met = threading.local()

    def meet(_: int) -> None:
        if not hasattr(met, "done"):
            met.done = True
            together.wait(timeout=30)

    encoder = FakeEncoder(workers=workers, on_encode=meet)
    taken = 0

    def tasks() -> Iterator[Task]:
        nonlocal taken
        for item in photos:
            taken += 1
            yield Task(item, Fingerprint.of(item))

    furthest = 0
    results = []
    for number, result in enumerate(encode_tasks(tasks(), encoder)):
        furthest = max(furthest, taken - number)
        results.append(result)
    assert encoder.most_alive == workers * CHUNK
    assert furthest <= (2 * workers + 1) * CHUNK
    assert encoder.alive == 0
    assert [result.row.item.item_id for result in results if not isinstance(result.row, Failure)] == [
        item.item_id for item in photos
    ]


def test_stopping_to_take_results_stops_the_work(photos: list[CatalogItem]) -> None:
    """Of three chunks under way, the one that is being encoded ends and the one behind it never begins."""
    is_closing = threading.Event()

    def hold_the_second(_: int) -> None:
        if encoder.encoded > CHUNK:
            is_closing.wait(timeout=30)

    encoder = FakeEncoder(workers=1, on_encode=hold_the_second)
    results = encode_tasks((Task(item, Fingerprint.of(item)) for item in photos), encoder)
    next(results)
    # Closing waits for the worker, so somebody else has to let it go.
    release = threading.Timer(0.3, is_closing.set)
    release.start()
    results.close()  # type: ignore[attr-defined]
    release.join()
    assert encoder.encoded <= 2 * CHUNK
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encode")]


def test_results_stand_in_the_order_of_the_tasks(world: World) -> None:
    """Failed, known and new ones in one chunk, which are found out at different times."""
    items = world.items
    path_of(items[2]).write_bytes(b"no photo")
    tasks = [Task(item, Fingerprint.of(item)) for item in items]
    results = list(encode_tasks(tasks, world.encoder))
    assert [result.outcome for result in results] == ["added"] * 2 + ["failed"] + ["added"] * 3
    named = [result.row.item_id if isinstance(result.row, Failure) else result.row.item.item_id for result in results]
    assert named == [item.item_id for item in items]


def index_of(world: World) -> FaissIndex:
    index = FaissIndex.load(world.gallery / FAISS_FOLDER, CARD)
    assert index is not None
    return index


def test_the_index_is_built_when_wanted_and_renewed_only_when_a_twentieth_is_missing(
    tmp_path: Path, photos: list[CatalogItem]
) -> None:
    world = World(tmp_path, list(photos[:90]), FakeEncoder())
    assert world.run().variant == "exact"
    assert not (world.gallery / FAISS_FOLDER).exists()
    assert world.run(variant="hnsw").variant == "hnsw"
    built = index_of(world).card
    assert (built.variant, built.rows, built.version) == ("hnsw", 90, world.snapshot().version)
    # 4 of 94 are missing: less than a twentieth.
    world.rows = list(photos[:94])
    assert world.run(variant="hnsw").variant == "hnsw"
    assert index_of(world).card == built
    assert Searcher(world.snapshot(), index_of(world)).tail_rows == 4
    # 5 of 95 are more.
    world.rows = list(photos[:95])
    world.run(variant="hnsw")
    built = index_of(world).card
    assert (built.rows, built.version) == (95, world.snapshot().version)
    # Changed photos are missing as well.
    for number in range(5):
        world.change(number, box=Box(0, 0, 0.5, 0.5))
    assert counts(world.run(variant="hnsw")) == {"changed": 5, "unchanged": 90}
    assert index_of(world).card.version > built.version
    # Relabelled ones are not: their vectors are the same.
    built = index_of(world).card
    world.rows = [replace(item, labels={"a": ("b",)}) for item in world.items]
    assert counts(world.run(variant="hnsw")) == {"relabelled": 95}
    assert index_of(world).card == built
    assert Searcher(world.snapshot(), index_of(world)).tail_rows == 0


def test_another_variant_replaces_the_index_and_exact_removes_it(tmp_path: Path, photos: list[CatalogItem]) -> None:
    world = World(tmp_path, list(photos[:80]), FakeEncoder())
    world.run(variant="hnsw")
    assert world.run(variant="ivf").variant == "ivf"
    assert index_of(world).card.variant == "ivf"
    assert {path.name.partition("-")[0] for path in (world.gallery / FAISS_FOLDER).iterdir()} == {"ivf"}
    # `auto` chooses exact for so few.
    assert world.run().variant == "exact"
    assert list((world.gallery / FAISS_FOLDER).iterdir()) == []


def test_a_damaged_index_is_built_again(tmp_path: Path, photos: list[CatalogItem]) -> None:
    world = World(tmp_path, list(photos[:80]), FakeEncoder())
    world.run(variant="hnsw")
    (path,) = (world.gallery / FAISS_FOLDER).glob("*.faiss")
    path.write_bytes(path.read_bytes()[:-1])
    world.run(variant="hnsw")
    assert index_of(world).card.rows == 80


def test_a_stopped_run_leaves_the_index_alone(tmp_path: Path, photos: list[CatalogItem]) -> None:
    world = World(tmp_path, list(photos[:80]), FakeEncoder())
    world.run(variant="hnsw")
    assert world.run(is_stopped=lambda: True).interrupted
    assert index_of(world).card.variant == "hnsw"


KINDS = ("same", "touched", "changed", "relabelled", "moved", "gone", "new", "bad", "repeated")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.lists(st.sampled_from(KINDS), max_size=9))
def test_the_counts_add_up_whatever_happens_to_a_catalog(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str]
) -> None:
    """Something else happens to each row between two runs; each is counted once, and where it belongs."""
    world = make_world(tmp_path_factory.mktemp("property"), len(kinds))
    known = [number for number, kind in enumerate(kinds) if kind != "new"]
    whole, world.rows = world.rows, [world.rows[number] for number in known]
    world.run()
    world.rows, world.encoder = whole, FakeEncoder()
    extra: list[CatalogItem | BadRow] = []
    for number, kind in enumerate(kinds):
        item = world.items[number]
        path = path_of(item)
        if kind == "touched":
            os.utime(path, ns=(1, 1))
        elif kind == "changed":
            draw_photo(path, 100 + number)
        elif kind == "relabelled":
            world.change(number, labels={"n": (kind,)})
        elif kind == "moved":
            world.change(number, image=path.rename(path.with_name(f"moved-{path.name}")))
        elif kind == "gone":
            path.unlink()
        elif kind == "bad":
            extra.append(BadRow(Path("x"), number, kind))
        elif kind == "repeated":
            extra.append(item)
    world.rows += extra
    summary = world.run()
    amount = {kind: kinds.count(kind) for kind in KINDS}
    wanted = {
        "added": amount["new"],
        "changed": amount["changed"],
        "relabelled": amount["relabelled"] + amount["moved"],
        "unchanged": amount["same"] + amount["touched"] + amount["bad"] + amount["repeated"],
        "failed": amount["gone"] + amount["bad"] + amount["repeated"],
    }
    assert counts(summary) == {name: count for name, count in wanted.items() if count}
    assert summary.read == len(world.rows)
    assert summary.items == len(kinds)
    assert len(world.failures()) == summary.failed
    assert world.encoder.encoded == amount["new"] + amount["changed"]
