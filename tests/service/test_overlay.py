"""Maps over their photos: a planted patch is found where it is, however the photo is shaped, turned or boxed."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from data.catalog import Box
from data.images import read_pixels, read_view
from data.sheet import CARD, INK, PAGE
from service.colour_scale import ColourScale, veil
from service.overlay import draw_box, draw_explanation, draw_ring, paint, peak_of, scaled, to_picture
from service.page import BODY
from service.saliency import ExplanationError, Subject

Pixels = NDArray[np.uint8]
# Side of what an encoder sees, and the longer side of what people are shown.
SIDE, SHOWN = 96, 240
SIZES = {"tall": (150, 600), "wide": (600, 150), "square": (400, 400), "thin": (3000, 20), "small": (40, 30)}
# What stored row 0 and column 0 are in the photo that is seen; by the EXIF standard.
STORED = {
    1: lambda seen: seen,
    2: lambda seen: seen[:, ::-1],
    3: lambda seen: seen[::-1, ::-1],
    4: lambda seen: seen[::-1],
    5: lambda seen: seen.swapaxes(0, 1),
    6: lambda seen: seen.swapaxes(0, 1)[::-1],
    7: lambda seen: seen.swapaxes(0, 1)[::-1, ::-1],
    8: lambda seen: seen.swapaxes(0, 1)[:, ::-1],
}


def planted(width: int, height: int, patch: Box, orientation: int = 1) -> bytes:
    """A photo in grey with a red patch, stored turned."""
    seen = np.full((height, width, 3), 128, np.uint8)
    rows = slice(round(patch.y * height), max(round((patch.y + patch.height) * height), 1))
    seen[rows, round(patch.x * width) : round((patch.x + patch.width) * width)] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(STORED[orientation](seen))).save(file, "PNG", exif=exif)
    return file.getvalue()


def redness(pixels: Pixels) -> NDArray[np.float32]:
    """How red each pixel is: 1 in the patch, 0 in what is grey or white, and between where they are mixed."""
    return np.clip((pixels[..., 0].astype(np.float32) - pixels[..., 1]) / 255, 0, 1)


def middle(values: NDArray[np.float32]) -> tuple[float, float]:
    """Column and row of the centre of what is there."""
    rows, columns = np.indices(values.shape)
    return float((columns * values).sum() / values.sum()), float((rows * values).sum() / values.sum())


def extent(values: NDArray[np.float32]) -> tuple[int, int]:
    """Columns and rows that have more than half of the most."""
    strong = values > values.max() / 2
    return int(strong.any(axis=0).sum()), int(strong.any(axis=1).sum())


def subject_of(content: bytes, box: Box | None = None) -> Subject:
    return Subject(read_pixels(content, SIDE, box=box), read_view(content, SHOWN), box)


def bump(side: int = SIDE, x: float = 0.5, y: float = 0.4) -> NDArray[np.float32]:
    rows, columns = np.indices((side, side)) / side
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 0.02).astype(np.float32)


def plain(width: int, height: int, grey: int = 200, side: int = SIDE, box: Box | None = None) -> Subject:
    """A subject whose picture is of one grey."""
    return Subject(np.full((side, side, 3), grey, np.uint8), np.full((height, width, 3), grey, np.uint8), box)


# Back to the photo


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("box", [None, Box(0.3, 0.25, 0.6, 0.7)], ids=["whole", "boxed"])
@pytest.mark.parametrize("size", SIZES)
def test_a_planted_patch_is_found_in_its_place(size, box, orientation):
    width, height = SIZES[size]
    subject = subject_of(planted(width, height, Box(0.5, 0.4, 0.2, 0.3), orientation), box)
    # The map is of what an encoder sees, the truth of what people are shown.
    placed = to_picture(redness(subject.pixels), subject)
    truth = redness(subject.picture)
    part = subject.part
    assert placed.shape == (part.height, part.width)
    column, row = middle(placed)
    wanted = middle(truth)
    assert part.left + column == pytest.approx(wanted[0], abs=1.5)
    assert part.top + row == pytest.approx(wanted[1], abs=1.5)
    # And it is as large: a pixel of the map is a few of the picture.
    grain = 1 + max(part.width, part.height) / SIDE
    assert extent(placed) == pytest.approx(extent(truth), abs=grain)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("x", [0.0, 0.8])
def test_a_patch_at_an_edge_is_found_at_that_edge(size, x):
    width, height = SIZES[size]
    subject = subject_of(planted(width, height, Box(x, 0, 0.2, 1)))
    placed = to_picture(redness(subject.pixels), subject)
    assert np.abs(placed - redness(subject.picture)).mean() < 0.03


@settings(max_examples=60)
@given(
    st.integers(30, 400),
    st.integers(30, 400),
    st.floats(0, 0.4),
    st.floats(0, 0.4),
    st.floats(0.3, 0.6),
    st.floats(0.3, 0.6),
)
def test_any_box_of_any_photo(width, height, x, y, box_width, box_height):
    box = Box(x, y, box_width, box_height)
    patch = Box(x + box_width * 0.25, y + box_height * 0.5, box_width * 0.5, box_height * 0.3)
    subject = subject_of(planted(width, height, patch), box)
    placed = to_picture(redness(subject.pixels), subject)
    column, row = middle(placed)
    wanted = middle(redness(subject.picture))
    assert (subject.part.left + column, subject.part.top + row) == pytest.approx(wanted, abs=2)


def test_values_of_the_padding_are_cut_off():
    # 100 x 200 in 96 x 96 is 48 x 96, from column 24 on.
    values = np.full((96, 96), 50, np.float32)
    values[:, 24:72] = 1
    placed = to_picture(values, plain(100, 200, side=96))
    assert placed.shape == (200, 100)
    assert placed.min() == placed.max() == 1


def test_between_pixels_of_the_map_it_is_linear():
    # 2 x 2 over 8 x 8: the middles of the map's pixels are at 1.5 and 5.5, a value of 0 and of 1.
    values = np.array([[0, 1], [0, 1]], np.float32)
    placed = to_picture(values, plain(8, 8, side=2))
    assert placed[3].tolist() == pytest.approx([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])


@pytest.mark.parametrize("shape", [(95, 96), (96,), (96, 96, 3), (1, 96, 96)])
def test_a_map_of_another_size(shape):
    with pytest.raises(ExplanationError, match=r"A map over 96 x 96 pixels was wanted; this one has shape \("):
        to_picture(np.zeros(shape, np.float32), plain(20, 20))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(48, 48), (0, 0)], ids=["photo", "padding"])
def test_a_map_with_what_is_no_number(value, place):
    values = bump()
    values[place] = value
    subject = plain(20, 40)
    with pytest.raises(ExplanationError, match="nan or infinity"):
        draw_explanation(subject, values, signed=False, title="", lines=[])


# The picture. By hand: a margin of 30, a title of ceil(1.45 * 20) = 29, a gap of 18, a caption of ceil(1.45 * 15) = 22
# and 4 below it: photos begin at row 103 and column 30.
LEFT, TOP = 30, 103


def of_colour(picture: Pixels, colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return (picture == colour).all(axis=2)


def drawn(subject: Subject, values: NDArray[np.float32], *, signed: bool = False, lines=(), title="T") -> Pixels:
    picture = draw_explanation(subject, values, signed=signed, title=title, lines=lines)
    assert picture.dtype == np.uint8
    assert (picture.ndim, picture.shape[2]) == (3, 3)
    return picture


def noise(width: int, height: int) -> Subject:
    picture = np.random.default_rng(3).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Subject(np.zeros((SIDE, SIDE, 3), np.uint8), picture)


def test_the_photo_stands_beside_its_map():
    # 480 x 625 has 300,000 pixels, so it is drawn as it is.
    subject = noise(480, 625)
    picture = drawn(subject, bump())
    assert picture.shape[1] == 2 * 480 + 18 + 60
    assert np.array_equal(picture[TOP : TOP + 625, LEFT : LEFT + 480], subject.picture)
    placed = to_picture(bump(), subject)
    overlay = paint(subject, placed, ColourScale.of([placed], signed=False))
    column, row = peak_of(placed, subject, ColourScale.of([placed], signed=False))
    beside = picture[TOP : TOP + 625, LEFT + 498 : LEFT + 498 + 480]
    different = (beside != np.asarray(overlay)).any(axis=2)
    # But for the ring, of radius 10, around the peak.
    rows, columns = np.nonzero(different)
    assert max(abs(rows - row).max(), abs(columns - column).max()) <= 10
    assert of_colour(beside, CARD)[row - 9 : row + 10, column - 9 : column + 10].sum() > 50


@pytest.mark.parametrize(
    ("size", "shown", "is_beside"),
    [
        # A tall one is beside its map, at most 1024 high; a wide one above it, at most 1024 wide.
        ((300, 1200), (256, 1024), True),
        ((1200, 300), (1024, 256), False),
        ((1000, 1000), (548, 548), True),
        # 1.5 times as wide as high, and a little more.
        ((600, 400), (671, 447), True),
        ((604, 400), (673, 446), False),
        # Four times as large at most.
        ((50, 40), (200, 160), True),
        ((1024, 7), (1024, 7), False),
        ((1, 1), (4, 4), True),
    ],
)
def test_layout_and_size_of_photos(size, shown, is_beside):
    picture = drawn(plain(*size), bump(), lines=["a line"])
    width, height = shown
    # The photo's grey is not that of the page, nor of the map.
    photo = of_colour(picture, (200, 200, 200))
    rows, columns = np.flatnonzero(photo.any(axis=1)), np.flatnonzero(photo.any(axis=0))
    assert (columns[0], rows[0]) == (LEFT, TOP)
    assert photo[TOP : TOP + height, LEFT : LEFT + width].all()
    assert not photo[TOP + height, LEFT] or width < 60
    wide = max(520, 2 * width + 18 if is_beside else width)
    assert picture.shape[1] == wide + 60
    place = (TOP, LEFT + width + 18) if is_beside else (TOP + height + 18 + 26, LEFT)
    # Where a bump says nothing, the map is the photo's grey, lifted: 30 + 205 * 200 / 255 = 191.
    if min(size) > 30:
        assert picture[place].tolist() == [191] * 3


def test_a_photo_with_a_box_has_it_drawn_and_its_map_inside():
    box = Box(0.25, 0.5, 0.5, 0.25)
    # 480 x 600 is scaled by 1.0206, to 490 x 612: the box is from 122 to 368 and from 306 to 459.
    picture = drawn(plain(480, 600, box=box), np.ones((SIDE, SIDE), np.float32), signed=True)
    for left in (LEFT, LEFT + 490 + 18):
        photo = picture[TOP : TOP + 612, left : left + 490]
        rows, columns = np.nonzero(of_colour(photo, CARD))
        assert (columns.min(), columns.max(), rows.min(), rows.max()) == (121, 368, 305, 459)
        # White within dark: it is seen on any ground.
        assert photo[304, 200].tolist() == list(INK)
    overlay = picture[TOP : TOP + 612, LEFT + 508 : LEFT + 508 + 490]
    assert overlay[100, 100].tolist() == overlay[400, 50].tolist() == [191] * 3
    inside = overlay[400, 200].astype(int)
    # Yellow: much more red than blue.
    assert inside[0] - inside[2] > 80


def test_the_ring_of_a_boxed_photo_lies_in_its_box():
    box = Box(0.5, 0.5, 0.5, 0.5)
    subject = plain(200, 100, box=box)
    placed = to_picture(bump(x=0.75, y=0.5), subject)
    # Three quarters and a half of 100 x 50 that begin at (100, 50).
    peak = peak_of(placed, subject, ColourScale.of([placed], signed=False))
    assert peak == pytest.approx((175, 75), abs=2)


def test_whole_photos_have_no_box():
    picture = Image.new("RGB", (20, 20), "grey")
    draw_box(picture, plain(20, 20))
    assert picture.getcolors() == [(400, (128, 128, 128))]


@pytest.mark.parametrize("corner", [(0, 0), (19, 19), (10, 0)])
def test_a_ring_at_the_edge_is_cut_off(corner):
    picture = Image.new("RGB", (20, 20), "grey")
    draw_ring(picture, corner)
    assert 1 < len(picture.getcolors()) < 400
    assert picture.getpixel(corner) == (128, 128, 128)


def overlay_of(picture: Pixels, side: int) -> Pixels:
    return picture[TOP : TOP + side, LEFT + side + 18 : LEFT + 2 * side + 18]


# A picture of 548 x 548 is drawn as it is: 548 ** 2 is a little above 300,000, and sqrt(300,000) is 547.7.
EDGE = 548


@pytest.mark.parametrize("signed", [True, False])
def test_a_map_of_zeros_is_a_grey_photo_and_a_sentence(signed):
    picture = drawn(plain(EDGE, EDGE), np.zeros((SIDE, SIDE), np.float32), signed=signed)
    assert np.array_equal(overlay_of(picture, EDGE), veil(np.full((EDGE, EDGE, 3), 200, np.uint8)))
    # One line of words in place of the strip.
    assert picture.shape[0] == TOP + EDGE + 18 + 22 + 30


def test_a_map_that_is_against_all_over_has_cold_colours_and_no_ring():
    picture = drawn(plain(EDGE, EDGE), -bump(), signed=True)
    overlay = overlay_of(picture, EDGE).astype(int)
    assert overlay.min() > 60
    assert (overlay[..., 0] <= overlay[..., 2] + 1).all()
    # Blue where it is most against: at (0.5, 0.4).
    strongest = overlay[round(0.4 * EDGE), EDGE // 2]
    assert strongest[2] - strongest[0] > 50
    assert not of_colour(overlay.astype(np.uint8), CARD).any()


def test_negative_values_of_a_map_without_sign_are_low_ones():
    picture = drawn(plain(EDGE, EDGE), bump() - 5)
    difference = picture[TOP : TOP + EDGE].astype(int) - drawn(plain(EDGE, EDGE), bump())[TOP : TOP + EDGE]
    # 5 costs the numbers some of their digits.
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("signed", [True, False])
def test_a_single_hot_pixel_is_a_spot_with_a_ring(signed):
    values = np.zeros((SIDE, SIDE), np.float32)
    values[20, 70] = 3
    overlay = overlay_of(drawn(plain(EDGE, EDGE), values, signed=signed), EDGE).astype(int)
    rows, columns = np.nonzero(np.ptp(overlay, axis=2) > 20)
    # The pixel's middle is at 70.5 / 96 and 20.5 / 96; it is 548 / 96 = 5.7 large, and fades out over as much again.
    assert columns.mean() == pytest.approx(70.5 / 96 * EDGE, abs=2)
    assert rows.mean() == pytest.approx(20.5 / 96 * EDGE, abs=2)
    assert np.ptp(columns) < 15
    rows, columns = np.nonzero(of_colour(overlay.astype(np.uint8), CARD))
    assert columns.mean() == pytest.approx(70.5 / 96 * EDGE, abs=2)
    assert rows.mean() == pytest.approx(20.5 / 96 * EDGE, abs=2)


@pytest.mark.parametrize("factor", [1e-38, 1e-6, 1.0, 1e37])
def test_a_map_of_any_scale_looks_the_same(factor):
    small = drawn(plain(EDGE, EDGE), (bump() * factor).astype(np.float32), signed=True)
    assert (
        np.abs(small[: TOP + EDGE].astype(int) - drawn(plain(EDGE, EDGE), bump(), signed=True)[: TOP + EDGE]).max() <= 1
    )


# Legend and words


def strip_of(picture: Pixels) -> Pixels:
    """The strip of colours, below a photo of EDGE."""
    top = TOP + EDGE + 18
    return picture[top : top + 18, LEFT : LEFT + 520]


@pytest.mark.parametrize("signed", [True, False])
def test_the_legend_has_the_colours_of_the_scale(signed):
    values = bump() * 4
    subject = plain(EDGE, EDGE)
    placed = to_picture(values, subject)
    picture = drawn(subject, values, signed=signed)
    assert np.array_equal(strip_of(picture), ColourScale.of([placed], signed=signed).strip(520, 18))


def words(picture: Pixels) -> Pixels:
    """What is below the photos."""
    return picture[TOP + EDGE :]


def test_numbers_are_those_of_the_photo_and_not_of_the_padding():
    subject = plain(274, 548)
    values = bump()
    padded = values.copy()
    padded[:, :10] = 99
    assert np.array_equal(drawn(subject, padded), drawn(subject, values))


def test_numbers_and_meaning_are_written():
    subject = plain(EDGE, EDGE)
    one, other = drawn(subject, bump()), drawn(subject, bump() * 7)
    # The same colours, other numbers.
    assert np.array_equal(one[: TOP + EDGE], other[: TOP + EDGE])
    assert (words(one) != words(other)).any()
    told = draw_explanation(
        subject, bump(), signed=False, title="T", lines=[], meaning="Numbers are drops of log odds."
    )
    assert (words(told) != words(one)).any()


def test_a_long_line_is_wrapped_and_makes_the_picture_higher():
    subject = plain(EDGE, EDGE)
    short, none = drawn(subject, bump(), lines=["word"]), drawn(subject, bump())
    # A gap of 18 and a line of 22; two lines are 22 more.
    assert short.shape[0] - none.shape[0] == 40
    assert drawn(subject, bump(), lines=["word", "word"]).shape[0] - short.shape[0] == 22
    long = drawn(subject, bump(), lines=["word " * 60])
    assert long.shape[0] > short.shape[0] + 22
    assert long.shape[1] == short.shape[1]
    # Text, and nothing else, is in dark ink; none of it reaches into the margin.
    rows, columns = np.nonzero(of_colour(long, INK))
    assert columns.min() >= LEFT
    assert columns.max() < long.shape[1] - 30
    assert rows.max() < long.shape[0] - 30
    assert of_colour(long[-30:], PAGE).all()


@pytest.mark.parametrize(
    "text", ["", "👗 „Kleid“ 'x' \"y\"", "日本語の服" * 30, "فستان", "a\nb\0c", "Z" + "\u0334" * 500, "W" * 100_000]
)
def test_labels_of_any_kind(text):
    picture = drawn(plain(40, 160), bump(), title=text, lines=[text, text])
    assert picture.shape[0] < 2000
    assert of_colour(picture[:30], PAGE).all()
    assert of_colour(picture[:, -30:], PAGE).all()


def test_text_can_be_read():
    assert BODY >= 14


def test_a_subject_is_scaled_with_its_parts():
    subject = plain(100, 200, box=Box(0.5, 0.25, 0.5, 0.5))
    large = scaled(subject, 2)
    assert large.picture.shape == (400, 200, 3)
    assert (large.part.left, large.part.top, large.part.width, large.part.height) == (100, 100, 100, 200)
    assert large.pixels is subject.pixels
    assert scaled(subject, 1) is subject


def test_a_subject_has_its_padding_where_it_was_whatever_size_it_is_drawn_in():
    # 10 of 400 pixels are letterboxed to 24 x 96; at a quarter they would be 2 x 10, and letterboxed to 19 x 96.
    subject = plain(400, 400, box=Box(0.5, 0.25, 0.025, 0.1))
    assert (subject.area.width, subject.area.height) == (24, 96)
    small = scaled(subject, 0.25)
    assert (small.part.width, small.part.height) == (2, 10)
    assert small.area == scaled(small, 4).area == subject.area
    values = np.zeros((SIDE, SIDE), np.float32)
    values[subject.area.rows, subject.area.columns] = 1
    assert to_picture(values, small).min() == 1


def test_the_photo_is_left_as_it_is():
    subject = noise(60, 90)
    before = subject.picture.copy()
    values = bump()
    drawn(subject, values)
    assert np.array_equal(subject.picture, before)
    assert np.array_equal(values, bump())


def test_the_ring_is_in_the_middle_of_a_window_that_is_highest_everywhere() -> None:
    photo = np.full((64, 64, 3), 128, np.uint8)
    subject = Subject(photo, photo)
    values = np.zeros((64, 64), np.float32)
    values[8:24, 30:50] = 1
    # As high and elsewhere: of two the first counts.
    values[40:60, 2:8] = 1
    scale = ColourScale.of([values], signed=False)
    column, row = peak_of(to_picture(values, subject), subject, scale)
    assert (column, row) == (pytest.approx(39.5, abs=1), pytest.approx(15.5, abs=1))
