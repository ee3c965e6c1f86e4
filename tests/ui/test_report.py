"""The report: one file with all that was found, whatever names are in it, and nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from service.answers import Catalog, Explanation, Item, MatchedItem, Neighbour, Neighbours, Receipt
from service.client import RefusedError
from ui.find_answer import Search
from ui.head_answers import LabelOptions
from ui.heat_map import OUTSIDE
from ui.held_files import HeldFiles
from ui.query import QueryError
from ui.report import PARTS, Plan, fill_report, gather, keep_report

JPEG = b"\xff\xd8\xff\xe0 photo"
EVIL = "<img src=x onerror=alert(1)> \"' 👗"
RECEIPT = Receipt(7, 3, "lite0", "f00", "exact", timings_ms={"total": 12.3})


def explanation(*, target=None, match=None):
    matched = None if match is None else MatchedItem(Item(match), [], 0, None, 0, 0, 0, True, None)
    return Explanation(
        "occlusion", target, "knn", EVIL, 0.5, 0.9, "What it means.", 0, 1, "aGVhdA==", None, (0, 0, 1, 1), None, [],
        matched, ["A remark."], RECEIPT,
    )  # fmt: skip


class Client:
    """A service that has no heads, refuses the heat map of `bad`, and has one photo for all items but `gone`."""

    def catalog(self):
        return Catalog(
            3,
            3,
            {},
            "lite0",
            {"pooling": "mean"},
            "f00",
            7,
            "exact",
            0,
            0,
            5,
            None,
            [],
            [],
            [],
            {},
            has_projection=False,
        )

    def neighbours(self, **options):
        self.options = options
        names = ("q", EVIL, "gone")
        return Neighbours([Neighbour(Item(name, labels={"kind": [EVIL]}), 0.1, 0.9) for name in names], RECEIPT)

    def image(self, item_id, **_):
        if item_id == "gone":
            raise RefusedError("It has no photo.", 422)
        return JPEG

    def explain(self, *, target=None, match_item_id=None, **_):
        if target == "bad":
            raise RefusedError("No head knows 'bad'.", 409)
        return explanation(target=target, match=match_item_id)


def make(value, *, parts=PARTS, targets=("kind", "bad"), files=None, options=None):
    context = SimpleNamespace(client=Client(), files=files)
    steps = gather(context, value, Plan(parts, targets, Search(2, limit=0.5), options or LabelOptions()))
    said = []
    while True:
        try:
            said.append(next(steps))
        except StopIteration as end:
            return context, said, end.value


def test_it_holds_what_was_found_and_names_what_was_not():
    _, said, report = make({"item_id": "q"})
    html = fill_report(report)
    # The photo of the query, and of two of the three neighbours.
    assert html.count("data:image/jpeg;base64,") == 3
    assert "no photo" in html
    # The heat map that came, and the match with the first neighbour that is not the query itself.
    assert html.count("data:image/png;base64,aGVhdA==") == 2
    assert report.match.match.item.item_id == EVIL
    assert report.problems == ["The heat map of bad: No head knows 'bad'."]
    assert "No head knows &#39;bad&#39;." in html
    assert "2 at most, no further than 0.5" in html
    assert html.count("version 7, 3 items") == 3
    assert "Drawing the heat map of bad (2 of 2); this takes some seconds …" in said


def test_nothing_in_it_runs_or_comes_from_elsewhere():
    _, _, report = make({"item_id": "q"})
    html = fill_report(report)
    elements = []
    parser = HTMLParser()
    parser.handle_starttag = lambda name, attributes: elements.append((name, dict(attributes)))
    parser.feed(html)
    assert not {name for name, _ in elements} & {"script", "iframe", "link", "object", "form", "a"}
    attributes = [one for _, several in elements for one in several.items()]
    assert not [name for name, _ in attributes if name.startswith("on") or name == "href"]
    assert all(value.startswith("data:image/") for name, value in attributes if name == "src")
    assert "url(" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert "default-src 'none'" in html


def test_a_photo_stands_in_it_as_it_was_sent_with_its_box():
    with HeldFiles(1) as files:
        token = files.keep("my shirt.jpg", JPEG).token
        value = {"token": token, "box": [0.1, 0.2, 0.3, 0.4], "name": "../my shirt.jpg"}
        context, _, report = make(value, files=files)
        html = fill_report(report)
        assert "left: 10.0%; top: 20.0%; width: 30.0%; height: 40.0%" in html
        assert context.client.options["box"] == (0.1, 0.2, 0.3, 0.4)
        kept = keep_report(context, report)
        assert re.fullmatch(r"modiste-my-shirt-\d{4}-\d\d-\d\d\.html", kept.name)
        assert kept.read().decode() == html


def test_only_the_parts_that_are_wanted_are_asked_for():
    _, said, report = make({"item_id": "q"}, parts=("Heat maps",), targets=("kind",))
    assert (report.neighbours, report.match, len(report.maps)) == (None, None, 1)
    assert "What is like it" not in fill_report(report)
    assert not any("neighbours" in sentence for sentence in said)


def test_it_says_that_maps_leave_groups_and_bias_out():
    for options in (LabelOptions(group="Tops"), LabelOptions(bias=0.6)):
        assert OUTSIDE in fill_report(make({"item_id": "q"}, options=options)[2])
    assert OUTSIDE not in fill_report(make({"item_id": "q"})[2])


def test_there_is_nothing_to_report_without_a_photo():
    with pytest.raises(QueryError, match="Choose a photo first"):
        make({})


def test_a_report_is_made_shown_and_saved(visit, address, shoot, tmp_path):
    page = visit(address + "/?item=p00001-1")
    page.wait_for_selector("#neighbours [data-search]")
    page.get_by_role("tab", name="Report").click()
    page.get_by_role("button", name="Make report").click()
    page.wait_for_selector("[data-report]", timeout=90_000)
    shown = page.frame_locator("iframe[title='The report']")
    shown.get_by_role("heading", name="Receipts").wait_for()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save report").click()
    assert re.fullmatch(r"modiste-p00001-1-\d{4}-\d\d-\d\d\.html", saved.value.suggested_filename)
    saved.value.save_as(tmp_path / "report.html")
    shoot(page)
    # From the disk, without a server.
    page.goto((tmp_path / "report.html").as_uri())
    assert page.locator(".cards li").count() == 12
    assert page.evaluate("[...document.images].every((one) => one.complete && one.naturalWidth > 0)")
    # The page that was left has broken off what it listened to.
    page.errors[:] = [error for error in page.errors if "bort" not in error and "asked file" not in error]
