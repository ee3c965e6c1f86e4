"""Run folders: begun once, gone on with as they were begun, and what stands in them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from data.catalog import Box, Catalog
from finetune.recipe import Stage, recipe_of
from finetune.run_folder import (
    RunFolderError,
    check_beside,
    check_folder,
    locked,
    open_run,
    read_config,
    stage_rows,
    what_is_open,
    write_progress,
)
from tests.finetune.runs import LABELS, make_epoch, make_plan


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_begins_with_all_that_an_encoder_and_a_resume_need(tmp_path):
    plan = make_plan()
    config = open_run(tmp_path / "runs" / "one", plan)
    assert config == json.loads((tmp_path / "runs" / "one" / "config.json").read_text())
    wanted = {"modiste_checkpoint": 1, "network": "simple-cnn", "image_size": 28, "pooling": "mean"}
    wanted |= {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "targets": {"type": list(LABELS)}}
    wanted |= {"weights": "random numbers", "catalog": "/photos", "command": plan.command}
    assert {key: config[key] for key in wanted} == wanted
    assert (config["photos"]["train"], config["photos"]["validation"]) == (6, 5)
    labels = json.loads((tmp_path / "runs" / "one" / "labels.json").read_text())
    assert labels == {"type": {"jeans": 0, "shirt": 1, "skirt": 2}}
    # The recipe comes back as it was, through JSON.
    assert recipe_of(config["recipe"], "config.json") == plan.recipe


def test_a_run_goes_on_where_all_is_the_same(tmp_path):
    first = open_run(tmp_path, make_plan())
    other = replace(make_plan(), catalog="/mnt/photos", command="modiste finetune /mnt/photos --resume")
    # Where the photos are now, and what a recipe is called, decides nothing.
    other = replace(other, recipe=replace(other.recipe, name="copy", description="Copied."))
    assert open_run(tmp_path, other) == first


def boxed(plan):
    photos = plan.division.train
    items = tuple(replace(item, box=Box(0, 0, 0.5, 1)) for item in photos.items)
    return replace(plan, division=replace(plan.division, train=replace(photos, items=items)))


def with_recipe(**values):
    return make_plan(recipe=replace(make_plan().recipe, **values))


def with_network(**values):
    return replace(make_plan(), network=replace(make_plan().network, **values))


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (with_recipe(seed=3), "seed was 0 and is 3"),
        (with_recipe(stages=(Stage(1, blocks=0), Stage(3))), "stages.1.epochs was 2 and is 3"),
        (with_recipe(stages=(Stage(1, blocks=0),)), "stages.1.epochs was 2 and is none"),
        (with_recipe(target_weights={"type": 2.0}), "target_weights.type was none and is 2.0"),
        (with_network(config="fashionnet-small"), "network was simple-cnn and is fashionnet-small"),
        (
            with_network(config={"depths": [2]}),
            "network was simple-cnn and is none; network.depths.0 was none and is 2",
        ),
        (with_network(pooling="gem"), "pooling was mean and is gem"),
        (with_network(image_size=32), "image_size was 28 and is 32"),
        (
            make_plan(labels=("gown", "jeans", "shirt")),
            "labels of type was jeans, shirt, skirt and is gown, jeans, shirt",
        ),
        (make_plan(train=(0, 1, 2)), "photos.train was 6 and is 3"),
        # As many photos, one of which has another label.
        (make_plan(train=(0, 0, 1, 1, 1, 2)), "as many photos, but others, or with other labels or boxes"),
        (make_plan(validation=(0, 0, 1, 2, 2)), "as many photos, but others"),
        (boxed(make_plan()), "as many photos, but others"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_that_would_go_on_otherwise_is_refused_with_what_differs(tmp_path, other, difference):
    before = open_run(tmp_path, make_plan())
    with pytest.raises(RunFolderError, match=f"goes on only as it was begun; .*{difference}.*new --out"):
        open_run(tmp_path, other)
    assert read_config(tmp_path) == before


def test_what_differs_is_told_up_to_a_point(tmp_path):
    open_run(tmp_path, make_plan())
    recipe = replace(make_plan().recipe, seed=1, batch=7, rate=1.0, head_rate=1.0, dropout=0.9, clip=1.0, patience=3)
    with pytest.raises(RunFolderError, match="and 2 more"):
        open_run(tmp_path, make_plan(recipe=recipe))


def test_long_lists_of_labels_are_cut(tmp_path):
    many = tuple(f"label {number:03}" for number in range(99))
    open_run(tmp_path, make_plan(labels=many))
    with pytest.raises(RunFolderError) as raised:
        open_run(tmp_path, make_plan())
    assert "label 000, label 001" in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("content", ["{", "[]", '{"modiste_checkpoint": 2}'])
def test_a_config_that_is_none_is_no_run(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"config\.json .*new run with another --out"):
        open_run(tmp_path, make_plan())


def test_which_folders_a_run_may_begin_in(tmp_path):
    check_folder(tmp_path / "new", resume=False)
    check_folder(tmp_path, resume=False)
    # What a run that was killed at its beginning leaves is no content.
    (tmp_path / ".lock").touch()
    (tmp_path / "labels.json.tmp").touch()
    check_folder(tmp_path, resume=False)
    with pytest.raises(RunFolderError, match=r"no run in .* to go on with.*Leave --resume out"):
        check_folder(tmp_path, resume=True)
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(RunFolderError, match=r"holds holiday\.jpg"):
        check_folder(tmp_path, resume=False)
    with pytest.raises(RunFolderError, match="is a file"):
        check_folder(tmp_path / "holiday.jpg", resume=False)
    (tmp_path / "config.json").touch()
    with pytest.raises(RunFolderError, match=r"holds a run already\. Go on with it by --resume"):
        check_folder(tmp_path, resume=False)
    check_folder(tmp_path, resume=True)


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    run = tmp_path / "run"
    with locked(run), pytest.raises(RunFolderError, match="Another process trains in"), locked(run):
        pass
    with locked(tmp_path / "run"):
        pass


def test_progress_is_a_line_an_epoch_and_a_line_a_stage(tmp_path):
    epochs = [make_epoch(1, 0.5, best=True), make_epoch(2, 0.75, stage=2, best=True), make_epoch(3, 0.7, stage=2)]
    write_progress(tmp_path, make_plan(), epochs)
    lines = rows_of(tmp_path / "metrics.csv")
    assert [line["epoch"] for line in lines] == ["1", "2", "3"]
    assert lines[1] == {
        "epoch": "2", "stage": "2", "train_loss": "1.0", "train_accuracy": "0.65", "validation_loss": "0.75",
        "validation_accuracy": "0.75", "rate": "1e-07", "head_rate": "0.003", "photos": "100", "seconds": "4.0",
        "validation_seconds": "1.0", "is_best": "1", "unreadable": "0", "validation_accuracy:type": "0.75",
    }  # fmt: skip
    assert rows_of(tmp_path / "stages.csv") == [
        {"stage": "1", "open": "classifier", "epochs": "1", "best_epoch": "1", "best_validation_accuracy": "0.5",
         "learned_parameters": "10", "seconds": "5.0"},
        {"stage": "2", "open": "all", "epochs": "2", "best_epoch": "2", "best_validation_accuracy": "0.75",
         "learned_parameters": "20", "seconds": "10.0"},
    ]  # fmt: skip
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("loss.png", "error.png"))


def test_a_stage_that_has_not_begun_has_no_line_and_of_equals_the_smaller_loss_is_the_best():
    plan = make_plan()
    (row,) = stage_rows(plan, [make_epoch(1, 0.5), make_epoch(2, 0.5), make_epoch(3, 0.4)])
    # Epochs 1 and 2 are right as often; the loss of the second is smaller.
    assert (row["stage"], row["epochs"], row["best_epoch"]) == (1, 3, 2)


def test_an_epoch_without_a_loss_is_written_too(tmp_path):
    write_progress(tmp_path, make_plan(), [make_epoch(1, 0.5, loss=float("nan"), best=True)])
    assert rows_of(tmp_path / "metrics.csv")[0]["train_loss"] == "nan"


def test_what_is_open_in_words():
    recipe = make_plan().recipe
    said = [what_is_open(recipe, Stage(1, blocks=blocks)) for blocks in (0, 1, 2, -1)]
    assert said == ["classifier", "classifier, last 1 block", "classifier, last 2 blocks", "all"]
    assert what_is_open(replace(recipe, adapter=True), Stage(1, blocks=0)) == "adapter and classifier"


def test_a_run_does_not_lie_among_the_photos_of_its_catalog(tmp_path):
    def catalog(form):
        return Catalog(tmp_path / "shop", form, lambda: iter(()), lambda: 0)

    # A folder's photos are whatever pictures it holds; loss.png would be one when the run goes on.
    with pytest.raises(RunFolderError, match=r"among the photos of .*shop, and its pictures .* another --out"):
        check_beside(tmp_path / "x" / ".." / "shop" / "run", catalog("folder"))
    # Beside it, or in one whose table names its photos, nothing is mixed up.
    check_beside(tmp_path / "shop-run", catalog("folder"))
    check_beside(tmp_path / "shop" / "run", catalog("csv"))


def test_a_digest_does_not_depend_on_the_integers_of_the_machine(tmp_path):
    plan = make_plan()
    first = open_run(tmp_path, plan)
    y = {"type": plan.division.train.y["type"].astype(np.int32)}
    other = replace(plan, division=replace(plan.division, train=replace(plan.division.train, y=y)))
    assert open_run(tmp_path, other) == first
