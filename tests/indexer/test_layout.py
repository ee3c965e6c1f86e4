"""A layout keeps near what is near, fits the square, and is the same again."""

from __future__ import annotations

import logging
import os

import numpy as np
import pytest

from indexer.layout import LEAST_FOR_PACMAP, LayoutError, fit_square, lay_out
from tests.indexer.fakes import make_store, unit


def ignore(done: int, total: int, what: str) -> None:
    """Tells nobody."""


def drawn(folder, vectors, seed=0, tell=ignore):
    return lay_out(make_store(folder, unit(vectors)).snapshot(), seed=seed, tell=tell)


def clusters(count, dimension=12, spread=0.05, seed=0):
    """Vectors around three axes, and which axis each is near to."""
    rng = np.random.default_rng(seed)
    numbers = np.arange(count) % 3
    return np.eye(dimension)[numbers] + spread * rng.normal(size=(count, dimension)), numbers


def test_places_fill_the_square_with_one_scale_and_y_downwards():
    # Four wide and two high: half of the square's height stays free, a quarter above and a quarter below.
    corners = np.array([[-1, 5], [3, 5], [-1, 7], [1, 6]], np.float32)
    assert fit_square(corners).tolist() == [[0, 0.75], [1, 0.75], [0, 0.25], [0.5, 0.5]]
    assert fit_square(corners).dtype == np.float32


def test_places_that_are_one_lie_in_the_middle():
    assert fit_square(np.full((3, 2), 7, np.float32)).tolist() == [[0.5, 0.5]] * 3


@pytest.mark.parametrize("count", [1, 2, 5, 20, LEAST_FOR_PACMAP - 1])
def test_a_few_items_are_laid_out_by_their_principal_components(tmp_path, count):
    vectors, _ = clusters(count)
    places, method = drawn(tmp_path / "g", vectors)
    assert method == "PCA"
    centred = unit(vectors) - unit(vectors).mean(axis=0)
    # The singular vectors say the same but for their signs.
    wanted = np.zeros((count, 2))
    components = (centred @ np.linalg.svd(centred, full_matrices=False)[2].T)[:, :2]
    wanted[:, : components.shape[1]] = components
    gaps = [np.abs(each[:, None] - each[None]) for each in (fit_square(wanted.astype(np.float32)), places)]
    np.testing.assert_allclose(*gaps, atol=1e-4)


def test_as_many_as_it_needs_are_laid_out_by_pacmap(tmp_path):
    assert drawn(tmp_path / "g", clusters(LEAST_FOR_PACMAP)[0])[1] == "PaCMAP of 12 principal components"


def test_no_items_are_not_drawn(tmp_path):
    with pytest.raises(LayoutError, match=r"^The gallery is empty, so that there is nothing to draw; index some"):
        drawn(tmp_path / "g", np.empty((0, 4)))


def test_items_that_are_all_the_same_lie_in_the_middle(tmp_path):
    places, method = drawn(tmp_path / "g", np.ones((60, 4)))
    assert (places == 0.5).all()
    assert method == "PCA"


@pytest.mark.parametrize("dimension", [1, 2, 12])
def test_any_dimension_can_be_laid_out(tmp_path, dimension):
    places, method = drawn(tmp_path / "g", np.random.default_rng(0).normal(size=(50, dimension)))
    assert method == f"PaCMAP of {max(2, dimension)} principal components"
    assert places.shape == (50, 2)
    assert np.isfinite(places).all()


def test_what_is_near_stays_near_and_the_seed_decides(tmp_path):
    vectors, numbers = clusters(150)
    places, method = drawn(tmp_path / "a", vectors)
    assert method == "PaCMAP of 12 principal components"
    assert (places.min(), places.max()) == (0, 1)
    gaps = np.linalg.norm(places[:, None] - places[None], axis=2) + 9 * np.eye(150)
    # All ten nearest of every item are of its own axis.
    assert (numbers[gaps.argsort(axis=1)[:, :10]] == numbers[:, None]).all()
    snapshots = tmp_path / "b", tmp_path / "c"
    again, other = (drawn(folder, vectors, seed)[0] for folder, seed in zip(snapshots, (0, 2**32 - 1), strict=True))
    assert (again == places).all()
    assert not (other == places).all()


def test_many_of_one_photo_do_not_keep_it_from_others(tmp_path):
    vectors, _ = clusters(200)
    vectors[50:] = vectors[50]
    places, _ = drawn(tmp_path / "g", vectors)
    assert np.isfinite(places).all()


def test_more_than_a_hundred_numbers_are_reduced_to_a_hundred(tmp_path):
    vectors, _ = clusters(120, dimension=130)
    assert drawn(tmp_path / "g", vectors)[1] == "PaCMAP of 100 principal components"


def test_it_says_what_it_is_at_and_nothing_else(tmp_path, capfd, caplog):
    told = []
    level = logging.getLogger("pacmap").level
    drawn(tmp_path / "g", clusters(60)[0], tell=lambda *what: told.append(what))
    assert told[:2] == [(60, 120, "reading embeddings"), (120, 120, "reducing embeddings")]
    assert told[2] == (0, 450, "finding neighbours")
    assert told[3:] == [(step, 450, "placing items") for step in range(10, 451, 10)]
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""
    assert logging.getLogger("pacmap").level == level


def test_what_is_compiled_for_it_is_kept_where_everything_is(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "before")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("MODISTE_CACHE", str(tmp_path))
    drawn(tmp_path / "a", clusters(40)[0])
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "numba")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "elsewhere")
    drawn(tmp_path / "b", clusters(40)[0])
    assert os.environ["NUMBA_CACHE_DIR"] == "elsewhere"
