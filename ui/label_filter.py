"""Label filters: the catalog's labels as choices, and what was chosen as a filter."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


def filter_choices(targets: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str]]:
    """What can be chosen: how people read it, such as `red · colour (123)`, and the value that stands for it.

    Args:
        targets: How many items carry each label, by target.
    """
    return [
        (f"{label} · {target} ({count:,})", filter_value(target, label))
        for target, labels in targets.items()
        for label, count in sorted(labels.items(), key=lambda one: -one[1])
    ]


def filter_value(target: str, label: str) -> str:
    """The value of a choice, which holds whatever a label may: JSON of target and label."""
    return json.dumps([target, label], ensure_ascii=False, separators=(",", ":"))


def where_of(chosen: Iterable[str] | None) -> dict[str, list[str]]:
    """The filter: labels by target, of which any will do.

    Args:
        chosen: Values of choices.
    """
    where: dict[str, list[str]] = {}
    for value in chosen or ():
        target, label = json.loads(value)
        where.setdefault(target, []).append(label)
    return where


def link_of(chosen: Iterable[str] | None) -> str | None:
    """What was chosen as a parameter of the address; None for nothing."""
    pairs = [json.loads(value) for value in chosen or ()]
    return json.dumps(pairs, ensure_ascii=False, separators=(",", ":")) if pairs else None


def read_link(text: str | None) -> list[str]:
    """The values of a parameter that `link_of` has written; what is none of its own is nothing.

    Args:
        text: Of the address, which anybody may have written.
    """
    try:
        pairs: Any = json.loads(text or "[]")
        return [filter_value(target, label) for target, label in pairs if {type(target), type(label)} == {str}]
    except (TypeError, ValueError, RecursionError):
        return []
