"""compare from the outside: what it prints, how it ends, what it writes and what it leaves in the gallery."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.images import read_pixels
from indexer.encoders import EMBEDDED, load_encoder
from service.head_store import selected_kind
from tests.service.runs import DIMENSION, make_run
from tests.service.test_report import Page
from tests.test_cli import Done, modiste
from tests.test_docs import documented, keys_of
from tests.write_cli_help import PAGE

COLOURS = {"blue": (40, 60, 190), "green": (40, 150, 60), "red": (200, 40, 50)}


def draw(folder: Path, count: int, *, seed: int) -> Path:
    """Photos of a colour each, a folder a colour, no two alike."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            noise = rng.normal(0, 30, (48, 48, 3))
            pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{seed}-{number}.png")
    return folder


@dataclass(frozen=True)
class Shop:
    """A gallery with a linear head, labelled photos new to it, and two runs of the same network."""

    gallery: Path
    train: Path
    queries: Path
    good: Path
    poor: Path

    def compare(self, *arguments: object, queries: Path | None = None, runs: tuple[Path, ...] = ()) -> Done:
        named = [word for run in runs or (self.good,) for word in ("--run", run)]
        place = ("--gallery", self.gallery, "--targets", "label", "--queries", queries or self.queries)
        heads = () if "--head" in arguments else ("--head", "knn,linear")
        return modiste("compare", *place, *named, *heads, *arguments)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    train, queries = draw(folder / "train", 8, seed=1), draw(folder / "queries", 6, seed=2)
    gallery = folder / "gallery"
    done = modiste("index", train, "--gallery", gallery, "--encoder", EMBEDDED, "--pooling", "mean")
    assert done.status == 0, done.err
    assert modiste("fit", "--gallery", gallery, "--targets", "label", "--head", "linear").status == 0
    # A layer whose logits are the cosines with the mean photo of each colour, and one that calls everything blue.
    encoder = load_encoder(EMBEDDED, pooling="mean", runtime="torch", precision="fp32")
    means = np.stack(
        [
            encoder.encode(np.stack([read_pixels(file, 64) for file in sorted((train / name).iterdir())])).mean(axis=0)
            for name in COLOURS
        ]
    )
    centred = 100 * (means - means.mean(axis=0)) / DIMENSION**0.5
    none = np.zeros((3, DIMENSION), np.float32)
    runs = []
    for name, weight, bias in (("good", centred, [0, 0, 0]), ("poor", none, [1, 0, 0])):
        layer = (weight.astype(np.float32), np.array(bias, np.float32))
        catalog = str(folder / "own")
        runs.append(make_run(folder / name, {"label": [*COLOURS]}, layers={"label": layer}, catalog=catalog))
    return Shop(gallery, train, queries, *runs)


@pytest.fixture
def shop(made: Shop, tmp_path: Path) -> Shop:
    """A copy whose gallery a test may write to."""
    return Shop(shutil.copytree(made.gallery, tmp_path / "gallery"), made.train, made.queries, made.good, made.poor)


def test_one_command_answers_the_question(shop: Shop, tmp_path: Path) -> None:
    report = tmp_path / "new" / "out.html"
    done = shop.compare("--report", report, "--sheets", tmp_path / "sheets", "--select", runs=(shop.good, shop.poor))
    assert done.status == 0, done.err
    assert "The gallery has no knn of label; fitting." in done.err
    assert {"knn", "linear"} <= {path.stem for path in (shop.gallery / "heads" / "label").glob("*.json")}
    lines = done.out.splitlines()
    assert lines[0] == "label: 18 photos; 0 have a label that no head knows"
    assert "comparator good" in lines[1]
    assert {"accuracy", "macro_f1", "calibration_error", "milliseconds_whole", "parameters", "bytes"} <= {
        line.split(" ")[0] for line in lines
    }
    # Four heads: six pairs.
    assert sum(" against " in line for line in lines) == 6
    verdict = next(line for line in lines if line.startswith("No difference between frozen features and fine-tuning"))
    # Of these colours all that can learn get every photo right.
    assert "are right equally often, a difference of 0.0 points (0.0 to 0.0); McNemar p = 1.000" in verdict
    assert "corrected for 6 pairs" in verdict
    assert f"comparator good and comparator poor learned from {shop.train.parent / 'own'}; whether" in done.err
    # Where no difference is shown, a head on the gallery's embeddings answers.
    selected = selected_kind(shop.gallery, "label")
    assert selected in ("knn", "linear")
    assert f"label: {selected} is now the head that answers." in lines
    page = Page(report.read_text())
    assert page.texts("h1") == ["Frozen features or fine-tuning? gallery"]
    assert page.texts("p", "summary") == [verdict]
    assert sorted(path.name for path in (tmp_path / "sheets").iterdir()) == ["label-all-right.png"]
    with Image.open(tmp_path / "sheets" / "label-all-right.png") as sheet:
        assert sheet.width > 500


def test_the_winner_answers(shop: Shop) -> None:
    # The gallery knows only blue and green, the comparator red as well.
    ids = [f"red/{file.name}" for file in (shop.train / "red").iterdir()]
    done = modiste("delete", *ids, "--gallery", shop.gallery)
    assert done.status == 0, done.err
    assert modiste("fit", "--gallery", shop.gallery, "--targets", "label", "--head", "linear").status == 0
    done = shop.compare("--head", "linear", "--select", "--json")
    answer = done.json
    figures = answer["targets"][0]
    assert figures["labels"] == ["blue", "green", "red"]
    assert figures["heads"]["linear"]["labels_unknown"] == ["red"]
    # Six red photos of 18 that only the comparator can have right: 2 / 64 = 0.031.
    pair = figures["pairs"][0]
    assert (pair["first"], pair["second"]) == ("linear", "comparator good")
    assert (pair["only_first_right"], pair["only_second_right"]) == (0, 6)
    assert pair["p_value"] == pair["p_value_corrected"] == pytest.approx(2 / 64)
    assert figures["verdict"]["sentence"].startswith(
        "Fine-tuning won on 18 photos: comparator good is right more often "
    )
    assert answer["selected"] == {"label": "comparator good"}
    assert selected_kind(shop.gallery, "label") == "comparator"
    card = json.loads((shop.gallery / "heads" / "label" / "comparator.json").read_text())
    assert card["encoder"] == str(shop.good)
    answered = modiste("classify", shop.queries / "red" / "2-0.png", "--gallery", shop.gallery, "--json").json
    prediction = answered["photos"][0]["predictions"][0]
    assert (prediction["head"], prediction["predicted"]) == ("comparator", ["red"])


def test_photos_that_a_head_has_learned_are_left_out(shop: Shop, tmp_path: Path) -> None:
    mixed = shutil.copytree(shop.queries, tmp_path / "mixed")
    # One under its own name, one as a copy.
    shutil.copy(shop.train / "red" / "1-0.png", mixed / "red" / "1-0.png")
    shutil.copy(shop.train / "red" / "1-1.png", mixed / "red" / "copy.png")
    done = shop.compare("--json", queries=mixed)
    assert (done.json["learned"], done.json["left_out"], done.json["targets"][0]["queries"]) == (2, 2, 18)
    assert done.json["remarks"][0].startswith("2 photos are in the gallery, by item_id or content")
    kept = shop.compare("--json", "--allow-leaks", queries=mixed)
    assert (kept.json["learned"], kept.json["left_out"], kept.json["targets"][0]["queries"]) == (2, 0, 20)
    done = shop.compare(queries=shop.train)
    assert done.status == 2
    assert "all 24 are in the gallery or were learned by a run. Give other photos, or --allow-leaks" in done.err


def test_photos_that_cannot_be_read_are_counted(shop: Shop, tmp_path: Path) -> None:
    mixed = shutil.copytree(shop.queries, tmp_path / "mixed")
    (mixed / "red" / "torn.png").write_bytes(b"no photo")
    done = shop.compare("--head", "linear", queries=mixed)
    assert done.status == 0
    assert "1 photo could not be read." in done.err


def test_every_key_of_a_comparison_is_on_the_page(shop: Shop) -> None:
    answer: dict[str, Any] = shop.compare("--head", "linear", "--json").json
    page = PAGE.read_text("utf-8")
    assert keys_of({**answer, "selected": 0}) == documented(page, "modiste compare")
    figures = answer["targets"][0]
    described = page.split("# modiste compare\n")[1].split("\n## ")[0]
    own = {"family", "encoder", "labels_unknown", "only_this_right"}
    cost = {name for name in figures["heads"]["linear"] if name.startswith(("milliseconds", "parameters", "bytes"))}
    for name in {*figures, *figures["pairs"][0], *figures["verdict"], *figures["agreement"], *own, *cost}:
        assert f"`{name}`" in described, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--head", "comparator"), "A comparator is trained by `modiste finetune` and added with --run RUN."),
        (("--report", "."), "--report is a file to write; . is a folder."),
        (("--sheets", "{file}"), "--sheets is a folder to write into; "),
    ],
)
def test_what_cannot_be_done_is_told_before_the_work(shop: Shop, arguments: tuple[str, ...], message: str) -> None:
    file = shop.queries / "red" / "2-0.png"
    done = shop.compare(*(word.format(file=file) for word in arguments))
    assert done.status == 2
    assert message in " ".join(done.err.split())
    assert "Encoding" not in done.err


def test_a_run_that_is_none(shop: Shop, tmp_path: Path) -> None:
    done = shop.compare(runs=(tmp_path,))
    assert done.status == 2
    assert f"There is no run in {tmp_path}" in done.err
    assert "fitting" not in done.err
