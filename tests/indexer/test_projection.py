"""A projection knows places by vector key, is whole or not there, and is of one encoder."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from indexer import projection as projections
from indexer.projection import PROJECTION_FOLDER, Projection, ProjectionCard
from indexer.snapshot import StoreError
from tests.indexer.fakes import make_store, rows_of, unit_vectors

CARD = ProjectionCard("PCA", 5, 3, 2, "f00d", "2026-11-22T00:00:00+00:00")


def small(keys=(7, -2), places=((0.25, 0.5), (1, 0)), **changes):
    """A projection of two items, whose keys are not in order."""
    return Projection(np.array(places, np.float32), np.array(keys, np.int64), replace(CARD, **changes))


def card_file(folder):
    return folder / PROJECTION_FOLDER / "projection.json"


def arrays_file(folder):
    return next((folder / PROJECTION_FOLDER).glob("*.safetensors"))


def test_places_are_found_by_key():
    places = small().places_of(np.array([-2, 8, 7, -3, 3]))
    # 8, -3 and 3 lie above, below and between what there is.
    np.testing.assert_array_equal(places, np.array([[1, 0], [np.nan] * 2, [0.25, 0.5], [np.nan] * 2, [np.nan] * 2]))
    assert places.dtype == np.float32
    assert small().places_of(np.array([], np.int64)).shape == (0, 2)


def test_what_is_saved_is_what_is_loaded(tmp_path):
    saved = small()
    saved.save(tmp_path)
    loaded = Projection.load(tmp_path, "f00d")
    assert loaded.card == saved.card
    assert loaded.card.sha256
    assert loaded.places_of(np.array([7])).tolist() == [[0.25, 0.5]]
    assert {path.name for path in tmp_path.iterdir()} - {".projection.lock"} == {PROJECTION_FOLDER}


def test_a_new_one_takes_the_place_of_the_old_one(tmp_path):
    assert Projection.signature(tmp_path) == ()
    small().save(tmp_path)
    (tmp_path / PROJECTION_FOLDER / "places-0.safetensors.tmp").write_text("of a run that was killed")
    before = Projection.signature(tmp_path)
    assert len(before) == 4
    assert Projection.signature(tmp_path) == before
    small(places=((0, 0), (0, 1)), version=4).save(tmp_path)
    assert Projection.signature(tmp_path) != before
    loaded = Projection.load(tmp_path, "f00d")
    assert loaded.card.version == 4
    assert loaded.places_of(np.array([-2])).tolist() == [[0, 1]]
    assert len(list((tmp_path / PROJECTION_FOLDER).iterdir())) == 2


def test_none_and_one_of_another_encoder_are_as_if_there_were_none(tmp_path):
    assert Projection.load(tmp_path, "f00d") is None
    small().save(tmp_path)
    assert Projection.load(tmp_path, "beef") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: arrays_file(folder).unlink(),
        lambda folder: arrays_file(folder).write_bytes(arrays_file(folder).read_bytes()[:-1]),
        lambda folder: arrays_file(folder).write_bytes(arrays_file(folder).read_bytes()[:-1] + b"\1"),
        lambda folder: card_file(folder).unlink(),
        lambda folder: card_file(folder).write_text(""),
        lambda folder: card_file(folder).write_text("[]"),
        lambda folder: card_file(folder).write_text("{}"),
        lambda folder: card_file(folder).write_bytes(b"\xff"),
        lambda folder: card_file(folder).write_text(card_file(folder).read_text().replace("PCA", "PCB")),
    ],
)
def test_a_damaged_one_is_as_if_there_were_none(tmp_path, damage):
    small().save(tmp_path)
    damage(tmp_path)
    assert Projection.load(tmp_path, "f00d") is None
    # And can be drawn again.
    small().save(tmp_path)
    assert Projection.load(tmp_path, "f00d") is not None


def test_one_of_another_format_is_as_if_there_were_none(tmp_path):
    small(format=2).save(tmp_path)
    assert Projection.load(tmp_path, "f00d") is None
    assert json.loads(card_file(tmp_path).read_text())["format"] == 2


def test_where_it_cannot_be_written_the_one_before_stays(tmp_path, monkeypatch):
    small().save(tmp_path)

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(projections, "replace_file", full)
    with pytest.raises(StoreError, match=r"The projection of .* could not be written: There is no room on the disk"):
        small(version=4).save(tmp_path)
    assert Projection.load(tmp_path, "f00d").card.version == 3


def test_one_is_drawn_of_a_gallery_and_outlasts_its_edits(tmp_path):
    store = make_store(tmp_path / "g", unit_vectors(5, 4))
    snapshot = store.snapshot()
    told = []
    drawn = Projection.draw(snapshot, seed=3, tell=lambda *what: told.append(what))
    assert told[-1] == (10, 10, "reducing embeddings")
    assert (drawn.card.method, drawn.card.seed, drawn.card.items) == ("PCA", 3, 5)
    assert (drawn.card.version, drawn.card.encoder) == (snapshot.version, snapshot.card.fingerprint)
    before = drawn.places_of(snapshot.columns("vector_key")["vector_key"].to_numpy())
    assert np.isfinite(before).all()
    # One goes and one comes: rows move, places do not.
    store.delete(["i00001"])
    store.upsert(rows_of(unit_vectors(6, 4, seed=9))[5:])
    ids = store.snapshot().columns("item_id").column(0).to_pylist()
    after = drawn.places_of(store.snapshot().columns("vector_key")["vector_key"].to_numpy())
    at = dict(zip(ids, after.tolist(), strict=True))
    assert [at[f"i{number:05}"] for number in (0, 2, 3, 4)] == before[[0, 2, 3, 4]].tolist()
    assert np.isnan(at["i00005"]).all()
