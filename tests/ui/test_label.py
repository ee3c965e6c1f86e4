"""What is it: bars, heads side by side, groups, sets and heat maps, in a real browser."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from service.client import Client
from tests.test_cli_serving import Service
from tests.ui.conftest import NARROW, WIDE, reload
from tests.ui.processes import page_of
from ui.head_answers import HEAD_NAMES
from ui.markup import percent

ITEM = "p00003-1"
HTML = "<img src=x onerror=\"alert('no')\"> 👗"


@pytest.fixture
def client(service):
    with Client(service) as one:
        yield one


def bars_of(page, target, head):
    """Labels and shares, as they stand in a card."""
    bars = page.locator(f"#label-answer article[aria-label='{target} by {head}'] .m-label-bar")
    return [tuple(bar.inner_text().split("\n")[:2]) for bar in bars.all()]


def bars_for(prediction):
    """What they should be."""
    return [(one.label, percent(one.probability)) for one in prediction.labels]


def answered(page):
    """Waits until what was asked has been answered."""
    page.wait_for_timeout(150)
    page.wait_for_function("() => document.querySelector('#label-answer .m-label-bar')")
    page.wait_for_function("() => !document.querySelector('[aria-busy=true]')")


def predictions(client, **asked):
    found = client.classify(item_id=ITEM, **asked).photos[0].predictions
    return {one.target: one for one in found}


def test_a_link_opens_the_bars_and_controls_change_what_is_asked(visit, address, client, shoot):
    page = visit(f"{address}/?item={ITEM}&tab=label&top=3&bias=0.5")
    answered(page)
    asked = predictions(client, top=3, weights={"Bottoms": 0.5})
    best = HEAD_NAMES[asked["category"].head]
    for target, one in asked.items():
        assert bars_of(page, target, HEAD_NAMES[one.head]) == bars_for(one)
        card = page.get_by_label(f"{target} by {HEAD_NAMES[one.head]}")
        assert card.locator(".m-answer").inner_text() == (one.predicted or ["None of these"])[0]
        chips = [] if one.none_of_these else one.prediction_set
        assert sorted(card.locator(".m-label-chip").all_inner_texts()) == sorted(chips)
    shoot(page)

    page.locator("#label-allowed").get_by_text("Bottoms").click()
    page.wait_for_function("() => location.search.includes('allowed=Bottoms')")
    answered(page)
    # Colours are neither tops nor bottoms: those bars stay.
    allowed = predictions(client, top=3, allowed=["Bottoms"], weights={"Bottoms": 0.5})
    assert {label for label, _ in bars_of(page, "category", best)} <= {
        "trousers",
        "jeans",
        "shorts",
        "skirt",
        "pants",
    }
    for target, one in allowed.items():
        assert bars_of(page, target, HEAD_NAMES[one.head]) == bars_for(one)

    page.get_by_role("button", name="More settings").click()
    page.locator("#label-coverage input[type=number]").fill("0.5")
    page.locator("#label-coverage input[type=number]").press("Tab")
    page.get_by_text("5 times of 10").first.wait_for()
    for part in ("top=3", "bias=0.5", "allowed=Bottoms", "coverage=0.5", f"item={ITEM}", "tab=label"):
        assert part in page.url
    reload(page)
    page.get_by_text("5 times of 10").first.wait_for()
    assert bars_of(page, "category", best) == bars_for(allowed["category"])


def test_chosen_targets_are_in_the_address_and_come_back_with_it(visit, address, client):
    page = visit(f"{address}/?item={ITEM}&tab=label")
    answered(page)
    page.locator("#label-targets input").click()
    page.get_by_role("option", name="colour", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('#label-answer article').length === 1")
    assert "targets=%5B%22colour%22%5D" in page.url
    reload(page)
    answered(page)
    assert page.locator("#label-answer section").get_attribute("aria-label") == "colour"


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_every_head_stands_side_by_side(visit, address, client, shoot, size):
    page = visit(f"{address}/?item={ITEM}&tab=label&head=all", size)
    answered(page)
    for kind, name in (("ensemble", "Ensemble"), ("knn", "kNN"), ("linear", "Linear")):
        for target, one in predictions(client, head=kind, top=5).items():
            assert bars_of(page, target, name) == bars_for(one)
    assert page.locator(".m-summary").count() == 2
    cards = [card.bounding_box() for card in page.locator("section[aria-label=category] article").all()]
    # On a phone they stand below each other.
    assert len({card["x" if size is WIDE else "y"] for card in cards}) == 3
    assert len({card["y" if size is WIDE else "x"] for card in cards}) == 1
    # Nothing of the tab is wider than the screen.
    right = page.evaluate(
        "() => Math.max(...[...document.querySelectorAll('.m-target')].map((e) => e.getBoundingClientRect().right))"
    )
    assert right <= size["width"]
    shoot(page)


def test_a_heat_map_says_how_far_to_trust_it(visit, address, client, shoot):
    page = visit(f"{address}/?item={ITEM}&tab=label&head=linear", color_scheme="dark")
    answered(page)
    said = predictions(client, head="linear", top=5)["category"]
    page.keyboard.press("h")
    why = client.explain(item_id=ITEM, target="category", head="linear", label=said.labels[0].label)
    page.get_by_text(why.faithfulness.verdict).wait_for()
    assert why.faithfulness.verdict in page.locator(".m-heat-map img").get_attribute("alt")

    # Any other label by its bar; here one that the photo does not show.
    page.get_by_label("category by Linear").locator(".m-label-bar").nth(1).click()
    other = said.labels[1].label
    page.get_by_role("heading", name=f"Why {other}?").wait_for()
    assert page.locator(".m-heat-map img").evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 200
    page.get_by_text("How far to trust this map").click()
    assert page.locator(".m-curve polyline").count() == 2
    shoot(page)

    # The service's own sentence names the methods that there are.
    page.locator("#label-method input").click()
    page.get_by_role("option", name="Attention rollout").click()
    sentence = page.locator("#label-why .m-error")
    sentence.wait_for()
    assert "occlusion" in sentence.inner_text()
    page.locator("#label-method input").click()
    page.get_by_role("option", name="Grad-CAM").click()
    page.get_by_role("heading", name=f"Why {other}? category, Linear, Grad-CAM").wait_for()


def test_a_photo_of_no_garment_is_none_of_these_and_its_neighbours_lead_to_the_search(visit, address, client, shoot):
    noise = np.random.default_rng(0).integers(0, 255, (200, 160, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    expected = client.classify(file.getvalue(), top=5).photos[0]
    strange = [one for one in expected.predictions if one.none_of_these]
    assert strange
    page = visit(f"{address}/?tab=label")
    page.get_by_text("what it is stands here").wait_for()
    page.locator("#query input[type=file]").first.set_input_files(
        [{"name": "noise.png", "mimeType": "image/png", "buffer": file.getvalue()}]
    )
    answered(page)
    for one in strange:
        card = page.get_by_label(f"{one.target} by {HEAD_NAMES[one.head]}")
        assert card.locator(".m-answer").inner_text() == "None of these"
        assert f"otherwise be {one.labels[0].label}" in card.inner_text()
    shoot(page)
    page.locator(".m-evidence [data-search]").first.click()
    page.wait_for_function("() => modiste.tab === 'find'")
    assert page.evaluate("() => modiste.panel.value.item_id") == expected.neighbours[0].item.item_id


def test_without_heads_it_says_how_to_fit_some_and_then_shows_labels_as_they_are(visit, shop, tmp_path, shoot):
    gallery = tmp_path / "gallery"
    shutil.copytree(shop.gallery, gallery)
    shutil.rmtree(gallery / "heads")
    own = Service("--gallery", gallery, "--catalog", shop.catalog)
    with Client(own.address) as client, page_of(own.address) as address:
        page = visit(f"{address}/?item={ITEM}&tab=label")
        page.get_by_text("No head is fitted yet").first.wait_for()
        assert "modiste fit" in page.locator("#label-answer").inner_text()
        shoot(page, "unfitted")
        label = client.item(ITEM).labels["category"][0]
        for item in client.iter_items(where={"category": label}):
            client.relabel(item.item_id, {"category": HTML})
        job = client.wait(client.submit("fit", targets=["category"], heads=["knn"]).id, timeout=60)
        assert job.state == "done", job.error
        page.evaluate("modiste.look()")
        page.wait_for_function("() => document.querySelector('#label-head input')")
        page.evaluate("modiste.ask()")
        answered(page)
        assert bars_of(page, "category", "kNN")[0][0] == HTML
        page.keyboard.press("h")
        page.locator(".m-heat-map").wait_for()
        assert page.locator("#label-answer img[src=x], #label-why img[src=x]").count() == 0
        shoot(page, "labels")
    own.end(15)
