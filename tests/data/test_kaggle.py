"""Kaggle's Fashion Product Images."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.catalog import BadRow, CatalogError, CatalogItem
from data.kaggle import KAGGLE, read_kaggle
from data.readers import open_catalog

HEADER = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName"
PRODUCTS = Path(__file__).parents[2].parent / "shared/datasets/fashion-products"


def write_kaggle(folder):
    rows = [
        '15970,Men,Apparel,Topwear,Shirts,Navy Blue,Fall,2011,Casual,Turtle Check, "Men" Navy, Blue Shirt',
        "39386,Unisex,Accessories,Socks,Socks,NA,,2012,,",
    ]
    (folder / "styles.csv").write_text("\n".join([HEADER, *rows]))
    return folder


def test_names_with_commas_and_quotes_and_na_is_not_empty(tmp_path):
    first, second = read_kaggle(write_kaggle(tmp_path))
    assert first == CatalogItem(
        "15970",
        tmp_path / "images/15970.jpg",
        labels={
            "gender": ("Men",),
            "masterCategory": ("Apparel",),
            "subCategory": ("Topwear",),
            "articleType": ("Shirts",),
            "baseColour": ("Navy Blue",),
            "season": ("Fall",),
            "year": ("2011",),
            "usage": ("Casual",),
        },
        source_row=2,
    )
    assert second.labels == {
        "gender": ("Unisex",),
        "masterCategory": ("Accessories",),
        "subCategory": ("Socks",),
        "articleType": ("Socks",),
        "baseColour": ("NA",),
        "year": ("2012",),
    }


def write_attributes(folder, content, encoding="utf-8"):
    path = folder / "attributes.csv"
    path.write_bytes(content.encode(encoding))
    return path


def labels_beyond_styles(folder):
    """What attributes.csv adds to each product of write_kaggle."""
    with_attributes = {row.item_id: row.labels for row in read_kaggle(folder) if isinstance(row, CatalogItem)}
    (folder / "attributes.csv").rename(folder / "aside.csv")
    plain = {row.item_id: row.labels for row in read_kaggle(folder)}
    (folder / "aside.csv").rename(folder / "attributes.csv")
    assert all(plain[item_id].items() <= labels.items() for item_id, labels in with_attributes.items())
    return {
        item_id: {target: names for target, names in labels.items() if target not in plain[item_id]}
        for item_id, labels in with_attributes.items()
    }


def test_attributes_join_by_id_with_quotes_and_na_is_not_empty(tmp_path):
    write_kaggle(tmp_path)
    # Another order than in styles.csv, an id that it does not have, commas in quotes as Python's csv writes them.
    write_attributes(
        tmp_path, '"id",brand,fit,\r\n39386,NA,,x\r\n7,Nobody,Slim,\r\n15970,"Turtle, ""Men""", Slim Fit ,\r\n'
    )
    assert labels_beyond_styles(tmp_path) == {
        "15970": {"brand": ('Turtle, "Men"',), "fit": ("Slim Fit",)},
        "39386": {"brand": ("NA",)},
    }
    assert [row.source_row for row in read_kaggle(tmp_path)] == [2, 3]
    assert list(read_kaggle(tmp_path / "styles.csv")) == list(read_kaggle(tmp_path))
    assert KAGGLE.count(tmp_path) == KAGGLE.count(tmp_path / "styles.csv") == 2


def test_a_product_without_a_line_of_attributes_has_none(tmp_path):
    write_kaggle(tmp_path)
    write_attributes(tmp_path, "brand;id\nTurtle;15970\n", "utf-16")
    assert labels_beyond_styles(tmp_path) == {"15970": {"brand": ("Turtle",)}, "39386": {}}
    write_attributes(tmp_path, "id,brand\n")
    assert labels_beyond_styles(tmp_path) == {"15970": {}, "39386": {}}


def test_columns_without_a_name_are_no_targets_and_not_the_same(tmp_path):
    (tmp_path / "styles.csv").write_text("id,gender,,productDisplayName\n1,Men,x,Shirt\n")
    write_attributes(tmp_path, "id,brand,\n1,Turtle,y\n")
    (item,) = read_kaggle(tmp_path)
    assert item.labels == {"gender": ("Men",), "brand": ("Turtle",)}


def test_a_folder_called_attributes_is_no_table(tmp_path):
    (write_kaggle(tmp_path) / "attributes.csv").mkdir()
    assert len(list(read_kaggle(tmp_path))) == KAGGLE.count(tmp_path) == 2


def test_lines_of_attributes_that_cannot_be_used_come_last_and_are_counted(tmp_path):
    write_kaggle(tmp_path)
    path = write_attributes(
        tmp_path, 'id,brand,fit\n7,a,b\n15970,Turtle,Slim\n39386,Puma\n,Nike,Slim\n15970,Nike,Loose\n39386,Nike,"Slim\n'
    )
    first, second, *unusable = read_kaggle(tmp_path)
    # Of an id that comes twice the first line counts, as of an item that comes twice.
    assert (first.labels["brand"], first.labels["fit"]) == (("Turtle",), ("Slim",))
    assert second.labels.keys().isdisjoint({"brand", "fit"})
    assert unusable[:3] == [
        BadRow(path, 4, "3 fields were wanted, as in the header; got 2."),
        BadRow(path, 5, "The column id is empty."),
        BadRow(path, 6, "The id '15970' has line 3 already; the first is taken."),
    ]
    assert (unusable[3].source, unusable[3].source_row, len(unusable)) == (path, 7, 4)
    assert KAGGLE.count(tmp_path) == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "id,gender,brand,year\n1,Men,x,2012\n",
            "attributes.csv was wanted with the column id .*; it has the column "
            "gender, year of styles.csv too. Rename the columns, or the file if it does not belong here",
        ),
        ("id,productDisplayName\n", "the column productDisplayName of styles.csv too"),
        ("sku,brand\n1,x\n", "attributes.csv was wanted with the column id .*; it has only sku, brand. Rename"),
        ("id,brand,brand\n", "attributes.csv has brand more than once"),
        ("", "attributes.csv is empty"),
    ],
)
def test_attributes_that_do_not_go_with_styles(tmp_path, content, message):
    write_kaggle(tmp_path)
    write_attributes(tmp_path, content)
    assert KAGGLE.detect(tmp_path)
    with pytest.raises(CatalogError, match=message):
        open_catalog(tmp_path)


def test_the_file_itself_is_a_catalog(tmp_path):
    write_kaggle(tmp_path)
    assert KAGGLE.detect(tmp_path / "styles.csv")
    assert list(read_kaggle(tmp_path / "styles.csv")) == list(read_kaggle(tmp_path))


def test_rows_that_are_too_short_or_have_no_id(tmp_path):
    (tmp_path / "styles.csv").write_text(f"{HEADER}\n1,Men,Apparel\n,a,b,c,d,e,f,g,h,i\n")
    assert list(read_kaggle(tmp_path)) == [
        BadRow(tmp_path / "styles.csv", 2, "10 fields were wanted, as in the header; got 3."),
        BadRow(tmp_path / "styles.csv", 3, "The column id is empty."),
    ]
    assert KAGGLE.count(tmp_path) == 2


def test_other_columns_are_not_kaggles(tmp_path):
    (tmp_path / "styles.csv").write_text("id,productDisplayName,year\n1,Shirt,2012\n")
    with pytest.raises(CatalogError, match=r"productDisplayName last; .*styles.csv has id, productDisplayName, year"):
        next(read_kaggle(tmp_path))
    (tmp_path / "styles.csv").write_text("id,image,style\n1,a.jpg,x\n")
    assert not KAGGLE.detect(tmp_path)
    with pytest.raises(CatalogError, match=r"productDisplayName last; .*styles.csv has id, image, style. Read it with"):
        next(read_kaggle(tmp_path))


@pytest.mark.skipif(not PRODUCTS.is_dir(), reason=f"no real photos in {PRODUCTS}")
def test_the_real_set():
    catalog = open_catalog(PRODUCTS)
    rows = list(catalog)
    assert (catalog.format, catalog.count(), len(rows)) == ("kaggle", 8665, 8665)
    assert all(isinstance(row, CatalogItem) and row.image.is_file() for row in rows)
    # styles.csv: line 2 is 10000, a white skirt for women.
    assert (rows[0].item_id, rows[0].labels["articleType"], rows[0].labels["baseColour"]) == (
        *("10000", ("Skirts",)),
        ("White",),
    )
    # attributes.csv: the skirt is printed and has no neck, as most have not.
    assert (rows[0].labels["brand"], rows[0].labels["pattern"]) == (("Palm Tree",), ("Printed",))
    assert "neck" not in rows[0].labels
    assert sum("pattern" in row.labels for row in rows) == 8665 - 4481
