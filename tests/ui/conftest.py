"""A gallery of sample photos, its service, the page in front of it, and a browser that looks at it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_cli import modiste
from tests.ui.processes import page_of, service_of

# Screenshots of the tests, to be looked at.
SHOTS = Path(__file__).parents[2] / "artifacts" / "screenshots"
CHROMIUM = os.environ.get("MODISTE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# A camera that is none, for `getUserMedia`.
_FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A catalog of 72 sample photos (`.catalog`) and its gallery (`.gallery`), with heads for category and colour."""
    folder = tmp_path_factory.mktemp("shop")
    catalog, gallery = folder / "catalog", folder / "gallery"
    for arguments in (
        ("sample", "--out", catalog, "--count", 72, "--seed", 3),
        ("index", catalog, "--gallery", gallery, "--encoder", "efficientnet-lite0"),
        ("fit", "--gallery", gallery, "--targets", "category,colour"),
    ):
        done = modiste(*arguments)
        assert done.status == 0, done.err
    return type("Shop", (), {"catalog": catalog, "gallery": gallery})


@pytest.fixture(scope="session")
def service(shop: Any) -> Iterator[str]:
    """The address of a service that tests only ask."""
    with service_of("--gallery", shop.gallery, "--catalog", shop.catalog) as found:
        yield found


@pytest.fixture(scope="session")
def address(service: str) -> Iterator[str]:
    """The address of the page in front of it."""
    with page_of(service) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; of one file, since Playwright's loop runs in this thread for as long, where other tests want theirs."""
    if CHROMIUM is None:
        pytest.skip("There is no Chromium here; install your system's package, or set MODISTE_CHROMIUM to one.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        yield one
        one.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens an address in a browser of its own, once the page is filled: visit(address, NARROW, colour_scheme="dark").

    When the test is over, nothing may have been said on the console as an error, and nothing asked of another host.
    A test that expects errors takes them out of `page.errors`.
    """
    pages = []

    def open_page(address: str, size: dict[str, int] = WIDE, *, script: str = "", **options: Any) -> Any:
        context = browser.new_context(viewport=size, **options)
        context.add_init_script(script)
        page = context.new_page()
        host = address.split("/")[2]
        page.errors = []
        page.on("console", lambda message: message.type == "error" and page.errors.append(message.text))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("request", lambda one: _is_elsewhere(one.url, host) and page.errors.append(f"asked {one.url}"))
        # From here on: Playwright begins to catch file choosers only a moment after it is asked to.
        page.on("filechooser", lambda _: None)
        page.set_default_timeout(20_000)
        page.goto(address)
        page.wait_for_function("() => window.modiste && modiste.started")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        errors = list(page.errors)
        page.context.close()
        assert errors == []


def reload(page: Any) -> None:
    """Loads a page again. What it still asked for is broken off, of which its errors do not count."""
    before = list(page.errors)
    page.once("framenavigated", lambda _: page.errors.__setitem__(slice(None), before))
    page.reload()


def _is_elsewhere(url: str, host: str) -> bool:
    return url.startswith(("http:", "https:", "ws:", "wss:")) and url.split("/")[2] != host


@pytest.fixture
def shoot(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Keeps a screenshot of a page: shoot(page) or shoot(page, "dark")."""

    def keep(page: Any, name: str = "") -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        stem = "-".join(part for part in (request.node.name, name) if part).replace("/", "_")
        page.screenshot(path=SHOTS / f"{stem}.png", full_page=True)

    return keep
