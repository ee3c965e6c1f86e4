"""The sample catalog: drawn products, so that the demo and the tests need no download and nobody's photos."""

from __future__ import annotations

import csv
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.catalog import CatalogError
from data.cloth import Colour, Fabric
from data.garments import photograph
from data.tailoring import Garment

COLUMNS = (
    "item_id",
    "image",
    "product_id",
    "category",
    "colour",
    "pattern",
    "silhouette",
    "length",
    "sleeve",
    "neckline",
    "background",
)
COLOURS: dict[str, Colour] = {
    "black": (0.15, 0.15, 0.16),
    "white": (0.93, 0.925, 0.91),
    "grey": (0.56, 0.57, 0.59),
    "beige": (0.82, 0.73, 0.61),
    "brown": (0.43, 0.29, 0.2),
    "navy": (0.16, 0.2, 0.32),
    "blue": (0.38, 0.52, 0.7),
    "green": (0.25, 0.43, 0.31),
    "red": (0.74, 0.13, 0.16),
    "burgundy": (0.42, 0.1, 0.17),
    "pink": (0.86, 0.66, 0.68),
    "yellow": (0.88, 0.73, 0.36),
    "purple": (0.48, 0.38, 0.57),
}
# How common each colour is in shops, in the order above.
COLOUR_WEIGHTS = (15, 11, 8, 8, 5, 11, 10, 7, 8, 4, 6, 4, 3)
DENIM: dict[str, Colour] = {
    "navy": (0.17, 0.21, 0.32),
    "blue": (0.4, 0.5, 0.63),
    "black": (0.16, 0.16, 0.18),
    "grey": (0.5, 0.52, 0.55),
}
# One deck of every category comes before chance has its say, so that each is in any catalog of 60 photos or more.
CATEGORIES: dict[str, int] = {
    "dress": 26,
    "t-shirt": 14,
    "shirt": 12,
    "trousers": 9,
    "skirt": 10,
    "sweater": 8,
    "jeans": 8,
    "jacket": 8,
    "hoodie": 6,
    "coat": 6,
    "shorts": 5,
}
PATTERN_WEIGHTS: dict[str, dict[str, int]] = {
    "dress": {
        "plain": 40,
        "floral": 24,
        "dots": 13,
        "vertical stripes": 6,
        "horizontal stripes": 6,
        "checks": 5,
        "colour block": 6,
    },
    "t-shirt": {"plain": 52, "horizontal stripes": 26, "colour block": 10, "dots": 6, "floral": 6},
    "shirt": {"plain": 42, "vertical stripes": 22, "checks": 20, "dots": 8, "floral": 8},
    "sweater": {"plain": 58, "horizontal stripes": 26, "colour block": 16},
    "hoodie": {"plain": 78, "colour block": 22},
    "trousers": {"plain": 72, "checks": 16, "vertical stripes": 12},
    "jeans": {"plain": 1},
    "shorts": {"plain": 70, "checks": 14, "vertical stripes": 8, "floral": 8},
    "skirt": {"plain": 52, "checks": 16, "floral": 16, "dots": 12, "vertical stripes": 4},
    "jacket": {"plain": 86, "checks": 14},
    "coat": {"plain": 78, "checks": 22},
}
SILHOUETTES: dict[str, dict[str, int]] = {
    "dress": {"a-line": 26, "fit-and-flare": 22, "sheath": 18, "shift": 14, "wrap": 11, "empire": 9},
    "trousers": {"straight": 42, "slim": 32, "wide": 26},
    "jeans": {"slim": 42, "straight": 40, "wide": 18},
    "skirt": {"a-line": 40, "pencil": 32, "pleated": 28},
    "jacket": {"blazer": 40, "denim": 30, "bomber": 30},
}
LENGTHS: dict[str, dict[str, int]] = {
    "dress": {"mini": 22, "knee": 36, "midi": 27, "maxi": 15},
    "skirt": {"mini": 26, "knee": 34, "midi": 30, "maxi": 10},
}
SLEEVES: dict[str, dict[str, int]] = {
    "dress": {"sleeveless": 36, "short": 26, "long": 15, "three-quarter": 11, "strap": 12},
    "t-shirt": {"short": 66, "long": 14, "sleeveless": 12, "three-quarter": 8},
    "shirt": {"long": 66, "short": 24, "three-quarter": 10},
    "sweater": {"long": 1},
    "hoodie": {"long": 1},
    "jacket": {"long": 1},
    "coat": {"long": 1},
}
NECKLINES: dict[str, dict[str, int]] = {
    "dress": {"round": 34, "v": 22, "square": 14, "boat": 12, "halter": 7, "collar": 11},
    "t-shirt": {"round": 62, "v": 28, "boat": 10},
    "shirt": {"collar": 1},
    "sweater": {"round": 46, "turtleneck": 28, "v": 26},
    "jacket": {"collar": 1},
    "coat": {"collar": 1},
}
BACKGROUND_WEIGHTS = {"white": 52, "grey": 22, "warm": 10, "wood": 8, "coloured": 8}
FABRICS: dict[str, dict[str, int]] = {
    "dress": {"crepe": 50, "cotton": 30, "satin": 20},
    "t-shirt": {"cotton": 1},
    "shirt": {"cotton": 70, "satin": 15, "crepe": 15},
    "sweater": {"knit": 1},
    "hoodie": {"cotton": 1},
    "trousers": {"crepe": 50, "cotton": 30, "wool": 20},
    "jeans": {"denim": 1},
    "shorts": {"cotton": 70, "denim": 30},
    "skirt": {"crepe": 50, "cotton": 30, "satin": 20},
    "jacket": {"wool": 1},
    "coat": {"wool": 1},
}


@dataclass(frozen=True, slots=True)
class Product:
    """One product of the sample: its labels, how to draw it, and how many photos it has."""

    product_id: str
    colour: str
    garment: Garment
    photos: int


@dataclass(frozen=True, slots=True)
class Shot:
    """One photo to take: of which product, and which of its photos, counted from 0."""

    product: Product
    photo: int
    seed: tuple[int, ...]
    background: str
    detail: bool

    @property
    def item_id(self) -> str:
        """Name of the photo, unique in its catalog."""
        return f"{self.product.product_id}-{self.photo + 1}"

    def row(self) -> dict[str, str]:
        """The photo's row of `items.csv`."""
        garment = self.product.garment
        values = (
            self.item_id,
            f"images/{self.item_id}.jpg",
            self.product.product_id,
            garment.category,
            self.product.colour,
            garment.fabric.pattern,
            garment.silhouette,
            garment.length,
            garment.sleeve,
            garment.neckline,
            self.background,
        )
        return dict(zip(COLUMNS, values, strict=True))


def write_sample(out: Path, *, count: int, seed: int, workers: int | None = None) -> Path:
    """Draws a sample catalog: a folder of photos and an `items.csv`.

    The same seed gives the same bytes with the same Pillow, however many workers draw; a larger count extends a
    smaller one.

    Args:
        out: Folder to write; made if missing, else it must be empty.
        count: Number of photos, 1 or more. A product has 2 to 4 of them.
        seed: 0 or more.
        workers: Processes that draw; None for one a core, at most 8.

    Returns:
        The `items.csv`, written last: a folder without it is not complete.

    Raises:
        CatalogError: `count` or `seed` is out of range, or `out` is not an empty folder.
    """
    if count < 1:
        raise CatalogError(f"A sample catalog has at least 1 photo; got a count of {count}. Ask for 1 or more.")
    if seed < 0:
        raise CatalogError(f"The seed of a sample catalog is 0 or more; got {seed}.")
    if out.exists() and not out.is_dir():
        raise CatalogError(f"A sample catalog is written to a folder; {out} is a file. Choose another folder.")
    if out.exists() and any(out.iterdir()):
        raise CatalogError(
            f"A sample catalog is written to an empty folder; {out} is not empty. Choose another folder or empty it."
        )
    images = out / "images"
    images.mkdir(parents=True)
    shots = list(_shots(count, seed))
    _take(shots, images, workers=workers)
    table, part = out / "items.csv", out / "items.csv.part"
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(shot.row() for shot in shots)
    part.replace(table)
    return table


def _take(shots: list[Shot], images: Path, *, workers: int | None) -> None:
    """Draws all photos, in several processes where there is enough to draw."""
    chosen = min(os.cpu_count() or 1, 8) if workers is None else workers
    # A new process takes about as long to start as five photos to draw.
    if chosen < 2 or len(shots) < 32:
        for shot in shots:
            take(shot, images)
        return
    with ProcessPoolExecutor(chosen, mp_context=multiprocessing.get_context("spawn")) as pool:
        # The list is what raises a worker's error here.
        list(pool.map(take, shots, [images] * len(shots), chunksize=8))


def take(shot: Shot, images: Path) -> None:
    """Draws one photo into a folder."""
    rng = np.random.default_rng(shot.seed)
    photo = photograph(shot.product.garment, background=shot.background, detail=shot.detail, rng=rng)
    photo.save(images / f"{shot.item_id}.jpg", quality=90, subsampling=0)


def _shots(count: int, seed: int) -> Iterator[Shot]:
    """The first `count` photos of the endless catalog that a seed stands for."""
    taken, number = 0, 0
    while taken < count:
        product = draft_product(seed, number)
        for photo in range(min(product.photos, count - taken)):
            where = (seed, number, 10 + photo)
            # Not 0: numpy seeds alike with and without a trailing zero, and this would be the stream of the photo.
            rng = np.random.default_rng((*where, 1))
            background = _pick(BACKGROUND_WEIGHTS, rng)
            yield Shot(product, photo, where, background, photo > 0 and rng.random() < 0.16)
        taken += product.photos
        number += 1


def _pick(weights: dict[str, int], rng: np.random.Generator) -> str:
    """One name, by weight."""
    shares = np.array(list(weights.values()), dtype=np.float64)
    return list(weights)[int(rng.choice(len(shares), p=shares / shares.sum()))]


def draft_product(seed: int, number: int) -> Product:
    """The `number`-th product, counted from 0, of the catalog of a seed."""
    rng = np.random.default_rng((seed, number, 0))
    deck = list(CATEGORIES)
    # Eleven categories of at most four photos each are through after 44 photos.
    category = deck[(number * 4) % len(deck)] if number < len(deck) else _pick(CATEGORIES, rng)
    silhouette = _pick(SILHOUETTES[category], rng) if category in SILHOUETTES else ""
    length = _pick(LENGTHS[category], rng) if category in LENGTHS else ""
    sleeve = _pick(SLEEVES[category], rng) if category in SLEEVES else ""
    neckline = _pick(NECKLINES[category], rng) if category in NECKLINES else ""
    if silhouette == "wrap":
        sleeve, neckline = ("short" if sleeve == "strap" else sleeve), "v"
    elif sleeve == "strap":
        neckline = "square"
    elif neckline == "halter":
        sleeve = "sleeveless"
    kind = _pick(FABRICS[category], rng)
    kind = "denim" if silhouette == "denim" else "cotton" if silhouette == "bomber" else kind
    pattern = "plain" if kind == "denim" else _pick(PATTERN_WEIGHTS[category], rng)
    colour, fabric = _dye(kind, pattern, category, rng)
    garment = Garment(category, silhouette, length, sleeve, neckline, fabric, (seed, number))
    return Product(f"p{number:05d}", colour, garment, int(rng.choice([2, 3, 4], p=[0.35, 0.4, 0.25])))


def _dye(kind: str, pattern: str, category: str, rng: np.random.Generator) -> tuple[str, Fabric]:
    """A colour's name and the cloth dyed with it."""
    shares = np.array(COLOUR_WEIGHTS, dtype=np.float64)
    colour = str(rng.choice(list(COLOURS), p=shares / shares.sum()))
    if kind == "denim":
        colour = _pick({"navy": 30, "blue": 42, "black": 16, "grey": 12}, rng)
    main = _vary(DENIM[colour] if kind == "denim" else COLOURS[colour], rng)
    bright = sum(main) / 3
    partners = [name for name in COLOURS if abs(sum(COLOURS[name]) / 3 - bright) > 0.28]
    plain_partners = [name for name in ("white", "beige", "black", "navy") if name in partners]
    # Stripes, dots and checks are mostly on or of white, cream, black or navy; flowers have any colour.
    chosen = plain_partners if pattern != "floral" and plain_partners and rng.random() < 0.75 else partners
    second = _vary(COLOURS[str(rng.choice(chosen))], rng)
    third = _vary(COLOURS[str(rng.choice(["pink", "red", "blue", "yellow", "beige", "green", "grey"]))], rng)
    repeat = {
        "vertical stripes": rng.uniform(1.8, 4.2),
        "horizontal stripes": rng.uniform(2.6, 6.0),
        "checks": rng.uniform(2.4, 5.5),
        "dots": rng.uniform(2.8, 5.5),
        "floral": rng.uniform(4.5, 8.0),
    }.get(pattern, 4.0)
    middle = {"dress": 39.5, "t-shirt": 27.0, "sweater": 30.0, "hoodie": 27.0}.get(category, 30.0)
    thread: Colour = (0.78, 0.55, 0.3) if kind == "denim" else _thread(main)
    variant = float(rng.random())
    return colour, Fabric(kind, pattern, main, second, third, float(repeat), variant, middle, thread)


def _thread(main: Colour) -> Colour:
    """Thread for stitches: a little darker than a light cloth, a little lighter than a dark one."""
    change = 0.8 if sum(main) > 0.9 else 1.5
    return main[0] * change, main[1] * change, main[2] * change


def _vary(colour: Colour, rng: np.random.Generator) -> Colour:
    """A dye lot: the colour somewhat lighter or darker and warmer or cooler."""
    level, tint = rng.normal(1, 0.07), rng.normal(0, 0.008, 3)
    red, green, blue = (
        float(np.clip(channel * level + shift, 0.05, 0.95)) for channel, shift in zip(colour, tint, strict=True)
    )
    return red, green, blue
