"""Which pixels of a photo are the garment, or who wears it, and photos without the rest; OpenCV and no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from data.catalog import Box

    Mask = NDArray[np.bool_]
    Pixels = NDArray[np.uint8]

# What masked pixels become.
FILLS = {"black": 0, "white": 255}

# The longer side in pixels at which a photo is parted, and rounds of GrabCut. On phone photos a third round changes
# the mask by less than 1 % in the mean and takes a fifth more time; 256 pixels and five rounds took twice the time, and
# by eye lost the garment no less often.
_SIDE, _ROUNDS = 192, 2
# Colours this far apart in CIELAB are two: a shadow on a backdrop is not, a white shirt before a white wall hardly.
_APART, _HARDLY_APART = 4.0, 1.5
# The outermost two pixels of a garment that are nearer to the backdrop than this are a blur of both.
_RIM = 20.0
# So many times as much is found by the strict measure where the loose one has lost a part of the garment.
_LOST = 1.15
# The share of its edge that hardly differs in a photo from a studio; a model's legs may cross the rest. It is so in 98
# of 100 photos of fashion-products, and in none of clothing-small.
_STUDIO = 0.7
# Half axes of the ellipse where GrabCut looks for the garment first, as shares of the photo's, or the box's, sides.
_IN_PHOTO, _IN_BOX = (0.36, 0.42), (0.45, 0.45)
# A mask of less than this share of the middle (an ellipse of these half axes) has missed the garment.
_LEAST_MIDDLE, _MIDDLE = 0.3, (0.25, 0.3)
# What surrounds a box, as a share of its sides, shows GrabCut what is not the garment.
_AROUND = 0.1
# Shares: a piece of the largest piece, a hole of the photo. A second shoe is larger, a print on a shirt smaller.
_LEAST_PIECE, _LEAST_HOLE = 0.1, 0.01


def garment_mask(pixels: Pixels, box: Box | None = None) -> Mask:
    """Which pixels are the garment, with whoever wears it: what stands out from the edge of the photo.

    A plain backdrop is told by its colour. Any other photo is parted by GrabCut (Rother, Kolmogorov and Blake,
    "GrabCut", 2004), which looks for the garment in the middle first. The same photo always gets the same mask, in
    whichever thread: OpenCV's random numbers are a thread's own, and are seeded for each photo.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        box: The garment's region, of which nothing outside is the garment; None for the whole photo.

    Returns:
        (H, W) bool; all False where no garment was found.
    """
    height, width = pixels.shape[:2]
    mask = np.zeros((height, width), np.bool_)
    top, bottom = _reach(box.y, box.height, height) if box else (0, height)
    left, right = _reach(box.x, box.width, width) if box else (0, width)
    region = pixels[top:bottom, left:right]
    small = _shrink(region)
    inside = np.ones(small.shape[:2], np.bool_)
    if box is not None:
        inside = resize_mask(box_mask(box, height, width)[top:bottom, left:right], *small.shape[:2])
    found = _on_backdrop(small)
    if found is None:
        found = _grabcut(small, inside, _IN_BOX if box else _IN_PHOTO)
    mask[top:bottom, left:right] = resize_mask(_tidy(found), bottom - top, right - left)
    return mask if box is None else mask & box_mask(box, height, width)


def fill_background(pixels: Pixels, mask: Mask, fill: str = "black") -> Pixels:
    """A copy of the photo, (H, W, 3) uint8, in one colour wherever the mask is False.

    Args:
        pixels: (H, W, 3) uint8.
        mask: (H, W) bool, as garment_mask gives it; its inverse keeps the background alone.
        fill: A name in FILLS.
    """
    return np.where(mask[:, :, None], pixels, np.uint8(FILLS[fill]))


def resize_mask(mask: Mask, height: int, width: int) -> Mask:
    """The mask at another size, (height, width) bool, with smooth edges."""
    import cv2

    if mask.shape == (height, width):
        return mask
    share = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(share >= 0.5)


def box_mask(box: Box, height: int, width: int) -> Mask:
    """The pixels of a photo whose middles are in the box, (height, width) bool."""
    rows, columns = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    in_rows = (box.y <= rows) & (rows <= box.y + box.height)
    in_columns = (box.x <= columns) & (columns <= box.x + box.width)
    return np.asarray(in_rows[:, None] & in_columns[None, :])


def _reach(start: float, length: float, pixels: int) -> tuple[int, int]:
    """First pixel, and the one after the last, of a side of a box with what is around it."""
    first = max(0, int((start - _AROUND * length) * pixels))
    last = min(pixels, int(np.ceil((start + (1 + _AROUND) * length) * pixels)))
    return min(first, pixels - 1), max(last, min(first, pixels - 1) + 1)


def _shrink(pixels: Pixels) -> Pixels:
    """The photo at _SIDE pixels or less."""
    import cv2

    height, width = pixels.shape[:2]
    scale = _SIDE / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(pixels)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _on_backdrop(pixels: Pixels) -> Mask | None:
    """What is not the backdrop, which begins at the edge and has one colour; None where there is no such backdrop."""
    import cv2

    lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    edge = np.concatenate([lab[0], lab[-1], lab[:, 0], lab[:, -1]])
    colour = np.median(edge, axis=0)
    if (np.linalg.norm(edge - colour, axis=1) < _HARDLY_APART).mean() < _STUDIO:
        return None
    distance = np.linalg.norm(lab - colour, axis=2)
    loose, strict = (~_reached_from_edge(distance < apart) for apart in (_APART, _HARDLY_APART))
    # A white shirt before a white wall is lost to the loose one; the strict one takes in shadows, and noise at rims.
    found = strict if strict.sum() > _LOST * max(1, loose.sum()) else loose
    core = cv2.erode(found.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1).astype(np.bool_)
    return np.asarray(core | (found & (distance >= _RIM)))


def _reached_from_edge(like: Mask) -> Mask:
    """The pixels that are alike and connected with the edge of the photo through others that are."""
    import cv2

    _, pieces = cv2.connectedComponents(like.astype(np.uint8), connectivity=4)
    outer = np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))
    return np.isin(pieces, outer[outer > 0])


def _grabcut(pixels: Pixels, inside: Mask, half_axes: tuple[float, float]) -> Mask:
    """What GrabCut finds within `inside`, which must not be empty; all False where that is not in the middle."""
    import cv2

    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    nothing = np.zeros(inside.shape, np.bool_)
    if min(len(rows), len(columns)) < 8:
        return nothing
    within = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    first = nothing.copy()
    first[within] = _ellipse(len(rows), len(columns), half_axes)
    guess = np.where(first, cv2.GC_PR_FGD, np.where(inside, cv2.GC_PR_BGD, cv2.GC_BGD)).astype(np.uint8)
    guess[:2] = guess[-2:] = guess[:, :2] = guess[:, -2:] = cv2.GC_BGD
    cv2.setRNGSeed(0)
    # OpenCV keeps its two models of colour in arrays of this shape; the rectangle counts for nothing beside a mask.
    behind, before = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(pixels, guess, (0, 0, 1, 1), behind, before, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    found = np.isin(guess, (cv2.GC_FGD, cv2.GC_PR_FGD))
    return found if _has_middle(found[within]) else nothing


def _has_middle(mask: Mask) -> bool:
    return bool(mask[_ellipse(mask.shape[0], mask.shape[1], _MIDDLE)].mean() >= _LEAST_MIDDLE)


def _ellipse(height: int, width: int, half_axes: tuple[float, float]) -> Mask:
    """An ellipse in the middle of (height, width); half axes are shares of width and height."""
    x = ((np.arange(width) + 0.5) / width - 0.5) / half_axes[0]
    y = ((np.arange(height) + 0.5) / height - 0.5) / half_axes[1]
    return np.asarray(x[None, :] ** 2 + y[:, None] ** 2 < 1)


def _tidy(mask: Mask) -> Mask:
    """The mask without threads and crumbs, and without small holes."""
    import cv2

    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, pieces, figures, _ = cv2.connectedComponentsWithStats(opened)
    areas = figures[:, cv2.CC_STAT_AREA]
    # Piece 0 is what is not in the mask.
    kept = np.isin(pieces, 1 + np.flatnonzero(areas[1:] >= _LEAST_PIECE * areas[1:].max(initial=0)))
    _, holes, figures, _ = cv2.connectedComponentsWithStats((~kept).astype(np.uint8), connectivity=4)
    areas = figures[:, cv2.CC_STAT_AREA]
    outer = _reached_from_edge(~kept)
    small = 1 + np.flatnonzero(areas[1:] < _LEAST_HOLE * mask.size)
    return np.asarray(kept | (np.isin(holes, small) & ~outer))
