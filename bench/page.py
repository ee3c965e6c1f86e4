"""How soon is the page there, and how much does it add to the service's own time? Beside a bare Gradio page.

Each figure is the median of seven, warm, in Chromium on the machine that also runs service and page.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from bench.machine import SCRATCH, print_table, timed_command
from service.client import Client
from tests.ui.conftest import CHROMIUM
from tests.ui.processes import UI_PYTHON, page_of, service_of

RUNS = 7
_LIMIT_OPEN_S, _LIMIT_OVER_MS = 2.0, 250
# Ours is interactive when its controls are set; Gradio's when the field for a photo is there.
_OURS_READY = "() => window.modiste && modiste.started"
_OURS_FIELD, _OURS_CARDS = "#query input[type=file]", "#neighbours .m-card"
_BARE_FIELD, _BARE_CARDS = "input[type=file]", ".grid-wrap img, .thumbnail-item img"


def main() -> None:
    """Prints the table."""
    if CHROMIUM is None or not UI_PYTHON.exists():
        sys.exit("This bench needs Chromium and the page's environment; `make setup` makes the second.")
    catalog, gallery = SCRATCH / "page-catalog", SCRATCH / "page-gallery"
    for folder in (catalog, gallery):
        shutil.rmtree(folder, ignore_errors=True)
    timed_command("sample", "--out", catalog, "--count", "120")
    timed_command("index", catalog, "--gallery", gallery, "--encoder", "efficientnet-lite0")
    photo = min((catalog / "images").glob("*.jpg"))
    with service_of("--gallery", gallery) as service, page_of(service) as address:
        bare, port = _serve_bare(service)
        try:
            own = _service_ms(service, photo)
            ours = _measure(address, _OURS_READY, _OURS_FIELD, _OURS_CARDS, photo)
            plain = _measure(f"http://127.0.0.1:{port}", None, _BARE_FIELD, _BARE_CARDS, photo)
        finally:
            bare.terminate()
            bare.wait()
    rows = [
        ["limit", f"{_LIMIT_OPEN_S:.2f}", f"{_LIMIT_OVER_MS}", "", ""],
        _row("Modiste's page", ours, own, plain),
        _row("bare Gradio: Image and Gallery", plain, own, plain),
    ]
    heads = ["page", "interactive, s", "first neighbour over the service, ms", "opens, of bare", "answers, of bare"]
    print_table(f"The page (the service's own time is {own:.0f} ms)", heads, rows)


def _row(name: str, found: tuple[float, float], own: float, plain: tuple[float, float]) -> list[str]:
    opened, answered = found
    over = answered * 1000 - own
    return [name, f"{opened:.2f}", f"{over:.0f}", f"{opened / plain[0]:.2f}", f"{answered / plain[1]:.2f}"]


def _service_ms(address: str, photo: Path) -> float:
    """What the service takes for neighbours, asked by its client."""
    times = []
    with Client(address) as client:
        for _ in range(RUNS):
            start = time.perf_counter()
            client.neighbours(photo, k=12)
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def _measure(address: str, ready: str | None, field: str, cards: str, photo: Path) -> tuple[float, float]:
    """Seconds until the page is interactive, and from a photo to the first neighbour shown."""
    from playwright.sync_api import sync_playwright

    opened, answered = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        for run in range(RUNS + 1):
            page = context.new_page()
            start = time.perf_counter()
            page.goto(address, wait_until="commit")
            if ready:
                page.wait_for_function(ready)
            page.wait_for_selector(field, state="attached")
            middle = time.perf_counter()
            seconds = _answer_s(page, field, cards, photo)
            # The first run fills the browser's cache.
            if run:
                opened.append(middle - start)
                answered.append(seconds)
            page.close()
        browser.close()
    return statistics.median(opened), statistics.median(answered)


def _answer_s(page: Any, field: str, cards: str, photo: Path) -> float:
    page.wait_for_timeout(500)
    start = time.perf_counter()
    page.set_input_files(field, photo)
    page.wait_for_selector(cards)
    return time.perf_counter() - start


def _serve_bare(service: str) -> tuple[subprocess.Popen[bytes], int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [str(UI_PYTHON), "-m", "bench.plain_page", service, str(port)]
    process = subprocess.Popen(words, cwd=Path(__file__).parents[1])
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5).close()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
        else:
            break
    return process, port


if __name__ == "__main__":
    main()
