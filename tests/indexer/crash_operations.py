"""What the crash tests do to a gallery, and how they tell whether it is whole.

A scene is one folder: photos that never change, and galleries. Commits are small, so that an operation has many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from data.catalog import Catalog, CatalogItem
from indexer import edits, pipeline
from indexer import store as store_module
from indexer.encoders import EncoderCard
from indexer.failures import Failure, read_failures
from indexer.faiss_index import FAISS_FOLDER, FaissIndex
from indexer.migration import MigrationOptions, migrate, rollback
from indexer.pipeline import RunOptions
from indexer.promotion import is_unsettled
from indexer.renewal import refresh_index
from indexer.rows import ITEM_COLUMNS, STATE_COLUMNS, checksum, content_hash_of, key_of, vector_key
from indexer.searcher import Searcher
from indexer.snapshot import Snapshot
from indexer.store import TABLE, Store, writing
from indexer.verification import leftovers, verify
from tests.indexer.fakes import CARD, FakeEncoder, catalog_of, draw_photo

# Rows a commit; items a deletion.
_COMMIT, _DELETION = 8, 4
# No version older than the newest stays after a compaction: it has more to delete, and nobody is reading.
_AT_ONCE = timedelta(0)
_NEIGHBOURS = 5

OTHER_CARD = replace(CARD, name="fake-reversed", weights_sha256="1" * 64)

# What a row is, by item_id: a digest of all that is stored of it.
State = dict[str, str]


class NotingEncoder(FakeEncoder):
    """The fake encoder, which notes what it made.

    Args:
        made: What it and others made.
        is_other: Whether it is one that a gallery changes to: the same numbers in another order.
    """

    def __init__(self, made: set[int] | None = None, *, is_other: bool = False) -> None:
        super().__init__(OTHER_CARD if is_other else CARD)
        self.made = set() if made is None else made

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        embeddings = super().encode(pixels)
        if self.card == OTHER_CARD:
            embeddings = np.ascontiguousarray(embeddings[:, ::-1])
        self.made |= {embedding_key(embedding) for embedding in embeddings}
        return embeddings


def embedding_key(embedding: NDArray[np.float32]) -> int:
    """What an embedding is known by, whatever item it belongs to."""
    return key_of(embedding.tobytes())


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind of work on a gallery.

    Args:
        prepare: Makes the gallery that it starts from, given the scene and the gallery's folder.
        run: Does it, or what is left of it, given the same and an encoder.
        is_one_step: Whether a reader sees all of it or nothing.
    """

    prepare: Callable[[Path, Path], None]
    run: Callable[[Path, Path, NotingEncoder], None]
    is_one_step: bool = False


def draw_photos(scene: Path) -> None:
    """Draws the photos of a scene; one of them is not a photo."""
    for seed in range(70):
        draw_photo(_photo(scene, seed), seed)
    _photo(scene, 70).write_text("This is no photo.")


@contextmanager
def small_commits() -> Iterator[None]:
    """Makes commits so small that an operation on 50 rows has several."""
    with (
        mock.patch.object(pipeline, "_COMMIT", _COMMIT),
        mock.patch.object(store_module, "_DELETION", _DELETION),
        # So that a run compacts as well.
        mock.patch.object(store_module, "_FRAGMENT_LIMIT", 3),
    ):
        yield


def state_of(snapshot: Snapshot) -> State:
    """What each row is.

    Raises:
        AssertionError: A row is there twice, or is not whole.
    """
    records = snapshot.columns(*ITEM_COLUMNS, *STATE_COLUMNS).to_pylist()
    state: State = {}
    for record, embedding in zip(records, snapshot.embeddings(), strict=True):
        item_id = record["item_id"]
        assert item_id not in state, f"item {item_id} is there twice"
        assert checksum(record) == record["checksum"], f"the record of item {item_id} is not whole"
        assert vector_key(item_id, embedding) == record["vector_key"], f"the embedding of item {item_id} is not whole"
        if record["image"] is not None and Path(record["image"]).exists():
            assert content_hash_of(Path(record["image"]).read_bytes()) == record["content_hash"], item_id
        text = repr((sorted(record.items()), snapshot.card.fingerprint)).encode()
        state[item_id] = hashlib.sha256(text + embedding.tobytes()).hexdigest()
    return state


def check_search(folder: Path, snapshot: Snapshot) -> None:
    """Raises:
    AssertionError: The gallery's searcher and exact search give two answers. (The graph of so few rows is complete.)
    """
    queries = snapshot.embeddings()
    if not len(queries):
        return
    index = FaissIndex.load(folder / FAISS_FOLDER, snapshot.card)
    rows, distances = Searcher(snapshot, index).search(queries, _NEIGHBOURS)
    expected_rows, expected = Searcher(snapshot).search(queries, _NEIGHBOURS)
    assert np.array_equal(rows, expected_rows), "FAISS and exact search find other rows"
    assert np.allclose(distances, expected, atol=1e-6), "FAISS and exact search give other distances"


def state_after_kill(folder: Path) -> State | None:
    """What each row of a gallery is; None where there is no gallery yet.

    Raises:
        AssertionError: A row is there twice or not whole, or search is wrong.
        StoreError: The gallery does not open.
    """
    if not (folder / TABLE).is_dir():
        return None
    snapshot = Store(folder, freshness_s=0).snapshot()
    check_search(folder, snapshot)
    return state_of(snapshot)


def damage_of(folder: Path) -> list[str]:
    """What `verify` calls damage; a kill may leave notes, but no damage."""
    return [f"{one.place}: {one.sentence}" for one in verify(folder).findings if one.is_damage]


def leftovers_of(folder: Path) -> list[str]:
    """Half-made files that are left after a compaction."""
    with writing(folder):
        Store(folder, freshness_s=0).compact(_AT_ONCE)
    return [path.relative_to(folder).as_posix() for path in leftovers(folder)]


def failures_of(folder: Path) -> list[Failure]:
    """The list of failures, in order."""
    return sorted(read_failures(folder), key=lambda failure: failure.source)


def _photo(scene: Path, seed: int) -> Path:
    return scene / "photos" / f"{seed:02}.png"


def _item(scene: Path, number: int, label: str, seed: int | None = None) -> CatalogItem:
    return CatalogItem(f"i{number:02}", _photo(scene, number if seed is None else seed), labels={"type": (label,)})


def _old_catalog(scene: Path) -> Catalog:
    return catalog_of([_item(scene, number, f"t{number % 3}") for number in range(40)])


def _new_catalog(scene: Path) -> Catalog:
    """Of the old one six left, eight have another label and eight another photo; sixteen came, and one is no photo."""
    relabelled = [_item(scene, number, "other") for number in range(6, 14)]
    changed = [_item(scene, number, f"t{number % 3}", seed=number + 42) for number in range(14, 22)]
    same = [_item(scene, number, f"t{number % 3}") for number in range(22, 40)]
    added = [_item(scene, number, "new") for number in range(40, 56)]
    return catalog_of([*relabelled, *changed, *same, _item(scene, 70, "new"), *added])


def _index(catalog: Catalog, folder: Path, encoder: NotingEncoder, *, prune: bool = False) -> None:
    pipeline.refresh(catalog, folder, encoder.lazy, RunOptions(variant="hnsw", prune=prune))


def _nothing(scene: Path, folder: Path) -> None:
    """An operation that makes its gallery starts from none."""


def _prepare(scene: Path, folder: Path) -> None:
    _index(_old_catalog(scene), folder, NotingEncoder())


def _prepare_outdated(scene: Path, folder: Path) -> None:
    """A gallery whose FAISS index has missed changes and deletions."""
    _prepare(scene, folder)
    pipeline.refresh(_new_catalog(scene), folder, NotingEncoder().lazy, RunOptions(variant="hnsw", limit=20))
    with writing(folder):
        Store(folder, freshness_s=0).delete(["i00", "i39"])


def _prepare_faiss(scene: Path, folder: Path) -> None:
    _prepare(scene, folder)
    with writing(folder):
        Store(folder, freshness_s=0).delete([f"i{number:02}" for number in range(12)])


def _first_run(scene: Path, folder: Path, encoder: NotingEncoder) -> None:
    _index(_new_catalog(scene), folder, encoder)


def _refresh(scene: Path, folder: Path, encoder: NotingEncoder) -> None:
    _index(_new_catalog(scene), folder, encoder, prune=True)


def _delete(scene: Path, folder: Path, encoder: NotingEncoder) -> None:
    """Two deletions, of two commits each."""
    for numbers in (range(8), range(8, 16)):
        held = set(Store(folder, freshness_s=0).snapshot().columns("item_id").column(0).to_pylist())
        wanted = [item_id for item_id in (f"i{number:02}" for number in numbers) if item_id in held]
        if wanted:
            edits.delete_items(folder, wanted)


def _compact(scene: Path, folder: Path, encoder: NotingEncoder) -> None:
    with writing(folder):
        Store(folder, freshness_s=0).compact(_AT_ONCE)


def _write_faiss(scene: Path, folder: Path, encoder: NotingEncoder) -> None:
    refresh_index(Store(folder, freshness_s=0).snapshot(), folder, "hnsw")


def _prepare_rollback(scene: Path, folder: Path) -> None:
    """A gallery of another encoder, which has met photos since that the encoder before has not."""
    _prepare(scene, folder)
    _migrate(scene, folder, NotingEncoder())
    _index(_new_catalog(scene), folder, NotingEncoder(is_other=True), prune=True)


def _migrate(scene: Path, folder: Path, encoder: NotingEncoder) -> None:
    other = NotingEncoder(encoder.made, is_other=True)
    if _is_under_way(folder, other.card):
        migrate(folder, other.lazy, MigrationOptions(force=True))


def _rollback(scene: Path, folder: Path, encoder: NotingEncoder) -> None:
    if _is_under_way(folder, encoder.card):
        rollback(folder, load=lambda _: encoder)


def _is_under_way(folder: Path, wanted: EncoderCard) -> bool:
    """Whether a change of encoder has something left to do; done, it would refuse, or be undone."""
    return Store(folder, freshness_s=0).card.fingerprint != wanted.fingerprint or is_unsettled(folder)


OPERATIONS = {
    "index": Operation(_nothing, _first_run),
    "refresh": Operation(_prepare, _refresh),
    "delete": Operation(_prepare, _delete),
    "compact": Operation(_prepare_outdated, _compact),
    "faiss": Operation(_prepare_faiss, _write_faiss),
    "migrate": Operation(_prepare, _migrate, is_one_step=True),
    "rollback": Operation(_prepare_rollback, _rollback, is_one_step=True),
}
