"""Matches as pictures: two photos, where each brings the similarity, and which places answer to each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from data.lettering import Lettering
from data.sheet import BORDER, CARD, INK, MUTED, draw_badge, draw_plate, draw_unreadable
from service.colour_scale import ColourScale
from service.overlay import draw_box, is_wide, legend, paint, scaled, to_picture
from service.page import BODY, GAP, LEAST_WIDTH, beside, captioned, page, stack, text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from data.lettering import Colour
    from service.match import Match
    from service.saliency import Subject

# Width and height that a photo is drawn in, pixels: one of four in a row, and one of four in a column.
_TALL, _WIDE = (380, 520), (900, 320)
_MOST_BLOWN_UP = 4
# Of links: light and middling colours that people with any colour vision tell apart, each in a dark casing.
# Okabe and Ito, "Color Universal Design" (2008), without black, and white.
_LINKS: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (240, 228, 66),
    (0, 158, 115),
    (204, 121, 167),
    (255, 255, 255),
    (213, 94, 0),
    (0, 114, 178),
)
# Lighter ones, by the sum of their channels, have dark numbers.
_LIGHT = 330
# Radius of a dot and of a number's plate.
_DOT, _NUMBER = 4, 11
_OVERSAMPLING = 3
# Of a sheet: the sides of the query's photo and of the others, and the width of the words beside them.
_QUERY, _TILE, _WORDS = 320, 210, 300
_PAD = 12
_WHOLE = "The numbers say what the similarity would be if all of the photo matched as that place does."
_RELATIVE = (
    "The numbers say by how much the similarity would pass the gallery's usual one if all of the photo matched as that "
    "place does."
)
_APPROXIMATE = "The maps are an approximation: with this pooling no sum over places makes the similarity."
_ENDS = ("lowers the similarity", "raises it")

_Point = tuple[float, float]


def draw_match(
    query: Subject,
    item: Subject,
    match: Match,
    *,
    title: str,
    lines: Sequence[str],
    font_file: Path | None = None,
) -> NDArray[np.uint8]:
    """A picture of query and item, each beside its map, with lines between the places that answer to each other.

    Args:
        query: The photo that was asked about.
        item: The photo that was found.
        match: Where their similarity comes from.
        title: What is explained, in a few words.
        lines: Figures and sentences to stand below, of any length.
        font_file: A TrueType or OpenType file, for letters that Pillow's own font lacks.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ExplanationError: As `service.overlay.to_picture`.
        OSError: `font_file` cannot be read.
    """
    body = Lettering.of(BODY, font_file)
    in_column = is_wide(query) and is_wide(item)
    pair = [_fitted(one, _WIDE if in_column else _TALL) for one in (query, item)]
    maps = [_density(one, values) for one, values in zip(pair, (match.query_map, match.item_map), strict=True)]
    scale = ColourScale.of(maps, signed=True)
    overlays = [paint(one, placed, scale) for one, placed in zip(pair, maps, strict=True)]
    panels, corners = _panels([_photo(one) for one in pair], overlays, body, in_column=in_column)
    starts = [_in_picture(pair[0], corners[0], link.query_x, link.query_y) for link in match.links]
    ends = [_in_picture(pair[1], corners[1], link.item_x, link.item_y) for link in match.links]
    _draw_links(panels, starts, ends, body)
    width = max(panels.width, LEAST_WIDTH)
    key = legend(scale, body, width, ends=_ENDS, notes=[_meaning([match])])
    return page(title, [panels, key], [*_figures(match), *lines], width, font_file)


def draw_match_sheet(
    query: Subject,
    found: Sequence[tuple[Subject | None, Match | None, Sequence[str]]],
    *,
    font_file: Path | None = None,
) -> NDArray[np.uint8]:
    """A picture of the query, and beside it a row for each neighbour: its photo, both maps, and what is said of it.

    All maps have one scale, so that rows can be compared.

    Args:
        query: The photo that was asked about.
        found: Nearest first: the photo, or None where it cannot be read; the match, or None where there is none; and
            lines to stand beside it, the first in dark ink.
        font_file: A TrueType or OpenType file, for letters that Pillow's own font lacks.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ExplanationError: As `service.overlay.to_picture`.
        OSError: `font_file` cannot be read.
    """
    body = Lettering.of(BODY, font_file)
    scale = _common_scale(query, found)
    cards = _Cards(_fitted(query, (_TILE, _TILE)), scale, body)
    rows = [cards.draw(rank, *neighbour) for rank, neighbour in enumerate(found, 1)]
    heading = f"{len(rows)} nearest: photo, the query's map, its own map" if rows else "No neighbours"
    right = stack([text([heading], body, rows[0].width if rows else LEAST_WIDTH), *rows], GAP // 2)
    photo = _tile(_photo(_fitted(query, (_QUERY, _QUERY))), _QUERY)
    sheet = beside([stack([text(["Query"], body, _QUERY), photo], GAP // 2), right], 2 * GAP)
    matches = [one for _, one, _ in found if one is not None]
    notes = [_meaning(matches), *([] if all(one.is_exact for one in matches) else [_APPROXIMATE])]
    key = [] if scale is None else [legend(scale, body, sheet.width, ends=_ENDS, notes=notes)]
    return page("", [sheet, *key], [], sheet.width, font_file)


def _meaning(matches: Sequence[Match]) -> str:
    """What the numbers of maps say; those of one picture are all relative or all whole."""
    return _RELATIVE if any(one.usual is not None for one in matches) else _WHOLE


def _figures(match: Match) -> list[str]:
    """The similarity, and what the links bring of it."""
    figures = [f"Similarity {match.similarity:.3f}."]
    if match.links:
        brought = ", ".join(f"{number}: {link.share:.2g}" for number, link in enumerate(match.links, 1))
        total = sum(link.share for link in match.links)
        figures[0] += f" The linked places bring {total:.2g} of it ({brought})."
    if not match.is_exact:
        figures.append(_APPROXIMATE)
    return figures


def _fitted(subject: Subject, room: tuple[int, int]) -> Subject:
    """The subject, its picture as large as there is room."""
    height, width = subject.picture.shape[:2]
    return scaled(subject, min(room[0] / width, room[1] / height, _MOST_BLOWN_UP))


def _density(subject: Subject, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the similarity would be if all of the photo brought what each place does; the map's mean is what it brings.

    A share of a single pixel is a number that nobody can read, and depends on how many there are.
    """
    return to_picture(values, subject) * np.float32(subject.area.width * subject.area.height)


def _panels(
    pictures: Sequence[Image.Image], overlays: Sequence[Image.Image], lettering: Lettering, *, in_column: bool
) -> tuple[Image.Image, list[tuple[int, int]]]:
    """Query, its map, the item's map and the item, in a row or a column; the corners of both maps."""
    order = (pictures[0], overlays[0], overlays[1], pictures[1])
    names = ("Query", "The query's map", "The item's map", "Item")
    panels = [captioned(name, one, lettering) for name, one in zip(names, order, strict=True)]
    join = stack if in_column else beside
    # Lines have to be seen between the maps.
    whole = join([join(panels[:2], GAP), join(panels[2:], GAP)], 3 * GAP)
    lengths = [one.height if in_column else one.width for one in panels]
    caption = panels[1].height - overlays[0].height
    places = (lengths[0] + GAP, lengths[0] + lengths[1] + 4 * GAP)
    return whole, [(0, place + caption) if in_column else (place, caption) for place in places]


def _in_picture(subject: Subject, corner: tuple[int, int], x: float, y: float) -> _Point:
    """A place in the explained region, in pixels of what the picture was pasted on."""
    part = subject.part
    return corner[0] + part.left + x * part.width, corner[1] + part.top + y * part.height


def _draw_links(picture: Image.Image, starts: list[_Point], ends: list[_Point], lettering: Lettering) -> None:
    """Thin lines from place to place, a dot at each end, and beside it a number where others leave room."""
    large = Image.new("RGBA", (picture.width * _OVERSAMPLING, picture.height * _OVERSAMPLING))
    pen = ImageDraw.Draw(large)
    # The numbers stand away from the lines.
    numbers = [_beside_others(starts, picture.size, -1), _beside_others(ends, picture.size, 1)]
    colours = [_LINKS[index % len(_LINKS)] for index in range(len(starts))]
    links = list(zip(starts, ends, *numbers, colours, strict=True))
    # The strongest lies above the others, and no line above a number.
    for start, end, first, last, colour in reversed(links):
        for shade, width in ((INK, 4), (colour, 2)):
            pen.line([_enlarged(point) for point in (first, start, end, last)], shade, width * _OVERSAMPLING)
    for start, end, first, last, colour in reversed(links):
        for point, radius in ((start, _DOT), (end, _DOT), (first, _NUMBER), (last, _NUMBER)):
            pen.circle(_enlarged(point), radius * _OVERSAMPLING, colour, INK, _OVERSAMPLING * 3 // 2)
    small = large.reduce(_OVERSAMPLING)
    picture.paste(small, (0, 0), small)
    pen = ImageDraw.Draw(picture)
    for number, (_, _, first, last, colour) in enumerate(links, 1):
        for point in (first, last):
            pen.text(point, str(number), INK if sum(colour) > _LIGHT else CARD, lettering.font, anchor="mm")


def _enlarged(point: _Point) -> _Point:
    return point[0] * _OVERSAMPLING, point[1] * _OVERSAMPLING


def _beside_others(points: list[_Point], size: tuple[int, int], side: int) -> list[_Point]:
    """Where the numbers of points stand: near them, inside the picture, and not on each other where that can be.

    Args:
        points: Places in the picture.
        size: Its width and height.
        side: -1 where a number is best to the left of its point, 1 where it is to the right.
    """
    steps = [
        (side * reach * math.cos(turn * math.pi / 4), reach * math.sin(turn * math.pi / 4))
        for reach in (2 * _NUMBER + 1, 4 * _NUMBER, 6 * _NUMBER)
        for turn in (0, 1, -1, 2, -2, 3, -3, 4)
    ]
    placed: list[_Point] = []
    for x, y in points:
        fitting = (
            (x + right, y + down)
            for right, down in steps
            if _NUMBER < x + right < size[0] - _NUMBER
            and _NUMBER < y + down < size[1] - _NUMBER
            and all(math.dist((x + right, y + down), other) > 2 * _NUMBER for other in placed)
            and all(math.dist((x + right, y + down), other) > _NUMBER + _DOT for other in points)
        )
        placed.append(next(fitting, (x, y)))
    return placed


def _common_scale(
    query: Subject, found: Sequence[tuple[Subject | None, Match | None, Sequence[str]]]
) -> ColourScale | None:
    """One scale for all maps of a sheet; None where there is no map."""
    maps = [
        _density(subject, values)
        for one, match, _ in found
        if one is not None and match is not None
        for subject, values in ((query, match.query_map), (one, match.item_map))
    ]
    return ColourScale.of(maps, signed=True) if maps else None


@dataclass(frozen=True, slots=True)
class _Cards:
    """Neighbours as cards of a sheet.

    Args:
        query: With a picture of a tile's size.
        scale: Of all maps; None where there is none.
        lettering: Of the words.
    """

    query: Subject
    scale: ColourScale | None
    lettering: Lettering

    def draw(self, rank: int, item: Subject | None, match: Match | None, lines: Sequence[str]) -> Image.Image:
        """The neighbour's photo, both maps, and what is said of it."""
        card = draw_plate((3 * _TILE + _WORDS + 5 * _PAD, _TILE + 2 * _PAD), 8, CARD, BORDER, 1)
        for place, picture in enumerate(self._pictures(item, match)):
            card.paste(_tile(picture, _TILE), (_PAD + place * (_TILE + _PAD), _PAD))
        said = [*([] if match is None else [f"Similarity {match.similarity:.3f}"]), *lines]
        if item is not None and match is None:
            said.append("There is no map of this match.")
        left = _PAD + 3 * (_TILE + _PAD)
        badge = draw_badge(str(rank), self.lettering)
        card.paste(badge, (left, _PAD))
        left += badge.width + _PAD * 2 // 3
        width = card.width - _PAD - left
        wrapped = [
            (line, number) for number, one in enumerate(said) for line in self.lettering.wrap(one, width, most=3)
        ]
        # What does not fit on the card is left out.
        for row, (line, number) in enumerate(wrapped[: _TILE // self.lettering.line]):
            corner = (left, _PAD + row * self.lettering.line)
            self.lettering.write(card, corner, width, line, MUTED if number else INK)
        return card

    def _pictures(self, item: Subject | None, match: Match | None) -> list[Image.Image]:
        if item is None:
            return [draw_unreadable(_TILE, self.lettering)]
        item = _fitted(item, (_TILE, _TILE))
        pictures = [_photo(item)]
        if match is not None and self.scale is not None:
            for subject, values in ((self.query, match.query_map), (item, match.item_map)):
                pictures.append(paint(subject, _density(subject, values), self.scale))
        return pictures


def _photo(subject: Subject) -> Image.Image:
    """The picture, with the box where there is one."""
    photo = Image.fromarray(subject.picture)
    draw_box(photo, subject)
    return photo


def _tile(picture: Image.Image, side: int) -> Image.Image:
    """The picture in the middle of a white square."""
    square = Image.new("RGB", (side, side), CARD)
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square
