"""Why a head says what it says: which parts of a photo its answer hangs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from indexer.encoders import Encoder

METHODS = ("occlusion",)
# The window's side and its steps, as parts of the photo's side.
_WINDOW, _STRIDE = 4, 8
# Hidden photos that are encoded together.
_TOGETHER = 8
# What is laid over the photo where hiding it lowers the probability most, and where it raises it most.
_FOR, _AGAINST = np.array([214, 40, 40], np.float32), np.array([33, 102, 172], np.float32)
_OPACITY = 0.65


class ExplanationError(ValueError):
    """A question about an answer that cannot be explained so."""


@dataclass(frozen=True, slots=True)
class Occlusion:
    """How much a probability falls when parts of a photo are hidden.

    Args:
        probability: For the whole photo, 0..1.
        drops: (S, S) float32, -1..1, over the letterboxed photo: the mean fall over all windows that hide a pixel.
    """

    probability: float
    drops: NDArray[np.float32]


def occlude(
    pixels: NDArray[np.uint8],
    encoder: Encoder,
    probability: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    check: Callable[[], None] = lambda: None,
) -> Occlusion:
    """Hides one window after the other behind the photo's mean colour and asks again.

    Args:
        pixels: (S, S, 3) uint8, letterboxed.
        encoder: Of the head that is asked.
        probability: Gives (B,) of (B, D) embeddings.
        check: Called between batches; what it raises ends the work.

    Source: occlusion sensitivity, Zeiler and Fergus 2014, section 4.2.
    """
    side = len(pixels)
    window, stride = side // _WINDOW, side // _STRIDE
    corners = [
        (top, left) for top in range(0, side - window + 1, stride) for left in range(0, side - window + 1, stride)
    ]
    whole = float(probability(encoder.encode(pixels[None]))[0])
    fill = pixels.reshape(-1, 3).mean(axis=0).astype(np.uint8)
    total, covered = np.zeros((side, side), np.float32), np.zeros((side, side), np.float32)
    for start in range(0, len(corners), _TOGETHER):
        check()
        part = corners[start : start + _TOGETHER]
        hidden = np.repeat(pixels[None], len(part), axis=0)
        for photo, (top, left) in zip(hidden, part, strict=True):
            photo[top : top + window, left : left + window] = fill
        for value, (top, left) in zip(probability(encoder.encode(hidden)), part, strict=True):
            place = (slice(top, top + window), slice(left, left + window))
            total[place] += whole - value
            covered[place] += 1
    # The last windows may end a few pixels before the border.
    return Occlusion(whole, total / covered.clip(min=1))


def overlay(pixels: NDArray[np.uint8], drops: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The photo in grey under its map, (S, S, 3) uint8: red where hiding lowers it, blue where it raises it.

    Args:
        pixels: (S, S, 3) uint8.
        drops: (S, S) of `Occlusion`; the farthest from 0 gets the full colour.
    """
    grey = np.repeat(pixels.astype(np.float32).mean(axis=2, keepdims=True), 3, axis=2)
    strength = np.abs(drops) / max(float(np.abs(drops).max()), 1e-9)
    # (S, S) to (S, S, 1)
    opacity = (_OPACITY * strength)[..., None]
    colour = np.where((drops >= 0)[..., None], _FOR, _AGAINST)
    blended: NDArray[np.uint8] = (grey * (1 - opacity) + colour * opacity).round().astype(np.uint8)
    return blended
