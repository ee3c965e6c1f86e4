"""T-shirts, shirts, sweaters and hoodies. Centimetres, as in `data.outline`."""

from __future__ import annotations

import numpy as np

from data import bodice, bottoms
from data.bodice import Fit
from data.outline import Folds, Layer, Line, Panel, both_sides, corners, curve, mirror, strip
from data.tailoring import Garment, armhole_stitches, neck_finish, ribbed_body, sleeves


def t_shirt(garment: Garment, cut: np.random.Generator, pose: np.random.Generator) -> list[Layer]:
    """A jersey top with a ribbed neck."""
    width = 20.5 + cut.uniform(0, 2.5)
    fit = Fit(shoulder=19.6, armpit=width, waist=width - 1.2, hip=width + 0.4, length=62 + cut.uniform(-4, 4))
    outline = bodice.body_outline(fit, sleeve=garment.sleeve, neck=garment.neckline, hem=0.7)
    hem = curve([(-fit.hip, fit.length - 2.9), (0, fit.length - 2.3), (fit.hip, fit.length - 2.9)])
    lines = (Line(hem, "stitch"), *armhole_stitches(fit, garment))
    folds = Folds(wrinkle=0.5, round=0.62, drape=0.1, count=4)
    body = Panel(outline, folds=folds, lines=lines, creases=bodice.body_creases(fit, depth=0.5), lift=0.2)
    pocket = (
        bottoms.patch_pocket(5.2, 19.5, width=8.5, height=10) if cut.random() < 0.25 and garment.neckline != "v" else []
    )
    angle = 0.55 if garment.sleeve == "short" else 0.2
    return [
        *bodice.inside_back(fit, garment.neckline),
        body,
        *pocket,
        *sleeves(fit, garment, pose, cuff=12.0 if garment.sleeve == "short" else 8.6, finish="hem", angle=angle),
        *neck_finish(garment, fit, width=2.0),
    ]


def shirt(garment: Garment, cut: np.random.Generator, pose: np.random.Generator) -> list[Layer]:
    """A shirt or blouse with collar, front band and buttons."""
    width = 20.5 + cut.uniform(0, 2.0)
    fit = Fit(shoulder=19.8, armpit=width, waist=width - 1.6, hip=width + 0.8, length=68 + cut.uniform(-3, 4))
    outline = bodice.body_outline(fit, sleeve=garment.sleeve, neck="collar", hem=5.5)
    hem = curve(
        [
            (-fit.hip, fit.length - 6.6),
            (-fit.hip * 0.5, fit.length - 2.6),
            (0, fit.length - 1.1),
            (fit.hip * 0.5, fit.length - 2.6),
            (fit.hip, fit.length - 6.6),
        ]
    )
    yoke = curve([(7.4, 2.6), (13, 4.6), (fit.shoulder - 0.6, 6.4)])
    lines = (Line(hem, "stitch"), Line(yoke, "seam"), Line(mirror(yoke), "seam"), *armhole_stitches(fit, garment))
    folds = Folds(wrinkle=0.5, round=0.62, drape=0.15, count=4)
    body = Panel(outline, folds=folds, lines=lines, creases=bodice.body_creases(fit, depth=0.5), lift=0.2)
    pockets: list[Layer] = bottoms.patch_pocket(4.8, 20, width=9.5, height=11) if cut.random() < 0.6 else []
    finish = "cuff" if garment.sleeve == "long" else "hem"
    return [
        *bodice.inside_back(fit, "collar", label=False),
        body,
        *pockets,
        *sleeves(fit, garment, pose, cuff=9.2, finish=finish, angle=0.2 if garment.sleeve != "short" else 0.45),
        *bodice.placket(6.8, fit.length - 0.4, buttons=7, kind="horn" if cut.random() < 0.3 else "pearl"),
        *bodice.shirt_collar(fit, spread=float(cut.uniform(-0.8, 1.2))),
    ]


def sweater(garment: Garment, cut: np.random.Generator, pose: np.random.Generator) -> list[Layer]:
    """A knitted pullover."""
    width = 21.2 + cut.uniform(0, 2.5)
    fit = Fit(
        shoulder=20.2, armpit=width, depth=22.5, waist=width - 0.2, hip=width + 0.2, length=61 + cut.uniform(-3, 4)
    )
    return [
        *bodice.inside_back(fit, garment.neckline, deep=-4.0 if garment.neckline == "turtleneck" else None),
        *ribbed_body(fit, neck=garment.neckline, creases=0.6),
        *sleeves(fit, garment, pose, cuff=10.0, finish="rib", angle=0.19),
        *neck_finish(garment, fit, width=2.6),
    ]


def hoodie(garment: Garment, cut: np.random.Generator, pose: np.random.Generator) -> list[Layer]:
    """A hooded sweatshirt with a pouch pocket, or a zip."""
    width = 22.6 + cut.uniform(0, 2.0)
    fit = Fit(shoulder=21, armpit=width, depth=23, waist=width, hip=width + 0.3, length=64 + cut.uniform(-2, 4))
    behind, before = bodice.hood()
    zipped, low = cut.random() < 0.4, fit.length - 6
    pouch = both_sides(corners((0, low - 21), (8.8, low - 21), (15, low - 10.5), (15, low - 0.6), (0, low - 0.4)))
    rows = tuple(Line(curve([(side * 8.1, low - 20.6), (side * 14.2, low - 10.2)]), "stitch") for side in (-1, 1))
    front: list[Layer] = [
        Panel(
            pouch,
            folds=Folds(wrinkle=0.3, round=0.1),
            lines=(*rows, Line(corners((-8.8, low - 20.3), (8.8, low - 20.3)), "stitch")),
            lift=0.5,
        )
    ]
    if zipped:
        zipper = corners((0, 9.5), (0, fit.length))
        front.append(
            Panel(
                strip(zipper, 1.9),
                cloth="inside",
                folds=Folds(wrinkle=0, round=0),
                lines=(Line(zipper, "zip"),),
                lift=0.3,
            )
        )
        front += [Panel(corners((-0.45, 11), (0.45, 11), (0.55, 15), (-0.55, 15)), cloth="label", lift=0.5)]
    return [
        *behind,
        *ribbed_body(fit, neck="hood", creases=0.65),
        *front,
        *sleeves(fit, garment, pose, cuff=11.0, finish="rib", angle=0.2),
        *neck_finish(
            Garment("hoodie", "", "", "", "hood", garment.fabric, garment.seed), fit, width=1.2, cloth="plain"
        ),
        *before,
    ]
