"""What a catalog format is: how it is found in a folder, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data.catalog import BadRow, CatalogError, CatalogItem

Row = CatalogItem | BadRow


@dataclass(frozen=True, slots=True)
class CatalogFormat:
    """One way in which a catalog is written.

    Args:
        name: What `--format` takes.
        description: One line for the help: where the photos and the labels are.
        detect: Whether the path shows this format; it looks at names and headers, never through all rows.
        read: `read(path)` streams the rows; `read(path, mapping)` where `mapped`.
        count: Number of rows that `read` will give, without opening photos; None where that is as dear as reading.
        mapped: Whether the format has columns that a mapping can name.
    """

    name: str
    description: str
    detect: Callable[[Path], bool]
    read: Callable[..., Iterator[Row]]
    count: Callable[[Path], int | None]
    mapped: bool = False


def check_text(text: str, what: str) -> str:
    """`text` itself, once it is sure that a file name and a table of UTF-8 strings can hold it.

    Args:
        text: A name, id or path from a catalog.
        what: What it is, for the message.

    Raises:
        CatalogError: A NUL character, or half a character (a lone surrogate), is in it.
    """
    if "\0" in text or not (text.isascii() or text.encode("utf-8", "replace").decode() == text):
        raise CatalogError(f"The {what} holds characters that are no text: {text[:80]!a}. Correct the catalog there.")
    return text
