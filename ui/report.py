"""A report: what the service says of one photo or item, gathered into one HTML file that needs nothing else."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from service.client import Catalog, Explanation, Neighbours, Receipt, ServiceError
from ui.asking import ask, sentence_of
from ui.context import Context
from ui.find_answer import FAR, Search
from ui.head_answers import ALL, HEAD_NAMES, HeadAnswers, LabelOptions, ask_heads, times
from ui.heat_map import OUTSIDE
from ui.held_files import HeldFile, picture_type
from ui.label_filter import where_of
from ui.markup import fill
from ui.query import Query

T = TypeVar("T")

NEIGHBOURS, LABELS, MAPS, MATCH = "Neighbours", "Labels", "Heat maps", "Match map"
PARTS = (NEIGHBOURS, LABELS, MAPS, MATCH)
# Sides of photos in a report, pixels.
_QUERY_SIZE, _NEIGHBOUR_SIZE = 768, 256


@dataclass(frozen=True, slots=True)
class Plan:
    """What a report holds.

    Args:
        parts: Of PARTS.
        targets: A heat map for each.
        search: How to look for neighbours.
        options: What to ask of heads.
    """

    parts: tuple[str, ...]
    targets: tuple[str, ...]
    search: Search
    options: LabelOptions


@dataclass(slots=True)
class Report:
    """What was gathered.

    Args:
        query: What it is about.
        plan: What was asked for.
        photo: The query's, as a data URI.
        made_at: Date and time of this machine.
        neighbours: Of the query; None where they were not asked for.
        photos: Of the neighbours, data URIs by item_id.
        answers: Of heads; likewise.
        maps: One a target.
        match: With the nearest other item.
        problems: What could not be had, and why, in words.
    """

    query: Query
    plan: Plan
    photo: str
    made_at: str
    neighbours: Neighbours | None = None
    photos: dict[str, str] = field(default_factory=dict)
    answers: HeadAnswers | None = None
    maps: list[Explanation] = field(default_factory=list)
    match: Explanation | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def receipts(self) -> list[tuple[str, Receipt]]:
        """What answered, by what was asked."""
        found = [(NEIGHBOURS, self.neighbours.receipt)] if self.neighbours else []
        found += [(LABELS, receipt) for receipt in self.answers.receipts] if self.answers else []
        found += [(f"Heat map of {one.target}", one.receipt) for one in self.maps]
        return found + ([(MATCH, self.match.receipt)] if self.match else [])

    @property
    def where(self) -> str:
        """How was looked for neighbours, in words."""
        search = self.plan.search
        words = [f"{search.k} at most"]
        words += [f"{target} is {' or '.join(labels)}" for target, labels in where_of(search.filters).items()]
        words += [f"no further than {search.limit:g}"] if search.limit < FAR else []
        return ", ".join(words + (["one photo a product"] if search.group else []))

    @property
    def maps_remark(self) -> str:
        """What is to be known of the heat maps together; empty for nothing."""
        return OUTSIDE if self.plan.options.is_reweighed else ""

    @property
    def how(self) -> str:
        """What was asked of heads, in words."""
        options = self.plan.options
        words = [HEAD_NAMES.get(options.head, "all heads" if options.head == "all" else "the best head of each target")]
        words += [f"only {options.group}"] if options.group != ALL else []
        words += [f"bottoms count {options.bias:g}"] if options.bias != 1 else []
        return ", ".join(words)


def gather(context: Context, value: Any, plan: Plan) -> Generator[str, None, Report]:
    """A report; what cannot be had is named in it, and keeps nothing else out.

    Args:
        context: Of the page.
        value: The query, as the browser tells it.
        plan: What to gather.

    Yields:
        A sentence for people before each step.

    Raises:
        QueryError: There is nothing to ask about.
        HeldFileError: The photo is no longer held.
        ServiceError: The photo is refused, or the service answers nothing at all.
    """
    client = context.client
    query = Query.read(value)
    subject = query.subject(context.files)
    yield "Reading the catalog …"
    catalog = yield from ask(client.catalog)
    if query.item_id is None:
        photo = subject["photo"]
    else:
        photo = yield from ask(partial(client.image, query.item_id, size=_QUERY_SIZE))
    report = Report(query, plan, data_uri(photo), datetime.now().astimezone().isoformat(" ", "minutes"))
    if NEIGHBOURS in plan.parts or MATCH in plan.parts:
        yield "Looking for neighbours …"
        report.neighbours = yield from ask(partial(client.neighbours, **subject, **plan.search.options()))
        yield from _add_photos(report, client.image)
    if LABELS in plan.parts and catalog.heads:
        yield "Asking the heads …"
        report.answers = yield from _or_problem(report, LABELS, ask_heads(client, catalog, subject, plan.options))
    yield from _add_maps(context, report, catalog, subject)
    return report


def fill_report(report: Report) -> str:
    """The report as one HTML document, without scripts or anything from elsewhere."""
    return fill("report.html", report=report, name=report.query.name or "photo", times=times, heads=HEAD_NAMES)


def keep_report(context: Context, report: Report) -> HeldFile:
    """The report as a file to download."""
    stem = re.sub(r"\W+", "-", report.query.name.rsplit(".", 1)[0]).strip("-")[:60] or "photo"
    name = f"modiste-{stem}-{report.made_at[:10]}.html"
    return context.files.keep(name, fill_report(report).encode())


def data_uri(photo: bytes) -> str:
    """A photo as the address of itself; empty where no browser can show it."""
    kind = picture_type(photo)
    return f"data:{kind};base64,{b64encode(photo).decode()}" if kind else ""


def _add_photos(report: Report, image: Callable[..., bytes]) -> Generator[str, None, None]:
    shown = report.neighbours.neighbours if report.neighbours else []
    for place, one in enumerate(shown, start=1):
        if place % 20 == 0:
            yield f"Fetching photos ({place} of {len(shown)}) …"
        try:
            photo = yield from ask(partial(image, one.item.item_id, size=_NEIGHBOUR_SIZE))
        except ServiceError:
            continue  # Its place says that it has no photo.
        report.photos[one.item.item_id] = data_uri(photo)


def _add_maps(
    context: Context, report: Report, catalog: Catalog, subject: dict[str, Any]
) -> Generator[str, None, None]:
    explain = partial(context.client.explain, **subject)
    plan = report.plan
    kinds = {(head.target, head.kind) for head in catalog.heads}
    targets = plan.targets if MAPS in plan.parts else ()
    for place, target in enumerate(targets, start=1):
        yield f"Drawing the heat map of {target} ({place} of {len(targets)}); this takes some seconds …"
        head = plan.options.head if (target, plan.options.head) in kinds else None
        found = yield from _or_problem(
            report, f"The heat map of {target}", ask(partial(explain, target=target, head=head))
        )
        report.maps += [found] if found else []
    others = report.neighbours.neighbours if report.neighbours else []
    nearest = next((one.item.item_id for one in others if one.item.item_id != report.query.item_id), None)
    if MATCH in plan.parts and nearest is not None:
        yield f"Looking at what makes '{nearest}' similar …"
        relative = catalog.encoder_card.get("pooling") != "cls" or None
        match = ask(partial(explain, match_item_id=nearest, relative=relative))
        report.match = yield from _or_problem(report, "The match map", match)


def _or_problem(report: Report, what: str, steps: Generator[str, None, T]) -> Generator[str, None, T | None]:
    """What the service answers; None, and a problem in the report, where it refuses."""
    try:
        return (yield from steps)
    except ServiceError as error:
        report.problems.append(f"{what}: {sentence_of(error)}")
        return None
