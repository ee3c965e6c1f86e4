"""Writes the current help of every command into docs/cli.md: `python -m tests.write_cli_help`.

What is generated stands between `<!-- begin NAME -->` and `<!-- end -->`; all else in the file is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import cli
from data.readers import FORMATS

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
# The page must not depend on the terminal of whoever writes it.
WIDTH = 100
_BLOCK = re.compile(r"(<!-- begin (?P<name>[^>]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def generated() -> dict[str, str]:
    """The text of every generated block, by name: `modiste index`, ..., and `formats`."""
    blocks = {name: f"```text\n{text.rstrip()}\n```\n" for name, text in _helps(typer.main.get_command(cli.app))}
    rows = "".join(f"| `{known.name}` | {known.description} |\n" for known in FORMATS.values())
    return blocks | {"formats": f"| `--format` | what it looks like |\n|---|---|\n{rows}"}


def _helps(command: Any, name: str = "modiste") -> Iterator[tuple[str, str]]:
    """Name and help of a command and of those below it."""
    context = command.context_class(command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
    yield name, command.get_help(context)
    for child, below in getattr(command, "commands", {}).items():
        yield from _helps(below, f"{name} {child}")


def named(page: str) -> list[str]:
    """The names of the generated blocks that a page has, in order."""
    return [match["name"] for match in _BLOCK.finditer(page)]


def updated(page: str) -> str:
    """The page with every generated block as it is now.

    Raises:
        KeyError: The page has a block that is not generated, of a command that is gone.
    """
    blocks = generated()
    return _BLOCK.sub(lambda match: match[1] + blocks[match["name"]] + match[3], page)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text("utf-8")), "utf-8")
