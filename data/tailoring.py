"""What all garments with a bodice share: the product itself, its sleeves, neck finish and ribbed hem."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from data import bodice
from data.bodice import NECKS, SLEEVES, Fit, Sleeve
from data.cloth import Fabric
from data.outline import Crease, Folds, Layer, Line, Panel, both_sides, curve, join, mirror


@dataclass(frozen=True, slots=True)
class Garment:
    """One product: what it is, and what it is made of. An attribute that does not apply is empty.

    Args:
        category: A key of `data.sample.CATEGORIES`.
        silhouette: The cut.
        length: `mini`, `knee`, `midi` or `maxi`.
        sleeve: `sleeveless`, `strap`, `short`, `three-quarter` or `long`.
        neckline: `round`, `v`, `square`, `collar`, `halter`, `boat` or `turtleneck`.
        fabric: The cloth.
        seed: What makes this product differ from others with the same attributes.
    """

    category: str
    silhouette: str
    length: str
    sleeve: str
    neckline: str
    fabric: Fabric
    seed: tuple[int, ...]


def sleeves(
    fit: Fit,
    garment: Garment,
    pose: np.random.Generator,
    *,
    cuff: float,
    finish: str,
    angle: float,
    volume: float = 0.0,
) -> list[Layer]:
    """Both sleeves, each hanging its own way; none where the garment has none."""
    if garment.sleeve not in SLEEVES:
        return []
    layers: list[Layer] = []
    length = SLEEVES[garment.sleeve] - (5.5 if finish in ("rib", "cuff") else 0)
    wide = {"short": cuff + 3.5, "three-quarter": cuff + 1.0, "long": cuff}[garment.sleeve]
    lean = angle + pose.normal(0, 0.03)
    for side in (-1, 1):
        sleeve = Sleeve(
            length=length,
            angle=float(np.clip(lean + pose.normal(0, 0.025), 0.1, 0.9)),
            # A wider end than arm would flare like a bell.
            cuff=min(wide, float(np.interp(angle, [0.1, 0.9], [11.4, 17.5]))),
            bend=float(pose.uniform(-1.2, 1.2)) if garment.sleeve == "long" else 0.0,
            finish=finish,
            volume=volume,
        )
        layers += bodice.sleeve_layers(fit, sleeve, side=side)
    return layers


def neck_finish(garment: Garment, fit: Fit, *, width: float, cloth: str = "rib") -> list[Layer]:
    """The finish of the front neckline: a band, or the tube of a turtleneck."""
    if garment.neckline != "turtleneck":
        return [bodice.neck_band(garment.neckline, fit, width=width, cloth=cloth)]
    half = NECKS["turtleneck"][0] + fit.ease
    base = bodice.neck_front("turtleneck", fit)
    side = curve([(half + 0.3, 0.6), (half - 0.4, -3.5), (half - 0.2, -8.2)])
    tube = both_sides(join(base + np.array([0, 0.8]), side, curve([(half - 0.2, -8.2), (half * 0.5, -8.9), (0, -9.1)])))
    turned = both_sides(
        join(
            curve([(0, -2.6), (half * 0.5, -2.9), (half, -3.6)]),
            curve([(half + 0.2, -4), (half, -8.4), (half * 0.5, -9.2), (0, -9.4)]),
        )
    )
    folds = Folds(wrinkle=0.25, round=0.8)
    return [Panel(tube, cloth="rib", folds=folds, lift=0.3), Panel(turned, cloth="rib", folds=folds, lift=0.45)]


def armhole_stitches(fit: Fit, garment: Garment) -> list[Line]:
    """Stitches along open armholes."""
    if garment.sleeve != "sleeveless":
        return []
    hole = bodice.armhole(fit, "sleeveless", garment.neckline) - np.array([0.9, 0.0])
    return [Line(hole, "stitch"), Line(mirror(hole), "stitch")]


def ribbed_body(fit: Fit, *, neck: str, creases: float) -> list[Layer]:
    """A body that ends in a ribbed band, which draws it in."""
    above = replace(fit, hip=fit.hip - 1.0, length=fit.length - 6)
    outline = bodice.body_outline(above, sleeve="long", neck=neck, hem=0.4)
    low, half = above.length, fit.hip - 1.3
    band = both_sides(
        join(
            curve([(0, low - 0.4), (half * 0.6, low - 0.6), (above.hip + 0.1, low - 0.8)]),
            curve([(half, low + 3), (half - 0.2, low + 5.8)]),
            curve([(half - 0.2, low + 5.8), (half * 0.5, low + 6.2), (0, low + 6.3)]),
        )
    )
    tucks = tuple(
        Crease(x, low - 0.5, np.pi + 0.1 * x / fit.hip, 7, 0.4 if index % 2 else -0.35)
        for index, x in enumerate(np.linspace(-fit.hip * 0.85, fit.hip * 0.85, 9).tolist())
    )
    folds = Folds(wrinkle=0.5, round=0.75)
    return [
        Panel(outline, folds=folds, creases=(*bodice.body_creases(fit, depth=creases), *tucks), lift=0.2),
        Panel(band, cloth="rib", folds=Folds(wrinkle=0.1, round=0.75), lines=(Line(band[:19], "edge"),), lift=0.2),
    ]
