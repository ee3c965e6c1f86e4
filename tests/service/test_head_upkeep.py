"""Heads beside a gallery's upkeep: it neither touches nor minds them, and they know which encoder they belong to."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.catalog import CatalogItem
from heads.checks import HeadError
from indexer.compaction import compact
from indexer.edits import delete_items
from indexer.migration import MigrationOptions, migrate, rollback
from indexer.pipeline import RunOptions, refresh
from indexer.repair import repair
from indexer.store import writing
from indexer.verification import verify
from service.classification import Classifier, ClassifyOptions
from service.head_store import HEADS_FOLDER, HeadNotFoundError, fitted_targets
from service.training_set import staleness
from tests.indexer.fakes import FakeEncoder, catalog_of, item, noise_encoder
from tests.service.galleries import fit, load, reopen

COLOURS = ("red", "green", "blue")


def draw(folder: Path, number: int) -> CatalogItem:
    """An old photo of noise in the colour that it is labelled with."""
    path = folder / "photos" / f"{number:03}.png"
    path.parent.mkdir(exist_ok=True)
    pixels = np.zeros((40, 24, 3), np.uint8)
    pixels[..., number % 3] = 200
    pixels += np.random.default_rng(number).integers(0, 56, pixels.shape, np.uint8)
    Image.fromarray(pixels).save(path)
    os.utime(path, (10**9, 10**9))
    return replace(item(number), image=path, labels={"type": (COLOURS[number % 3],)})


def heads_in(folder: Path) -> dict[str, bytes]:
    """The files of a gallery's heads, with the lock."""
    paths = [folder / ".heads.lock", *(folder / HEADS_FOLDER).rglob("*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gallery by an encoder that is no better than chance, with two heads."""
    items = [draw(tmp_path, number) for number in range(36)]
    place = tmp_path / "gallery"
    refresh(catalog_of(items), place, noise_encoder().lazy, RunOptions())
    fit(reopen(place), "knn", "linear")
    return place


def test_verify_compact_and_repair_leave_heads_alone(folder: Path) -> None:
    heads = heads_in(folder)
    assert len(heads) == 2 * 2 + 1
    assert verify(folder).findings == []
    done = repair(folder)
    assert (done.done, done.undone, done.lost) == ([], [], [])
    delete_items(folder, ["i00003"])
    compact(folder, forget_previous=True)
    assert heads_in(folder) == heads
    assert verify(folder).findings == []
    # Nor does a repair touch them that has something to do.
    (folder / "checksums.tsv").write_text("torn")
    assert repair(folder).done
    assert heads_in(folder) == heads
    assert load(reopen(folder), "knn").card.items == 36


def test_heads_are_saved_while_another_writes(folder: Path) -> None:
    """Of the gallery's items they change nothing, so a long run of the indexer does not hold them up."""
    with writing(folder):
        assert fit(reopen(folder), "knn")["knn"].before is not None


def migrated(folder: Path) -> FakeEncoder:
    """The encoder that the gallery has now."""
    encoder = FakeEncoder()
    assert migrate(folder, encoder.lazy, MigrationOptions()).promoted
    return encoder


def rolled_back(folder: Path) -> None:
    assert rollback(folder, lambda _: noise_encoder()).promoted


def test_another_encoder_s_heads_stay_and_are_refused_by_name(folder: Path) -> None:
    heads = heads_in(folder)
    migrated(folder)
    assert heads_in(folder) == heads
    now = reopen(folder)
    for kind in ("knn", "linear"):
        with pytest.raises(
            HeadError, match=rf"The {kind} head of 'type' was fitted on embeddings of fake-noise, .* \(fake-histogram\)"
        ):
            load(now, kind)
    with pytest.raises(HeadNotFoundError, match="has no head of this encoder; fitted are type: knn, linear"):
        fitted_targets(folder, now.card)
    assert verify(folder).findings == []


def test_after_a_rollback_they_answer_as_before(folder: Path) -> None:
    heads = heads_in(folder)
    queries = noise_encoder().encode(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8))
    options = ClassifyOptions()
    answers = Classifier(reopen(folder), [load(reopen(folder), "knn")], options).ask(queries)
    migrated(folder)
    rolled_back(folder)
    assert heads_in(folder) == heads
    now = reopen(folder)
    head = load(now, "knn")
    assert Classifier(now, [head], options).ask(queries) == answers
    stale = staleness(head, now)
    assert (stale.versions, stale.is_stale) == (2, False)


def test_a_fit_with_the_new_encoder_takes_their_place(folder: Path) -> None:
    """There is one head of a target and kind: after a rollback the gallery's are to be fitted again."""
    migrated(folder)
    now = reopen(folder)
    refit = fit(now, "linear")["linear"]
    assert refit.before is None
    assert fitted_targets(folder, now.card) == ["type"]
    assert load(now, "linear").card.validation["accuracy"] == 1
    rolled_back(folder)
    with pytest.raises(HeadError, match=r"The linear head of 'type' was fitted on embeddings of fake-histogram"):
        load(reopen(folder), "linear")
    assert load(reopen(folder), "knn").card.encoder == "fake-noise"


def test_indexing_again_leaves_heads_alone(folder: Path) -> None:
    heads = heads_in(folder)
    items = [draw(folder.parent, number) for number in range(40)]
    refresh(catalog_of(items), folder, noise_encoder().lazy, RunOptions())
    assert heads_in(folder) == heads
    stale = staleness(load(reopen(folder), "linear"), reopen(folder))
    assert (stale.added, stale.removed, stale.relabelled) == (4, 0, 0)
