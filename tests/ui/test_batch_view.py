"""A batch's table: its order, its filters and its pages."""

from __future__ import annotations

import pytest

from ui.batch import Answer, Batch, Row
from ui.batch_view import View, labels_of, page_of


@pytest.fixture
def batch():
    """Five photos: two are shirts, one is none of these, one failed, one was not asked about yet."""
    rows = [
        _row(0, "b.jpg", "shirt", 0.9),
        _row(1, "A.jpg", "dress", 0.4),
        _row(2, "c.jpg", "shirt", 0.6),
        Row(3, "d.jpg", "t", None, {"kind": Answer((), "hat", 0.3, True, "knn")}),
        Row(4, "e.jpg", "t", None, {}, "The photo is damaged."),
        Row(5, "f.jpg", "t", None),
    ]
    return Batch(None, None, rows=rows)


def _row(place, name, label, probability):
    return Row(place, name, "t", None, {"kind": Answer((label,), label, probability, False, "knn")})


def _names(batch, **view):
    return "".join(row.name[0] for row in page_of(batch, View(**view)).rows)


@pytest.mark.parametrize(
    ("view", "names"),
    [
        ({}, "bAcdef"),
        ({"falling": True}, "fedcAb"),
        ({"sort": "name"}, "Abcdef"),
        ({"sort": "name", "falling": True}, "fedcbA"),
        # What has no label comes last in both directions; equal ones stay in order.
        ({"sort": "label:kind"}, "Abcdef"),
        ({"sort": "label:kind", "falling": True}, "bcAdef"),
        ({"sort": "probability:kind"}, "dAcbef"),
        ({"sort": "probability:kind", "falling": True}, "bcAdef"),
        ({"sort": "error"}, "ebAcdf"),
        ({"sort": "label:unknown"}, "bAcdef"),
        ({"text": " SHIRT "}, "bc"),
        ({"text": "damaged"}, "e"),
        ({"text": "a.JPG"}, "A"),
        ({"text": "hat"}, ""),
        ({"label": ("kind", "shirt")}, "bc"),
        ({"label": ("other", "shirt")}, ""),
        ({"only": "failures"}, "e"),
        ({"only": "doubtful"}, "Ad"),
        ({"only": "doubtful", "below": 0.7}, "Acd"),
        # Just as sure as wanted is sure enough.
        ({"only": "doubtful", "below": 0.4}, "d"),
        ({"only": "none"}, "d"),
        ({"only": "doubtful", "text": "dress"}, "A"),
    ],
)
def test_rows_are_sorted_and_filtered(batch, view, names):
    assert _names(batch, **view) == names


def test_fifty_rows_make_a_page():
    batch = Batch(None, None, rows=[_row(place, str(place), "a", 0.5) for place in range(101)])
    pages = [page_of(batch, View(page=number)) for number in (0, 2, 9, -1)]
    assert [(len(page.rows), page.rows[0].place, page.found, page.number, page.last) for page in pages] == [
        (50, 0, 101, 0, 2),
        (1, 100, 101, 2, 2),
        (1, 100, 101, 2, 2),
        (50, 0, 101, 0, 2),
    ]
    # Fifty rows are one page and no more.
    batch.rows = batch.rows[:50]
    assert page_of(batch, View()).last == 0
    batch.rows = []
    assert page_of(batch, View()).last == 0


def test_labels_are_counted_most_frequent_first(batch):
    assert labels_of(batch) == [("kind", "shirt", 2), ("kind", "dress", 1)]
