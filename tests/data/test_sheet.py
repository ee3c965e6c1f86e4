"""Contact sheets: everything is where it belongs, whole, and inside its tile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from data.sheet import Tile, draw_sheet

RED, GREEN, BLUE = (220, 20, 30), (20, 180, 40), (30, 60, 220)


def plain(colour: tuple[int, int, int], width: int = 90, height: int = 90) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def bounds(sheet: Image.Image, colour: tuple[int, int, int], tolerance: int = 12) -> tuple[int, int, int, int]:
    """Left, top, right and bottom (exclusive) of what has that colour."""
    distance = np.abs(np.asarray(sheet).astype(int) - np.array(colour))
    near = np.all(distance <= tolerance, axis=2)
    assert near.any(), f"nothing of colour {colour} on the sheet"
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def test_the_size_of_a_sheet_follows_from_its_tiles() -> None:
    tiles = [Tile(plain(RED), ("distance 0.100", "Shirts"))] * 5
    # At 240: pad 12, gap 18, margin 30, body text 15, line ceil(15 * 1.45) = 22, heading 33. A card is 240 + 2 * 12 =
    # 264 wide and 264 + 12 + 2 * 22 = 320 high.
    # A plain grid of 3 columns and 2 rows: 3 * 264 + 2 * 18 + 2 * 30 = 888 by 2 * 320 + 18 + 2 * 30 = 718.
    assert draw_sheet(None, tiles, columns=3).size == (888, 718)
    # One row with the query at the same size: 264 + 2 * 18 + (5 * 264 + 4 * 18) + 2 * 30 = 1752 by 33 + 320 + 60 = 413.
    assert draw_sheet(tiles[0], tiles).size == (1752, 413)
    # Two rows of 3, the query's photo 360: 384 + 36 + (3 * 264 + 36) + 60 = 1308 by 33 + (2 * 320 + 18) + 60 = 751.
    assert draw_sheet(tiles[0], tiles, columns=3).size == (1308, 751)


def test_a_row_is_as_high_as_its_longest_caption() -> None:
    short, long = Tile(plain(RED), ("a",)), Tile(plain(GREEN), ("a", "b", "c", "d"))
    # Three more lines of 22.
    assert draw_sheet(long, [short]).height == draw_sheet(short, [short]).height + 66
    assert draw_sheet(short, [long]).height == draw_sheet(short, [short]).height + 66
    # The query's dark frame ends level with its neighbours, at the margin of 30.
    sheet = draw_sheet(short, [long])
    assert bounds(sheet.crop((30, 0, 32, sheet.height)), (28, 30, 33))[3] == pytest.approx(sheet.height - 30, abs=12)


def test_the_query_is_left_and_larger_and_neighbours_follow_in_rank_order() -> None:
    neighbours = [Tile(plain(GREEN)), Tile(plain(BLUE)), Tile(plain((200, 120, 0))), Tile(plain((150, 0, 150)))]
    sheet = draw_sheet(Tile(plain(RED)), neighbours, columns=3, tile_size=120)
    query, first, second = bounds(sheet, RED), bounds(sheet, GREEN), bounds(sheet, BLUE)
    fourth = bounds(sheet, (150, 0, 150))
    assert query[2] < first[0]
    assert query[2] - query[0] == 180
    assert first[2] - first[0] == first[3] - first[1] == 120
    assert query[1] == first[1] == second[1]
    assert first[2] < second[0]
    # The fourth starts the second row, below the first.
    assert fourth[0] == first[0]
    assert fourth[1] > first[3]


@pytest.mark.parametrize("size", [(40, 400), (400, 40), (300, 299), (7, 5), (2000, 500)])
def test_a_photo_is_scaled_whole_and_keeps_its_shape(size: tuple[int, int]) -> None:
    # Four corners of four colours: a crop on any side would lose two of them.
    photo = plain((128, 128, 128), *size)
    width, height = max(1, size[0] // 4), max(1, size[1] // 4)
    corners = {RED: (0, 0), GREEN: (size[0] - width, 0), BLUE: (0, size[1] - height)}
    corners[200, 120, 0] = (size[0] - width, size[1] - height)
    for colour, corner in corners.items():
        photo.paste(colour, (*corner, corner[0] + width, corner[1] + height))
    sheet = draw_sheet(None, [Tile(photo)], tile_size=200)
    boxes = {colour: bounds(sheet, colour, tolerance=40) for colour in corners}
    left, top = boxes[RED][:2]
    right, bottom = boxes[200, 120, 0][2:]
    scale = 200 / max(size)
    # Resampling blurs the edge of a corner by a pixel or two.
    assert right - left == pytest.approx(size[0] * scale, abs=2)
    assert bottom - top == pytest.approx(size[1] * scale, abs=2)
    assert boxes[GREEN][0] > left
    assert boxes[BLUE][1] > top
    # A card is 200 + 2 * 10 on a margin of 25: the photo stands in its middle.
    assert (left + right) / 2 == pytest.approx(135, abs=1)
    assert (top + bottom) / 2 == pytest.approx(135, abs=1)


def test_a_photo_thinner_than_a_pixel_once_scaled_is_still_drawn() -> None:
    left, top, right, bottom = bounds(draw_sheet(None, [Tile(plain(RED, 10_000, 1))], tile_size=100), RED)
    assert (right - left, bottom - top) == (100, 1)


def test_letterboxed_photos_stand_on_white() -> None:
    sheet = draw_sheet(None, [Tile(plain(RED, 40, 400))], tile_size=100)
    left, top, right, _ = bounds(sheet, RED)
    assert sheet.getpixel((left - 20, top + 50)) == sheet.getpixel((right + 20, top + 50)) == (255, 255, 255)


def test_an_unreadable_photo_is_a_grey_tile_that_says_so() -> None:
    sheet = draw_sheet(Tile(plain(RED)), [Tile(None, ("distance 0.2",)), Tile(plain(GREEN), ("distance 0.3",))])
    grey = bounds(sheet, (240, 240, 237), tolerance=0)
    right = bounds(sheet, GREEN)
    # As large as a photo, and on the same line.
    assert grey[2] - grey[0] == 240
    assert (grey[1], grey[3]) == (right[1], right[3])
    inside = np.asarray(sheet.crop(grey)).astype(int)
    # Words and a sign, in dark grey, but mostly empty.
    assert 0.005 < (inside.mean(axis=2) < 160).mean() < 0.1


@pytest.mark.parametrize(
    "line",
    [
        "a very long product name that never ends " * 5,
        "W" * 100_000,
        "wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww…",
        "日本語のとても長い商品名" * 20,
        # Marks stacked on a letter reach far above and below it.
        "Z" + "\u0334\u0353\u0489\u030d" * 40,
    ],
)
@pytest.mark.parametrize("font_file", [None, Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")])
def test_text_stays_inside_its_tile(line: str, font_file: Path | None) -> None:
    if font_file and not font_file.exists():
        pytest.skip("This machine has no DejaVu Sans.")
    photo = plain((255, 255, 255))

    def drawn(text: str) -> np.ndarray:
        tiles = [Tile(photo, ("", text, "")), Tile(photo, ("", "", ""))]
        return np.asarray(draw_sheet(None, tiles, tile_size=120, font_file=font_file))

    rows, columns = np.nonzero((drawn(line) != drawn("")).any(axis=2))
    # Margin 15, pad 6: text has x from 21 to 141. Captions begin at 15 + 6 + 120 + 6 = 147, the second line 16 below.
    assert columns.min() >= 21
    assert columns.max() < 141
    assert rows.min() >= 163
    assert rows.max() < 179


def test_a_line_that_fits_is_not_cut_and_one_that_does_not_ends_in_an_ellipsis() -> None:
    # The text of a tile is drawn exactly as Pillow draws the expected words.
    def caption(text: str) -> bytes:
        return draw_sheet(None, [Tile(plain(RED), (text,))], tile_size=120).tobytes()

    font = ImageFont.load_default(11)
    words = "Indigo Nation Men Striped Shirt"
    assert font.getlength(words) > 120
    beginnings = [words[:end].rstrip() for end in range(len(words))]
    fitting = max(beginning for beginning in beginnings if font.getlength(beginning + "…") <= 120)
    assert caption(words) == caption(fitting + "…")
    assert caption(fitting[:-2]) != caption(fitting + "…")


@pytest.mark.parametrize(
    ("written", "drawn"),
    [
        ("Lancôme", "Lancome"),
        ("Gro\u0308ße 38 – 40", "Grosse 38 - 40"),  # noqa: RUF001
        ("Łódź €5", "Lodz EUR 5"),
        ("two\nlines\tand \x00 more", "two lines and more"),
        ("zero\u200dwidth", "zerowidth"),
        ("broken \ud800 surrogate", "broken surrogate"),
        ("l’été “vrai”", "l’ete “vrai”"),  # noqa: RUF001
    ],
)
def test_signs_that_the_bundled_font_lacks_become_plain_ones(written: str, drawn: str) -> None:
    one, other = (draw_sheet(None, [Tile(plain(RED), (text,))]) for text in (written, drawn))
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("line", ["日本語", "👗👠", "שמלה", "فستان", "한국어", "", " "])
def test_other_scripts_and_empty_lines_do_not_fail(line: str) -> None:
    draw_sheet(Tile(plain(RED), (line,)), [Tile(plain(GREEN), (line, line))], tile_size=64)


def test_a_font_file_keeps_accents() -> None:
    font_file = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")
    if not font_file.exists():
        pytest.skip("This machine has no DejaVu Sans.")
    accented, plain_letters = (
        draw_sheet(None, [Tile(plain(RED), (text,))], font_file=font_file) for text in ("Lancôme", "Lancome")
    )
    assert accented.tobytes() != plain_letters.tobytes()


def test_no_neighbours_leave_the_query_and_an_empty_place() -> None:
    sheet = draw_sheet(Tile(plain(RED), ("query.jpg",)), [])
    # 264 + 36 + 264 + 60 by 33 + (264 + 12 + 22) + 60.
    assert sheet.size == (624, 391)
    assert bounds(sheet, RED)[2] < sheet.width / 2
    assert draw_sheet(None, []).size == (324, 324)


def test_ranks_are_drawn_beside_a_query_only() -> None:
    tiles = [Tile(plain((255, 255, 255)), ("",))]
    ink = (28, 30, 33)
    ranked = draw_sheet(Tile(plain(RED)), tiles)
    # The query's frame ends half-way; the plate with the rank is the only dark thing of its size to the right of it,
    # below the photo.
    plate = bounds(ranked.crop((330, 63 + 264, ranked.width, ranked.height)), ink, tolerance=4)
    assert plate[2] - plate[0] >= 18
    with pytest.raises(AssertionError, match="nothing of colour"):
        bounds(draw_sheet(None, tiles), ink, tolerance=4)


def test_the_photos_are_left_as_they_are() -> None:
    photo = plain(RED)
    ImageDraw.Draw(photo).line((0, 0, 90, 90), GREEN)
    before = photo.tobytes()
    draw_sheet(Tile(photo), [Tile(photo)])
    assert photo.tobytes() == before
    assert photo.size == (90, 90)


@pytest.mark.parametrize(
    ("columns", "tile_size", "image", "message"),
    [
        (0, 240, plain(RED), "1 column or more; got columns=0"),
        (5, 63, plain(RED), "must be 64 pixels or more to be readable; got 63"),
        (5, 240, Image.new("RGBA", (5, 5)), "RGB photo with pixels; got mode RGBA, 5 x 5"),
        (5, 240, Image.new("RGB", (0, 5)), "got mode RGB, 0 x 5"),
    ],
)
def test_a_wrong_argument_is_refused_with_a_sentence(
    columns: int, tile_size: int, image: Image.Image, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        draw_sheet(Tile(image), [], columns=columns, tile_size=tile_size)
