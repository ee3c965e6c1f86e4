"""Photos altered in one way each, to see what an answer leans on: pixels in, pixels out, the same each time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.background import fill_background
from data.images import Area

if TYPE_CHECKING:
    from data.background import Mask, Pixels

MASKED, REPLACED, ALONE = "background-masked", "background-replaced", "background-only"
FLIPPED, DARKENED, TURNED, TAGGED = "flipped", "darkened", "turned", "price-tag"
# What each condition does, for people. White is what letterboxing puts beside photos, and what studios stand
# garments before: on 194 phone photos it cost a linear head 9 points where mid grey cost 12, kNN 3 and 6.
CONDITIONS = {
    MASKED: "all but the garment is white",
    REPLACED: "the garment stands before the background of another photo, of another label",
    ALONE: "the garment's box, and the middle in any case, is filled with the colours around it",
    FLIPPED: "left and right are exchanged",
    DARKENED: "half the light, as one stop less",
    TURNED: "turned by 10 degrees, left or right; the corners mirror what is beside them",
    TAGGED: "a price tag of 15 % of the width lies in a corner",
}
# Those that need to know where the garment is.
OF_BACKGROUND = (MASKED, REPLACED, ALONE)

_DEGREES = 10.0
# What is filled: the garment's box with this margin, a share of the photo's longer side, for shadows and its
# rim, and in any case the middle of the photo, this share of its sides, for what the mask has missed.
_MARGIN, _MIDDLE = 0.03, 0.8
# A photo with less than this share outside what is filled has no background to keep alone.
_LEAST_BACKGROUND = 0.06
# The longer side in pixels at which a filling is worked out, and the reach of what it is mixed from.
_FILL_SIDE, _FILL_REACH = 96, 12.0
# Shares of the photo's width; the tag's height is a share of its own width.
_TAG_WIDTH, _TAG_HEIGHT, _TAG_GAP = 0.15, 0.6, 0.02
_TAG_PAPER, _TAG_INK = (252, 214, 66), (40, 28, 20)
# Text is drawn larger and reduced, so that it is smooth on small photos.
_OVERSAMPLING = 4


@dataclass(frozen=True, slots=True)
class Parted:
    """An upright photo, or its box, and what of it is the garment.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        mask: (H, W) bool, as data.background.garment_mask gives it; all False where no garment was found.
    """

    pixels: Pixels
    mask: Mask


def alter(condition: str, photo: Parted, *, backdrop: Pixels | None = None, seed: int = 0) -> Pixels | None:
    """The photo under a condition, (H, W, 3) uint8; None where it cannot be put under it.

    Args:
        condition: A name in CONDITIONS.
        photo: Is not changed.
        backdrop: Of another photo, as `fill_garment` gives it, for `background-replaced`.
        seed: Of what is left to chance: the way of the turn, the tag's corner and price.

    Raises:
        KeyError: No such condition.
    """
    if condition not in CONDITIONS:
        raise KeyError(condition)
    if condition in OF_BACKGROUND:
        return _part(condition, photo, backdrop) if photo.mask.any() else None
    rng = np.random.default_rng(seed)
    if condition == FLIPPED:
        return flip(photo.pixels)
    if condition == DARKENED:
        return darken(photo.pixels)
    if condition == TURNED:
        return turn(photo.pixels, _DEGREES if rng.integers(2) else -_DEGREES)
    return put_price_tag(photo.pixels, corner=int(rng.integers(4)), price=f"{rng.integers(5, 100)}.99")


def _part(condition: str, photo: Parted, backdrop: Pixels | None) -> Pixels | None:
    """A photo with a garment, with another background or with that alone."""
    if condition == MASKED:
        return fill_background(photo.pixels, photo.mask, "white")
    if condition == ALONE:
        return fill_garment(photo.pixels, photo.mask)
    return None if backdrop is None else replace_background(photo.pixels, photo.mask, backdrop)


def replace_background(pixels: Pixels, mask: Mask, backdrop: Pixels) -> Pixels:
    """The garment before another backdrop, which is scaled to cover the photo and cut evenly.

    Args:
        pixels: (H, W, 3) uint8.
        mask: (H, W) bool; where it is True nothing changes.
        backdrop: (h, w, 3) uint8, of any size.
    """
    import cv2

    height, width = mask.shape
    scale = max(height / backdrop.shape[0], width / backdrop.shape[1])
    size = (max(width, round(backdrop.shape[1] * scale)), max(height, round(backdrop.shape[0] * scale)))
    covering = cv2.resize(backdrop, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    return np.where(mask[:, :, None], pixels, covering[top : top + height, left : left + width]).astype(np.uint8)


def filled_area(mask: Mask) -> Area | None:
    """What `fill_garment` fills, pixels; None where there is no garment, or hardly any background beside it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    height, width = mask.shape
    margin = math.ceil(_MARGIN * max(height, width))
    edge = round((1 - _MIDDLE) / 2 * height), round((1 - _MIDDLE) / 2 * width)
    top, left = max(0, min(int(rows[0]) - margin, edge[0])), max(0, min(int(columns[0]) - margin, edge[1]))
    bottom = min(height, max(int(rows[-1]) + 1 + margin, height - edge[0]))
    right = min(width, max(int(columns[-1]) + 1 + margin, width - edge[1]))
    area = Area(left, top, right - left, bottom - top)
    return area if area.width * area.height <= (1 - _LEAST_BACKGROUND) * mask.size else None


def fill_garment(pixels: Pixels, mask: Mask) -> Pixels | None:
    """The background alone: the middle and the garment's whole box are filled smoothly with the colours around them.

    A box and not the mask is filled, so that neither the silhouette nor most of what the mask has missed is left. What
    is left of the garment is how far the box reaches beyond the middle. The filling is a normalised convolution with a
    Gaussian (Knutsson and Westin, "Normalized and differential convolution", CVPR 1993).

    Returns:
        (H, W, 3) uint8; None where `filled_area` is.
    """
    import cv2

    area = filled_area(mask)
    if area is None:
        return None
    height, width = mask.shape
    outside = np.ones((height, width), np.float32)
    outside[area.rows, area.columns] = 0
    scale = min(1.0, _FILL_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    seen = np.dstack([pixels * outside[:, :, None], outside]).astype(np.float32)
    small = cv2.resize(seen, size, interpolation=cv2.INTER_AREA)
    mixed = cv2.GaussianBlur(small, (0, 0), _FILL_REACH, borderType=cv2.BORDER_REPLICATE)
    # Where the Gaussian does not reach anything, the mean of all that is seen.
    mixed += 1e-6 * small.mean(axis=(0, 1)) / small[..., 3].mean()
    colours = np.asarray(mixed[..., :3] / mixed[..., 3:], np.float32)
    filling = cv2.resize(colours, (width, height), interpolation=cv2.INTER_LINEAR)
    filled = pixels.copy()
    filled[area.rows, area.columns] = np.rint(filling[area.rows, area.columns]).clip(0, 255)
    return filled


def flip(pixels: Pixels) -> Pixels:
    """The photo, (H, W, 3) uint8, with left and right exchanged."""
    return np.ascontiguousarray(pixels[:, ::-1])


def darken(pixels: Pixels) -> Pixels:
    """The photo, (H, W, 3) uint8, at half the light: half the linear value, not half the number in the file.

    Source: the transfer function of sRGB, IEC 61966-2-1.
    """
    value = np.arange(256) / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4) / 2
    half = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    table: Pixels = np.rint(255 * half).astype(np.uint8)
    return table[pixels]


def turn(pixels: Pixels, degrees: float) -> Pixels:
    """The photo, (H, W, 3) uint8, turned about its middle and of the same size; corners mirror what is beside them.

    Args:
        pixels: (H, W, 3) uint8.
        degrees: Against the clock where positive.
    """
    import cv2

    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    turned = cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(turned, np.uint8)


def tag_area(height: int, width: int, corner: int) -> Area:
    """Where the price tag lies in a photo of that size, pixels.

    Args:
        height: Pixels.
        width: Pixels.
        corner: 0 top left, 1 top right, 2 bottom left, 3 bottom right.
    """
    across = max(1, round(_TAG_WIDTH * width))
    down = min(height, max(1, round(_TAG_HEIGHT * across)))
    gap = min(round(_TAG_GAP * width), (width - across) // 2, (height - down) // 2)
    left = gap if corner % 2 == 0 else width - gap - across
    top = gap if corner < 2 else height - gap - down
    return Area(left, top, across, down)


def put_price_tag(pixels: Pixels, *, corner: int, price: str) -> Pixels:
    """The photo, (H, W, 3) uint8, with a yellow paper tag in a corner.

    Args:
        pixels: (H, W, 3) uint8.
        corner: As `tag_area`.
        price: A few ASCII signs.
    """
    area = tag_area(pixels.shape[0], pixels.shape[1], corner)
    width, height = area.width * _OVERSAMPLING, area.height * _OVERSAMPLING
    tag = Image.new("RGB", (width, height), _TAG_PAPER)
    pen = ImageDraw.Draw(tag)
    stroke = max(1, width // 40)
    pen.rectangle((0, 0, width - 1, height - 1), outline=_TAG_INK, width=stroke)
    font = ImageFont.load_default(max(1.0, 1.4 * width / max(1, len(price))))
    pen.text((width / 2, height / 2), price, _TAG_INK, font, anchor="mm")
    tagged = pixels.copy()
    tagged[area.rows, area.columns] = np.asarray(tag.reduce(_OVERSAMPLING))
    return tagged
