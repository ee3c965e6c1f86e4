"""Masks by backdrop and by GrabCut, on drawn photos whose garment is known."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.background import box_mask, fill_background, garment_mask, resize_mask
from data.catalog import Box
from data.images import open_image

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT.parent / "shared" / "datasets" / "clothing-small" / "validation"


def rectangle(height, width, top, bottom, left, right):
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


def overlap(mask, truth):
    """Intersection over union."""
    return (mask & truth).sum() / (mask | truth).sum()


def studio(garment, colour, backdrop=255):
    """A garment of one colour before a plain backdrop."""
    pixels = np.full((*garment.shape, 3), backdrop, np.uint8)
    pixels[garment] = colour
    return pixels


def phone(garment, seed=0):
    """A reddish garment on a floor of many greens: noise in both, so that no colour is plain."""
    rng = np.random.default_rng(seed)
    floor = np.stack([rng.integers(20, 90, garment.shape), rng.integers(90, 200, garment.shape)], axis=2)
    cloth = np.stack([rng.integers(150, 250, garment.shape), rng.integers(10, 60, garment.shape)], axis=2)
    two = np.where(garment[:, :, None], cloth, floor)
    return np.concatenate([two, two[:, :, :1] // 2], axis=2).astype(np.uint8)


# The backdrop


def test_a_garment_before_a_plain_backdrop_is_found_to_the_pixel():
    garment = rectangle(120, 100, 30, 90, 25, 75)
    for colour, backdrop in (((0, 90, 160), 255), ((250, 240, 20), 0), ((30, 30, 30), 128)):
        assert (garment_mask(studio(garment, colour, backdrop)) == garment).all()


def test_a_white_shirt_before_a_white_wall_is_found():
    # 252 and 255 are 1 apart in CIELAB, which is noise; 249 is 2.1, which only the strict measure tells from 255.
    garment = rectangle(120, 100, 30, 90, 25, 75)
    pixels = studio(garment, (249, 249, 249))
    pixels[30:36, 25:75] = (60, 20, 20)
    # The rim is a blur of both by colour, and goes.
    assert overlap(garment_mask(pixels), garment) > 0.85
    assert not garment_mask(studio(garment, (253, 253, 253))).any()


def test_what_is_white_inside_a_garment_is_the_garment():
    # A white print that the edge's white is not connected with; it is larger than any hole that is filled by size.
    garment = rectangle(120, 100, 20, 100, 15, 85)
    pixels = studio(garment, (120, 10, 40))
    pixels[40:80, 35:65] = 255
    assert (garment_mask(pixels) == garment).all()


def test_legs_may_cross_the_edge_of_a_studio_photo():
    garment = rectangle(120, 100, 20, 120, 30, 70)
    assert (garment_mask(studio(garment, (20, 40, 90))) == garment).all()


def test_a_pale_rim_goes_and_a_notch_at_the_edge_of_the_photo_stays_open():
    garment = rectangle(120, 100, 20, 120, 30, 70)
    # 25 pixels are a smaller share of the photo than holes that are filled.
    garment[115:, 48:53] = False
    rim = rectangle(120, 100, 19, 120, 29, 71) & ~rectangle(120, 100, 20, 120, 30, 70)
    pixels = studio(garment, (20, 40, 90))
    # 7 from white in CIELAB: more than a shadow, and less than a garment at its edge.
    pixels[rim] = 235
    assert (garment_mask(pixels) == garment).all()


def test_a_second_shoe_stays_and_a_crumb_goes():
    shoes = rectangle(120, 160, 40, 80, 20, 60) | rectangle(120, 160, 40, 80, 95, 140)
    pixels = studio(shoes, (20, 40, 90))
    pixels[5:9, 5:9] = 0
    pixels[100:101, :] = 0
    assert (garment_mask(pixels) == shoes).all()


def test_a_photo_of_one_colour_has_no_garment():
    assert not garment_mask(np.full((50, 40, 3), 200, np.uint8)).any()


# GrabCut


def test_a_garment_on_a_floor_of_many_colours_is_found():
    garment = rectangle(300, 240, 70, 230, 60, 180)
    assert overlap(garment_mask(phone(garment)), garment) > 0.95


def test_a_large_photo_is_parted_small_and_its_mask_has_its_own_size():
    garment = rectangle(900, 700, 200, 700, 180, 520)
    mask = garment_mask(phone(garment))
    assert mask.shape == (900, 700)
    assert overlap(mask, garment) > 0.95


def test_a_box_says_which_of_two_garments_is_meant():
    left, right = rectangle(200, 300, 50, 150, 30, 120), rectangle(200, 300, 50, 150, 180, 270)
    pixels = phone(left | right)
    for garment, x in ((left, 0.08), (right, 0.58)):
        box = Box(x, 0.22, 0.34, 0.56)
        mask = garment_mask(pixels, box)
        assert overlap(mask, garment) > 0.95
        assert not (mask & ~box_mask(box, 200, 300)).any()


def test_a_box_holds_in_a_studio_too():
    both = rectangle(100, 200, 30, 70, 20, 98) | rectangle(100, 200, 30, 70, 120, 180)
    box = Box(0.5, 0.0, 0.5, 1.0)
    assert (garment_mask(studio(both, (0, 0, 90)), box) == rectangle(100, 200, 30, 70, 120, 180)).all()


def test_a_garment_that_is_larger_than_its_box_ends_with_it():
    garment = rectangle(907, 701, 100, 800, 100, 600)
    box = Box(0.333, 0.301, 0.357, 0.419)
    for pixels in (studio(garment, (0, 0, 90)), phone(garment)):
        assert not (garment_mask(pixels, box) & ~box_mask(box, 907, 701)).any()


def test_a_mask_that_misses_the_middle_is_none():
    # The cloth fills the photo, and only a badge of an eighth of it stands out.
    badge = rectangle(240, 240, 100, 140, 100, 190)
    assert not garment_mask(phone(badge)).any()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 50, 3), (50, 2, 3), (3, 3, 3), (7, 2000, 3)])
def test_the_smallest_photos_have_masks_too(shape):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, shape).astype(np.uint8)
    assert garment_mask(pixels).shape == shape[:2]
    assert garment_mask(pixels, Box(0.4, 0.4, 0.01, 0.01)).shape == shape[:2]


def test_random_numbers_are_seeded_for_each_photo(monkeypatch):
    # Most masks do not depend on them, so a photo would prove little: OpenCV must be seeded each time, and first.
    calls = []
    for name in ("setRNGSeed", "grabCut"):
        real = getattr(cv2, name)
        monkeypatch.setattr(cv2, name, lambda *given, name=name, real=real: calls.append(name) or real(*given))
    for _ in range(2):
        garment_mask(phone(rectangle(60, 60, 15, 45, 15, 45)))
    assert calls == ["setRNGSeed", "grabCut"] * 2


def test_the_same_photo_has_the_same_mask_in_every_thread():
    photos = [phone(rectangle(150, 120, 30, 120, 25, 95), seed) for seed in range(6)]
    alone = [garment_mask(pixels) for pixels in photos]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(2):
            for mask, before in zip(pool.map(garment_mask, photos), alone, strict=True):
                np.testing.assert_array_equal(mask, before)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photos are in shared/datasets, beside the repository")
def test_phone_photos_have_a_garment_in_the_middle():
    photos = [folder / sorted(path.name for path in folder.iterdir())[0] for folder in sorted(PHOTOS.iterdir())]
    shares = [garment_mask(np.asarray(open_image(path))).mean() for path in photos]
    # One of ten may be lost, as in a photo that the cloth fills; none is all of its photo.
    assert len(shares) == 10
    assert sum(0.15 < share < 0.8 for share in shares) >= 9


# What else there is


def test_the_background_becomes_black_or_white_and_the_garment_stays():
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    mask = np.array([[True, False, True], [False, False, True]])
    for fill, value in (("black", 0), ("white", 255)):
        filled = fill_background(pixels, mask, fill)
        assert filled.dtype == np.uint8
        np.testing.assert_array_equal(filled[mask], pixels[mask])
        assert (filled[~mask] == value).all()
    np.testing.assert_array_equal(pixels.ravel(), range(18))


def test_a_mask_is_resized_around_its_middle():
    mask = np.array([[False, True], [False, True]])
    np.testing.assert_array_equal(resize_mask(mask, 4, 6), [[False] * 3 + [True] * 3] * 4)
    assert resize_mask(mask, 2, 2) is mask


def test_a_box_takes_in_the_pixels_whose_middles_are_in_it():
    # Middles at 0.125, 0.375, 0.625, 0.875.
    np.testing.assert_array_equal(box_mask(Box(0.2, 0.0, 0.5, 0.5), 2, 4), [[False, True, True, False], [False] * 4])


def test_masks_need_no_torch():
    code = """
import sys
import numpy as np
from data.background import garment_mask
garment_mask(np.eye(30, dtype=np.uint8)[..., None].repeat(3, 2) * 255)
print({"torch", "data.catalog"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
