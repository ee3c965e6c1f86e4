"""How good is a fine-tuned network beside frozen features? Trained, compared and indexed by Modiste's commands.

Expected before the first run (docs/experiments.md): clothing-small 0.935, the fifteen types 0.92, each of the four
targets of `attributes` above the linear head, and a first neighbour that agrees 0.10 more often.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bench.heads import ENCODER, fifteen_only
from bench.machine import DATASETS, SCRATCH, print_table, require, timed_command
from bench.quality import RELEVANT, split_styles

PARTS = ("clothing", "fifteen", "attributes")
ATTRIBUTES = ("baseColour", "articleType", "season", "gender")


def trained(catalog: Path, targets: Sequence[str], run: Path, recipe: Sequence[str], *, seed: int) -> dict[str, Any]:
    """The card of a run, which goes on where it was left and is kept where it is whole."""
    words = ["finetune", catalog, *recipe, "--targets", ",".join(targets), "--out", run, "--seed", str(seed)]
    if not (run / "card.json").exists():
        # Hours of work: what it says is shown.
        more = ["--resume"] if (run / "config.json").exists() else []
        subprocess.run([sys.executable, "-m", "cli", *map(str, words), *more], check=True, stdout=sys.stderr)
    card: dict[str, Any] = json.loads((run / "card.json").read_text("utf-8"))
    return card


def epochs_of(run: Path) -> list[dict[str, str]]:
    """The lines of a run's metrics.csv."""
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def compared(catalog: Path, queries: Path, targets: Sequence[str], runs: Sequence[Path], folder: Path) -> list[Any]:
    """What `modiste compare` says of runs and of heads on frozen features, target by target."""
    gallery = folder / "frozen"
    if not gallery.exists():
        timed_command("index", catalog, "--gallery", gallery, *ENCODER)
    words = [word for run in runs for word in ("--run", run)]
    words += ["--targets", ",".join(targets), "--queries", queries, "--head", "knn,linear,ensemble"]
    _, _, printed = timed_command("compare", "--gallery", gallery, *words, "--report", folder / "report.html", "--json")
    answer: list[Any] = json.loads(printed)["targets"]
    return answer


def neighbours(catalog: Path, queries: Path, encoders: Sequence[tuple[str, Path | str]], folder: Path) -> None:
    """How often the first neighbours agree, encoder by encoder."""
    rows = []
    for number, (name, encoder) in enumerate(encoders):
        gallery = folder / f"neighbours-{number}"
        shutil.rmtree(gallery, ignore_errors=True)
        timed_command("index", catalog, "--gallery", gallery, "--encoder", encoder)
        words = ["evaluate", "neighbours", "--gallery", gallery, "--queries", queries, "--relevant", RELEVANT, "--json"]
        _, _, printed = timed_command(*words)
        answer = json.loads(printed)
        for same, figures in {RELEVANT: answer, **answer["by_target"]}.items():
            cells = [
                f"{figures[key]:.3f} ({figures[key + '_low']:.3f} to {figures[key + '_high']:.3f})"
                for key in ("hit_rate_at_1", "precision_at_10")
            ]
            rows.append([name, same, answer["queries"], *cells])
    print_table(
        "Neighbours on fashion-products, queries md5(id) % 10 == 1",
        ["encoder", "same", "queries", "hit_rate_at_1", "precision_at_10"],
        rows,
    )


def show(name: str, answers: Sequence[Any], runs: Sequence[Path], spread: bool) -> None:
    """The table of a comparison, and what its tests say."""
    rows = []
    for answer in answers:
        for head, figures in answer["heads"].items():
            cells = [f"{figures[key]:.3f}" for key in ("macro_f1", "calibration_error")]
            interval = f"{figures['accuracy']:.3f} ({figures['accuracy_low']:.3f} to {figures['accuracy_high']:.3f})"
            rows.append([answer["target"], head, answer["queries"], interval, *cells])
    print_table(name, ["target", "head", "photos", "accuracy", "macro F1", "calibration error"], rows)
    for answer in answers:
        print(f"\n- {answer['target']}: {answer['verdict']['sentence']}")
        if spread:
            found = [answer["heads"][head]["accuracy"] for head in answer["heads"] if head.startswith("comparator")]
            print(f"- {answer['target']}, {len(runs)} seeds: mean {mean(found):.3f}, deviation {stdev(found):.3f}")


def training_table(runs: Sequence[Path]) -> None:
    rows = []
    for run in runs:
        epochs, card = epochs_of(run), json.loads((run / "card.json").read_text("utf-8"))
        best = max(epochs, key=lambda epoch: (float(epoch["validation_accuracy"]), -float(epoch["validation_loss"])))
        seconds = sum(float(epoch["seconds"]) + float(epoch["validation_seconds"]) for epoch in epochs)
        rates = [float(epoch["photos"]) / float(epoch["seconds"]) for epoch in epochs]
        shares = [f"{float(epoch['validation_accuracy']):.4f}" for epoch in (best, epochs[-1])]
        rows.append(
            [run.name, card["seed"], len(epochs), *shares, f"{seconds / 60:.1f}", f"{sum(rates) / len(rates):.0f}"]
        )
    header = ["run", "seed", "epochs", "validation, best epoch", "validation, last epoch", "minutes", "photos/s"]
    print_table("Training", header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--train", action="store_true", help="train alone; what is trained is kept and measured later")
    options = parser.parse_args()
    products, messy = DATASETS / "fashion-products", DATASETS / "clothing-small"
    require(products)
    require(messy)
    folder = SCRATCH / "finetune"
    if not (folder / "products").exists():
        catalog, queries = split_styles(products, folder / "products", 1)
        for part in (catalog, queries):
            fifteen_only(part, folder / "fifteen" / part.name)
    settings = {
        "clothing": (messy, None, ("label",), (), options.seeds),
        "fifteen": (
            folder / "fifteen" / "gallery",
            folder / "fifteen" / "queries",
            ("articleType",),
            # Studio photos are learned sooner.
            ("--epochs", "3,2"),
            options.seeds,
        ),
        "attributes": (
            folder / "products" / "gallery",
            folder / "products" / "queries",
            ATTRIBUTES,
            ("--recipe", "attributes"),
            options.seeds[:1],
        ),
    }
    for part in options.parts:
        catalog, queries, targets, recipe, seeds = settings[part]
        runs = [folder / f"{part}-{seed}" for seed in seeds]
        for run, seed in zip(runs, seeds, strict=True):
            trained(catalog, targets, run, recipe, seed=seed)
        if options.train:
            continue
        training_table(runs)
        scratch = folder / f"measured-{part}"
        scratch.mkdir(exist_ok=True)
        if queries is None:
            catalog, queries = catalog / "train", catalog / "validation"
        show(
            f"Frozen features and fine-tuning: {part}",
            compared(catalog, queries, targets, runs, scratch),
            runs,
            len(runs) > 1,
        )
        if part == "attributes":
            encoders = [("efficientnet-lite0", ENCODER[1]), *((f"run {run.name}", run) for run in runs)]
            neighbours(catalog, queries, encoders, scratch)


if __name__ == "__main__":
    main()
