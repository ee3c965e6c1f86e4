"""A batch's table: which rows are shown, in which order, a page at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ui.batch import Batch, Row

PAGE = 50
# Labels to choose from; a batch may have thousands.
MOST_LABELS = 300
Only = Literal["all", "failures", "doubtful", "none"]


@dataclass(frozen=True, slots=True)
class View:
    """What somebody wants to see of a batch.

    Args:
        sort: `place`, `name`, `error`, `label:TARGET` or `probability:TARGET`.
        falling: Whether the last come first.
        text: In the name, a label or the error, in whichever case; nothing for all.
        label: Target and label that a photo must have; None for any.
        only: `all`, `failures`, `doubtful` (a probability below `below`) or `none` (of the labels known).
        below: 0..1.
        page: From 0.
    """

    sort: str = "place"
    falling: bool = False
    text: str = ""
    label: tuple[str, str] | None = None
    only: Only = "all"
    below: float = 0.5
    page: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """The rows of a page.

    Args:
        rows: At most PAGE.
        first: Place of the first row, from 1.
        found: Rows that pass the filters, on all pages.
        number: Of this page, from 0.
        last: Number of the last page.
    """

    rows: list[Row]
    first: int
    found: int
    number: int
    last: int


def page_of(batch: Batch, view: View) -> Page:
    """The rows to show; a page beyond the last is the last."""
    rows = [row for row in batch.rows if _passes(row, view)]
    if view.sort != "place" or view.falling:
        key = _sort_key(view.sort)
        # What has no value comes last, in either direction.
        known = [row for row in rows if key(row) is not None]
        rows = sorted(known, key=key, reverse=view.falling) + [row for row in rows if key(row) is None]
    last = max(0, (len(rows) - 1) // PAGE)
    number = min(max(view.page, 0), last)
    return Page(rows[number * PAGE : (number + 1) * PAGE], number * PAGE + 1, len(rows), number, last)


def labels_of(batch: Batch) -> list[tuple[str, str, int]]:
    """Target, label and count of the labels predicted, the most frequent of each target first."""
    counts: Counter[tuple[str, str]] = Counter()
    for row in batch.rows:
        counts.update((target, label) for target, answer in row.answers.items() for label in answer.labels)
    places = {target: place for place, target in enumerate(batch.target_names)}
    ordered = sorted(counts.items(), key=lambda one: (places.get(one[0][0], 0), -one[1], one[0][1]))
    return [(target, label, count) for (target, label), count in ordered[:MOST_LABELS]]


def is_doubtful(row: Row, below: float) -> bool:
    """Whether any target's likeliest label has a probability below a limit, 0..1."""
    return any(answer.probability < below for answer in row.answers.values())


def _passes(row: Row, view: View) -> bool:
    if view.only == "failures" and row.error is None:
        return False
    if view.only == "doubtful" and not is_doubtful(row, view.below):
        return False
    if view.only == "none" and not any(answer.none_of_these for answer in row.answers.values()):
        return False
    if view.label is not None:
        target, label = view.label
        if target not in row.answers or label not in row.answers[target].labels:
            return False
    wanted = view.text.strip().casefold()
    return not wanted or any(wanted in text.casefold() for text in _texts(row))


def _texts(row: Row) -> list[str]:
    return [row.name, row.error or "", *(label for answer in row.answers.values() for label in answer.labels)]


def _sort_key(sort: str) -> Callable[[Row], Any]:
    kind, _, target = sort.partition(":")

    def key(row: Row) -> Any:
        answer = row.answers.get(target)
        match kind:
            case "name":
                return row.name.casefold()
            case "error":
                return row.error
            case "label":
                return ", ".join(answer.labels).casefold() if answer and answer.labels else None
            case "probability":
                return answer.probability if answer else None
            case _:
                return row.place

    return key
