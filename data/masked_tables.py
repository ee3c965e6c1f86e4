"""Masked catalogs in tables: each row as it is, but for where its photo lies, or for the photo itself."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.catalog import BadRow, Catalog, CatalogItem
from data.columns import resolve_columns
from data.delimited import read_header, read_records
from data.masked_files import Photos, find_photos, mask_photos
from data.masking import Job
from data.tables import find_kind, open_parquet, read_json_lines

if TYPE_CHECKING:
    from data.masking import Masking

# Photos of a table that are in memory at once, and go into one part of the written file.
_PARQUET_ROWS = 64


def write_csv(catalog: Catalog, out: Path, masking: Masking, mapping: Mapping[str, str] | None) -> None:
    """Writes a CSV and its photos without their background into the empty folder `out`.

    Rows that are no items are left out; the table is written in UTF-8, with commas.

    Args:
        catalog: The catalog, of the format csv.
        out: An empty folder.
        masking: Masks the photos.
        mapping: Columns by key, see columns.parse_mapping.
    """
    source = find_kind(catalog.root, "csv")
    photos = find_photos(catalog, masking.options.limit)
    mask_photos(photos, out, masking)
    header = [name for name in read_header(source) if name]
    image = resolve_columns(header, mapping, source).image
    with (out / source.name).open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, header, lineterminator="\n")
        table.writeheader()
        for row, record in zip(islice(catalog, masking.options.limit), read_records(source), strict=False):
            if isinstance(row, CatalogItem) and not isinstance(record, BadRow):
                table.writerow({**record.fields, image: _place(row, photos)})


def write_jsonl(catalog: Catalog, out: Path, masking: Masking, mapping: Mapping[str, str] | None) -> None:
    """Writes JSON lines and their photos without background into the empty folder `out`; as write_csv."""
    source = find_kind(catalog.root, "jsonl")
    photos = find_photos(catalog, masking.options.limit)
    mask_photos(photos, out, masking)
    records = (record for _, record in read_json_lines(source) if not isinstance(record, BadRow))
    names = {name for record in records for name in record}
    image = resolve_columns(names, mapping, source).image
    with (out / source.name).open("w", encoding="utf-8") as file:
        for row, (_, record) in zip(islice(catalog, masking.options.limit), read_json_lines(source), strict=False):
            if isinstance(row, CatalogItem) and not isinstance(record, BadRow):
                record[image] = _put(record[image], _place(row, photos), "path")
                file.write(json.dumps(record, ensure_ascii=False) + "\n")


def write_parquet(catalog: Catalog, out: Path, masking: Masking, mapping: Mapping[str, str] | None) -> None:
    """Writes a Parquet file, with its photos in it or beside it, without background; as write_csv."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = find_kind(catalog.root, "parquet")
    photos = find_photos(catalog, masking.options.limit)
    mask_photos(photos, out, masking)
    rows = islice(catalog, masking.options.limit)
    with open_parquet(source) as file:
        schema = file.schema_arrow
        column = schema.get_field_index(resolve_columns(schema.names, mapping, source).image)
        kind = schema.field(column)
        total = min(file.metadata.num_rows, masking.options.limit or file.metadata.num_rows)
        with pq.ParquetWriter(out / source.name, schema) as table:
            for batch in file.iter_batches(_PARQUET_ROWS):
                here = list(islice(rows, len(batch)))
                items = [row for row in here if isinstance(row, CatalogItem)]
                kept = batch.take([number for number, row in enumerate(here) if isinstance(row, CatalogItem)])
                cells = _cells(kept.column(column).to_pylist(), items, photos, masking, total)
                table.write_batch(kept.set_column(column, kind, pa.array(cells, kind.type)))
                if len(here) < len(batch):
                    break


def _cells(cells: list[Any], items: list[CatalogItem], photos: Photos, masking: Masking, total: int) -> Iterator[Any]:
    """The column of photos: with other bytes where it holds photos, with other paths where it names them."""
    jobs = (Job(item.item_id, item.image, (item.box,)) for item in items if isinstance(item.image, bytes))
    masked = masking.mask(jobs, total)
    for cell, item in zip(cells, items, strict=True):
        if isinstance(item.image, bytes):
            yield _put(cell, next(masked), "bytes")
        else:
            yield _put(cell, _place(item, photos), "path")


def _put(cell: object, value: object, key: str) -> object:
    """What stands in place of a cell; Hugging Face's {bytes, path} gets the value under its key."""
    return {**cell, key: value} if isinstance(cell, dict) else value


def _place(item: CatalogItem, photos: Photos) -> str:
    """Where the photo of an item lies, from the table's folder."""
    assert isinstance(item.image, Path)
    return photos.places[item.image]
