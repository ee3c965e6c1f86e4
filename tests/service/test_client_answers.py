"""Answers survive the way through JSON, and what is none is named."""

from __future__ import annotations

import inspect
import json
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service import answers
from service.answers import Catalog, Item, ItemPage, Job, Progress, Receipt
from service.client_answers import AnswerError, read_answer

KINDS = [kind for _, kind in inspect.getmembers(answers, inspect.isclass) if is_dataclass(kind)]
PLAIN = {
    Any: st.none() | st.integers() | st.text(max_size=3),
    str: st.text(max_size=3),
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    NoneType: st.none(),
}
PAGE = {"items": [{"item_id": "a", "box": [0, 0, 1, 0.5]}], "total": 1, "next_after": None, "gallery_version": 3}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type that answers are made of; what may be anything is a number, a text or null."""
    origin, parts = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return st.builds(kind, **{name: values(part) for name, part in get_type_hints(kind).items()})
    if origin is list:
        return st.lists(values(parts[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(st.text(max_size=3), values(parts[1]), max_size=2)
    if origin is tuple:
        return st.tuples(*map(values, parts))
    if origin is UnionType:
        return st.one_of(*map(values, parts))
    return st.sampled_from(parts) if origin is Literal else PLAIN[kind]


def test_the_words_of_the_api_are_all_here():
    assert len(KINDS) > 15
    assert {"Neighbours", "Classification", "Explanation", "Catalog", "Job", "Problem"} <= {
        kind.__name__ for kind in KINDS
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_every_answer_comes_back_equal(kind, data):
    answer = data.draw(values(kind))
    assert read_answer(kind, json.loads(json.dumps(asdict(answer)))) == answer


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_without_a_default_must_be_there(kind):
    required = [each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING]
    for name in required:
        others = {other: None for other in required if other != name}
        with pytest.raises(AnswerError, match=rf"^{kind.__name__} lacks {name}\.$"):
            read_answer(kind, others)


def test_lists_and_boxes_are_what_the_types_say():
    page = read_answer(ItemPage, PAGE)
    assert page == ItemPage([Item("a", box=(0.0, 0.0, 1.0, 0.5))], 1, None, 3)
    assert isinstance(page.items[0].box, tuple)
    # JSON may write 0.0 as 0.
    assert [type(number) for number in page.items[0].box] == [float] * 4


def test_what_a_later_version_adds_is_passed_over():
    newer = {**PAGE, "took_ms": 3, "items": [{"item_id": "a", "box": [0, 0, 1, 0.5], "weight_g": 250}]}
    assert read_answer(ItemPage, newer) == read_answer(ItemPage, PAGE)


def test_a_state_that_a_later_version_adds_is_taken():
    job = asdict(Job("1", "fit", "queued", {}, Progress(), None, None, "2026-11-21T00:00:00Z"))
    assert read_answer(Job, {**job, "state": "paused"}).state == "paused"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"total": "1"}, r"ItemPage.total should be int; got '1'"),
        # In Python a bool is an int, in JSON it is not; 1.5 items there are not.
        ({"total": True}, r"ItemPage.total should be int; got True"),
        ({"total": 1.5}, r"ItemPage.total should be int; got 1.5"),
        ({"total": None}, r"ItemPage.total should be int; got None"),
        ({"next_after": 3}, r"ItemPage.next_after should be str; got 3"),
        ({"items": {"item_id": "a"}}, r"ItemPage.items should be list; got \{"),
        ({"items": [{"item_id": "a"}, {}]}, r"ItemPage.items\[1\] lacks item_id"),
        ({"items": ["a"]}, r"ItemPage.items\[0\] should be Item; got 'a'"),
        (
            {"items": [{"item_id": "a", "box": [0, 0, 1]}]},
            r"ItemPage.items\[0\].box should be 4 values; got \[0, 0, 1\]",
        ),
        ({"items": [{"item_id": "a", "box": [0, 0, 1, "1"]}]}, r"ItemPage.items\[0\].box should be float; got '1'"),
        ({"items": [{"item_id": "a", "labels": ["red"]}]}, r"ItemPage.items\[0\].labels should be dict; got \['red'\]"),
        ({"items": [{"item_id": "a", "labels": {"c": "red"}}]}, r"labels should be list; got 'red'"),
    ],
)
def test_what_is_not_as_the_types_say_is_named(change, sentence):
    with pytest.raises(AnswerError, match=sentence):
        read_answer(ItemPage, {**PAGE, **change})


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_an_answer_is_an_object(value):
    with pytest.raises(AnswerError, match=r"^Catalog should be Catalog; got"):
        read_answer(Catalog, value)


def test_a_field_with_a_default_may_be_missing():
    receipt = read_answer(
        Receipt, {"gallery_version": 1, "items": 2, "encoder": "e", "encoder_fingerprint": "f", "variant": "exact"}
    )
    assert receipt == Receipt(1, 2, "e", "f", "exact")


@dataclass(frozen=True)
class Either:
    """A union of two that JSON tells apart."""

    value: int | list[int] | None


@pytest.mark.parametrize("value", [3, [3, 4], None])
def test_a_union_is_the_first_that_fits(value):
    assert read_answer(Either, {"value": value}) == Either(value)


def test_a_union_of_which_none_fits_says_what_the_last_wants():
    with pytest.raises(AnswerError, match=r"Either.value should be list"):
        read_answer(Either, {"value": "x"})
