"""The dresses of a German shop."""

from __future__ import annotations

import pytest

from data.catalog import BadRow, CatalogError, CatalogItem
from data.dresses import DRESSES, read_dresses

HEADER = "article_id,garment_types,brand,Fabric,Pattern,Collar,Fastening,Neckline,Shape,Length,Fit,Color,sample"


def write_dresses(folder):
    train = [
        'AN621,casual_dress,"Anna, Field",Jersey,Print,Missing,Missing,Round,A-line,Short,Slim,blue,train',
        "EV451,evening,Missing,Missing,Missing,Missing,Missing,Missing,Missing,Missing,Missing,Missing,validation",
        "JE1,jersey,Missing,Missing,Missing,Missing,Missing,Missing,Missing,Missing,Missing,Missing,Missing",
    ]
    test = ["DE9,denim,Missing,Missing,Missing,Missing,Missing,Missing,Missing,Missing,Missing,Missing,"]
    (folder / "train_2025.csv").write_text("\n".join([HEADER, *train]))
    (folder / "test_2025.csv").write_text("\n".join([HEADER, *test]))
    (folder / "notes.csv").write_text("who,what\nme,all\n")
    (folder / "empty.csv").touch()
    return folder


def test_all_files_of_a_folder_with_splits_from_sample_or_else_the_name(tmp_path):
    rows = list(read_dresses(write_dresses(tmp_path)))
    assert [(row.item_id, row.split, row.source_row) for row in rows] == [
        ("DE9", "test", 2),
        ("AN621", "train", 2),
        ("EV451", "validation", 3),
        ("JE1", "train", 4),
    ]
    assert rows[1] == CatalogItem(
        "AN621",
        tmp_path / "Images/AN621.jpg",
        labels={
            "garment_types": ("casual_dress",),
            "brand": ("Anna, Field",),
            "Fabric": ("Jersey",),
            "Pattern": ("Print",),
            "Neckline": ("Round",),
            "Shape": ("A-line",),
            "Length": ("Short",),
            "Fit": ("Slim",),
            "Color": ("blue",),
        },
        split="train",
        source_row=2,
    )
    assert rows[2].labels == {"garment_types": ("evening",)}


def test_one_file_alone(tmp_path):
    source = write_dresses(tmp_path) / "test_2025.csv"
    assert DRESSES.detect(source)
    (row,) = read_dresses(source)
    assert (row.item_id, row.image) == ("DE9", tmp_path / "Images/DE9.jpg")


def test_other_names_give_no_split_and_a_row_needs_an_id(tmp_path):
    (tmp_path / "all.csv").write_text("article_id,garment_types,sample\n1,denim,new\n,denim,train\nMissing,x,train\n")
    first, second, third = read_dresses(tmp_path)
    assert first.split is None
    assert second == BadRow(tmp_path / "all.csv", 3, "The column article_id is empty.")
    assert third.source_row == 4
    assert DRESSES.count(tmp_path) == 3


def test_no_such_file(tmp_path):
    (tmp_path / "notes.csv").write_text("who,what\nme,all\n")
    assert not DRESSES.detect(tmp_path)
    with pytest.raises(CatalogError, match="A CSV with the columns article_id, garment_types, sample was wanted"):
        next(read_dresses(tmp_path))
