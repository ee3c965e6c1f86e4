"""Alterations on drawn photos: what changes, what does not, and what is left of the garment."""

from __future__ import annotations

import numpy as np
import pytest

from data.alterations import (
    ALONE,
    CONDITIONS,
    MASKED,
    OF_BACKGROUND,
    REPLACED,
    TAGGED,
    TURNED,
    Parted,
    alter,
    darken,
    fill_garment,
    filled_area,
    flip,
    put_price_tag,
    replace_background,
    tag_area,
    turn,
)
from data.images import Area


def photo(height=120, width=100, *, garment=(48, 72, 40, 60), seed=0):
    """Noise before noise of another colour, and which of it is the garment: top, bottom, left and right."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    mask[garment[0] : garment[1], garment[2] : garment[3]] = True
    pixels = rng.integers(0, 90, (height, width, 3)).astype(np.uint8)
    pixels[mask] = rng.integers(160, 250, (mask.sum(), 3))
    return Parted(pixels, mask)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_condition_keeps_the_size_and_the_photo_itself_and_is_the_same_each_time(condition):
    one, backdrop = photo(), np.full((30, 50, 3), 7, np.uint8)
    before = one.pixels.copy()
    altered = alter(condition, one, backdrop=backdrop, seed=3)
    assert altered.shape == before.shape
    assert altered.dtype == np.uint8
    assert (altered != before).any()
    assert (one.pixels == before).all()
    assert (alter(condition, one, backdrop=backdrop, seed=3) == altered).all()


def test_what_is_unknown_is_refused():
    with pytest.raises(KeyError, match="upside-down"):
        alter("upside-down", photo())


def test_a_photo_without_a_garment_has_no_background_to_part_from_it():
    nothing = Parted(photo().pixels, np.zeros((120, 100), bool))
    for condition in CONDITIONS:
        altered = alter(condition, nothing, backdrop=nothing.pixels)
        assert (altered is None) == (condition in OF_BACKGROUND), condition


def test_without_another_photo_there_is_no_other_background():
    assert alter(REPLACED, photo()) is None


def test_masks_leave_the_garment_untouched():
    one = photo()
    white = alter(MASKED, one)
    assert (white[one.mask] == one.pixels[one.mask]).all()
    assert (white[~one.mask] == 255).all()
    # A backdrop of 240 x 400 covers 120 x 100 by half its height: of its 200 columns the middle 100 are seen.
    backdrop = np.zeros((240, 400, 3), np.uint8)
    backdrop[:, :100] = backdrop[:, 300:] = 255
    backdrop[:, 100:300] = 33
    other = replace_background(one.pixels, one.mask, backdrop)
    assert (other[one.mask] == one.pixels[one.mask]).all()
    assert (other[~one.mask] == 33).all()


@pytest.mark.parametrize("shape", [(10, 300), (300, 10), (1, 1), (121, 99)])
def test_a_backdrop_of_any_shape_covers_the_photo(shape):
    one = photo()
    other = replace_background(one.pixels, one.mask, np.full((*shape, 3), 200, np.uint8))
    assert (other[~one.mask] == 200).all()


def test_the_background_alone_keeps_no_silhouette_of_a_small_garment():
    # Two garments of different shapes in the middle: the same 80 % are filled, 12..108 of 120 and 10..90 of 100.
    tall, wide = photo(garment=(20, 100, 45, 55)), photo(garment=(55, 65, 15, 85))
    assert filled_area(tall.mask) == filled_area(wide.mask) == Area(10, 12, 80, 96)
    alone = alter(ALONE, tall)
    outside = np.ones((120, 100), bool)
    outside[12:108, 10:90] = False
    assert (alone[outside] == tall.pixels[outside]).all()
    # The garment is 160 and more, the background below 90; the filling is a mixture of the latter alone.
    assert alone[~outside].max() < 90
    assert alone[~outside].std() < 10


def test_the_filling_is_mixed_from_what_is_near():
    mask = photo().mask
    pixels = np.zeros((120, 100, 3), np.uint8)
    pixels[:, 50:] = 200
    filled = fill_garment(pixels, mask)
    assert filled[60, 15, 0] < 40
    assert filled[60, 85, 0] > 160
    assert (fill_garment(np.full_like(pixels, 90), mask) == 90).all()


def test_a_large_garment_is_filled_with_a_margin():
    # The margin is 3 % of 120, 4 pixels to the next whole one; at the left the garment touches the edge.
    one = photo(garment=(48, 114, 0, 60))
    assert filled_area(one.mask) == Area(0, 12, 90, 106)


def test_a_garment_that_fills_the_photo_leaves_no_background():
    one = photo(garment=(1, 119, 1, 99))
    assert filled_area(one.mask) is None
    assert fill_garment(one.pixels, one.mask) is None
    assert alter(ALONE, one) is None
    assert alter(MASKED, one) is not None
    # Six per cent are little enough: 94 columns of 100 over the whole height leave just as much.
    assert filled_area(photo(garment=(0, 120, 0, 90)).mask) == Area(0, 0, 94, 120)
    assert filled_area(photo(garment=(0, 120, 0, 91)).mask) is None


def test_flipping_twice_is_nothing():
    pixels = photo().pixels
    assert (flip(pixels)[:, 0] == pixels[:, -1]).all()
    assert (flip(flip(pixels)) == pixels).all()


def test_darkening_halves_the_light():
    # sRGB 255 is linear 1; a half is 1.055 x 0.5 ^ (1 / 2.4) - 0.055 = 0.7354, of 255 that is 187.5.
    grey = np.array([[[0, 128, 255]]], np.uint8)
    dark = darken(grey)
    assert dark[0, 0, 0] == 0
    assert dark[0, 0, 2] in (187, 188)
    # 128 is linear 0.2159; 0.1079 is sRGB 0.3622 or 92.4.
    assert dark[0, 0, 1] == 92
    # Near black sRGB is linear: half of 8 is 4.
    assert darken(np.full((1, 1, 3), 8, np.uint8))[0, 0, 0] == 4


def test_turning_keeps_the_size_and_leaves_no_wedge():
    white = np.full((90, 60, 3), 200, np.uint8)
    assert (turn(white, 10) == 200).all()
    assert (turn(white, -10) == 200).all()
    # Against the clock, what is right of the middle goes up: 20 pixels x sin 10 degrees = 3.5.
    dot = np.zeros((91, 91, 3), np.uint8)
    dot[44:47, 64:67] = 255
    row, column = (places.mean() for places in np.nonzero(turn(dot, 10)[..., 0] > 100))
    assert row == pytest.approx(45 - 3.5, abs=0.3)
    assert column == pytest.approx(45 + 19.7, abs=0.3)


def test_photos_are_turned_both_ways_by_ten_degrees():
    one = photo()
    left, right = turn(one.pixels, 10), turn(one.pixels, -10)
    seen = [alter(TURNED, one, seed=seed) for seed in range(20)]
    assert all((altered == left).all() or (altered == right).all() for altered in seen)
    assert {(altered == left).all() for altered in seen} == {True, False}


@pytest.mark.parametrize(
    ("corner", "area"),
    # 15 % of 200 is 30 wide, 60 % of that 18 high, 2 % of 200 from the edges.
    [(0, Area(4, 4, 30, 18)), (1, Area(166, 4, 30, 18)), (2, Area(4, 278, 30, 18)), (3, Area(166, 278, 30, 18))],
)
def test_the_tag_changes_its_corner_alone(corner, area):
    assert tag_area(300, 200, corner) == area
    pixels = np.zeros((300, 200, 3), np.uint8)
    tagged = put_price_tag(pixels, corner=corner, price="9.99")
    changed = (tagged != 0).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max() + 1) == (area.top, area.top + area.height)
    assert (columns.min(), columns.max() + 1) == (area.left, area.left + area.width)
    # Yellow paper, and dark signs on it.
    inside = tagged[area.rows, area.columns][2:-2, 2:-2].astype(int)
    assert np.median(inside, axis=(0, 1)).tolist() == [252, 214, 66]
    assert (inside.sum(axis=2) < 250).any()
    assert (put_price_tag(pixels, corner=corner, price="5.49") != tagged).any()


def test_tags_lie_in_all_corners():
    one = Parted(np.zeros((60, 40, 3), np.uint8), np.zeros((60, 40), bool))
    corners = set()
    for seed in range(30):
        rows, columns = np.nonzero((alter(TAGGED, one, seed=seed) != 0).any(axis=2))
        corners.add((rows.mean() > 30, columns.mean() > 20))
    assert len(corners) == 4


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (40, 3)])
def test_small_photos_are_altered_too(shape):
    one = Parted(np.full((*shape, 3), 9, np.uint8), np.ones(shape, bool))
    for condition in CONDITIONS:
        altered = alter(condition, one, backdrop=one.pixels)
        assert altered is None or altered.shape == one.pixels.shape
