"""What is asked of heads, and how their answers stand side by side."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from service.client import (
    CatalogHead,
    Classification,
    ClassifiedPhoto,
    HeadReceipt,
    Item,
    LabelProbability,
    Neighbour,
    Prediction,
    Receipt,
    RefusedError,
    Vote,
)
from ui.head_answers import LabelOptions, ask_heads, chosen_heads, options_of, times
from ui.markup import fill

ITEM = Item("shirt-1", labels={"category": ["shirt"], "colour": ["red"]})


def head_of(target, kind, *, default=False, version=2, **figures):
    validation = figures or {"accuracy": 0.914, "photos": 1200}
    return CatalogHead(target, kind, default, 3, validation, version, "2026-11-22T03:50:31+00:00")


def catalog_of(*heads):
    return SimpleNamespace(
        heads=[*heads],
        groups={"Tops": ["shirt"], "Bottoms": ["skirt"]},
        targets={"category": {"shirt": 3, "skirt": 2}, "colour": {"red": 5}},
    )


def prediction_of(target, kind, label, *, none=False, several=False):
    return Prediction(
        target=target,
        head=kind,
        predicted=[] if none else [label, "blue"] if several else [label],
        none_of_these=none,
        labels=[LabelProbability(label, 0.8), LabelProbability("other", 0.2)],
        prediction_set=None if several else [label],
        familiarity=None if several else 0.01 if none else 0.5,
        votes=[Vote(ITEM, 1.0, 0.25)] if kind == "knn" else [],
    )


class Service:
    """Answers by head and target as it is told; notes what it was asked."""

    def __init__(self, says, *, fitted=2):
        self.says, self.fitted, self.asked = says, fitted, []

    def classify(self, *photos, **asked):
        self.asked.append((photos, asked))
        kind = asked["head"]
        for target in asked["targets"]:
            if isinstance(self.says.get((target, kind)), Exception):
                raise self.says[target, kind]
        predictions = [self.says[target, kind] for target in asked["targets"]]
        heads = [HeadReceipt(target, kind, self.fitted, "") for target in asked["targets"]]
        receipt = Receipt(2, 72, "lite", "", "exact", heads, {"total": 4.0})
        near = [Neighbour(ITEM, 0.0, 1.0), Neighbour(Item("shirt-2"), 0.1, 0.9)]
        return Classification([ClassifiedPhoto("", None, predictions, near)], receipt)

    def item(self, item_id):
        return ITEM if item_id == ITEM.item_id else Item(item_id, labels={"category": ["skirt"]})


def said(generator):
    """What a generator returns."""
    while True:
        try:
            next(generator)
        except StopIteration as done:
            return done.value


def test_a_group_goes_only_to_heads_that_know_a_label_of_it():
    options = LabelOptions(group="Tops", bias=0.6)
    catalog = catalog_of()
    known = options.asked(catalog, ["category", "colour"])
    assert (known["allowed"], known["weights"]) == (["Tops"], {"Bottoms": 0.6})
    # Colours are neither tops nor bottoms: the service would refuse the names.
    unknown = options.asked(catalog, ["colour"])
    assert (unknown["allowed"], unknown["weights"]) == (None, None)
    assert LabelOptions().asked(catalog, ["category"])["weights"] is None


def test_the_address_sets_the_options_and_what_is_no_number_is_left():
    options = options_of(
        {"head": "knn", "targets": '["a,b", "c", 7]', "allowed": "Tops", "top": "7", "bias": "x", "coverage": "nan"}
    )
    assert options == LabelOptions("knn", ("a,b", "c"), "Tops", 7, 1.0, 0.9)
    for wrong in ("a,b", "{}", '"a"', "7", "[" * 100_000):
        assert options_of({"targets": wrong}) == LabelOptions()
    assert options_of({}) == LabelOptions() == LabelOptions.read(None, None, None, None, None, None)


@pytest.mark.parametrize(
    ("coverage", "words"), [(0.9, "9 times of 10"), (0.5, "5 times of 10"), (0.95, "95 times of 100")]
)
def test_a_coverage_is_said_in_words(coverage, words):
    assert times(coverage) == words


def test_heads_are_chosen_by_kind_by_target_or_as_the_service_would():
    catalog = catalog_of(
        head_of("colour", "linear"), head_of("category", "knn"), head_of("category", "ensemble", default=True)
    )

    def names(**options):
        return [(head.target, head.kind) for head in chosen_heads(catalog, LabelOptions(**options))]

    assert names() == [("category", "ensemble")]
    assert names(head="knn") == [("category", "knn")]
    assert names(head="all") == [("category", "ensemble"), ("category", "knn"), ("colour", "linear")]
    assert names(head="all", targets=("colour",)) == [("colour", "linear")]
    # No MLP of colour: rather the heads that there are than none.
    assert names(head="knn", targets=("colour",)) == [("category", "knn")]


def test_at_most_eight_targets_are_shown_unless_they_are_chosen():
    heads = [head_of(f"t{number:02}", "knn", default=True) for number in range(30)]
    assert [head.target for head in chosen_heads(catalog_of(*heads), LabelOptions())][-1] == "t07"
    nine = tuple(f"t{number:02}" for number in range(20, 29))
    assert len(chosen_heads(catalog_of(*heads), LabelOptions(targets=nine))) == 9
    says = {(head.target, "knn"): prediction_of(head.target, "knn", "x") for head in heads}
    found = said(ask_heads(Service(says), catalog_of(*heads), {"photo": b"x", "box": None}, LabelOptions()))
    assert found.left_out == 22
    assert "22 more targets have heads" in fill("bars.html", answers=found, times="")


def test_heads_of_one_kind_are_asked_together_and_an_item_is_no_evidence_of_itself():
    catalog = catalog_of(head_of("category", "knn", default=True), head_of("colour", "knn", default=True))
    service = Service({(t, "knn"): prediction_of(t, "knn", "shirt") for t in ("category", "colour")})
    found = said(ask_heads(service, catalog, {"item_id": "shirt-1"}, LabelOptions()))
    ((photos, asked),) = service.asked
    assert photos == ()
    assert (asked["item_id"], asked["targets"], asked["head"]) == ("shirt-1", ["category", "colour"], "knn")
    assert [target.known for target in found.targets] == [["shirt"], ["red"]]
    assert [one.item.item_id for one in found.evidence] == ["shirt-2"]
    html = fill("bars.html", answers=found, times="9 times of 10")
    assert "this very item" in html
    assert "the catalog says shirt" in html


def test_a_photo_is_sent_with_its_box():
    service = Service({("category", "knn"): prediction_of("category", "knn", "shirt")})
    subject = {"photo": b"jpeg", "box": (0, 0, 0.5, 0.5)}
    found = said(ask_heads(service, catalog_of(head_of("category", "knn", default=True)), subject, LabelOptions()))
    ((photos, asked),) = service.asked
    assert (photos, asked["box"]) == ((b"jpeg",), (0, 0, 0.5, 0.5))
    assert "item_id" not in asked
    # Of a photo the catalog says nothing, though an item lies where it does.
    assert found.targets[0].known == []


def test_what_the_catalog_says_is_told_of_an_item_that_is_none_of_its_neighbours():
    # Where many copies are as near as the item itself, it may come after those that are listed.
    catalog, says = (
        catalog_of(head_of("category", "knn")),
        {("category", "knn"): prediction_of("category", "knn", "shirt")},
    )
    found = said(ask_heads(Service(says), catalog, {"item_id": "copy-9"}, LabelOptions(head="knn")))
    assert found.targets[0].known == ["skirt"]


def refusal(status, detail="The run is gone. Add it anew."):
    return RefusedError(detail, status, None)


def test_a_head_that_cannot_answer_keeps_no_other_from_it():
    catalog = catalog_of(*(head_of(t, k) for t in ("category", "colour") for k in ("knn", "comparator")))
    says = {(t, k): prediction_of(t, k, "shirt") for t in ("category", "colour") for k in ("knn", "comparator")}
    says["colour", "comparator"] = refusal(409)
    found = said(ask_heads(Service(says), catalog, {"item_id": "shirt-1"}, LabelOptions(head="all")))
    errors = {(one.head.target, one.head.kind): one.error for target in found.targets for one in target.heads}
    assert errors == {
        ("category", "knn"): "",
        ("category", "comparator"): "",
        ("colour", "knn"): "",
        ("colour", "comparator"): "The run is gone. Add it anew.",
    }
    assert "The run is gone." in fill("bars.html", answers=found, times="")
    # One answer is no agreement.
    assert [target.summary for target in found.targets] == ["All 2 heads say shirt.", ""]


def test_where_no_head_answers_the_first_reason_is_told_and_a_photo_is_refused_once():
    catalog = catalog_of(head_of("category", "knn"), head_of("colour", "knn"))
    service = Service({("category", "knn"): refusal(422, "This is no photo.")})
    with pytest.raises(RefusedError, match="This is no photo"):
        said(ask_heads(service, catalog, {"photo": b"x", "box": None}, LabelOptions(head="knn")))
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    ("labels", "summary", "agree"),
    [
        (["shirt", "shirt", "shirt"], "All 3 heads say shirt.", [True, True, True]),
        (["shirt", "skirt", "shirt"], "2 of 3 heads say shirt; kNN says skirt.", [True, False, True]),
        (
            ["shirt", "skirt", None],
            "The heads disagree: Ensemble says shirt; kNN says skirt; Linear says none of these.",
            [False, False, False],
        ),
    ],
)
def test_agreement_is_told(labels, summary, agree):
    kinds = ("ensemble", "knn", "linear")
    catalog = catalog_of(*(head_of("category", kind) for kind in reversed(kinds)))
    says = {
        ("category", kind): prediction_of("category", kind, label or "shirt", none=label is None)
        for kind, label in zip(kinds, labels, strict=True)
    }
    (target,) = said(ask_heads(Service(says), catalog, {"item_id": "x"}, LabelOptions(head="all"))).targets
    assert target.summary == summary
    assert [one.agrees for one in target.heads] == agree


def test_a_head_of_another_version_is_remarked_but_no_comparator():
    catalog = catalog_of(head_of("category", "knn"), head_of("category", "comparator"))
    says = {("category", kind): prediction_of("category", kind, "shirt") for kind in ("knn", "comparator")}
    (target,) = said(ask_heads(Service(says, fitted=1), catalog, {"item_id": "x"}, LabelOptions(head="all"))).targets
    assert [one.stale for one in target.heads] == ["Fitted on version 1 of the gallery, which is at 2 now.", ""]


def shown(prediction, **figures):
    """A card, as HTML, with the white space of it evened."""
    catalog = catalog_of(head_of("category", "linear", default=True, **figures))
    service = Service({("category", "linear"): prediction})
    found = said(ask_heads(service, catalog, {"item_id": "x"}, LabelOptions()))
    return " ".join(fill("bars.html", answers=found, times="9 times of 10").split())


def test_none_of_these_is_said_with_what_it_would_be_otherwise():
    html = shown(prediction_of("category", "linear", "shirt", none=True))
    assert "None of these" in html
    assert "stranger than 95 % of those" in html
    assert 'otherwise be <b>shirt</b> <span class="m-nowrap">(80 %)</span>' in html
    # A set that holds the true label would contradict that.
    assert "Holds the true label" not in html
    assert "91 % right on 1,200 other photos" in html


def test_several_labels_an_item_have_no_set():
    html = shown(prediction_of("category", "linear", "red", several=True), micro_f1=0.876, photos=40)
    assert "red, blue" in html
    assert "an item may have several" in html
    assert "Holds the true label" not in html
    assert "F1 0.88 on 40 other photos" in html


def test_an_empty_set_and_a_long_one_are_told():
    one = prediction_of("category", "linear", "red")
    assert "take it for a guess" in shown(Prediction(**{**fields(one), "prediction_set": []}))
    both = shown(Prediction(**{**fields(one), "prediction_set": ["other", "rare", "red"]}))
    chips = both[both.index("Holds the true label") :]
    # Likeliest first; the service tells them in the order of the alphabet.
    assert chips.index(">red<") < chips.index(">other<") < chips.index(">rare<")
    html = shown(Prediction(**{**fields(one), "prediction_set": [f"label {n}" for n in range(40)]}))
    assert ">label 11<" in html
    assert ">label 12<" not in html
    assert "and 28 more" in html


def test_labels_are_shown_as_they_are():
    html = shown(prediction_of("category", "linear", '<img src=x onerror="alert(1)"> 👗'))
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=&#34;alert(1)&#34;&gt; 👗" in html


def fields(prediction):
    return {name: getattr(prediction, name) for name in Prediction.__slots__}


def test_what_the_controls_say_is_asked():
    asked = LabelOptions(top=7, coverage=0.8).asked(catalog_of(), ["category"])
    # Five neighbours are shown, and an item is its own.
    assert (asked["top"], asked["coverage"], asked["evidence"]) == (7, 0.8, 6)


def test_a_card_marks_the_label_that_is_explained_and_says_when_it_is_stale():
    catalog = catalog_of(head_of("category", "linear"), head_of("category", "knn"))
    says = {("category", kind): prediction_of("category", kind, "other") for kind in ("knn", "linear")}
    found = said(ask_heads(Service(says, fitted=1), catalog, {"item_id": "x"}, LabelOptions(head="all")))
    html = fill("bars.html", answers=found, times="")
    assert "All 2 heads say other." in html
    assert html.count("Fitted on version 1 of the gallery") == 2
    (kinds,) = [[one.head.kind for one in target.heads] for target in found.targets]
    assert kinds == ["knn", "linear"]
    # Two labels of one name here: both are the one predicted.
    assert html.count('aria-pressed="true"') == 4
    assert html.count('aria-pressed="false"') == 0
