"""Draws one garment as a shop would photograph it: its pieces from its attributes, and the photo of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from data import bottoms, gowns, outerwear, tops
from data.backdrop import backdrop
from data.outline import Layer
from data.studio import HEIGHT, WIDTH, Picture, camera_for, light_for
from data.tailoring import Garment


def photograph(garment: Garment, *, background: str, detail: bool, rng: np.random.Generator) -> Image.Image:
    """A photo of a garment.

    Args:
        garment: What is drawn; its cut depends on its own seed alone.
        background: One of `data.studio.BACKGROUNDS`.
        detail: Whether the camera comes close.
        rng: Pose, light and accidents of this photo.

    Returns:
        An RGB image, `WIDTH` x `HEIGHT` pixels.
    """
    cut = np.random.default_rng((*garment.seed, 1))
    layers = PATTERN_MAKERS[garment.category](garment, cut, rng)
    camera, light = camera_for(layers, rng, detail=detail), light_for(rng)
    ground = backdrop(background, width=WIDTH, height=HEIGHT, rng=rng)
    picture = Picture(ground, camera=camera, light=light, fabric=garment.fabric, print_seed=(*garment.seed, 2), rng=rng)
    picture.drop_shadow(layers, strength=0.24 if background == "white" else 0.4)
    picture.paint(layers)
    return picture.developed()


def _trousers(garment: Garment, cut: np.random.Generator, pose: np.random.Generator) -> list[Layer]:
    """Trousers and jeans."""
    hem, knee = {"slim": (13.0, 16.5), "straight": (19.5, 20.0), "wide": (30.0, 26.0)}[garment.silhouette]
    hem *= cut.uniform(0.95, 1.06)
    spread = {"slim": 10.6, "straight": 12.6, "wide": 17.0}[garment.silhouette] + pose.uniform(-0.5, 1.5)
    length = 102 + cut.uniform(-5, 3)
    return bottoms.trousers(kind=garment.category, hem=hem, knee=knee, spread=spread, length=length)


def _shorts(garment: Garment, cut: np.random.Generator, pose: np.random.Generator) -> list[Layer]:
    """Shorts."""
    length = 43 + cut.uniform(-3, 12)
    hem = 25.5 + cut.uniform(-1, 3)
    kind = "jeans" if garment.fabric.kind == "denim" else "shorts"
    return bottoms.trousers(kind=kind, hem=hem, knee=0, spread=14.6 + pose.uniform(0, 0.8), length=length)


PATTERN_MAKERS: dict[str, Callable[[Garment, np.random.Generator, np.random.Generator], list[Layer]]] = {
    "dress": gowns.dress,
    "t-shirt": tops.t_shirt,
    "shirt": tops.shirt,
    "sweater": tops.sweater,
    "hoodie": tops.hoodie,
    "trousers": _trousers,
    "jeans": _trousers,
    "shorts": _shorts,
    "skirt": gowns.skirt,
    "jacket": outerwear.jacket,
    "coat": outerwear.coat,
}
