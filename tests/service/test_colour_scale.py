"""The colours of maps: even in lightness, apart for everybody, and a photo that stays to be seen."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from service.colour_scale import _AGAINST, _FOR, ColourScale, _arm, veil
from service.saliency import ExplanationError

# IEC 61966-2-1, linear sRGB to XYZ at D65.
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
# On linear sRGB, of the greatest severity. Table 1 of Machado, Oliveira and Fernandes, "A Physiologically-based Model
# for Simulation of Color Vision Deficiency" (2009).
VISION = {
    "normal": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]
    ),
}


def lab(colours: NDArray, vision: str = "normal") -> NDArray[np.float64]:
    """CIELAB of (N, 3) sRGB colours 0..255, as eyes with that vision see them."""
    values = np.asarray(colours, np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ VISION[vision].T, 0, 1)
    ratios = seen @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    roots = np.where(ratios > (6 / 29) ** 3, np.cbrt(ratios), ratios / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = roots.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def test_lab_of_known_colours():
    # White, black and, from any table, pure red.
    assert lab(np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0]])).round() == pytest.approx(
        np.array([[100, 0, 0], [0, 0, 0], [53, 80, 67]])
    )


@pytest.mark.parametrize("arm", [_FOR, _AGAINST])
def test_lightness_grows_evenly_on_each_arm(arm):
    steps = np.diff(lab(_arm(*arm))[:, 0])
    # Within a quarter of the mean step, all of them upwards.
    assert steps.min() > 0.75 * steps.mean() > 0
    assert steps.max() < 1.25 * steps.mean()


def test_both_arms_are_as_light_at_equal_strength():
    lightness = np.abs(lab(_arm(*_FOR))[:, 0] - lab(_arm(*_AGAINST))[:, 0])
    assert lightness.max() < 5
    assert lightness[[0, -1]].max() < 1.5


@pytest.mark.parametrize("vision", list(VISION))
def test_for_and_against_are_apart_for_everybody(vision):
    # Where a map is at half its strength and above; a difference of 10 is plain to see.
    for strength in (0.5, 0.75, 1.0):
        index = round(strength * 255)
        colours = lab(np.stack([_arm(*_FOR)[index], _arm(*_AGAINST)[index]]), vision)
        assert np.linalg.norm(colours[0] - colours[1]) > 30


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_the_stronger_a_value_the_farther_its_colour_from_the_photo(signed, grey):
    scale = ColourScale(-2.0 if signed else 0.0, 2.0, is_signed=signed)
    values = np.linspace(0, 2, 33, dtype=np.float32)[None]
    photo = np.full((1, 33, 3), grey, np.uint8)
    for sign in (1, -1) if signed else (1,):
        painted = scale.paint(photo, sign * values)
        distances = np.linalg.norm(lab(painted[0]) - lab(veil(photo)[0]), axis=1)
        assert distances[0] == 0
        # Rounding to 256 values costs a little.
        assert (np.diff(distances) > -0.5).all()
        # A difference of 10 is plain to see. Light blues have less colour than oranges, whatever the scale.
        assert distances[-1] > 25
        assert distances[16] > 9


def test_the_photo_is_seen_through_the_strongest_value():
    photo = np.repeat(np.array([[[0], [255]]], np.uint8), 3, axis=2)
    painted = ColourScale(0, 1, is_signed=False).paint(photo, np.ones((1, 2), np.float32))
    # A quarter of the 205 greys between the darkest and the lightest.
    assert (painted[0, 1].astype(int) - painted[0, 0]).tolist() == pytest.approx([51] * 3, abs=1)


def test_a_photo_below_a_map_is_grey_and_neither_black_nor_white():
    # 0.299 of 255 is 76; 30 + 205 * 0.299 = 91.
    photo = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)
    assert veil(photo)[0].tolist() == [[30] * 3, [235] * 3, [91] * 3]


def test_a_scale_spans_its_maps():
    maps = [np.array([[0.5, -1.0]], np.float32), np.array([[3.0]], np.float32)]
    assert ColourScale.of(maps, signed=False) == ColourScale(-1, 3, is_signed=False)
    # As far down as up, so that equal strengths have equal colours.
    assert ColourScale.of(maps, signed=True) == ColourScale(-3, 3, is_signed=True)
    assert ColourScale.of([-maps[1]], signed=True) == ColourScale(-3, 3, is_signed=True)
    assert ColourScale.of([-maps[1], maps[0]], signed=True) == ColourScale(-3, 3, is_signed=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number(value):
    with pytest.raises(ExplanationError, match="numbers alone"):
        ColourScale.of([np.array([[1, value]], np.float32)], signed=True)


@pytest.mark.parametrize("signed", [True, False])
def test_ends_and_middle(signed):
    scale = ColourScale(-4.0, 4.0, is_signed=signed)
    photo = np.full((1, 3, 3), 128, np.uint8)
    low, middle, high = (lab(scale.paint(photo, np.array([[-4, 0, 4]], np.float32))[0])).tolist()
    # Yellow, at +b, for the highest. The lowest is blue, at -b, where there are two ways from 0, and else no colour.
    assert high[2] > 30
    if signed:
        assert low[2] < -15
        assert abs(middle[2]) < 1
    else:
        assert abs(low[2]) < 1
        assert middle[1] > 10


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
def test_of_one_value_all_over_a_plain_scale_says_nothing(signed, value):
    values = np.full((2, 2), value, np.float32)
    scale = ColourScale.of([values], signed=signed)
    photo = np.full((2, 2, 3), 200, np.uint8)
    # A signed scale has a 0 to be away from.
    assert scale.is_flat == (not signed or value == 0)
    assert np.array_equal(scale.paint(photo, values), veil(photo)) == scale.is_flat


def test_values_beyond_the_scale_have_its_ends_colours():
    photo = np.full((1, 2, 3), 90, np.uint8)
    for signed in (True, False):
        scale = ColourScale(-1.0, 1.0, is_signed=signed)
        beyond = scale.paint(photo, np.array([[-9, 9]], np.float32))
        assert np.array_equal(beyond, scale.paint(photo, np.array([[-1, 1]], np.float32)))


@pytest.mark.parametrize("signed", [True, False])
def test_the_strip_has_the_colours_that_a_map_has_over_mid_grey(signed):
    scale = ColourScale(-2.0, 2.0, is_signed=signed)
    strip = scale.strip(5, 3)
    assert strip.shape == (3, 5, 3)
    # The photo's grey that is 128 below a map is (128 - 30) / 205 of 255.
    photo = np.full((1, 5, 3), 122, np.uint8)
    assert veil(photo)[0, 0].tolist() == [128] * 3
    assert np.array_equal(strip[1:2], scale.paint(photo, np.array([[-2, -1, 0, 1, 2]], np.float32)))
