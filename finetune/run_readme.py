"""The README.md of a run: what was run and how it went, in plain words."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.files import file_part

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune.outcome import Epoch

# Of confusions, of rare labels and of unreadable photos, so many are told.
_TOLD = 6
_FIGURES = """
Of the best epoch, on the validation photos. Precision, recall and F1 are means over labels. The epoch was chosen on
these photos, so new ones will be answered a little worse. The calibration error is that of the probabilities as
trained; a gallery that takes the run in fits a temperature.
"""
_TRAINING = """
Loss and accuracy in training are of photos that were changed at random, while the network still learned; they are
usually worse than those of validation.
"""
_FILES = """
| file | what |
|---|---|
| `best.safetensors` | weights of the best epoch |
| `last.safetensors` | what `--resume` goes on from; may be deleted once the run has ended |
| `config.json`, `labels.json` | network, preprocessing, recipe and photos; class numbers of labels |
| `card.json` | the figures above and all that goes with them |
| `metrics.csv`, `loss.png`, `error.png` | epoch by epoch |
| `stages.csv` | stage by stage |
| `validation.csv`, `validation.safetensors` | what the best epoch says of each validation photo |
| `confusion-*.csv`, `confusion-*.png` | true labels against predicted ones, as counts and as percent |
"""


def readme(
    folder: Path,
    card: Mapping[str, Any],
    config: Mapping[str, Any],
    epochs: Sequence[Epoch],
    matrices: Mapping[str, NDArray[np.int64]],
) -> str:
    """The page, in Markdown.

    Args:
        folder: Of the run.
        card: Its card.
        config: Its config.json.
        epochs: In order.
        matrices: By target (C, C) counts of validation photos, a row for each true label.
    """
    best = epochs[card["best_epoch"] - 1]
    parts = [
        f"# A comparator for {_and(list(card['targets']))}",
        f"The best epoch, {best.number} of {len(epochs)}, is right on {100 * best.validation_accuracy:.1f} % of the "
        f"validation photos{' (a mean over targets)' if len(card['targets']) > 1 else ''}. {card['stopped']}".rstrip(),
        "## What was run",
        f"```\n{config['command']}\n```",
        _what(card, config),
        "## How good it is",
        _table(
            ["target", "labels", "photos", "accuracy", "95 %", "precision", "recall", "F1", "calibration error"],
            [_figure_row(target, of) for target, of in card["targets"].items()],
        ),
        _FIGURES.strip(),
        *(_confusions(target, list(of["labels"]), matrices[target]) for target, of in card["targets"].items()),
        "## How it went",
        "![error](error.png) ![loss](loss.png)",
        _table(list(card["stages"][0]), [list(stage.values()) for stage in card["stages"]]),
        _table(
            ["epoch", "stage", "loss", "accuracy", "validation loss", "validation accuracy", "rate", "seconds", ""],
            [_epoch_row(one, card["best_epoch"]) for one in epochs],
        ),
        _TRAINING.strip(),
        "## How to use it",
        _usage(folder, list(card["targets"])),
        "## Files",
        _FILES.strip(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(card: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Network, photos and machine, in sentences."""
    sentences = [
        f"Recipe `{card['recipe']}`, seed {card['seed']}: {card['network']}, {card['parameters']:,} parameters; "
        f"weights: {card['weights']}.",
        f"Photos of `{config['catalog']}`: {card['train_photos']:,} to learn from, {card['validation_photos']:,} to "
        f"validate with; {card['left_out']:,} left out: beyond a --limit, of the split `test` or without "
        "a label that is learned.",
        f"It took {_duration(card['seconds'])} on {card['device']} in {card['precision']}, with torch "
        f"{card['versions']['torch']}: {card['photos_per_second']:g} photos a second.",
    ]
    for target, of in card["targets"].items():
        if of["rare"]:
            told = [f"{_code(name)} ({count})" for name, count in of["rare"].items()]
            sentences.append(f"Too rare to learn in {_code(target)}: {_some(told)}.")
    if card["unreadable"]:
        told = [f"{_code(item_id)} ({reason.rstrip('.')})" for item_id, reason in card["unreadable"].items()]
        sentences.append(f"Could not be read: {_some(told)}.")
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _figure_row(target: str, of: Mapping[str, Any]) -> list[str]:
    own = of["figures"]
    means = [own["macro_precision"], own["macro_recall"], own["macro_f1"], own["calibration_error_before"]]
    return [
        *(_code(target), str(len(of["labels"])), str(own["photos"]), f"{own['accuracy']:.3f}"),
        f"{own['accuracy_low']:.3f} to {own['accuracy_high']:.3f}",
        *(f"{value:.3f}" for value in means),
    ]


def _epoch_row(one: Epoch, best: int) -> list[str]:
    return [
        *(str(one.number), str(one.stage), f"{one.train_loss:.4f}", f"{one.train_accuracy:.4f}"),
        *(f"{one.validation_loss:.4f}", f"{one.validation_accuracy:.4f}", f"{one.rate:g}"),
        *(f"{one.seconds + one.validation_seconds:.1f}", "best" if one.number == best else ""),
    ]


def _confusions(target: str, names: Sequence[str], matrix: NDArray[np.int64]) -> str:
    """The commonest mistakes of a target, in sentences."""
    wrong = matrix * (1 - np.eye(len(names), dtype=np.int64))
    # The commonest first; of equals, in class order.
    places = sorted(zip(*np.nonzero(wrong > 1), strict=True), key=lambda place: -int(wrong[place]))[:_TOLD]
    picture = f"![{target}](<confusion-{quoted(target)}-normalised.png>)"
    if not places:
        return f"### Confusions of {_code(target)}\n\nNo mistake was made twice.\n\n{picture}"
    lines = [
        f"- {wrong[row, column]} of {matrix[row].sum()} photos of {_code(names[row])} were taken for "
        f"{_code(names[column])}."
        for row, column in places
    ]
    return f"### Confusions of {_code(target)}\n\n{chr(10).join(lines)}\n\n{picture}"


def quoted(target: str) -> str:
    """The part of a file's name as a link to it has it."""
    return file_part(target).replace("%", "%25")


def _usage(folder: Path, targets: Sequence[str]) -> str:
    """Commands that take the run."""
    run, names = shlex.quote(str(folder.resolve())), shlex.quote(",".join(targets))
    lines = [
        ("the fine-tuned backbone as encoder", f"modiste index CATALOG --gallery GALLERY --encoder {run}"),
        ("its answers in a gallery of any encoder", f"modiste fit --gallery GALLERY --run {run}"),
        ("", "modiste classify PHOTOS --gallery GALLERY --head comparator"),
        (
            "frozen features against fine-tuning",
            f"modiste compare --gallery GALLERY --run {run} --targets {names} --queries CATALOG --report report.html",
        ),
    ]
    return "```\n" + "\n".join(f"# {what}\n{line}" if what else line for what, line in lines) + "\n```"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in cells)


def _code(name: str) -> str:
    """A name from the catalog, that cannot become Markdown."""
    return f"`{' '.join(name.replace('`', chr(39)).split())}`"


def _some(told: Sequence[str]) -> str:
    return ", ".join(told[:_TOLD]) + (f" and {len(told) - _TOLD} more" if len(told) > _TOLD else "")


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(map(_code, names[:-1])), _code(names[-1])]))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
