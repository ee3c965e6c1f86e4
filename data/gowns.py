"""Dresses and skirts. Centimetres, as in `data.outline`."""

from __future__ import annotations

import numpy as np

from data import bodice, bottoms
from data.bodice import NECKS, SLEEVES, Fit
from data.outline import Button, Folds, Layer, Line, Panel, both_sides, corners, curve, join
from data.tailoring import Garment, armhole_stitches, neck_finish, sleeves

# Length of a dress from the shoulder, and of a skirt from the waist, cm.
DRESS_LENGTHS = {"mini": 84.0, "knee": 99.0, "midi": 117.0, "maxi": 140.0}
SKIRT_LENGTHS = {"mini": 41.0, "knee": 57.0, "midi": 76.0, "maxi": 98.0}


def dress(garment: Garment, cut: np.random.Generator, pose: np.random.Generator) -> list[Layer]:
    """A dress: bodice, skirt, sleeves, and what its silhouette asks for."""
    cuts = garment.silhouette
    length = DRESS_LENGTHS[garment.length] + cut.uniform(-3, 3)
    seam = {"empire": 30.0, "a-line": 39.0, "fit-and-flare": 39.0, "wrap": 39.5, "sheath": 40.0, "shift": 40.0}[cuts]
    waist = {"empire": 17.6, "a-line": 16.8, "fit-and-flare": 15.6, "wrap": 16.2, "sheath": 17.0, "shift": 20.2}[cuts]
    below = length - seam
    hem = {
        "empire": 19 + 0.17 * below,
        "a-line": 17 + 0.3 * min(below, 55) + 0.1 * max(below - 55, 0),
        "fit-and-flare": 20 + 0.4 * min(below, 60) + 0.12 * max(below - 60, 0),
        "wrap": 19 + 0.2 * below,
        "sheath": 20.5 - 0.02 * below,
        "shift": 22 + 0.06 * below,
    }[cuts] * cut.uniform(0.95, 1.06)
    fit = Fit(
        shoulder=18.4,
        armpit=19.8 if cuts == "shift" else 18.9,
        waist=waist,
        waist_at=seam,
        hip=waist,
        length=seam + 0.6,
    )
    whole = cuts in ("sheath", "shift")
    layers: list[Layer] = []
    if garment.sleeve != "strap":
        layers += bodice.inside_back(fit, garment.neckline, label=garment.neckline != "collar")
    else:
        layers += bodice.straps()
        low = both_sides(join(curve([(0, 12.6), (8, 12.0), (11, 11.2)]), corners((14, 17), (0, 19))))
        layers.append(Panel(low, cloth="inside", folds=Folds(wrinkle=0.2), lift=0))
    skirt = _dress_skirt(cuts, seam=seam, waist=waist, hem=hem, length=below)
    if whole:
        hip = waist + (3.6 if cuts == "sheath" else 1.2)
        fit = Fit(shoulder=18.4, armpit=fit.armpit, waist=waist, waist_at=seam, hip=hem, length=length)
        layers += [_whole_body(garment, fit, hip=hip)]
    else:
        layers += [*skirt, _dress_bodice(garment, fit)]
        if cuts == "wrap":
            layers += bottoms.belt(waist + 0.3, at=seam - 1.5, high=3.2, tied=True, cloth="plain")
        elif cut.random() < 0.35 and cuts != "empire":
            layers += bottoms.belt(waist + 0.4, at=seam - 1.2, cloth="leather" if cut.random() < 0.5 else "second")
    volume = float(cut.choice([0.0, 0.0, 0.5])) if garment.sleeve in SLEEVES else 0.0
    layers += sleeves(
        fit, garment, pose, cuff=8.6, finish="hem", angle=0.34 if garment.sleeve == "short" else 0.17, volume=volume
    )
    if garment.neckline == "collar":
        layers += bodice.placket(7.0, seam - 0.5, buttons=5)
        layers += bodice.shirt_collar(fit)
    elif garment.sleeve != "strap":
        layers += neck_finish(garment, fit, width=1.0, cloth="plain")
    return layers


def _dress_bodice(garment: Garment, fit: Fit) -> Panel:
    """The part of a dress above its seam."""
    strapped = garment.sleeve == "strap"
    outline = (
        bodice.strapped_outline(fit)
        if strapped
        else bodice.body_outline(fit, sleeve=garment.sleeve, neck=garment.neckline, hem=0.3)
    )
    lines = [Line(curve([(-fit.waist, fit.length - 0.3), (0, fit.length), (fit.waist, fit.length - 0.3)]), "edge")]
    if garment.silhouette == "wrap":
        deep = NECKS["v"][1]
        lines.append(Line(curve([(0, deep), (-fit.waist * 0.4, deep + 9), (-fit.waist * 0.8, fit.length)]), "edge"))
    elif garment.silhouette != "empire":
        for side in (-1, 1):
            lines.append(Line(curve([(side * 8.2, fit.length), (side * 8.9, 33), (side * 9.6, 27)]), "seam"))
    lines += armhole_stitches(fit, garment)
    return Panel(
        outline,
        folds=Folds(wrinkle=0.3, round=0.75, gather=0.0),
        lines=tuple(lines),
        creases=bodice.body_creases(fit, depth=0.32),
        lift=0.25,
    )


def _whole_body(garment: Garment, fit: Fit, *, hip: float) -> Panel:
    """A sheath or shift, cut without a waist seam."""
    side = curve(
        [
            (fit.armpit, fit.depth),
            (fit.waist, fit.waist_at),
            (hip, fit.waist_at + 19),
            ((hip + fit.hip) / 2 + 0.2, fit.waist_at + 34),
            (fit.hip, fit.length - 0.5),
        ]
        if fit.length > fit.waist_at + 40
        else [(fit.armpit, fit.depth), (fit.waist, fit.waist_at), (hip, fit.waist_at + 19), (fit.hip, fit.length - 0.5)]
    )
    top = (
        bodice.strapped_outline(Fit(armpit=fit.armpit, depth=fit.depth))[:37]
        if garment.sleeve == "strap"
        else join(bodice.neck_front(garment.neckline, fit), bodice.armhole(fit, garment.sleeve, garment.neckline))
    )
    if garment.sleeve == "strap":
        top = top[: int(np.argmin(np.hypot(*(top - np.array([fit.armpit, fit.depth])).T))) + 1]
    outline = both_sides(join(top, side, curve([(fit.hip, fit.length - 0.5), (0, fit.length)])))
    lines = [*armhole_stitches(fit, garment)]
    lines.append(
        Line(curve([(-fit.hip, fit.length - 3.2), (0, fit.length - 2.6), (fit.hip, fit.length - 3.2)]), "stitch")
    )
    for side_sign in (-1, 1):
        if garment.silhouette == "sheath":
            dart = [(side_sign * 9.4, 28.0), (side_sign * 7.6, fit.waist_at), (side_sign * 9.0, fit.waist_at + 14)]
        else:
            dart = [(side_sign * (fit.armpit - 0.4), 27.5), (side_sign * 10.5, 25.0)]
        lines.append(Line(curve(dart), "seam"))
    loose = garment.silhouette == "shift"
    folds = Folds(wrinkle=0.42, round=0.7, drape=0.3 if loose else 0.12, count=4, start=0.35)
    return Panel(outline, folds=folds, lines=tuple(lines), creases=bodice.body_creases(fit, depth=0.4), lift=0.25)


def _dress_skirt(cuts: str, *, seam: float, waist: float, hem: float, length: float) -> list[Layer]:
    """The skirt of a dress with a waist seam."""
    drape, count, gather = {
        "a-line": (0.5, 5.0, 0.15),
        "fit-and-flare": (1.05, 8.0, 0.75),
        "empire": (0.6, 7.0, 0.95),
        "wrap": (0.45, 5.0, 0.3),
    }.get(cuts, (0.1, 4.0, 0.0))
    full = {"fit-and-flare": 0.42, "empire": 0.3, "a-line": 0.3, "wrap": 0.38}.get(cuts, 0.5)
    hip_at = min(18.0, length * 0.4)
    hip = waist + (hem - waist) * max(full, 1.12 * hip_at / length)
    outline = bottoms.skirt_outline(
        seam - 0.6, waist=waist, hip=hip, hem=hem, length=length, waves=8 if drape > 0.9 else 4
    )
    folds = Folds(drape=drape, count=count, start=0.05, gather=gather, wrinkle=0.3, round=0.7, fan=0.85)
    layers: list[Layer] = [Panel(outline, folds=folds, lines=(bottoms.hem_line(outline, 1.6),), lift=0.2)]
    if cuts == "wrap":
        low = seam + length
        edge = curve(
            [
                (-waist * 0.55, seam),
                (-waist * 0.5, seam + length * 0.4),
                (-hem * 0.3, seam + length * 0.8),
                (-hem * 0.02, low - 0.6),
            ]
        )
        right = outline[np.flatnonzero(outline[:, 0] >= 0)]
        right = right[np.argsort(np.arctan2(right[:, 1] - (seam + length / 2), right[:, 0]))]
        over = join(edge, right[::-1])
        layers.append(Panel(over, folds=folds, lines=(Line(edge + np.array([0.9, 0]), "stitch"),), lift=0.6))
    return layers


def skirt(garment: Garment, cut: np.random.Generator, pose: np.random.Generator) -> list[Layer]:
    """A skirt with its waistband."""
    length, cuts = SKIRT_LENGTHS[garment.length] + cut.uniform(-2, 2), garment.silhouette
    waist = 17.2
    if cuts == "pencil":
        hip, hem, folds = 22.6, 20.2 - 0.02 * length, Folds(wrinkle=0.4, round=0.8, drape=0.1, count=3)
    elif cuts == "pleated":
        hem = 22 + 0.3 * length
        hip = waist + (hem - waist) * max(0.3, 1.15 * 17 / length)
        folds = Folds(wrinkle=0.12, round=0.6, pleats=int(cut.integers(13, 20)), fan=1.0)
    else:
        hem = 21 + 0.33 * length
        hip = waist + (hem - waist) * max(0.32, 1.2 * 17 / length)
        folds = Folds(wrinkle=0.3, round=0.65, drape=0.65, count=6, start=0.1, gather=0.25, fan=0.85)
    outline = bottoms.skirt_outline(
        3.0, waist=waist + 0.3, hip=hip, hem=hem, length=length, waves=0 if cuts == "pencil" else 6
    )
    lines = [bottoms.hem_line(outline, 1.8)]
    if cuts == "pencil":
        lines += [Line(curve([(side * 9, 3.5), (side * 9.6, 14)]), "seam") for side in (-1, 1)]
        lines.append(Line(corners((0.4, length * 0.74), (0.4, length + 3)), "edge"))
    layers: list[Layer] = [Panel(outline, folds=folds, lines=tuple(lines), lift=0.2)]
    if cuts == "a-line" and cut.random() < 0.3:
        layers += bottoms.patch_pocket(7.5, 10, width=11, height=13) + bottoms.patch_pocket(
            -18.5, 10, width=11, height=13
        )
        layers += [Button(0, 8.0 + 7.0 * row, 0.8, "horn") for row in range(int((length - 8) // 7))]
    lift = float(pose.uniform(-0.1, 0.1))
    return [
        *layers,
        *bottoms.waistband(waist, top=lift, high=3.6, loops=False, button="horn" if cut.random() < 0.4 else ""),
    ]
