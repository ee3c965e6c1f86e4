"""Faithfulness: areas worked on paper, orders that are fair, few questions, and words that say what the figures say."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from data.images import Area
from service import faithfulness
from service.faithfulness import (
    Faithfulness,
    ScorePhotos,
    centre_map,
    measure_faithfulness,
    rank_correlation,
    verdict,
)
from service.occlusion import TOGETHER, occlude
from service.saliency import ExplanationError, Subject

# Four cells of 2 x 2 pixels: top left, top right, bottom left, bottom right. Their mean is 110.
GREYS = (200, 40, 80, 120)
# What each cell adds to the score while it is as it was.
SHARES = (0.6, 0.1, 0.0, 0.3)
PLACES = [(slice(top, top + 2), slice(left, left + 2)) for top in (0, 2) for left in (0, 2)]


def random_map(area: Area, size: int, seed: int) -> NDArray[np.float32]:
    """A map that knows nothing, (S, S) float32 in 0..1; 0 in the padding.

    Args:
        area: Where the photo lies.
        size: S, pixels.
        seed: Of the values.
    """
    values = np.zeros((size, size), np.float32)
    values[area.rows, area.columns] = np.random.default_rng(seed).random((area.height, area.width))
    return values


def four_cells() -> Subject:
    pixels = np.zeros((4, 4, 3), np.uint8)
    for place, grey in zip(PLACES, GREYS, strict=True):
        pixels[place] = grey
    return Subject(pixels, pixels)


def four_cell_score(photos: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The sum of the SHARES of cells whose every pixel is as it was; no blurred cell is."""
    kept = [
        (photos[:, rows, columns] == grey).all(axis=(1, 2, 3))
        for (rows, columns), grey in zip(PLACES, GREYS, strict=True)
    ]
    return np.array(SHARES) @ np.array(kept)


def four_cell_map(*values: float) -> NDArray[np.float32]:
    result = np.zeros((4, 4), np.float32)
    for place, value in zip(PLACES, values, strict=True):
        result[place] = value
    return result


def noise(size: int, width: int, height: int) -> Subject:
    """A photo of noise, letterboxed on white."""
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    pixels = np.full((size, size, 3), 255, np.uint8)
    area = Subject(pixels, picture).area
    pixels[area.rows, area.columns] = picture
    return Subject(pixels, picture)


def kept_of(subject: Subject, rows: slice, columns: slice) -> ScorePhotos:
    """A score: the share of a region's pixels, 0..1, that are as they were."""

    def score(photos: NDArray[np.uint8]) -> NDArray[np.float64]:
        same = (photos[:, rows, columns] == subject.pixels[rows, columns]).all(axis=3)
        return same.mean(axis=(1, 2))

    return score


# Areas on paper


def test_the_best_order_has_the_areas_worked_on_paper():
    done = measure_faithfulness(four_cells(), four_cell_map(9, 2, 1, 5), four_cell_score, cells=2)
    assert done.cells == 4
    assert done.shares == (0, 0.25, 0.5, 0.75, 1)
    # In order: top left (0.6), bottom right (0.3), top right (0.1), bottom left (0).
    assert done.deletion_curve == pytest.approx((1, 0.4, 0.1, 0, 0))
    assert done.insertion_curve == pytest.approx((0, 0.6, 0.9, 1, 1))
    # A quarter of each of 0.7 + 0.25 + 0.05 + 0, and of 0.3 + 0.75 + 0.95 + 1.
    assert done.deletion == pytest.approx(0.25)
    assert done.insertion == pytest.approx(0.75)
    assert done.deletes_sooner
    assert done.inserts_sooner


def test_the_worst_order_loses():
    done = measure_faithfulness(four_cells(), four_cell_map(-9, -2, -1, -5), four_cell_score, cells=2)
    assert done.deletion_curve == pytest.approx((1, 1, 0.9, 0.6, 0))
    # A quarter of 1 + 0.95 + 0.75 + 0.3.
    assert done.deletion == pytest.approx(0.75)
    assert done.insertion == pytest.approx(0.25)
    assert not done.deletes_sooner
    assert not done.inserts_sooner


@pytest.mark.parametrize(
    ("steps", "shares", "curve", "area"),
    [
        (1, (0, 1), (1, 0), 0.5),
        # Half of 0.55 + 0.05.
        (2, (0, 0.5, 1), (1, 0.1, 0), 0.3),
        # Thirds of 4 cells are 1, 3 and 4 whole ones: 0.25 * 0.7 + 0.5 * 0.2 + 0.25 * 0.
        (3, (0, 0.25, 0.75, 1), (1, 0.4, 0, 0), 0.275),
        # No more steps than cells.
        (16, (0, 0.25, 0.5, 0.75, 1), (1, 0.4, 0.1, 0, 0), 0.25),
    ],
)
def test_steps_take_whole_cells(steps: int, shares: tuple[float, ...], curve: tuple[float, ...], area: float) -> None:
    done = measure_faithfulness(four_cells(), four_cell_map(9, 2, 1, 5), four_cell_score, cells=2, steps=steps)
    assert done.shares == shares
    assert done.steps == len(shares) - 1
    assert done.deletion_curve == pytest.approx(curve)
    assert done.deletion == pytest.approx(area)


def test_random_orders_are_orders_and_their_mean_is_a_half():
    done = measure_faithfulness(four_cells(), four_cell_map(9, 2, 1, 5), four_cell_score, cells=2, randoms=400)
    # A cell in place p of an order adds its share for p + 1/2 of 4 steps.
    possible = {
        round(sum(SHARES[cell] * (place + 0.5) / 4 for place, cell in enumerate(order)), 9)
        for order in permutations(range(4))
    }
    assert {round(area, 9) for area in done.random_deletions} == possible
    # By symmetry 1/2; the spread of one order is at most 1/4, of the mean of 400 at most 1/80.
    assert done.random_deletion == pytest.approx(0.5, abs=0.04)
    assert done.random_deletion == pytest.approx(np.mean(done.random_deletions))
    assert done.random_insertion == pytest.approx(np.mean(done.random_insertions))
    # The same orders serve both ways: what is shown first is what is hidden first. Here the score is a sum of cells.
    assert np.add(done.random_deletions, done.random_insertions) == pytest.approx(np.ones(400))
    assert np.trapezoid(done.random_deletion_curve, done.shares) == pytest.approx(done.random_deletion)
    assert np.trapezoid(done.random_insertion_curve, done.shares) == pytest.approx(done.random_insertion)


def test_the_map_must_beat_every_random_order():
    areas = {"random_deletions": (0.3, 0.5), "random_insertions": (0.5, 0.7)}
    done = replace(FIGURES, deletion=0.29, insertion=0.71, **areas)
    assert (done.deletes_sooner, done.inserts_sooner) == (True, True)
    # Better than the mean, 0.4 and 0.6, and no better than the best.
    done = replace(FIGURES, deletion=0.3, insertion=0.7, **areas)
    assert (done.deletes_sooner, done.inserts_sooner) == (False, False)


def test_a_similarity_may_be_negative():
    done = measure_faithfulness(
        four_cells(), four_cell_map(9, 2, 1, 5), lambda photos: four_cell_score(photos) - 1, cells=2
    )
    assert done.deletion == pytest.approx(-0.75)
    assert done.insertion == pytest.approx(-0.25)
    assert done.deletes_sooner


def test_hidden_cells_have_the_mean_colour_and_cells_not_shown_yet_are_blurred():
    subject, seen = noise(28, 20, 28), []

    def score(photos: NDArray[np.uint8]) -> NDArray[np.float64]:
        seen.extend(photos)
        return np.zeros(len(photos))

    measure_faithfulness(subject, random_map(subject.area, 28, 0), score, cells=7, steps=2)
    place = (subject.area.rows, subject.area.columns)
    whole, half, hidden = (photo[place].astype(int) for photo in seen[:3])
    np.testing.assert_array_equal(whole, subject.picture)
    colour = subject.picture.reshape(-1, 3).mean(axis=0).round()
    assert (hidden == colour).all()
    changed = (half != whole).any(axis=2)
    assert (half[changed] == colour).all()
    # 5 x 7 cells of 4 x 4 pixels: 18 of 35 are hidden.
    assert changed.sum() == pytest.approx(18 * 16, abs=3)
    # 1 photo more for each of the 3 random orders; then the blurred one.
    blurred = seen[6][place].astype(int)
    assert blurred.std() < whole.std() / 2
    assert (seen[7][place] == blurred).all(axis=2).sum() == pytest.approx(17 * 16, abs=3)
    for photo in seen:
        assert (photo[:, : subject.area.left] == 255).all()
        assert (photo[:, subject.area.left + 20 :] == 255).all()


# Planted truth


def test_a_map_that_knows_the_place_beats_random_and_one_that_knows_nothing_does_not():
    # The answer hangs on 16 x 16 of 64 x 48 pixels, a twelfth, off the middle.
    subject = noise(64, 48, 64)
    rows, columns = slice(40, 56), slice(12, 28)
    score = kept_of(subject, rows, columns)
    done = occlude(
        subject, lambda photos: score(photos)[:, None].astype(np.float32), lambda e: e[:, 0], window=8, stride=4
    )
    row, column = np.unravel_index(done.values.argmax(), done.values.shape)
    assert rows.start <= row < rows.stop
    assert columns.start <= column < columns.stop

    found = measure_faithfulness(subject, done.values, score)
    # Best is half of a twelfth; random orders hide the place evenly, and have a half.
    assert found.deletes_sooner
    assert found.inserts_sooner
    assert found.random_deletion - found.deletion > 0.3
    assert found.insertion - found.random_insertion > 0.3
    for blind in (np.zeros((64, 64), np.float32), random_map(subject.area, 64, 5), np.full((64, 64), 0.1, np.float32)):
        lost = measure_faithfulness(subject, blind, score)
        assert abs(lost.random_deletion - lost.deletion) < 0.15
        assert abs(lost.random_insertion - lost.insertion) < 0.15
    centre = measure_faithfulness(subject, centre_map(subject.area, 64), score)
    assert found.deletion < centre.deletion - 0.2


# Fair orders


@pytest.mark.parametrize("value", [0.0, 0.1, -1e-3, 1e6])
def test_a_flat_map_marks_no_corner(value: float) -> None:
    # Of 45 x 37 pixels some cells are larger than others: means of equal values differ in their last digits.
    subject = noise(45, 37, 45)
    flat = np.full((45, 45), value, np.float32)
    # By place, the top half would go first and the area would be a quarter; the noise of 1/10 is that of 140 cells.
    top = kept_of(subject, slice(0, 22), subject.area.columns)
    assert measure_faithfulness(subject, flat, top).deletion == pytest.approx(0.5, abs=0.1)
    left = kept_of(subject, slice(0, 45), slice(subject.area.left, 22))
    assert measure_faithfulness(subject, flat, left).deletion == pytest.approx(0.5, abs=0.1)


def test_the_last_digit_of_a_float_ranks_nothing():
    subject = noise(45, 37, 45)
    flat = np.full((45, 45), 0.1, np.float32)
    flat[:22] = np.nextafter(np.float32(0.1), np.float32(1))
    top = kept_of(subject, slice(0, 22), subject.area.columns)
    assert measure_faithfulness(subject, flat, top).deletion == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("scale", [1, 1e-9, 1e9])
def test_small_differences_rank_whatever_the_size_of_the_values(scale: float) -> None:
    values = four_cell_map(1.0009, 1.0002, 1, 1.0005) * np.float32(scale)
    assert measure_faithfulness(four_cells(), values, four_cell_score, cells=2).deletion == pytest.approx(0.25)


def test_the_seed_decides_ties_and_random_orders():
    subject = noise(45, 37, 45)
    flat, score = np.zeros((45, 45), np.float32), kept_of(subject, slice(0, 22), slice(4, 30))
    first = measure_faithfulness(subject, flat, score)
    assert measure_faithfulness(subject, flat, score) == first
    other = measure_faithfulness(subject, flat, score, seed=1)
    assert other.deletion != first.deletion
    assert not set(other.random_deletions) & set(first.random_deletions)
    # A flat map is in no random order either, and those differ.
    assert len({first.deletion, *first.random_deletions}) == 4


def test_a_cell_ranks_by_its_mean_and_not_by_its_size_or_peak():
    values = four_cell_map(4, 0, 0, 3)
    # The mean of the top right becomes 2.5, with the highest peak.
    values[0, 2] = 10
    done = measure_faithfulness(four_cells(), values, four_cell_score, cells=2)
    assert done.deletion_curve == pytest.approx((1, 0.4, 0.1, 0, 0))
    # 3 x 3 pixels in 2 x 2 cells of 4, 2, 2 and 1 pixels: the last alone is marked.
    pixels = np.arange(27, dtype=np.uint8).reshape(3, 3, 3) * 9
    subject, values = Subject(pixels, pixels), np.ones((3, 3), np.float32)
    values[2, 2] = 2
    done = measure_faithfulness(subject, values, kept_of(subject, slice(2, 3), slice(2, 3)), cells=2)
    assert done.deletion_curve == pytest.approx((1, 0, 0, 0, 0))


def test_what_a_map_says_of_the_padding_does_not_count():
    subject = noise(32, 12, 32)
    score = kept_of(subject, slice(0, 16), subject.area.columns)
    values = random_map(subject.area, 32, 0)
    place = (subject.area.rows, subject.area.columns)
    for noise_outside in (1e9, np.nan):
        loud = np.full((32, 32), noise_outside, np.float32)
        loud[place] = values[place]
        assert measure_faithfulness(subject, loud, score) == measure_faithfulness(subject, values, score)


@pytest.mark.parametrize(
    ("size", "width", "height", "cells", "expected"),
    [
        (32, 32, 32, 8, 64),
        (32, 16, 32, 8, 4 * 8),
        (32, 32, 12, 8, 8 * 3),
        # A side of 13 of 32 pixels is 3.25 cells long.
        (32, 13, 32, 8, 3 * 8),
        (32, 1, 32, 8, 8),
        (32, 32, 1, 14, 14),
        # A cell is at least a pixel.
        (8, 8, 3, 14, 8 * 3),
        (32, 32, 32, 1, 1),
    ],
)
def test_a_photo_of_any_form_has_cells(size: int, width: int, height: int, cells: int, expected: int) -> None:
    subject = noise(size, width, height)
    score = kept_of(subject, subject.area.rows, subject.area.columns)
    done = measure_faithfulness(subject, centre_map(subject.area, size), score, cells=cells)
    assert done.cells == expected
    assert done.deletion_curve[0] == done.insertion_curve[-1] == 1
    # All of the photo is hidden, but for pixels that happen to have the mean colour, and then shown.
    assert done.deletion_curve[-1] == pytest.approx(0, abs=0.1)
    assert 0 <= done.deletion <= 1
    assert 0 <= done.insertion <= 1


# Few questions


def test_no_photo_is_asked_about_twice_and_batches_are_moderate():
    subject, asked, seen, checks = noise(56, 56, 56), [], set(), []

    def score(photos: NDArray[np.uint8]) -> NDArray[np.float64]:
        asked.append(len(photos))
        seen.update(photo.tobytes() for photo in photos)
        return np.zeros(len(photos))

    measure_faithfulness(
        subject, random_map(subject.area, 56, 0), score, check=lambda: checks.append(len(asked)), steps=16, randoms=3
    )
    # 15 photos in each of 2 curves of 4 orders; the whole one, the hidden one and the blurred one are shared.
    assert sum(asked) == len(seen) == 2 * 4 * 15 + 3
    assert asked == [TOGETHER] * 7 + [11]
    assert checks == list(range(8))


def test_a_photo_of_one_colour_is_asked_about_once():
    pixels, asked = np.full((28, 28, 3), 90, np.uint8), []

    def score(photos: NDArray[np.uint8]) -> NDArray[np.float64]:
        asked.append(len(photos))
        return np.full(len(photos), 0.3)

    done = measure_faithfulness(Subject(pixels, pixels), np.zeros((28, 28), np.float32), score)
    assert asked == [1]
    assert done.deletion == done.insertion == pytest.approx(0.3)
    # Nothing changes: the map is no better than chance.
    assert not done.deletes_sooner
    assert not done.inserts_sooner


def test_a_full_last_batch_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def score(photos: NDArray[np.uint8]) -> NDArray[np.float64]:
        asked.append(len(photos))
        return np.zeros(len(photos))

    monkeypatch.setattr(faithfulness, "TOGETHER", 7)
    subject = noise(56, 56, 56)
    # The whole, the hidden and the blurred photo, and one half way in each of 2 curves of 2 orders.
    measure_faithfulness(subject, random_map(subject.area, 56, 0), score, steps=2, randoms=1)
    assert asked == [7]


def test_it_ends_when_nobody_waits():
    subject, asked = noise(56, 56, 56), []

    def gone() -> None:
        if len(asked) == 2:
            raise RuntimeError("gone")

    def score(photos: NDArray[np.uint8]) -> NDArray[np.float64]:
        asked.append(len(photos))
        return np.zeros(len(photos))

    with pytest.raises(RuntimeError, match="gone"):
        measure_faithfulness(subject, random_map(subject.area, 56, 0), score, check=gone)
    assert asked == [TOGETHER, TOGETHER]


# Bad input


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"cells": 0}, {"randoms": 0}])
def test_counts_start_at_one(wrong: dict[str, int]) -> None:
    with pytest.raises(ExplanationError, match="at least 1 step, cell and random order"):
        measure_faithfulness(four_cells(), four_cell_map(1, 2, 3, 4), four_cell_score, **wrong)


def test_a_map_of_another_size_or_with_holes_is_refused():
    with pytest.raises(ExplanationError, match=r"4 x 4 finite values; got shape \(5, 5\)"):
        measure_faithfulness(four_cells(), np.zeros((5, 5), np.float32), four_cell_score)
    with pytest.raises(ExplanationError, match=r"got shape \(4, 4\) with 4 that are not finite"):
        measure_faithfulness(four_cells(), four_cell_map(1, np.nan, 3, 4), four_cell_score)


# Maps


def test_rank_correlation_by_hand():
    area = Area(0, 1, 4, 1)
    maps = {}
    for name, row in {"a": (1, 2, 3, 4), "b": (10, 20, 40, 30), "down": (4, 3, 2, 1), "tied": (1, 1, 2, 3)}.items():
        # Outside the photo each has something else to say.
        maps[name] = np.random.default_rng(len(maps)).random((4, 4)) * 100
        maps[name][1] = row
    # The last two are swapped: 1 - 6 * (1 + 1) / (4 * 15).
    assert rank_correlation(maps["a"], maps["b"], area) == pytest.approx(0.8)
    assert rank_correlation(maps["a"], maps["a"] ** 3, area) == pytest.approx(1)
    assert rank_correlation(maps["a"], maps["down"], area) == pytest.approx(-1)
    # Ranks 1.5, 1.5, 3, 4 beside 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
    assert rank_correlation(maps["tied"], maps["a"], area) == pytest.approx(4.5 / 22.5**0.5)


def test_rank_correlation_is_that_of_scipy():
    rng = np.random.default_rng(0)
    a, area = rng.standard_normal((32, 32)), Area(5, 0, 20, 32)
    b = (a + rng.standard_normal((32, 32))).round(1)
    place = (area.rows, area.columns)
    assert rank_correlation(a, b, area) == pytest.approx(spearmanr(a[place].ravel(), b[place].ravel()).statistic)


def test_a_flat_map_has_no_ranks():
    area, flat = Area(0, 0, 4, 4), np.zeros((4, 4))
    assert rank_correlation(flat, four_cell_map(1, 2, 3, 4), area) == 0
    assert rank_correlation(four_cell_map(1, 2, 3, 4), flat + 1, area) == 0
    # A map that stays flat whatever the weights are has not changed.
    assert rank_correlation(flat, flat + 1, area) == 1


def test_the_centre_map_is_highest_in_the_middle_of_the_photo():
    values = centre_map(Area(1, 0, 4, 6), 6)
    assert values.shape == (6, 6)
    assert values.dtype == np.float32
    assert not values[:, 0].any()
    assert not values[:, 5].any()
    np.testing.assert_allclose(values, values[::-1], rtol=1e-6)
    np.testing.assert_allclose(values[:, 1:5], values[:, 4:0:-1], rtol=1e-6)
    # Pixel middles of 4 lie 0.5 and 1.5 of its quarters from the middle; of 6 they lie 1/3, 1 and 5/3 of its quarters.
    assert values[0, 1] == pytest.approx(np.exp(-0.5 * (1.5**2 + (5 / 3) ** 2)))
    assert values[2, 2] == values.max() == pytest.approx(np.exp(-0.5 * (0.5**2 + (1 / 3) ** 2)))


def test_the_random_map_hangs_on_its_seed_alone():
    area = Area(2, 0, 4, 8)
    first = random_map(area, 8, 0)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, random_map(area, 8, 0))
    assert not np.array_equal(first, random_map(area, 8, 1))
    assert not first[:, :2].any()
    assert not first[:, 6:].any()
    assert len(np.unique(first)) == 33
    assert 0 <= first.min() < first.max() <= 1


# Words

FIGURES = Faithfulness(
    shares=(0, 1),
    deletion_curve=(1, 0),
    insertion_curve=(0, 1),
    random_deletion_curve=(1, 0),
    random_insertion_curve=(0, 1),
    deletion=0.31,
    insertion=0.71,
    random_deletions=(0.45, 0.59),
    random_insertions=(0.4, 0.5),
    cells=1,
)


def test_a_map_that_beats_random_has_nothing_said_against_it():
    assert verdict(FIGURES) == (
        "Hiding what the map marks takes the probability down sooner than hiding random places "
        "(0.31 against 0.52; lower is better), and showing it first brings it up sooner (0.71 against 0.45; higher is "
        "better)."
    )
    assert "takes the similarity down" in verdict(FIGURES, score="similarity")


def test_a_map_that_does_not_beat_random_is_not_relied_on():
    assert verdict(replace(FIGURES, deletion=0.6, insertion=0.2)) == (
        "Do not rely on this map: hiding what it marks takes the probability down no sooner than hiding random places "
        "(0.60 against 0.52; lower is better), and showing it first brings it up no sooner (0.20 against 0.45; higher "
        "is better)."
    )


def test_a_map_that_beats_the_mean_and_not_the_best_is_not_clearly_better():
    words = verdict(replace(FIGURES, deletion=0.5, insertion=0.48))
    assert words.startswith("Do not rely on this map: ")
    assert "down not clearly sooner than hiding random places (0.50 against 0.52;" in words
    assert "up not clearly sooner (0.48 against 0.45;" in words


def test_a_map_that_beats_random_in_one_way_is_taken_with_care():
    words = verdict(replace(FIGURES, insertion=0.2))
    assert words.startswith("Take this map with care: hiding what it marks takes the probability down sooner than")
    assert "but showing it first brings it up no sooner (0.20 against 0.45" in words
    words = verdict(replace(FIGURES, deletion=0.6))
    assert words.startswith("Take this map with care: hiding what it marks takes the probability down no sooner than")
    assert "but showing it first brings it up sooner (0.71 against 0.45" in words


def test_figures_that_look_the_same_have_more_digits():
    assert "(0.516 against 0.520;" in verdict(replace(FIGURES, deletion=0.516))
    assert "(0.5196 against 0.5200;" in verdict(replace(FIGURES, deletion=0.5196))


def test_a_map_that_does_not_hang_on_the_weights_is_no_reason():
    checked = replace(FIGURES, randomised="the head's weights")
    assert verdict(replace(checked, sanity=0.49)) == verdict(replace(checked, sanity=-0.9)) == verdict(FIGURES)
    assert verdict(replace(checked, sanity=0.5)) == (
        "Do not rely on this map: it looks much the same when the head's weights are replaced by random ones (rank "
        "correlation 0.50; less than 0.5 is wanted), so it shows what the photo is like and not what was learned. "
        "Hiding what it marks takes the probability down sooner than hiding random places (0.31 against 0.52; lower is "
        "better), and showing it first brings it up sooner (0.71 against 0.45; higher is better)."
    )
