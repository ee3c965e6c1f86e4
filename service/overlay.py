"""Explanations as pictures: a map over its photo, with what its colours mean."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from data.lettering import Lettering
from data.sheet import CARD, INK, MUTED, PAGE
from service.colour_scale import ColourScale, veil
from service.page import BODY, GAP, LEAST_WIDTH, beside, captioned, page, stack, text
from service.saliency import ExplanationError, Subject

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# A share of a map's range by which resizing moves its highest values.
_AS_HIGH = 1e-3
# Pixels of a drawn photo, and the most that a side of it has: a tall and a wide one are as easy to see as a square one.
_PHOTO, _LONGEST = 300_000, 1024
# A photo of few pixels is blown up so many times at most.
_MOST_BLOWN_UP = 4
# Wider than so many times its height, a photo stands above its map and not beside it.
_WIDE = 1.5
_LEGEND_WIDTH, _STRIP_HEIGHT = 520, 18
# Of the ring, pixels: its radius, and that of the hole.
_RING, _HOLE = 9, 6
_OVERSAMPLING = 4


def to_picture(values: NDArray[np.float32], subject: Subject) -> NDArray[np.float32]:
    """The map as it lies on the photo, without the padding.

    Args:
        values: (S, S) float32, over `subject.pixels`.
        subject: What it explains.

    Returns:
        (h, w) float32 over `subject.part`, a value for each pixel of the picture there, by bilinear interpolation.

    Raises:
        ExplanationError: The map is of another size, or a value is no number.
    """
    side = len(subject.pixels)
    if values.shape != (side, side):
        raise ExplanationError(f"A map over {side} x {side} pixels was wanted; this one has shape {values.shape}.")
    if not np.isfinite(values).all():
        raise ExplanationError("A map to draw has numbers alone; this one has nan or infinity in it.")
    area, part = subject.area, subject.part
    inside = Image.fromarray(np.ascontiguousarray(values[area.rows, area.columns], np.float32))
    return np.array(inside.resize((part.width, part.height), Image.Resampling.BILINEAR))


def draw_explanation(
    subject: Subject,
    values: NDArray[np.float32],
    *,
    signed: bool,
    title: str,
    lines: Sequence[str],
    meaning: str = "",
    font_file: Path | None = None,
) -> NDArray[np.uint8]:
    """A picture of the photo beside its map, with a legend and text.

    The highest value has a ring, where there is one; the box is drawn, where there is one.

    Args:
        subject: What is explained.
        values: (S, S) float32, over `subject.pixels`.
        signed: Whether values below 0 speak against the answer; otherwise they are but low.
        title: What is explained, in a few words.
        lines: Figures and sentences to stand below, of any length.
        meaning: A sentence on the unit of the numbers, for the legend.
        font_file: A TrueType or OpenType file, for letters that Pillow's own font lacks.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ExplanationError: As `to_picture`.
        OSError: `font_file` cannot be read.
    """
    shown = scaled(subject, _factor(subject))
    placed = to_picture(values, shown)
    scale = ColourScale.of([placed], signed=signed)
    overlay = paint(shown, placed, scale)
    peak = peak_of(placed, shown, scale)
    if peak:
        draw_ring(overlay, peak)
    photo = Image.fromarray(shown.picture)
    draw_box(photo, shown)
    body = Lettering.of(BODY, font_file)
    pair = [captioned("Photo", photo, body), captioned("Map", overlay, body)]
    panels = stack(pair, GAP) if is_wide(subject) else beside(pair, GAP)
    width = max(panels.width, LEAST_WIDTH)
    ends = ("speaks against", "speaks for") if signed else ("counts least", "counts most")
    key = legend(scale, body, width, ends=ends, notes=[meaning, "The ring is at the highest value." if peak else ""])
    return page(title, [panels, key], lines, width, font_file)


def is_wide(subject: Subject) -> bool:
    """Whether a photo stands above its map and not beside it."""
    height, width = subject.picture.shape[:2]
    return bool(width > _WIDE * height)


def scaled(subject: Subject, factor: float) -> Subject:
    """The subject, its picture so many times as large."""
    height, width = subject.picture.shape[:2]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    if size == (width, height):
        return subject
    picture = np.array(Image.fromarray(subject.picture).resize(size, Image.Resampling.LANCZOS))
    return replace(subject, picture=picture, size=subject.size or (width, height))


def paint(subject: Subject, placed: NDArray[np.float32], scale: ColourScale) -> Image.Image:
    """The picture in grey under its map, which is over its part; the box around it, where there is one."""
    part = subject.part
    picture = veil(subject.picture)
    picture[part.rows, part.columns] = scale.paint(subject.picture[part.rows, part.columns], placed)
    drawn = Image.fromarray(picture)
    draw_box(drawn, subject)
    return drawn


def draw_box(picture: Image.Image, subject: Subject) -> None:
    """The explained region's outline, white within a dark one, where it is not all of the photo."""
    if subject.box is None:
        return
    part, pen = subject.part, ImageDraw.Draw(picture)
    right, bottom = part.left + part.width - 1, part.top + part.height - 1
    for outset, colour in ((2, INK), (1, CARD)):
        pen.rectangle((part.left - outset, part.top - outset, right + outset, bottom + outset), outline=colour)


def peak_of(placed: NDArray[np.float32], subject: Subject, scale: ColourScale) -> tuple[int, int] | None:
    """Column and row of the highest value in the picture; None where nothing stands out, or speaks for the answer."""
    if placed.min() == placed.max() or (scale.is_signed and placed.max() <= 0):
        return None
    # The middle of all that is as high and hangs together: a window or a patch is, from edge to edge.
    from scipy.ndimage import center_of_mass, label

    highest = np.unravel_index(placed.argmax(), placed.shape)
    parts, _ = label(placed >= placed.max() - _AS_HIGH * np.ptp(placed))
    row, column = center_of_mass(parts == parts[highest])
    return subject.part.left + round(column), subject.part.top + round(row)


def draw_ring(picture: Image.Image, middle: tuple[int, int]) -> None:
    """A small ring, white between two dark ones, to be seen on any ground."""
    reach = _RING + 1
    corner = middle[0] - reach, middle[1] - reach
    for colour, outer, inner in ((INK, reach, _HOLE - 1), (CARD, _RING, _HOLE)):
        mask = Image.new("L", (2 * reach * _OVERSAMPLING,) * 2)
        pen, centre = ImageDraw.Draw(mask), (reach * _OVERSAMPLING,) * 2
        pen.circle(centre, outer * _OVERSAMPLING, 255)
        pen.circle(centre, inner * _OVERSAMPLING, 0)
        mask = mask.reduce(_OVERSAMPLING)
        picture.paste(colour, (*corner, corner[0] + mask.width, corner[1] + mask.height), mask)


def legend(
    scale: ColourScale, lettering: Lettering, width: int, *, ends: tuple[str, str], notes: Sequence[str] = ()
) -> Image.Image:
    """The colours as they lie over mid grey, the numbers at their ends, and what those mean."""
    if scale.is_flat:
        words = f"The map has no colours: it is {scale.low:.3g} all over, so no place stands out."
        return text([words, *notes], lettering, width, MUTED)
    wide = min(width, _LEGEND_WIDTH)
    drawn = Image.new("RGB", (width, _STRIP_HEIGHT + 4 + lettering.line), PAGE)
    drawn.paste(Image.fromarray(scale.strip(wide, _STRIP_HEIGHT)), (0, 0))
    low, high = (f"{number} {words}" for number, words in zip(_numbers(scale), ends, strict=True))
    places = [(low, 0), (high, wide - lettering.width(high))]
    if scale.is_signed:
        places.append(("0", (wide - lettering.width("0")) // 2))
    for words, left in places:
        lettering.write(drawn, (left, _STRIP_HEIGHT + 4), lettering.width(words), words, INK)
    notes = [*notes, "The strip has the colours as they are over mid grey."]
    return stack([drawn, text([" ".join(filter(None, notes))], lettering, width, MUTED)], 0)


def _factor(subject: Subject) -> float:
    """How many times as large a photo is drawn as its picture is."""
    height, width = subject.picture.shape[:2]
    return float(min(math.sqrt(_PHOTO / (width * height)), _LONGEST / max(width, height), _MOST_BLOWN_UP))


def _numbers(scale: ColourScale) -> tuple[str, str]:
    """The ends of a scale in so many digits as tell them apart: what is next to nothing beside the other is 0."""
    digits = 2 - math.floor(math.log10(scale.high - scale.low))
    sign = "+" if scale.is_signed else ""
    low, high = (f"{round(end, digits) + 0.0:{sign}.4g}" for end in (scale.low, scale.high))
    return low, high
