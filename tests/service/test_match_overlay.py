"""Pictures of matches: maps and links at their places, one scale for what is compared, rows that say what lacks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from data.catalog import Box
from data.sheet import CARD, EMPTY, INK
from service.colour_scale import ColourScale, veil
from service.match import Link, Match
from service.match_overlay import _LINKS, _beside_others, draw_match, draw_match_sheet
from service.saliency import ExplanationError, Subject

Pixels = NDArray[np.uint8]
SIDE = 64


def plain(width: int, height: int, grey: int = 200, box: Box | None = None) -> Subject:
    return Subject(np.full((SIDE, SIDE, 3), grey, np.uint8), np.full((height, width, 3), grey, np.uint8), box)


def match_of(
    query_map: NDArray[np.float32] | None = None,
    item_map: NDArray[np.float32] | None = None,
    links: tuple[Link, ...] = (),
    *,
    similarity: float = 0.8,
    is_exact: bool = True,
) -> Match:
    even = np.full((SIDE, SIDE), 0.8 / SIDE**2, np.float32)
    return Match(
        similarity,
        even if query_map is None else query_map,
        even if item_map is None else item_map,
        links,
        padding=(0, 0),
        unattributed=0,
        is_exact=is_exact,
    )


def spot(row: int, column: int, value: float = 1.0, size: int = 8) -> NDArray[np.float32]:
    values = np.zeros((SIDE, SIDE), np.float32)
    values[row : row + size, column : column + size] = value
    return values


def warm(picture: Pixels) -> NDArray[np.bool_]:
    """Where it is yellow."""
    return picture[..., 0].astype(int) - picture[..., 2] > 80


def of_colour(picture: Pixels, colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return (picture == colour).all(axis=2)


def centre(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Column and row."""
    rows, columns = np.nonzero(mask)
    return float(columns.mean()), float(rows.mean())


# By hand: a margin of 30, a title of 29, a gap of 18, a caption of 22 and 4: photos begin at row 103. A photo of 380 x
# 380 is drawn as it is: the maps begin at 30 + 380 + 18 = 428 and, 54 after the end of the first, at 862.
TOP, MAPS, WIDTH = 103, (428, 862), 30 + 4 * 380 + 2 * 18 + 54 + 30


def drawn(query: Subject, item: Subject, match: Match, title: str = "T", lines: tuple[str, ...] = ()) -> Pixels:
    picture = draw_match(query, item, match, title=title, lines=lines)
    assert (picture.dtype, picture.shape[2]) == (np.uint8, 3)
    return picture


def test_each_photo_stands_beside_its_own_map():
    query, item = plain(380, 380, 200), plain(380, 380, 90)
    picture = drawn(query, item, match_of(spot(0, 0), spot(40, 40)))
    assert picture.shape[1] == WIDTH
    photos = picture[TOP : TOP + 380]
    assert of_colour(photos[:, 30:410], (200, 200, 200)).all()
    assert of_colour(photos[:, WIDTH - 410 : WIDTH - 30], (90, 90, 90)).all()
    # 8 of 64 are 47.5 of 380: the middles are at 23.75, and at 44 / 64 * 380 = 261.25.
    for left, middle, grey in ((MAPS[0], 23.75, 200), (MAPS[1], 261.25, 90)):
        overlay = photos[:, left : left + 380]
        assert centre(warm(overlay)) == pytest.approx((middle, middle), abs=2)
        # What is not hot is the photo in grey.
        assert overlay[150, 150].tolist() == veil(np.full((1, 1, 3), grey, np.uint8))[0, 0].tolist()


def test_both_maps_have_one_scale_and_colours_for_and_against():
    photos = drawn(plain(380, 380), plain(380, 380), match_of(spot(0, 0), spot(0, 0, -0.5)))[TOP : TOP + 380]
    grey = np.full((1, 1, 3), 200, np.uint8)
    scale = ColourScale(-1, 1, is_signed=True)
    for left, value in zip(MAPS, (1, -0.5), strict=True):
        wanted = scale.paint(grey, np.array([[value]], np.float32))[0, 0]
        assert np.abs(photos[15, left + 15].astype(int) - wanted).max() <= 1


def test_a_share_counts_for_its_part_of_the_photo():
    # The query's photo takes half of its square, and so each of its pixels twice as much of what is seen: equal maps
    # are of half the strength there.
    photos = drawn(plain(190, 380), plain(380, 380), match_of(spot(24, 24, size=16), spot(24, 24, size=16)))
    # Drawn 260 x 520 and 380 x 380; the maps begin at 30 + 260 + 18 and at 308 + 260 + 54.
    query_map, item_map = photos[TOP : TOP + 520, 308:568], photos[TOP : TOP + 380, 622:1002]
    grey = np.full((1, 1, 3), 200, np.uint8)
    scale = ColourScale(-1, 1, is_signed=True)
    for overlay, value in ((query_map, 0.5), (item_map, 1)):
        wanted = scale.paint(grey, np.array([[value]], np.float32))[0, 0]
        place = overlay[overlay.shape[0] // 2, overlay.shape[1] // 2]
        assert np.abs(place.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("box", [None, Box(0.5, 0.25, 0.5, 0.5)])
def test_links_join_their_places(box):
    link = Link(0.25, 0.75, 0.5, 0.5, 0.1)
    # Boxes are drawn in the colours of no link.
    photos = drawn(plain(380, 380, box=box), plain(380, 380), match_of(links=(link,)))[TOP : TOP + 380]
    # A quarter and three quarters of all of the photo, or of its right half between a quarter and three.
    x, y = (95, 285) if box is None else (190 + 47.5, 95 + 142.5)
    mask = of_colour(photos, _LINKS[0])
    for column, row in ((MAPS[0] + x, y), (MAPS[1] + 190, 190)):
        place = mask[round(row) - 5 : round(row) + 5, round(column) - 5 : round(column) + 5]
        # A dot of radius 4, within a dark line.
        assert place[4:6, 4:6].all()
        assert centre(place) == pytest.approx((4.5, 4.5), abs=1)
        assert of_colour(photos[round(row) - 5 : round(row) + 5, round(column) - 5 : round(column) + 5], INK).any()
    # Half-way between them lies the line.
    middle = round((MAPS[0] + x + MAPS[1] + 190) / 2), round((y + 190) / 2)
    assert mask[middle[1] - 2 : middle[1] + 3, middle[0] - 2 : middle[0] + 3].any()
    # Numbers are on plates outwards: to the left on the query, to the right on the item.
    for column, row in ((MAPS[0] + x - 23, y), (MAPS[1] + 190 + 23, 190)):
        plate = mask[round(row) - 8 : round(row) + 9, round(column) - 8 : round(column) + 9]
        assert 100 < plate.sum() < 17 * 17
        assert of_colour(photos[round(row) - 8 : round(row) + 9, round(column) - 8 : round(column) + 9], INK).any()


def test_no_line_lies_over_a_number():
    # Eight places in a row, each linked with its like: lines run along the row, over the others' places.
    links = tuple(Link(x, 0.5, x, 0.5, 0.1) for x in np.linspace(0.06, 0.94, 8))
    together = drawn(plain(380, 380), plain(380, 380), match_of(links=links))[TOP : TOP + 380]
    for index, link in enumerate(links):
        # The plate's own colour is the most there is around its number.
        places = _beside_others([(MAPS[0] + one.query_x * 380, 190.0) for one in links], (WIDTH, 500), -1)
        column, row = (round(place) for place in places[index])
        plate = together[row - 7 : row + 8, column - 7 : column + 8].reshape(-1, 3)
        assert (plate == _LINKS[index]).all(axis=1).mean() > 0.4, link


def test_numbers_keep_off_each_other_and_off_all_places():
    # Eight links from one place, and two beside it.
    points = [(200.0, 200.0)] * 8 + [(215.0, 200.0), (200.0, 215.0)]
    for side in (-1, 1):
        places = _beside_others(points, (400, 400), side)
        for index, place in enumerate(places):
            assert all(np.hypot(*np.subtract(place, other)) > 22 for other in places[:index])
            assert all(np.hypot(*np.subtract(place, point)) > 15 for point in points)
    assert _beside_others([(200.0, 200.0)], (400, 400), -1) == [pytest.approx((177, 200))]
    assert _beside_others([(200.0, 200.0)], (400, 400), 1) == [pytest.approx((223, 200))]
    # At an edge they stay inside, and where there is no room at all they are at their place.
    assert all(11 < x < 389 for x, _ in _beside_others([(0.0, 200.0), (400.0, 200.0)], (400, 400), -1))
    assert _beside_others([(5.0, 5.0)], (10, 10), 1) == [(5.0, 5.0)]


def test_links_of_any_number():
    links = tuple(Link(0.5, 0.5, 0.5, 0.5, 0.01) for _ in range(40))
    assert drawn(plain(380, 380), plain(380, 380), match_of(links=links)).shape[1] == WIDTH
    # Without any, nothing is drawn over the maps.
    photos = drawn(plain(380, 380), plain(380, 380), match_of())[TOP : TOP + 380]
    assert len(np.unique(photos[:, MAPS[0] : MAPS[0] + 380].reshape(-1, 3), axis=0)) == 1


def test_two_wide_photos_stand_one_above_another():
    item = match_of(spot(28, 0), spot(28, 56), (Link(0.1, 0.5, 0.9, 0.5, 0.1),))
    picture = drawn(plain(900, 225), plain(900, 225), item)
    assert picture.shape[1] == 960
    # 103 + 225 + 18 + 26, and after the map 54 + 26: the query's map from 372 on, the item's from 677.
    for top, column in ((372, 56), (677, 844)):
        assert centre(warm(picture[top : top + 225, 30:930]))[0] == pytest.approx(column, abs=25)
    # A wide and a tall one stand side by side.
    assert drawn(plain(900, 225), plain(200, 400), item).shape[1] > 960


def test_thin_photos_are_drawn():
    link = Link(0.5, 0.5, 0.5, 0.5, 0.1)
    assert drawn(plain(1024, 7), plain(7, 1024), match_of(links=(link,))).shape[0] < 900
    assert drawn(plain(1, 1), plain(3, 1), match_of(links=(link,))).shape[0] < 900


def height(match: Match) -> int:
    return drawn(plain(380, 380), plain(380, 380), match).shape[0]


def test_figures_stand_below():
    # One line of figures, one more where the maps are an approximation, and the caller's.
    assert height(match_of(is_exact=False)) - height(match_of()) == 22
    told = drawn(plain(380, 380), plain(380, 380), match_of(), lines=("one", "two"))
    assert told.shape[0] - height(match_of()) == 44
    one, other = (drawn(plain(380, 380), plain(380, 380), match_of(similarity=x)) for x in (0.8, 0.7))
    assert (one[TOP + 380 :] != other[TOP + 380 :]).any()


def test_what_links_bring_is_written():
    one, other = (
        drawn(plain(380, 380), plain(380, 380), match_of(links=(Link(0.5, 0.5, 0.5, 0.5, x),))) for x in (0.1, 0.2)
    )
    assert np.array_equal(one[: TOP + 380], other[: TOP + 380])
    assert (one[TOP + 380 :] != other[TOP + 380 :]).any()


def test_equal_maps_of_nothing():
    zeros = np.zeros((SIDE, SIDE), np.float32)
    photos = drawn(plain(380, 380), plain(380, 380), match_of(zeros, zeros, similarity=0))[TOP : TOP + 380]
    assert of_colour(photos[:, MAPS[0] : MAPS[0] + 380], (191, 191, 191)).all()


def test_a_map_with_what_is_no_number():
    broken = match_of(item_map=np.full((SIDE, SIDE), np.nan, np.float32))
    with pytest.raises(ExplanationError, match="nan or infinity"):
        drawn(plain(20, 20), plain(20, 20), broken)
    with pytest.raises(ExplanationError, match="nan or infinity"):
        draw_match_sheet(plain(20, 20), [(plain(20, 20), broken, [])])


# Sheets. By hand: a margin of 30, a caption of 22 and a gap of 9: cards begin at row 61. They begin at column
# 30 + 320 + 36 = 386, are 210 + 24 high and 9 apart; tiles are 210 wide, 12 apart and from the edge.
CARDS, FIRST, NEXT = 386, 61, 243


def tile(sheet: Pixels, row: int, place: int) -> Pixels:
    top, left = FIRST + row * NEXT + 12, CARDS + 12 + place * 222
    return sheet[top : top + 210, left : left + 210]


def test_a_sheet_has_the_query_and_a_row_for_each_neighbour():
    query, items = plain(300, 300, 200), [plain(300, 300, grey) for grey in (40, 90, 140)]
    matches = [match_of(spot(0, 0), spot(40, 40)), match_of(spot(40, 0, 0.5), spot(0, 0)), match_of()]
    sheet = draw_match_sheet(query, [(item, one, ["a", "b"]) for item, one in zip(items, matches, strict=True)])
    assert sheet.shape[1] == 386 + 3 * 210 + 300 + 60 + 30
    assert of_colour(sheet[FIRST : FIRST + 320, 30:350], (200, 200, 200)).all()
    for row, grey in enumerate((40, 90, 140)):
        assert of_colour(tile(sheet, row, 0), (grey,) * 3).all()
    # 4 / 64 of 210 is 13, 44 / 64 is 144. First the query's map, then the item's own.
    assert centre(warm(tile(sheet, 0, 1))) == pytest.approx((13, 13), abs=2)
    assert centre(warm(tile(sheet, 0, 2))) == pytest.approx((144, 144), abs=2)
    assert centre(warm(tile(sheet, 1, 2))) == pytest.approx((13, 13), abs=2)
    # One scale for all: half of the highest value has the colour of a half.
    half = ColourScale(-1, 1, is_signed=True).paint(np.full((1, 1, 3), 200, np.uint8), np.full((1, 1), 0.5, np.float32))
    assert np.abs(tile(sheet, 1, 1)[144, 13].astype(int) - half[0, 0]).max() <= 1


def test_a_photo_that_cannot_be_read_says_so_and_has_no_maps():
    sheet = draw_match_sheet(plain(300, 300), [(None, None, ["gone.jpg"]), (plain(300, 300), match_of(), [])])
    assert of_colour(tile(sheet, 0, 0), EMPTY).mean() > 0.9
    assert (tile(sheet, 0, 0).mean(axis=2) < 160).mean() > 0.005
    assert of_colour(tile(sheet, 0, 1), CARD).all()
    assert of_colour(tile(sheet, 0, 2), CARD).all()
    assert not of_colour(tile(sheet, 1, 2), CARD).any()


def test_a_photo_without_a_match_has_no_maps_and_says_so():
    told, silent = (draw_match_sheet(plain(300, 300), [(item, None, ["a"])]) for item in (plain(300, 300), None))
    assert of_colour(tile(told, 0, 1), CARD).all()
    words = slice(CARDS + 12 + 3 * 222, None)
    # One line more.
    assert (told[FIRST + 12 + 22 : FIRST + 12 + 44, words] != silent[FIRST + 12 + 22 : FIRST + 12 + 44, words]).any()
    # Without any map there is no legend: 234 of the card, or 320 of the query, and the margin.
    assert told.shape[0] == FIRST + 320 + 30


def test_ranks_and_similarities_are_written():
    found = [(plain(300, 300), match_of(), ["same"])] * 2
    sheet = draw_match_sheet(plain(300, 300), found)
    left = CARDS + 12 + 3 * 222
    one, two = (sheet[FIRST + row * NEXT + 12 : FIRST + row * NEXT + 34, left:] for row in (0, 1))
    # The plates with the ranks, of dark ink, are all that differs.
    assert (one != two).any()
    assert np.nonzero((one != two).any(axis=2))[1].max() < 30
    assert of_colour(one[:, :30], INK).sum() > 100


def test_similarities_are_written():
    one, other = (
        draw_match_sheet(plain(300, 300), [(plain(300, 300), match_of(similarity=x), [])]) for x in (0.8, 0.7)
    )
    columns = np.nonzero((one != other).any(axis=2))[1]
    assert columns.min() > CARDS + 12 + 3 * 222


def test_the_querys_maps_count_for_the_scale_of_a_sheet():
    match = match_of(spot(0, 0, 4.0), spot(0, 0))
    sheet = draw_match_sheet(plain(300, 300), [(plain(300, 300), match, [])])
    grey, quarter = np.full((1, 1, 3), 200, np.uint8), np.full((1, 1), 0.25, np.float32)
    wanted = ColourScale(-1, 1, is_signed=True).paint(grey, quarter)[0, 0]
    assert np.abs(tile(sheet, 0, 2)[10, 10].astype(int) - wanted).max() <= 1


def test_a_sheet_says_where_its_maps_are_an_approximation():
    one, other = (draw_match_sheet(plain(50, 50), [(plain(50, 50), match_of(is_exact=x), [])]) for x in (True, False))
    # Above the legend's words both are the same.
    assert np.array_equal(one[:300], other[:300])
    assert one.shape != other.shape or (one != other).any()


def test_no_neighbours():
    sheet = draw_match_sheet(plain(300, 300), [])
    assert of_colour(sheet[FIRST : FIRST + 320, 30:350], (200, 200, 200)).all()
    assert sheet.shape[0] == FIRST + 320 + 30


@pytest.mark.parametrize("text", ["", "日本語の服" * 60, '👗 "x"', "a\nb", "W" * 10_000])
def test_words_stay_on_their_card(text):
    sheet, empty = (
        draw_match_sheet(plain(300, 300), [(plain(300, 300), match_of(), [one] * 30)]) for one in (text, "")
    )
    assert sheet.shape == empty.shape
    rows, columns = np.nonzero((sheet != empty).any(axis=2))
    if len(rows):
        assert FIRST + 12 <= rows.min() <= rows.max() < FIRST + 12 + 210
        assert columns.max() < sheet.shape[1] - 30 - 12
