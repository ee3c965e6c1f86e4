"""Transfer: what each of the five runs trains, and the one table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.catalog import CatalogItem
from data.images import encode_png
from finetune import transfer as module
from finetune.recipe import Augmentation, Recipe, RecipeError, Stage
from finetune.run import Listener, RunRequest
from finetune.run_folder import RunFolderError, read_config
from finetune.transfer import RUNS, Transfer, read_table, recipe_of_run, run_transfer

SHARED = Recipe(
    "transfer",
    "",
    (Stage(5),),
    Augmentation(),
    network="resnet18",
    batch=8,
    image_size=224,
    train_size=160,
    rate=1e-4,
    head_rate=1e-3,
)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take longer than the training, and have tests of their own."""
    for place in ("run_folder.draw_loss", "run_folder.draw_error", "run_report.draw_confusion"):
        monkeypatch.setattr(f"finetune.{place}", lambda *_, **__: b"")


def test_what_each_run_trains():
    of = {name: recipe_of_run(name, SHARED, 3) for name in RUNS}
    assert {name: (one.network, one.weights, one.adapter, one.rate) for name, one in of.items()} == {
        "source": ("simple-cnn", "scratch", False, 1e-3),
        "scratch": ("resnet18", "scratch", False, 1e-3),
        "imagenet": ("resnet18", "pretrained", False, 1e-4),
        "adapter-scratch": ("resnet18", "scratch", True, 1e-3),
        "adapter-imagenet": ("resnet18", "pretrained", True, 1e-4),
    }
    # The small network and the adapter have sides of their own.
    sides = {name: (one.image_size, one.train_size) for name, one in of.items()}
    assert sides == {name: (224, 160) if name in ("scratch", "imagenet") else (None, None) for name in RUNS}
    # Two stages: the pretrained network opens after three epochs of five.
    stages = {name: [(stage.epochs, stage.blocks) for stage in one.stages] for name, one in of.items()}
    assert stages == {name: [(3, 0), (2, -1)] if name == "adapter-imagenet" else [(5, -1)] for name in RUNS}
    # All else is shared.
    assert {one.batch for one in of.values()} == {8}


def test_runs_that_cannot_be():
    with pytest.raises(RecipeError, match="no run 'resnet'; the runs are source, scratch, imagenet"):
        recipe_of_run("resnet", SHARED, 3)
    with pytest.raises(RecipeError, match="`pretrained` or a folder; got scratch"):
        recipe_of_run("imagenet", replace(SHARED, weights="scratch"), 3)
    with pytest.raises(RecipeError, match="before the last of 5; got 5"):
        recipe_of_run("adapter-imagenet", SHARED, 5)


def items_of(count: int, labels: Sequence[str]) -> list[CatalogItem]:
    """Photos of 28 pixels, each label a shade of grey."""
    items = []
    for number in range(count):
        place = number % len(labels)
        pixels = np.full((28, 28), 40 + 150 * place // len(labels), np.uint8)
        split = "validation" if number % 4 == 0 else "train"
        label = {"type": (labels[(number // 4) % len(labels) if split == "validation" else place],)}
        items.append(CatalogItem(f"{labels[0]}-{number}", encode_png(pixels), labels=label, split=split))
    return items


def small_transfer(folder: Path, runs: Sequence[str], *, resume: bool = False) -> Transfer:
    recipe = Recipe("transfer", "", (Stage(2),), network="simple-cnn", batch=8, precision="fp32")
    target = RunRequest(recipe, items_of(12, "ab"), ["type"], folder, "/target", "modiste", resume=resume, device="cpu")
    source = replace(target, items=items_of(24, "xyz"), catalog="/source")
    return Transfer(runs, source, target, 1)


def test_five_runs_and_one_table(tmp_path):
    told: list[str] = []

    def listener_of(name: str) -> Listener:
        return Listener(on_epoch=lambda epochs: told.append(f"{name} {len(epochs)}"))

    first = run_transfer(small_transfer(tmp_path, ["scratch", "source"]), listener_of)
    assert told == ["scratch 1", "scratch 2", "source 1", "source 2"]
    # In the table's order, whatever the order of training.
    assert [row["run"] for row in first] == ["source", "scratch"]
    assert (first[0]["labels"], first[1]["labels"]) == (3, 2)
    assert read_config(tmp_path / "source")["catalog"] == "/source"
    # The others join the table later.
    rest = ["imagenet", "adapter-scratch", "adapter-imagenet"]
    rows = run_transfer(small_transfer(tmp_path, rest), listener_of)
    assert [row["run"] for row in rows] == list(RUNS)
    assert rows == read_table(tmp_path)
    # The adapter's parameters come on top of the network's.
    parameters = {row["run"]: row["parameters"] for row in rows}
    assert parameters["adapter-scratch"] > parameters["scratch"] == parameters["imagenet"]
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        assert [row["what"] for row in csv.DictReader(file)] == list(RUNS.values())
    page = (tmp_path / "README.md").read_text()
    assert "| [adapter-imagenet](adapter-imagenet/README.md) | adapter, and the network pretrained" in page
    stages = (tmp_path / "adapter-imagenet" / "stages.csv").read_text()
    assert "1,adapter and classifier,1," in stages
    assert "2,all,1," in stages


def test_runs_that_have_ended_are_not_trained_again(tmp_path):
    told: list[int] = []

    def listener_of(_: str) -> Listener:
        return Listener(on_progress=lambda now: told.append(now.step))

    run_transfer(small_transfer(tmp_path, ["source"]), listener_of)
    steps, rows = len(told), read_table(tmp_path)
    with pytest.raises(RunFolderError, match="holds a run already. Go on with it by --resume"):  # noqa: RUF043
        run_transfer(small_transfer(tmp_path, ["scratch", "source"]), listener_of)
    # Told before the first of them was trained.
    assert len(told) == steps
    again = run_transfer(small_transfer(tmp_path, ["source", "scratch"], resume=True), listener_of)
    # 9 photos in a batch, twice.
    assert len(told) == steps + 2
    assert again[0] == rows[0]


def test_what_stops_a_run_leaves_the_table_of_those_before(tmp_path, monkeypatch):
    run = module.run

    def stop(request, listener):
        if request.folder.name == "imagenet":
            raise KeyboardInterrupt
        return run(request, listener)

    monkeypatch.setattr(module, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        run_transfer(small_transfer(tmp_path, ["scratch", "imagenet"]), lambda _: Listener())
    assert [row["run"] for row in read_table(tmp_path)] == ["scratch"]
    assert "scratch" in (tmp_path / "table.csv").read_text()


def test_a_source_run_needs_a_source(tmp_path):
    asked = replace(small_transfer(tmp_path, ["source"]), source=None)
    with pytest.raises(RecipeError, match="'source' trains on another catalog"):
        run_transfer(asked, lambda _: Listener())
