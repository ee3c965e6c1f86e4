"""The lower half of garments: skirts, trousers, jeans, shorts. Centimetres below the waist (or a skirt's own top)."""

from __future__ import annotations

import numpy as np

from data.bodice import on_both_sides
from data.outline import (
    Button,
    Crease,
    Folds,
    Layer,
    Line,
    Panel,
    Points,
    both_sides,
    corners,
    curve,
    join,
    mirror,
    strip,
)


def skirt_outline(top: float, *, waist: float, hip: float, hem: float, length: float, waves: int = 0) -> Points:
    """The closed outline of a skirt.

    Args:
        top: Height of its upper edge, cm.
        waist: Half its width there, cm.
        hip: Half its width a hand below, cm.
        hem: Half its width at the hem, cm.
        length: From upper edge to hem, cm.
        waves: How often the hem swings; 0 for a smooth one.

    Returns:
        (K, 2) float64, cm.
    """
    hip_at = min(18.0, length * 0.4)
    # A flared hem is an arc about the waist: its sides end higher than its middle.
    lift = max(hem - waist, 0) ** 2 / (2.6 * length) + 0.5
    low = top + length
    side = curve(
        [(waist, top), (hip, top + hip_at), ((hip + hem) / 2 + 0.2, top + (hip_at + length) / 2), (hem, low - lift)]
    )
    x = np.linspace(hem, -hem, 81)
    y = low - lift * (x / hem) ** 2
    if waves:
        y = y + 0.9 * np.sin((x / hem + 0.15) * waves * np.pi) * (1 - 0.5 * (x / hem) ** 2)
    return join(
        side, np.stack([x, y], axis=1)[1:-1], mirror(side[::-1]), curve([(-waist, top), (0, top + 0.6), (waist, top)])
    )


def hem_line(outline: Points, up: float) -> Line:
    """Stitches `up` cm above the hem of an outline from `skirt_outline`."""
    side = (len(outline) - 79 - 19) // 2
    hem = outline[side : side + 79]
    return Line(hem - np.array([0, up]), "stitch")


def waistband(half: float, *, top: float, high: float, loops: bool, button: str = "", back: bool = True) -> list[Layer]:
    """A waistband, `half` cm to each side, from `top` cm and `high` cm wide; above it the inside of its back."""
    bow = 0.8
    upper = curve([(-half, top), (0, top + bow), (half, top)])
    lower = curve([(half + 0.4, top + high), (0, top + high + bow), (-half - 0.4, top + high)])
    layers: list[Layer] = []
    if back:
        rim = curve([(half - 0.1, top + 0.1), (half * 0.6, top - 1.0), (0, top - 1.25)])
        inside = both_sides(join(rim[::-1], curve([(half, top + 0.2), (half * 0.5, top + 2.2), (0, top + 2.4)])))
        layers += [
            Panel(inside, cloth="inside", folds=Folds(wrinkle=0, round=0.4), lift=0),
            Panel(
                corners((-1.7, top - 0.6), (1.7, top - 0.6), (1.7, top + 1.5), (-1.7, top + 1.5)), cloth="label", lift=0
            ),
        ]
    rows = (
        Line(upper + np.array([0, 0.55]), "stitch"),
        Line(lower - np.array([0, 0.55]), "stitch"),
        Line(lower, "edge"),
    )
    layers.append(
        Panel(join(upper, lower), grain=(0.0, 1.0), folds=Folds(wrinkle=0.1, round=0.6), lines=rows, lift=0.25)
    )
    if loops:
        for x in (-0.66, -0.28, 0.28, 0.66):
            at = x * half
            loop = corners(
                (at - 0.6, top - 0.2), (at + 0.6, top - 0.2), (at + 0.6, top + high + 1.3), (at - 0.6, top + high + 1.3)
            )
            layers.append(Panel(loop, cloth="plain", folds=Folds(wrinkle=0, round=0.5), lift=0.5))
    if button:
        layers.append(Button(0.9, top + high / 2 + bow, 0.85, button))
    return layers


def leg(*, waist: float, hip: float, hem: float, spread: float, length: float, crotch: float, knee: float) -> Points:
    """The right leg's closed outline from waist to hem.

    Args:
        waist: Half the waist, cm.
        hip: Half the hip, cm.
        hem: Width of the leg at its hem, cm.
        spread: Distance from the middle to the leg's middle at the hem, cm.
        length: From waist to hem, cm.
        crotch: Height of the crotch, cm.
        knee: Width at the knee, cm; unused above it.

    Returns:
        (K, 2) float64, cm.
    """
    knee_at = crotch + 0.45 * (length - crotch)
    thigh_middle = hip * 0.54
    knee_middle = thigh_middle + 0.45 * (spread - thigh_middle)
    outer = [(waist, 0.0), (waist + (hip - waist) * 0.72, crotch * 0.4), (hip, crotch * 0.8)]
    inner = [(spread - hem / 2, length)]
    if length > 60:
        outer.append((knee_middle + knee / 2, knee_at))
        inner.append((knee_middle - knee / 2, knee_at))
    outer.append((spread + hem / 2, length - 0.4))
    inner += [(1.6, crotch + 5), (0.15, crotch)]
    bottom = curve([outer[-1], (spread, length + 0.5), inner[0]])
    # The legs overlap a little, or the background shows between them.
    rise = curve([(-0.1, crotch - 0.4), (-0.4, crotch * 0.6), (-0.4, 0.8)])
    return join(curve(outer), bottom, curve(inner), rise, curve([(-0.4, 0.8), (waist * 0.6, 0.5), (waist, 0)]))


def leg_creases(*, crotch: float, length: float, hip: float, spread: float, depth: float) -> tuple[Crease, ...]:
    """Folds pulled from the crotch, and across the knee of long legs."""
    found = [
        Crease(1.0, crotch - 1, 1.85, hip * 0.62, depth),
        Crease(1.2, crotch + 1.5, 1.35, hip * 0.6, -depth),
        Crease(1.8, crotch + 4.5, 0.95, hip * 0.6, depth * 0.9),
        Crease(2.6, crotch + 8, 0.55, hip * 0.6, -depth * 0.6),
        Crease(hip * 0.9, crotch * 0.55, -1.25, hip * 0.4, depth * 0.5),
    ]
    if length > 60:
        knee_at = crotch + 0.45 * (length - crotch)
        middle = hip * 0.54 + 0.45 * (spread - hip * 0.54)
        for y, turn, x, weight in (
            (-5, 1.3, -5, 0.6),
            (-1, 1.75, -6, -0.7),
            (3, 1.4, -5, 0.6),
            (0, -1.4, 6, 0.5),
            (5, -1.7, 6, -0.5),
        ):
            found.append(Crease(middle + x, knee_at + y, turn, 9, depth * weight))
        for y, turn, x in ((0, 1.4, -5), (4, -1.5, 5), (8, 1.7, -5)):
            found.append(Crease(spread + x, length - 12 + y, turn, 9, depth * 0.55))
    return tuple(found)


def fly(crotch: float) -> Line:
    """The J-shaped stitches of a fly, on the right leg."""
    return Line(curve([(3.2, 3.0), (3.3, crotch * 0.5), (2.4, crotch * 0.66), (0.2, crotch * 0.74)]), "stitch")


def pocket(waist: float, hip: float, crotch: float, *, jeans: bool) -> tuple[Line, ...]:
    """The front pocket's edge: curved on jeans, slanted on trousers."""
    if jeans:
        edge = curve([(waist * 0.52, 3.0), (waist * 0.58, 7.2), (waist * 0.74, 9.6), (hip * 0.94, 10.4)])
    else:
        edge = curve([(waist * 0.7, 3.0), (waist * 0.82, 9), (hip * 0.94, crotch * 0.66)])
    return Line(edge, "edge"), Line(edge + np.array([-0.55, 0.75]), "stitch")


def trousers(
    *, kind: str, hem: float, knee: float, spread: float, length: float, waist: float = 18.8, hip: float = 22.4
) -> list[Layer]:
    """Trousers, jeans or shorts (`kind`) with waistband, pockets and fly; widths and lengths in cm, see `leg`."""
    crotch, jeans = 29.0, kind == "jeans"
    outline = leg(waist=waist, hip=hip, hem=hem, spread=spread, length=length, crotch=crotch, knee=knee)
    bottom = curve([(spread - hem / 2, length), (spread, length + 0.5), (spread + hem / 2, length - 0.4)])
    lines = [*pocket(waist, hip, crotch, jeans=jeans), Line(bottom - np.array([0, 1.9 if jeans else 3.2]), "stitch")]
    lines.append(Line(curve([(0.15, crotch), (0, crotch * 0.6), (0, 3)]), "edge"))
    if kind == "trousers":
        middle = hip * 0.54
        lines.append(Line(curve([(middle, 12), (middle, crotch), (spread, length)]), "press"))
    else:
        lines.append(Line(curve([(0.7, crotch - 1), (0.65, crotch * 0.6), (0.6, 3)]), "stitch"))
    creases = leg_creases(crotch=crotch, length=length, hip=hip, spread=spread, depth=0.75 if jeans else 0.5)
    folds = Folds(
        wrinkle=0.5 if jeans else 0.38,
        round=0.8,
        drape=0.3 if hem > 25 else 0,
        count=3,
        start=0.3,
        joined=crotch / length,
    )
    right = Panel(outline, folds=folds, lines=(*lines, fly(crotch)), creases=creases, lift=0.3)
    left_lines = tuple(Line(mirror(line.points), line.kind) for line in lines)
    left_creases = tuple(Crease(-crease.x, crease.y, -crease.angle, crease.length, crease.depth) for crease in creases)
    left = Panel(mirror(outline), folds=folds, lines=left_lines, creases=left_creases, lift=0.2)
    layers: list[Layer] = [left, right]
    if jeans:
        layers += on_both_sides([Button(waist * 0.55, 4.2, 0.4, "metal"), Button(hip * 0.9, 9.7, 0.4, "metal")])
    button = "metal" if jeans else "horn"
    return [*layers, *waistband(waist, top=-0.4, high=3.8, loops=kind != "shorts" or hem < 30, button=button)]


def patch_pocket(x: float, y: float, *, width: float, height: float, flap: bool = False) -> list[Layer]:
    """A sewn-on pocket with its upper left corner at (x, y), cm; with `flap`, a flap and a button over it."""
    right, low, drop = x + width, y + height, width * 0.12
    outline = corners((x, y), (right, y), (right, low - drop), (x + width / 2, low), (x, low - drop))
    inner = corners(
        (x + 0.5, y),
        (x + 0.5, low - drop - 0.3),
        (x + width / 2, low - 0.6),
        (right - 0.5, low - drop - 0.3),
        (right - 0.5, y),
    )
    rows = (Line(inner, "stitch"), Line(corners((x, y + 1.6), (right, y + 1.6)), "stitch"))
    layers: list[Layer] = [Panel(outline, folds=Folds(wrinkle=0.15, round=0.1), lines=rows, lift=0.35)]
    if flap:
        cut = corners(
            (x - 0.3, y - 0.6), (right + 0.3, y - 0.6), (right + 0.3, y + 3), (x + width / 2, y + 4.4), (x - 0.3, y + 3)
        )
        seam = Line(cut[[0, 4, 3, 2, 1]] * 0.985 + cut.mean(axis=0) * 0.015, "stitch")
        layers += [
            Panel(cut, folds=Folds(wrinkle=0.1, round=0.1), lines=(seam,), lift=0.5),
            Button(x + width / 2, y + 3.1, 0.5, "metal"),
        ]
    return layers


def belt(half: float, *, at: float, high: float = 2.6, tied: bool = False, cloth: str = "second") -> list[Layer]:
    """A belt at a height, cm: buckled leather, or tied with hanging ends."""
    band = join(
        curve([(-half, at), (0, at + 0.7), (half, at)]),
        curve([(half + 0.1, at + high), (0, at + high + 0.7), (-half - 0.1, at + high)]),
    )
    rows = (Line(band[:19] + np.array([0, 0.4]), "stitch"), Line(band[-19:] - np.array([0, 0.4]), "stitch"))
    layers: list[Layer] = [Panel(band, cloth=cloth, folds=Folds(wrinkle=0.15, round=0.6), lines=rows, lift=0.45)]
    x, y = (-half * 0.35, at + high / 2 + 0.6) if tied else (0.0, at + high / 2 + 0.6)
    if not tied:
        frame = corners((x - 2.4, y - 2), (x + 2.4, y - 2), (x + 2.4, y + 2), (x - 2.4, y + 2))
        hole = corners((x - 1.5, y - 1.1), (x + 1.5, y - 1.1), (x + 1.5, y + 1.1), (x - 1.5, y + 1.1))
        return [*layers, Panel(frame, cloth="leather", lift=0.5), Panel(hole, cloth=cloth, lift=0)]
    for turn, reach in ((0.32, 25), (-0.12, 29)):
        line = curve([(x, y), (x + turn * reach * 0.5, y + reach * 0.45), (x + turn * reach * 0.8, y + reach)])
        layers.append(
            Panel(strip(line, high * 0.75, taper=1.35), cloth=cloth, folds=Folds(wrinkle=0.35, round=0.3), lift=0.5)
        )
    knot = curve(
        [
            (x - 1.9, y - 0.4),
            (x, y - 2),
            (x + 1.9, y - 0.8),
            (x + 1.7, y + 1.3),
            (x, y + 2.1),
            (x - 1.7, y + 1.2),
            (x - 1.9, y - 0.4),
        ]
    )
    return [*layers, Panel(knot, cloth=cloth, folds=Folds(wrinkle=0.4, round=0.9), lift=0.7)]
