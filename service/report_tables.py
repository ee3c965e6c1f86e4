"""The tables and plots of a report: heads, labels, reliability, distribution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from service.phrases import ABSENT, per_cent, short_count

if TYPE_CHECKING:
    from service.head_evaluation import TargetAnswers

Figures = Mapping[str, Any]

# Labels in the picture of the distribution; the rest is in words.
_BARS = 24
# Side of a reliability plot, in its own units.
_SIDE = 200
_CARD_TEXT = 400
# Of the card of a head: in the tables of labels and of heads.
_SHOWN_ELSEWHERE = ("kind", "labels", "target", "thresholds")

# The rows of the table of heads: the figure, how it is written, its name, and what it is.
_RIGHT_ROW = ("accuracy", "share", "Right", "the likeliest label is the photo's own")
_SEVERAL_ROWS = (
    ("micro_f1", "share", "Micro F1", "all labels of all photos thrown together"),
    ("exact_match", "share", "All labels right", "none missing and none too many"),
)
_SHARED_ROWS = (
    ("macro_precision", "share", "Macro precision", "when a label is said, how often it is right; each label alike"),
    ("macro_recall", "share", "Macro recall", "when a label is true, how often it is said; each label alike"),
    ("macro_f1", "share", "Macro F1", "both in one figure"),
    ("calibration_error_uncalibrated", "points", "Calibration error as fitted", "how far off the probabilities are"),
    ("calibration_error", "points", "Calibration error, calibrated", "lower is better"),
    ("log_loss", "number", "Log loss", "lower is better"),
)
_SET_ROWS = (
    ("set_coverage", "share", "Sets hold the label", "of photos whose label is known to the head"),
    ("mean_set_size", "number", "Labels in a set", "fewer say more"),
    ("abstention_known_labels", "share", "“None of these”, wrongly", "of photos whose label is known to the head"),
    ("abstention_unknown_labels", "share", "“None of these”, rightly", "of photos whose label is not"),
)
_COST_ROWS = (
    ("milliseconds_whole", "milliseconds", "Milliseconds a photo", "read, decoded, encoded and answered"),
    ("milliseconds", "milliseconds", "of these the head", "encoding apart"),
    ("parameters", "count", "Parameters", "of encoder and head; kNN keeps photos"),
    ("parameters_head", "count", "of these the head", ""),
    ("bytes", "bytes", "Size on disk", "of encoder and head"),
    ("bytes_head", "bytes", "of these the head", ""),
)
_SPEED_ROW = ("milliseconds", "milliseconds", "Milliseconds a photo", "encoding apart")


def head_rows(figures: Mapping[str, Figures], several: bool, label_count: int) -> list[dict[str, Any]]:
    """A row for each figure, with a cell for each head.

    Args:
        figures: Of each head, by its kind.
        several: Whether an item may have several labels.
        label_count: C; a place among the first k of no more than k labels says nothing.
    """
    top = [(f"top_{k}_accuracy", "share", f"Among the top {k}", "") for k in (3, 5) if k < label_count]
    rows = [*_SEVERAL_ROWS, *_SHARED_ROWS] if several else [_RIGHT_ROW, *top, *_SHARED_ROWS, *_SET_ROWS]
    return figure_rows(figures, [*rows, _SPEED_ROW])


def cost_rows(figures: Mapping[str, Figures]) -> list[dict[str, Any]]:
    """The same of heads with what they cost, as service.head_comparison gives them."""
    return figure_rows(figures, [_RIGHT_ROW, *_SHARED_ROWS[:5], *_SET_ROWS[:2], *_COST_ROWS])


def figure_rows(figures: Mapping[str, Figures], rows: Iterable[tuple[str, str, str, str]]) -> list[dict[str, Any]]:
    """A row for each figure that a head has, with a cell for each head.

    Args:
        figures: Of each head, by its kind.
        rows: The figure, how it is written, its name, and what it is.
    """
    return [
        {"name": title, "hint": hint, "cells": [figure_cell(of_head, name, kind) for of_head in figures.values()]}
        for name, kind, title, hint in rows
        if any(of_head.get(name) is not None for of_head in figures.values())
    ]


def headline(figures: Figures, several: bool) -> dict[str, Any]:
    """The share of photos that a head has right, and its bar."""
    name = "exact_match" if several else "accuracy"
    return {"cell": figure_cell(figures, name, "share"), "bar": interval_bar(figures, name)}


def figure_cell(figures: Figures, name: str, kind: str) -> dict[str, Any]:
    """A figure with its interval, where it has one.

    Args:
        figures: Holds it by `name`, or not.
        name: Of the figure.
        kind: `share`, `points`, `number`, `count`, `bytes`; any other is written in three digits.
    """
    value = figures.get(name)
    if value is None:
        return {"text": ABSENT, "sort": "", "range": ""}
    formats = {
        "share": per_cent(value),
        "points": f"{100 * value:.1f} points",
        "number": f"{value:.2f}",
        "count": short_count(value),
        "bytes": f"{short_count(value)}B" if value >= 1000 else f"{value:.0f} B",
    }
    low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
    between = f"{100 * low:.1f} to {100 * high:.1f}" if low is not None and high is not None else ""
    return {"text": formats.get(kind, f"{value:.3g}"), "sort": value, "range": between}


def interval_bar(figures: Figures, name: str) -> dict[str, float] | None:
    """A share and its interval in per cent of a bar; None where there is none."""
    if figures.get(f"{name}_low") is None:
        return None
    return {
        end: round(100 * figures[key], 1)
        for end, key in (("at", name), ("low", f"{name}_low"), ("high", f"{name}_high"))
    }


def label_columns(figures: Figures) -> list[dict[str, Any]]:
    """The headings of the table of labels."""
    threshold = ["Threshold"] if any("threshold" in row for row in figures["by_label"]) else []
    mistaken = ["Most often taken for"] if "confusion" in figures else [""]
    numbers = ["Precision", "F1", *threshold, "Asked", "Said", "In the gallery"]
    return [
        {"name": "Found", "number": True},
        {"name": "", "number": False},
        *({"name": name, "number": True} for name in numbers),
        *({"name": name, "number": False} for name in mistaken),
    ]


def label_rows(figures: Figures) -> list[dict[str, Any]]:
    """A row a label, the most asked for first; those that were neither asked for nor said are last."""
    table = figures["by_label"]
    matrix = figures.get("confusion")
    order = sorted(range(len(table)), key=lambda row: (-table[row]["queries"], -table[row]["predicted"]))
    rows = []
    for number in order:
        row = table[number]
        threshold = [figure_cell(row, "threshold", "number")] if "threshold" in row else []
        counts = [
            {"text": f"{row[key]:,}", "sort": row[key], "range": ""}
            for key in ("queries", "predicted", "gallery_items")
        ]
        rows.append(
            {
                "name": row["label"],
                "found": figure_cell(row, "recall", "share"),
                "bar": interval_bar(row, "recall"),
                "cells": [figure_cell(row, "precision", "share"), figure_cell(row, "f1", "share"), *threshold, *counts],
                "mistaken": _taken_for(figures, matrix[number], number) if matrix else "",
            }
        )
    return rows


def _taken_for(figures: Figures, counts: Sequence[int], number: int) -> str:
    """The label that one is most often taken for, and how often."""
    wrong = [0 if other == number else count for other, count in enumerate(counts)]
    most = max(wrong)
    return f"{figures['by_label'][wrong.index(most)]['label']} ({most})" if most else ""


def reliability_plot(kind: str, figures: Figures) -> dict[str, Any]:
    """A head's reliability before and after calibration, in the units of the plot."""
    before, after = figures["calibration_error_uncalibrated"], figures["calibration_error"]
    caption = f"off by {100 * before:.1f} points as fitted, {100 * after:.1f} calibrated"
    return {
        "kind": kind,
        "caption": caption,
        "label": f"Reliability of {kind}: {caption}",
        "ticks": [{"at": _SIDE * share // 100, "text": share} for share in (0, 25, 50, 75, 100)],
        "series": [
            _series("before", figures["reliability_uncalibrated"]),
            _series("after", figures["reliability"]),
        ],
    }


def _series(name: str, table: Sequence[Figures]) -> dict[str, Any]:
    most = max((row["queries"] for row in table), default=1)
    dots = [
        {
            "x": round(_SIDE * row["confidence"], 1),
            "y": round(_SIDE * (1 - row["accuracy"]), 1),
            # Areas, and not radii, are in proportion to the photos.
            "r": round(2 + 6 * (row["queries"] / most) ** 0.5, 1),
            "title": (
                f"said {per_cent(row['confidence'], 0)}, right {per_cent(row['accuracy'], 0)} of {row['queries']:,}"
            ),
        }
        for row in table
    ]
    return {"name": name, "dots": dots, "line": " ".join(f"{dot['x']},{dot['y']}" for dot in dots)}


def distribution(answers: TargetAnswers, figures: Figures) -> dict[str, Any]:
    """Each label's share of the gallery and of the queries, the most frequent first."""
    gallery, asked = Counter(answers.gallery_counts), _asked(answers, figures)
    names = sorted(gallery.keys() | asked.keys(), key=lambda name: (-gallery[name], -asked[name], name))
    totals = max(1, gallery.total()), max(1, asked.total())
    widest = max(gallery[name] / totals[0] for name in names), max(asked[name] / totals[1] for name in names)
    scale = 100 / max(*widest, 1e-9)
    bars = [
        {
            "name": name,
            "gallery": f"{gallery[name]:,}",
            "queries": f"{asked[name]:,}",
            "gallery_width": round(scale * gallery[name] / totals[0], 1),
            "query_width": round(scale * asked[name] / totals[1], 1),
            "title": f"{name}: {per_cent(gallery[name] / totals[0])} of the gallery, "
            f"{per_cent(asked[name] / totals[1])} of the photos asked",
        }
        for name in names[:_BARS]
    ]
    rest = names[_BARS:]
    return {
        "bars": bars,
        "note": _distribution_note(answers, gallery, asked),
        "rest_title": f"{len(rest)} more labels",
        "rest": ", ".join(f"{name} ({gallery[name]:,} · {asked[name]:,})" for name in rest),
    }


def _asked(answers: TargetAnswers, figures: Figures) -> Counter[str]:
    """Queries by label; where they have several, only labels that the heads know can be counted."""
    if answers.truth.ndim == 2:
        return Counter({row["label"]: row["queries"] for row in figures["by_label"] if row["queries"]})
    return Counter(answers.true_names)


def _distribution_note(answers: TargetAnswers, gallery: Counter[str], asked: Counter[str]) -> str:
    known = set(answers.labels)
    sentences = ["Bars are shares, numbers are photos: gallery · asked."]
    rare = sorted(name for name in gallery if name not in known)
    if rare:
        named = ", ".join(f"{name} ({gallery[name]:,})" for name in rare)
        sentences.append(f"Labels of the gallery that no head has learned, being too rare: {named}.")
    foreign = sorted(name for name in asked if name not in gallery)
    if foreign:
        named = ", ".join(f"{name} ({asked[name]:,})" for name in foreign)
        sentences.append(f"Labels asked for that the gallery does not have: {named}.")
    return " ".join(sentences)


def card_rows(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known of a fitted head, as names and texts; long ones are cut."""
    rows = [(name.replace("_", " "), _card_text(value)) for name, value in card.items() if name not in _SHOWN_ELSEWHERE]
    return [(name, text if len(text) <= _CARD_TEXT else f"{text[:_CARD_TEXT]}…") for name, text in rows]


def _card_text(value: Any) -> str:
    """A JSON value in words."""
    match value:
        case None:
            return ABSENT
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case Mapping():
            return ", ".join(f"{name.replace('_', ' ')}: {_card_text(one)}" for name, one in value.items()) or "none"
        case list() | tuple():
            return ", ".join(_card_text(one) for one in value) or "none"
    return str(value)
