"""The drawn sample catalog: reproducible, complete, and its labels can be seen in its photos."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data.catalog import CatalogError
from data.cloth import PATTERNS, Fabric
from data.garments import photograph
from data.sample import (
    CATEGORIES,
    COLOURS,
    COLUMNS,
    LENGTHS,
    NECKLINES,
    SILHOUETTES,
    SLEEVES,
    draft_product,
    write_sample,
)
from data.studio import BACKGROUNDS
from data.tailoring import Garment

COUNT = 14
RED = (0.74, 0.13, 0.16)
WHITE = (0.93, 0.925, 0.91)
Photo = NDArray[np.float64]


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small catalog, drawn once."""
    return write_sample(tmp_path_factory.mktemp("sample") / "shop", count=COUNT, seed=3)


@pytest.fixture
def t_shirt() -> Callable[[str], Photo]:
    """Draws a red T-shirt with white in its pattern: always the same cut and pose."""

    def draw(pattern: str) -> Photo:
        fabric = Fabric("cotton", pattern, RED, WHITE, WHITE, 4.0, 0.2, 30.0, RED)
        garment = Garment("t-shirt", "", "", "short", "round", fabric, (5, 5))
        photo = photograph(garment, background="white", detail=False, rng=np.random.default_rng(1))
        return np.asarray(photo, dtype=np.float64) / 255

    return draw


def chest(photo: Photo) -> Photo:
    """The middle of the garment, well inside its outline."""
    return photo[300:400, 190:290]


def test_same_seed_gives_the_same_bytes_and_a_larger_count_extends_it(sample: Path, tmp_path: Path) -> None:
    shorter = write_sample(tmp_path / "again", count=5, seed=3)
    assert rows_of(shorter) == rows_of(sample)[:5]
    for row in rows_of(shorter):
        assert (shorter.parent / row["image"]).read_bytes() == (sample.parent / row["image"]).read_bytes()


def test_another_seed_gives_another_catalog() -> None:
    # The first categories are dealt in turn, whatever the seed: what differs is the cloth.
    assert [draft_product(3, number).garment.fabric for number in range(5)] != [
        draft_product(4, number).garment.fabric for number in range(5)
    ]


def test_count_is_the_number_of_photos(sample: Path) -> None:
    rows = rows_of(sample)
    assert len(rows) == COUNT
    assert sorted(path.name for path in (sample.parent / "images").iterdir()) == sorted(
        Path(row["image"]).name for row in rows
    )
    assert sorted(path.name for path in sample.parent.iterdir()) == ["images", "items.csv"]


def test_columns_and_labels(sample: Path) -> None:
    names = {
        "category": set(CATEGORIES),
        "colour": set(COLOURS),
        "pattern": set(PATTERNS),
        "background": set(BACKGROUNDS),
        "silhouette": {"", *(name for cuts in SILHOUETTES.values() for name in cuts)},
        "length": {"", *(name for lengths in LENGTHS.values() for name in lengths)},
        "sleeve": {"", *(name for sleeves in SLEEVES.values() for name in sleeves)},
        "neckline": {"", *(name for necks in NECKLINES.values() for name in necks)},
    }
    for row in rows_of(sample):
        assert tuple(row) == COLUMNS
        assert row["image"] == f"images/{row['item_id']}.jpg"
        for column, allowed in names.items():
            assert row[column] in allowed, (column, row)


def test_attributes_that_do_not_apply_are_empty() -> None:
    for number in range(60):
        garment = draft_product(0, number).garment
        assert bool(garment.length) == (garment.category in ("dress", "skirt"))
        assert not (garment.category in ("trousers", "jeans", "shorts", "skirt") and garment.sleeve)


def test_photos_of_a_product_share_its_labels_but_not_their_pixels(sample: Path) -> None:
    products: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows_of(sample):
        products[row["product_id"]].append(row)
    whole = list(products.values())[:-1]
    assert all(2 <= len(photos) <= 4 for photos in whole)
    for photos in whole:
        own = ("item_id", "image", "background")
        assert len({tuple(value for key, value in row.items() if key not in own) for row in photos}) == 1
        assert len({(sample.parent / row["image"]).read_bytes() for row in photos}) == len(photos)


def test_photos_are_portraits_with_something_on_them(sample: Path) -> None:
    for row in rows_of(sample):
        with Image.open(sample.parent / row["image"]) as photo:
            assert (photo.format, photo.mode, photo.size) == ("JPEG", "RGB", (480, 640))
            pixels = np.asarray(photo, dtype=np.float64)
        corner, middle = pixels[:20, :20].mean(axis=(0, 1)), pixels[250:390, 180:300]
        assert max(np.abs(middle.mean(axis=(0, 1)) - corner).max(), middle.std()) > 8


def test_sixty_photos_hold_every_category() -> None:
    # 60 photos are 15 products or more, each of at most 4.
    assert {draft_product(0, number).garment.category for number in range(15)} == set(CATEGORIES)


def test_a_red_garment_is_red(t_shirt: Callable[[str], Photo]) -> None:
    mean = chest(t_shirt("plain")).mean(axis=(0, 1))
    assert np.allclose(mean, RED, atol=0.1)


def test_stripes_vary_across_themselves_only(t_shirt: Callable[[str], Photo]) -> None:
    for pattern, along in (("horizontal stripes", 1), ("vertical stripes", 0)):
        green = chest(t_shirt(pattern))[..., 1]
        across = green.mean(axis=along).std()
        assert across > 3 * green.mean(axis=1 - along).std()
        assert across > 5 * chest(t_shirt("plain"))[..., 1].mean(axis=along).std()


@pytest.mark.parametrize("pattern", [name for name in PATTERNS if name != "plain"])
def test_every_pattern_is_seen(t_shirt: Callable[[str], Photo], pattern: str) -> None:
    # White on red: the pattern is in the green channel, where a plain garment has folds only.
    assert chest(t_shirt(pattern))[..., 1].std() > 4 * chest(t_shirt("plain"))[..., 1].std()


def test_length_and_sleeves_are_seen() -> None:
    fabric = Fabric("crepe", "plain", RED, WHITE, WHITE, 4.0, 0.2, 30.0, RED)
    dress = Garment("dress", "a-line", "mini", "sleeveless", "round", fabric, (5, 6))

    def slenderness(garment: Garment) -> float:
        photo = photograph(garment, background="white", detail=False, rng=np.random.default_rng(1))
        pixels = np.asarray(photo, dtype=np.float64) / 255
        rows, columns = np.nonzero(pixels[..., 0] - pixels[..., 1] > 0.25)
        return float(np.ptp(rows) / np.ptp(columns))

    assert slenderness(replace(dress, length="maxi")) > 1.2 * slenderness(dress)
    narrow = replace(dress, silhouette="sheath")
    assert slenderness(narrow) > 1.1 * slenderness(replace(narrow, sleeve="long"))


@pytest.mark.parametrize("category", list(CATEGORIES))
def test_every_combination_can_be_drawn(category: str) -> None:
    numbers = [number for number in range(90) if draft_product(1, number).garment.category == category][:2]
    assert numbers
    for number in numbers:
        garment = draft_product(1, number).garment
        photo = photograph(garment, background="grey", detail=True, rng=np.random.default_rng(number))
        assert np.asarray(photo).std() > 4


@pytest.mark.parametrize(
    ("count", "seed", "message"),
    [(0, 0, "at least 1 photo; got a count of 0"), (-3, 0, "got a count of -3"), (4, -1, "0 or more; got -1")],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, count: int, seed: int, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        write_sample(tmp_path / "shop", count=count, seed=seed)
    assert not (tmp_path / "shop").exists()


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(CatalogError, match=r"is not empty\. Choose another folder or empty it"):
        write_sample(tmp_path, count=2, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "shop"
    place.write_text("")
    with pytest.raises(CatalogError, match=r"is a file\. Choose another folder"):
        write_sample(place, count=2, seed=0)


def test_a_killed_run_has_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("data.sample.take", fail)
    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path / "shop", count=2, seed=0)
    assert not list((tmp_path / "shop").glob("items*"))
