"""Transfer from one data set to another: five runs and one table.

After a study of Fashion-MNIST and DeepFashion: does a network that saw ImageNet, or one that reads grey thumbnails
through an adapter, learn the target's labels better than one that starts from nothing?
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from finetune.recipe import Recipe, RecipeError
from finetune.run import Listener, RunRequest, run
from finetune.run_folder import CONFIG, check_folder, table
from finetune.run_report import CARD
from finetune.stages import opening_after
from indexer.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = "source"
# What each run trains, as the table says it.
RUNS = {
    SOURCE: "a CNN of three convolutions, on the source",
    "scratch": "the network, from scratch",
    "imagenet": "the network, pretrained",
    "adapter-scratch": "adapter and network, from scratch",
    "adapter-imagenet": "adapter, and the network pretrained, closed at first",
}
TABLE, PAGE = "table.csv", "README.md"
_FIGURES = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "calibration_error_before")


@dataclass(frozen=True, slots=True)
class Transfer:
    """What is to be run.

    Args:
        runs: Names in RUNS.
        source: What the run `source` trains on, with folder, recipe and device as in `target`; None without it.
        target: What the others train on; its folder holds the runs' folders, its recipe what they share.
        unfreeze_after: Epochs after which the pretrained network behind the adapter opens.
    """

    runs: Sequence[str]
    source: RunRequest | None
    target: RunRequest
    unfreeze_after: int


def recipe_of_run(name: str, shared: Recipe, unfreeze_after: int) -> Recipe:
    """The recipe of one of RUNS.

    Args:
        name: Of the run.
        shared: What all runs share; its network and weights are those of the runs that begin pretrained.
        unfreeze_after: As `Transfer`.

    Raises:
        RecipeError: There is no such run, or it cannot be made of what is shared.
    """
    if name not in RUNS:
        raise RecipeError(f"There is no run '{name}'; the runs are {', '.join(RUNS)}.")
    if shared.weights == "scratch":
        raise RecipeError("The weights are those of the pretrained runs: `pretrained` or a folder; got scratch.")
    # Where all is new, the backbone learns as fast as a classifier does.
    scratch = replace(shared, weights="scratch", rate=shared.head_rate)
    # The sides are those of the network of 28 pixels and of the adapter.
    own_side: dict[str, Any] = {"image_size": None, "train_size": None}
    return {
        SOURCE: lambda: replace(scratch, network="simple-cnn", pooling=None, **own_side),
        "scratch": lambda: scratch,
        "imagenet": lambda: shared,
        "adapter-scratch": lambda: replace(scratch, adapter=True, **own_side),
        "adapter-imagenet": lambda: opening_after(replace(shared, adapter=True, **own_side), unfreeze_after),
    }[name]()


def run_transfer(transfer: Transfer, listener_of: Callable[[str], Listener]) -> list[dict[str, Any]]:
    """Trains the runs, one after the other, and writes table.csv and README.md after each; the rows of the table.

    A run that has ended is not trained again, one that was interrupted goes on, where `target.resume` says so.

    Args:
        transfer: What is to be run.
        listener_of: Who is told of a run, by its name.

    Raises:
        As finetune.run.run; the runs before stand.
    """
    folder, shared = transfer.target.folder, transfer.target.recipe
    # What cannot be is told before the first run.
    recipes = {name: recipe_of_run(name, shared, transfer.unfreeze_after) for name in transfer.runs}
    if SOURCE in recipes and transfer.source is None:
        raise RecipeError(f"The run '{SOURCE}' trains on another catalog; name it, or leave the run out.")
    requests = {}
    for name, recipe in recipes.items():
        resume = transfer.target.resume and (folder / name / CONFIG).is_file()
        check_folder(folder / name, resume=resume)
        request = transfer.source if name == SOURCE and transfer.source is not None else transfer.target
        requests[name] = replace(request, recipe=recipe, folder=folder / name, resume=resume)
    for name, request in requests.items():
        run(request, listener_of(name))
        _write_table(folder)
    return read_table(folder)


def read_table(folder: Path) -> list[dict[str, Any]]:
    """A row for each run in the folder that has ended, and each of its targets."""
    rows = []
    for name, what in RUNS.items():
        path = folder / name / CARD
        if not path.is_file():
            continue
        card = json.loads(path.read_text("utf-8"))
        for target, of in card["targets"].items():
            rows.append(
                {
                    "run": name,
                    "what": what,
                    "network": card["network"],
                    "weights": card["weights"],
                    "target": target,
                    "labels": len(of["labels"]),
                    "train_photos": card["train_photos"],
                    "validation_photos": of["figures"]["photos"],
                    **{figure: of["figures"][figure] for figure in _FIGURES},
                    "parameters": card["parameters"],
                    "best_epoch": card["best_epoch"],
                    "epochs": card["epochs"],
                    "seconds": card["seconds"],
                    "photos_per_second": card["photos_per_second"],
                    "stopped": card["stopped"],
                    "diverged": card["diverged"],
                }
            )
    return rows


def _write_table(folder: Path) -> None:
    rows = read_table(folder)
    replace_file(folder / TABLE, table(rows))
    replace_file(folder / PAGE, _page(rows).encode())


def _page(rows: Sequence[dict[str, Any]]) -> str:
    """The table as a page of Markdown."""
    header = ["run", "what", "target", "photos", "accuracy", "95 %", "macro F1", "parameters", "best epoch", "seconds"]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        low, high = row["accuracy_low"], row["accuracy_high"]
        lines.append(
            [
                *(f"[{row['run']}]({row['run']}/README.md)", row["what"], f"`{row['target']}`"),
                *(f"{row['train_photos']} + {row['validation_photos']}", f"{row['accuracy']:.3f}"),
                *(f"{low:.3f} to {high:.3f}", f"{row['macro_f1']:.3f}", f"{row['parameters']:,}"),
                *(f"{row['best_epoch']} of {row['epochs']}", f"{row['seconds']:.0f}"),
            ]
        )
    body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return (
        f"# Transfer\n\n{body}\n\n"
        "Photos are those that taught and those that validated. Figures are of the best epoch, chosen on the latter.\n"
        f"The run `{SOURCE}` has other photos and labels than the others, and is not to be compared with them.\n"
    )
