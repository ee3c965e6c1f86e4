"""audit from the outside: what it prints and writes, how it ends, and that it tells a planted shortcut."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.sheets import draw_cases
from data.alterations import CONDITIONS, TAGGED
from data.catalog import CatalogItem
from indexer.encoders import EMBEDDED
from service.audit_photos import Alterer
from tests.service.test_report import Page
from tests.test_cli import Done, modiste
from tests.test_docs import documented, keys_of
from tests.write_cli_help import PAGE

COLOURS = {"blue": (40, 60, 190), "green": (40, 150, 60), "red": (200, 40, 50)}


def draw(folder: Path, count: int, *, seed: int) -> Path:
    """Grey garments, which are all alike, before a colour each; a folder a colour."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.array(colour) + rng.normal(0, 8, (96, 72, 3))
            left, top = rng.integers(16, 22), rng.integers(20, 28)
            pixels[top : top + 46, left : left + 34] = 150 + rng.normal(0, 8, (46, 34, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{seed}-{number}.png")
    return folder


@dataclass(frozen=True)
class Shop:
    """A gallery with a linear head whose labels the background tells, and photos new to it."""

    gallery: Path
    train: Path
    queries: Path

    def audit(self, *arguments: object, queries: Path | None = None, targets: str = "label") -> Done:
        place = ("--gallery", self.gallery, "--targets", targets, "--queries", queries or self.queries)
        return modiste("audit", *place, *arguments)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    train, queries = draw(folder / "train", 8, seed=1), draw(folder / "queries", 6, seed=2)
    gallery = folder / "gallery"
    done = modiste("index", train, "--gallery", gallery, "--encoder", EMBEDDED, "--pooling", "mean")
    assert done.status == 0, done.err
    assert modiste("fit", "--gallery", gallery, "--targets", "label", "--head", "linear").status == 0
    return Shop(gallery, train, queries)


@pytest.fixture(scope="module")
def answer(shop: Shop) -> Any:
    return shop.audit("--json").json


def test_one_command_answers_the_question(shop: Shop, answer: Any, tmp_path: Path) -> None:
    report, sheet = tmp_path / "new" / "out.html", tmp_path / "other" / "out.png"
    done = shop.audit("--report", report, "--sheet", sheet)
    assert done.status == 0, done.err
    assert "Altering 18 photos in 7 ways, and encoding them." in done.err
    lines = done.out.splitlines()
    assert lines[0].split() == [
        "neighbours",
        "photos",
        "overlap",
        "at",
        "10",
        "rank-biased",
        "overlap",
        "first",
        "kept",
    ]
    assert [line.split()[0] for line in lines[1:8]] == list(CONDITIONS)
    assert lines[9].startswith("label (linear)")
    figures = answer["targets"][0]["heads"]["linear"]["conditions"]
    # The same photos and seed give the same audit.
    assert [one["verdict"] for one in figures] == lines[17:24]
    told = next(line for line in lines if line.startswith("The background tells the label: "))
    assert "33.3 % are “blue”, the commonest label" in told
    assert lines[-2:] == [f"The report is {report}.", f"The sheet is {sheet}."]
    page = Page(report.read_text())
    assert page.texts("h1") == ["Shortcut audit of gallery"]
    assert page.texts("p", "summary") == [told]
    with Image.open(sheet) as drawn:
        assert drawn.format == "PNG"
        assert drawn.width > 1000


def test_the_shortcut_is_in_the_figures(answer: Any) -> None:
    found = {one["condition"]: one for one in answer["targets"][0]["heads"]["linear"]["conditions"]}
    assert found["flipped"]["accuracy_unaltered"] == 1
    assert found["background-only"]["told_by"] == "background"
    assert found["background-only"]["accuracy"] > 0.9
    assert found["background-replaced"]["accuracy"] < 0.2
    assert found["background-replaced"]["is_shown"]
    assert found["flipped"]["accuracy"] == 1
    near = {one["condition"]: one for one in answer["targets"][0]["neighbours"]}
    assert near["background-replaced"]["hit_rate_at_1"] < 0.2
    assert near["flipped"]["hit_rate_at_1"] > 0.9


def test_every_key_of_an_audit_is_on_the_page(answer: Any) -> None:
    page = PAGE.read_text("utf-8")
    assert keys_of({**answer, "targets": []}) == documented(page, "modiste audit")
    described = page.split("# modiste audit\n")[1].split("\n## ")[0]
    figures = answer["targets"][0]
    head = figures["heads"]["linear"]
    conditions = head["conditions"]
    names = {*figures, *head, *figures["neighbours"][0], *conditions[0]["by_label"][0], *conditions[2]["cases"][0]}
    for one in conditions:
        names |= {name for name in one if not name.startswith(("accuracy_", "probability_"))}
    for name in names | {"accuracy_low", "accuracy_high"}:
        assert f"`{name}`" in described, name
    moved = {f"{what}{of}" for what in ("accuracy", "probability") for of in ("", "_unaltered", "_difference")}
    assert moved | {"accuracy_difference_low", "probability_difference_high"} <= {*conditions[0]}


def test_the_gallery_s_own_photos_are_asked_about_with_a_warning(shop: Shop) -> None:
    done = modiste("audit", "--gallery", shop.gallery, "--targets", "label", "--limit", "10", "--conditions", "flipped")
    assert done.status == 0, done.err
    assert "The photos are the gallery's own; none is its own neighbour." in done.err
    assert "linear of label has learned 10 of these 10 photos: they flatter its accuracies" in done.err
    assert "Altering 10 photos in 1 ways" not in done.err
    assert "Altering 10 photos in 1 way, and encoding them." in done.err


def test_several_heads_and_photos_that_cannot_be_read(shop: Shop, tmp_path: Path) -> None:
    gallery = shutil.copytree(shop.gallery, tmp_path / "gallery")
    assert modiste("fit", "--gallery", gallery, "--targets", "label", "--head", "knn").status == 0
    mixed = shutil.copytree(shop.queries, tmp_path / "mixed")
    (mixed / "red" / "torn.png").write_bytes(b"no photo")
    other = Shop(gallery, shop.train, mixed)
    done = other.audit("--head", "knn,linear", "--conditions", "darkened", "--json", "--report", tmp_path / "o.html")
    figures = done.json
    assert [*figures["targets"][0]["heads"]] == ["knn", "linear"]
    assert (figures["photos"], figures["photos_unreadable"]) == (18, 1)
    assert "1 photo could not be read." in figures["remarks"]
    # Unless they are named, of each target the one that answers is asked alone.
    alone = other.audit("--conditions", "darkened", "--limit", "10", "--json").json
    assert len(alone["targets"][0]["heads"]) == 1
    # Without the condition, the page leads with the first verdict there is.
    page = Page((tmp_path / "o.html").read_text())
    heads = figures["targets"][0]["heads"]
    assert page.texts("p", "summary") == [one["conditions"][0]["verdict"] for one in heads.values()]


def test_a_sheet_shows_photos_beside_what_they_became(shop: Shop, tmp_path: Path) -> None:
    photo = next((shop.queries / "blue").iterdir())
    items = [CatalogItem("one", photo, labels={"label": ("blue",)})]
    case = {"item_id": "one", "label": "blue", "before": "blue", "after": "red"}
    case |= {"probability_before": 0.9, "probability_of_after": 0.6}
    heads = {"linear": {"conditions": [{"condition": TAGGED, "cases": [case]}]}}
    alterer = Alterer(items, ["label"], [TAGGED], 64)
    draw_cases(tmp_path / "sheet.png", items, [{"target": "label", "heads": heads}], alterer, None)
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    blue = np.abs(pixels - COLOURS["blue"]).max(axis=2) < 30
    tag = np.abs(pixels - (252, 214, 66)).max(axis=2) < 12
    # Both halves have the background, and the right one alone the tag.
    columns = np.flatnonzero(blue.any(axis=0))
    middle = (columns[0] + columns[-1]) / 2
    assert tag.any()
    assert np.flatnonzero(tag.any(axis=0)).min() > middle
    # The photo is gone: a tile says so, and there is a sheet all the same.
    gone = [CatalogItem("one", tmp_path / "gone.png", labels={"label": ("blue",)})]
    draw_cases(tmp_path / "sheet.png", gone, [{"target": "label", "heads": heads}], alterer, None)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert (np.abs(np.asarray(sheet.convert("RGB")).astype(int) - COLOURS["blue"]).max(axis=2) >= 30).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--limit", "9"), "takes 10 photos or more, or its figures say nothing; got a limit of 9"),
        (("--conditions", "flipped,upside-down"), "--conditions is background-masked, "),
        (("--head", "mlp"), "modiste fit --gallery"),
        (("--head", "oracle"), "--head is knn, "),
        (("--report", "."), "--report is a file to write; . is a folder."),
        (("--sheet", "."), "--sheet is a file to write; . is a folder."),
    ],
)
def test_bad_input_is_told_before_the_work(shop: Shop, arguments: tuple[str, ...], message: str) -> None:
    done = shop.audit(*arguments)
    assert done.status == 2
    assert message in " ".join(done.err.replace("│", " ").split())
    assert "Altering" not in done.err


def test_targets_and_photos_that_are_none(shop: Shop, tmp_path: Path) -> None:
    done = shop.audit(targets="colour")
    assert done.status == 2
    assert "The gallery has no target 'colour'" in done.err
    bare = shutil.copytree(shop.gallery, tmp_path / "bare")
    shutil.rmtree(bare / "heads")
    done = Shop(bare, shop.train, shop.queries).audit()
    assert done.status == 2
    assert f"Fit one: modiste fit --gallery {bare} --targets label" in done.err
    table = tmp_path / "table.csv"
    table.write_text("item_id,image,size\na,a.png,M\n")
    done = shop.audit(queries=table)
    assert done.status == 2
    assert "none with a label of label. Give a catalog with such a column." in done.err
    torn = tmp_path / "torn"
    for name in COLOURS:
        (torn / name).mkdir(parents=True)
        (torn / name / "1.png").write_bytes(b"no photo")
    done = shop.audit(queries=torn)
    assert done.status == 2
    assert "of 3 none can be read, item " in done.err
    plain = tmp_path / "plain"
    for name, colour in COLOURS.items():
        (plain / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), colour).save(plain / name / "1.png")
    done = shop.audit(queries=plain)
    assert done.status == 2
    assert "No garment was found in any of 3 photos" in done.err
    assert "--conditions flipped,darkened,turned,price-tag" in done.err
