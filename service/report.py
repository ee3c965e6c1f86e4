"""The report of `modiste evaluate heads`: one HTML file with its photos inside, that asks nothing of a network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service.head_evaluation import HeadAnswers, TargetAnswers, evaluate_target
from service.heatmap import MOST_SHOWN, full_map, heat_map
from service.photos import Photos
from service.phrases import ABSENT, enumerate_names, hundredths, of_hundred, per_cent, photos
from service.report_pictures import find_mistakes, mistake_cards, pair_cards
from service.report_tables import (
    card_rows,
    distribution,
    head_rows,
    headline,
    label_columns,
    label_rows,
    reliability_plot,
)

# A label is named as one that is seldom found where it has so many queries, and less of them are found.
_ENOUGH, _OFTEN = 10, 0.9
# Rows of the table of labels that are seen without scrolling.
_ROWS = 15

_HEADS_NOTE = "Small ranges are 95 % intervals, for other photos of the same kind."
_SETS_NOTE = (
    " A set is a head's shortlist of labels; it should hold the right one as often as was asked for. “None of these” "
    "is what a head says of a photo that is like nothing it has learned."
)
_RELIABILITY_NOTE = (
    "Each dot is a group of photos, larger for more photos: how sure the head said it was, and how often it was right. "
    "On the dashed line what it says comes true; below the line it claims too much."
)
_SEVERAL_RELIABILITY_NOTE = (
    "Each dot is a group of single yes-or-no answers, larger for more: the probability that the head gave a label, and "
    "how often the photo has it. On the dashed line what it says comes true."
)
_FOOTER = (
    "A photo counts as right where the likeliest label is the one it is labelled with, whether or not the head said "
    "“none of these”. A wrong label in the catalog makes a right answer look wrong: see the most confident mistakes."
)


def render_report(
    answers: Sequence[TargetAnswers],
    *,
    title: str,
    facts: Mapping[str, str],
    figures: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """The report as one HTML page, self-contained.

    Args:
        answers: One or more targets, in the order of the page.
        title: Of the page.
        facts: What was measured with what, by name: gallery, encoder, version, date.
        figures: `evaluate_target` of each, where they are at hand already; None works them out.

    Raises:
        ValueError: A target without heads or queries.
        MetricError: Arrays that do not fit together.
    """
    worked_out = [evaluate_target(one) for one in answers] if figures is None else figures
    pictures = Photos()
    targets = [
        _target_view(number, one, of_target, pictures)
        for number, (one, of_target) in enumerate(zip(answers, worked_out, strict=True), 1)
    ]
    return render_page("report.html", title=title, facts=facts, targets=targets, footer=_FOOTER)


def render_page(template: str, **values: Any) -> str:
    """A page of one of the templates beside this file, self-contained.

    Args:
        template: Name of the file, which extends report_page.html.
        values: What it shows, `title`, `facts` and `footer` among them.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return environment.get_template(template).render(values)


def _target_view(number: int, answers: TargetAnswers, figures: Mapping[str, Any], pictures: Photos) -> dict[str, Any]:
    """What the template shows of one target."""
    best = next(head for head in answers.heads if head.kind == figures["best_head"])
    of_best = figures["heads"][best.kind]
    several = figures["several_labels"]
    return {
        "anchor": f"target-{number}",
        "name": answers.target,
        "best": best.kind,
        "queries": f"{figures['queries']:,}",
        "several": several,
        "headline": headline(of_best, several),
        "summary": _summary(answers.target, best.kind, figures),
        "remarks": _remarks(best, figures),
        "heads": [
            {"kind": head.kind, "best": head is best and len(answers.heads) > 1, "card": card_rows(head.card)}
            for head in answers.heads
        ],
        "head_rows": head_rows(figures["heads"], several, len(answers.labels)),
        "heads_note": _HEADS_NOTE + ("" if several else _SETS_NOTE),
        "verdicts": list(figures["verdicts"].values()),
        "reliability_note": _SEVERAL_RELIABILITY_NOTE if several else _RELIABILITY_NOTE,
        "plots": [reliability_plot(kind, of_head) for kind, of_head in figures["heads"].items()],
        **_confusion_view(of_best),
        "pairs": pair_cards(answers, best, of_best.get("confused_pairs", []), pictures),
        "mistakes": mistake_cards(answers, best, pictures),
        "mistakes_note": _mistakes_note(answers, best),
        "no_mistakes": f"There is none: {best.kind} is right about {photos(figures['queries'])}.",
        "label_columns": label_columns(of_best),
        "label_rows": label_rows(of_best),
        "labels_note": _labels_note(several, len(answers.labels)),
        "distribution": distribution(answers, of_best),
    }


def _summary(target: str, best: str, figures: Mapping[str, Any]) -> str:
    """The one sentence that everyone reads."""
    of_best = figures["heads"][best]
    if figures["several_labels"]:
        return (
            f"{best} gets all labels of {target} right for {of_hundred(of_best, 'exact_match')}; all labels of all "
            f"photos thrown together reach an F1 of {per_cent(of_best['micro_f1'])}."
        )
    return f"{best} names the right {target} for {of_hundred(of_best, 'accuracy')}."


def _remarks(best: HeadAnswers, figures: Mapping[str, Any]) -> list[str]:
    """What else a reader should know, a sentence each."""
    of_best, unknown = figures["heads"][best.kind], figures["queries_with_unknown_label"]
    remarks = [
        f"Measured on {photos(figures['queries'])}. In brackets: the 95 % range for other photos of the same kind."
    ]
    if unknown and figures["several_labels"]:
        remarks.append(f"Without any label that the heads know: {photos(unknown)}.")
    elif unknown:
        remarks.append(_unknown_remark(unknown, of_best))
    if of_best.get("set_coverage") is not None:
        aim = best.card.get("coverage")
        sets = "Its sets" if aim is None else f"Its {hundredths(aim)} % sets"
        remarks.append(
            f"{sets} hold the right label for {of_hundred(of_best, 'set_coverage')}"
            f"{' with labels that it knows' if unknown else ''}, with {of_best['mean_set_size']:.2f} labels a set."
        )
    before, after = of_best["calibration_error_uncalibrated"], of_best["calibration_error"]
    remarks.append(f"Its probabilities are off by {100 * after:.1f} points; before calibration, by {100 * before:.1f}.")
    rarely = [row for row in of_best["by_label"] if row["queries"] >= _ENOUGH and row["recall"] < _OFTEN]
    if rarely:
        worst = sorted(rarely, key=lambda row: row["recall"])[:3]
        named = [f"{row['label']} ({round(row['recall'] * row['queries'])} of {row['queries']})" for row in worst]
        remarks.append(f"Found least often, of labels with {_ENOUGH} photos or more: {enumerate_names(named)}.")
    return remarks


def _unknown_remark(unknown: int, of_best: Mapping[str, Any]) -> str:
    who = "1 photo has a label" if unknown == 1 else f"{unknown:,} photos have labels"
    remark = f"{who} that no head has learned, and count{'s' if unknown == 1 else ''} as wrong"
    rightly, wrongly = of_best.get("abstention_unknown_labels"), of_best.get("abstention_known_labels")
    if rightly is None:
        return f"{remark}."
    known = "" if wrongly is None else f", and for {hundredths(wrongly)} of 100 photos with labels that it knows"
    return f"{remark}; it says “none of these” for {round(rightly * unknown)} of them{known}."


def _confusion_view(of_best: Mapping[str, Any]) -> dict[str, Any]:
    """The heat map, and that of all labels where some are folded away."""
    if "confusion" not in of_best:
        return {"heat": None, "full_heat": None, "heat_note": ABSENT}
    labels = [row["label"] for row in of_best["by_label"]]
    matrix = np.array(of_best["confusion"], np.int64)
    heat = heat_map(labels, matrix)
    folded = (
        f"Shown are the {MOST_SHOWN} labels with the most mistakes; the other {heat['folded']} are folded into the "
        "last row and column, and the whole table is below. "
        if heat["folded"]
        else ""
    )
    return {
        "heat": heat,
        "full_heat": full_map(labels, matrix) if heat["folded"] else None,
        "heat_note": f"A row for each label that photos have, a column for each that was said. {folded}"
        "Labels that are taken for each other stand side by side. Small numbers are photos of the label.",
    }


def _mistakes_note(answers: TargetAnswers, best: HeadAnswers) -> str:
    count = len(find_mistakes(answers, best))
    return (
        f"{photos(count)} of {len(answers.truth):,} {'is' if count == 1 else 'are'} wrong; these are the ones that the "
        f"head was surest about. With each, its nearest photos in the gallery with their labels and distances; those "
        f"with the same label as the photo are in bold."
    )


def _labels_note(several: bool, label_count: int) -> str:
    note = (
        "Found: of the photos that have the label, the share for which it was said, with its 95 % interval. "
        "Precision: of the photos for which it was said, the share that have it."
    )
    threshold = " Threshold: the probability from which on it is said." if several else ""
    scrolls = f"{label_count} labels, in a table that scrolls. " if label_count > _ROWS else ""
    return f"{scrolls}{note}{threshold}"
