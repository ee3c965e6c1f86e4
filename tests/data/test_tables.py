"""CSV, JSON lines and Parquet: the same catalog in three files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.catalog import BadRow, CatalogError, CatalogItem
from data.tables import CSV, JSONL, PARQUET, find_table, read_csv, read_jsonl, read_parquet

ROOT = Path(__file__).parents[2]
RECORDS = [
    {"item_id": "1", "image": "a.jpg", "product_id": "p", "split": "train", "colour": "red", "year": 2012},
    {"item_id": "2", "image": "/photos/b.jpg", "product_id": None, "split": None, "colour": "NA", "year": None},
]


def items(folder, first_row):
    """RECORDS as items, worked by hand."""
    return [
        CatalogItem("1", folder / "a.jpg", "p", {"colour": ("red",), "year": ("2012",)}, None, "train", first_row),
        CatalogItem("2", Path("/photos/b.jpg"), None, {"colour": ("NA",)}, None, None, first_row + 1),
    ]


def write_csv(folder):
    lines = [",".join(RECORDS[0])] + [",".join(str(v or "") for v in record.values()) for record in RECORDS]
    (folder / "items.csv").write_text("\n".join(lines))


def write_jsonl(folder):
    (folder / "items.jsonl").write_text("\n".join(json.dumps(record) for record in RECORDS))


def write_parquet(folder):
    pq.write_table(pa.Table.from_pylist(RECORDS), folder / "items.parquet")


@pytest.mark.parametrize(
    ("known", "write", "first_row"), [(CSV, write_csv, 2), (JSONL, write_jsonl, 1), (PARQUET, write_parquet, 1)]
)
def test_one_catalog_in_three_files(tmp_path, known, write, first_row):
    write(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"")
    assert [kind.name for kind in (CSV, JSONL, PARQUET) if kind.detect(tmp_path)] == [known.name]
    for path in (tmp_path, tmp_path / f"items.{known.name}"):
        assert list(known.read(path)) == items(tmp_path, first_row)
        assert known.count(path) == 2
    mapped = known.read(tmp_path, {"item_id": "colour", "labels": "year"})
    assert [(row.item_id, row.labels) for row in mapped] == [("red", {"year": ("2012",)}), ("NA", {})]
    with pytest.raises(CatalogError, match=r"not found: 'sku' \(item_id\)\. .* has the columns item_id, image, pro"):
        next(known.read(tmp_path, {"item_id": "sku"}))


def test_whole_floats_of_a_nullable_parquet_column_are_whole(tmp_path):
    table = pa.table({"id": [1, 2], "image": ["a", "b"], "year": pa.array([2012.0, None]), "tags": [["x", "y"], []]})
    pq.write_table(table, tmp_path / "t.parquet")
    rows = list(read_parquet(tmp_path))
    assert [row.item_id for row in rows] == ["1", "2"]
    assert [row.labels for row in rows] == [{"year": ("2012",), "tags": ("x", "y")}, {}]


def test_parquet_with_photos_in_it(tmp_path):
    table = pa.table(
        {
            "id": ["1", "2", "3"],
            "image": [{"bytes": b"\xff\xd8", "path": "x"}, {"bytes": None, "path": "b.jpg"}, None],
            "thumbnail": [b"1", b"2", b"3"],
            "kind": pa.array(["dress", "coat", "hat"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    first, second, third = read_parquet(tmp_path, {"labels": "kind"})
    assert (first.image, first.labels) == (b"\xff\xd8", {"kind": ("dress",)})
    assert second.image == tmp_path / "b.jpg"
    assert third == BadRow(tmp_path / "t.parquet", 3, "One value was wanted in column 'image'; got none.")
    # Without a mapping the second column of bytes is asked for as a label: that is said, not passed over.
    assert "Column 'thumbnail' holds bytes" in next(read_parquet(tmp_path)).reason


def test_parquet_that_is_none_or_damaged(tmp_path):
    path = tmp_path / "t.parquet"
    path.write_bytes(b"")
    with pytest.raises(CatalogError, match=r"t.parquet cannot be read as one"):
        next(read_parquet(path))
    table = pa.table({"id": [str(n) for n in range(5000)], "image": [str(n) * 9 for n in range(5000)]})
    pq.write_table(table, path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = b"\0" * 400
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=r"t.parquet cannot be read as one"):
        list(read_parquet(path))


def test_json_lines_that_are_no_item(tmp_path):
    lines = [
        b'\xef\xbb\xbf{"id": 1, "image": "a.jpg", "tags": ["x", "y"], "new": true}',
        b"{'id': 2}",
        b"[1, 2]",
        b"",
        b'{"id": 3, "image": "caf\xe9.jpg"}',
        b'{"id": 4}',
        b"[" * 100_000,
        b'{"id": 5, "image": "b.jpg"}',
    ]
    (tmp_path / "t.ndjson").write_bytes(b"\n".join(lines))
    rows = list(read_jsonl(tmp_path))
    assert rows[0].labels == {"tags": ("x", "y"), "new": ("true",)}
    assert [row.source_row for row in rows] == [1, 2, 3, 5, 6, 7, 8]
    assert [row.reason.split(":")[0] for row in rows[1:6]] == [
        "A line of JSON was wanted; this one is none",
        "A JSON object was wanted; got '[1, 2]'.",
        "A line of JSON was wanted; this one is none",
        "One value was wanted in column 'image'; got none.",
        "A line of JSON was wanted; this one is none",
    ]
    assert rows[6].image == tmp_path / "b.jpg"
    assert JSONL.count(tmp_path) == len(rows)


def test_a_json_key_may_come_late_and_one_that_never_comes_is_an_error(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"id": 1, "image": "a"}\nnot json\n{"id": 2, "image": "b", "style": "s"}\n')
    rows = [row for row in read_jsonl(tmp_path, {"product_id": "style"}) if isinstance(row, CatalogItem)]
    assert [row.product_id for row in rows] == [None, "s"]
    with pytest.raises(CatalogError, match=r"'stile' \(product_id\)\. .* has the columns id, image, style"):
        next(read_jsonl(tmp_path, {"product_id": "stile"}))


def test_json_lines_without_an_object(tmp_path):
    (tmp_path / "t.jsonl").write_text("1\n2\n")
    with pytest.raises(CatalogError, match=r"One JSON object a line was wanted; .*t.jsonl has none"):
        next(read_jsonl(tmp_path))


def test_csv_rows_keep_their_lines(tmp_path):
    (tmp_path / "t.csv").write_text('id,file,note\n1,a.jpg,"x\ny"\n2,b.jpg\n,c.jpg,z\n3,d.jpg,\n')
    rows = list(read_csv(tmp_path))
    assert [(type(row), row.source_row) for row in rows] == [
        (CatalogItem, 2),
        (BadRow, 4),
        (BadRow, 5),
        (CatalogItem, 6),
    ]
    assert CSV.count(tmp_path) == 4


def test_which_table_of_a_folder(tmp_path):
    assert find_table(tmp_path) is None
    (tmp_path / "b.csv").touch()
    (tmp_path / ".c.csv").touch()
    (tmp_path / "d.csv").mkdir()
    (tmp_path / "d.csv/photo.jpg").touch()
    (tmp_path / "d.csv").rename(tmp_path / "photos")
    assert find_table(tmp_path) == tmp_path / "b.csv"
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(CatalogError, match=r"holds a.jsonl, b.csv. Point at one of them, or .* --format folder"):
        find_table(tmp_path)
    assert find_table(tmp_path, (".csv",)) == tmp_path / "b.csv"
    (tmp_path / "items.parquet").touch()
    assert find_table(tmp_path) == tmp_path / "items.parquet"
    with pytest.raises(CatalogError, match=r"A file .csv or .tsv was wanted; the folder .* has none"):
        next(read_csv(tmp_path / "photos"))


# In a process of its own: Python's one table of interned names, which pathlib fills, is resized when Python likes, and
# weighs many megabytes in a process that has loaded torch.
MEASURE = """
import sys, tracemalloc
from itertools import islice
from pathlib import Path
from data.readers import FORMATS

rows = FORMATS[sys.argv[1]].read(Path(sys.argv[2]))
tracemalloc.start()
assert sum(1 for _ in islice(rows, 1000)) == 1000
early, peak = tracemalloc.get_traced_memory()
assert sum(1 for _ in islice(rows, 10_000)) == 10_000
print(peak, early, tracemalloc.get_traced_memory()[0])
"""


@pytest.mark.parametrize(
    ("known", "header", "row"),
    [
        (CSV, "id,image,colour,name\n", '{0},photos/{0}.jpg,red,"a, b"\n'),
        (JSONL, "", '{{"id": {0}, "image": "photos/{0}.jpg", "colour": "red"}}\n'),
    ],
)
def test_rows_take_no_memory(tmp_path, known, header, row):
    path = tmp_path / f"items.{known.name}"
    with path.open("w") as file:
        file.write(header)
        file.writelines(row.format(number) for number in range(200_000))
    assert known.count(path) == 200_000
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, known.name, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    peak, early, late = (int(size) for size in done.stdout.split())
    # A reader that takes the file in first has over 8 MB by the first row; one that keeps its rows grows by over 6 MB.
    assert peak < 6e6
    assert late - early < 1e6
