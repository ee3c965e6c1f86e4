"""Views of a gallery's map: which points are shown, with which labels, and that it follows the gallery and the job."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest

from data.catalog import Box
from indexer.filters import FilterError
from indexer.projection import Projection, ProjectionCard
from service import answers
from service.answers import Progress
from service.job_options import ProjectJob
from service.job_process import Work, do
from service.projected import Projected, ProjectionNotFoundError
from tests.indexer.fakes import item, make_store
from tests.service.engines import WORLD, engine_over, ticket
from tests.service.galleries import fit, make_gallery, reopen

# Of five items: two at one corner, one at each of the other ends of a cross.
PLACES = [[0, 0], [0.000004, 0], [1, 0.5], [0.5, 1], [0.5, 0.5]]
LABELS = ["dress", "skirt", "skirt", None, ("skirt", "belt")]


def save(gallery, places, **changes):
    """A map with these places of the first items."""
    keys = gallery.snapshot.columns("vector_key")["vector_key"].to_numpy()[: len(places)]
    card = ProjectionCard("by hand", 0, 1, len(places), gallery.card.fingerprint, "2026-11-22T00:00:00+00:00")
    Projection(np.array(places, np.float32), keys, replace(card, **changes)).save(gallery.folder)


def ids(*numbers):
    return [f"i{number:05}" for number in numbers]


@pytest.fixture
def gallery(tmp_path):
    return make_gallery(tmp_path / "gallery", WORLD[:5], LABELS, split=lambda number: "test" if number == 2 else None)


@pytest.fixture
def shown(gallery):
    """Views of the five items."""
    save(gallery, PLACES)
    return Projected(gallery).view


def test_all_points_come_with_their_places_and_labels(gallery, shown):
    assert shown(3000, target="type") == answers.Projection(
        item_ids=ids(0, 1, 2, 3, 4),
        # To five digits.
        x=[0.0, 0.0, 1.0, 0.5, 0.5],
        y=[0.0, 0.0, 0.5, 1.0, 0.5],
        # Three skirts, one belt and one dress; an item with several labels has the most frequent of them.
        label_of=[2, 0, 0, -1, 0],
        labels=["skirt", "belt", "dress"],
        total=5,
        missing=0,
        method="by hand",
        gallery_version=gallery.snapshot.version,
        projected_version=1,
        projected_at="2026-11-22T00:00:00+00:00",
    )
    plain = shown(3000)
    assert (plain.labels, plain.label_of) == ([], [-1] * 5)
    # The split is a target too.
    assert (shown(3000, target="split").labels, shown(3000, target="split").label_of[2]) == (["test"], 0)


@pytest.mark.parametrize(
    ("view", "numbers"),
    [
        (Box(0, 0, 1, 1), (0, 1, 2, 3, 4)),
        # Edges are in it.
        (Box(0.5, 0.5, 0.5, 0.5), (2, 3, 4)),
        (Box(0.5, 0.25, 0.25, 0.5), (4,)),
        (Box(0, 0, 0.000002, 1), (0,)),
        (Box(0.1, 0.1, 0.1, 0.1), ()),
    ],
)
def test_a_view_has_the_points_within(shown, view, numbers):
    answer = shown(3000, view=view, target="type")
    assert answer.item_ids == ids(*numbers)
    assert answer.total == len(answer.x) == len(answer.y) == len(answer.label_of) == len(numbers)
    assert answer.labels == ["skirt", "belt", "dress"]


def test_a_filter_leaves_points_out(shown):
    assert shown(3000, where={"type": ("skirt",)}).item_ids == ids(1, 2, 4)
    within = shown(3000, where={"type": ("skirt", "dress")}, view=Box(0, 0, 0.5, 0.5))
    assert (within.item_ids, within.total, within.missing) == (ids(0, 1, 4), 3, 0)


def test_what_the_gallery_does_not_have_is_told(shown):
    with pytest.raises(FilterError, match="no target 'tpye'; did you mean type"):
        shown(3000, target="tpye")
    with pytest.raises(FilterError, match="type=skirts; did you mean skirt"):
        shown(3000, where={"type": ("skirts",)})


def test_without_a_map_the_job_is_named(gallery):
    with pytest.raises(
        ProjectionNotFoundError, match=r"^The gallery has no map yet; a job of kind 'project' draws one"
    ):
        Projected(gallery).view(3000)
    # That of another encoder is none.
    save(gallery, PLACES, encoder="other")
    assert Projected(gallery).projection is None


def test_items_without_a_place_are_missing_and_nothing_else(gallery):
    save(gallery, PLACES[:3])
    view = Projected(gallery).view
    answer = view(3000)
    assert (answer.item_ids, answer.total, answer.missing) == (ids(0, 1, 2), 3, 2)
    # Of all the gallery, whatever is looked at.
    narrow = view(3000, view=Box(0.9, 0.4, 0.1, 0.2), where={"type": ("skirt",)})
    assert (narrow.item_ids, narrow.total, narrow.missing) == (ids(2), 1, 2)
    assert view(3000, where={"type": ("belt",)}).item_ids == []


def crowd(tmp_path):
    """300 items in a corner, which one place of a hundred cells holds, and four alone at the edges."""
    rng = np.random.default_rng(1)
    places = np.concatenate([rng.uniform(0, 0.04, (300, 2)), [[0.95, 0.05], [0.05, 0.95], [1, 1], [0.5, 0.5]]])
    gallery = make_gallery(tmp_path / "crowd", WORLD[:304], ["dress"] * 304)
    save(gallery, places)
    return Projected(gallery), gallery


def test_dense_places_are_thinned_and_what_is_alone_stays(tmp_path):
    projected, _ = crowd(tmp_path)
    # Three cells a side: one item of each of the five that are not empty, then more of the only one that has more.
    for limit in (9, 20, 100):
        answer = projected.view(limit)
        assert len(answer.item_ids) == len(set(answer.item_ids)) == limit
        assert set(ids(300, 301, 302, 303)) <= set(answer.item_ids)
        assert answer.total == 304
        # In order of the gallery.
        assert answer.item_ids == sorted(answer.item_ids)
    assert projected.view(304).total == len(projected.view(304).item_ids) == 304
    assert len(projected.view(1).item_ids) == 1
    # What was thinned comes back where it is looked at closely.
    assert len(projected.view(300, view=Box(0, 0, 0.04, 0.04)).item_ids) == 300


def test_each_cell_gives_one_before_any_gives_two(tmp_path):
    # Four cells of 8, 4, 2 and 1 items: of 9 the last gives 1, the third 2, and the others 3 each.
    corners = [(0, 0)] * 8 + [(1, 0)] * 4 + [(0, 1)] * 2 + [(1, 1)]
    gallery = make_gallery(tmp_path / "g", WORLD[:15], ["dress"] * 15)
    save(gallery, corners)
    projected = Projected(gallery)
    # Two cells a side for 4 to 8 points, three for 9.
    for limit, wanted in ((4, [1, 1, 1, 1]), (6, None), (7, [2, 2, 2, 1]), (9, [3, 3, 2, 1]), (14, [7, 4, 2, 1])):
        answer = projected.view(limit)
        counts = Counter(zip(answer.x, answer.y, strict=True))
        assert sum(counts.values()) == limit
        assert wanted in (None, [counts[0, 0], counts[1, 0], counts[0, 1], counts[1, 1]])


def test_there_are_no_more_cells_than_points(tmp_path):
    # Of 25 cells a crowd fills 16; three corners have one item each, and come before any second item of the crowd.
    step = np.linspace(0, 0.75, 17)
    places = [*((x, y) for x in step for y in step), (1, 0), (0, 1), (1, 1)]
    gallery = make_gallery(tmp_path / "g", WORLD[: len(places)], ["dress"] * len(places))
    save(gallery, places)
    assert set(ids(289, 290, 291)) <= set(Projected(gallery).view(25).item_ids)


def test_the_last_points_are_of_any_cell(tmp_path):
    corners = [(0, 0), (0, 1), (1, 0), (1, 1)] * 50
    gallery = make_gallery(tmp_path / "g", WORLD[:200], ["dress"] * 200)
    save(gallery, corners)
    projected, having_more = Projected(gallery), set()
    for each in range(10, 20):
        answer = projected.view(4 * each + 1)
        counts = Counter(zip(answer.x, answer.y, strict=True))
        assert sorted(counts.values()) == [each] * 3 + [each + 1]
        having_more.add(counts.most_common(1)[0][0])
    assert len(having_more) > 1


def test_the_same_view_has_the_same_points_and_more_points_keep_them(tmp_path):
    projected, gallery = crowd(tmp_path)
    few = projected.view(100)
    assert Projected(reopen(gallery)).view(100) == few
    assert few.item_ids != ids(*range(100))
    # The grid of 101 points is that of 100.
    assert set(few.item_ids) < set(projected.view(101).item_ids)


def test_which_points_stay_does_not_hang_on_the_order_of_rows(tmp_path):
    # Edits move rows, and nobody wants the rest of the map to change with them.
    places = np.random.default_rng(2).uniform(size=(300, 2))
    views = []
    for name, order in (("a", np.arange(300)), ("b", np.arange(300)[::-1])):
        store = make_store(tmp_path / name, WORLD[order], [item(number) for number in order.tolist()])
        gallery = reopen(store.folder)
        save(gallery, places[order])
        views.append(Projected(gallery).view(120))
    assert views[0].item_ids != views[1].item_ids
    assert set(views[0].item_ids) == set(views[1].item_ids)


def test_a_map_that_is_the_same_is_not_read_again(gallery, monkeypatch):
    save(gallery, PLACES)
    first = Projected(gallery)
    monkeypatch.setattr(Projection, "load", lambda *_: pytest.fail("It was read again."))
    again = Projected(reopen(gallery), first)
    assert again.projection is first.projection
    assert again.view(10) == first.view(10)
    monkeypatch.undo()
    save(gallery, PLACES[:2], version=2)
    assert Projected(gallery, again).view(10).projected_version == 2
    assert again.view(10).projected_version == 1


# In an engine


def test_a_job_draws_what_the_engine_shows_and_edits_are_seen(gallery):
    with engine_over(gallery.folder) as engine:
        assert engine.catalog().has_projection is False
        with pytest.raises(ProjectionNotFoundError):
            engine.projection(10)
        told: list[Progress] = []
        result = do(Work(gallery.folder, ProjectJob(), 0.0), told.append, bool)
        engine.state.advance()
        assert engine.catalog().has_projection is True
        answer = engine.projection(10, target="type", where={"type": ("skirt",)})
        assert answer.item_ids == ids(1, 2, 4)
        assert (answer.method, answer.projected_version) == (result["method"], result["gallery_version"])
        shape = engine.projection(10)
        assert (min(shape.x + shape.y), max(shape.x + shape.y)) == (0, 1)
        # Labels are of the moment, in a row that is the last now; and who goes is gone without a new map.
        engine.relabel("i00001", {"type": ("belt",)}, new_targets=False, ticket=ticket())
        assert engine.projection(10, target="type", where={"type": ("belt",)}).item_ids == ids(4, 1)
        engine.delete("i00004", ticket())
        after = engine.projection(10)
        assert (sorted(after.item_ids), after.missing) == (ids(0, 1, 2, 3), 0)
        assert after.gallery_version > answer.gallery_version
        assert after.projected_version == answer.projected_version


def test_the_catalog_names_groups_and_encoders(tmp_path):
    labels = ["Shirts", "Tops", "Jeans", "Shoes"] * 2
    gallery = make_gallery(tmp_path / "g", WORLD[:8], labels)
    with engine_over(gallery.folder, encoders=["/srv/run-7"]) as engine:
        catalog = engine.catalog()
        # In the order that the group has them; shoes are of none.
        assert catalog.groups == {"Tops": ["Shirts", "Tops"], "Bottoms": ["Jeans"]}
        assert {"efficientnet-lite0", "dinov2-small", "run-7"} <= set(catalog.encoders)
        assert "/srv" not in str(asdict(catalog))


def test_a_group_without_labels_is_not_named_and_heads_count_too(tmp_path):
    gallery = make_gallery(tmp_path / "g", WORLD[:12], ["skirt", "dress"] * 6)
    fit(gallery, "knn")
    with engine_over(gallery.folder) as engine:
        assert engine.catalog().groups == {"Bottoms": ["skirt"]}
        for item_id in ids(0, 2, 4, 6, 8, 10):
            engine.delete(item_id, ticket())
        # No item has it any more, but the head still says it.
        assert set(engine.catalog().targets["type"]) == {"dress"}
        assert engine.catalog().groups == {"Bottoms": ["skirt"]}
