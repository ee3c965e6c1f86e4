"""Occlusion: how much an answer falls when a part of the photo is hidden, for every encoder and every head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from service.saliency import ExplanationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from data.images import Area
    from service.saliency import Encode, Subject

# (B, D) embeddings to (B,): a logit, or a cosine.
ScoreEmbeddings = Callable[["NDArray[np.float32]"], "NDArray[np.floating]"]

# With more a photo takes longer than anybody waits, and shows nothing that fewer do not.
MOST_WINDOWS = 4096
FILLS = ("mean", "white", "black", "blur")
# Photos that are asked about together, between two calls of `check`.
TOGETHER = 16
# The blur's standard deviation as a part of the square's side: colours stay, and no garment can be told by eye. Of 60
# photos of ten types a linear head gave its label 0.76, and 0.11 to the blurred photo; at half as much blur 0.13.
_BLUR = 0.1


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows that are hidden, one after the other: a grid that touches every pixel of the photo.

    The first lies in the area's top left corner; the last of a row or column is cut at the area's edge, as captum's
    `Occlusion` cuts it.

    Args:
        size: S, side of the square in pixels.
        area: Where the photo lies in the square.
        window: Side of a window in pixels, at most the area's shorter side.
        stride: Pixels from one window to the next, 1..window.

    Raises:
        ExplanationError: The photo is smaller than the window, or the stride would leave gaps.
    """

    size: int
    area: Area
    window: int = 32
    stride: int = 16

    def __post_init__(self) -> None:
        width, height = self.area.width, self.area.height
        if not 1 <= self.window <= min(width, height):
            raise ExplanationError(
                f"A window of {self.window} x {self.window} pixels does not fit the photo, which is {width} x {height} "
                f"pixels as the encoder sees it. Choose a window from 1 to {min(width, height)}."
            )
        if not 1 <= self.stride <= self.window:
            raise ExplanationError(
                f"The stride is from 1 to the window, {self.window} pixels, so that no pixel is left out; "
                f"got {self.stride}."
            )

        count = len(self.rows) * len(self.columns)
        if count > MOST_WINDOWS:
            raise ExplanationError(
                f"At most {MOST_WINDOWS} windows are hidden one by one; with a window of {self.window} and a stride of "
                f"{self.stride} there would be {count}. Choose a longer stride."
            )

    @property
    def rows(self) -> list[slice]:
        """The rows of the square that each row of windows hides."""
        return _spans(self.area.top, self.area.height, self.window, self.stride)

    @property
    def columns(self) -> list[slice]:
        """The columns of the square that each column of windows hides."""
        return _spans(self.area.left, self.area.width, self.window, self.stride)

    @property
    def places(self) -> list[tuple[slice, slice]]:
        """Rows and columns of the square that each of the K windows hides, from the top left on, row by row."""
        return [(rows, columns) for rows in self.rows for columns in self.columns]

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Top and left of each of the K windows in the square."""
        return [(rows.start, columns.start) for rows, columns in self.places]

    def spread(self, drops: NDArray[np.floating]) -> NDArray[np.float32]:
        """The map: for each pixel of the photo the mean drop of the windows that hide it.

        Args:
            drops: (K,), finite.

        Returns:
            (S, S) float32; 0 outside the photo.

        Raises:
            ExplanationError: There is not one finite drop a window.

        Source: the average over overlapping windows of captum's `Occlusion`.
        """
        down, across = _cover(self.rows, self.size), _cover(self.columns, self.size)
        if drops.shape != (len(down) * len(across),) or not np.isfinite(drops).all():
            raise ExplanationError(
                f"A map of {len(down) * len(across)} windows takes as many finite drops of the score; "
                f"got shape {drops.shape} with {np.count_nonzero(~np.isfinite(drops))} that are not finite."
            )
        # (K,) to (rows, columns) of windows; a pixel is hidden by some rows times some columns of them.
        total = down.T @ drops.reshape(len(down), len(across)).astype(np.float64) @ across
        hidden = np.outer(down.sum(axis=0), across.sum(axis=0))
        values: NDArray[np.float32] = (total / hidden.clip(min=1)).astype(np.float32)
        return values


@dataclass(frozen=True, slots=True)
class Occlusion:
    """A map of how much a score falls where the photo is hidden, and what it was made from.

    Args:
        values: (S, S) float32; 0 outside the photo, negative where hiding raises the score.
        windows: What was hidden.
        embeddings: (K, D) float32, of the photo with each window hidden.
        whole: (D,) float32, of the photo itself.
    """

    values: NDArray[np.float32]
    windows: Windows
    embeddings: NDArray[np.float32]
    whole: NDArray[np.float32]

    def rescore(self, score: ScoreEmbeddings) -> NDArray[np.float32]:
        """The (S, S) map of another score, such as a shuffled head's, from the same hidden photos: nothing is encoded.

        Args:
            score: Gives (B,) of (B, D) embeddings.
        """
        return _map(score, self.windows, self.embeddings, self.whole)


def occlude(
    subject: Subject,
    encode: Encode,
    score: ScoreEmbeddings,
    *,
    window: int = 32,
    stride: int = 16,
    fill: str = "mean",
    check: Callable[[], None] = lambda: None,
) -> Occlusion:
    """The occlusion map of a score: hides one window after the other and asks again.

    Args:
        subject: The photo.
        encode: Of the encoder that the score's head belongs to.
        score: Gives (B,) of (B, D) embeddings: a logit, or a cosine.
        window: Side of a window in pixels of the square.
        stride: Pixels from one window to the next.
        fill: What hides, of FILLS.
        check: Called between batches; what it raises ends the work.

    Raises:
        ExplanationError: The photo is smaller than the window, or the stride or the fill is none.

    Source: occlusion sensitivity, Zeiler and Fergus 2014, section 4.2.
    """
    windows = Windows(len(subject.pixels), subject.area, window, stride)
    embeddings = encode_hidden(subject.pixels, windows, encode, fill=fill, check=check)
    whole = encode(subject.pixels[None])[0]
    return Occlusion(_map(score, windows, embeddings, whole), windows, embeddings, whole)


def encode_hidden(
    pixels: NDArray[np.uint8],
    windows: Windows,
    encode: Encode,
    *,
    fill: str = "mean",
    check: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """The embeddings, (K, D) float32, of the photo with each window hidden.

    Args:
        pixels: (S, S, 3) uint8, letterboxed.
        windows: What is hidden.
        encode: Of the encoder.
        fill: What hides, of FILLS.
        check: Called before each batch; what it raises ends the work.

    Raises:
        ExplanationError: There is no such fill.
    """
    hidden = hide(pixels, windows.area, fill)
    places, embeddings = windows.places, []
    for start in range(0, len(places), TOGETHER):
        check()
        part = places[start : start + TOGETHER]
        photos = np.repeat(pixels[None], len(part), axis=0)
        for photo, place in zip(photos, part, strict=True):
            photo[place] = hidden[place]
        embeddings.append(encode(photos))
    return np.concatenate(embeddings)


def hide(pixels: NDArray[np.uint8], area: Area, fill: str) -> NDArray[np.uint8]:
    """The square with all of the photo hidden and its padding as it was, (S, S, 3) uint8.

    Args:
        pixels: (S, S, 3) uint8, letterboxed.
        area: Where the photo lies.
        fill: `mean` (the photo's mean colour), `white`, `black`, or `blur` (the photo, strongly blurred).

    Raises:
        ExplanationError: There is no such fill.
    """
    from PIL import Image, ImageFilter

    place, result = (area.rows, area.columns), pixels.copy()
    match fill:
        case "mean":
            result[place] = pixels[place].mean(axis=(0, 1)).round()
        case "white" | "black":
            result[place] = 255 if fill == "white" else 0
        case "blur":
            # The photo alone: padding would shine into it.
            photo = Image.fromarray(np.ascontiguousarray(pixels[place]))
            result[place] = np.asarray(photo.filter(ImageFilter.GaussianBlur(_BLUR * len(pixels))))
        case _:
            raise ExplanationError(f"A part of a photo is hidden by one of {', '.join(FILLS)}; got '{fill}'.")
    return result


def _map(
    score: ScoreEmbeddings, windows: Windows, embeddings: NDArray[np.float32], whole: NDArray[np.float32]
) -> NDArray[np.float32]:
    return windows.spread(score(whole[None])[0] - score(embeddings))


def _spans(start: int, length: int, window: int, stride: int) -> list[slice]:
    """The fewest windows from `start` on, `stride` apart, that reach over `length`; the last is cut there."""
    count = -(-(length - window) // stride) + 1
    firsts = [start + number * stride for number in range(count)]
    return [slice(first, min(first + window, start + length)) for first in firsts]


def _cover(spans: list[slice], size: int) -> NDArray[np.float64]:
    """(n, S), 1 where a span covers a row or column of the square."""
    cover = np.zeros((len(spans), size))
    for line, span in zip(cover, spans, strict=True):
        line[span] = 1
    return cover
