"""Occlusion maps: equal to captum's and to the plain definition, over the photo and nothing but the photo."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from captum.attr import Occlusion as CaptumOcclusion
from numpy.typing import NDArray

from data.images import Area
from service.occlusion import FILLS, TOGETHER, Windows, encode_hidden, hide, occlude
from service.saliency import ExplanationError, Subject

# Size of the square, width and height of the picture, window, stride. Neither window nor stride divides most sizes.
SHAPES = [
    (32, 32, 32, 8, 4),
    (32, 16, 32, 8, 4),
    (37, 37, 20, 7, 3),
    (37, 11, 37, 11, 11),
    (30, 30, 23, 9, 5),
    (24, 24, 24, 24, 5),
    (21, 13, 21, 5, 1),
]


def subject_of(size: int, width: int, height: int, seed: int = 0) -> Subject:
    """A photo of noise, letterboxed on white."""
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    pixels = np.full((size, size, 3), 255, np.uint8)
    area = Subject(pixels, picture).area
    # The pictures here are as large as their area: nothing is scaled.
    pixels[area.rows, area.columns] = picture
    return Subject(pixels, picture)


def bright(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """An encoder of 3 numbers that hang on each pixel in another way, (B, 3)."""
    weights = np.random.default_rng(1).standard_normal((pixels[0].size, 3))
    return (pixels.reshape(len(pixels), -1) / 255 @ weights).astype(np.float32)


def second(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    return embeddings[:, 1]


def slow_loop(subject: Subject, window: int, stride: int) -> NDArray[np.float64]:
    """The definition, a window and a pixel at a time."""
    size, area = len(subject.pixels), subject.area
    right, bottom = area.left + area.width, area.top + area.height
    colour = subject.picture.reshape(-1, 3).mean(axis=0).round()
    whole = float(second(bright(subject.pixels[None]))[0])
    sums, counts = np.zeros((size, size)), np.zeros((size, size))
    top = area.top
    while True:
        left = area.left
        while True:
            hidden = subject.pixels.copy()
            under = [
                (row, column)
                for row in range(top, min(top + window, bottom))
                for column in range(left, min(left + window, right))
            ]
            for place in under:
                hidden[place] = colour
            drop = whole - float(second(bright(hidden[None]))[0])
            for place in under:
                sums[place] += drop
                counts[place] += 1
            if left + window >= right:
                break
            left += stride
        if top + window >= bottom:
            break
        top += stride
    return np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)


def test_more_windows_than_anybody_waits_for_are_refused() -> None:
    with pytest.raises(ExplanationError, match=r"At most 4096 .* there would be 50176\. Choose a longer stride"):
        Windows(224, Area(0, 0, 224, 224), 1, 1)


@pytest.mark.parametrize(("size", "width", "height", "window", "stride"), SHAPES)
def test_the_map_is_that_of_the_definition(size: int, width: int, height: int, window: int, stride: int) -> None:
    subject = subject_of(size, width, height)
    done = occlude(subject, bright, second, window=window, stride=stride)
    assert done.values.dtype == np.float32
    np.testing.assert_allclose(done.values, slow_loop(subject, window, stride), atol=1e-4)


@pytest.mark.parametrize(("size", "width", "height", "window", "stride"), SHAPES)
def test_the_map_is_that_of_captum(size: int, width: int, height: int, window: int, stride: int) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten()
    ).eval()
    subject = subject_of(size, width, height)
    area = subject.area

    def encode(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        photos = torch.from_numpy(pixels[:, area.rows, area.columns]).permute(0, 3, 1, 2) / 255
        with torch.inference_mode():
            return network(photos).numpy()

    # Channels first, as torch has them.
    photo = torch.from_numpy(subject.picture).permute(2, 0, 1)[None] / 255
    colour = photo.mul(255).mean(dim=(2, 3), keepdim=True).round() / 255
    expected = CaptumOcclusion(network).attribute(
        photo,
        sliding_window_shapes=(3, window, window),
        strides=(3, stride, stride),
        baselines=colour.expand_as(photo),
        target=5,
    )
    done = occlude(subject, encode, lambda embeddings: embeddings[:, 5], window=window, stride=stride)
    assert np.ptp(done.values) > 1e-3 or window == size
    np.testing.assert_allclose(done.values[area.rows, area.columns], expected[0, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize(("size", "width", "height", "window", "stride"), SHAPES)
def test_windows_touch_every_pixel_of_the_photo_and_none_of_the_padding(
    size: int, width: int, height: int, window: int, stride: int
) -> None:
    area = subject_of(size, width, height).area
    windows = Windows(size, area, window, stride)
    touched = np.zeros((size, size), bool)
    for rows, columns in windows.places:
        touched[rows, columns] = True
    expected = np.zeros((size, size), bool)
    expected[area.rows, area.columns] = True
    np.testing.assert_array_equal(touched, expected)
    assert windows.corners[0] == (area.top, area.left)
    # No more of them than are needed: the last but one falls short of the edge.
    for spans, end in ((windows.rows, area.top + area.height), (windows.columns, area.left + area.width)):
        assert all(after.start - before.start == stride for before, after in pairwise(spans))
        assert len(spans) == 1 or spans[-2].stop < end


def test_corners_by_hand() -> None:
    # 10 wide from 3 on: windows of 4 every 3 start at 3, 6 and 9 (which ends at 13, the edge). 5 high from 1 on: at 1,
    # and at 4, of which 2 rows are left.
    windows = Windows(16, Area(3, 1, 10, 5), 4, 3)
    assert windows.corners == [(1, 3), (1, 6), (1, 9), (4, 3), (4, 6), (4, 9)]
    assert windows.rows == [slice(1, 5), slice(4, 6)]
    assert windows.columns == [slice(3, 7), slice(6, 10), slice(9, 13)]


def test_a_pixel_has_the_mean_of_the_windows_that_hide_it() -> None:
    # One row of windows, of 2 pixels every pixel: pixel 1 lies under the first two, whose drops are 1 and 5.
    windows = Windows(4, Area(0, 1, 4, 2), 2, 1)
    values = windows.spread(np.array([1.0, 5.0, -2.0]))
    assert values[1].tolist() == values[2].tolist() == [1.0, 3.0, 1.5, -2.0]
    assert not values[0].any()
    assert not values[3].any()


def test_nothing_of_the_padding_is_hidden() -> None:
    subject = subject_of(32, 12, 32)
    outside = np.ones((32, 32), bool)
    outside[subject.area.rows, subject.area.columns] = False
    seen = []
    for fill in FILLS:
        windows = Windows(32, subject.area, 8, 4)
        encode_hidden(subject.pixels, windows, lambda pixels: seen.append(pixels) or bright(pixels), fill=fill)
    for photos in seen:
        assert (photos[:, outside] == 255).all()


@pytest.mark.parametrize(("fill", "expected"), [("white", 255), ("black", 0), ("mean", 50)])
def test_a_window_is_hidden_behind_the_fill(fill: str, expected: int) -> None:
    # 24 of 48 pixels have 20 and 24 have 80: the mean is 50. The padding's 255 does not count.
    subject = subject_of(8, 6, 8)
    subject.pixels[subject.area.rows, subject.area.columns] = 20
    subject.pixels[4:, subject.area.columns] = 80
    seen = []
    encode_hidden(
        subject.pixels,
        Windows(8, subject.area, 4, 4),
        lambda pixels: seen.append(pixels) or bright(pixels),
        fill=fill,
    )
    for photo, (rows, columns) in zip(seen[0], Windows(8, subject.area, 4, 4).places, strict=True):
        assert (photo[rows, columns] == expected).all()
        photo[rows, columns] = subject.pixels[rows, columns]
        np.testing.assert_array_equal(photo, subject.pixels)


def test_a_blurred_photo_keeps_its_colours_and_nothing_shines_in_from_the_padding() -> None:
    subject = subject_of(64, 20, 64)
    place = (subject.area.rows, subject.area.columns)
    blurred = hide(subject.pixels, subject.area, "blur")
    # Noise of 0 to 255 becomes the same grey everywhere, up to the photo's edges.
    assert subject.pixels[place].std() > 70
    assert blurred[place].std() < 10
    assert abs(blurred[place].mean() - subject.pixels[place].mean()) < 3
    subject.pixels[place] = 0
    assert not hide(subject.pixels, subject.area, "blur")[place].any()


def test_other_scores_have_their_map_without_another_encoding() -> None:
    subject, asked = subject_of(32, 20, 32), []

    def encode(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        asked.append(len(pixels))
        return bright(pixels)

    done = occlude(subject, encode, second, window=8, stride=4)
    count = len(done.windows.places)
    # 4 windows across 20 pixels, 7 down 32; and the photo itself.
    assert (count, sum(asked)) == (28, 29)
    assert done.embeddings.shape == (28, 3)
    other = done.rescore(lambda embeddings: embeddings[:, 2])
    assert sum(asked) == 29
    np.testing.assert_array_equal(
        other, occlude(subject, bright, lambda embeddings: embeddings[:, 2], window=8, stride=4).values
    )
    assert not np.array_equal(other, done.values)
    np.testing.assert_array_equal(done.whole, bright(subject.pixels[None])[0])


def test_photos_are_asked_in_batches_and_the_asker_may_leave_between_them() -> None:
    subject, asked, checks = subject_of(32, 32, 32), [], []

    def encode(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        asked.append(len(pixels))
        return bright(pixels)

    windows = Windows(32, subject.area, 8, 4)
    encode_hidden(subject.pixels, windows, encode, check=lambda: checks.append(len(asked)))
    # 7 x 7 windows.
    assert asked == [TOGETHER, TOGETHER, TOGETHER, 1]
    assert checks == [0, 1, 2, 3]

    def gone() -> None:
        if len(asked) == 6:
            raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        occlude(subject, encode, second, window=8, stride=4, check=gone)
    assert len(asked) == 6


def test_the_photo_itself_is_left_as_it_was_and_may_be_read_only() -> None:
    subject = subject_of(32, 32, 32)
    before = subject.pixels.copy()
    subject.pixels.setflags(write=False)
    for fill in FILLS:
        occlude(subject, bright, second, window=8, stride=8, fill=fill)
    np.testing.assert_array_equal(subject.pixels, before)


def test_a_place_that_speaks_against_is_negative() -> None:
    subject = subject_of(32, 32, 32)
    subject.pixels[:] = 40
    # What is brighter there counts against.
    subject.pixels[8:16, 16:24] = 240
    done = occlude(subject, lambda pixels: -pixels[:, 8:16, 16:24, :1].mean(axis=1)[..., 0], second, window=8, stride=4)
    assert done.values.min() < -10
    row, column = np.unravel_index(done.values.argmin(), done.values.shape)
    assert 8 <= row < 16
    assert 16 <= column < 24


@pytest.mark.parametrize("window", [13, 0, 224])
def test_a_window_that_does_not_fit_is_refused_with_those_that_do(window: int) -> None:
    fit = rf"window of {window} x {window} .* is 12 x 32 .* from 1 to 12\."
    with pytest.raises(ExplanationError, match=fit):
        occlude(subject_of(32, 12, 32), bright, second, window=window, stride=1)


def test_a_photo_of_one_pixel_width_takes_a_window_of_one_pixel() -> None:
    subject = subject_of(32, 1, 32)
    assert len(occlude(subject, bright, second, window=1, stride=1).embeddings) == 32
    with pytest.raises(ExplanationError, match=r"is 1 x 32 pixels"):
        occlude(subject, bright, second)


@pytest.mark.parametrize("stride", [0, -1, 9])
def test_a_stride_that_would_leave_gaps_is_refused(stride: int) -> None:
    with pytest.raises(ExplanationError, match=rf"from 1 to the window, 8 pixels.* got {stride}\."):
        Windows(32, Area(0, 0, 32, 32), 8, stride)


def test_an_unknown_fill_is_refused() -> None:
    with pytest.raises(ExplanationError, match="mean, white, black, blur; got 'pink'"):
        occlude(subject_of(32, 32, 32), bright, second, window=8, fill="pink", stride=8)


@pytest.mark.parametrize("drops", [np.zeros(3), np.zeros((4, 1)), np.array([0, 1, np.nan, 0])])
def test_a_map_is_of_one_finite_drop_a_window(drops: NDArray[np.float64]) -> None:
    with pytest.raises(ExplanationError, match="map of 4 windows"):
        Windows(8, Area(0, 0, 8, 8), 4, 4).spread(drops)
