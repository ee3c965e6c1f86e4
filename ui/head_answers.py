"""Heads' answers about one photo or item: what is asked of the service, and each target's heads side by side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from typing import Any

from service.client import (
    Catalog,
    CatalogHead,
    Classification,
    Client,
    LabelProbability,
    Neighbour,
    Prediction,
    Receipt,
    RefusedError,
    ServiceError,
)
from ui.asking import ask

# What the head chooser has besides kinds: of each target the head that the service would take, and every head.
BEST, EVERY = "best", "all"
HEAD_NAMES = {"ensemble": "Ensemble", "knn": "kNN", "linear": "Linear", "mlp": "MLP", "comparator": "Comparator"}
# The name of no group: all labels; and the group that the upper-body bias is against, as in the desktop GUI.
ALL, BOTTOMS = "All", "Bottoms"
# Targets that are answered for unless some are chosen: more would be a wall of bars.
MOST_TARGETS = 8
# Neighbours and votes that are shown; one more is asked for, since an item is its own neighbour.
_EVIDENCE = 6
_CONFLICT = 409


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """What is asked of heads, in the order of the tab's controls.

    Args:
        head: A kind, `best` or `all`.
        targets: What to predict; none for the first MOST_TARGETS.
        group: Of labels to choose from; `All` for every label.
        top: Likeliest labels to show, 1 to 20.
        bias: How much labels of the group Bottoms count, 0 to 1; 1 leaves the answer as it is.
        coverage: Of prediction sets, 0.5 to 0.99.
    """

    head: str = BEST
    targets: tuple[str, ...] = ()
    group: str = ALL
    top: int = 5
    bias: float = 1.0
    coverage: float = 0.9

    @classmethod
    def read(cls, head: Any, targets: Any, group: Any, top: Any, bias: Any, coverage: Any) -> LabelOptions:
        """What the controls are set to; what is not set is as it is unless told."""
        default = cls()
        return cls(
            head=str(head or BEST),
            targets=tuple(str(target) for target in targets or ()),
            group=str(group or ALL),
            top=default.top if top is None else int(top),
            bias=default.bias if bias is None else float(bias),
            coverage=default.coverage if coverage is None else float(coverage),
        )

    @property
    def is_reweighed(self) -> bool:
        """Whether labels are restricted to a group, or a group of them counts less."""
        return self.group != ALL or self.bias != 1

    def asked(self, catalog: Catalog, targets: Sequence[str]) -> dict[str, Any]:
        """The arguments of `Client.classify` about some targets; groups that none of them has labels of are left out.

        Args:
            catalog: Of the service.
            targets: That are asked about.
        """

        def has(group: str) -> bool:
            members = catalog.groups.get(group, ())
            return any(label in catalog.targets.get(target, ()) for target in targets for label in members)

        return {
            "targets": targets,
            "top": self.top,
            "allowed": [self.group] if has(self.group) else None,
            "weights": {BOTTOMS: self.bias} if self.bias != 1 and has(BOTTOMS) else None,
            "coverage": self.coverage,
            "evidence": _EVIDENCE,
        }


def options_of(parameters: Mapping[str, str]) -> LabelOptions:
    """The options that an address carries; what is no number is as it is unless told."""
    default = LabelOptions()
    return LabelOptions.read(
        parameters.get("head"),
        _names(parameters.get("targets")),
        parameters.get("allowed"),
        _number(parameters.get("top"), default.top),
        _number(parameters.get("bias"), default.bias),
        _number(parameters.get("coverage"), default.coverage),
    )


def times(coverage: float) -> str:
    """A coverage as people say it: `9 times of 10`, `95 times of 100`."""
    hundredths = round(100 * coverage)
    return f"{hundredths // 10} times of 10" if hundredths % 10 == 0 else f"{hundredths} times of 100"


def _names(text: str | None) -> list[str]:
    """Names in JSON, since they may hold commas; anything else, which somebody wrote by hand, is none."""
    try:
        names = json.loads(text or "[]")
    except (ValueError, RecursionError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _number(text: str | None, default: float) -> float:
    try:
        number = float(text or "")
    except ValueError:
        return default
    return number if isfinite(number) else default


@dataclass(frozen=True, slots=True)
class HeadAnswer:
    """What one head says, or why it says nothing.

    Args:
        head: That was asked.
        prediction: Its answer; or
        error: The service's sentence.
        stale: Since when the gallery has changed, in words; empty where it has not.
        agrees: Whether it says what most heads of the target say.
    """

    head: CatalogHead
    prediction: Prediction | None
    error: str
    stale: str
    agrees: bool

    @property
    def name(self) -> str:
        """What people call the head."""
        return HEAD_NAMES.get(self.head.kind, self.head.kind)

    @property
    def accuracy(self) -> str:
        """How it did on photos that it was not fitted on, in words; empty where its card does not say."""
        figures = self.head.validation
        if "accuracy" in figures:
            return f"{100 * figures['accuracy']:.0f} % right on {figures.get('photos', 0):,} other photos"
        if "micro_f1" in figures:
            return f"F1 {figures['micro_f1']:.2f} on {figures.get('photos', 0):,} other photos"
        return ""

    @property
    def chosen(self) -> str | None:
        """The label that is explained unless another is chosen: the one predicted, else the likeliest."""
        if self.prediction is None or not self.prediction.labels:
            return None
        return (self.prediction.predicted or [self.prediction.labels[0].label])[0]

    @property
    def likeliest(self) -> LabelProbability | None:
        """The label with the greatest probability."""
        return self.prediction.labels[0] if self.prediction and self.prediction.labels else None


@dataclass(frozen=True, slots=True)
class TargetAnswers:
    """What is said of one target.

    Args:
        target: Its name.
        known: What the catalog says, where an item is asked about.
        heads: Those that were asked.
        summary: How far they agree, in words; empty where one was asked.
    """

    target: str
    known: list[str]
    heads: list[HeadAnswer]
    summary: str


@dataclass(frozen=True, slots=True)
class HeadAnswers:
    """What is said of a photo or an item.

    Args:
        targets: In order of name.
        left_out: Targets that were not asked about.
        item_id: The item that was asked about; None for a photo.
        evidence: The nearest items, without itself.
        receipts: Of the questions that it took.
    """

    targets: list[TargetAnswers]
    left_out: int
    item_id: str | None
    evidence: list[Neighbour]
    receipts: list[Receipt]


# A head that is asked with others, and what came: its answer, or the service's sentence.
_Outcome = Classification | ServiceError


def ask_heads(
    client: Client, catalog: Catalog, subject: dict[str, Any], options: LabelOptions
) -> Generator[str, None, HeadAnswers]:
    """What heads say; a head that cannot answer keeps no other from it.

    Args:
        client: Without retries of its own.
        catalog: Of the service, with a head at least.
        subject: The photo or item, as `Query.subject` gives it.
        options: What is asked.

    Yields:
        A sentence for people, before each wait.

    Raises:
        ServiceError: No head answers; the first one's reason.
    """
    heads = chosen_heads(catalog, options)
    outcomes: list[tuple[list[CatalogHead], _Outcome]] = []
    for kind in dict.fromkeys(head.kind for head in heads):
        asked = [head for head in heads if head.kind == kind]
        outcomes += yield from _ask_kind(client, catalog, subject, options, asked)
    answered = [outcome for _, outcome in outcomes if isinstance(outcome, Classification)]
    if not answered:
        raise next(outcome for _, outcome in outcomes if isinstance(outcome, ServiceError))
    item_id = subject.get("item_id")
    nearest = answered[0].photos[0].neighbours
    known = (yield from ask(partial(client.item, item_id))).labels if item_id is not None else {}
    found = [one for asked, outcome in outcomes for one in _answers(asked, outcome)]
    targets = list(dict.fromkeys(head.target for head in heads))
    return HeadAnswers(
        targets=[_of_target(target, known.get(target, []), found) for target in targets],
        left_out=len({head.target for head in catalog.heads}) - len(targets) if not options.targets else 0,
        item_id=item_id,
        evidence=[one for one in nearest if one.item.item_id != item_id][: _EVIDENCE - 1],
        receipts=[outcome.receipt for outcome in answered],
    )


def chosen_heads(catalog: Catalog, options: LabelOptions) -> list[CatalogHead]:
    """The heads that are asked, by target, then as HEAD_NAMES; all targets' where those asked for have none."""
    heads = [
        head
        for head in catalog.heads
        if (head.is_default if options.head == BEST else options.head in (EVERY, head.kind))
    ]
    heads = [head for head in heads if head.target in options.targets] or heads
    shown = sorted({head.target for head in heads})[: None if options.targets else MOST_TARGETS]
    return sorted((head for head in heads if head.target in shown), key=lambda head: (head.target, _place(head)))


def _place(head: CatalogHead) -> int:
    order = [*HEAD_NAMES]
    return order.index(head.kind) if head.kind in order else len(order)


def _ask_kind(
    client: Client, catalog: Catalog, subject: dict[str, Any], options: LabelOptions, heads: list[CatalogHead]
) -> Generator[str, None, list[tuple[list[CatalogHead], _Outcome]]]:
    """What heads of one kind say, together; each by itself where one of them keeps the others from answering."""
    targets = [head.target for head in heads]
    photos = [subject["photo"]] if "photo" in subject else []
    place = {name: value for name, value in subject.items() if name != "photo"}
    question = partial(client.classify, *photos, head=heads[0].kind, **options.asked(catalog, targets), **place)
    try:
        return [(heads, (yield from ask(question)))]
    except RefusedError as error:
        if error.status != _CONFLICT or len(heads) == 1:
            return [(heads, error)]
    except ServiceError as error:
        return [(heads, error)]
    outcomes = []
    for head in heads:
        outcomes += yield from _ask_kind(client, catalog, subject, options, [head])
    return outcomes


def _answers(heads: list[CatalogHead], outcome: _Outcome) -> list[HeadAnswer]:
    if isinstance(outcome, ServiceError):
        return [HeadAnswer(head, None, outcome.detail, "", agrees=True) for head in heads]
    predictions = {one.target: one for one in outcome.photos[0].predictions}
    receipt = outcome.receipt
    versions = {one.target: one.gallery_version for one in receipt.heads}
    found = []
    for head in heads:
        fitted = versions.get(head.target, receipt.gallery_version)
        # A comparator learned elsewhere: no version of the gallery makes it stale.
        is_stale = head.kind != "comparator" and fitted != receipt.gallery_version
        stale = f"Fitted on version {fitted} of the gallery, which is at {receipt.gallery_version} now." * is_stale
        found.append(HeadAnswer(head, predictions.get(head.target), "", stale, agrees=True))
    return found


def _of_target(target: str, known: list[str], found: list[HeadAnswer]) -> TargetAnswers:
    heads = sorted((one for one in found if one.head.target == target), key=lambda one: _place(one.head))
    said = Counter(_said(one.prediction) for one in heads if one.prediction)
    total = said.total()
    if total < 2:
        return TargetAnswers(target, known, heads, "")
    most, count = said.most_common(1)[0]
    # Without a majority every head stands out.
    most = most if 2 * count > total else ""
    heads = [replace(one, agrees=one.prediction is None or _said(one.prediction) == most) for one in heads]
    others = "; ".join(f"{one.name} says {_said(one.prediction)}" for one in heads if one.prediction and not one.agrees)
    if count == total:
        summary = f"All {total} heads say {most}."
    elif most:
        summary = f"{count} of {total} heads say {most}; {others}."
    else:
        summary = f"The heads disagree: {others}."
    return TargetAnswers(target, known, heads, summary)


def _said(prediction: Prediction) -> str:
    if prediction.none_of_these:
        return "none of these"
    return ", ".join(prediction.predicted) or "that no label is likely enough"
