"""The upper half of garments: bodies, necklines, sleeves, collars, hoods. In cm; y = 0 where neck meets shoulder."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

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

SLEEVES = {"short": 19.0, "three-quarter": 42.0, "long": 58.0}
# Half width and depth in front of each neckline, cm, on a woman's size M block.
NECKS = {
    "round": (8.3, 9.0),
    "v": (7.8, 19.0),
    "square": (9.6, 13.5),
    "boat": (13.2, 4.6),
    "turtleneck": (6.6, 3.5),
    "collar": (7.2, 7.0),
    "halter": (5.6, 1.5),
    "hood": (8.6, 9.5),
    "lapel": (7.6, 33.0),
}
SLOPE = 0.32


@dataclass(frozen=True, slots=True)
class Fit:
    """The measures of a body, all cm.

    Args:
        shoulder: Half the shoulder width.
        armpit: Half the width under the arms.
        depth: Height of the armpit below the shoulder.
        waist: Half the waist, at `waist_at`.
        waist_at: Height of the waist.
        hip: Half the width at the hem, or at the hip where the body goes on below.
        length: Height of the hem in the middle.
        ease: Half the neck's extra width.
    """

    shoulder: float = 19.0
    armpit: float = 20.5
    depth: float = 21.5
    waist: float = 18.5
    waist_at: float = 40.0
    hip: float = 21.5
    length: float = 62.0
    ease: float = 0.0


def neck_front(kind: str, fit: Fit) -> Points:
    """The front neckline's right half, from the middle up to the shoulder; (K, 2) cm."""
    half, deep = NECKS[kind]
    half += fit.ease
    high = max(half - 7.5, 0) * SLOPE
    if kind == "v":
        return curve([(0, deep), (half * 0.5, deep * 0.49), (half * 0.87, deep * 0.16), (half, high)])
    if kind == "square":
        return join(corners((0, deep + 0.3)), curve([(half - 1.3, deep), (half - 0.5, deep * 0.5), (half, high)]))
    if kind == "boat":
        return curve([(0, deep), (half * 0.55, deep * 0.86), (half, high)])
    if kind == "collar":
        return curve([(0, deep), (half * 0.6, deep * 0.62), (half, high)])
    if kind == "lapel":
        return curve([(0, deep), (half * 0.45, deep * 0.5), (half * 0.9, deep * 0.12), (half, high)])
    return curve([(0, deep), (half * 0.45, deep * 0.9), (half * 0.85, deep * 0.5), (half, high)])


def armhole(fit: Fit, sleeve: str, neck: str) -> Points:
    """The right armhole from the shoulder down to the armpit; (K, 2) cm."""
    pit = (fit.armpit, fit.depth)
    tip_y = (fit.shoulder - 7.5) * SLOPE
    if neck == "halter":
        return curve([(7.4, -0.6), (9.6, 7), (13.2, 14.5), pit])
    if sleeve == "sleeveless":
        tip = min(fit.shoulder - 2.8, 16.5)
        tip = max(tip, NECKS[neck][0] + 2.6)
        return curve([(tip, tip_y - 0.9), (tip - 1.3, 8.5), (tip - 0.3, 15), (tip + 2.2, 19.4), pit])
    inset = min(fit.shoulder, fit.armpit)
    middle = fit.depth * 0.55
    return curve([(fit.shoulder, tip_y), (inset - 1.3, middle - 2), (inset - 0.9, middle + 4), pit])


def body_outline(fit: Fit, *, sleeve: str, neck: str, hem: float = 0.8) -> Points:
    """The closed outline of a body, (K, 2) cm; its hem's sides lie `hem` cm higher than its middle."""
    side = [(fit.armpit, fit.depth), (fit.waist, fit.waist_at), (fit.hip, fit.length - hem)]
    if fit.length > fit.waist_at + 16:
        side.insert(2, (0.3 * fit.waist + 0.7 * fit.hip, fit.waist_at + 0.55 * (fit.length - fit.waist_at)))
    bottom = curve([(fit.hip, fit.length - hem), (fit.hip * 0.5, fit.length - hem * 0.25), (0, fit.length)])
    return both_sides(join(neck_front(neck, fit), armhole(fit, sleeve, neck), curve(side), bottom))


def strapped_outline(fit: Fit) -> Points:
    """The closed outline of a body that hangs on thin straps, without the straps; (K, 2) cm."""
    top = curve([(0, 15.2), (4.5, 13.6), (10.2, 10.6)])
    hole = curve([(11.0, 10.8), (13.2, 14.6), (16.5, 18.2), (fit.armpit, fit.depth)])
    side = curve([(fit.armpit, fit.depth), (fit.waist, fit.waist_at), (fit.hip, fit.length - 0.6)])
    return both_sides(join(top, hole, side, corners((0, fit.length))))


def straps() -> list[Panel]:
    """Two thin straps, each with its end behind the shoulder."""
    right = strip(curve([(10.6, 11.2), (10.1, 5.5), (9.0, -0.4)]), 1.1)
    thin = Folds(wrinkle=0, round=0.5)
    return [Panel(side, cloth="plain", folds=thin, lift=0.25) for side in (right, mirror(right))]


def inside_back(fit: Fit, neck: str, *, label: bool = True, deep: float | None = None) -> list[Layer]:
    """What one sees through the neckline: the back of the garment from within, its seam and its label."""
    half, depth = NECKS[neck]
    half += fit.ease
    depth = depth if deep is None else deep
    high = max(half - 7.5, 0) * SLOPE
    drop = 1.2 if neck in ("boat", "square") else 1.9
    rim = curve([(half + 0.4, high - 0.1), (half * 0.62, high + drop * 0.75), (0, high + drop)])
    low = max(depth + 3, high + drop + 5)
    # Square necklines are as wide at their foot as at the shoulder, the others narrow.
    foot = (half - 0.2, depth + 1) if neck == "square" else (half * 0.8, low * 0.7)
    outline = both_sides(join(rim[::-1], curve([(half + 0.4, high), foot, (0, low)])))
    binding = both_sides(rim[::-1])[: 2 * len(rim)]
    facing = join(rim[::-1] + np.array([0, 1.4]), mirror(rim) + np.array([0, 1.4]))
    seam = Line(facing[np.argsort(facing[:, 0])], "seam")
    layers: list[Layer] = [
        Panel(outline, cloth="inside", folds=Folds(wrinkle=0.25, round=0.3), lines=(seam,), lift=0),
        Panel(strip(binding[np.argsort(binding[:, 0])], 0.8), cloth="rib", folds=Folds(wrinkle=0, round=0), lift=0.1),
    ]
    if label and depth > 6:
        top = high + drop + 0.7
        layers.append(
            Panel(
                corners((-2.1, top), (2.1, top), (2.1, top + 2.3), (-2.1, top + 2.3)),
                cloth="label",
                folds=Folds(wrinkle=0, round=0),
                lift=0.2,
            )
        )
    return layers


def neck_band(neck: str, fit: Fit, *, width: float, cloth: str = "rib") -> Panel:
    """A band sewn along the front neckline."""
    right = neck_front(neck, fit)
    whole = join(mirror(right[::-1]), right[1:])
    inner, outer = whole, whole + _outward(whole) * width
    # Its ends lie on the shoulder seams.
    outer[-1] = whole[-1] + np.array([width, width * SLOPE])
    outer[0] = mirror(outer[-1])
    return Panel(
        join(inner, outer[::-1]),
        cloth=cloth,
        folds=Folds(wrinkle=0, round=0.2),
        lines=(Line(outer, "seam"),),
        lift=0.25,
    )


def _outward(line: Points) -> Points:
    """Unit normals of a neckline that runs from left to right, away from the neck."""
    run = np.gradient(line, axis=0)
    normal = np.stack([-run[:, 1], run[:, 0]], axis=1)
    unit: Points = normal / np.maximum(np.hypot(*normal.T), 1e-9)[:, None]
    return unit


def body_creases(fit: Fit, *, depth: float) -> tuple[Crease, ...]:
    """Folds pulled from the armpits towards the middle and along the waist."""
    found = []
    for side in (-1, 1):
        x, y = side * (fit.armpit - 1.5), fit.depth - 2
        found += [
            Crease(x, y, -side * 0.85, 13, depth),
            Crease(x, y + 2.5, -side * 0.5, 16, -depth * 0.8),
            Crease(x, y + 4, -side * 0.22, 20, depth * 0.7),
            Crease(side * fit.waist * 0.96, fit.waist_at - 2, -side * 1.2, 10, depth * 0.5),
            Crease(side * fit.waist * 0.96, fit.waist_at + 3, -side * 1.75, 9, -depth * 0.5),
        ]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Sleeve:
    """How a sleeve is cut and hangs.

    Args:
        length: From shoulder to cuff, cm.
        angle: Away from straight down, radians.
        cuff: Width at the end, cm.
        width: Width at the upper arm, cm; 0 follows from the angle.
        bend: How far the cuff turns inward, cm.
        finish: `hem`, `rib`, `cuff` (buttoned) or `plain`.
        volume: Puff, 0 (flat) to 1.
    """

    length: float
    angle: float
    cuff: float
    width: float = 0.0
    bend: float = 0.0
    finish: str = "hem"
    volume: float = 0.0


def sleeve_layers(fit: Fit, sleeve: Sleeve, *, side: int, cloth: str = "shell", wrinkle: float = 0.45) -> list[Layer]:
    """One sleeve set into the armhole, with its end; `side` is 1 (right in the picture) or -1."""
    sine, cosine = np.sin(sleeve.angle), np.cos(sleeve.angle)
    down, out = np.array([sine, cosine]), np.array([cosine, -sine])
    hole = armhole(fit, "long", "round")
    # A sleeve that hangs covers a little of the body beside the armpit.
    over = out * float(np.interp(sleeve.angle, [0.1, 0.5], [4.6, 0.0]))
    hole = hole - over * np.linspace(0, 1, len(hole))[:, None] ** 2
    tip, pit = hole[0], hole[-1]
    upper = sleeve.width or float(np.interp(sleeve.angle, [0.1, 0.9], [11.4, 17.5]))
    inner_reach = sleeve.length - float((pit - tip) @ down)
    elbow, end = pit + down * inner_reach * 0.5, pit + down * inner_reach - out * sleeve.bend
    elbow_width = upper + 0.55 * (sleeve.cuff - upper) + 2.5 * sleeve.volume
    bicep = pit + out * upper
    cap = tip + (bicep - tip) * 0.5 + out * (0.55 + 2.2 * sleeve.volume) - down * 0.3
    end_out = end + out * sleeve.cuff
    outer = [tip, cap, bicep + down * 1.5]
    inner = [end, pit + down * 2.0, pit]
    if sleeve.length > 30:
        outer.append(elbow + out * (elbow_width + 0.35 * sleeve.bend))
        inner.insert(1, elbow + out * 0.35 * sleeve.bend)
    outer.append(end_out)
    across = curve([_pair(end_out), _pair((end + end_out) / 2 + down * 0.7), _pair(end)])
    outline = join(curve([_pair(at) for at in outer]), across, curve([_pair(at) for at in inner]), hole[::-1])
    lines = [Line(across - down * 1.8, "stitch")] if sleeve.finish == "hem" else []
    panel = Panel(
        outline,
        cloth=cloth,
        grain=(float(sine), float(cosine)),
        folds=Folds(wrinkle=wrinkle, round=0.85, gather=0.5 * sleeve.volume, count=4),
        lines=(*lines, Line(hole, "edge")),
        creases=_sleeve_creases(pit, elbow, down, out, sleeve, upper),
        lift=0.35,
    )
    layers: list[Layer] = [panel, *_sleeve_end(end, end_out, down, sleeve)]
    return [_flipped(layer) for layer in layers] if side < 0 else layers


def _pair(point: Points) -> tuple[float, float]:
    """The point as two floats."""
    return float(point[0]), float(point[1])


def _sleeve_creases(
    pit: Points, elbow: Points, down: Points, out: Points, sleeve: Sleeve, upper: float
) -> tuple[Crease, ...]:
    """Folds from the armpit up the cap, and across the elbow of a long sleeve."""
    found = []
    for at, turn, length, depth in ((1.0, 1.9, 9, 0.42), (2.5, 1.35, 10, -0.4), (4.5, 0.95, 11, 0.35)):
        x, y = _pair(pit + down * at + out * 0.8)
        found.append(Crease(x, y, sleeve.angle + turn, length, depth))
    if sleeve.length > 30:
        for along, turn, depth in ((-5.0, 1.2, 0.4), (-1.5, 1.75, -0.45), (2.5, 1.45, 0.4), (7.0, 1.9, -0.3)):
            x, y = _pair(elbow + down * along + out * 0.6)
            found.append(Crease(x, y, sleeve.angle + turn, upper * 0.7, depth))
    return tuple(found)


def _sleeve_end(end: Points, end_out: Points, down: Points, sleeve: Sleeve) -> list[Layer]:
    """A ribbed or buttoned cuff."""
    if sleeve.finish not in ("rib", "cuff"):
        return []
    narrow = 0.86 if sleeve.finish == "rib" else 0.94
    middle, high = (end + end_out) / 2, 6.0 if sleeve.finish == "rib" else 5.5
    first, second = middle + (end - middle) * narrow, middle + (end_out - middle) * narrow
    top = curve(
        [_pair(middle + (end - middle) * 0.99), _pair(middle + down * 0.6), _pair(middle + (end_out - middle) * 0.99)]
    )
    low = curve([_pair(second + down * high), _pair(middle + down * (high + 0.6)), _pair(first + down * high)])
    cloth = "rib" if sleeve.finish == "rib" else "shell"
    lines = (Line(top, "edge"),) if cloth == "rib" else (Line(top, "edge"), Line(low - down * 0.6, "stitch"))
    grain = _pair(down)
    layers: list[Layer] = [
        Panel(join(top, low), cloth=cloth, grain=grain, folds=Folds(wrinkle=0.1, round=0.8), lines=lines, lift=0.15)
    ]
    if sleeve.finish == "cuff":
        x, y = _pair(first + (second - first) * 0.78 + down * high * 0.5)
        layers.append(Button(x, y, 0.55, "pearl"))
    return layers


def _flipped(layer: Layer) -> Layer:
    """The layer on the other side of the middle."""
    if isinstance(layer, Button):
        return replace(layer, x=-layer.x)
    return replace(
        layer,
        outline=mirror(layer.outline),
        grain=(-layer.grain[0], layer.grain[1]),
        lines=tuple(replace(line, points=mirror(line.points)) for line in layer.lines),
        creases=tuple(replace(crease, x=-crease.x, angle=-crease.angle) for crease in layer.creases),
    )


def on_both_sides(layers: list[Layer]) -> list[Layer]:
    """The layers and their mirror images, these first."""
    return [*(_flipped(layer) for layer in layers), *layers]


def shirt_collar(fit: Fit, *, spread: float = 0.0) -> list[Layer]:
    """A turned-down collar with its stand; `spread` cm moves its points apart."""
    half, deep = NECKS["collar"][0] + fit.ease, NECKS["collar"][1]
    crisp = Folds(wrinkle=0.08, round=0.3)
    back = both_sides(
        join(curve([(0, -3.6), (3.6, -3.3), (half - 1.4, -1.6)]), curve([(half, 0.4), (4, 3.4), (0, 4.6)]))
    )
    fold = curve([(0.25, deep - 0.3), (2.9, 4.2), (5.0, 0.8), (half - 1.3, -1.9)])
    fall = curve([(half - 1.3, -1.9), (half + 1.4, 0.5), (half + 1.7, 2.2)])
    point = (5.6 + spread, deep + 5.0)
    edge = curve([(half + 1.7, 2.2), (half + 0.6, 6.0), point])
    outline = join(fold, fall, edge, corners((0.25, deep - 0.3)))
    inset = join(edge - np.array([0.6, 0.1]), corners((point[0] - 0.5, point[1] - 0.9), (0.9, deep - 0.1)))
    leaf = Panel(outline, folds=crisp, grain=(-0.35, 1.0), lines=(Line(inset, "stitch"), Line(fold, "seam")), lift=0.7)
    return [Panel(back, cloth="inside", folds=Folds(wrinkle=0.1, round=0.5), lift=0), *on_both_sides([leaf])]


def placket(top: float, bottom: float, *, buttons: int, kind: str = "pearl", width: float = 1.6) -> list[Layer]:
    """A front band with its buttons from `top` to `bottom`, cm."""
    band = corners((-width, top), (width, top), (width, bottom), (-width, bottom))
    rows = (
        Line(corners((-width + 0.4, top), (-width + 0.4, bottom)), "stitch"),
        Line(corners((width - 0.4, top), (width - 0.4, bottom)), "stitch"),
        Line(corners((width, top), (width, bottom)), "edge"),
    )
    heights = np.linspace(top + 1.5, bottom - (bottom - top) * 0.12, buttons)
    return [
        Panel(band, folds=Folds(wrinkle=0.15, round=0), lines=rows, lift=0.25),
        *(Button(0.0, float(y), 0.58, kind) for y in heights),
    ]


def lapels(deep: float, *, width: float = 9.0, peak: float = 0.0) -> list[Layer]:
    """A notched collar that rolls to a button `deep` cm down; `width` cm wide; `peak` cm raises the lapel's point."""
    crisp = Folds(wrinkle=0.12, round=0.25)
    notch = deep * 0.36
    tip = (5.0 + width, notch - 1.5 - peak)
    roll = curve([(0.6, deep), (3.2, deep * 0.55), (6.0, 4.0), (6.4, -2.6)])
    lapel = join(
        roll[:-6],
        corners((6.6, 3.0), (9.4, notch - 0.4), tip),
        curve([tip, (4.6 + width * 0.72, deep * 0.62), (0.6, deep)])[1:],
    )
    collar = join(
        curve([(6.2, -2.8), (8.6, 0.0), (11.6, 5.2), (12.6, notch - 5.0)]),
        curve([(11.8, notch - 3.2), (9.2, notch), (6.4, 3.2)]),
    )
    right: list[Layer] = [
        Panel(
            lapel,
            folds=crisp,
            grain=(-0.25, 1.0),
            lines=(Line(lapel[-12:] - np.array([0.6, 0.4]), "stitch"),),
            lift=0.75,
        ),
        Panel(collar, folds=crisp, grain=(0.4, 1.0), lines=(Line(collar[-10:], "seam"),), lift=0.6),
    ]
    top = both_sides(join(curve([(0, -4.2), (4, -3.9), (6.6, -2.6)]), curve([(6.8, -1.0), (4.6, 1.8), (0, 3.0)])))
    return [Panel(top, folds=crisp, lift=0.3), *on_both_sides(right)]


def hood() -> tuple[list[Layer], list[Layer]]:
    """A hood: what lies behind the body, and the cords before it."""
    shell = both_sides(join(curve([(0, -25), (6.5, -23.4), (11.4, -16), (12.4, -7), (10.2, 2.5)]), corners((0, 14))))
    mouth = both_sides(join(curve([(0, -19.5), (4.4, -18), (7.6, -11), (8.0, -3), (5.6, 4.5), (0, 12)])))
    rim = curve([(5.6, 4.5), (8.0, -3), (7.6, -11), (4.4, -18), (0, -19.5)]) + np.array([0.9, -0.7])
    seams = (Line(rim, "stitch"), Line(mirror(rim), "stitch"))
    folds = (
        Crease(9, 1, 2.8, 12, 0.5),
        Crease(-9, 1, -2.8, 12, 0.5),
        Crease(10.5, -2, 3.0, 10, -0.4),
        Crease(-10.5, -2, -3.0, 10, -0.4),
    )
    behind: list[Layer] = [
        Panel(shell, folds=Folds(wrinkle=0.5, round=0.9), lines=seams, creases=folds, lift=0.2),
        Panel(
            mouth,
            cloth="inside",
            folds=Folds(wrinkle=0.6, round=0.4),
            lines=(Line(corners((0, -19), (0, 6)), "seam"),),
            lift=0,
        ),
    ]
    cord = strip(curve([(4.2, 7.6), (4.7, 14), (4.1, 21), (4.5, 27)]), 0.75)
    before: list[Layer] = [
        Button(4.2, 7.6, 0.6, "metal"),
        Panel(cord, cloth="label", folds=Folds(wrinkle=0, round=0.8), lift=0.6),
    ]
    return behind, on_both_sides(before)
