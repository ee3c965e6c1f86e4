"""Plots: what is in them, by their pixels."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image

from finetune.plots import draw_confusion, draw_error, draw_loss
from tests.finetune.runs import make_epoch

BLUE, GREY = (0x1D, 0x5F, 0xBF), (0x9A, 0xA0, 0xA8)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def rows_of(picture, colour):
    """Of each column that has the colour: the mean row of it."""
    hits = np.abs(picture - colour).max(axis=2) < 12
    columns = np.flatnonzero(hits.any(axis=0))
    return columns, np.array([np.flatnonzero(hits[:, column]).mean() for column in columns])


def below_title_and_legend(picture):
    """The part of the curves, without the legend, whose lines have their colours."""
    return picture[int(picture.shape[0] * 0.25) :, : int(picture.shape[1] * 0.7)]


def test_curves_go_where_the_figures_go():
    # Training loss 2, 1, 2/3, ...; validation loss three quarters of it, so its curve is the lower one.
    picture = below_title_and_legend(pixels(draw_loss([make_epoch(n, 0.5 + n / 20) for n in range(1, 9)])))
    blue_columns, blue = rows_of(picture, BLUE)
    grey_columns, grey = rows_of(picture, GREY)
    # Down the page is towards 0.
    assert blue[0] < blue[len(blue) // 2] < blue[-1]
    both = np.intersect1d(blue_columns, grey_columns)
    assert len(both) > 300
    assert np.mean(blue[np.isin(blue_columns, both)] > grey[np.isin(grey_columns, both)]) > 0.9


def test_error_falls_as_accuracy_rises():
    picture = below_title_and_legend(pixels(draw_error([make_epoch(n, 0.5 + n / 20) for n in range(1, 9)])))
    _, blue = rows_of(picture, BLUE)
    assert blue[0] < blue[-1]


def test_stages_are_told_apart_by_lines_between_their_epochs():
    one = [make_epoch(n, 0.5) for n in range(1, 7)]
    two = [make_epoch(n, 0.5, stage=1 + (n > 3)) for n in range(1, 7)]
    plain, parted = pixels(draw_loss(one)), pixels(draw_loss(two))
    assert plain.shape == parted.shape
    changed = (plain != parted).any(axis=2)
    # A dashed line takes half of the height of the axes, and stands in the middle, between epochs 3 and 4.
    column = int(changed.sum(axis=0).argmax())
    assert changed[:, column].sum() > 0.3 * changed.shape[0]
    left, right = (edges := np.flatnonzero((pixels(draw_loss(one)) < 250).any(axis=(0, 2))))[[0, -1]]
    assert abs(column - (left + right) / 2) < 0.08 * changed.shape[1], edges


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_epoch_that_diverged_leaves_a_gap_and_the_others_their_scale(value):
    good = [make_epoch(n, 0.5 + n / 20) for n in range(1, 6)]
    picture = pixels(draw_loss([*good, make_epoch(6, 0.1, loss=value)]))[120:]
    columns, rows = rows_of(picture, BLUE)
    # Were the scale that of the lost value, the curve would be flat.
    assert np.ptp(rows) > 0.3 * picture.shape[0]
    assert columns[-1] < 0.85 * picture.shape[1]


def test_a_single_epoch_is_a_dot():
    columns, _ = rows_of(pixels(draw_loss([make_epoch(1, 0.5)]))[120:], BLUE)
    assert 5 <= len(columns) <= 15
    assert draw_error([make_epoch(1, math.nan)]).startswith(b"\x89PNG")


def cells_of(matrix, *, normalised=False, labels=None):
    """The colours of the cells, (C, C, 3), taken beside the numbers in their middles."""
    count = len(matrix)
    names = labels or [f"label {number}" for number in range(count)]
    picture = pixels(draw_confusion(np.array(matrix), names, target="type", normalised=normalised))
    # Cells are large patches of one blue, or white; of a 3 x 3 matrix they are 60 pixels at 120 a inch.
    frame = np.abs(picture - 0xDC).max(axis=2) < 6
    columns = np.flatnonzero(frame.sum(axis=0) > 0.4 * 60 * count)
    rows = np.flatnonzero(frame.sum(axis=1) > 0.4 * 60 * count)
    left, bottom = columns[0], rows[-1]
    places = [int(60 * (number + 0.15)) for number in range(count)]
    return np.array([[picture[bottom - 60 * count + y, left + x] for x in places] for y in places])


def test_cells_are_the_darker_the_more_photos_and_white_without_any():
    cells = cells_of([[90, 10, 0], [0, 40, 0], [1, 0, 4]]).sum(axis=2)
    assert cells[0, 2] == cells[1, 0] == cells[1, 2] == cells[2, 1] == 3 * 255
    assert cells[0, 0] < cells[1, 1] < cells[0, 1] < cells[2, 2] < cells[2, 0] < 3 * 255


def test_normalised_cells_are_shares_of_their_row():
    cells = cells_of([[90, 10, 0], [0, 40, 0], [1, 0, 4]], normalised=True).sum(axis=2)
    # 100 %, 90 %, 80 %, 20 %, 10 %.
    assert cells[1, 1] < cells[0, 0] < cells[2, 2] < cells[2, 0] < cells[0, 1] < 3 * 255
    # A true label without photos has no share of anything, and no warning.
    assert (cells_of([[5, 0], [0, 0]], normalised=True)[1] == 255).all()


def test_labels_that_are_no_plain_words_are_drawn_as_they_are():
    # Half a formula would be an error of the library's, letters that the font lacks a warning, which tests refuse.
    for names in (["$\\frac", "a_b$"], ["シャツ", "x" * 200], ["a\nb", "50 %"]):
        assert draw_confusion(np.eye(2, dtype=np.int64), names, target="$x").startswith(b"\x89PNG")


@pytest.mark.parametrize(("count", "narrowest", "widest"), [(2, 200, 900), (75, 2000, 3000), (151, 3500, 5000)])
def test_a_picture_is_large_enough_to_read_and_small_enough_to_open(count, narrowest, widest):
    matrix = np.eye(count, dtype=np.int64)
    png = draw_confusion(matrix, [f"label {number}" for number in range(count)], target="type")
    width, height = Image.open(io.BytesIO(png)).size
    assert narrowest < width < widest
    assert height < widest
