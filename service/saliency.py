"""What every explanation has in common: the photo that is explained, and what is wrong with a question."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data.images import Area, crop_area, letterbox_area

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from data.catalog import Box

# The longer side of a picture, pixels: as large as it is looked at.
SHOWN = 768
# (B, S, S, 3) uint8 letterboxed photos to (B, D) float32 embeddings of unit length.
Encode = Callable[["NDArray[np.uint8]"], "NDArray[np.float32]"]


class ExplanationError(ValueError):
    """A question about an answer that cannot be explained so."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A photo that is explained, as its encoder sees it and as people do.

    A map, (S, S) float32, is over `pixels`: what it says of the padding is not of the photo.

    Args:
        pixels: (S, S, 3) uint8, letterboxed.
        picture: (H, W, 3) uint8, the whole EXIF-turned photo, not larger than it is shown.
        box: The region that was letterboxed, as fractions; None for the whole photo.
        size: Width and height, pixels, of the photo or of what comes nearest to it; None for the picture's own. A
            picture drawn in another size keeps it: a box of few pixels rounds to another shape in each size.
    """

    pixels: NDArray[np.uint8]
    picture: NDArray[np.uint8]
    box: Box | None = None
    size: tuple[int, int] | None = None

    @property
    def part(self) -> Area:
        """The region that was letterboxed, in pixels of the picture."""
        height, width = self.picture.shape[:2]
        return _part(width, height, self.box)

    @property
    def area(self) -> Area:
        """Where that region lies in `pixels`, to a pixel or two of a box; the rest is padding."""
        height, width = self.picture.shape[:2]
        width, height = self.size or (width, height)
        part = _part(width, height, self.box)
        return letterbox_area(part.width, part.height, len(self.pixels))


def _part(width: int, height: int, box: Box | None) -> Area:
    return Area(0, 0, width, height) if box is None else crop_area(width, height, box)
