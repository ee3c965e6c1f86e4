from __future__ import annotations

import numpy as np
import pytest

from service.explanation import occlude, overlay
from tests.indexer.fakes import card_of

SIDE = 32
# Hidden windows are 8 wide, 4 apart.
PLACE = (slice(8, 16), slice(20, 28))


class Bright:
    """An encoder of one number: how bright the planted place is, 0..1."""

    card = card_of(1)
    workers = 1
    batches = False

    def encode(self, pixels):
        return pixels[:, PLACE[0], PLACE[1]].mean(axis=(1, 2, 3), keepdims=True)[:, :, 0, 0].astype(np.float32) / 255


def planted():
    pixels = np.full((SIDE, SIDE, 3), 40, np.uint8)
    pixels[PLACE] = 240
    return pixels


def slow_loop(pixels, score):
    """The definition, a window and a pixel at a time."""
    fill = pixels.reshape(-1, 3).mean(axis=0).astype(np.uint8)
    whole, sums, counts = score(pixels), np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    for top in range(0, SIDE - 8 + 1, 4):
        for left in range(0, SIDE - 8 + 1, 4):
            hidden = pixels.copy()
            hidden[top : top + 8, left : left + 8] = fill
            for row in range(top, top + 8):
                for column in range(left, left + 8):
                    sums[row, column] += whole - score(hidden)
                    counts[row, column] += 1
    return sums / counts


def test_the_map_is_that_of_the_definition_and_peaks_at_the_planted_place():
    done = occlude(planted(), Bright(), lambda embeddings: embeddings[:, 0])
    expected = slow_loop(planted(), lambda photo: float(photo[PLACE].mean() / 255))
    assert done.drops == pytest.approx(expected, abs=1e-5)
    assert done.probability == pytest.approx(240 / 255)
    row, column = np.unravel_index(done.drops.argmax(), done.drops.shape)
    assert PLACE[0].start <= row < PLACE[0].stop
    assert PLACE[1].start <= column < PLACE[1].stop
    # Far from it nothing changes.
    assert not done.drops[24:].any()


def test_the_photo_itself_is_left_as_it_was_and_a_photo_may_be_read_only():
    pixels = planted()
    pixels.setflags(write=False)
    occlude(pixels, Bright(), lambda embeddings: embeddings[:, 0])
    assert np.array_equal(pixels, planted())


def test_it_ends_when_nobody_waits():
    def gone():
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        occlude(planted(), Bright(), lambda embeddings: embeddings[:, 0], gone)


def test_the_picture_is_red_where_it_falls_blue_where_it_rises_and_grey_elsewhere():
    drops = np.zeros((SIDE, SIDE), np.float32)
    drops[0, 0], drops[1, 1] = 0.5, -0.25
    picture = overlay(np.full((SIDE, SIDE, 3), (10, 40, 70), np.uint8), drops).astype(int)
    assert picture[0, 0, 0] > picture[0, 0, 2] + 50
    assert picture[1, 1, 2] > picture[1, 1, 0] + 20
    # The mean of 10, 40 and 70.
    assert picture[2, 2].tolist() == [40, 40, 40]
    assert overlay(planted(), np.zeros((SIDE, SIDE), np.float32)).shape == (SIDE, SIDE, 3)
