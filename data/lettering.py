"""Text on pictures: one line, or several, in a font that may lack letters, inside a width."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# What the font inside Pillow can draw beyond ASCII (found by drawing every code point below U+3000).
_BUNDLED_SIGNS = frozenset("©«°±´·»‘’“”…‹›™")  # noqa: RUF001
# Common signs that Unicode does not decompose into ones that it can draw.
_PLAIN_SIGNS = dict(zip("–—−×•øØłŁđĐı", "---x·oOlLdDi", strict=True))  # noqa: RUF001
_PLAIN_SIGNS |= {
    "ß": "ss",
    "æ": "ae",
    "Æ": "AE",
    "œ": "oe",
    "Œ": "OE",
    "®": "(R)",
    "€": "EUR ",
    "£": "GBP ",
    "₹": "INR ",
}


@dataclass(frozen=True, slots=True)
class Lettering:
    """A font at a size, and how its lines are drawn.

    Args:
        font: What draws it.
        line: Height of a line in pixels.
        is_bundled: Whether it is Pillow's own, which has ASCII letters only: accents are dropped, and letters of other
            scripts are drawn as boxes.
    """

    font: Font
    line: int
    is_bundled: bool

    @classmethod
    def of(cls, size: int, font_file: Path | None = None) -> Lettering:
        """A font file, or Pillow's own font, at a size in pixels.

        Raises:
            OSError: The file cannot be read.
        """
        line = math.ceil(size * 1.45)
        if font_file is None:
            return cls(ImageFont.load_default(size), line, is_bundled=True)
        try:
            return cls(ImageFont.truetype(font_file, size), line, is_bundled=False)
        except OSError as error:
            raise OSError(f"A TrueType or OpenType font was wanted; {font_file} is none: {error}") from error

    def width(self, text: str) -> int:
        """Pixels that a line takes."""
        return math.ceil(self.font.getlength(self._drawable(text)))

    def wrap(self, text: str, width: int, *, most: int) -> list[str]:
        """The text in lines of at most `width` pixels, broken between words, or within one that is wider.

        Args:
            text: Any text.
            width: Pixels.
            most: Lines, 1 or more; where they do not hold the text, the last ends in an ellipsis.
        """
        lines: list[str] = []
        # A sign is a pixel wide or more.
        rest = self._drawable(text)[: (width + 1) * most + 1]
        while rest and len(lines) < most - 1:
            count = self._fitting(rest, width)
            if count < len(rest):
                # A line ends before a space, or else where the width does.
                count = max(rest.rfind(" ", 1, count + 1), 0) or max(1, count)
            lines.append(rest[:count].rstrip())
            rest = rest[count:].lstrip()
        return [*lines, self._ellipsise(rest, width)] if rest else lines

    def write(self, picture: Image.Image, corner: tuple[int, int], width: int, line: str, colour: Colour) -> None:
        """Write one line into a box of that width and one line's height; nothing falls outside the box.

        A line that is wider ends in an ellipsis.
        """
        words = self._ellipsise(self._drawable(line), width)
        # Marks stacked on a letter reach beyond the line, so the line is drawn by itself, where the edge cuts them off.
        strip = Image.new("L", (width, self.line), 0)
        ImageDraw.Draw(strip).text((0, self.line / 2), words, 255, self.font, anchor="lm")
        picture.paste(colour, (*corner, corner[0] + width, corner[1] + self.line), strip)

    def _drawable(self, line: str) -> str:
        """The line without line breaks and control characters, in signs that the font has, where there is a way."""
        text = " ".join("".join(" " if unicodedata.category(sign) in {"Cc", "Cs"} else sign for sign in line).split())
        return "".join(map(_folded, text)) if self.is_bundled else text

    def _ellipsise(self, text: str, width: int) -> str:
        """The text, cut and ended by an ellipsis where it is wider than `width` pixels."""
        count = self._fitting(text, width)
        return text if count == len(text) else text[: self._fitting(text, width, end="…")].rstrip() + "…"

    def _fitting(self, text: str, width: int, *, end: str = "") -> int:
        """How many signs of the text fit, with `end` after those that do not all."""
        # A sign is a pixel wide or more, so a longer text cannot fit, and measuring it all would be slow.
        if len(text) <= width and self.font.getlength(text) <= width:
            return len(text)
        # Binary search for the longest beginning that fits.
        fits, too_long = 0, min(len(text), width + 1)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if self.font.getlength(text[:middle].rstrip() + end) <= width:
                fits = middle
            else:
                too_long = middle
        return fits


def _folded(sign: str) -> str:
    """The sign as the bundled font can draw it, nothing for an invisible one; itself where there is no way."""
    if sign in _BUNDLED_SIGNS:
        return sign
    if unicodedata.category(sign) == "Cf":
        return ""
    parts = unicodedata.normalize("NFKD", sign)
    letters = "".join(part for part in parts if not unicodedata.combining(part))
    return letters if letters.isascii() else _PLAIN_SIGNS.get(sign, sign)
