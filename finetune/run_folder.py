"""The folder of a run: begun once, gone on with only as it was begun, and kept up to date while training."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.plots import draw_error, draw_loss
from indexer.files import ASIDE, replace_file

if TYPE_CHECKING:
    from data.catalog import Catalog
    from finetune.networks import NetworkCard
    from finetune.outcome import Epoch
    from finetune.photos import Division, PhotoSet
    from finetune.recipe import Recipe, Stage

CONFIG, LABELS, METRICS, STAGES = "config.json", "labels.json", "metrics.csv", "stages.csv"
LOSS, ERROR = "loss.png", "error.png"
_LOCK = ".lock"
# Of what differs, so much is told.
_TOLD = 5
_LONGEST = 60
_DIGEST = "photos.digest"
# Values of a recipe that change nothing in a run.
_SAID_ONLY = ("recipe.name", "recipe.description")


class RunFolderError(ValueError):
    """A folder that no run can begin in, or that this run cannot go on in."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run does, all of which must be the same where it goes on.

    Args:
        recipe: How.
        division: On what.
        network: What its network is.
        learned: Parameters that learn in each stage.
        catalog: Where the photos are.
        command: That began it.
    """

    recipe: Recipe
    division: Division
    network: NetworkCard
    learned: tuple[int, ...]
    catalog: str
    command: str


def check_folder(folder: Path, *, resume: bool) -> None:
    """Refuses a folder that holds something, or none where a run should go on.

    Raises:
        RunFolderError: It does, or there is no run to go on with.
    """
    if resume and not (folder / CONFIG).is_file():
        raise RunFolderError(
            f"There is no run in {folder} to go on with: it has no {CONFIG}. Leave --resume out to begin one."
        )
    if resume or not folder.exists():
        return
    if not folder.is_dir():
        raise RunFolderError(f"A run is a folder; {folder} is a file. Choose another --out.")
    if (folder / CONFIG).is_file():
        raise RunFolderError(f"{folder} holds a run already. Go on with it by --resume, or choose another --out.")
    # What a run that was killed at its very beginning leaves.
    held = next((path.name for path in folder.iterdir() if path.name != _LOCK and path.suffix != ASIDE), None)
    if held is not None:
        raise RunFolderError(f"A new or empty folder was wanted for the run; {folder} holds {held}.")


def check_beside(folder: Path, catalog: Catalog) -> None:
    """Refuses a folder in which the run's own pictures would become photos of the catalog.

    Raises:
        RunFolderError: It lies in a catalog that is whatever photos a folder holds.
    """
    if catalog.format == "folder" and folder.resolve().is_relative_to(catalog.root.resolve()):
        raise RunFolderError(
            f"The run {folder} would lie among the photos of {catalog.root}, and its pictures would be taken for "
            "photos. Choose another --out."
        )


def open_run(folder: Path, plan: RunPlan) -> dict[str, Any]:
    """Begins a run with its config.json and labels.json, or makes sure that it goes on as it was begun; its config.

    Raises:
        RunFolderError: It was begun with another recipe, network, labels or photos; the message says what differs.
        OSError: The folder cannot be written.
    """
    # As JSON gives it back, so that a begun one can be compared with it.
    config: dict[str, Any] = json.loads(_json(_config(plan)))
    if (folder / CONFIG).is_file():
        begun = read_config(folder)
        _check_same(folder, begun, config)
        return begun
    labels = {
        target: {name: number for number, name in enumerate(names)} for target, names in plan.division.targets.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / LABELS, _json(labels))
    # Last: a folder that has it has begun.
    replace_file(folder / CONFIG, _json(config))
    return config


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a run.

    Raises:
        RunFolderError: It has none that can be read.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}. Begin a new run with another --out.") from error
    if not isinstance(config, dict) or config.get("modiste_checkpoint") != 1:
        raise RunFolderError(f"{path} is none of a run of this Modiste. Begin a new run with another --out.")
    return config


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from training in the folder.

    Raises:
        RunFolderError: One does.
    """
    import filelock

    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / _LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise RunFolderError(f"Another process trains in {folder}. Wait for it, or choose another --out.") from error
    try:
        yield
    finally:
        lock.release()


def write_progress(folder: Path, plan: RunPlan, epochs: Sequence[Epoch]) -> None:
    """Writes metrics.csv, stages.csv, loss.png and error.png of all epochs so far.

    Raises:
        OSError: One could not be written; the one before stands.
    """
    replace_file(folder / METRICS, table([_metrics(one) for one in epochs]))
    replace_file(folder / STAGES, table(stage_rows(plan, epochs)))
    replace_file(folder / LOSS, draw_loss(epochs))
    replace_file(folder / ERROR, draw_error(epochs))


def stage_rows(plan: RunPlan, epochs: Sequence[Epoch]) -> list[dict[str, Any]]:
    """The stage table: what was open, for how long, and how good it got; a row for each stage that has begun."""
    rows = []
    for number, (stage, learned) in enumerate(zip(plan.recipe.stages, plan.learned, strict=True), 1):
        own = [one for one in epochs if one.stage == number]
        if own:
            best = max(own, key=lambda one: (one.validation_accuracy, -one.validation_loss))
            rows.append(
                {
                    "stage": number,
                    "open": what_is_open(plan.recipe, stage),
                    "epochs": len(own),
                    "best_epoch": best.number,
                    "best_validation_accuracy": round(best.validation_accuracy, 6),
                    "learned_parameters": learned,
                    "seconds": round(sum(one.seconds + one.validation_seconds for one in own), 1),
                }
            )
    return rows


def what_is_open(recipe: Recipe, stage: Stage) -> str:
    """What learns in a stage, in words."""
    new = "adapter and classifier" if recipe.adapter else "classifier"
    if stage.blocks == -1:
        return "all"
    return new if stage.blocks == 0 else f"{new}, last {stage.blocks} block{'s' * (stage.blocks > 1)}"


def table(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as CSV, the columns those of the first."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _metrics(one: Epoch) -> dict[str, Any]:
    """A line of metrics.csv."""
    row = {"epoch": one.number} | asdict(one)
    del row["number"]
    accuracies = {f"validation_accuracy:{target}": value for target, value in row.pop("accuracies").items()}
    row = {name: round(value, 6) if isinstance(value, float) else value for name, value in (row | accuracies).items()}
    # Rates may be smaller than what rounding leaves.
    return row | {"rate": one.rate, "head_rate": one.head_rate, "is_best": int(one.is_best)}


def _config(plan: RunPlan) -> dict[str, Any]:
    network, division = plan.network, plan.division
    return {
        "modiste_checkpoint": 1,
        "network": network.config,
        "image_size": network.image_size,
        "image_mean": list(network.mean),
        "image_std": list(network.std),
        "pooling": network.pooling,
        "targets": {target: list(names) for target, names in division.targets.items()},
        "recipe": asdict(plan.recipe),
        "weights": network.weights,
        "licence": network.licence,
        "catalog": plan.catalog,
        "photos": {
            "train": len(division.train.items),
            "validation": len(division.validation.items),
            "digest": _digest((division.train, division.validation)),
        },
        "command": plan.command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _digest(sets: Sequence[PhotoSet]) -> str:
    """Differs where photos, their boxes, their order or their labels do."""
    digest = hashlib.blake2b(digest_size=16)
    for photos in sets:
        digest.update(json.dumps([(item.item_id, item.box and asdict(item.box)) for item in photos.items]).encode())
        for target, y in photos.y.items():
            digest.update(target.encode() + np.ascontiguousarray(y, dtype="<i8").tobytes())
    return digest.hexdigest()


def _check_same(folder: Path, begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises RunFolderError where a run that was begun so would go on otherwise."""
    before, after = _decisive(begun), _decisive(now)
    names = [name for name in {**before, **after} if name not in _SAID_ONLY and before.get(name) != after.get(name)]
    # Only where all else is the same does it tell anything by itself.
    names = [name for name in names if name != _DIGEST] or names
    if not names:
        return
    told = "; ".join(
        "as many photos, but others, or with other labels or boxes"
        if name == _DIGEST
        else f"{name.removeprefix('recipe.')} was {_said(before.get(name))} and is {_said(after.get(name))}"
        for name in names[:_TOLD]
    )
    more = f"; and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    raise RunFolderError(
        f"The run in {folder} goes on only as it was begun; {told}{more}. Give what it was begun with "
        f"(its README.md and {CONFIG} say it), or begin another with a new --out."
    )


def _decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """What must not differ where a run goes on, by its place."""
    values = {key: config.get(key) for key in ("recipe", "network", "image_size", "pooling", "photos")}
    targets = config.get("targets", {})
    return _flat(values) | {"targets": ", ".join(targets)} | {f"labels of {key}": of for key, of in targets.items()}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Values by their place, as `stages.0.rate`."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        return {name: value}
    return {key: one for place, below in inner for key, one in _flat(below, f"{name}.{place}".lstrip(".")).items()}


def _said(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rstrip()} ..."


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
