"""Kaggle's Fashion Product Images: `styles.csv`, written without quoting, `images/<id>.jpg`, maybe `attributes.csv`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data.catalog import BadRow, CatalogError, CatalogItem, Labels
from data.delimited import read_header, read_records
from data.formats import CatalogFormat, Row

_ID = "id"
_NAME = "productDisplayName"
_ATTRIBUTES = "attributes.csv"


def read_kaggle(path: Path) -> Iterator[Row]:
    """The rows of `styles.csv`, with what `attributes.csv` beside it says of the same ids.

    The product's name, the last column, is no label; commas in it are its own, and quotes are characters. An empty
    field is no label, `NA` is the label `NA`: Kaggle means different things by them. Lines of `attributes.csv` that
    cannot be used come last, as bad rows; the products are items without them.

    Args:
        path: The folder that holds `styles.csv` and `images/`, or that file.

    Raises:
        CatalogError: There is no such file, its columns are not Kaggle's, or those of `attributes.csv` do not go with
            them.
    """
    source = _styles(path)
    header = read_header(source, quoted=False)
    if _ID not in header or header[-1] != _NAME:
        raise CatalogError(
            f"Kaggle's columns were wanted, {_ID} among them and {_NAME} last; {source} has {', '.join(header)}. "
            "Read it with --format csv and --map."
        )
    attributes, unusable = _read_attributes(source, header)
    for record in read_records(source, quoted=False):
        if isinstance(record, BadRow):
            yield record
        elif not record.fields[_ID]:
            yield BadRow(source, record.line, f"The column {_ID} is empty.")
        else:
            fields = record.fields
            labels: Labels = {target: (name,) for target, name in fields.items() if name and target not in (_ID, _NAME)}
            labels = {**labels, **attributes.get(fields[_ID], {})}
            image = source.parent / "images" / f"{fields[_ID]}.jpg"
            yield CatalogItem(fields[_ID], image, labels=labels, source_row=record.line)
    yield from unusable


def _read_attributes(styles: Path, taken: list[str]) -> tuple[dict[str, Labels], list[BadRow]]:
    """The labels of each id in `attributes.csv`, a CSV with quoting, and its lines that cannot be used.

    Args:
        styles: The file beside which it may lie; without it there are no labels.
        taken: The columns of that file.

    Raises:
        CatalogError: It has no column of ids, or one that is taken.
    """
    source = styles.parent / _ATTRIBUTES
    if not source.is_file():
        return {}, []
    header = read_header(source)
    twice = [name for name in header if name in taken and name not in (_ID, "")]
    if _ID not in header or twice:
        came = f"the column {', '.join(twice)} of {styles.name} too" if twice else f"only {', '.join(header)}"
        raise CatalogError(
            f"{source} was wanted with the column {_ID} and others than {styles.name} has; it has {came}. Rename the "
            "columns, or the file if it does not belong here."
        )
    labels: dict[str, Labels] = {}
    lines: dict[str, int] = {}
    unusable: list[BadRow] = []
    for record in read_records(source):
        if isinstance(record, BadRow):
            unusable.append(record)
            continue
        item_id = record.fields.pop(_ID)
        if not item_id:
            unusable.append(BadRow(source, record.line, f"The column {_ID} is empty."))
        elif item_id in lines:
            reason = f"The {_ID} '{item_id}' has line {lines[item_id]} already; the first is taken."
            unusable.append(BadRow(source, record.line, reason))
        else:
            lines[item_id] = record.line
            labels[item_id] = {target: (name,) for target, name in record.fields.items() if name}
    return labels, unusable


def _styles(path: Path) -> Path:
    """The CSV file that a path means."""
    return path / "styles.csv" if path.is_dir() else path


def find_tables(path: Path) -> list[Path]:
    """`styles.csv`, and `attributes.csv` where there is one, of the catalog that a path means."""
    styles = _styles(path)
    attributes = styles.parent / _ATTRIBUTES
    return [styles, attributes] if attributes.is_file() else [styles]


def _detect(path: Path) -> bool:
    """Whether there is a styles.csv with Kaggle's columns."""
    source = _styles(path)
    return source.name == "styles.csv" and source.is_file() and {_ID, _NAME} <= set(read_header(source, quoted=False))


def _count(path: Path) -> int:
    source = _styles(path)
    _, unusable = _read_attributes(source, read_header(source, quoted=False))
    return sum(1 for _ in read_records(source, quoted=False)) + len(unusable)


KAGGLE = CatalogFormat(
    name="kaggle",
    description="Kaggle Fashion Product Images: styles.csv and images/<id>.jpg; attributes.csv where there is one",
    detect=_detect,
    read=read_kaggle,
    count=_count,
)
