"""Ten thousand photos in one zip through the page: how long, beside the service asked directly, and how quick a table?

Expected before the first run: nine tenths of the service's own rate, 300 MiB at most in the page's process, half a
second a view.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.machine import SCRATCH, print_table, timed_command
from service.client import Client
from tests.ui.conftest import CHROMIUM
from tests.ui.processes import UI_PYTHON, page_of, service_of

PHOTOS, DRAWN, RUNS = 10_000, 500, 5
# Photos that the service is asked about directly, so many in a request, so many requests at a time: as the page asks.
ALONE, TOGETHER, AT_ONCE = 2000, 8, 2


def main() -> None:
    """Prints the tables."""
    if CHROMIUM is None or not UI_PYTHON.exists():
        sys.exit("This bench needs Chromium and the page's environment; `make setup` makes the second.")
    catalog, gallery = SCRATCH / "batch-catalog", SCRATCH / "batch-gallery"
    for folder in (catalog, gallery):
        shutil.rmtree(folder, ignore_errors=True)
    timed_command("sample", "--out", catalog, "--count", str(DRAWN))
    timed_command("index", catalog, "--gallery", gallery, "--encoder", "efficientnet-lite0")
    timed_command("fit", "--gallery", gallery, "--targets", "category,colour", "--head", "linear")
    photos = sorted((catalog / "images").glob("*.jpg"))
    sent = SCRATCH / "batch.zip"
    with zipfile.ZipFile(sent, "w") as file:
        for number in range(PHOTOS):
            file.write(photos[number % len(photos)], f"{number:05}.jpg")
    with service_of("--gallery", gallery) as service, page_of(service) as address:
        alone = _alone(service, photos)
        seconds, views = _through_the_page(address, sent)
        peak = _peak_mib(service)
    rate = PHOTOS / seconds
    print_table(
        f"A zip of {PHOTOS:,} photos",
        ["asked by", "photos a second", "of the service's", "seconds", "peak MiB"],
        [
            [f"the client, {TOGETHER} a request, {AT_ONCE} at a time", f"{alone:.0f}", "1.00", "", ""],
            ["the page, upload included", f"{rate:.0f}", f"{rate / alone:.2f}", f"{seconds:.0f}", f"{peak:.0f}"],
        ],
    )
    rows = [["limit", "1.00"], *([name, f"{took:.2f}"] for name, took in views.items())]
    print_table(f"The table of {PHOTOS:,} rows", ["view", "seconds"], rows)


def _alone(address: str, photos: list[Path]) -> float:
    """Photos a second that the service labels."""
    chosen = [photos[number % len(photos)] for number in range(ALONE)]
    parts = [chosen[start : start + TOGETHER] for start in range(0, ALONE, TOGETHER)]
    with Client(address) as client, ThreadPoolExecutor(AT_ONCE) as threads:
        client.classify(*parts[0], top=1, evidence=0)
        start = time.perf_counter()
        list(threads.map(lambda part: client.classify(*part, top=1, evidence=0), parts))
        return ALONE / (time.perf_counter() - start)


def _through_the_page(address: str, sent: Path) -> tuple[float, dict[str, float]]:
    """Seconds from the choice of the zip until all is labelled, and to each view of the table."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        page.wait_for_function("() => window.modiste && modiste.started")
        page.get_by_role("tab", name="Batch").click()
        start = time.perf_counter()
        page.set_input_files("#batch-send [data-input=files]", sent)
        page.wait_for_selector("#batch-progress [data-state=done]", timeout=1_200_000)
        seconds = time.perf_counter() - start
        views = {
            "sorted by a label": _times(page, "[data-sort='label:category']"),
            "sorted by name": _times(page, "[data-sort=name]"),
            "another page": _times(page, "[data-page]:enabled"),
            "doubtful ones": _times(page, "#batch-only label:has-text('Doubtful'), #batch-only label:has-text('All')"),
        }
        browser.close()
    return seconds, views


def _times(page: Any, button: str) -> float:
    """Seconds from the click on a button, another each time, to the table that it leads to: the median."""
    times = []
    for run in range(RUNS):
        page.wait_for_timeout(700)
        page.evaluate("() => { window.before = document.getElementById('batch-table').innerHTML }")
        start = time.perf_counter()
        page.locator(button).nth((run + 1) % page.locator(button).count()).click()
        page.wait_for_function("() => document.getElementById('batch-table').innerHTML !== before")
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _peak_mib(service: str) -> float:
    """The peak memory of the process that serves the page in front of a service."""
    for folder in Path("/proc").glob("[0-9]*"):
        words = folder.joinpath("cmdline").read_bytes().split(b"\0")
        if words[1:3] == [b"-m", b"ui"] and service.encode() in words:
            return int(folder.joinpath("status").read_text("utf-8").split("VmHWM:")[1].split()[0]) / 1024
    raise LookupError("The page's process is gone.")


if __name__ == "__main__":
    main()
