"""Tables with one row an item: CSV, JSON lines and Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from data.catalog import BadRow, CatalogError
from data.columns import missing_columns, resolve_columns, to_item
from data.delimited import read_header, read_records
from data.formats import CatalogFormat, Row

_ENDINGS = {"csv": (".csv", ".tsv"), "jsonl": (".jsonl", ".ndjson"), "parquet": (".parquet",)}
_ALL_ENDINGS = tuple(ending for endings in _ENDINGS.values() for ending in endings)
# A batch holds this many photos where the table has the photos themselves.
_PARQUET_ROWS = 64


def read_csv(path: Path, mapping: Mapping[str, str] | None = None) -> Iterator[Row]:
    """The rows of a CSV file with a header.

    Args:
        path: The file, or a folder that holds it as `items.csv` or as its only CSV.
        mapping: Columns by key, see columns.parse_mapping.

    Raises:
        CatalogError: No such file, no header, or a column that is wanted is missing.
    """
    source = find_kind(path, "csv")
    columns = resolve_columns([name for name in read_header(source) if name], mapping, source)
    for record in read_records(source):
        yield record if isinstance(record, BadRow) else to_item(record.fields, columns, source, record.line)


def read_jsonl(path: Path, mapping: Mapping[str, str] | None = None) -> Iterator[Row]:
    """The objects of a JSON lines file, one a line; a key may be absent where an item has no value.

    Args:
        path: The file, or a folder that holds it as `items.jsonl` or as its only one.
        mapping: Columns (keys of the objects) by key, see columns.parse_mapping.

    Raises:
        CatalogError: No such file, or a column that is wanted is in none of the objects.
    """
    source = find_kind(path, "jsonl")
    # Rows are looked through until every wanted column was met: usually one row, all of them where one is missing.
    names: dict[str, None] = {}
    for _, record in read_json_lines(source):
        if not isinstance(record, BadRow):
            names.update(dict.fromkeys(record))
            if not missing_columns(names, mapping):
                break
    if not names:
        raise CatalogError(f"One JSON object a line was wanted; {source} has none.")
    columns = resolve_columns(names, mapping, source)
    for line, record in read_json_lines(source):
        yield record if isinstance(record, BadRow) else to_item(record, columns, source, line)


def read_parquet(path: Path, mapping: Mapping[str, str] | None = None) -> Iterator[Row]:
    """The rows of a Parquet file; the image column holds paths, bytes, or Hugging Face's {bytes, path}.

    Args:
        path: The file, or a folder that holds it as `items.parquet` or as its only one.
        mapping: Columns by key, see columns.parse_mapping.

    Raises:
        CatalogError: No such file, no Parquet, damaged, or a column that is wanted is missing.
    """
    import pyarrow as pa

    source = find_kind(path, "parquet")
    try:
        with open_parquet(source) as file:
            columns = resolve_columns(file.schema_arrow.names, mapping, source)
            # Without a list of labels every column is wanted.
            wanted = None if columns.labels is None else sorted(columns.named & set(file.schema_arrow.names))
            row = 0
            for batch in file.iter_batches(_PARQUET_ROWS, columns=wanted):
                for record in batch.to_pylist():
                    row += 1
                    yield to_item(record, columns, source, row)
    except (pa.ArrowException, OSError) as error:
        raise CatalogError(f"A Parquet file was wanted; {source} cannot be read as one: {error}.") from error


def open_parquet(source: Path) -> Any:
    """The open file; a buffer makes it read pages as they come and not whole column chunks."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(source, buffer_size=1 << 20)


def read_json_lines(source: Path) -> Iterator[tuple[int, dict[str, object] | BadRow]]:
    """Line number, and object or bad row, of each line of a JSON lines file that is not empty."""
    with source.open("rb") as file:
        for line, content in enumerate(file, start=1):
            if not content.strip():
                continue
            record: object
            try:
                record = json.loads(content.decode("utf-8-sig" if line == 1 else "utf-8"))
            except (ValueError, RecursionError) as error:
                yield line, BadRow(source, line, f"A line of JSON was wanted; this one is none: {error}.")
                continue
            if isinstance(record, dict):
                yield line, record
            else:
                yield line, BadRow(source, line, f"A JSON object was wanted; got {str(record)[:40]!r}.")


def find_table(path: Path, endings: tuple[str, ...] = _ALL_ENDINGS) -> Path | None:
    """The table that a path means: the file itself, or in a folder the one called `items`, or the only one.

    Args:
        path: A file or folder.
        endings: Endings of the tables that are looked for in a folder.

    Returns:
        The table, or None where the folder has none.

    Raises:
        CatalogError: The folder has several, and it is not for us to choose.
    """
    if not path.is_dir():
        return path
    tables = [entry for entry in path.iterdir() if entry.suffix.lower() in endings and not entry.name.startswith(".")]
    found = [table for table in tables if table.stem == "items"] or tables
    if len(found) > 1:
        names = ", ".join(sorted(table.name for table in found))
        raise CatalogError(
            f"One table, or one called items, was wanted; {path} holds {names}. "
            "Point at one of them, or read the photos alone with --format folder."
        )
    return found[0] if found else None


def find_kind(path: Path, kind: str) -> Path:
    """The table of one kind, csv, jsonl or parquet, that a path means.

    Raises:
        CatalogError: The folder has none, or several.
    """
    table = find_table(path, _ENDINGS[kind])
    if table is None:
        raise CatalogError(f"A file {' or '.join(_ENDINGS[kind])} was wanted; the folder {path} has none.")
    return table


def _detect(kind: str, path: Path) -> bool:
    """Whether the path is, or the folder has, a table of this kind."""
    table = find_table(path)
    return table is not None and table.suffix.lower() in _ENDINGS[kind]


def _count_csv(path: Path) -> int:
    return sum(1 for _ in read_records(find_kind(path, "csv")))


def _count_jsonl(path: Path) -> int:
    with find_kind(path, "jsonl").open("rb") as file:
        return sum(1 for line in file if line.strip())


def _count_parquet(path: Path) -> int:
    with open_parquet(find_kind(path, "parquet")) as file:
        return int(file.metadata.num_rows)


def _table(
    name: str, description: str, read: Callable[..., Iterator[Row]], count: Callable[[Path], int]
) -> CatalogFormat:
    return CatalogFormat(name, description, partial(_detect, name), read, count, mapped=True)


CSV = _table("csv", "a CSV with a row a photo, or a folder with items.csv; columns by --map", read_csv, _count_csv)
JSONL = _table("jsonl", "the same as JSON lines, items.jsonl; lists are several labels", read_jsonl, _count_jsonl)
PARQUET = _table("parquet", "the same as Parquet, items.parquet; photos may be in it", read_parquet, _count_parquet)
