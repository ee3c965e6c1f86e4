"""The dresses of a German shop: CSVs with one row an article, `Missing` where nothing is known, and `Images/`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data.catalog import BadRow, CatalogError, CatalogItem
from data.delimited import Record, read_header, read_records
from data.formats import CatalogFormat, Row
from data.splits import split_name

_ID = "article_id"
_SPLIT = "sample"
_COLUMNS = {_ID, "garment_types", _SPLIT}
_NONE = "Missing"


def read_dresses(path: Path) -> Iterator[Row]:
    """The articles of all such CSVs of a folder, in the order of their names.

    The split is what `sample` says; where it says nothing, what the file is called (`train_2025.csv`, `test_2025.csv`).
    Every column but these two is a label target.

    Args:
        path: The folder that holds the CSVs and `Images/<article_id>.jpg`, or one of the CSVs.

    Raises:
        CatalogError: No CSV has the columns article_id, garment_types and sample.
    """
    sources = list(find_tables(path))
    if not sources:
        raise CatalogError(f"A CSV with the columns {', '.join(sorted(_COLUMNS))} was wanted; {path} has none.")
    for source in sources:
        for record in read_records(source):
            yield record if isinstance(record, BadRow) else _item(record, source)


def _item(record: Record, source: Path) -> Row:
    """The article of a row."""
    fields = {name: value for name, value in record.fields.items() if value not in ("", _NONE)}
    item_id = fields.pop(_ID, None)
    split = split_name(fields.pop(_SPLIT, "")) or next(
        (s for s in ("train", "test") if source.name.startswith(s)), None
    )
    if item_id is None:
        return BadRow(source, record.line, f"The column {_ID} is empty.")
    labels = {target: (name,) for target, name in fields.items()}
    image = source.parent / "Images" / f"{item_id}.jpg"
    return CatalogItem(item_id, image, labels=labels, split=split, source_row=record.line)


def find_tables(path: Path) -> Iterator[Path]:
    """The CSVs of this format that a path means, by name."""
    for source in sorted(path.glob("*.csv")) if path.is_dir() else [path]:
        if source.suffix == ".csv" and source.stat().st_size and set(read_header(source)) >= _COLUMNS:
            yield source


def _detect(path: Path) -> bool:
    return any(True for _ in find_tables(path))


def _count(path: Path) -> int:
    return sum(1 for source in find_tables(path) for _ in read_records(source))


DRESSES = CatalogFormat(
    name="dresses",
    description="CSVs with article_id, garment_types, ..., sample (train_2025.csv) and Images/<article_id>.jpg",
    detect=_detect,
    read=read_dresses,
    count=_count,
)
