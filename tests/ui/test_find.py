"""Find similar in a real browser: cards, filters, the way back, links, match maps, and odd labels."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator

import pytest

from tests.test_cli import modiste
from tests.ui.conftest import NARROW
from tests.ui.photos import is_within, shown_ids
from tests.ui.processes import page_of, service_of

CARDS = "count => document.querySelectorAll('#neighbours .m-card').length === count"
ODD = [
    '<img src=x onerror="window.hacked = 1">',
    "\"quoted\" & 'single'",
    "👗 robe",
    "a|b,c=d\\e",
    "{{value}} ${1+1} `x`",
    "</p><script>window.hacked = 1</script>",
]


@pytest.fixture(scope="module")
def rows(shop) -> list[dict[str, str]]:
    """The catalog's table."""
    with (shop.catalog / "items.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def odd_address(shop, tmp_path_factory) -> Iterator[str]:
    """The page of a gallery of six photos with labels that are markup, or parts of a grammar."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "images").mkdir()
    with (folder / "items.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["item_id", "image", "kind"])
        for place, photo in enumerate(sorted((shop.catalog / "images").glob("*.jpg"))[:6]):
            shutil.copy(photo, folder / "images")
            table.writerow([f"<b>{place}</b>", f"images/{photo.name}", ODD[place]])
    done = modiste("index", folder, "--gallery", folder / "gallery", "--encoder", "efficientnet-lite0")
    assert done.status == 0, done.err
    with service_of("--gallery", folder / "gallery") as service, page_of(service) as address:
        yield address


def choose_filter(page, text: str) -> None:
    """Chooses a label as people do: by typing a part of it."""
    field = page.get_by_role("combobox", name="Only with these labels")
    field.fill(text)
    page.get_by_role("option").first.click()
    field.press("Escape")


def test_controls_ask_again_and_the_address_opens_the_same_view(visit, address, rows, shoot):
    page = visit(address)
    first = rows[0]
    page.evaluate(f"modiste.search('{first['item_id']}')")
    page.wait_for_function(CARDS, arg=12)
    assert first["item_id"] not in shown_ids(page)

    page.get_by_label("number input for Results").fill("30")
    page.wait_for_function(CARDS, arg=30)
    products = {row["item_id"]: row["product_id"] for row in rows}
    assert len({products[item] for item in shown_ids(page)}) < 30
    page.get_by_label("One photo per product").check()
    page.get_by_text("nearest products").wait_for()
    grouped = shown_ids(page)
    assert len({products[item] for item in grouped}) == len(grouped)

    colour = next(row["colour"] for row in rows if row["colour"] != first["colour"])
    choose_filter(page, f"{colour} · colour")
    page.wait_for_function("text => document.querySelector('.m-card-labels')?.textContent.includes(text)", arg=colour)
    colours = {row["item_id"]: row["colour"] for row in rows}
    found = shown_ids(page)
    assert {colours[item] for item in found} == {colour}
    shoot(page)

    again = visit(page.url)
    again.wait_for_function(CARDS, arg=len(found))
    assert shown_ids(again) == found
    assert again.get_by_label("One photo per product").is_checked()
    assert again.get_by_label("number input for Results").input_value() == "30"

    page.get_by_role("button", name="Clear filters").click()
    page.get_by_text("nearest photos").wait_for()
    assert "where" not in page.url


def test_where_nothing_passes_the_page_says_what_to_loosen(visit, address, rows):
    page = visit(f"{address}/?item={rows[0]['item_id']}&distance=0")
    page.get_by_text("Nothing passes these filters").wait_for()
    page.get_by_text("Set the distance to 0.").wait_for()
    page.get_by_label("number input for Distance at most").fill("2")
    page.wait_for_function(CARDS, arg=12)
    assert "distance" not in page.url


def test_a_neighbour_is_searched_from_and_back_leads_to_where_one_was(visit, address, rows):
    page = visit(address)
    page.locator("#examples button").first.click()
    page.wait_for_function(CARDS, arg=12)
    assert page.get_by_role("button", name="Back").is_hidden()
    start, seen = page.evaluate("modiste.panel.value.item_id"), shown_ids(page)
    page.locator(".m-card-photo").nth(3).click()
    page.wait_for_function("item => modiste.panel.value.item_id === item", arg=seen[3])
    page.get_by_role("button", name="Back").wait_for()
    page.wait_for_function("ids => document.querySelector('.m-card-photo').dataset.search !== ids[0]", arg=seen)
    assert f"item={seen[3]}" in page.url
    page.get_by_role("button", name="Back").click()
    page.wait_for_function("id => document.querySelector('.m-card-photo').dataset.search === id", arg=seen[0])
    assert page.evaluate("modiste.panel.value.item_id") == start
    assert shown_ids(page) == seen
    page.go_back()
    page.locator("#neighbours").get_by_text("Choose a photo first").wait_for()
    assert page.locator("#examples").is_visible()


def test_back_also_leads_to_what_was_chosen_in_another_tab(visit, address, rows):
    # An item of the label tab's evidence is one step; a neighbour of it is another.
    first = rows[0]["item_id"]
    page = visit(f"{address}/?item={first}&tab=label")
    page.locator(".m-evidence [data-search]").nth(1).click()
    page.wait_for_function(CARDS, arg=12)
    second = page.evaluate("modiste.panel.value.item_id")
    page.locator(".m-card-photo").nth(4).click()
    page.wait_for_function("seen => ![null, ...seen].includes(modiste.panel.value.item_id)", arg=[first, second])
    page.go_back()
    page.wait_for_function("id => modiste.panel.value.item_id === id && modiste.tab === 'find'", arg=second)
    page.go_back()
    page.wait_for_function("id => modiste.panel.value.item_id === id && modiste.tab === 'label'", arg=first)
    assert "tab=label" in page.url


def test_a_match_map_is_drawn_on_demand_with_how_far_it_can_be_trusted(visit, address, shoot):
    page = visit(address)
    page.locator("#examples button").first.click()
    page.wait_for_function(CARDS, arg=12)
    first, second = shown_ids(page)[:2]
    page.keyboard.press("h")
    shown = page.get_by_role("region", name=f"Why {first} is similar")
    shown.wait_for()
    assert shown.locator("img").evaluate("one => one.decode().then(() => one.naturalWidth)") > 300
    words = shown.inner_text()
    assert "beyond what it brings to the gallery's items on average" in words
    assert "hiding what it marks" in words.lower()
    shoot(page)
    page.get_by_role("button", name=f"Why is {second} similar?").click()
    page.get_by_role("region", name=f"Why {second} is similar").wait_for()
    page.get_by_role("button", name="Close").click()
    assert page.locator(".m-match").count() == 0
    # The card that was looked at last is the one that the key is about.
    page.keyboard.press("h")
    page.get_by_role("region", name=f"Why {second} is similar").wait_for()
    # Another question: the map is not about it.
    page.locator(".m-card-photo").nth(2).click()
    page.wait_for_function("id => modiste.panel.value.item_id !== id", arg=first)
    page.locator(".m-match").wait_for(state="detached")


@pytest.mark.parametrize("size", [None, NARROW])
def test_labels_with_markup_are_shown_and_never_run(visit, odd_address, shoot, size):
    page = visit(odd_address, **({"size": size} if size else {}))
    for label in ODD:
        page.locator("#examples").get_by_text(label, exact=True).wait_for()
    for place, label in enumerate(ODD):
        page.evaluate("id => modiste.search(id)", f"<b>{place}</b>")
        page.wait_for_function("label => document.querySelector('[data-part=labels]').textContent === label", arg=label)
    page.wait_for_function(CARDS, arg=5)
    for label in ODD[:-1]:
        page.locator(".m-card-labels").get_by_text(label, exact=True).wait_for()
    # Each is a filter as it is, also by the address.
    for place in (0, 3, 4):
        choose_filter(page, ODD[place])
        page.wait_for_function(CARDS, arg=1)
        assert shown_ids(page) == [f"<b>{place}</b>"]
        again = visit(page.url)
        again.wait_for_function(CARDS, arg=1)
        assert shown_ids(again) == [f"<b>{place}</b>"]
        page.get_by_role("button", name="Clear filters").click()
        page.wait_for_function(CARDS, arg=5)
    assert page.evaluate("window.hacked") is None
    assert is_within(page)
    shoot(page)
