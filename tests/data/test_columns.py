"""Mappings, and records made items."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from data.catalog import BadRow, Box, CatalogError, CatalogItem
from data.columns import parse_mapping, resolve_columns, to_item

TABLE = Path("/shop/items.csv")


def item(record, mapping=None):
    return to_item(record, resolve_columns(record, mapping, TABLE), TABLE, 7)


def test_parse_mapping():
    assert parse_mapping("item_id=sku, image = file ,labels=colour|type,box=x|y|w|h,split=") == {
        "item_id": "sku",
        "image": "file",
        "labels": "colour|type",
        "box": "x|y|w|h",
        "split": "",
    }
    assert parse_mapping("image=a=b") == {"image": "a=b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "pairs with commas between them; got ''. For example --map item_id=sku"),
        ("item_id", "got 'item_id'"),
        ("item_id=sku,", "got ''"),
        ("=sku", "got '=sku'"),
        ("image=a,image=b", "image comes twice in 'image=a,image=b'"),
        ("colour=c", "knows the keys item_id, image, product_id, split, box, labels; got colour"),
        ("item_id=", "needs a column for item_id; got none"),
        ("box=x|y", r"box is one column or four, x\|y\|width\|height; got 2: 'x\|y'"),
    ],
)
def test_mappings_that_are_none(text, message):
    with pytest.raises(CatalogError, match=message):
        parse_mapping(text)


def test_defaults_leave_every_other_column_to_be_a_label():
    assert item({"id": "1", "path": "a/b.jpg", "product_id": "p", "split": "val", "colour": "red", "fit": ""}) == (
        CatalogItem("1", Path("/shop/a/b.jpg"), "p", {"colour": ("red",)}, None, "validation", 7)
    )


def test_an_empty_field_is_no_product_and_no_split():
    row = item({"id": "1", "image": "a.jpg", "product_id": " ", "split": ""})
    assert (row.product_id, row.split) == (None, None)


def test_the_first_default_that_exists_wins_and_absolute_paths_stay():
    row = item({"id": "label now", "item_id": "1", "file": "also", "image_path": "/photos/1.jpg"})
    assert (row.item_id, row.image) == ("1", Path("/photos/1.jpg"))
    assert row.labels == {"id": ("label now",), "file": ("also",)}


def test_a_mapping_names_what_is_taken():
    record = {"sku": "1", "file": "a.jpg", "style": "s", "set": "test", "colour": "red", "split": "holiday", "x": "9"}
    mapping = parse_mapping("item_id=sku,image=file,product_id=style,split=set,labels=colour|split")
    row = item(record, mapping)
    assert (row.item_id, row.product_id, row.split) == ("1", "s", "test")
    assert row.labels == {"colour": ("red",), "split": ("holiday",)}


def test_no_column_after_the_equals_sign_takes_none():
    row = item({"id": "1", "image": "a.jpg", "split": "holiday"}, parse_mapping("split="))
    assert (row.split, row.labels) == (None, {"split": ("holiday",)})


def test_missing_columns_are_all_named_with_those_there_are():
    with pytest.raises(CatalogError) as caught:
        item({"sku": "1", "colour": "red"}, {"product_id": "style", "labels": "colour|fit"})
    assert str(caught.value) == (
        "Columns wanted and not found: 'style' (product_id); 'fit' (labels); one with the item's id (item_id, id); one "
        "with the photo's path (image, image_path, path, file, filename). /shop/items.csv has the columns sku, colour. "
        "For example --map item_id=sku,image=file,product_id=style."
    )


def test_a_thousand_columns_are_not_all_shown():
    with pytest.raises(CatalogError, match=r"c28, c29 and 970 more. For example"):
        resolve_columns([f"c{number}" for number in range(1000)], None, TABLE)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (" red ", ("red",)),
        ("NA", ("NA",)),
        (2012, ("2012",)),
        (2012.0, ("2012",)),
        (0.5, ("0.5",)),
        (True, ("true",)),
        (False, ("false",)),
        (["red", None, "blue", "red", ""], ("red", "blue")),
        ([1.0, [2]], ("1", "2")),
        (Decimal("1.50"), ("1.50",)),
        (datetime.date(2025, 3, 1), ("2025-03-01",)),
    ],
)
def test_values_become_names(value, names):
    assert item({"id": 1, "image": "a", "target": value}).labels == {"target": names}


@pytest.mark.parametrize("value", [None, "", "  ", float("nan"), Decimal("NaN"), [], [None]])
def test_values_that_are_no_label(value):
    assert item({"id": 1, "image": "a", "target": value}).labels == {}


@pytest.mark.parametrize(
    ("record", "mapping", "box"),
    [
        ({"box": "0,0.1,.5,0.5"}, {}, Box(0, 0.1, 0.5, 0.5)),
        ({"box": [0, 0, 1, 1]}, {}, Box(0, 0, 1, 1)),
        ({"x": "0.2", "y": 0.1, "w": "0.5", "h": 0.5}, {"box": "x|y|w|h"}, Box(0.2, 0.1, 0.5, 0.5)),
        ({"box": ""}, {}, None),
        ({"x": None, "y": "", "w": None, "h": None}, {"box": "x|y|w|h"}, None),
    ],
)
def test_boxes(record, mapping, box):
    row = item({"id": "1", "image": "a", **record}, mapping)
    assert (row.box, row.labels) == (box, {})


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"id": " "}, "One value was wanted in column 'id'; got none."),
        ({"image": None}, "One value was wanted in column 'image'; got none."),
        ({"image": b""}, "One value was wanted in column 'image'; got none."),
        ({"image": {"path": None, "bytes": None}}, "One value was wanted in column 'image'; got none."),
        ({"id": ["1", "2"]}, "One value was wanted in column 'id'; got 1, 2."),
        ({"image": "https://shop/1.jpg"}, "got the address https://shop/1.jpg. Download it first."),
        ({"image": "a\0.jpg"}, "The column 'image' holds characters that are no text: 'a\\x00.jpg'"),
        ({"colour": "\ud800"}, "The column 'colour' holds characters that are no text: '\\ud800'"),
        ({"colour": {"name": "red"}}, "Column 'colour' holds an object, which is no label"),
        ({"colour": b"red"}, "Column 'colour' holds bytes, which is no label"),
        ({"split": "query"}, "A split is train, validation or test; got 'query'. Take no column for it with split=."),
        ({"box": "0,0,1"}, "A box is four numbers x,y,width,height, each 0..1; got '0,0,1'."),
        ({"box": "0,0,2,1"}, "wholly inside it; got 0,0,2,1."),
    ],
)
def test_rows_that_are_no_item(record, reason):
    row = item({"id": "1", "image": "a.jpg", **record})
    assert isinstance(row, BadRow)
    assert (row.source, row.source_row) == (TABLE, 7)
    assert reason in row.reason


def test_photos_may_be_bytes():
    assert item({"id": "1", "image": b"\xff\xd8"}).image == b"\xff\xd8"
    assert item({"id": "1", "image": {"bytes": b"\xff\xd8", "path": "a.jpg"}}).image == b"\xff\xd8"
    assert item({"id": "1", "image": {"bytes": None, "path": "a.jpg"}}).image == Path("/shop/a.jpg")
