"""A page of pictures and text, put together from top to bottom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from data.lettering import Lettering
from data.sheet import INK, PAGE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from data.lettering import Colour

# Of text and of a title, pixels.
BODY, HEADING = 15, 20
# Around a page, and between what is on it.
MARGIN, GAP = 30, 18
# A narrower page's text would be a column of single words.
LEAST_WIDTH = 520
# Of one text; it is made of labels, which may be anything.
_MOST_LINES = 12


def page(
    title: str, pictures: Sequence[Image.Image], lines: Sequence[str], width: int, font_file: Path | None
) -> NDArray[np.uint8]:
    """The title, the pictures and the lines, one below another, with a margin all around."""
    head = text([title], Lettering.of(HEADING, font_file), width)
    foot = text(lines, Lettering.of(BODY, font_file), width)
    content = stack([part for part in (head, *pictures, foot) if part.height], GAP)
    whole = Image.new("RGB", (width + 2 * MARGIN, content.height + 2 * MARGIN), PAGE)
    whole.paste(content, (MARGIN, MARGIN))
    return np.array(whole)


def text(texts: Sequence[str], lettering: Lettering, width: int, colour: Colour = INK) -> Image.Image:
    """Texts one below another, each in as many lines as it takes."""
    lines = [line for one in texts for line in lettering.wrap(one, width, most=_MOST_LINES)]
    drawn = Image.new("RGB", (width, len(lines) * lettering.line), PAGE)
    for number, line in enumerate(lines):
        lettering.write(drawn, (0, number * lettering.line), width, line, colour)
    return drawn


def captioned(name: str, picture: Image.Image, lettering: Lettering) -> Image.Image:
    """The picture, with a name of one line above it, which may be the wider of both."""
    return stack([text([name], lettering, max(picture.width, lettering.width(name))), picture], 4)


def stack(pictures: Sequence[Image.Image], gap: int) -> Image.Image:
    """Pictures one below another, left edges level."""
    height = sum(one.height for one in pictures) + gap * (len(pictures) - 1)
    whole = Image.new("RGB", (max(one.width for one in pictures), height), PAGE)
    top = 0
    for one in pictures:
        whole.paste(one, (0, top))
        top += one.height + gap
    return whole


def beside(pictures: Sequence[Image.Image], gap: int) -> Image.Image:
    """Pictures side by side, tops level."""
    width = sum(one.width for one in pictures) + gap * (len(pictures) - 1)
    whole = Image.new("RGB", (width, max(one.height for one in pictures)), PAGE)
    left = 0
    for one in pictures:
        whole.paste(one, (left, 0))
        left += one.width + gap
    return whole
