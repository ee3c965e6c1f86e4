"""What a drawn garment is made of: colours, printed and woven patterns, the feel of a fabric, its folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from data.outline import Crease, Floats, Folds

Colour = tuple[float, float, float]
PATTERNS = ("plain", "vertical stripes", "horizontal stripes", "checks", "dots", "floral", "colour block")
FABRICS = ("cotton", "knit", "denim", "wool", "satin", "crepe")


@dataclass(frozen=True, slots=True)
class Fabric:
    """The cloth of one product.

    Args:
        kind: One of FABRICS.
        pattern: One of PATTERNS.
        main: Ground colour, sRGB 0..1.
        second: Colour of the pattern, sRGB 0..1.
        third: Another one for florals and checks, sRGB 0..1.
        repeat: Size of one repeat of the pattern, cm, above 0.
        variant: 0..1, chooses among ways to draw the pattern.
        divide: Height of a colour block's border, cm below the top of the garment.
        stitch: Colour of visible stitches, sRGB 0..1.
    """

    kind: str
    pattern: str
    main: Colour
    second: Colour
    third: Colour
    repeat: float
    variant: float
    divide: float
    stitch: Colour


def linear(colour: Colour) -> Floats:
    """(3,) float32: an sRGB colour as light. Gamma 2 stands in for sRGB's 2.2: a square and a root are cheap."""
    return np.square(np.asarray(colour, dtype=np.float32))


def band(x: Floats, period: float, width: float, soft: float) -> Floats:
    """How far points lie in a stripe.

    Args:
        x: Positions, cm.
        period: Distance between stripes, cm, above 0.
        width: Width of a stripe, cm.
        soft: Width of its blurred edge, cm, above 0; one pixel avoids jagged edges.

    Returns:
        float32 0..1, shaped like `x`.
    """
    away = np.abs(np.mod(x / np.float32(period), 1) - np.float32(0.5)) * np.float32(period)
    inside: Floats = np.clip((np.float32(width / 2) - away) / np.float32(soft) + np.float32(0.5), 0, 1)
    return inside


def _mix(ground: Floats, over: Floats, amount: Floats) -> Floats:
    """The colours with `over` laid on by amount (H, W)."""
    return ground + (over - ground) * amount[..., None]


def _stripes(fabric: Fabric, x: Floats, soft: float) -> Floats:
    """Even bands, pinstripes or double stripes, by the fabric's variant."""
    repeat = fabric.repeat
    if fabric.variant < 0.55:
        amount = band(x, repeat, repeat * 0.45, soft)
    elif fabric.variant < 0.8:
        amount = band(x, repeat, max(repeat * 0.2, 0.45), soft)
    else:
        amount = np.maximum(band(x, repeat, repeat * 0.34, soft), band(x + repeat / 2, repeat, repeat * 0.1, soft))
    return _mix(linear(fabric.main), linear(fabric.second), amount)


def _checks(fabric: Fabric, p: Floats, q: Floats, soft: float) -> Floats:
    """Gingham, a tartan or a windowpane, by the fabric's variant."""
    repeat, main, second = fabric.repeat, linear(fabric.main), linear(fabric.second)
    if fabric.variant < 0.4:
        amount = (band(p, repeat, repeat / 2, soft) + band(q, repeat, repeat / 2, soft)) * np.float32(0.5)
        return _mix(main, second, amount)
    if fabric.variant < 0.75:
        wide = (band(p, repeat * 2, repeat * 0.9, soft) + band(q, repeat * 2, repeat * 0.9, soft)) * np.float32(0.5)
        thin = np.maximum(band(p, repeat * 2, repeat * 0.12, soft), band(q, repeat * 2, repeat * 0.12, soft))
        cross = np.maximum(band(p + repeat, repeat * 2, 0.3, soft), band(q + repeat, repeat * 2, 0.3, soft))
        woven = _mix(_mix(main, second, wide * np.float32(0.85)), linear(fabric.third), thin * np.float32(0.7))
        return _mix(woven, linear(fabric.third), cross * np.float32(0.55))
    pane = repeat * 1.6
    return _mix(main, second, np.maximum(band(p, pane, 0.5, soft), band(q, pane, 0.5, soft)))


def _dots(fabric: Fabric, p: Floats, q: Floats, soft: float) -> Floats:
    """Dots on a staggered lattice."""
    repeat = np.float32(fabric.repeat)
    row = np.floor(q / repeat)
    x = np.mod(p + row * repeat / 2, repeat) - repeat / 2
    y = np.mod(q, repeat) - repeat / 2
    radius = repeat * np.float32(0.2 + 0.1 * fabric.variant)
    amount = np.clip((radius - np.sqrt(x * x + y * y)) / np.float32(soft) + np.float32(0.5), 0, 1)
    return _mix(linear(fabric.main), linear(fabric.second), amount)


def _ink(colour: Colour) -> tuple[int, int, int]:
    """The colour as Pillow takes it."""
    red, green, blue = (round(255 * min(max(channel, 0.0), 1.0)) for channel in colour)
    return red, green, blue


def _flower(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], size: float, turn: float, ink: dict[str, Colour]
) -> None:
    """Five or six petals, a darker heart, a pale eye."""
    petals = 5 if size > 1 else 6
    for shade, reach, fat in ((0.9, 0.62, 0.44), (1.0, 0.52, 0.36)):
        colour = tuple(min(channel * shade + (0.08 if shade == 1 else 0), 1.0) for channel in ink["petal"])
        for petal in range(petals):
            angle = turn + petal * 2 * np.pi / petals
            x, y = at[0] + np.cos(angle) * size * reach, at[1] + np.sin(angle) * size * reach
            radius = size * fat
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_ink((colour[0], colour[1], colour[2])))
    for fraction, name in ((0.3, "heart"), (0.14, "eye")):
        radius = size * fraction
        draw.ellipse((at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius), fill=_ink(ink[name]))


def floral_tile(fabric: Fabric, per_cm: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One seamless repeat of a flower print.

    Args:
        fabric: Its colours and repeat are used; the tile is 4 repeats wide and high.
        per_cm: Pixels a cm, above 0.
        rng: Places the flowers; the same state gives the same print.

    Returns:
        (T, T, 3) uint8 sRGB.
    """
    side = max(int(4 * fabric.repeat * per_cm), 24)
    big = side * 2
    tile = Image.new("RGB", (big, big), _ink(fabric.main))
    draw = ImageDraw.Draw(tile)
    across = 5
    unit = big / across
    dark = (fabric.second[0] * 0.45, fabric.second[1] * 0.4, fabric.second[2] * 0.4)
    petals = (fabric.second, fabric.third, fabric.second)
    leaf: Colour = (0.24, 0.38, 0.25) if sum(fabric.main) > 1.0 else (0.42, 0.55, 0.42)
    for cell in rng.permutation(across * across):
        x, y = (cell % across + rng.uniform(0.1, 0.9)) * unit, (cell // across + rng.uniform(0.1, 0.9)) * unit
        # Mostly small flowers, a few large ones.
        size, turn = unit * (0.16 + 0.36 * rng.random() ** 2), rng.uniform(0, 6.28)
        ink = {"petal": petals[cell % 3], "heart": dark, "eye": (0.95, 0.8, 0.4)}
        # Drawn nine times, a flower that crosses an edge comes in again on the other side.
        for wrap_x in (-big, 0, big):
            for wrap_y in (-big, 0, big):
                for side_turn in (0.9, 2.8, 4.6):
                    angle = turn + side_turn
                    tip = (x + wrap_x + np.cos(angle) * size * 1.7, y + wrap_y + np.sin(angle) * size * 1.7)
                    middle = ((x + wrap_x + tip[0]) / 2, (y + wrap_y + tip[1]) / 2)
                    bend = (np.cos(angle + 1.57) * size * 0.32, np.sin(angle + 1.57) * size * 0.32)
                    first, second = (
                        (middle[0] + bend[0], middle[1] + bend[1]),
                        (middle[0] - bend[0], middle[1] - bend[1]),
                    )
                    draw.polygon([(x + wrap_x, y + wrap_y), first, tip, second], fill=_ink(leaf))
                _flower(draw, (x + wrap_x, y + wrap_y), size, turn, ink)
    return np.asarray(tile.reduce(2))


def coloured(
    fabric: Fabric,
    p: Floats,
    q: Floats,
    *,
    per_cm: float,
    tile: NDArray[np.uint8] | None,
    depth: Floats,
) -> Floats:
    """The pattern's colours on a piece of cloth, unlit.

    Args:
        fabric: The cloth.
        p: (H, W) across the grain, cm.
        q: (H, W) along the grain, cm.
        per_cm: Pixels a cm, above 0.
        tile: The flower print of a floral, from `floral_tile` with the same `per_cm`.
        depth: (H, W) cm below the top of the garment, for colour blocks.

    Returns:
        (H, W, 3) float32 linear light, or (3,) where all of it has one colour.
    """
    soft = 1 / per_cm
    painters: dict[str, Callable[[], Floats]] = {
        "vertical stripes": lambda: _stripes(fabric, p, soft),
        "horizontal stripes": lambda: _stripes(fabric, q, soft),
        "checks": lambda: _checks(fabric, p, q, soft),
        "dots": lambda: _dots(fabric, p, q, soft),
        "colour block": lambda: _mix(
            linear(fabric.main),
            linear(fabric.second),
            np.clip((depth - np.float32(fabric.divide)) / np.float32(soft) + np.float32(0.5), 0, 1),
        ),
    }
    if fabric.pattern == "floral" and tile is not None:
        side = tile.shape[0]
        columns = np.mod(p * np.float32(per_cm), side).astype(np.int32) % side
        rows = np.mod(q * np.float32(per_cm), side).astype(np.int32) % side
        printed: Floats = np.square(tile[rows, columns].astype(np.float32) / np.float32(255))
        return printed
    return painters[fabric.pattern]() if fabric.pattern in painters else linear(fabric.main)


def noise(
    shape: tuple[int, int], x: tuple[float, float, float], y: tuple[float, float, float], rng: np.random.Generator
) -> Floats:
    """Smooth random bumps.

    Args:
        shape: Height and width, pixels.
        x: How a pixel's (column, row, 1) gives its column among the bumps, one bump a unit.
        y: The same for its row.
        rng: Where the bumps come from.

    Returns:
        float32 of that shape, mean about 0, standard deviation about 0.6.
    """
    cells = 48
    # Bumps are wide: at half the size they cost a quarter, and nobody sees it.
    rows, columns = (shape[0] + 1) // 2, (shape[1] + 1) // 2
    x, y = (2 * x[0], 2 * x[1], 0.0), (2 * y[0], 2 * y[1], 0.0)
    bumps = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    # The grid's middle is put where the pixels' middle falls, so that no pixel leaves it.
    centre = [row[0] * columns / 2 + row[1] * rows / 2 for row in (x, y)]
    data = (x[0], x[1], cells / 2 - centre[0], y[0], y[1], cells / 2 - centre[1])
    half = bumps.transform((columns, rows), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)
    return np.asarray(half.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def fallen(folds: Folds, u: Floats, s: Floats, *, span: tuple[float, float], rng: np.random.Generator) -> Floats:
    """The height of a panel's regular folds.

    Args:
        folds: How the cloth falls.
        u: (H, W) across the panel, -1..1.
        s: (H, W) along it, cm.
        span: Where it begins and ends along the grain, cm.
        rng: Sets the folds apart from each other.

    Returns:
        (H, W) float32, cm.
    """
    length = max(span[1] - span[0], 1.0)
    at = np.clip((s - np.float32(span[0])) / np.float32(length), 0, 1)
    height = np.zeros_like(u)
    if folds.drape > 0:
        grown = np.clip((at - np.float32(folds.start)) / np.float32(max(1 - folds.start, 0.05)), 0, 1)
        sway = u + np.float32(rng.uniform(0.02, 0.05)) * np.sin(at * np.float32(rng.uniform(2, 5)))
        for weight, stretch in ((1.0, 1.0), (0.6, 1.7), (0.35, 2.9)):
            turns = np.float32(folds.count * stretch * rng.uniform(0.8, 1.2) * np.pi / 2)
            wave = np.sin(sway * turns + np.float32(rng.uniform(0, 6.28)))
            # A ridge is rounder than the valley beside it.
            height += np.float32(weight) * np.sqrt(wave * wave + np.float32(0.03))
        height *= np.float32(1.9 * folds.drape) * grown
    if folds.pleats > 0:
        tooth = np.mod((u + 1) * np.float32(folds.pleats / 2), 1)
        height += np.float32(1.5) * tooth * (np.float32(0.35) + at * np.float32(0.9))
    if folds.gather > 0:
        near = np.exp(-at * np.float32(length / 9))
        turns = np.float32(folds.count * 5)
        wave = np.sin(u * turns + np.float32(1.3) * np.sin(u * np.float32(9)) + np.float32(rng.uniform(0, 6)))
        height += np.float32(0.42 * folds.gather) * near * wave
    return height


def creased(height: Floats, x: Floats, y: Floats, creases: tuple[Crease, ...]) -> None:
    """Presses single folds into a height (H, W) in cm, in place; x and y (H, W) are its points in cm."""
    across_x, down_y = x[len(x) // 2], y[:, y.shape[1] // 2]
    for crease in creases:
        # Only what is near; the camera turns a panel by a few centimetres at most.
        reach = 1.3 * crease.length + 5
        columns = np.flatnonzero(np.abs(across_x - np.float32(crease.x)) < reach)
        rows = np.flatnonzero(np.abs(down_y - np.float32(crease.y)) < reach)
        if not (len(columns) and len(rows)):
            continue
        near_by = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        sine, cosine = np.float32(np.sin(crease.angle)), np.float32(np.cos(crease.angle))
        dx, dy = x[near_by] - np.float32(crease.x), y[near_by] - np.float32(crease.y)
        along = (dx * sine + dy * cosine) / np.float32(crease.length)
        across = dx * cosine - dy * sine
        # It bends a little and widens as it runs out.
        across += np.float32(0.12 * crease.length) * along * along
        width = np.float32(0.055 * crease.length + 0.4) * (1 + np.clip(along, 0, 1.5))
        near = np.clip(along * 5, 0, 1) * np.clip(np.float32(1.2) - along, 0, 1)
        height[near_by] += np.float32(crease.depth) * near * np.exp(-np.square(across / width))


def feel(kind: str, shape: tuple[int, int], p: Floats, q: Floats, rng: np.random.Generator) -> Floats:
    """The fine texture of a fabric: a factor of light about 1.

    Args:
        kind: One of FABRICS, or `rib`.
        shape: Height and width, pixels.
        p: (H, W) across the grain, cm.
        q: (H, W) along the grain, cm.
        rng: Gives the yarn its unevenness.

    Returns:
        (H, W) float32.
    """
    grain: Floats = rng.standard_normal(shape, dtype=np.float32)
    if kind == "rib":
        ribs: Floats = 1 + np.float32(0.13) * np.sin(p * np.float32(9.5)) + np.float32(0.02) * grain
        return ribs
    if kind == "knit":
        wale = np.sin(p * np.float32(11)) * np.float32(0.045)
        course = np.sin(q * np.float32(13) + np.float32(1.2) * np.sin(p * np.float32(11))) * np.float32(0.04)
        knitted: Floats = 1 + wale + course + np.float32(0.03) * grain
        return knitted
    if kind == "denim":
        twill = np.sin((p + q) * np.float32(19)) * np.float32(0.05)
        woven: Floats = 1 + twill + np.float32(0.055) * grain
        return woven
    strength = {"wool": 0.035, "cotton": 0.02, "satin": 0.008, "crepe": 0.028}[kind]
    return 1 + np.float32(strength) * grain
