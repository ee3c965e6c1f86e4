"""What is asked for neighbours, and what is said where there are none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from service.answers import Item, Neighbour, Neighbours, Receipt
from service.client import RefusedError
from ui.find_answer import Search, find, why
from ui.held_files import HeldFiles
from ui.label_filter import filter_value

RECEIPT = Receipt(7, 3, "lite0", "f", "exact", timings_ms={"total": 12.3})
RED, DRESS = filter_value("colour", "red"), filter_value("kind", "dress")


def context_of(answer, totals=None):
    """What a page shares, whose service answers so; `totals` by targets that are filtered on."""

    class Client:
        def neighbours(self, **options):
            if isinstance(answer, Exception):
                raise answer
            near = answer if options.get("max_distance") is None else []
            return Neighbours([Neighbour(Item(name), distance, 1 - distance) for name, distance in near], RECEIPT)

        def items(self, *, where=None, **_):
            return SimpleNamespace(total=totals[",".join(where or {})])

    return SimpleNamespace(client=Client(), files=HeldFiles(1))


def test_a_search_is_written_into_the_address_and_read_from_it():
    search = Search(30, (RED, DRESS), 0.4, True)
    link = search.link()
    assert link == {"k": 30, "where": '[["colour","red"],["kind","dress"]]', "distance": 0.4, "group": "product"}
    assert Search.read_link({name: str(value) for name, value in link.items()}) == search
    assert set(Search().link().values()) == {None}
    assert Search.read_link({}) == Search()


@pytest.mark.parametrize("asked", [{"k": "0"}, {"k": "101"}, {"k": "many"}, {"k": "nan"}, {"distance": "-1"}])
def test_an_address_that_asks_for_what_cannot_be_asks_as_usual(asked):
    assert Search.read_link(asked) == Search()


def test_options_are_sent_only_where_they_say_something():
    assert Search().options() == {"k": 12, "where": None, "max_distance": None, "group_by_product": False}
    options = Search(5, (RED,), 0.5, True).options()
    assert options == {"k": 5, "where": {"colour": ["red"]}, "max_distance": 0.5, "group_by_product": True}


def test_the_same_photo_is_said_to_be_in_the_catalog():
    [shown] = find(context_of([("a", 2e-5), ("b", 0.3)]), {"item_id": "q"}, Search())
    assert "This very photo is in the catalog, as a." in shown
    assert "2 nearest photos" in shown
    [shown] = find(context_of([("a", 0.001)]), {"item_id": "q"}, Search())
    assert "This very photo" not in shown


def test_labels_of_neighbours_are_text():
    context = context_of([("<script>alert(1)</script>", 0.1)])
    [shown] = find(context, {"item_id": "q"}, Search())
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_a_limit_that_keeps_all_out_is_said_with_the_distance_that_would_not():
    [shown] = find(context_of([("a", 0.4321)], {"colour": 9}), {"item_id": "q"}, Search(filters=(RED,), limit=0.1))
    # Two digits are what the slider has, rounded up, so that the nearest passes.
    assert "Set the distance to 0.44 or more: the nearest of 9 photos is at 0.432." in shown


def test_labels_that_no_item_has_together_are_said_with_what_would_be_left():
    totals = {"colour,kind": 0, "kind": 0, "colour": 1234}
    [shown] = find(context_of([], totals), {"item_id": "q"}, Search(filters=(RED, DRESS)))
    assert "Take the filter on kind away: 1,234 photos pass the others." in shown
    assert "filter on colour" not in shown


def test_what_the_service_refuses_is_read_in_its_own_words():
    error = RefusedError("The photo is truncated; send the whole file.", status=422)
    [shown] = find(context_of(error), {"item_id": "q"}, Search())
    assert "The photo is truncated; send the whole file." in shown


def test_nothing_chosen_is_no_error():
    [shown] = find(context_of([]), None, Search())
    assert "m-hint" in shown
    assert "Choose a photo first" in shown


def test_a_match_asks_for_relative_shares_where_the_encoder_has_them():
    for pooling, relative in (("mean+early", True), ("cls", None)):
        asked = {}

        def explain(asked=asked, **options):
            asked |= options
            raise RefusedError("No.", status=422)

        card = SimpleNamespace(encoder_card={"pooling": pooling})
        client = SimpleNamespace(catalog=lambda card=card: card, explain=explain)
        with HeldFiles(1) as files:
            shown = list(why(SimpleNamespace(client=client, files=files), {"item_id": "q"}, "a"))
        assert "No." in shown[-1]
        assert asked == {"item_id": "q", "match_item_id": "a", "relative": relative}
