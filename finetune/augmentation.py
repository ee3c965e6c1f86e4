"""Augmentation: a training photo changed at random by one affine map in space, one of its colours, and an erased part.

Each change alone is the usual one: random resized crop (Szegedy et al., "Going Deeper with Convolutions", 2014, section
6), flip, rotation, colour jitter, random erasing (Zhong et al., "Random Erasing Data Augmentation", 2017).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from data.images import crop, open_image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from data.catalog import Box
    from finetune.recipe import Augmentation

_WHITE = (255, 255, 255)
# Luma of ITU-R BT.601, as JPEG has it.
_LUMA = np.array([0.299, 0.587, 0.114])
# Area of an erased rectangle, as a share of the photo, and the largest ratio of its sides: Zhong et al., section 3.2,
# with half their largest area, since a garment's collar or hem is what tells its type.
_ERASED = (0.02, 0.2)
_ERASED_RATIO = 3.3


def read_augmented(
    source: Path | bytes, size: int, change: Augmentation, *, box: Box | None, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A training photo: a random crop of the letterboxed photo, or of its box, turned, coloured and erased at random.

    Args:
        source: Path of a photo file, or its bytes.
        size: Side of the square, pixels.
        change: How much is changed.
        box: Region of the EXIF-turned photo; None for all of it.
        rng: Decides all that is random; the same one gives the same pixels.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        ImageError: As data.images.open_image.
    """
    width, height = _crop_sides(change, rng)
    needed = math.ceil(size / max(width, height))
    # A JPEG is decoded at twice `at_least` or more.
    image = open_image(source, at_least=needed // 2, box=box)
    image = image if box is None else crop(image, box)
    # Bilinear sampling sees two pixels a side; more in one would be passed over.
    image = image.reduce(max(1, max(image.size) // needed))
    pixels = _warp(np.asarray(image), size, _placement(width, height, change, rng))
    return _erase(_recolour(pixels, change, rng), change, rng)


def _crop_sides(change: Augmentation, rng: np.random.Generator) -> tuple[float, float]:
    """Width and height of a crop, as shares of the square's side."""
    area = rng.uniform(change.crop, 1)
    ratio = math.exp(rng.uniform(-1, 1) * math.log(change.stretch)) if change.crop < 1 else 1.0
    return min(1, math.sqrt(area * ratio)), min(1, math.sqrt(area / ratio))


def _placement(width: float, height: float, change: Augmentation, rng: np.random.Generator) -> NDArray[np.float64]:
    """(2, 3): from a place in the result to one in the square, both 0..1 with the origin in the middle."""
    left, top = rng.uniform(-0.5, 0.5 - width), rng.uniform(-0.5, 0.5 - height)
    mirror = -1 if rng.random() < change.flip else 1
    angle = math.radians(rng.uniform(-change.rotation, change.rotation))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = turn @ np.diag([mirror * width, height])
    return np.column_stack([linear, [left + width / 2, top + height / 2]])


def _warp(image: NDArray[np.uint8], size: int, placement: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The square's part at that place, (size, size, 3), of a photo (H, W, 3) in the middle of a white square."""
    height, width = image.shape[:2]
    side = max(height, width)
    linear = placement[:, :2] * side / size
    # Of pixel centres, which lie at whole numbers.
    middle_of_photo = np.array([width / 2 - 0.5, height / 2 - 0.5])
    middle_of_result = np.full(2, size / 2 - 0.5)
    offset = middle_of_photo + placement[:, 2] * side - linear @ middle_of_result
    matrix = np.column_stack([linear, offset])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    result: NDArray[np.uint8] = cv2.warpAffine(  # type: ignore[assignment]
        image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=_WHITE
    )
    return result


def _recolour(pixels: NDArray[np.uint8], change: Augmentation, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The photo, (S, S, 3), with brightness, contrast, saturation and hue changed, as one map of its colours."""
    brightness, contrast, saturation = (
        1 + rng.uniform(-most, most) for most in (change.brightness, change.contrast, change.saturation)
    )
    angle = 2 * math.pi * rng.uniform(-change.hue, change.hue)
    if not (change.brightness or change.contrast or change.saturation or change.hue):
        return pixels
    linear = saturation * np.eye(3) + (1 - saturation) * _LUMA
    linear = brightness * contrast * _about_grey(angle) @ linear
    offset = np.full((3, 1), brightness * (1 - contrast) * 127.5)
    result: NDArray[np.uint8] = cv2.transform(pixels, np.hstack([linear, offset]).astype(np.float32))  # type: ignore[assignment]
    return result


def _about_grey(angle: float) -> NDArray[np.float64]:
    """(3, 3): the turn of colours about the line of greys, by Rodrigues' formula."""
    axis = np.full(3, 1 / math.sqrt(3))
    across = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return math.cos(angle) * np.eye(3) + math.sin(angle) * across + (1 - math.cos(angle)) * np.outer(axis, axis)


def _erase(pixels: NDArray[np.uint8], change: Augmentation, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The photo, (S, S, 3), now and then with a rectangle of noise."""
    if rng.random() >= change.erase:
        return pixels
    size = len(pixels)
    area, ratio = rng.uniform(*_ERASED), math.exp(rng.uniform(-1, 1) * math.log(_ERASED_RATIO))
    width, height = (min(size, max(1, round(size * math.sqrt(share)))) for share in (area * ratio, area / ratio))
    left, top = rng.integers(0, size - width + 1), rng.integers(0, size - height + 1)
    pixels[top : top + height, left : left + width] = rng.integers(0, 256, (height, width, 3), np.uint8)
    return pixels
