"""Kaggle's Fashion Product Images: `styles.csv`, written without quoting, and `images/<id>.jpg`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data.catalog import BadRow, CatalogError, CatalogItem
from data.delimited import read_header, read_records
from data.formats import CatalogFormat, Row

_ID = "id"
_NAME = "productDisplayName"


def read_kaggle(path: Path) -> Iterator[Row]:
    """The rows of `styles.csv`.

    The product's name, the last column, is no label; commas in it are its own, and quotes are characters. An empty
    field is no label, `NA` is the label `NA`: Kaggle means different things by them.

    Args:
        path: The folder that holds `styles.csv` and `images/`, or that file.

    Raises:
        CatalogError: There is no such file, or its columns are not Kaggle's.
    """
    source = _styles(path)
    header = read_header(source, quoted=False)
    if _ID not in header or header[-1] != _NAME:
        raise CatalogError(
            f"Kaggle's columns were wanted, {_ID} among them and {_NAME} last; {source} has {', '.join(header)}. "
            "Read it with --format csv and --map."
        )
    for record in read_records(source, quoted=False):
        if isinstance(record, BadRow):
            yield record
        elif not record.fields[_ID]:
            yield BadRow(source, record.line, f"The column {_ID} is empty.")
        else:
            fields = record.fields
            labels = {target: (name,) for target, name in fields.items() if name and target not in (_ID, _NAME)}
            image = source.parent / "images" / f"{fields[_ID]}.jpg"
            yield CatalogItem(fields[_ID], image, labels=labels, source_row=record.line)


def _styles(path: Path) -> Path:
    """The CSV file that a path means."""
    return path / "styles.csv" if path.is_dir() else path


def _detect(path: Path) -> bool:
    """Whether there is a styles.csv with Kaggle's columns."""
    source = _styles(path)
    return source.name == "styles.csv" and source.is_file() and {_ID, _NAME} <= set(read_header(source, quoted=False))


def _count(path: Path) -> int:
    return sum(1 for _ in read_records(_styles(path), quoted=False))


KAGGLE = CatalogFormat(
    name="kaggle",
    description="Kaggle Fashion Product Images: styles.csv and images/<id>.jpg",
    detect=_detect,
    read=read_kaggle,
    count=_count,
)
