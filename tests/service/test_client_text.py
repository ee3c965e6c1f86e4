"""What the client writes is what the grammars read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.catalog import Box
from heads.groups import parse_allowed, parse_weights
from indexer.edits import parse_labels
from indexer.filters import parse_where
from service.client_text import allowed_text, box_text, labels_text, path_part, weights_text, where_text

# The grammars take the spaces off both ends of a name, and none is empty.
NAMES = st.text(st.sampled_from("ab é=,|\\/."), min_size=1, max_size=8).filter(lambda name: name == name.strip())
TARGETS = NAMES.filter(lambda name: "=" not in name)


@given(st.dictionaries(TARGETS, st.lists(NAMES, min_size=1, max_size=3), min_size=1, max_size=3))
def test_a_filter_is_read_as_it_was_meant(where):
    assert parse_where(where_text(where)) == {target: tuple(labels) for target, labels in where.items()}


@given(st.dictionaries(TARGETS, st.lists(NAMES, min_size=1, max_size=3, unique=True), max_size=3))
def test_labels_are_read_as_they_were_meant(labels):
    assert parse_labels(labels_text(labels)) == {target: tuple(names) for target, names in labels.items()}


@given(st.lists(NAMES.filter(lambda name: name != "="), min_size=1, max_size=4, unique=True))
def test_names_of_labels_and_groups_are_read_as_they_were_meant(names):
    assert parse_allowed(allowed_text(names)) == tuple(names)


@given(st.dictionaries(NAMES.filter(lambda name: name != "="), st.floats(0, 1e6), min_size=1, max_size=4))
def test_weights_are_read_as_they_were_meant(weights):
    assert parse_weights(weights_text(weights)) == weights


def test_the_texts_are_those_of_the_command_line():
    assert where_text({"articleType": "Shirts", "baseColour": ["Blue", "Navy Blue"]}) == (
        "articleType=Shirts,baseColour=Blue|Navy Blue"
    )
    assert labels_text({"colour": ["red"], "type": []}) == ["colour=red", "type="]
    assert parse_labels(["colour=red", "type="]) == {"colour": ("red",), "type": ()}
    # `=Tops` is the label Tops, where a group is called so too.
    assert allowed_text(["=Tops", "a,b"]) == r"=Tops,a\,b"
    assert weights_text({"Bottoms": 0.6, "Shirts": 2}) == "Bottoms=0.6,Shirts=2.0"


@pytest.mark.parametrize("write", [where_text, allowed_text, weights_text, box_text])
def test_text_stays_and_nothing_is_not_sent(write):
    assert write(r"a=b|c\,d") == r"a=b|c\,d"
    assert write(None) is None


@pytest.mark.parametrize(("write", "nothing"), [(where_text, {}), (allowed_text, []), (weights_text, {})])
def test_an_empty_collection_is_not_sent(write, nothing):
    assert write(nothing) is None


def test_a_target_with_an_equals_sign_is_refused():
    with pytest.raises(ValueError, match="no '='; got 'a=b'"):
        where_text({"a=b": ["c"]})


@pytest.mark.parametrize("box", [(0.1, 0.2, 0.5, 0.25), [0.1, 0.2, 0.5, 0.25], Box(0.1, 0.2, 0.5, 0.25)])
def test_a_box_is_four_numbers_however_it_comes(box):
    assert box_text(box) == "0.1,0.2,0.5,0.25"
    assert Box.parse(box_text(box)) == Box(0.1, 0.2, 0.5, 0.25)


def test_a_box_of_three_numbers_is_refused():
    with pytest.raises(ValueError, match="four numbers"):
        box_text((0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    ("item_id", "part"),
    [
        ("red/0.png", "red%2F0.png"),
        ("a b", "a%20b"),
        ("50%?#", "50%25%3F%23"),
        ("é", "%C3%A9"),
        # As they are they would name the folder, and the one above it.
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("...", "..."),
        ("a/../b", "a%2F..%2Fb"),
    ],
)
def test_an_id_is_one_part_of_a_path(item_id, part):
    assert path_part(item_id) == part


def test_an_empty_id_is_refused():
    with pytest.raises(ValueError, match="a character at least"):
        path_part("")
