"""The page as a whole, in a real browser."""

from __future__ import annotations

import json

from PIL import Image

from tests.ui.conftest import NARROW, reload
from tests.ui.processes import page_of

TITLES = ["Find similar", "What is it", "Batch", "Catalog", "Report"]
WIDTH = "document.documentElement.scrollWidth"


def test_the_page_opens_with_its_tabs(visit, address, shoot):
    page = visit(address)
    assert [tab.inner_text() for tab in page.get_by_role("tab").all()] == TITLES
    assert page.title() == "Modiste" or page.title().endswith("· Modiste")
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("#m-loading").count() == 0
    shoot(page)


def test_every_tab_fits_a_phone_and_is_reached(visit, address, shoot):
    page = visit(address, NARROW)
    for title in reversed(TITLES):
        page.get_by_role("tab", name=title).click()
        page.wait_for_function("title => document.title === `${title} · Modiste`", arg=title)
        assert page.evaluate(WIDTH) == 390, title
    page.evaluate("modiste.openTab('report')")
    assert page.get_by_role("tab", name="Report").get_attribute("aria-selected") == "true"
    shoot(page)


def test_the_systems_scheme_holds_until_another_is_chosen(visit, address):
    page = visit(address, color_scheme="dark")
    dark = "document.body.classList.contains('dark')"
    assert page.evaluate(dark)
    page.get_by_role("button", name="Theme").click()
    assert not page.evaluate(dark)
    # What is seen from the first moment on, so that nothing flashes.
    page.add_init_script(
        "addEventListener('DOMContentLoaded', () => { window.first = document.body.classList.contains('dark');"
        "const look = () => requestAnimationFrame(() => { first ||= document.body.classList.contains('dark') });"
        "new MutationObserver(look)"
        ".observe(document.body, { attributes: true }); })"
    )
    reload(page)
    page.wait_for_function("() => window.modiste && modiste.started")
    assert not page.evaluate(dark)
    assert not page.evaluate("first")


def test_keys_do_what_the_help_says_and_rest_while_somebody_types(visit, address, tmp_path):
    page = visit(address + "/?item=p00001-1")
    page.wait_for_selector("#neighbours [data-search]")
    page.keyboard.press("?")
    help_panel = page.get_by_role("dialog", name="Keys")
    assert help_panel.is_visible()
    page.keyboard.press("Escape")
    assert not help_panel.is_visible()
    with page.expect_file_chooser():
        page.keyboard.press("Control+o")
    page.keyboard.press("h")
    page.wait_for_selector("#match img, #match [role=status]")
    field = page.locator("#find-controls input").first
    field.focus()
    page.keyboard.press("?")
    assert not help_panel.is_visible()
    field.blur()
    page.get_by_role("tab", name="What is it").focus()
    page.keyboard.press("Enter")  # opens the tab, and asks nothing twice
    page.wait_for_function("document.body.dataset.tab === 'label'")


def test_the_view_is_saved_as_a_picture(visit, address, tmp_path):
    page = visit(address + "/?item=p00001-1", color_scheme="dark")
    page.wait_for_selector("#neighbours [data-search] img, #neighbours img")
    with page.expect_download(timeout=60_000) as saved:
        page.keyboard.press("Control+s")
    assert saved.value.suggested_filename.startswith("modiste-find-p00001-1-")
    path = tmp_path / "view.png"
    saved.value.save_as(path)
    with Image.open(path) as picture:
        assert picture.width == 1280
        # Dark, and with photos on it.
        assert max(picture.convert("L").getpixel((2, 2)), 0) < 60
        assert len(picture.convert("RGB").getcolors(2**24)) > 1000
    page.wait_for_function("document.getElementById('toast').textContent.includes('saved')")


def test_a_view_that_cannot_be_drawn_says_what_to_do(visit, address):
    page = visit(address)
    page.route("**/scripts/*", lambda route: route.abort())
    page.get_by_role("button", name="Save view").click()
    page.wait_for_function("document.getElementById('toast').textContent.includes('could not be drawn')")
    page.errors[:] = [error for error in page.errors if "ERR_FAILED" not in error]


def test_the_key_stays_on_the_servers_side(visit, service):
    key = "k-123456789-not-to-be-seen"
    with page_of(service, key=key) as address:
        page = visit(address)
        assert key not in page.content()
        for path in ("/", "/config", "/status", "/theme.css"):
            assert key not in page.request.get(address + path).text()
        assert key not in json.dumps(page.evaluate("window.gradio_config"))
        assert page.request.post(address + "/gradio_api/upload", multipart={"files": "x"}).status == 404
        assert page.request.get(address + "/gradio_api/file=/etc/passwd").status == 404
