"""The query that a browser tells of."""

from __future__ import annotations

import pytest

from ui.held_files import HeldFileError, HeldFiles
from ui.query import Query, QueryError


def test_a_photo_with_a_box_is_read_as_the_client_takes_it():
    with HeldFiles(1) as files:
        token = files.keep("dress.jpg", b"photo").token
        query = Query.read({"token": token, "item_id": None, "box": [0.1, 0.2, 0.5, "0.25"], "name": "dress.jpg"})
        assert query == Query(token, None, (0.1, 0.2, 0.5, 0.25), "dress.jpg")
        assert query.subject(files) == {"photo": b"photo", "box": (0.1, 0.2, 0.5, 0.25)}


def test_an_item_has_no_box_and_is_known_by_its_id():
    query = Query.read({"item_id": "p1", "box": [0, 0, 0.5, 0.5]})
    assert query == Query(None, "p1", None, "p1")
    with HeldFiles(1) as files:
        assert query.subject(files) == {"item_id": "p1"}


@pytest.mark.parametrize("value", [None, "", {}, {"token": None, "item_id": ""}, {"token": "a", "item_id": "b"}])
def test_nothing_chosen_or_two_things_at_once_are_a_sentence(value):
    with pytest.raises(QueryError, match="Choose a photo first"):
        Query.read(value)


@pytest.mark.parametrize("box", [[0.1, 0.1, 0, 0.5], [0.1, 0.1, 0.5, 0.009]])
def test_a_box_without_a_size_is_refused(box):
    with pytest.raises(QueryError, match="drag across the garment"):
        Query.read({"token": "a", "box": box})


def test_a_photo_that_has_gone_is_a_sentence():
    with HeldFiles(1) as files, pytest.raises(HeldFileError, match="no longer held"):
        Query.read({"token": "gone"}).subject(files)
