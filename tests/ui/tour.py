"""Takes the screenshots of docs/tour.md: `python -m tests.ui.tour`, or `make tour`."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from service.client import Client
from tests.test_cli import modiste
from tests.ui.conftest import CHROMIUM
from tests.ui.processes import ROOT, UI_PYTHON, page_of, service_of

TOUR = ROOT / "docs" / "tour"
# Photos drawn by `modiste sample`, which may be in the repository; enough for a map with neighbourhoods.
COUNT, SEED = 600, 0
ITEM = "p00001-1"
_LONG_MS = 120_000


def main() -> None:
    """Draws and indexes the sample, and takes the pictures."""
    if CHROMIUM is None or not UI_PYTHON.exists():
        sys.exit("The tour needs Chromium and the page's environment; `make setup` makes the second.")
    TOUR.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        catalog, gallery = Path(folder, "catalog"), Path(folder, "gallery")
        for words in (
            ("sample", "--out", catalog, "--count", COUNT, "--seed", SEED),
            ("index", catalog, "--gallery", gallery, "--encoder", "efficientnet-lite0"),
            ("fit", "--gallery", gallery, "--targets", "category,colour,pattern"),
        ):
            done = modiste(*words)
            if done.status:
                sys.exit(done.err)
        with service_of("--gallery", gallery, "--catalog", catalog) as service, page_of(service) as address:
            with Client(service) as client:
                client.wait(client.submit("project").id)
            _take_all(address, catalog)


def _take_all(address: str, catalog: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = _open(browser, f"{address}/?item={ITEM}")
        _take_find(page)
        _take_label(page)
        _take_batch(page, catalog)
        _take_catalog(page)
        _take_report(page)
        page.context.close()
        _take_phone(browser, address)
        browser.close()


def _take_find(page: Any) -> None:
    page.wait_for_selector("#neighbours .m-card")
    _settle(page)
    _shoot(page, "find")
    page.keyboard.press("h")
    page.wait_for_selector("#match img", timeout=_LONG_MS)
    page.locator("#match").scroll_into_view_if_needed()
    _shoot(page, "match")


def _take_label(page: Any) -> None:
    page.evaluate("modiste.openTab('label')")
    page.wait_for_selector("#label-answer .m-head")
    _settle(page)
    _shoot(page, "label")
    page.keyboard.press("h")
    page.wait_for_selector("#label-why .m-heat-map img", timeout=_LONG_MS)
    page.locator("#label-why").evaluate("one => one.scrollIntoView({ block: 'center' })")
    _shoot(page, "heat-map")


def _take_batch(page: Any, catalog: Path) -> None:
    page.evaluate("modiste.openTab('batch')")
    photos = sorted((catalog / "images").glob("*.jpg"))[::29][:20]
    page.locator("#tab-batch input[type=file]").first.set_input_files(photos)
    page.wait_for_function(
        "count => document.querySelectorAll('#tab-batch tbody tr').length >= count", arg=len(photos), timeout=_LONG_MS
    )
    _settle(page)
    _shoot(page, "batch")


def _take_catalog(page: Any) -> None:
    page.evaluate("modiste.openTab('catalog')")
    page.evaluate("modiste.catalog.show('map')")
    page.wait_for_selector("#tab-catalog canvas", timeout=_LONG_MS)
    page.wait_for_timeout(4000)
    _shoot(page, "catalog")


def _take_report(page: Any) -> None:
    page.evaluate("modiste.openTab('report')")
    page.get_by_role("button", name="Make report").click()
    page.wait_for_selector("[data-report] iframe", timeout=_LONG_MS)
    _settle(page)
    _shoot(page, "report")


def _take_phone(browser: Any, address: str) -> None:
    page = _open(browser, f"{address}/?item={ITEM}", width=390, height=844, color_scheme="dark")
    page.wait_for_selector("#neighbours .m-card")
    page.locator("#tabs").scroll_into_view_if_needed()
    _settle(page)
    _shoot(page, "phone")
    page.context.close()


def _open(browser: Any, address: str, *, width: int = 1280, height: int = 900, **options: Any) -> Any:
    context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce", **options)
    page = context.new_page()
    page.goto(address)
    page.wait_for_function("() => window.modiste && modiste.started")
    return page


def _settle(page: Any) -> None:
    """Waits until every photo that is seen is there."""
    script = "[...document.images].every(one => !one.currentSrc || one.loading === 'lazy' || one.complete)"
    page.wait_for_function(script)
    page.wait_for_timeout(600)


def _shoot(page: Any, name: str) -> None:
    """Keeps what the window shows as a JPEG, which is a third of a PNG."""
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(TOUR / f"{name}.jpg", quality=85, optimize=True)
    print(TOUR / f"{name}.jpg")


if __name__ == "__main__":
    main()
