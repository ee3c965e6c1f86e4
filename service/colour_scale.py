"""The colours of a map: which value has which, and how it lies over a photo."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from service.saliency import ExplanationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Of the strongest value: the garment below stays to be seen.
_OPACITY = 0.75
# Greys of a photo below a map. No colour of its own is taken for one of the map, and black cloth is light enough to
# show the dark end of a scale.
_DARKEST, _LIGHTEST = 30, 235
# ITU-R BT.601, as Pillow's mode L.
_LUMA = np.array([0.299, 0.587, 0.114])
# Parts of matplotlib's maps in which lightness grows evenly, and by as much: L* 30 to 84. One alone is too dark to be
# told from black cloth below, and too light to be told from a white ground above.
_FOR, _AGAINST = ("inferno", 0.33, 0.88), ("managua", 0.6, 0.98)
_MID_GREY = 128
_COUNT = 256


@dataclass(frozen=True, slots=True)
class ColourScale:
    """From value to colour: the stronger a value, the lighter its colour, and the less is seen through it.

    Args:
        low: The value at the lower end.
        high: The value at the upper end, not below `low`.
        is_signed: Whether the scale goes both ways from a 0 in its middle; otherwise strength grows from `low` on.
    """

    low: float
    high: float
    is_signed: bool

    @classmethod
    def of(cls, maps: Sequence[NDArray[np.float32]], *, signed: bool) -> ColourScale:
        """The scale that some maps fill; as far down as up from 0 where it is signed.

        Raises:
            ExplanationError: A value is no number.
        """
        low, high = min(float(one.min()) for one in maps), max(float(one.max()) for one in maps)
        if not np.isfinite([low, high]).all():
            raise ExplanationError(f"A map to draw has numbers alone; this one has values from {low} to {high}.")
        most = max(abs(low), abs(high))
        return cls(-most, most, is_signed=True) if signed else cls(low, high, is_signed=False)

    @property
    def is_flat(self) -> bool:
        """Whether there is but one value."""
        return self.low == self.high

    def paint(self, photo: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The photo in grey, under its map.

        Args:
            photo: (H, W, 3) uint8.
            values: (H, W), from `low` to `high`; what lies outside is drawn as the end.

        Returns:
            (H, W, 3) uint8.
        """
        strength = self._strength(values.astype(np.float64))
        index = np.rint(np.abs(strength) * (_COUNT - 1)).astype(np.intp)
        colours = np.where((strength >= 0)[..., None], _arm(*_FOR)[index], _arm(*_AGAINST)[index])
        # (H, W) -> (H, W, 1)
        opacity = (_OPACITY * np.abs(strength))[..., None]
        return _rounded(veil(photo) * (1 - opacity) + colours * opacity)

    def strip(self, width: int, height: int) -> NDArray[np.uint8]:
        """All of the scale over mid grey, from left to right, (height, width, 3) uint8."""
        # A grey that is mid once it is below a map.
        grey = round((_MID_GREY - _DARKEST) / (_LIGHTEST - _DARKEST) * 255)
        values = np.linspace(self.low, self.high, width, dtype=np.float32)
        return self.paint(np.full((height, width, 3), grey, np.uint8), np.broadcast_to(values, (height, width)))

    def _strength(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """0..1, or -1..1 where it is signed; 0 all over where the scale is flat."""
        if self.is_flat:
            return np.zeros_like(values)
        if self.is_signed:
            return np.clip(values / self.high, -1, 1)
        return np.clip((values - self.low) / (self.high - self.low), 0, 1)


def veil(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The photo in grey, neither black nor white, as it is where a map says nothing; (H, W, 3) uint8."""
    # (H, W, 3) @ (3,) -> (H, W) -> (H, W, 1)
    grey = (photo @ _LUMA)[..., None] / 255
    return np.repeat(_rounded(_DARKEST + (_LIGHTEST - _DARKEST) * grey), 3, axis=2)


def _rounded(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.rint(values).astype(np.uint8)


@cache
def _arm(name: str, start: float, end: float) -> NDArray[np.float64]:
    """A part of one of matplotlib's maps, from weak to strong, (256, 3) sRGB 0..255."""
    # An import of 0.15 s, without fonts and windows.
    import matplotlib

    # The map's own table, between whose colours it does not interpolate.
    table = matplotlib.colormaps[name](np.arange(_COUNT))[:, :3] * 255
    places = np.linspace(start, end, _COUNT) * (_COUNT - 1)
    return np.stack([np.interp(places, np.arange(_COUNT), channel) for channel in table.T], axis=1)
