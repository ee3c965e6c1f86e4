"""The map of the catalog in a real browser: drawn, coloured, moved, and searched from."""

from __future__ import annotations

import shutil

import pytest

from service.client import Client
from tests.ui.conftest import NARROW
from tests.ui.processes import page_of, service_of
from tests.ui.test_catalog import LONG_MS, look


@pytest.fixture(scope="module")
def drawn(shop, tmp_path_factory):
    """A service of these tests alone, whose map the first of them draws: `.client`, `.address` of the page."""
    gallery = tmp_path_factory.mktemp("drawn") / "gallery"
    shutil.copytree(shop.gallery, gallery)
    with service_of("--gallery", gallery) as service, Client(service) as client, page_of(service) as address:
        yield type("Drawn", (), {"client": client, "address": address})


def test_the_page_draws_the_map_and_a_point_shows_its_photo_and_is_searched_from(visit, drawn, shoot):
    page = look(visit, drawn.address, "map")
    page.get_by_text("There is no map of this catalog yet").wait_for()
    page.get_by_role("button", name="Draw the map").click()
    items = drawn.client.catalog().items
    canvas = page.locator(f"#map canvas[data-points='{items}'][data-total='{items}']")
    canvas.wait_for(timeout=LONG_MS)
    page.get_by_text(f"{items} of {items} shown").wait_for()
    page.get_by_role("button", name="Draw again").wait_for()
    item = page.evaluate("modiste.map.ids()[7]")
    page.mouse.move(*page.evaluate("(id) => modiste.map.place(id)", item))
    card = page.locator(".m-map-card")
    card.wait_for()
    shown = card.get_attribute("data-item")  # that item, or one that lies on it
    page.wait_for_function("() => document.querySelector('.m-map-card img').naturalWidth > 0")
    labels = drawn.client.item(shown).labels
    card.get_by_text(labels["colour"][0], exact=True).first.wait_for()
    shoot(page)
    page.mouse.down()
    page.mouse.up()
    page.wait_for_function("(id) => modiste.tab === 'find' && modiste.panel.value.item_id === id", arg=shown)


def test_colours_are_of_any_target_and_the_legend_highlights(visit, drawn, shoot):
    page = look(visit, drawn.address, "map", color_scheme="dark")
    page.locator("#map canvas[data-target=category]").wait_for()
    page.locator("#map-target input").click()
    page.get_by_role("option", name="colour", exact=True).click()
    page.locator("#map canvas[data-target=colour]").wait_for()
    counts = drawn.client.catalog().targets["colour"]
    often = max(counts, key=lambda name: counts[name])
    button = page.locator(".m-legend button", has_text=often).first
    assert button.locator("small").inner_text() == str(counts[often])
    assert page.locator(".m-legend button").count() == min(12, len(counts))
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    shoot(page)


def test_the_map_moves_by_wheel_drag_and_keys(visit, drawn):
    page = look(visit, drawn.address, "map")
    canvas = page.locator("#map canvas")
    page.locator("#map canvas[data-state=drawn][data-zoom='1.00']").wait_for()
    item = page.evaluate("modiste.map.ids()[0]")
    x, y = page.evaluate("(id) => modiste.map.place(id)", item)
    page.mouse.move(x, y)
    page.mouse.wheel(0, -60)
    page.wait_for_function("() => Number(document.querySelector('#map canvas').dataset.zoom) > 1.3")
    # What is under the pointer stays there.
    assert page.evaluate("(id) => modiste.map.place(id)", item) == pytest.approx([x, y], abs=1.5)
    page.mouse.down()
    page.mouse.move(x + 20, y + 30)
    page.mouse.move(x + 40, y + 50)
    page.mouse.up()
    assert page.evaluate("(id) => modiste.map.place(id)", item) == pytest.approx([x + 40, y + 50], abs=1.5)
    assert page.evaluate("modiste.tab") == "catalog"  # a drag is no click
    canvas.focus()
    page.keyboard.press("0")
    page.locator("#map canvas[data-zoom='1.00']").wait_for()
    page.keyboard.press("+")
    page.locator("#map canvas[data-zoom='1.50']").wait_for()
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Zoom out").click()
    page.locator("#map canvas[data-zoom='1.00']").wait_for()
    page.locator(".m-map-list summary").click()
    first = page.locator(".m-map-list [data-search]").first
    first.wait_for()
    assert page.locator(".m-map-list [data-search]").count() == 12
    found = first.get_attribute("data-search")
    first.click()
    page.wait_for_function("(id) => modiste.panel.value.item_id === id", arg=found)


def test_a_tap_shows_a_card_that_can_be_pressed_and_later_items_are_told(visit, drawn, shoot):
    item = drawn.client.items(limit=1).items[0]
    photo = drawn.client.image(drawn.client.items(limit=2).items[1].item_id, size=256)
    drawn.client.put_item("late", photo, {"category": item.labels["category"]})
    try:
        page = look(visit, drawn.address, "map", NARROW, has_touch=True, is_mobile=True)
        page.locator("#map canvas[data-state=drawn]").wait_for()
        page.get_by_text("1 item came after this map was drawn").wait_for()
        page.locator("#map canvas").scroll_into_view_if_needed()
        page.touchscreen.tap(*page.evaluate("modiste.map.place(modiste.map.ids()[3])"))
        search = page.locator(".m-map-card").get_by_role("button", name="Find similar")
        search.wait_for()
        shoot(page)
        page.set_viewport_size({"width": NARROW["height"], "height": NARROW["width"]})  # the phone is turned
        page.wait_for_function("() => document.querySelector('#map canvas').width > 700")
        search.click()
        page.wait_for_function("() => modiste.tab === 'find'")
    finally:
        drawn.client.delete_item("late")
