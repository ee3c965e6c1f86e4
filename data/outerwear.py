"""Jackets and coats. Centimetres, as in `data.outline`."""

from __future__ import annotations

import numpy as np

from data import bodice, bottoms
from data.bodice import Fit
from data.outline import Button, Folds, Layer, Line, Panel, corners, curve, strip
from data.tailoring import Garment, neck_finish, ribbed_body, sleeves


def coat(garment: Garment, cut: np.random.Generator, pose: np.random.Generator) -> list[Layer]:
    """A long coat with lapels, belted, single or double breasted."""
    length = 104 + cut.uniform(-10, 12)
    fit = Fit(shoulder=21, armpit=22.5, depth=23, waist=21.2, waist_at=42, hip=27.5, length=length)
    double, belted = cut.random() < 0.45, cut.random() < 0.4
    deep = 33.0
    edge_x = 6.5 if double else 2.2
    folds = Folds(wrinkle=0.4, round=0.75, drape=0.28, count=4, start=0.4)
    layers = [*bodice.inside_back(fit, "lapel", deep=deep)]
    layers += _open_fronts(fit, folds, deep=deep, edge=edge_x)
    y = 58.0
    for side in (-1, 1):
        flap = corners((side * 9.5, y), (side * 20.5, y - 1.2), (side * 20.8, y + 4.4), (side * 9.6, y + 5.6))
        layers.append(
            Panel(
                flap,
                folds=Folds(wrinkle=0.1, round=0.1),
                lines=(Line(flap[[3, 2]] - np.array([0, 0.7]), "stitch"),),
                lift=0.6,
            )
        )
    if belted:
        layers += bottoms.belt(fit.waist + 0.6, at=42, high=4.2, tied=True, cloth="plain")
    heights = (37, 52) if belted else (36, 47, 58) if double else (36, 48, 60)
    for height in heights:
        layers += [Button(x, height, 1.25, "horn") for x in ((-edge_x + 1.2, edge_x - 1.6) if double else (0.0,))]
    layers += sleeves(fit, garment, pose, cuff=12.5, finish="plain", angle=0.14)
    return [*layers, *bodice.lapels(deep, width=10.5, peak=2.5 if double else 0.0)]


def _open_fronts(fit: Fit, folds: Folds, *, deep: float, edge: float) -> list[Layer]:
    """A body whose right front lies over the left, with its lapel opening `deep` cm down and its edge at `edge` cm."""
    outline = bodice.body_outline(fit, sleeve="long", neck="lapel", hem=0.8)
    front = curve([(-edge, deep + 1), (-edge, fit.length * 0.7), (-edge + 0.6, fit.length)])
    lines = (
        Line(front, "edge"),
        Line(front + np.array([1.0, 0]), "stitch"),
        Line(curve([(-fit.hip, fit.length - 3.6), (0, fit.length - 2.8), (fit.hip, fit.length - 3.6)]), "stitch"),
    )
    dart = tuple(
        Line(curve([(side * 11, 25), (side * 10.2, fit.waist_at), (side * 11.2, fit.waist_at + 14)]), "seam")
        for side in (-1, 1)
    )
    return [Panel(outline, folds=folds, lines=(*lines, *dart), creases=bodice.body_creases(fit, depth=0.5), lift=0.2)]


def jacket(garment: Garment, cut: np.random.Generator, pose: np.random.Generator) -> list[Layer]:
    """A jacket: a blazer, a denim jacket or a zipped bomber, by its silhouette."""
    if garment.silhouette == "blazer":
        return _blazer(garment, cut, pose)
    width = 22.2 + cut.uniform(0, 1.5)
    fit = Fit(shoulder=20.8, armpit=width, depth=23, waist=width - 0.6, hip=width, length=61 + cut.uniform(-3, 3))
    inside = bodice.inside_back(fit, "collar", label=False)
    middle = corners((0, 6.5), (0, fit.length))
    if garment.silhouette == "bomber":
        zipper = Panel(
            strip(middle, 1.8), cloth="inside", folds=Folds(wrinkle=0, round=0), lines=(Line(middle, "zip"),), lift=0.3
        )
        slits: list[Layer] = []
        for side in (-1, 1):
            line = curve([(side * 11, 40), (side * 15.5, 51)])
            slits.append(
                Panel(
                    strip(line, 1.7),
                    cloth="plain",
                    folds=Folds(wrinkle=0, round=0.3),
                    lines=(Line(line, "seam"),),
                    lift=0.5,
                )
            )
        collar = Garment("jacket", "", "", "", "collar", garment.fabric, garment.seed)
        return [
            *inside,
            *ribbed_body(fit, neck="collar", creases=0.6),
            zipper,
            *slits,
            *sleeves(fit, garment, pose, cuff=11.0, finish="rib", angle=0.18),
            *neck_finish(collar, fit, width=3.4),
        ]
    outline = bodice.body_outline(fit, sleeve="long", neck="collar", hem=0.6)
    yoke = curve([(-fit.shoulder + 0.5, 17), (0, 17.6), (fit.shoulder - 0.5, 17)])
    seams = [Line(yoke, "seam"), Line(yoke + np.array([0, 0.6]), "stitch")]
    for side in (-1, 1):
        for top, low in ((5.0, 4.0), (13.5, 9.5)):
            line = curve([(side * top, 18), (side * low, fit.length - 5)])
            seams += [Line(line, "seam"), Line(line + np.array([0.6, 0]), "stitch")]
    hem = curve([(-fit.hip, fit.length - 5), (0, fit.length - 4.4), (fit.hip, fit.length - 5)])
    seams += [Line(hem, "edge"), Line(hem + np.array([0, 0.6]), "stitch")]
    body = Panel(
        outline,
        folds=Folds(wrinkle=0.5, round=0.6),
        lines=tuple(seams),
        creases=bodice.body_creases(fit, depth=0.5),
        lift=0.2,
    )
    pockets = bottoms.patch_pocket(6.2, 18.4, width=10, height=11, flap=True) + bottoms.patch_pocket(
        -16.2, 18.4, width=10, height=11, flap=True
    )
    arms = sleeves(fit, garment, pose, cuff=10.0, finish="cuff", angle=0.19)
    band = bodice.placket(6.8, fit.length - 0.2, buttons=6, kind="metal", width=2.0)
    return [*inside, body, *pockets, *arms, *band, *bodice.shirt_collar(fit, spread=1.2)]


def _blazer(garment: Garment, cut: np.random.Generator, pose: np.random.Generator) -> list[Layer]:
    """A tailored jacket."""
    fit = Fit(shoulder=20.4, armpit=21.6, depth=22.5, waist=19.2, waist_at=42, hip=23.8, length=70 + cut.uniform(-3, 5))
    layers = [*bodice.inside_back(fit, "lapel", deep=33.0)]
    layers += _open_fronts(fit, Folds(wrinkle=0.32, round=0.72), deep=33.0, edge=1.8)
    for side in (-1, 1):
        flap = corners((side * 8.5, 51), (side * 19.5, 50), (side * 19.6, 54.6), (side * 8.6, 55.6))
        layers.append(Panel(flap, folds=Folds(wrinkle=0.08, round=0.1), lift=0.6))
    welt = corners((8.6, 25.5), (17.2, 23.7), (17.4, 25.7), (8.8, 27.5))
    layers.append(Panel(welt, folds=Folds(wrinkle=0, round=0), lift=0.4))
    layers += [Button(0.0, height, 1.0, "horn") for height in (35.5, 45.5)[: int(cut.integers(1, 3))]]
    return [
        *layers,
        *sleeves(fit, garment, pose, cuff=11.2, finish="plain", angle=0.14),
        *bodice.lapels(33.0, width=8.6),
    ]
