"""Recipes: what they hold, how they are changed, and every sentence about one that cannot be."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from finetune.recipe import (
    Augmentation,
    Recipe,
    RecipeError,
    Stage,
    read_recipe,
    read_text,
    recipe_names,
    recipe_of,
    with_values,
)


def test_the_recipes_that_come_with_modiste():
    assert recipe_names() == [
        *("attributes", "designer", "designer-heavy", "dressnet", "progressive", "standard", "transfer")
    ]


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_can_be_read_and_comes_back_from_json(name):
    recipe = read_recipe(name)
    assert recipe.name == name
    assert recipe.description.endswith(".")
    assert "description = " in read_text(name)
    assert recipe_of(json.loads(json.dumps(asdict(recipe))), "config.json") == recipe


def test_published_values_stand():
    progressive = read_recipe("progressive")
    assert [(stage.epochs, stage.blocks) for stage in progressive.stages] == [(2, 0), (2, 1), (3, 2), (5, -1)]
    published = ("resnet50", "pretrained", 64, "adamw", "cosine", 1e-4, 0.4, 0.05, "inverse-frequency")
    names = ("network", "weights", "batch", "optimizer", "schedule", "weight_decay", "dropout", "label_smoothing")
    assert tuple(getattr(progressive, name) for name in (*names, "sampler")) == published
    change = progressive.augmentation
    assert min(1 - change.crop, change.flip, change.hue, change.saturation, change.rotation, change.erase) > 0
    dressnet, designer = read_recipe("dressnet"), read_recipe("designer")
    assert (dressnet.network, dressnet.weights, dressnet.image_size) == ("resnet34", "pretrained", 224)
    assert (designer.batch, 20 <= designer.epochs <= 40) == (64, True)
    assert designer.rate != designer.head_rate
    transfer = read_recipe("transfer")
    assert (transfer.epochs, transfer.batch) == (5, 16)


def test_plain_and_heavy_augmentation_are_all_that_parts_the_designer_recipes():
    plain, heavy = asdict(read_recipe("designer")), asdict(read_recipe("designer-heavy"))
    assert {name for name in plain if plain[name] != heavy[name]} == {"name", "description", "augmentation"}
    assert plain["augmentation"] == asdict(Augmentation(flip=0.5))
    assert heavy["augmentation"]["erase"] > 0 < heavy["augmentation"]["hue"]


def test_where_colour_is_a_label_colour_is_left_alone():
    change = read_recipe("attributes").augmentation
    assert (change.hue, change.saturation) == (0, 0)
    assert change.brightness <= 0.1


def test_changes_count_one_after_the_other():
    changes = (
        *("rate=1e-3", "rate=2e-3", "augmentation.flip=0", "stages.1.epochs=7", "network=simple-cnn", "average = 0"),
        *('weights="scratch"', "class_weights=true", "target_weights.base=2", "pooling=gem", "train_size=none"),
    )
    recipe = read_recipe("progressive", changes)
    assert (recipe.rate, recipe.augmentation.flip, recipe.stages[1].epochs) == (2e-3, 0.0, 7)
    assert (recipe.network, recipe.weights, recipe.class_weights) == ("simple-cnn", "scratch", True)
    assert (recipe.target_weights, recipe.pooling, recipe.train_size) == ({"base": 2}, "gem", None)
    # A whole number is a number too.
    assert isinstance(recipe.augmentation.flip, float)
    assert recipe.epochs == 2 + 7 + 3 + 5


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "recipe_mine.toml"
    path.write_text("rate = 1e-5\n[[stages]]\nepochs = 2\n")
    recipe = read_recipe(str(path))
    assert recipe == Recipe("mine", "", (Stage(2),), rate=1e-5)
    assert read_text(str(path)) == path.read_text()


def test_values_that_are_none_are_left_alone():
    recipe = read_recipe("standard")
    assert with_values(recipe, rate=None, batch=8) == read_recipe("standard", ["batch=8"])
    with pytest.raises(RecipeError, match="batch is 2 or more, as batch norm needs; got 1"):
        with_values(recipe, batch=1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("rate", "changed like rate=1e-4 or stages.0.epochs=3; got 'rate'"),
        ("speed=1", "has no value speed; it has name, description, stages"),
        ("augmentation.blur=1", "augmentation has no value blur; it has crop"),
        ("rate.x=1", "no value 'rate.x' to change in recipe 'standard'"),
        ("stages.0.rate=-1", "a stage's rates are 0 or more; got -1"),
        ("stages.0.head_rate=nan", "a stage's rates are 0 or more; got nan"),
        ("target_weights.base=much", "a target's weight is 0 or more; got base=much"),
        ("stages.9.epochs=1", "no value 'stages.9.epochs' to change"),
        ("stages.last.epochs=1", "no value 'stages.last.epochs' to change"),
        ("stages=[]", r"has one \[\[stages\]\] or more; got \[\]"),
        ("stages=3", "or more; got 3"),
        ("stages=[{blocks = 1}]", "stages.0 needs epochs"),
        ("stages=[3]", "stages.0 should be a table; got 3"),
        ("augmentation=1", "augmentation should be a table; got 1"),
        ("rate=fast", "rate is a number; got 'fast'"),
        ("rate=true", "rate is a number; got True"),
        ("batch=1.5", "batch is a whole number; got 1.5"),
        ("batch=true", "batch is a whole number; got True"),
        ("network=3", "network is a text; got 3"),
        ("class_weights=1", "class_weights is true or false; got 1"),
        ("image_size=large", "image_size is a whole number or \"none\"; got 'large'"),
        ("warmup=2", "warmup is 0..1; got 2"),
        ("dropout=-0.1", "dropout is 0..1; got -0.1"),
        ("average=1.5", "average is 0..1; got 1.5"),
        ("augmentation.flip=2", r"augmentation\.flip is 0..1; got 2"),
        ("rate=-1", "rate is 0 or more; got -1"),
        ("rate=inf", "rate is 0 or more; got inf"),
        ("head_rate=nan", "head_rate is 0 or more; got nan"),
        ("optimizer=adam", "optimizer is adamw or sgd; got 'adam'"),
        ("schedule=step", "schedule is cosine or constant; got 'step'"),
        ("sampler=fair", "sampler is plain or inverse-frequency; got 'fair'"),
        ("precision=fp16", "precision is auto or bf16 or fp32; got 'fp16'"),
        ("image_size=8", "image_size is 16..1024 pixels; got 8"),
        ("train_size=2000", "train_size is 16..1024 pixels; got 2000"),
        ("stages.0.size=8", "size is 16..1024 pixels; got 8"),
        ("stages.0.epochs=0", "epochs is 1 or more; got 0"),
        ("stages.0.blocks=-2", "blocks is -1 or more; got -2"),
        ("batch=1", "batch is 2 or more, as batch norm needs; got 1"),
        ("validation=1", "validation is a share of the products, above 0 and below 1; got 1"),
        ("augmentation.crop=0", "augmentation has crop above 0 up to 1"),
        ("augmentation.hue=0.6", "hue 0..0.5"),
        ("augmentation.stretch=0.5", "stretch 1 or more"),
        ("augmentation.rotation=200", "rotation 0..180"),
        ("target_weights.base=-1", "a target's weight is 0 or more; got base=-1"),
        ("min_count=0", "min_count is 1 or more"),
        ("patience=-1", "patience and seed are 0 or more"),
        ("seed=-1", "patience and seed are 0 or more"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(change, sentence):
    with pytest.raises(RecipeError, match=sentence):
        read_recipe("standard", [change])


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"There is no recipe 'nope': it is none of attributes, .*no TOML file"):
        read_recipe("nope")
    with pytest.raises(RecipeError, match="There is no recipe"):
        read_text(str(tmp_path))
    for content in (b"rate = \n", b"\xff"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(RecipeError, match=r"bad\.toml is no TOML"):
            read_recipe(str(tmp_path / "bad.toml"))
    (tmp_path / "bad.toml").write_text("rate = 1\n")
    with pytest.raises(RecipeError, match=r"one \[\[stages\]\] or more; got None"):
        read_recipe(str(tmp_path / "bad.toml"))


def test_every_value_and_its_default_is_on_the_page():
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text("utf-8")
    section = page.split("## Every value of a recipe\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split(" | ")] for line in section.splitlines() if line.startswith("| `")]
    said = {row[0].strip("| `"): row[2].strip(" |") for row in rows}
    wanted = {f"augmentation.{name}": value for name, value in asdict(Augmentation()).items()}
    wanted |= {f"stages.N.{name}": value for name, value in asdict(Stage(1)).items()}
    wanted |= {one.name: one.default for one in fields(Recipe)}
    for name in ("name", "description", "stages", "augmentation"):
        del wanted[name]
    assert said.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, float):
            assert float(said[name]) == pytest.approx(value, abs=5e-3 if value > 1 else 1e-9), name
        elif isinstance(value, str):
            assert said[name] == value, name
