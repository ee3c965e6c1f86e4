"""Is any view of the page slower than a second where the catalog has 100,000 items, and a target of 3,000 labels?

Each figure is the median of five pages, warm, in Chromium on the machine that also runs service and page. The items are
those of fashion-products over and over, each a little turned.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.machine import DATASETS, SCRATCH, print_table, require, timed_command
from bench.service import large_gallery
from service.client import Client
from tests.ui.conftest import CHROMIUM
from tests.ui.processes import UI_PYTHON, page_of, service_of

RUNS, DESIGNS, TARGET = 5, 3000, "masterCategory"
_LIMIT_S = 1.0
_STARTED = "() => window.modiste && modiste.started"


@dataclass(frozen=True)
class View:
    """A step from one view to the next.

    Args:
        name: For people.
        act: What a user does, given the page and the run's number.
        ready: What is true in the browser once the view is there.
    """

    name: str
    act: Callable[[Any, int], object]
    ready: str


def _click(selector: str) -> Callable[[Any, int], object]:
    return lambda page, _: page.locator(selector).first.click()


def _choose(field: str, option: str) -> Callable[[Any, int], object]:
    def choose(page: Any, _: int) -> None:
        page.locator(f"{field} input").first.click()
        page.get_by_role("option", name=option, exact=True).click()

    return choose


def _there(selector: str) -> str:
    return f"() => document.querySelector('{selector}')?.offsetParent"


VIEWS = (
    View(
        "neighbours of an item",
        lambda page, run: page.evaluate("run => modiste.search(bench.items[run])", run),
        _there("#neighbours .m-card"),
    ),
    View(
        "labels to filter by, as one types",
        lambda page, run: page.locator("#find-filters input").first.fill(f"design 12{run}"),
        _there("#find-filters [role=option]"),
    ),
    View(
        "neighbours of one label",
        _click("#find-filters [role=option]"),
        "() => document.querySelector('#neighbours .m-cards')?.textContent.includes('design 12')",
    ),
    View("what an item is", lambda page, _: page.evaluate("modiste.openTab('label')"), _there("#label-answer article")),
    View("overview", lambda page, _: page.evaluate("modiste.openTab('catalog')"), _there("#catalog-bars li")),
    View("3,000 labels", _choose("#overview-target", "design"), _there("#catalog-bars [data-target=design] li")),
    View(
        "labels with a text",
        lambda page, run: page.get_by_label("Only labels with").fill(f"n 12{run}"),
        "() => document.querySelector('#catalog-bars p').textContent.includes('contain')",
    ),
    View("items of a label", _click("#catalog-bars li button"), _there("#catalog-items [data-search]")),
    View("map", _click("[data-part=map]"), _there("#map canvas[data-state=drawn]")),
    View(
        "map, coloured by 3,000 labels",
        _choose("#map-target", "design"),
        _there("#map canvas[data-target=design][data-state=drawn]"),
    ),
    View("map, nearer", _click("[data-map=in]"), "() => modiste.map.ids() !== bench.points"),
    View("labels in doubt", _click("[data-part=relabel]"), _there("#suspects .m-notice, #suspects li")),
    View("copies", _click("[data-part=duplicates]"), _there("#duplicates .m-notice, #duplicates li")),
    View("upkeep", _click("[data-part=upkeep]"), _there("#upkeep-fit")),
)


def main() -> None:
    """Prints the table."""
    if CHROMIUM is None or not UI_PYTHON.exists():
        sys.exit("This bench needs Chromium and the page's environment; `make setup` makes the second.")
    source = DATASETS / "fashion-products"
    require(source)
    small, large = SCRATCH / "service-gallery", SCRATCH / "page-large"
    timed_command("index", source, "--gallery", small, "--encoder", "efficientnet-lite0")
    large_gallery(large, small, designs=DESIGNS)
    if not (large / "heads").exists():
        timed_command("fit", "--gallery", large, "--targets", TARGET, "--head", "knn")
    with service_of("--gallery", large) as service, Client(service) as client, page_of(service) as address:
        if not client.catalog().has_projection:
            client.wait(client.submit("project").id)
        client.wait(client.submit("duplicates", limit=300).id)
        ids = [item.item_id for item in client.items(limit=RUNS + 1).items]
        found = measure(address, ids)
        title = f"The page in front of {client.catalog().items:,} items, a target of {DESIGNS:,} labels among theirs"
    rows = [[name, f"{seconds:.2f}", f"{seconds / _LIMIT_S:.2f}"] for name, seconds in found.items()]
    print_table(title, ["view", "seconds", "of the limit"], [["limit", f"{_LIMIT_S:.2f}", "1.00"], *rows])


def measure(address: str, ids: list[str]) -> dict[str, float]:
    """Seconds to each view, the median of all runs but the first, which fills the browser's cache."""
    from playwright.sync_api import sync_playwright

    found: dict[str, list[float]] = defaultdict(list)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        for run in range(RUNS + 1):
            page = context.new_page()
            page.goto(address)
            page.wait_for_function(_STARTED)
            page.evaluate("items => { window.bench = { items } }", ids)
            for view in VIEWS:
                # What the view before still fetches, its photos above all, is its own.
                page.wait_for_timeout(700)
                page.evaluate("bench.points = modiste.map?.ids()")
                start = time.perf_counter()
                view.act(page, run)
                page.wait_for_function(view.ready)
                if run:
                    found[view.name].append(time.perf_counter() - start)
            page.close()
        browser.close()
    return {name: statistics.median(times) for name, times in found.items()}


if __name__ == "__main__":
    main()
