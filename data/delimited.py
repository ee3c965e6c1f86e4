"""Rows of a CSV file: encoding, delimiter, quoting and broken lines are settled here, once for all formats."""

from __future__ import annotations

import codecs
import csv
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from data.catalog import BadRow, CatalogError

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """The fields of one row by column, and the 1-based line on which the row starts."""

    line: int
    fields: dict[str, str]


def read_header(path: Path, *, quoted: bool = True) -> list[str]:
    """The column names of a CSV file, in order; a column without a name is "".

    Args:
        path: The file.
        quoted: Whether `"` quotes a field, as in read_records.

    Raises:
        CatalogError: The file is empty, its first row is not CSV, or it names a column twice.
    """
    for _, header in _rows(path, quoted):
        if isinstance(header, csv.Error):
            raise CatalogError(f"{path} starts with a row that is not CSV ({header}); it must name the columns.")
        names = [name.strip() for name in header]
        twice = sorted({name for name in names if name and names.count(name) > 1})
        if twice:
            raise CatalogError(
                f"Columns have different names; {path} has {', '.join(twice)} more than once. Rename one."
            )
        return names
    raise CatalogError(f"A CSV file with a row of column names was wanted; {path} is empty.")


def read_records(path: Path, *, quoted: bool = True) -> Iterator[Record | BadRow]:
    """The rows below the header, one at a time.

    Args:
        path: The file, UTF-8 (with or without a mark), UTF-16 with a mark, or cp1252, which is told in the log.
        quoted: Whether `"` quotes a field. In an unquoted file it is a character like any other, and further
            delimiters belong to the last column.

    Returns:
        Records, and a BadRow for a row with another number of fields than the header, with a NUL character, with a
        field over 128 KiB, or with a quote that is not closed. Empty lines are passed over.

    Raises:
        CatalogError: The header is none, see read_header.
    """
    header = read_header(path, quoted=quoted)
    delimiter = _delimiter(path)
    rows = _rows(path, quoted)
    next(rows)
    for (line, last), row in rows:
        if isinstance(row, csv.Error):
            where = f"the row on line {line}" if line == last else f"the row on lines {line} to {last}"
            yield BadRow(path, line, f"A CSV row was wanted; {where} is none: {row}.")
            continue
        if not quoted and len(row) > len(header):
            row = [*row[: len(header) - 1], delimiter.join(row[len(header) - 1 :])]  # noqa: PLW2901
        if len(row) != len(header):
            lines = "" if line == last else f" (the row runs to line {last}: is a quote not closed?)"
            yield BadRow(path, line, f"{len(header)} fields were wanted, as in the header; got {len(row)}{lines}.")
        elif any("\0" in field for field in row):
            yield BadRow(path, line, "Text was wanted; the row holds a NUL character. Is the file damaged?")
        else:
            yield Record(line, {name: field.strip() for name, field in zip(header, row, strict=True) if name})


def _rows(path: Path, quoted: bool) -> Iterator[tuple[tuple[int, int], list[str] | csv.Error]]:
    """First and last line of each row that is not empty, and its fields or why it has none."""
    with path.open(encoding=text_encoding(path), newline="") as file:
        # strict: otherwise a quote that is never closed takes the rest of the file into one field without a word.
        reader = csv.reader(
            file, delimiter=_delimiter(path), quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
        )
        while True:
            first = reader.line_num + 1
            row: list[str] | csv.Error
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                row = error
            if row:
                yield (first, reader.line_num), row


def _delimiter(path: Path) -> str:
    """The delimiter that the header shows: a comma, or a semicolon or tab where it has no comma."""
    with path.open(encoding=text_encoding(path), newline="") as file:
        header = next((line for line in file if line.strip()), "")
    return next((mark for mark in (",", ";", "\t") if mark in header), ",")


def text_encoding(path: Path) -> str:
    """The encoding in which the whole file can be read; another one than UTF-8 is told in the log, once.

    Args:
        path: A text file. It is read through in pieces, so that no row is met that cannot be decoded.

    Returns:
        `utf-8-sig`, `utf-16` where a mark says so, `cp1252`, or `latin-1` where cp1252 lacks a byte.
    """
    status = path.stat()
    return _encoding(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _encoding(path: Path, size: int, modified: int) -> str:  # noqa: ARG001 - a changed file is looked at again
    """See text_encoding."""
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
    problem = _undecodable(path, "utf-8-sig")
    if problem is None:
        return "utf-8-sig"
    # cp1252 leaves five bytes undefined; latin-1 leaves none.
    encoding = "cp1252" if _undecodable(path, "cp1252") is None else "latin-1"
    _log.warning(
        "%s is not UTF-8 (%s) and is read as %s. Save it as UTF-8 if names look wrong.", path, problem, encoding
    )
    return encoding


def _undecodable(path: Path, encoding: str) -> str | None:
    """Why and where the file is not in this encoding, or None where it is."""
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                return f"byte 0x{error.object[error.start]:02x} near {offset + error.start}"
            offset += len(chunk)
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return f"it ends inside a character at {offset}"
    return None
