"""What the jobs that change nothing find, in the words of the API, and that they are told from defects."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from heads.checks import HeadError
from indexer.faiss_index import FAISS_FOLDER, FaissIndex
from indexer.filters import FilterError
from indexer.layout import LayoutError
from indexer.projection import Projection
from indexer.snapshot import GalleryNotFoundError
from service.conversion import item_answer
from service.examples import JOB
from service.job_findings import LISTED_ITEMS
from service.job_options import DuplicatesJob, ProjectJob, SuspectsJob
from service.job_process import Work, do, sentence_of
from service.suspects import find_suspects
from tests.indexer.fakes import make_store, unit, unit_vectors
from tests.service.engines import WORLD, engine_over, ticket
from tests.service.galleries import make_gallery, make_typed


def work_on(folder, options):
    """What was found, in this process, and what was said meanwhile."""
    told = []
    found = do(Work(folder, options, 0.0), told.append, bool)
    json.dumps(found, allow_nan=False)
    return found, told


# The projection


def test_a_projection_is_drawn_and_kept(tmp_path):
    store = make_store(tmp_path / "g", unit_vectors(5, 8))
    found, told = work_on(store.folder, ProjectJob(seed=4))
    seconds = found.pop("seconds")
    assert found == {"gallery_version": store.snapshot().version, "items": 5, "method": "PCA"}
    assert isinstance(seconds, float)
    assert Projection.load(store.folder, store.card.fingerprint).card.seed == 4
    assert [one.message for one in told] == ["opening the gallery", "reading embeddings", "reducing embeddings", "over"]
    assert (told[-1].done, told[-1].total) == (5, 5)


def test_an_empty_gallery_is_told_so(tmp_path):
    store = make_store(tmp_path / "g", np.empty((0, 8), np.float32))
    with pytest.raises(LayoutError) as caught:
        work_on(store.folder, ProjectJob())
    assert sentence_of(caught.value) == str(caught.value)
    assert Projection.signature(store.folder) == ()


@pytest.mark.parametrize("options", [ProjectJob(), SuspectsJob("type"), DuplicatesJob()])
def test_a_folder_that_is_no_gallery_is_told_so(tmp_path, options):
    with pytest.raises(GalleryNotFoundError, match="is no gallery"):
        work_on(tmp_path, options)


# Suspects


def test_suspects_are_those_that_are_found_the_first_of_them_listed(tmp_path):
    gallery = make_typed(tmp_path / "g", 60, spread=0.05)
    labels = [next(iter(one.labels["type"])) for one in gallery.items(np.arange(60))]
    # Two items are labelled as what they are not.
    wrong = [
        {"NA": "dress", "dress": "skirt", "skirt": "NA"}[label] if n in (4, 5) else label
        for n, label in enumerate(labels)
    ]
    gallery = make_gallery(tmp_path / "h", gallery.snapshot.embeddings(), wrong)
    every = find_suspects(gallery, "type")
    assert {one.item.item_id for one in every} == {"i00004", "i00005"}
    found, told = work_on(gallery.folder, SuspectsJob("type"))
    listed = found.pop("suspects")
    assert found == {"gallery_version": gallery.snapshot.version, "target": "type", "found": 2}
    assert [each["item"]["item_id"] for each in listed] == [one.item.item_id for one in every]
    assert listed[0] == {
        "item": json.loads(json.dumps(asdict(item_answer(every[0].item)))),
        "label": every[0].label,
        "probability": every[0].probability,
        "suggested": every[0].suggested,
        "suggested_probability": every[0].suggested_probability,
    }
    assert "asking heads about each type, fitted on other items" in [one.message for one in told]
    assert told[-1].message == "over"
    one, _ = work_on(gallery.folder, SuspectsJob("type", limit=1))
    assert (one["found"], one["suspects"]) == (2, listed[:1])


def test_a_target_that_has_no_suspects_is_told(tmp_path):
    gallery = make_gallery(tmp_path / "g", WORLD[:4], [("a", "b"), "a", "b", "a"])
    with pytest.raises(FilterError, match="no target 'tpye'"):
        work_on(gallery.folder, SuspectsJob("tpye"))
    with pytest.raises(HeadError, match="items have several in 'type'") as caught:
        work_on(gallery.folder, SuspectsJob("type"))
    assert sentence_of(caught.value) == str(caught.value)


# Duplicates


def at(*degrees):
    """Embeddings at these angles; two are 1 - cos(difference) apart: 0.0002 at 1 degree, 0.015 at 10."""
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_duplicates_are_groups_with_distances(tmp_path):
    gallery = make_gallery(tmp_path / "g", at(0, 1, 90, 91, 180), ["a"] * 5)
    found, told = work_on(gallery.folder, DuplicatesJob(max_distance=0.001))
    groups = found.pop("groups")
    assert found == {"gallery_version": gallery.snapshot.version, "max_distance": 0.001, "found": 2, "sizes": [2, 2]}
    assert [[(one["item"]["item_id"], one["kind"]) for one in group] for group in groups] == [
        [("i00000", "first"), ("i00001", "near")],
        [("i00002", "first"), ("i00003", "near")],
    ]
    assert groups[0][0]["distance"] == 0
    assert groups[0][1]["distance"] == pytest.approx(1 - np.cos(np.deg2rad(1)), abs=1e-6)
    assert groups[0][0]["item"] == {
        **{"item_id": "i00000", "product_id": None, "labels": {"type": ["a"]}, "box": None, "split": None},
    }
    assert told[-2].message == "comparing photos; groups found: 2"
    assert (told[-1].done, told[-1].message) == (5, "over")
    first, _ = work_on(gallery.folder, DuplicatesJob(0.001, limit=1))
    assert (first["found"], first["groups"], first["sizes"]) == (2, groups[:1], [2])


def test_without_a_distance_the_encoder_has_one_or_copies_alone_are_found(tmp_path, monkeypatch):
    gallery = make_gallery(tmp_path / "g", at(0, 1), ["a"] * 2)
    # Nobody has looked at the test's own encoder.
    found, _ = work_on(gallery.folder, DuplicatesJob())
    assert (found["max_distance"], found["groups"]) == (None, [])
    monkeypatch.setattr("indexer.duplicates.known_distance", lambda card: 0.02 if card == gallery.card else None)
    found, _ = work_on(gallery.folder, DuplicatesJob())
    assert (found["max_distance"], found["found"]) == (0.02, 1)
    # 0 is a distance.
    assert work_on(gallery.folder, DuplicatesJob(0.0))[0]["max_distance"] == 0


def test_a_large_group_is_listed_in_part_and_counted_in_whole(tmp_path):
    count = LISTED_ITEMS + 3
    gallery = make_gallery(tmp_path / "g", unit(np.ones((count, 2))), ["a"] * count)
    found, _ = work_on(gallery.folder, DuplicatesJob(0.1))
    assert ([len(group) for group in found["groups"]], found["sizes"], found["found"]) == ([LISTED_ITEMS], [count], 1)


def test_duplicates_are_looked_for_through_the_index_where_there_is_one(tmp_path, monkeypatch):
    gallery = make_gallery(tmp_path / "g", at(0, 1, 90, 180), ["a"] * 4)
    FaissIndex.build(gallery.snapshot, "hnsw").save(gallery.folder / FAISS_FOLDER)
    asked = []
    original = FaissIndex.load
    monkeypatch.setattr(FaissIndex, "load", lambda *given: asked.append(given) or original(*given))
    assert work_on(gallery.folder, DuplicatesJob(0.001))[0]["found"] == 1
    assert asked == [(gallery.folder / FAISS_FOLDER, gallery.card)]


# Beside the service


@pytest.mark.parametrize("kind", ["project", "suspects", "duplicates"])
def test_edits_go_on_beside_a_job_that_changes_nothing(tmp_path, monkeypatch, kind):
    gallery = make_gallery(tmp_path / "g", WORLD[:4], ["dress", "skirt"] * 2)
    with engine_over(gallery.folder) as engine:
        monkeypatch.setattr(engine.jobs, "all", lambda: [replace(JOB, kind=kind, state="running")])
        assert engine.relabel("i00000", {"type": ("skirt",)}, new_targets=False, ticket=ticket()).item.labels == {
            "type": ["skirt"]
        }
