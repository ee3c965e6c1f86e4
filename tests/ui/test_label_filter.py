"""Label filters, and the labels that catalogs have."""

from __future__ import annotations

import pytest

from ui.label_filter import filter_choices, filter_value, link_of, read_link, where_of

ODD = ["a|b,c=d", '"quoted"', "<b>", "👗", "{{x}} ${y}", "back\\slash", "red · colour (3)"]


def test_choices_name_label_target_and_count_the_most_frequent_first():
    choices = filter_choices({"colour": {"red": 3, "blue": 1200}, "kind": {"dress": 2}})
    assert [text for text, _ in choices] == ["blue · colour (1,200)", "red · colour (3)", "dress · kind (2)"]


def test_labels_of_a_target_are_alternatives_and_targets_add_up():
    chosen = [filter_value("colour", "red"), filter_value("kind", "dress"), filter_value("colour", "blue")]
    assert where_of(chosen) == {"colour": ["red", "blue"], "kind": ["dress"]}
    assert where_of(None) == {}


def test_whatever_a_label_holds_comes_back_from_choice_and_address():
    choices = filter_choices({"colour": dict.fromkeys(ODD, 1)})
    chosen = [value for _, value in choices]
    assert where_of(chosen) == {"colour": ODD}
    assert read_link(link_of(chosen)) == chosen
    assert len(set(chosen)) == len(ODD)


def test_nothing_chosen_leaves_the_address_alone():
    assert link_of([]) is None
    assert read_link(None) == []
    # As deep as nobody but a prankster writes it.
    assert read_link("[" * 100_000) == []


@pytest.mark.parametrize("text", ["{", "3", '"red"', '[["colour"]]', '[["colour", 3]]', '[["a", "b", "c"]]', "null"])
def test_an_address_that_somebody_has_mangled_filters_nothing(text):
    assert read_link(text) == []
