"""The report of `modiste compare`: one HTML file with its photos inside, that asks nothing of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.head_comparison import COMPARATOR, find_agreement, find_disagreement
from service.photos import Photos
from service.phrases import of_hundred, photos
from service.report import render_page
from service.report_pictures import photo_shot
from service.report_tables import card_rows, cost_rows, figure_cell, headline, reliability_plot

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from service.head_evaluation import TargetAnswers

# Photos of a group in the report; a contact sheet has more.
_SHOWN, _ALL_RIGHT_SHOWN = 12, 6
_PHOTO = 200
_PAIRS_NOTE = (
    "Photos that both have right or both have wrong say nothing about which is better; McNemar's exact test looks at "
    "the others. Corrected: by Holm's method for all pairs of this table, so that where heads are equally good, one is "
    "called better in 5 of 100 comparisons at most. The range of the difference is the 95 % bootstrap interval of that "
    "pair alone, not corrected: it may leave out 0 where the test shows nothing."
)
_COST_NOTE = (
    "Small ranges are 95 % intervals, for other photos of the same kind. Milliseconds are the median of single photos "
    "on this machine. A comparator answers through its own network: a service that also shows neighbours encodes each "
    "photo by the gallery's encoder too."
)
_RELIABILITY_NOTE = (
    "Each dot is a group of photos, larger for more photos: how sure the head said it was, and how often it was right. "
    "On the dashed line what it says comes true; below the line it claims too much."
)
_FOOTER = (
    "A photo counts as right where the likeliest label is the one it is labelled with, whether or not the head would "
    "say “none of these”. All heads answer the same photos. A wrong label in the catalog makes a right answer look "
    "wrong: see the photos that all get wrong."
)


@dataclass(frozen=True, slots=True)
class Group:
    """Queries about which heads agree or disagree in one way.

    Args:
        name: For a file: `only-linear`, `all-wrong`.
        title: For people.
        note: How they are ordered.
        rows: Numbers of the queries, the most telling first.
    """

    name: str
    title: str
    note: str
    rows: NDArray[np.int64]


def find_groups(answers: TargetAnswers, figures: Mapping[str, Any]) -> Iterator[Group]:
    """Where the best head and the best comparator disagree, and where all heads are wrong or right."""
    best = [figures["verdict"]["best_head"], figures["verdict"]["best_comparator"]]
    for one, other in (best, best[::-1]):
        rows = find_disagreement(answers, one, other)
        note = (
            f"{photos(len(rows))} that {one} has right and {other} has not; the ones that {one} is surest about first."
        )
        yield Group(f"only-{one}", f"{one} is right, {other} is not", note, rows)
    agreement = find_agreement(answers)
    wrong, right = len(agreement.wrong), len(agreement.right)
    yield Group(
        "all-wrong",
        "All heads are wrong",
        f"{photos(wrong)}; the ones that they are surest about first. Look here for wrong labels in the catalog.",
        agreement.wrong,
    )
    yield Group(
        "all-right",
        "All heads are right",
        f"{photos(right)}; the ones that they are least sure about first.",
        agreement.right,
    )


def render_comparison(
    answers: Sequence[TargetAnswers],
    figures: Sequence[Mapping[str, Any]],
    *,
    title: str,
    facts: Mapping[str, str],
    remarks: Sequence[str],
) -> str:
    """The report as one HTML page, self-contained.

    Args:
        answers: One or more targets, in the order of the page.
        figures: `compare_target` of each.
        title: Of the page.
        facts: What was compared on what, by name.
        remarks: What a reader should know of the photos and runs, a sentence each.
    """
    pictures = Photos()
    return render_page(
        "comparison.html",
        title=title,
        facts=facts,
        remarks=remarks,
        targets=[
            _target_view(number, one, of_target, pictures)
            for number, (one, of_target) in enumerate(zip(answers, figures, strict=True), 1)
        ],
        footer=_FOOTER,
    )


def said_by(answers: TargetAnswers, query: int) -> list[tuple[str, str, float, bool]]:
    """What each head says of a query: its name, the label, how sure it is, and whether that is right."""
    return [
        (
            head.kind,
            answers.labels[head.predicted[query]],
            float(head.probabilities[query, head.predicted[query]]),
            bool(head.predicted[query] == answers.truth[query]),
        )
        for head in answers.heads
    ]


def _target_view(number: int, answers: TargetAnswers, figures: Mapping[str, Any], pictures: Photos) -> dict[str, Any]:
    """What the template shows of one target."""
    heads, best = figures["heads"], figures["best_head"]
    least = _least(heads)
    cards = {head.kind: card_rows(head.card) for head in answers.heads}
    return {
        "anchor": f"target-{number}",
        "name": answers.target,
        "best": best,
        "queries": f"{figures['queries']:,}",
        "headline": headline(heads[best], several=False),
        "shown": figures["verdict"]["winner"] or "no difference shown",
        "verdict": figures["verdict"]["sentence"],
        "remarks": _remarks(figures),
        "ranking": [_ranked(name, of_head, least, name == best) for name, of_head in heads.items()],
        "least": least,
        "heads": [{"kind": name, "best": name == best, "card": cards[name]} for name in heads],
        "rows": cost_rows(heads),
        "cost_note": _COST_NOTE,
        "pairs": [_pair_view(pair, figures["verdict"]) for pair in figures["pairs"]],
        "pairs_note": _PAIRS_NOTE,
        "plots": [reliability_plot(name, of_head) for name, of_head in heads.items()],
        "reliability_note": _RELIABILITY_NOTE,
        "groups": [
            {"title": group.title, "note": group.note, "cards": _photo_cards(answers, group, pictures)}
            for group in find_groups(answers, figures)
        ],
    }


def _least(heads: Mapping[str, Mapping[str, Any]]) -> int:
    """Where the bars of all heads begin, in per cent: intervals of 2 points are not seen on a bar of 100."""
    return int(min(of_head["accuracy_low"] for of_head in heads.values()) * 10) * 10


def _ranked(name: str, of_head: Mapping[str, Any], least: int, is_best: bool) -> dict[str, Any]:
    bar = headline(of_head, several=False)["bar"]
    return {
        "name": name,
        "best": is_best,
        "hint": "fine-tuned with its encoder" if of_head["family"] == COMPARATOR else "on the gallery's embeddings",
        "right": figure_cell(of_head, "accuracy", "share"),
        "bar": None if bar is None else {end: round(100 * (at - least) / (100 - least), 1) for end, at in bar.items()},
        "only": f"{of_head['only_this_right']:,}",
    }


def _remarks(figures: Mapping[str, Any]) -> list[str]:
    """What else a reader should know of a target, a sentence each."""
    best, unknown = figures["best_head"], figures["queries_with_unknown_label"]
    remarks = [f"The most often right on these photos is {best}: {of_hundred(figures['heads'][best], 'accuracy')}."]
    if unknown:
        remarks.append(f"With a label that no head knows, and so wrong for all: {photos(unknown)}.")
    for name, of_head in figures["heads"].items():
        if of_head["labels_unknown"]:
            labels = ", ".join(of_head["labels_unknown"])
            remarks.append(f"{name} does not know {labels}; photos of these count as wrong for it.")
    return remarks


def _pair_view(pair: Mapping[str, Any], verdict: Mapping[str, Any]) -> dict[str, Any]:
    low, high = 100 * pair["difference_low"], 100 * pair["difference_high"]
    return {
        "second": pair["second"],
        "first": pair["first"],
        "counts": [f"{pair['only_second_right']:,}", f"{pair['only_first_right']:,}"],
        "difference": {
            "text": f"{100 * pair['difference']:.1f} points",
            "sort": pair["difference"],
            "range": f"{low:z.1f} to {high:z.1f}",
        },
        "p": [_p_text(pair["p_value"]), _p_text(pair["p_value_corrected"])],
        "is_shown": pair["is_shown"],
        "decides": all(pair[name] == verdict[name] for name in ("first", "second")),
    }


def _p_text(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _photo_cards(answers: TargetAnswers, group: Group, pictures: Photos) -> list[dict[str, Any]]:
    most = _ALL_RIGHT_SHOWN if group.name == "all-right" else _SHOWN
    return [
        {
            "photo": photo_shot(answers.items[query], _PHOTO, pictures),
            "truth": answers.true_names[query],
            "item_id": answers.items[query].item_id,
            "said": [
                {"head": head, "label": label, "sure": f"{100 * sure:.0f} %", "right": right}
                for head, label, sure, right in said_by(answers, int(query))
            ],
        }
        for query in group.rows[:most]
    ]
