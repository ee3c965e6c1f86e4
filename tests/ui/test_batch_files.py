"""A batch as a file."""

from __future__ import annotations

import csv
import io
import json

import pytest

from ui.batch import Answer, Batch, Row
from ui.batch_files import csv_of, json_of, safe_cell
from ui.zips import Skipped


@pytest.fixture
def batch():
    answers = {
        "kind": Answer(("shirt", "top"), "shirt", 0.98765, False, "knn"),
        "=colour": Answer((), "red", 0.25, True, "mlp"),
    }
    rows = [
        Row(0, '=HYPERLINK("x")', "t", None, answers),
        Row(1, "größe, 👗.jpg", "t", None, {}, "-1 is wrong"),
        Row(2, "later.jpg", "t", None),
    ]
    return Batch(None, "knn", rows=rows, skipped={"no photos": Skipped("no photos", 4, ["a.txt"])}, gallery_version=7)


def test_a_csv_has_a_row_a_photo_and_nothing_that_a_spreadsheet_runs(batch):
    content = csv_of(batch)
    assert content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert rows == [
        [
            "photo",
            *("kind", "kind_probability", "kind_none_of_these"),
            *("'=colour", "'=colour_probability", "'=colour_none_of_these"),
            "error",
        ],
        ['\'=HYPERLINK("x")', "shirt|top", "0.9877", "false", "", "0.2500", "true", ""],
        ["größe, 👗.jpg", "", "", "", "", "", "", "'-1 is wrong"],
        ["later.jpg", "", "", "", "", "", "", "It was not asked about: the batch ended before."],
    ]


def test_json_has_everything_as_it_is(batch):
    content = json.loads(json_of(batch))
    assert content["photos"][0] == {
        "photo": '=HYPERLINK("x")',
        "error": None,
        "predictions": [
            {
                "target": "kind",
                "head": "knn",
                "predicted": ["shirt", "top"],
                "none_of_these": False,
                "likeliest": "shirt",
                "probability": 0.98765,
            },
            {
                "target": "=colour",
                "head": "mlp",
                "predicted": [],
                "none_of_these": True,
                "likeliest": "red",
                "probability": 0.25,
            },
        ],
    }
    assert [photo["error"] for photo in content["photos"][1:]] == [
        "-1 is wrong",
        "It was not asked about: the batch ended before.",
    ]
    assert content["skipped"] == [{"reason": "no photos", "files": 4, "examples": ["a.txt"]}]
    assert (content["targets"], content["head"], content["gallery_version"]) == (["kind", "=colour"], "knn", 7)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_formulas_are_text(start):
    assert safe_cell(start + "1") == "'" + start + "1"
    assert safe_cell("1" + start) == "1" + start
    assert safe_cell("") == ""
