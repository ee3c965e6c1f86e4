"""Writes settings, metrics and version floors into docs/service.md: `python -m tests.write_service_page`.

What is generated stands between `<!-- begin NAME -->` and `<!-- end -->`; all else in the file is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from service.settings import settings_table
from service.telemetry import METRICS, PROCESS_METRICS
from tests.test_floors import FLOORS

PAGE = Path(__file__).parents[1] / "docs" / "service.md"
_BLOCK = re.compile(r"(<!-- begin (?P<name>[^>]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def generated() -> dict[str, str]:
    """The text of every generated block, by name."""
    settings = [
        (f"`{name}`", f"`{variable}`", default, description)
        for name, variable, default, description in settings_table()
    ]
    metrics = [
        (f"`{card.name}`", card.type, ", ".join(f"`{label}`" for label in card.labels), card.meaning)
        for card in (*METRICS, *PROCESS_METRICS)
    ]
    floors = [(f"`{name}`", floor, hole) for name, (floor, hole) in FLOORS.items()]
    return {
        "settings": _table(("setting", "environment", "default", "meaning"), settings),
        "metrics": _table(("metric", "type", "labels", "meaning"), metrics),
        "floors": _table(("package", "first version", "the last hole that it mended"), floors),
    }


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def named(page: str) -> list[str]:
    """The names of the generated blocks that a page has, in order."""
    return [match["name"] for match in _BLOCK.finditer(page)]


def updated(page: str) -> str:
    """The page with every generated block as it is now.

    Raises:
        KeyError: The page has a block that is not generated.
    """
    blocks = generated()
    return _BLOCK.sub(lambda match: match[1] + blocks[match["name"]] + match[3], page)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text("utf-8")), "utf-8")
