"""Curves and confusion matrices as PNGs."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from finetune.outcome import Epoch

# As data.sheet has them.
_INK, _MUTED, _LINE = "#26282b", "#75787d", "#dcdde0"
_TRAIN, _VALIDATION = "#9aa0a8", "#1d5fbf"
_DPI = 120
# A cell of a confusion matrix, inches, where there are few labels and where there are many.
_LARGE, _SMALL = 0.5, 0.23
# Above so many labels a cell is but a dot: the picture would be larger than what reads it. The CSV has the numbers.
_MOST = 150
# Signs of a label that are drawn.
_LONGEST = 28


def draw_loss(epochs: Sequence[Epoch]) -> bytes:
    """A PNG of the training and validation loss of each epoch."""
    figure, axes = _curves(epochs, "loss", lambda one: one.train_loss, lambda one: one.validation_loss)
    axes.set_title("Loss", loc="left", fontsize=12, color=_INK)
    return _png(figure)


def draw_error(epochs: Sequence[Epoch]) -> bytes:
    """A PNG of the share of wrong answers in each epoch, with the best accuracy of each stage."""
    figure, axes = _curves(
        epochs,
        "wrong answers, %",
        lambda one: 100 * (1 - one.train_accuracy),
        lambda one: 100 * (1 - one.validation_accuracy),
    )
    axes.set_title("Error, and the best validation accuracy of each stage", loc="left", fontsize=12, color=_INK)
    axes.set_ylim(bottom=0)
    for stage in sorted({one.stage for one in epochs}):
        own = [one for one in epochs if one.stage == stage and math.isfinite(one.validation_accuracy)]
        if not own:
            continue
        best = max(own, key=lambda one: (one.validation_accuracy, -one.validation_loss))
        place = (best.number, 100 * (1 - best.validation_accuracy))
        axes.plot(*place, "o", color=_VALIDATION, markersize=7, markeredgecolor="white")
        axes.annotate(
            f"{best.validation_accuracy:.3f}",
            place,
            (0, -14),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=_INK,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )
    return _png(figure)


def draw_confusion(matrix: NDArray[np.int64], labels: Sequence[str], *, target: str, normalised: bool = False) -> bytes:
    """A PNG of a confusion matrix.

    Args:
        matrix: (C, C) counts, a row for each true label, as heads.metrics.confusion_matrix gives it.
        labels: C names.
        target: What they are labels of.
        normalised: Whether each row becomes percent of its photos.
    """
    from heads.metrics import normalise_confusion

    count, totals = len(labels), matrix.sum(axis=1)
    shares = np.nan_to_num(normalise_confusion(matrix))
    # The root keeps the cells of rare labels visible beside those of frequent ones.
    shade = shares if normalised else np.sqrt(matrix / max(1, matrix.max()))
    cell = float(np.clip(10 / count, _SMALL, _LARGE)) if count <= _MOST else _MOST * _SMALL / count
    figure, axes = _empty(cell * count, cell * count)
    # Without a photo a cell stays white.
    axes.imshow(np.ma.masked_equal(shade, 0), cmap="Blues", vmin=0, vmax=1.15, interpolation="nearest")
    if count <= _MOST:
        small = cell < _LARGE / 2
        _name_axes(axes, labels, totals, size=8 if small else 9)
        _write_cells(axes, np.round(100 * shares).astype(int) if normalised else matrix, shade, size=6 if small else 8)
    right = matrix.trace() / max(1, matrix.sum())
    what = "percent of each true label" if normalised else "photos"
    title = f"{_short(target)}: {matrix.sum()} validation photos, {100 * right:.1f} % right\nCells are {what}."
    axes.set_title(title, loc="left", fontsize=11, color=_INK, pad=12, parse_math=False)
    return _png(figure)


def _write_cells(axes: Axes, values: NDArray[np.int64], shade: NDArray[np.float64], *, size: float) -> None:
    """The value of each cell that has a photo."""
    for row, column in zip(*np.nonzero(shade), strict=True):
        # A share that rounds to nothing is some photo all the same.
        text = str(values[row, column]) if values[row, column] else "<1"
        ink = "white" if shade[row, column] > 0.6 else _INK
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=ink)


def _curves(
    epochs: Sequence[Epoch], name: str, train: Callable[[Epoch], float], validation: Callable[[Epoch], float]
) -> tuple[Figure, Axes]:
    """Axes with both curves, stages told apart."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _empty(7.5, 4)
    numbers = [one.number for one in epochs]
    # A single epoch is a dot, of which a line would show nothing.
    marker = "o" if len(epochs) == 1 else "."
    axes.plot(numbers, _finite(map(train, epochs)), marker=marker, color=_TRAIN, label="training photos, changed")
    axes.plot(numbers, _finite(map(validation, epochs)), marker=marker, color=_VALIDATION, label="validation photos")
    _mark_stages(axes, epochs)
    axes.set_xlabel("epoch", color=_MUTED)
    axes.set_ylabel(name, color=_MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(0.5, len(epochs) + 0.5)
    axes.grid(axis="y", color=_LINE, linewidth=0.7)
    axes.legend(frameon=False, fontsize=9, labelcolor=_INK, loc="upper right")
    return figure, axes


def _mark_stages(axes: Axes, epochs: Sequence[Epoch]) -> None:
    """A line where a stage begins, and its number; nothing where there is one stage."""
    starts = [
        one for before, one in zip([None, *epochs], epochs, strict=False) if not before or before.stage != one.stage
    ]
    if len(starts) < 2:
        return
    for one in starts:
        if one is not starts[0]:
            axes.axvline(one.number - 0.5, color=_MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.annotate(
            f"stage {one.stage}",
            (one.number - 0.5, 0),
            (4, 4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=8,
            color=_MUTED,
        )


def _finite(values: Any) -> list[float]:
    """The values, with a gap where one is none: an infinite one would leave no scale."""
    return [value if math.isfinite(value) else math.nan for value in values]


def _empty(width: float, height: float) -> tuple[Figure, Axes]:
    """Axes of that size in inches, in a figure that grows with what stands around them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.tick_params(colors=_MUTED, labelcolor=_INK, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_LINE)
    return figure, axes


def _name_axes(axes: Axes, labels: Sequence[str], totals: NDArray[np.int64], *, size: float) -> None:
    """Labels at both axes, with their photos at the left one, and lines between the cells."""
    places = np.arange(len(labels))
    names = [_short(label) for label in labels]
    rows = [f"{name} ({total})" for name, total in zip(names, totals, strict=True)]
    axes.set_xticks(places, names, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(places, rows, fontsize=size, parse_math=False)
    axes.set_xlabel("predicted", color=_MUTED)
    axes.set_ylabel("true label, photos", color=_MUTED)
    axes.set_xticks(places[1:] - 0.5, minor=True)
    axes.set_yticks(places[1:] - 0.5, minor=True)
    axes.grid(which="minor", color=_LINE, linewidth=0.4)
    axes.tick_params(which="both", length=0)


def _short(label: str) -> str:
    text = " ".join(label.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1].rstrip()}…"


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A label in letters that the font lacks is drawn as boxes; the CSV has it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.2)
    return file.getvalue()
