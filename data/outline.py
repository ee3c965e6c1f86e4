"""The geometry of a drawn garment: curves, panels, seams and buttons. All in cm, y down, x = 0 on its middle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Points = NDArray[np.float64]
Pair = tuple[float, float]


def curve(points: Sequence[Pair], *, steps: int = 9) -> Points:
    """A smooth open line through the points.

    Args:
        points: At least two (x, y) in cm.
        steps: Straight pieces between two points, 1 or more.

    Returns:
        (K, 2) float64, cm: a Catmull-Rom spline, uniform knots.
    """
    knots = np.asarray(points, dtype=np.float64)
    ends = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    before, start, stop, after = ends[:-3], ends[1:-2], ends[2:-1], ends[3:]
    # (steps, 1, 1) against (pieces, 2) gives (steps, pieces, 2)
    at = (np.arange(steps) / steps)[:, None, None]
    line = 0.5 * (
        2 * start
        + (stop - before) * at
        + (2 * before - 5 * start + 4 * stop - after) * at**2
        + (3 * start - before - 3 * stop + after) * at**3
    )
    # (steps, pieces, 2) to one line, piece after piece
    return np.vstack([line.transpose(1, 0, 2).reshape(-1, 2), knots[-1:]])


def corners(*points: Pair) -> Points:
    """(K, 2) float64, cm: a line with sharp corners at the points."""
    return np.asarray(points, dtype=np.float64)


def join(*lines: Points) -> Points:
    """(K, 2) float64, cm: the lines one after another as one outline."""
    return np.vstack(lines)


def mirror(line: Points) -> Points:
    """(K, 2) float64, cm: the line on the other side of the middle, in the same order."""
    flipped: Points = line * np.array([-1.0, 1.0])
    return flipped


def both_sides(right: Points) -> Points:
    """The closed outline whose right half runs from the top middle to the bottom middle; (2K, 2) float64, cm."""
    return np.vstack([right, mirror(right[::-1])])


def strip(line: Points, width: float, *, taper: float = 1.0) -> Points:
    """The outline of a band around a line.

    Args:
        line: (K, 2), cm.
        width: Width at the line's start, cm.
        taper: Width at its end as a fraction of that at its start, above 0.

    Returns:
        (2K, 2) float64, cm.
    """
    run = np.gradient(line, axis=0)
    normal = np.stack([-run[:, 1], run[:, 0]], axis=1) / np.maximum(np.hypot(*run.T), 1e-9)[:, None]
    half = np.linspace(width / 2, width * taper / 2, len(line))[:, None]
    return np.vstack([line + normal * half, (line - normal * half)[::-1]])


@dataclass(frozen=True, slots=True)
class Folds:
    """How the cloth of a panel falls.

    Args:
        drape: Depth of folds along the panel, 0 (flat) to 1.5 (full skirt).
        count: Folds across the panel.
        start: Where they begin, as a fraction of the panel's length.
        wrinkle: Depth of irregular wrinkles, 0 to 1.
        pleats: Pressed pleats across the panel, 0 for none.
        gather: Depth of short gathers below the panel's upper edge, 0 to 1.
        round: How strongly the panel turns away at its sides, 0 (flat) to 1 (a tube).
        fan: How far the pattern spreads with the panel's width, 0 (straight grain) to 1.
        joined: Upper part of the panel, as a fraction of its length, that is sewn to its mirror image: a trouser leg's.
    """

    drape: float = 0.0
    count: float = 5.0
    start: float = 0.2
    wrinkle: float = 0.35
    pleats: int = 0
    gather: float = 0.0
    round: float = 0.6
    fan: float = 0.0
    joined: float = 0.0


@dataclass(frozen=True, slots=True)
class Crease:
    """One fold: from (x, y) cm it runs `length` cm at `angle` radians from straight down towards +x; `depth` -1..1."""

    x: float
    y: float
    angle: float
    length: float
    depth: float


@dataclass(frozen=True, slots=True)
class Line:
    """A seam on a panel: (K, 2) points in cm; `kind` is `seam`, `stitch`, `edge`, `zip` or `press` (an ironed fold)."""

    points: Points
    kind: str = "seam"


@dataclass(frozen=True, slots=True)
class Panel:
    """A piece of cloth.

    Args:
        outline: (K, 2), cm, closed.
        cloth: `shell` (patterned), `plain` (main colour), `second`, `rib`, `inside`, `lining`, `label` or `leather`.
        grain: Direction of the warp as (x, y); sleeves have their own.
        folds: How it falls.
        lines: Seams drawn on it.
        creases: Single folds, mostly pulled from an armpit, an elbow or a crotch.
        lift: Shadow that it throws on what lies under it, 0..1.
    """

    outline: Points
    cloth: str = "shell"
    grain: Pair = (0.0, 1.0)
    folds: Folds = field(default_factory=Folds)
    lines: tuple[Line, ...] = ()
    creases: tuple[Crease, ...] = ()
    lift: float = 0.3


@dataclass(frozen=True, slots=True)
class Button:
    """A button, rivet or eyelet at (x, y) cm with a radius in cm; `kind` is `horn`, `pearl`, `metal` or `cloth`."""

    x: float
    y: float
    radius: float = 0.6
    kind: str = "horn"


Layer = Panel | Button


@dataclass(frozen=True, slots=True)
class Frame:
    """A panel's own coordinates: along its grain, and across it from its middle.

    Args:
        grain: Unit vector along the panel.
        along: (S,) positions along the grain, cm, rising.
        middle: (S,) the panel's middle across the grain, cm.
        half: (S,) half its width, cm, above 0.
    """

    grain: Pair
    along: Points
    middle: Points
    half: Points

    @classmethod
    def around(cls, outline: Points, grain: Pair, *, samples: int = 48, widening: bool = False) -> Frame:
        """The frame of an outline, (K, 2) cm, with `samples` stations along the grain; `widening`: never narrower."""
        length = float(np.hypot(*grain))
        down, across = (grain[0] / length, grain[1] / length), (grain[1] / length, -grain[0] / length)
        s, t = outline @ np.array(down), outline @ np.array(across)
        reach = s.max() - s.min()
        stations = np.linspace(s.min() + 0.01 * reach, s.max() - 0.01 * reach, samples)
        s_next, t_next = np.roll(s, -1), np.roll(t, -1)
        # (S, K): which edges of the outline cross each station
        crosses = (s[None] <= stations[:, None]) != (s_next[None] <= stations[:, None])
        rise = np.where(s_next == s, 1.0, s_next - s)
        hits = t[None] + (stations[:, None] - s[None]) / rise[None] * (t_next - t)[None]
        low = np.where(crosses, hits, np.inf).min(axis=1)
        high = np.where(crosses, hits, -np.inf).max(axis=1)
        # A neckline makes the width jump; smoothed, the shading does not.
        weights = np.ones(5) / 5
        middle = np.convolve(np.pad((low + high) / 2, 2, mode="edge"), weights, mode="valid")
        half = np.convolve(np.pad((high - low) / 2, 2, mode="edge"), weights, mode="valid")
        if widening:
            # Below its sides a round hem narrows, and the cloth does not.
            half = np.maximum.accumulate(half)
        return cls(down, stations, middle, np.maximum(half, 0.3))

    def locate(self, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
        """Where points (H, W) in cm lie.

        Returns:
            Three (H, W) float32: along the grain in cm, across from the middle in cm, across from -1 to 1 (the edges).
        """
        down, across = self.grain, (self.grain[1], -self.grain[0])
        along = x * np.float32(down[0]) + y * np.float32(down[1])
        offset = x * np.float32(across[0]) + y * np.float32(across[1])
        # A table lookup by index: np.interp in float64 would cost more than all the shading.
        fine = np.linspace(self.along[0], self.along[-1], 1024)
        middle = np.interp(fine, self.along, self.middle).astype(np.float32)
        half = np.interp(fine, self.along, self.half).astype(np.float32)
        scale = np.float32(1023 / max(self.along[-1] - self.along[0], 1e-6))
        index = np.clip((along - np.float32(self.along[0])) * scale, 0, 1023).astype(np.int32)
        across_cm = offset - middle[index]
        return along, across_cm, np.clip(across_cm / half[index], -1.15, 1.15)
