"""Recipes: how a comparator is trained, as values that a TOML file holds and the command line may change."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

_FOLDER = Path(__file__).parent
_PREFIX = "recipe_"
_T = TypeVar("_T")


class RecipeError(ValueError):
    """A recipe that is none: an unknown name, or a value that cannot be."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of training with its own learning rates, at the end of which they have come down.

    Args:
        epochs: Passes over the training photos, 1 or more.
        blocks: Blocks of the backbone that learn, counted from the last one: 0 is the classifier alone, -1, or as
            many as there are, all.
        rate: Learning rate of the backbone; None for the recipe's.
        head_rate: And of the classifier.
        size: Side of the training photos, pixels; None for the recipe's.
    """

    epochs: int
    blocks: int = -1
    rate: float | None = None
    head_rate: float | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How training photos are changed at random, each photo anew in each epoch.

    Args:
        crop: Smallest share of the letterboxed photo's area that a crop keeps, above 0; 1 crops nothing.
        stretch: Largest ratio of a crop's sides, 1 or more.
        flip: Share of photos that are mirrored, 0..1.
        rotation: Largest turn, degrees, 0..180.
        brightness: Largest relative change, 0..1; the next three likewise.
        contrast: About the middle grey.
        saturation: Towards grey and away from it.
        hue: As a share of the colour circle, 0..0.5.
        erase: Share of photos of which a random rectangle becomes noise, 0..1.
    """

    crop: float = 1.0
    stretch: float = 4 / 3
    flip: float = 0.5
    rotation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    erase: float = 0.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides how a comparator is trained, but for the photos.

    Args:
        name: Of its file.
        description: One sentence.
        stages: One or more, one after the other.
        augmentation: Of training photos.
        network: As finetune.networks.build_comparator.
        weights: `pretrained`, `scratch`, or the path of a local `transformers` folder or of a run.
        adapter: Whether photos become grey 28 x 28 first, and a learned module lifts them to the backbone.
        pooling: Of the backbone's last map or tokens; None for the network's own.
        image_size: Side of the photos at validation and afterwards; None for the network's own.
        train_size: And in training; None for `image_size`. Less is quicker, and crops make up for it.
        batch: Photos in a step.
        rate: Highest learning rate of the backbone.
        head_rate: And of the classifier.
        optimizer: `adamw` or `sgd` (with Nesterov momentum 0.9).
        schedule: Of each stage, after the warm-up: `cosine` down to 0, or `constant`.
        warmup: Share of each stage's steps in which the rate rises from 0.
        weight_decay: Of matrices; biases and norms have none.
        dropout: Before each target's linear layer, 0..1.
        label_smoothing: 0..1.
        mixup: Parameter of the Beta distribution that photos of a batch are mixed by; 0 mixes none.
        sampler: `plain`, or `inverse-frequency`: rare labels of the first target come as often as frequent ones.
        class_weights: Whether the loss of rare labels weighs more, by inverse frequency.
        target_weights: What a target's loss counts in the sum; 1 where a target is not named.
        clip: Largest norm of the gradient; 0 clips nothing.
        average: Decay of the running mean of the weights, which is what is validated and kept; 0 keeps the weights.
        patience: Epochs without a better validation after which training stops; 0 never stops early.
        precision: `auto` (bf16 where the device has it), `bf16` or `fp32`.
        min_count: Labels of fewer training photos are left out, and reported.
        validation: Share of products that validate, where the catalog names no split.
        seed: Of all that is random.
    """

    name: str
    description: str
    stages: tuple[Stage, ...]
    augmentation: Augmentation = field(default_factory=Augmentation)
    network: str = "efficientnet-lite0"
    weights: str = "pretrained"
    adapter: bool = False
    pooling: str | None = None
    image_size: int | None = None
    train_size: int | None = None
    batch: int = 32
    rate: float = 3e-4
    head_rate: float = 3e-3
    optimizer: str = "adamw"
    schedule: str = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.02
    dropout: float = 0.2
    label_smoothing: float = 0.0
    mixup: float = 0.0
    sampler: str = "plain"
    class_weights: bool = False
    target_weights: Mapping[str, float] = field(default_factory=dict)
    clip: float = 5.0
    average: float = 0.0
    patience: int = 0
    precision: str = "auto"
    min_count: int = 2
    validation: float = 0.1
    seed: int = 0

    @property
    def epochs(self) -> int:
        """Of all stages together."""
        return sum(stage.epochs for stage in self.stages)


def recipe_names() -> list[str]:
    """The recipes that come with Modiste."""
    return sorted(path.stem.removeprefix(_PREFIX) for path in _FOLDER.glob(f"{_PREFIX}*.toml"))


def read_recipe(name: str, changes: Iterable[str] = ()) -> Recipe:
    """A recipe by name or from a TOML file, with some values changed.

    Args:
        name: One of `recipe_names`, or the path of a TOML file.
        changes: Like `rate=1e-4`, `augmentation.flip=0` or `stages.0.epochs=3`, values in TOML; the last one counts.

    Raises:
        RecipeError: No such recipe, an unknown value, or one that cannot be.
    """
    path = _path(name)
    try:
        values: dict[str, Any] = tomllib.loads(read_text(name))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"Recipe {path} is no TOML: {error}.") from error
    values.setdefault("name", path.stem.removeprefix(_PREFIX))
    values.setdefault("description", "")
    for change in changes:
        _change(values, change)
    return recipe_of(values, str(path))


def read_text(name: str) -> str:
    """The TOML of a recipe, by name or from a file.

    Raises:
        RecipeError: No such recipe.
    """
    try:
        return _path(name).read_text("utf-8")
    except OSError as error:
        raise RecipeError(
            f"There is no recipe '{name}': it is none of {', '.join(recipe_names())}, and no TOML file to be read."
        ) from error


def _path(name: str) -> Path:
    return _FOLDER / f"{_PREFIX}{name}.toml" if name in recipe_names() else Path(name).expanduser()


def recipe_of(values: Mapping[str, Any], source: str) -> Recipe:
    """The recipe with these values, as `dataclasses.asdict` gives them and a run's config.json holds them.

    Raises:
        RecipeError: An unknown value, or one that cannot be.
    """
    stages = values.get("stages")
    if not isinstance(stages, list | tuple) or not stages:
        raise RecipeError(f"Recipe {source} has one [[stages]] or more; got {stages!r}.")
    parts = {
        "stages": tuple(_fill(Stage, stage, f"{source}, stages.{place}") for place, stage in enumerate(stages)),
        "augmentation": _fill(Augmentation, values.get("augmentation", {}), f"{source}, augmentation"),
    }
    recipe = _fill(Recipe, {**values, **parts}, source)
    _check(recipe, source)
    return recipe


def with_values(recipe: Recipe, **values: Any) -> Recipe:
    """The recipe with some values changed, those that are None left alone.

    Raises:
        RecipeError: A value that cannot be.
    """
    given = {name: value for name, value in values.items() if value is not None}
    return recipe_of(asdict(replace(recipe, **given)), recipe.name)


def _change(values: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals:
        raise RecipeError(f"A value is changed like rate=1e-4 or stages.0.epochs=3; got {change!r}.")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        # A name needs no quotes.
        value = text.strip()
    *path, last = key.strip().split(".")
    place: Any = values
    try:
        for name in path:
            place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
        place[int(last) if isinstance(place, list) else last] = value
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise RecipeError(f"There is no value {key.strip()!r} to change in recipe '{values['name']}'.") from error


def _fill(kind: type[_T], values: Any, source: str) -> _T:
    """The dataclass of these values, each of the type that it has there."""
    if not isinstance(values, Mapping):
        raise RecipeError(f"{source} should be a table; got {values!r}.")
    types = get_type_hints(kind)
    unknown = [name for name in values if name not in types]
    if unknown:
        raise RecipeError(f"{source} has no value {', '.join(unknown)}; it has {', '.join(types)}.")
    missing = [one.name for one in fields(kind) if one.name == "epochs" and "epochs" not in values]  # type: ignore[arg-type]
    if missing:
        raise RecipeError(f"{source} needs {', '.join(missing)}.")
    return kind(**{name: _typed(value, types[name], f"{source}: {name}") for name, value in values.items()})


def _typed(value: Any, wanted: Any, where: str) -> Any:
    kinds = get_args(wanted) if get_origin(wanted) not in (tuple, Mapping) and get_args(wanted) else (wanted,)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = [get_origin(kind) or kind for kind in kinds]
    if value in ("none", "") and type(None) in plain:
        return None
    if (isinstance(value, bool) and bool not in plain) or not isinstance(value, tuple(plain)):
        raise RecipeError(f"{where} is {' or '.join(_SAID.get(kind, kind.__name__) for kind in plain)}; got {value!r}.")
    return value


_SAID = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): '"none"'}


def _check(recipe: Recipe, source: str) -> None:
    """Raises RecipeError where a value is out of its range."""
    one, change = recipe, recipe.augmentation
    shares = {name: getattr(one, name) for name in ("warmup", "dropout", "label_smoothing", "average")}
    shares |= {f"augmentation.{name}": getattr(change, name) for name in ("flip", "erase", "brightness")}
    shares |= {f"augmentation.{name}": getattr(change, name) for name in ("contrast", "saturation")}
    wrong = [f"{name} is 0..1; got {value:g}" for name, value in shares.items() if not 0 <= value <= 1]
    for name in ("rate", "head_rate", "mixup", "clip", "weight_decay"):
        if not 0 <= getattr(one, name) < float("inf"):
            wrong.append(f"{name} is 0 or more; got {getattr(one, name):g}")
    choices = {
        "optimizer": ("adamw", "sgd"),
        "schedule": ("cosine", "constant"),
        "sampler": ("plain", "inverse-frequency"),
        "precision": ("auto", "bf16", "fp32"),
    }
    wrong += [
        f"{name} is {' or '.join(known)}; got {getattr(one, name)!r}"
        for name, known in choices.items()
        if getattr(one, name) not in known
    ]
    sizes = [("image_size", one.image_size), ("train_size", one.train_size), *(("size", s.size) for s in one.stages)]
    wrong += [f"{name} is 16..1024 pixels; got {value}" for name, value in sizes if value and not 16 <= value <= 1024]
    wrong += [f"epochs is 1 or more; got {stage.epochs}" for stage in one.stages if stage.epochs < 1]
    wrong += [f"blocks is -1 or more; got {stage.blocks}" for stage in one.stages if stage.blocks < -1]
    if one.batch < 2:
        wrong.append(f"batch is 2 or more, as batch norm needs; got {one.batch}")
    if not 0 < one.validation < 1:
        wrong.append(f"validation is a share of the products, above 0 and below 1; got {one.validation:g}")
    if not 0 < change.crop <= 1 or change.stretch < 1 or not 0 <= change.hue <= 0.5 or not 0 <= change.rotation <= 180:
        wrong.append("augmentation has crop above 0 up to 1, stretch 1 or more, hue 0..0.5 and rotation 0..180")
    wrong += [
        f"a target's weight is 0 or more; got {name}={weight}"
        for name, weight in one.target_weights.items()
        if not isinstance(weight, int | float) or not 0 <= weight < float("inf")
    ]
    rates = [rate for stage in one.stages for rate in (stage.rate, stage.head_rate) if rate is not None]
    wrong += [f"a stage's rates are 0 or more; got {rate:g}" for rate in rates if not 0 <= rate < float("inf")]
    if one.min_count < 1 or one.patience < 0 or one.seed < 0:
        wrong.append("min_count is 1 or more, patience and seed are 0 or more")
    if wrong:
        raise RecipeError(f"Recipe {source}: {'; '.join(wrong)}.")
