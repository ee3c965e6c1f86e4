from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from data.catalog import Box
from data.images import ImageError, read_pixels
from finetune.augmentation import read_augmented
from finetune.recipe import Augmentation

STILL = Augmentation(crop=1, stretch=1, flip=0)


def photo(pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def quarters(height: int = 80, width: int = 40):
    """Red, green over blue, black."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2, 0] = 200
    pixels[: height // 2, width // 2 :, 1] = 200
    pixels[height // 2 :, : width // 2, 2] = 200
    return pixels


def augmented(content, change, *, size=64, box=None, seed=0):
    return read_augmented(content, size, change, box=box, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("shape", [(80, 40), (40, 80), (64, 64), (300, 150)])
def test_without_changes_it_is_the_letterboxed_photo(shape):
    content = photo(quarters(*shape))
    got, wanted = augmented(content, STILL).astype(int), read_pixels(content, 64).astype(int)
    # Two ways of scaling differ at edges alone: on few pixels much, on most not at all.
    assert np.median(np.abs(got - wanted)) == 0
    assert np.abs(got - wanted).mean() < 6


def test_a_box_is_seen_alone():
    content = photo(quarters())
    got = augmented(content, STILL, box=Box(0, 0, 0.5, 0.5))  # the red quarter: 20 x 40, so 32 of 64 columns
    # At its edges, blown up from one pixel to 1.6, it fades into white.
    assert (got[2:-2, 18:46] == [200, 0, 0]).all()
    assert (got[:, :14] == 255).all()
    assert (got[:, 50:] == 255).all()


def test_a_flip_mirrors_left_and_right():
    content = photo(quarters(64, 64))
    got = augmented(content, Augmentation(flip=1))
    assert np.abs(got.astype(int) - augmented(content, STILL)[:, ::-1]).max() <= 1


def test_a_half_turn_is_both_flips():
    content = photo(quarters(64, 64))
    turned = [augmented(content, Augmentation(flip=0, rotation=180), seed=seed) for seed in range(200)]
    wanted = augmented(content, STILL)[::-1, ::-1].astype(int)
    # Some of 200 random turns is within a degree or two of half a turn.
    assert min(np.abs(one - wanted).mean() for one in turned) < 5


def test_a_turn_keeps_the_middle_and_fills_corners_with_white():
    grey = photo(np.full((64, 64, 3), 90, np.uint8))
    got = augmented(grey, Augmentation(flip=0, rotation=45), seed=1)
    assert (got[24:40, 24:40] == 90).all()
    assert (got[0, 0] == 255).all()


def test_crops_keep_at_least_their_share_of_the_area():
    # A photo whose red rises from left to right and green from top to bottom tells which part a crop shows.
    ramp = np.linspace(0, 255, 256).astype(np.uint8)
    content = photo(np.dstack([*np.meshgrid(ramp, ramp), np.zeros((256, 256), np.uint8)]))
    areas, ratios = [], []
    for seed in range(200):
        got = augmented(content, Augmentation(crop=0.25, flip=0), seed=seed).astype(float)
        width, height = (got[0, -1, 0] - got[0, 0, 0]) / 255, (got[-1, 0, 1] - got[0, 0, 1]) / 255
        areas.append(width * height)
        ratios.append(width / height)
    assert 0.22 < min(areas) < 0.35
    assert 0.85 < max(areas) <= 1
    # As wide as 4 to 3, and as high.
    assert 0.7 < min(ratios) < 0.85
    assert 1.2 < max(ratios) < 1.4


def test_a_crop_reaches_every_corner():
    content = photo(quarters(64, 64))
    corners = {tuple(augmented(content, Augmentation(crop=0.1, flip=0), seed=seed)[32, 32]) for seed in range(100)}
    assert {(200, 0, 0), (0, 200, 0), (0, 0, 200), (0, 0, 0)} <= corners


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_each_change_of_colour_does_what_its_name_says(name):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:] = (160, 100, 80)
    changed = [
        augmented(photo(pixels), Augmentation(flip=0, **{name: 0.3}), size=16, seed=seed)[0, 0].astype(float)
        for seed in range(30)
    ]
    assert len({tuple(one) for one in changed}) > 10
    for red, green, blue in changed:
        grey = 0.299 * red + 0.587 * green + 0.114 * blue
        if name == "brightness":  # all three by one factor
            assert red / 160 == pytest.approx(green / 100, abs=0.02)
            assert green / 100 == pytest.approx(blue / 80, abs=0.02)
        elif name == "contrast":  # all three by one factor about the middle
            factor = (red - 127.5) / 32.5
            assert green - 127.5 == pytest.approx(-27.5 * factor, abs=1.5)
            assert blue - 127.5 == pytest.approx(-47.5 * factor, abs=1.5)
        elif name == "saturation":  # 0.299 * 160 + 0.587 * 100 + 0.114 * 80: the grey stays
            assert grey == pytest.approx(115.7, abs=1)
        else:  # a turn about the greys keeps the sum
            assert red + green + blue == pytest.approx(340, abs=2)


def test_grey_has_no_hue_to_change():
    got = augmented(photo(np.full((16, 16, 3), 77, np.uint8)), Augmentation(flip=0, hue=0.5, saturation=1), size=16)
    assert np.abs(got.astype(int) - 77).max() <= 1


def test_an_erased_part_is_noise_of_the_right_size():
    content = photo(np.full((64, 64, 3), 50, np.uint8))
    shares = []
    for seed in range(60):
        got = augmented(content, Augmentation(flip=0, erase=1), seed=seed)
        changed = (got != 50).any(axis=2)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        # One rectangle: what is changed fills its own bounds.
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.9
        shares.append(changed.mean())
    assert 0.01 < min(shares) < 0.06
    assert 0.12 < max(shares) < 0.22


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_shares_of_photos_are_kept_to(share):
    content = photo(quarters(16, 16))
    plain = augmented(content, STILL, size=16)
    flips = [augmented(content, Augmentation(flip=share), size=16, seed=seed) for seed in range(300)]
    assert np.mean([np.abs(one.astype(int) - plain).mean() > 5 for one in flips]) == pytest.approx(share, abs=0.08)


def test_the_same_generator_gives_the_same_pixels_and_another_others():
    content = photo(quarters())
    change = Augmentation(0.3, rotation=20, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1, erase=0.5)
    first = augmented(content, change, seed=3)
    assert (first == augmented(content, change, seed=3)).all()
    assert (first != augmented(content, change, seed=4)).any()
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8


def test_a_large_photo_is_averaged_and_not_sampled():
    # Columns of black and white, finer than the result can show, are grey in it.
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    got = augmented(photo(stripes), STILL)
    assert np.abs(got.astype(int) - 127).max() <= 2


def test_what_is_no_photo_is_refused():
    with pytest.raises(ImageError, match="no JPEG, PNG or WEBP"):
        augmented(b"nothing", STILL)
