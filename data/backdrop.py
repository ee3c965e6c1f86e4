"""The backgrounds of drawn photos."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from data.cloth import linear, noise
from data.outline import Floats

WARM = ((0.86, 0.79, 0.7), (0.83, 0.74, 0.66), (0.88, 0.83, 0.76), (0.8, 0.72, 0.62))
COLOURED = (
    (0.72, 0.8, 0.84),
    (0.87, 0.75, 0.74),
    (0.76, 0.82, 0.74),
    (0.9, 0.84, 0.66),
    (0.78, 0.75, 0.85),
    (0.6, 0.7, 0.72),
)
PLANKS = ((0.66, 0.53, 0.4), (0.76, 0.67, 0.56), (0.5, 0.38, 0.29), (0.82, 0.78, 0.72))


def backdrop(kind: str, *, width: int, height: int, rng: np.random.Generator) -> Floats:
    """A background.

    Args:
        kind: `white`, `grey`, `warm`, `wood` or `coloured`.
        width: Pixels.
        height: Pixels.
        rng: Its accidents.

    Returns:
        (height, width, 3) float32, linear light.
    """
    if kind == "wood":
        return _wood(width, height, rng)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    centre_x, centre_y = rng.uniform(-0.3, 0.3), rng.uniform(-0.5, 0.1)
    away = (x - np.float32(centre_x)) ** 2 + (y - np.float32(centre_y)) ** 2
    if kind == "white":
        tone, fall = (rng.uniform(0.965, 0.99),) * 3, rng.uniform(0.01, 0.035)
    elif kind == "grey":
        level = rng.uniform(0.76, 0.9)
        tone, fall = (level, level * 1.003, level * 1.008), rng.uniform(0.03, 0.08)
    else:
        shades = WARM if kind == "warm" else COLOURED
        red, green, blue = shades[int(rng.integers(len(shades)))]
        level = rng.uniform(0.95, 1.05)
        tone, fall = (red * level, green * level, blue * level), rng.uniform(0.04, 0.1)
    shade = 1 - np.float32(fall) * away
    if kind == "warm":
        # Plaster: broad clouds and a fine grain.
        scale = 1 / 60
        shade += np.float32(0.018) * noise((height, width), (scale, 0, 0), (0, scale, 0), rng)
        shade += np.float32(0.012) * rng.standard_normal((height, width), dtype=np.float32)
    ground: Floats = linear(tone) * shade[..., None]
    return ground


def _wood(width: int, height: int, rng: np.random.Generator) -> Floats:
    """Planks with grain, lying across or upright."""
    upright = rng.random() < 0.6
    rows, columns = (width, height) if upright else (height, width)
    tone = linear(PLANKS[int(rng.integers(len(PLANKS)))])
    ground = np.empty((rows, columns, 3), dtype=np.float32)
    plank = rng.uniform(62, 105)
    edges = np.unique(np.clip(np.arange(-rng.uniform(0, plank), rows + plank, plank).astype(int), 0, rows))
    x = np.arange(columns, dtype=np.float32)[None]
    for top, bottom in pairwise(edges.tolist()):
        high = bottom - top
        bend = noise((high, columns), (1 / 90, 0, 0), (0, 1 / 40, 0), rng)
        y = np.arange(high, dtype=np.float32)[:, None]
        rings = np.sin((y + bend * 7) * np.float32(rng.uniform(0.35, 0.6)) + x * np.float32(rng.normal(0, 0.004)))
        fibre = noise((high, columns), (1 / 22, 0, 0), (0, 1 / 2.4, 0), rng)
        shade = np.float32(rng.uniform(0.88, 1.1)) * (1 + np.float32(0.045) * rings + np.float32(0.035) * fibre)
        gap = np.clip(np.minimum(y, high - 1 - y) / np.float32(1.6), 0, 1)
        ground[top:bottom] = tone * (shade * (np.float32(0.45) + np.float32(0.55) * gap))[..., None]
    return np.ascontiguousarray(ground.transpose(1, 0, 2)) if upright else ground
