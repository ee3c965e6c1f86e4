"""Contact sheets: a query and its neighbours, or a plain grid of photos, as one picture to look at or to send."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from data.lettering import Colour, Lettering

PAGE: Colour = (247, 247, 245)
CARD: Colour = (255, 255, 255)
BORDER: Colour = (222, 222, 218)
INK: Colour = (28, 30, 33)
MUTED: Colour = (104, 108, 114)
EMPTY: Colour = (240, 240, 237)

_SMALLEST_TILE = 64
# Pillow draws hard-edged shapes; a card drawn this much larger and reduced has smooth corners.
_OVERSAMPLING = 4


@dataclass(frozen=True, slots=True)
class Tile:
    """One photo and what to write below it.

    Args:
        image: RGB and upright, any size of 1 x 1 or more; None where the photo cannot be read.
        lines: Written one below another, the first in dark ink (a distance, an id), the rest in grey (labels).
    """

    image: Image.Image | None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Measures:
    """Lengths in pixels and fonts; all follow from the side of a tile."""

    tile: int
    pad: int
    gap: int
    margin: int
    heading_height: int
    radius: int
    body: Lettering
    heading: Lettering

    @classmethod
    def of(cls, tile: int, font_file: Path | None) -> _Measures:
        body = max(11, round(tile / 16))
        return cls(
            tile=tile,
            pad=max(4, tile // 20),
            gap=max(6, tile // 13),
            margin=max(10, tile // 8),
            heading_height=math.ceil(body * 2.2),
            radius=max(3, tile // 30),
            body=Lettering.of(body, font_file),
            heading=Lettering.of(round(body * 1.3), font_file),
        )

    def card(self, photo: int, line_count: int) -> tuple[int, int]:
        """Width and height of a card that holds a photo of that side and so many lines."""
        caption = self.pad + line_count * self.body.line if line_count else 0
        return photo + 2 * self.pad, photo + 2 * self.pad + caption


def draw_sheet(
    query: Tile | None,
    neighbours: Sequence[Tile],
    *,
    columns: int = 5,
    tile_size: int = 240,
    font_file: Path | None = None,
) -> Image.Image:
    """One picture: the query on the left, its neighbours beside it, ranked from 1, row by row.

    Photos are scaled to fit a square, never cropped, on white. A photo that cannot be read is a grey square that says
    so. A line too long for its tile ends in an ellipsis.

    Args:
        query: What was asked; None draws a plain grid of `neighbours`, without headings and ranks.
        neighbours: Nearest first; may be empty. The sheet grows with them, so page a long list.
        columns: Neighbours a row, 1 or more; fewer neighbours make a narrower sheet.
        tile_size: Side of a neighbour's photo in pixels, 64 or more. The query's is the same, or half as large again
            where the neighbours take several rows.
        font_file: A TrueType or OpenType file. Without it Pillow's own font is used, which has ASCII letters only:
            accents are dropped (`Lancôme` is drawn `Lancome`) and letters of other scripts are drawn as boxes.

    Returns:
        The sheet, RGB.

    Raises:
        ValueError: `columns` or `tile_size` is too small, or a photo is not RGB or has no pixels.
        OSError: `font_file` cannot be read.
    """
    if columns < 1:
        raise ValueError(f"A sheet needs 1 column or more; got columns={columns}.")
    if tile_size < _SMALLEST_TILE:
        raise ValueError(f"'tile_size' must be {_SMALLEST_TILE} pixels or more to be readable; got {tile_size}.")
    measures = _Measures.of(tile_size, font_file)
    row_count = math.ceil(len(neighbours) / columns)
    if query is None:
        return _on_page([_draw_grid(neighbours, columns, measures, ranked=False)], measures)
    photo = tile_size if row_count <= 1 else tile_size * 3 // 2
    line_count = len(query.lines)
    if row_count <= 1:
        # All cards are of one height, whoever has most to say.
        line_count = max(line_count, _line_count(neighbours))
    query_card = _draw_card(query, photo, line_count, measures, frame=INK)
    grid = _draw_grid(neighbours, columns, measures, ranked=True, least_lines=line_count if row_count <= 1 else 0)
    heading = f"{len(neighbours)} nearest" if neighbours else "No neighbours"
    return _on_page([_headed("Query", query_card, measures), _headed(heading, grid, measures)], measures)


def _line_count(tiles: Sequence[Tile]) -> int:
    """The most lines that any tile has."""
    return max((len(tile.lines) for tile in tiles), default=0)


def _draw_grid(
    tiles: Sequence[Tile], columns: int, measures: _Measures, *, ranked: bool, least_lines: int = 0
) -> Image.Image:
    """The tiles as cards of one size, row by row; a card's outline alone where there are none."""
    # A rank needs a line to stand on.
    line_count = max(_line_count(tiles), least_lines, int(ranked))
    width, height = measures.card(measures.tile, line_count)
    across = min(columns, max(1, len(tiles)))
    down = max(1, math.ceil(len(tiles) / columns))
    grid = Image.new(
        "RGB", (across * (width + measures.gap) - measures.gap, down * (height + measures.gap) - measures.gap), PAGE
    )
    if not tiles:
        grid.paste(_empty_card((width, height), BORDER, measures, fill=PAGE))
    for index, tile in enumerate(tiles):
        card = _draw_card(tile, measures.tile, line_count, measures, rank=index + 1 if ranked else None)
        row, column = divmod(index, columns)
        grid.paste(card, (column * (width + measures.gap), row * (height + measures.gap)))
    return grid


def _draw_card(
    tile: Tile,
    photo: int,
    line_count: int,
    measures: _Measures,
    *,
    rank: int | None = None,
    frame: Colour = BORDER,
) -> Image.Image:
    """A bordered white card: the photo, letterboxed in a square, and below it the rank and the lines."""
    card = _empty_card(measures.card(photo, line_count), frame, measures)
    picture = draw_unreadable(photo, measures.body) if tile.image is None else _letterbox(tile.image, photo)
    card.paste(picture, (measures.pad, measures.pad))
    top = photo + 2 * measures.pad
    indent = 0
    if rank is not None:
        badge = draw_badge(str(rank), measures.body)
        card.paste(badge, (measures.pad, top + (measures.body.line - badge.height) // 2))
        indent = badge.width + measures.pad * 2 // 3
    for number, line in enumerate(tile.lines):
        left = measures.pad + (indent if number == 0 else 0)
        width = photo + measures.pad - left
        measures.body.write(card, (left, top + number * measures.body.line), width, line, MUTED if number else INK)
    return card


def _empty_card(size: tuple[int, int], frame: Colour, measures: _Measures, *, fill: Colour = CARD) -> Image.Image:
    """A rounded rectangle with a border; a frame that is not the usual grey is thicker."""
    thickness = 1 if frame == BORDER else 2
    return draw_plate(size, measures.radius, fill, frame, thickness)


def draw_plate(
    size: tuple[int, int], radius: int, fill: Colour, outline: Colour, thickness: int, around: Colour = PAGE
) -> Image.Image:
    """A rounded rectangle with smooth corners."""
    large = Image.new("RGB", (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING), around)
    ImageDraw.Draw(large).rounded_rectangle(
        (0, 0, large.width - 1, large.height - 1),
        radius * _OVERSAMPLING,
        fill,
        outline,
        thickness * _OVERSAMPLING,
    )
    return large.reduce(_OVERSAMPLING)


def draw_badge(text: str, lettering: Lettering) -> Image.Image:
    """A small dark plate with a rank in white."""
    height = lettering.line - 2
    width = max(height, lettering.width(text) + height // 2)
    badge = draw_plate((width, height), height // 4, INK, INK, 0, around=CARD)
    ImageDraw.Draw(badge).text((width / 2, height / 2), text, CARD, lettering.font, anchor="mm")
    return badge


def _letterbox(image: Image.Image, side: int) -> Image.Image:
    """The whole photo, as large as fits, in the middle of a white square."""
    if image.mode != "RGB" or not all(image.size):
        raise ValueError(
            f"A tile needs an RGB photo with pixels; got mode {image.mode}, {image.width} x {image.height}. "
            f"Open it with data.images, or give None for a photo that cannot be read."
        )
    scale = side / max(image.size)
    # `ImageOps.contain` rounds the short side of a 10,000 x 1 photo to nothing.
    width, height = (max(1, round(length * scale)) for length in image.size)
    fitted = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    square = Image.new("RGB", (side, side), CARD)
    square.paste(fitted, ((side - width) // 2, (side - height) // 2))
    return square


def draw_unreadable(side: int, lettering: Lettering) -> Image.Image:
    """A grey square with a crossed-out picture, for a photo that cannot be read."""
    large = Image.new("RGB", (side * _OVERSAMPLING, side * _OVERSAMPLING), EMPTY)
    pen = ImageDraw.Draw(large)
    middle, half, stroke = large.width // 2, large.width // 10, max(1, side // 100) * _OVERSAMPLING
    # Above the middle, to leave room for the words.
    top, bottom = middle - 2 * half, middle
    pen.rounded_rectangle((middle - half, top, middle + half, bottom), half // 4, outline=MUTED, width=stroke)
    pen.line((middle - half, bottom, middle + half, top), MUTED, stroke)
    square = large.reduce(_OVERSAMPLING)
    for row, words in enumerate(("Photo cannot", "be read")):
        width = min(side, lettering.width(words) + 2)
        left, top = (side - width) // 2, side // 2 + lettering.line // 2 + row * lettering.line
        lettering.write(square, (left, top), width, words, MUTED)
    return square


def _headed(heading: str, picture: Image.Image, measures: _Measures) -> Image.Image:
    """The picture with a heading above it."""
    headed = Image.new("RGB", (picture.width, picture.height + measures.heading_height), PAGE)
    ImageDraw.Draw(headed).text((0, 0), heading, INK, measures.heading.font, anchor="la")
    headed.paste(picture, (0, measures.heading_height))
    return headed


def _on_page(pictures: Sequence[Image.Image], measures: _Measures) -> Image.Image:
    """The pictures side by side, tops level, with a margin all around."""
    between = 2 * measures.gap
    width = sum(picture.width for picture in pictures) + between * (len(pictures) - 1)
    height = max(picture.height for picture in pictures)
    page = Image.new("RGB", (width + 2 * measures.margin, height + 2 * measures.margin), PAGE)
    left = measures.margin
    for picture in pictures:
        page.paste(picture, (left, measures.margin))
        left += picture.width + between
    return page
