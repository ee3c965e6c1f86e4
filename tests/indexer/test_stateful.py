"""A gallery against plain dicts (gallery_model.py): whatever is done to it, it holds the same and answers the same.

This is the gate on every upgrade of LanceDB, Lance and FAISS. `make model` does many more and longer sequences.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from numpy.typing import NDArray

from data.catalog import BadRow, Box, CatalogItem, Labels
from indexer import pipeline, store
from indexer.edits import EditError, add_photos, delete_items, forget_corrections, relabel_item
from indexer.failures import read_failures
from indexer.faiss_index import FAISS_FOLDER
from indexer.filters import FilterError
from indexer.gallery import Gallery
from indexer.migration import MigrationOptions, NothingToUndoError, migrate, rollback
from indexer.pipeline import PruneRefusedError, RunOptions, refresh
from indexer.renewal import refresh_index
from indexer.rows import Row
from indexer.store import Store, writing
from indexer.verification import verify
from tests.indexer.fakes import catalog_of, unit_vectors
from tests.indexer.gallery_model import (
    BROKEN,
    DIMENSIONS,
    NO_PHOTO,
    PHOTOS,
    Build,
    Held,
    Rows,
    Shelf,
    check_answer,
    check_rows,
    counts_of,
    duplicates,
    embedding,
    encoder,
    photo,
    placed,
    refreshed,
)

# `make model` sets it.
EXAMPLES = int(os.environ.get("MODISTE_MODEL_EXAMPLES", "0"))
SETTINGS = settings(
    max_examples=EXAMPLES or 40,
    stateful_step_count=50 if EXAMPLES else 25,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

IDS = ["a", "b", "it's", 'say "no"', "träger/1", "服", "a, b", "c"]
BARE_IDS = ["a", "it's", "bare 1", "bare 2", "bare 3", "bare 4"]
TARGETS, NAMES, SPLITS = ["colour", "it's; a type"], ["red", "blue", "navy, blue"], [None, "train", "test"]
BOXES = [None, None, Box(0, 0.25, 1, 0.5), Box(0, 0, 0.5, 1)]

ids = st.sampled_from(IDS)
all_ids = st.sampled_from(sorted({*IDS, *BARE_IDS}))
numbers = st.integers(0, PHOTOS - 1)
labels = st.dictionaries(
    st.sampled_from(TARGETS),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True).map(tuple),
    max_size=2,
)
records = st.builds(
    CatalogItem,
    item_id=ids,
    image=st.just(b""),
    product_id=st.sampled_from([None, "p", "q"]),
    labels=labels,
    box=st.sampled_from(BOXES),
    split=st.sampled_from(SPLITS),
)
changes = st.tuples(
    st.sampled_from(
        ["put", "photo", "photo", "touch", "rename", "record", "split", "box", "bytes", "drop", "break", "lose"]
    ),
    records,
    st.sampled_from([*range(PHOTOS), BROKEN, NO_PHOTO]),
)
extras = st.sampled_from(["", "", "bad row", "repeated"])


class GalleryMachine(RuleBasedStateMachine):
    """One gallery, what it should hold, and readers of earlier versions."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.gallery = self.folder / "gallery"
        self.shelf = Shelf(self.folder / "photos")
        self.shelf.folder.mkdir()
        self.held = Build(0)
        self.builds: dict[str, Build | None] = {"next": None, "previous": None}
        self.failures: list[tuple[str | None, str]] = []
        self.readers: list[tuple[Gallery, Rows]] = []
        self.version = 0
        self.steps = 0
        self.is_checked = False

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(many=st.lists(st.tuples(records, numbers), min_size=3, max_size=8))
    def index(self, many: list[tuple[CatalogItem, int]]) -> None:
        for record, number in many:
            self.shelf.change("put", record, number)
        self.run({"variant": "hnsw"}, "")
        self.reopen()

    @rule(many=st.lists(changes, min_size=1, max_size=5))
    def change_catalog(self, many: list[tuple[str, CatalogItem, int]]) -> None:
        for kind, record, number in many:
            self.shelf.change(kind, record, number)
        self.is_checked = True

    @rule(
        many=st.lists(changes, max_size=5),
        prune=st.sampled_from([{}, {}, {"prune": True}, {"prune": True, "force_prune": True}, {"limit": 2}]),
        rehash=st.booleans(),
        variant=st.sampled_from(["hnsw", "hnsw", "hnsw", "auto"]),
        extra=extras,
    )
    def refresh(self, many: Any, prune: dict[str, Any], rehash: bool, variant: str, extra: str) -> None:
        self.change_catalog(many)
        self.run({**prune, "rehash": rehash, "variant": variant}, extra)

    # A build that has seen the file goes by its time too, and only a refresh can be told not to.
    @precondition(lambda self: not any(self.builds.values()))
    @rule(data=st.data(), number=numbers)
    def rehash_what_looks_the_same(self, data: st.DataObject, number: int) -> None:
        paths = sorted(item.image for item in self.shelf.catalog.values() if isinstance(item.image, Path))
        path = data.draw(st.sampled_from([path for path in paths if path.exists()] or [self.shelf.write(photo(0))]))
        size, times = path.stat().st_size, path.stat().st_mtime_ns
        # A PNG ends where it says; what follows is only there for the size.
        content = photo(number)[:size].ljust(size, b"\0")
        path.write_bytes(content)
        os.utime(path, ns=(times, times))
        self.run({"rehash": True, "variant": "hnsw"}, "")

    @rule(many=st.lists(st.tuples(all_ids, numbers, labels), min_size=1, max_size=3, unique_by=lambda one: one[0]))
    def add(self, many: list[tuple[str, int, Labels]]) -> None:
        known = self.held.rows
        items = []
        for item_id, number, given in many:
            own = known.get(item_id) or self.shelf.catalog.get(item_id)
            image = own.item.image if isinstance(own, Held) else own.image if own else self.shelf.write(photo(number))
            items.append(CatalogItem(item_id, image, labels=given))
        by_hand = [item for item in items if item.item_id in known and known[item.item_id].corrected & {*item.labels}]
        coder = encoder(self.held.coder)
        if by_hand:
            with pytest.raises(EditError, match="was set by hand"):
                add_photos(items, self.gallery, coder.lazy, new_targets=True)
            return
        joined = [self._joined(item) for item in items]
        self.held.rows, counts = refreshed(self.held, joined)
        summary, failures = add_photos(items, self.gallery, coder.lazy, new_targets=True)
        assert (summary.added, summary.changed) == (counts.added, counts.changed)
        assert (summary.relabelled, summary.unchanged) == (counts.relabelled, counts.unchanged)
        assert sorted((str(one.item_id), one.source) for one in failures) == sorted(map(tuple_of, counts.failures))

    @rule(item_id=all_ids, given=labels, taken=st.sampled_from([None, *TARGETS]))
    def relabel(self, item_id: str, given: Labels, taken: str | None) -> None:
        given = given if taken is None else {**given, taken: ()}
        held = self.held.rows.get(item_id)
        if held is None:
            with pytest.raises(EditError, match="has no item"):
                relabel_item(self.gallery, item_id, given, new_targets=True)
            return
        kept = {target: names for target, names in {**held.item.labels, **given}.items() if names}
        item = replace(held.item, labels=kept)
        assert relabel_item(self.gallery, item_id, given, new_targets=True) == item
        self.held.rows[item_id] = replace(held, item=item, corrected=held.corrected | {*given})

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        item_id = data.draw(st.sampled_from(sorted(self.held.rows) or ["a"]))
        if item_id in self.held.rows:
            assert forget_corrections(self.gallery, item_id) == self.held.rows[item_id].item
            self.held.rows[item_id] = replace(self.held.rows[item_id], corrected=frozenset(), record=None)

    @rule(item_ids=st.lists(all_ids, min_size=1, max_size=3))
    def delete(self, item_ids: list[str]) -> None:
        if not {*item_ids} <= {*self.held.rows}:
            with pytest.raises(EditError, match="nothing was deleted"):
                delete_items(self.gallery, item_ids)
            return
        self._drop(item_ids)
        assert delete_items(self.gallery, item_ids) == len(self.held.rows)

    @rule(item_ids=st.lists(st.sampled_from(BARE_IDS), min_size=1, max_size=4, unique=True), given=labels, seed=numbers)
    def upsert_rows(self, item_ids: list[str], given: Labels, seed: int) -> None:
        vectors = unit_vectors(len(item_ids), DIMENSIONS[self.held.coder], seed=seed)
        items = [CatalogItem(item_id, Path(f"/photos/{item_id}"), labels=given) for item_id in item_ids]
        with writing(self.gallery):
            rows = [Row(item, f"of {seed}", 100, 1, one) for item, one in zip(items, vectors, strict=True)]
            assert self.store.upsert(rows) > self.version
        for row in rows:
            self.held.rows[row.item.item_id] = Held(row.item, row.content_hash, row.embedding, record=row.item)

    @rule(item_ids=st.lists(all_ids, max_size=3))
    def delete_rows(self, item_ids: list[str]) -> None:
        with writing(self.gallery):
            self.store.delete(item_ids)
        self._drop(item_ids)

    @rule(whole=st.booleans())
    def compact(self, whole: bool) -> None:
        with writing(self.gallery):
            if whole:
                self.store.compact()
            else:
                self.store.optimize()

    @rule()
    def rebuild(self) -> None:
        with writing(self.gallery):
            variant = refresh_index(self.store.snapshot(), self.gallery, "hnsw")
        assert variant == ("hnsw" if self.held.rows else "exact")

    @rule(kind=st.sampled_from([".faiss", ".json"]))
    def lose_index(self, kind: str) -> None:
        for path in (self.gallery / FAISS_FOLDER).glob(f"*{kind}"):
            path.unlink()

    @rule()
    def reopen(self) -> None:
        self.store = Store(self.gallery, freshness_s=0)

    @rule()
    def open_reader(self) -> None:
        self.readers = [*self.readers[-1:], (Gallery(self.gallery), dict(self.held.rows))]

    @rule(force=st.booleans())
    def change_encoder(self, force: bool) -> None:
        coder = 1 - self.held.coder
        build = self.builds["next"]
        discard = build is not None and build.coder != coder
        if build is None or discard:
            build = Build(coder)
        rows, counts = refreshed(build, [held.item for held in self.held.rows.values()])
        build.rows = {item_id: row for item_id, row in rows.items() if item_id in self.held.rows}
        new = placed(self.held.rows, build, same_photo=False)
        done = migrate(self.gallery, encoder(coder).lazy, MigrationOptions(force=force, discard=discard))
        assert done.encoded == counts.added + counts.changed
        assert (done.lost, done.promoted) == (len(self.held.rows) - len(new), force)
        self.builds["next"] = build
        if force:
            self._promoted("next", new)

    @rule(force=st.booleans())
    def change_back(self, force: bool) -> None:
        build, rows = self.builds["previous"], self.held.rows
        options = MigrationOptions(force=force)
        if build is None:
            with pytest.raises(NothingToUndoError):
                rollback(self.gallery, lambda _: encoder(0), options)
            return
        new = placed(rows, build, same_photo=True)
        if len(new) < len(rows):
            after, _ = refreshed(build, [held.item for held in rows.values()])
            build.rows = {item_id: row for item_id, row in after.items() if item_id in rows}
            new = placed(rows, build, same_photo=False)
        done = rollback(self.gallery, lambda _: encoder(1 - self.held.coder), options)
        assert (done.lost, done.promoted) == (len(rows) - len(new), force or len(new) == len(rows))
        if done.promoted:
            self._promoted("previous", new)

    @rule(
        data=st.data(),
        kind=st.sampled_from(["photo", "random", "item"]),
        number=numbers,
        k=st.sampled_from([1, 2, 5, 10, 100]),
        group_by_product=st.booleans(),
        max_distance=st.sampled_from([None, None, 0.05, 0.6]),
    )
    def search(self, data: st.DataObject, kind: str, number: int, k: int, **options: Any) -> None:
        readers = [(Gallery(self.gallery, self.store), self.held.rows), *self.readers]
        gallery, rows = readers[data.draw(st.integers(0, len(readers) - 1))]
        where = data.draw(st.dictionaries(st.sampled_from([*TARGETS, "split"]), wanted_labels, max_size=2))
        options["where"] = where
        known = counts_of(rows)
        item_id = data.draw(st.sampled_from(sorted(rows))) if kind == "item" and rows else None
        query = self._query(gallery, number, is_photo=kind == "photo") if item_id is None else rows[item_id].vector
        if any(name not in known.get(target, {}) for target, names in where.items() for name in names):
            with pytest.raises(FilterError):
                gallery.neighbours(query, k, **options)
        elif item_id is None:
            check_answer(gallery.neighbours(query, k, **options), rows, query, k, **options)
        else:
            check_answer(gallery.neighbours_of(item_id, k, **options), rows, query, k, exclude=item_id, **options)

    @rule()
    def verify(self) -> None:
        report = verify(self.gallery)
        assert report.is_whole
        # What a lost file of the index and a migration that was refused leave; nothing half-made, unnoted or of nobody.
        assert {finding.kind for finding in report.findings} <= {"missing", "outdated", "gone"}
        builds = [build for build in self.builds.values() if build]
        assert report.rows == len(self.held.rows)
        assert sum((self.gallery / name).exists() for name in self.builds) == len(builds)

    @invariant()
    def everything_is_there(self) -> None:
        if self.is_checked:
            self.is_checked = False
            return
        self.steps += 1
        opened = Gallery(self.gallery, Store(self.gallery, freshness_s=0))
        fresh = opened.snapshot
        assert fresh.version == self.store.version >= self.version
        assert self.store.card == fresh.card == encoder(self.held.coder).card
        self.version = fresh.version
        for gallery, rows in [(opened, self.held.rows), *self.readers]:
            check_rows(gallery.snapshot, rows)
            query = self._query(gallery, self.steps % PHOTOS, is_photo=self.steps % 2 == 0)
            check_answer(gallery.neighbours(query, 3), rows, query, 3)
        assert sorted(tuple_of((one.item_id, one.source)) for one in read_failures(self.gallery)) == self.failures
        assert not list(self.gallery.rglob("*.tmp"))

    def run(self, options: dict[str, Any], extra: str) -> None:
        """Refreshes the gallery and the dict, and compares what is said of it."""
        rows: list[CatalogItem | BadRow] = [*self.shelf.catalog.values()]
        if extra == "bad row":
            rows.insert(1, BadRow(Path("rows.csv"), 3, "The row has no photo."))
        elif extra == "repeated" and rows:
            rows.append(rows[0])
        rows = rows[: options.get("limit")]
        before = self.held.rows
        after, counts = refreshed(self.held, rows)
        gone = [item_id for item_id in before if item_id not in {getattr(row, "item_id", None) for row in rows}]
        is_refused = "prune" in options and "force_prune" not in options and 2 * len(gone) > len(before)
        is_pruned = "prune" in options and not is_refused
        self.held.rows = {item_id: row for item_id, row in after.items() if not (is_pruned and item_id in gone)}
        self.failures = sorted(map(tuple_of, counts.failures))
        coder = encoder(self.held.coder)
        given = catalog_of(rows)
        if is_refused:
            with pytest.raises(PruneRefusedError, match="more than half"):
                refresh(given, self.gallery, coder.lazy, RunOptions(**options))
        else:
            summary = refresh(given, self.gallery, coder.lazy, RunOptions(**options))
            assert (summary.added, summary.changed) == (counts.added, counts.changed)
            assert (summary.relabelled, summary.unchanged) == (counts.relabelled, counts.unchanged)
            assert (summary.failed, summary.unsettled) == (len(counts.failures), 0)
            assert summary.pruned == (len(gone) if is_pruned else 0)
            assert summary.absent == (0 if is_pruned or "limit" in options else len(gone))
            assert (summary.duplicates, summary.items) == (duplicates(self.held.rows), len(self.held.rows))
            is_indexed = options.get("variant") == "hnsw" and self.held.rows
            assert summary.variant == ("hnsw" if is_indexed else "exact")
        assert coder.encoded == counts.added + counts.changed
        assert coder.loads <= 1

    def _joined(self, item: CatalogItem) -> CatalogItem:
        held = self.held.rows.get(item.item_id)
        return item if held is None else replace(held.item, labels={**held.item.labels, **item.labels})

    def _drop(self, item_ids: Sequence[str]) -> None:
        for item_id in item_ids:
            self.held.rows.pop(item_id, None)

    def _promoted(self, name: str, rows: Rows) -> None:
        self.builds[name] = None
        self.builds["previous"] = self.held
        self.held = Build(1 - self.held.coder, rows)

    @staticmethod
    def _query(gallery: Gallery, number: int, *, is_photo: bool) -> NDArray[np.float32]:
        coder = DIMENSIONS.index(gallery.card.dimension)
        query = (
            embedding(photo(number), None, coder) if is_photo else unit_vectors(1, DIMENSIONS[coder], seed=number)[0]
        )
        assert query is not None
        return query


wanted_labels = st.lists(st.sampled_from([*NAMES, "train", "test"]), min_size=1, max_size=2, unique=True).map(tuple)


def tuple_of(failure: tuple[str | None, str]) -> tuple[str, str]:
    return str(failure[0]), failure[1]


def test_a_gallery_is_what_the_dicts_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Durability is tested elsewhere (test_store.py, crash.py); here it would be two thirds of the time.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    # So that eight photos are several commits, several blocks, and soon too many fragments.
    monkeypatch.setattr(pipeline, "_COMMIT", 3)
    monkeypatch.setattr(pipeline, "_BLOCK", 4)
    monkeypatch.setattr(store, "_FRAGMENT_LIMIT", 6)
    run_state_machine_as_test(lambda: GalleryMachine(tmp_path), settings=SETTINGS)  # type: ignore[no-untyped-call]
