"""How answers are printed: as JSON, as tables, and labels and figures as text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from data.catalog import CatalogItem


def print_json(value: Any) -> None:
    """JSON as people read it, in the letters that the labels have."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_json_as_it_comes(facts: dict[str, Any], name: str, values: Iterable[Any]) -> None:
    """What print_json prints of `{**facts, name: [*values]}`, without holding the values."""
    print(
        f"{json.dumps(facts, ensure_ascii=False, indent=2).removesuffix(chr(10) + '}')},\n  {json.dumps(name)}: [",
        end="",
    )
    before = "\n"
    for value in values:
        text = json.dumps(value, ensure_ascii=False, indent=2).replace("\n", "\n    ")
        print(f"{before}    {text}", end="", flush=True)
        before = ",\n"
    print("\n  ]\n}" if before != "\n" else "]\n}")


def print_table(header: list[str], rows: list[list[Any]]) -> None:
    """Columns aligned by spaces, whole and uncoloured, so that they can be piped."""
    cells = [header, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def label_text(item: CatalogItem) -> str:
    """Labels in a line: baseColour=Blue|White, gender=Men."""
    return ", ".join(f"{target}={'|'.join(names)}" for target, names in item.labels.items())


def plain_labels(item: CatalogItem) -> dict[str, Any]:
    """Labels as JSON has them: a name, or a list where there are several."""
    return {target: names[0] if len(names) == 1 else list(names) for target, names in item.labels.items()}


def figure(value: float | None, low: float | None, high: float | None) -> tuple[str, str]:
    """A figure and its interval; dashes where no query counts."""
    return ("-", "-") if value is None else (f"{value:.4f}", f"{low:.4f} to {high:.4f}")


def value_text(figures: Mapping[str, Any], name: str) -> str:
    """A figure, with its interval where it has one; a dash where no photo counts."""
    if figures[name] is None:
        return "-"
    if isinstance(figures[name], int):
        return f"{figures[name]:,}"
    if f"{name}_low" not in figures:
        return f"{figures[name]:.3f}"
    return f"{figures[name]:.3f} ({figures[f'{name}_low']:.3f} to {figures[f'{name}_high']:.3f})"


def yes(value: bool) -> str:
    """What a table says for true and false: yes or no."""
    return "yes" if value else "no"
