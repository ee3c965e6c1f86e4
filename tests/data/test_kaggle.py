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
