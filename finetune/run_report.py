"""What a run leaves when it ends: its card, its validation photos one by one, confusion matrices and a README."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.plots import draw_confusion
from finetune.run_folder import stage_rows, table
from finetune.run_readme import readme
from heads.metrics import accuracy, calibration_error, confusion_matrix, label_scores, log_loss, macro, wilson_interval
from indexer.files import file_part, replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune.outcome import Trained
    from finetune.run_folder import RunPlan

CARD, README, VALIDATION = "card.json", "README.md", "validation.csv"
_WEIGHTS = "best.safetensors"
_LIBRARIES = ("modiste", "torch", "transformers", "accelerate", "numpy", "pillow")


def write_report(folder: Path, plan: RunPlan, trained: Trained, config: Mapping[str, Any]) -> dict[str, Any]:
    """Writes validation.csv, the confusion matrices, README.md and, last, card.json; what this holds.

    Args:
        folder: Of the run.
        plan: What it did.
        trained: How it went.
        config: Its config.json.

    Raises:
        OSError: One could not be written.
    """
    labels = plan.division.targets
    replace_file(folder / VALIDATION, table(list(_validation_rows(trained, labels))))
    matrices = {}
    for target, names in labels.items():
        truth, predicted = trained.validation.y[target], trained.validation.logits[target].argmax(axis=1)
        matrices[target] = matrix = confusion_matrix(truth, predicted, len(names))
        name = f"confusion-{file_part(target)}"
        rows = [
            {"true label": true, **dict(zip(names, row, strict=True))} for true, row in zip(names, matrix, strict=True)
        ]
        replace_file(folder / f"{name}.csv", table(rows))
        replace_file(folder / f"{name}.png", draw_confusion(matrix, names, target=target))
        replace_file(folder / f"{name}-normalised.png", draw_confusion(matrix, names, target=target, normalised=True))
    card = _card(folder, plan, trained, config)
    replace_file(folder / README, readme(folder, card, config, trained.epochs, matrices).encode())
    replace_file(folder / CARD, (json.dumps(card, ensure_ascii=False, indent=2) + "\n").encode())
    return card


def figures(logits: NDArray[np.float32], y: NDArray[np.int64]) -> dict[str, Any]:
    """How good answers are, with probabilities as they were trained, before any temperature.

    Args:
        logits: (V, C).
        y: (V,) class numbers; photos with -1 are left out.
    """
    truth, said = y[y >= 0], softmax(logits[y >= 0])
    predicted = said.argmax(axis=1)
    right = truth == predicted
    low, high = wilson_interval(int(right.sum()), len(right))
    means = macro(label_scores(truth, predicted, logits.shape[1]))
    return {
        "photos": len(truth),
        "accuracy": accuracy(truth, predicted),
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_precision": means.precision,
        "macro_recall": means.recall,
        "macro_f1": means.f1,
        "log_loss": log_loss(truth, said),
        "calibration_error_before": calibration_error(said.max(axis=1), right),
    }


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities, (V, C), of logits."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _validation_rows(trained: Trained, labels: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    """A row a photo: for each target its label, empty where it has none, what was predicted, and how surely."""
    validation = trained.validation
    said = {target: softmax(of) for target, of in validation.logits.items()}
    for place, item_id in enumerate(validation.item_ids):
        row: dict[str, Any] = {"item_id": item_id}
        for target, names in labels.items():
            number = validation.y[target][place]
            chances = said[target][place]
            row[target] = names[number] if number >= 0 else ""
            row[f"{target} predicted"] = names[int(chances.argmax())]
            row[f"{target} probability"] = f"{chances.max():.4f}"
        yield row


def _card(folder: Path, plan: RunPlan, trained: Trained, config: Mapping[str, Any]) -> dict[str, Any]:
    division, network = plan.division, plan.network
    learned_in = sum(one.seconds for one in trained.epochs)
    return {
        "kind": "comparator",
        "recipe": plan.recipe.name,
        "network": network.name,
        "weights": network.weights,
        "licence": network.licence,
        "parameters": network.parameters
        + sum((network.dimension + 1) * len(names) for names in division.targets.values()),
        "bytes": (folder / _WEIGHTS).stat().st_size,
        "dimension": network.dimension,
        "pooling": network.pooling,
        "image_size": network.image_size,
        "catalog": config["catalog"],
        "train_photos": len(division.train.items),
        "validation_photos": len(trained.validation.item_ids),
        "left_out": division.left_out,
        "unreadable": dict(trained.unreadable),
        "targets": {
            target: {
                "labels": {
                    name: {"train": train, "validation": validation}
                    for name, train, validation in zip(
                        names,
                        *(_counts(of[target], len(names)) for of in (division.train.y, trained.validation.y)),
                        strict=True,
                    )
                },
                "rare": dict(division.rare[target]),
                "figures": figures(trained.validation.logits[target], trained.validation.y[target]),
            }
            for target, names in division.targets.items()
        },
        "stages": stage_rows(plan, trained.epochs),
        "epochs": len(trained.epochs),
        "best_epoch": trained.best,
        "stopped": trained.stopped,
        "diverged": trained.diverged,
        "seconds": round(trained.seconds, 1),
        "photos_per_second": round(sum(one.photos for one in trained.epochs) / max(1e-9, learned_in), 1),
        "seed": plan.recipe.seed,
        "device": trained.device,
        "precision": trained.precision,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES},
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _counts(y: NDArray[np.int64], count: int) -> list[int]:
    return [int(number) for number in np.bincount(y[y >= 0], minlength=count)]
