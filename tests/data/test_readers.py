"""The one way in: every format is found where the folder shows it, and every failure is a sentence."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from data.catalog import BadRow, CatalogError, CatalogItem
from data.readers import FORMATS, open_catalog
from tests.data import test_dresses, test_kaggle, test_tables
from tests.data.test_deepfashion import write_deepfashion
from tests.data.test_fashion_mnist import write_fashion_mnist
from tests.data.test_shards import write_shards

ROOT = Path(__file__).parents[2]
CLOTHING = ROOT.parent / "shared/datasets/clothing-small/train"


def write_folder(folder):
    (folder / "dress").mkdir()
    (folder / "dress/a.jpg").touch()


WRITERS = {
    "deepfashion": write_deepfashion,
    "fashion-mnist": write_fashion_mnist,
    "shards": write_shards,
    "kaggle": test_kaggle.write_kaggle,
    "dresses": test_dresses.write_dresses,
    "csv": test_tables.write_csv,
    "jsonl": test_tables.write_jsonl,
    "parquet": test_tables.write_parquet,
    "folder": write_folder,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_keeps_the_contract(tmp_path, name):
    WRITERS[name](tmp_path)
    # A stray photo beside the lists makes no format another.
    (tmp_path / "zz.jpg").touch()
    catalog = open_catalog(tmp_path)
    assert (catalog.root, catalog.format) == (tmp_path, name)
    rows = list(catalog)
    assert all(isinstance(row, CatalogItem) for row in rows)
    assert rows == list(catalog) == list(open_catalog(tmp_path, format=name))
    assert catalog.count() == len(rows) == len({row.item_id for row in rows})
    known = FORMATS[name]
    assert known.name == name
    assert "\n" not in known.description


def test_a_table_beside_photos_is_found_by_its_only_name(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "spring.csv").write_text("sku;file\n1;dress/a.jpg\n")
    with pytest.raises(CatalogError, match=r"has the columns sku, file. For example --map item_id=sku,image=file"):
        open_catalog(tmp_path)
    catalog = open_catalog(tmp_path, mapping={"item_id": "sku", "image": "file"})
    assert (catalog.format, next(iter(catalog)).image) == ("csv", tmp_path / "dress/a.jpg")
    assert [row.item_id for row in open_catalog(tmp_path, format="folder")] == ["dress/a.jpg"]


def test_a_mapping_means_a_table_even_where_the_folder_shows_another_format(tmp_path):
    test_kaggle.write_kaggle(tmp_path)
    (tmp_path / "styles.csv").write_text("id,photo,productDisplayName\n1,x.jpg,Shirt\n")
    assert open_catalog(tmp_path).format == "kaggle"
    assert open_catalog(tmp_path, mapping={"image": "photo"}).format == "csv"


def test_several_tables_are_not_chosen_from(tmp_path):
    write_folder(tmp_path)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("id,image\n1,a.jpg\n")
    with pytest.raises(CatalogError, match=r"holds a.csv, b.csv. Point at one of them"):
        open_catalog(tmp_path)
    assert open_catalog(tmp_path / "a.csv").format == "csv"
    assert open_catalog(tmp_path, format="folder").count() == 1


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("nowhere", {}, r"A catalog was wanted, a folder or a file; there is no .*nowhere\."),
        ("empty", {}, r"at least one photo was wanted; .*empty, read as folder, has none. Choose with --format: deepf"),
        (
            "notes.txt",
            {},
            r"A catalog was wanted; .*notes.txt shows none. Choose with --format: deepfashion, fashion-m",
        ),
        ("notes.txt", {"format": "folder"}, r"notes.txt cannot be read: .*Not a directory"),
        ("notes.txt", {"format": "tfrecord"}, "There is no format 'tfrecord'. Choose with --format: deepfashion"),
        ("empty", {"format": "kaggle"}, r"empty cannot be read: .*No such file .*styles.csv"),
        ("empty", {"format": "shards"}, "empty, read as shards, has none"),
        ("empty", {"format": "jsonl"}, "A file .jsonl or .ndjson was wanted; the folder .*empty has none"),
        ("header.csv", {}, "header.csv, read as csv, has none"),
        ("zero.csv", {}, "row of column names was wanted; .*zero.csv is empty"),
        ("zero.parquet", {}, "zero.parquet cannot be read as one"),
        ("photos", {"mapping": {"image": "file"}}, "A table, to which the mapping belongs, was wanted; .*photos shows"),
        (
            "photos",
            {"mapping": {"image": "file"}, "format": "folder"},
            "names columns of csv, jsonl, parquet; the format f",
        ),
        ("photos", {"mapping": {"picture": "file"}}, "A mapping knows the keys item_id, .*; got picture"),
    ],
)
def test_what_cannot_be_opened(tmp_path, path, options, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no catalog")
    (tmp_path / "header.csv").write_text("id,image\n")
    (tmp_path / "zero.csv").touch()
    (tmp_path / "zero.parquet").touch()
    (tmp_path / "photos").mkdir()
    write_folder(tmp_path / "photos")
    with pytest.raises(CatalogError, match=message):
        open_catalog(tmp_path / path, **options)


def test_a_catalog_of_bad_rows_alone_is_a_catalog(tmp_path):
    (tmp_path / "items.csv").write_text("id,image\n1\n")
    (row,) = open_catalog(tmp_path)
    assert isinstance(row, BadRow)


def test_readers_import_nothing_heavy():
    code = "import sys, data.readers; print(sorted({'torch', 'pyarrow', 'PIL', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.skipif(not CLOTHING.is_dir(), reason=f"no real photos in {CLOTHING}")
def test_the_real_photos():
    catalog = open_catalog(CLOTHING)
    labels = Counter(row.labels["label"] for row in catalog)
    assert (catalog.format, catalog.count(), labels.total(), len(labels)) == ("folder", 3068, 3068, 10)
    assert labels[("t-shirt",)] == len(list((CLOTHING / "t-shirt").iterdir()))
    both = open_catalog(CLOTHING.parent)
    assert Counter(row.split for row in both) == {"train": 3068, "validation": 341}
