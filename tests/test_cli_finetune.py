"""finetune, transfer and recipes from the outside: real runs on a few drawn photos."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from finetune.recipe import read_recipe, read_text, recipe_names
from indexer.encoders import load_encoder
from tests.test_cli import Done, modiste, start
from tests.test_docs import documented, keys_of
from tests.write_cli_help import PAGE

COLOURS = {"red": (200, 30, 40), "green": (40, 160, 60), "blue": (30, 60, 190)}
# A recipe of one stage.
SMALL = ("--recipe", "transfer", "--network", "simple-cnn", "--weights", "scratch", "--batch", "8", "--device", "cpu")


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Iterator[None]:
    """Confusion matrices take longer than the training, and have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finetune.run_report.draw_confusion", lambda *_, **__: b"\x89PNG")
        yield


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photos of one colour each, a shape in them; six validate, one has a colour that is its alone."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    with (folder / "items.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "image", "colour", "shape", "same", "split"])
        for number in range(24):
            colour, shape = list(COLOURS)[number % 3], ("bar", "box")[number % 2]
            pixels = np.full((40, 40, 3), 255, np.uint8)
            pixels[8:32, 8:32] = np.clip(np.array(COLOURS[colour]) + rng.integers(-20, 20, 3), 0, 255)
            if shape == "bar":
                pixels[:, 24:] = 255
            Image.fromarray(pixels).save(folder / f"{number}.png")
            label = "mauve" if number == 7 else colour
            split = "validation" if number % 4 == 0 else "train"
            writer.writerow([f"i{number}", f"{number}.png", label, shape, "one", split])
    return folder


def finetune(shop: Path, out: Path, *arguments: object, epochs: int = 2) -> Done:
    targets = () if "--targets" in arguments else ("--targets", "colour")
    return modiste("finetune", shop / "items.csv", "--out", out, *SMALL, "--epochs", epochs, *targets, *arguments)


@pytest.fixture(scope="module")
def trained(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of two epochs, and what the command said of it."""
    run = tmp_path_factory.mktemp("runs") / "first"
    done = finetune(shop, run, "--targets", "colour,shape", "--json")
    assert "17 photos to learn from, 6 to validate with; simple-cnn" not in done.err
    assert "18 photos to learn from, 6 to validate with; simple-cnn" in done.err
    assert "left out of colour, fewer than 2 training photos: mauve (1)\n" in done.err
    assert "\nepoch 2: loss " in done.err
    return run, done.json


def test_a_run_leaves_all_its_files_and_says_what_is_in_its_card(trained):
    run, said = trained
    assert {path.name for path in run.iterdir()} - {".lock"} == {
        *("config.json", "labels.json", "card.json", "README.md", "metrics.csv", "stages.csv", "loss.png", "error.png"),
        *("best.safetensors", "last.safetensors", "validation.safetensors", "validation.csv"),
        *(f"confusion-{target}{end}" for target in ("colour", "shape") for end in (".csv", ".png", "-normalised.png")),
    }
    assert said == {"run": str(run), **json.loads((run / "card.json").read_text())}
    assert (said["epochs"], said["best_epoch"] in (1, 2), said["recipe"], said["seed"]) == (2, True, "transfer", 0)
    assert said["targets"]["colour"]["rare"] == {"mauve": 1}
    command = json.loads((run / "config.json").read_text())["command"]
    assert shlex.split(command)[:2] == ["modiste", "finetune"]
    assert shlex.join(["--out", str(run), *SMALL]) in command
    assert command in (run / "README.md").read_text()


def test_every_key_of_a_run_is_on_the_page(trained):
    page = PAGE.read_text("utf-8")
    said = {**trained[1], "versions": {}, "unreadable": {}, "targets": {}, "stages": []}
    assert keys_of(said) == documented(page, "modiste finetune")


def test_a_run_is_an_encoder(trained, shop):
    encoder = load_encoder(str(trained[0]), runtime="torch", precision="fp32")
    pixels = np.zeros((2, 28, 28, 3), np.uint8)
    assert encoder.encode(pixels).shape == (2, trained[1]["dimension"])


def test_a_run_that_has_ended_goes_on_to_the_same_end(trained, shop, tmp_path):
    run = shutil.copytree(trained[0], tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    (run / "README.md").unlink()
    done = finetune(shop, run, "--targets", "colour,shape", "--resume")
    assert (done.status, "Going on after epoch 2." in done.err) == (0, True)
    for name in ("best.safetensors", "metrics.csv", "stages.csv", "validation.csv", "config.json"):
        assert (run / name).read_bytes() == before[name], name
    assert done.out.splitlines()[0].split() == ["target", "labels", "photos", "accuracy", "95", "%", "macro_f1"]
    assert f"; {run / 'README.md'} says how it went." in done.out
    assert (run / "README.md").exists()


def test_what_cannot_be_is_refused_before_anything_is_written(trained, shop, tmp_path):
    run, new = trained[0], tmp_path / "new"
    config = (run / "config.json").read_bytes()
    cases: dict[str, tuple[Path, tuple[object, ...]]] = {
        "holds a run already. Go on with it by --resume, or choose another --out": (run, ()),
        "seed was 0 and is 3": (run, ("--targets", "colour,shape", "--resume", "--seed", 3)),
        "targets was colour, shape and is colour": (run, ("--resume",)),
        "photos.train was 18 and is": (run, ("--targets", "colour,shape", "--resume", "--limit", 20)),
        "network was simple-cnn and is fashionnet-small": (
            run,
            ("--targets", "colour,shape", "--resume", "--network", "fashionnet-small"),
        ),
        "There is no run in": (new, ("--resume",)),
        "holds items.csv": (shop, ()),
        "the catalog's targets are colour, same, shape": (new, ("--targets", "size")),
        "tells two labels or more apart; 'same' has 1": (new, ("--targets", "same")),
        "There is no recipe 'nope'": (new, ("--recipe", "nope")),
        "has no value speed": (new, ("--set", "speed=1")),
        "recipe 'progressive' has 2,2,3,5; got '2'": (new, ("--recipe", "progressive")),
        "before the last of 2; got 2": (new, ("--unfreeze-after", 2)),
        "There is no network 'nope'": (new, ("--network", "nope")),
        "blocks is -1 or more; got -2": (new, ("--set", "stages.0.blocks=-2")),
        "The weights in": (new, ("--network", "fashionnet-small", "--weights", run)),
        "weighs size, which is not trained": (new, ("--set", "target_weights.size=2")),
        "A box is four numbers": (new, ("--box", "1,2")),
        "--targets is one name or more": (new, ("--targets", ",")),
    }
    for sentence, (out, arguments) in cases.items():
        done = finetune(shop, out, *arguments)
        assert done.status == 2, (sentence, done)
        assert sentence in done.err, done.err
        assert "Traceback" not in done.err
    assert not new.exists()
    assert (run / "config.json").read_bytes() == config


def test_without_photos_to_validate_with_there_is_no_run(shop, tmp_path):
    text = (shop / "items.csv").read_text().replace("validation", "train")
    for photo in shop.glob("*.png"):
        shutil.copy(photo, tmp_path)
    (tmp_path / "items.csv").write_text(text)
    done = finetune(tmp_path, tmp_path / "run", "--set", "validation=0.001")
    assert (done.status, "No validation photo has a label of 'colour'" in done.err) == (2, True)


def test_a_rate_that_diverges_ends_with_what_was_best(shop, tmp_path, monkeypatch):
    from finetune import run as module

    train = module.train

    def diverge(*arguments: Any, **named: Any) -> Any:
        stopped = "Training left for good in epoch 3: the loss is 9e+9."
        return replace(train(*arguments, **named), stopped=stopped, diverged=True)

    monkeypatch.setattr(module, "train", diverge)
    done = finetune(shop, tmp_path / "run")
    assert (done.status, done.err.splitlines()[-1]) == (
        1,
        "modiste: Training left for good in epoch 3: the loss is 9e+9.",
    )
    assert (tmp_path / "run" / "best.safetensors").exists()
    assert "left for good in epoch 3" in (tmp_path / "run" / "README.md").read_text()
    # Nothing good came before it.
    monkeypatch.undo()
    done = finetune(shop, tmp_path / "worse", "--rate", 1e6, "--head-rate", 1e6)
    assert (done.status, "Training left for good in its first epoch" in done.err) == (1, True)


def test_a_full_disk_is_one_sentence_and_keeps_what_was_good(shop, tmp_path, monkeypatch):
    from finetune import checkpoint

    replace_file = checkpoint.replace_file
    written: list[str] = []

    def fill(path: Path, content: bytes) -> None:
        written.append(path.name)
        if written.count("last.safetensors") > 1:
            raise OSError(28, "No space left on device", str(path))
        replace_file(path, content)

    monkeypatch.setattr(checkpoint, "replace_file", fill)
    run = tmp_path / "run"
    done = finetune(shop, run, epochs=3)
    assert done.status == 1
    sentence = done.err.splitlines()[-1]
    assert sentence.startswith("modiste: ")
    assert "No space left on device" in sentence
    assert "go on with --resume" in sentence
    assert load_file(run / "best.safetensors")
    monkeypatch.undo()
    done = finetune(shop, run, "--resume", epochs=3)
    assert (done.status, "Going on after epoch 1." in done.err) == (0, True)
    assert len((run / "metrics.csv").read_text().splitlines()) == 1 + 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_says_how_to_go_on_and_going_on_ends_where_an_unbroken_run_does(shop, tmp_path, number):
    run = tmp_path / "run"
    arguments = ("finetune", shop / "items.csv", "--targets", "shape", "--out", run, *SMALL, "--epochs", 8)
    process = start(*arguments, OMP_NUM_THREADS="1")
    said = []
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if line.startswith("epoch 2:"):
            process.send_signal(number)
            break
    try:
        rest = process.communicate(timeout=120)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 130, "".join(said) + rest
    again = rest.splitlines()[-1]
    assert again == f"Stopped. To go on: {shlex.join(['modiste', *map(str, arguments), '--resume'])}"
    assert "Traceback" not in rest
    done = len((run / "metrics.csv").read_text().splitlines()) - 1
    assert 2 <= done < 8
    went_on = modiste(*shlex.split(again.split("To go on: modiste ")[1]))
    assert (went_on.status, f"Going on after epoch {done}." in went_on.err) == (0, True)
    assert len((run / "metrics.csv").read_text().splitlines()) == 1 + 8


def test_ctrl_c_before_anything_was_begun(shop, tmp_path, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("data.readers.open_catalog", stop)
    done = finetune(shop, tmp_path / "run")
    assert (done.status, done.err) == (130, "Stopped. Nothing was begun.\n")


def test_shorthands_and_boxes_reach_the_recipe_and_the_photos(shop, tmp_path, monkeypatch):
    asked = []

    def record(request: Any, listener: Any) -> None:
        asked.append(request)
        raise KeyboardInterrupt

    monkeypatch.setattr("finetune.run.run", record)
    changes = ("--image-size", 32, "--train-size", 24, "--rate", 0.5, "--head-rate", 0.25, "--seed", 7)
    finetune(shop, tmp_path, *changes, "--set", "rate=9", "--set", "augmentation.flip=0", "--limit", 9, epochs=4)
    finetune(shop, tmp_path, "--box", "0.1,0.2,0.3,0.4", "--unfreeze-after", 1)
    finetune(shop, tmp_path, "--box", "whole", "--recipe", "designer")
    recipe = asked[0].recipe
    # The shorthand is written after all that --set says.
    assert (recipe.image_size, recipe.train_size, recipe.rate, recipe.head_rate) == (32, 24, 0.5, 0.25)
    assert (recipe.seed, recipe.epochs, recipe.batch, recipe.augmentation.flip) == (7, 4, 8, 0.0)
    assert (asked[0].limit, asked[0].device, asked[0].targets, asked[0].resume) == (9, "cpu", ["colour"], False)
    assert asked[0].items[0].box is None
    assert [item.box.width for item in asked[1].items] == [0.3] * 24
    assert [(stage.epochs, stage.blocks) for stage in asked[1].recipe.stages] == [(1, 0), (1, -1)]
    assert (asked[2].recipe.name, asked[2].items[0].box) == ("designer", None)


def test_photos_that_cannot_be_read_are_counted(shop, tmp_path):
    for photo in shop.glob("*.png"):
        shutil.copy(photo, tmp_path)
    shutil.copy(shop / "items.csv", tmp_path)
    (tmp_path / "1.png").write_bytes(b"")
    with (tmp_path / "items.csv").open("a") as file:
        file.write("i99\n")
    done = finetune(tmp_path, tmp_path / "run", epochs=1)
    assert done.status == 0
    assert f"1 photos could not be read; {tmp_path / 'run' / 'card.json'} lists them." in done.err
    assert "row 26: " in done.err or "row 25: " in done.err
    assert json.loads((tmp_path / "run" / "card.json").read_text())["unreadable"] == {"i1": "The file is empty."}


# transfer


def test_transfer_prints_its_table_and_goes_on(shop, tmp_path):
    catalog = shop / "items.csv"
    arguments = ("transfer", catalog, "--targets", "shape", "--out", tmp_path / "runs", "--epochs", 1)
    arguments += ("--network", "simple-cnn", "--device", "cpu", "--source", catalog, "--source-targets", "colour")
    done = modiste(*arguments, "--runs", "source,scratch")
    assert done.status == 0, done.err
    assert [line.split()[:2] for line in done.out.splitlines()[1:3]] == [["source", "colour"], ["scratch", "shape"]]
    assert "scratch: the network, from scratch\n" in done.err
    again = modiste(*arguments, "--runs", "source,imagenet", "--resume", "--json").json
    assert [row["run"] for row in again["rows"]] == ["source", "scratch", "imagenet"]
    refused = modiste(*arguments, "--runs", "source")
    assert (refused.status, "holds a run already" in refused.err) == (2, True)
    none = modiste(*arguments, "--runs", "resnet")
    assert (none.status, "There is no run 'resnet'" in none.err) == (2, True)


# recipes


def test_recipes_are_listed_and_printed():
    done = modiste("recipes")
    assert [line.split()[0] for line in done.out.splitlines()[1:-1]] == recipe_names()
    assert [one["name"] for one in modiste("recipes", "--json").json] == recipe_names()
    assert modiste("recipes", "progressive").out == read_text("progressive")
    assert (
        modiste("recipes", "progressive", "--json").json["stages"][3]["epochs"]
        == read_recipe("progressive").stages[3].epochs
    )
    refused = modiste("recipes", "nope")
    assert (refused.status, "There is no recipe 'nope'" in refused.err) == (2, True)
