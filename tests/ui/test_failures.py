"""A service that is away, full, or refuses the page; and a page whose own server is gone."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from service.client import Client
from tests.ui.processes import page_of, service_of

BANNER = "#status .m-banner"
SLOW_S = 2.5
# By mood: which requests are refused, the status (none for being slow), the sentence and the headers.
MOODS: dict[str | None, tuple[str, int, str, dict[str, str]]] = {
    "full": (r"\w+ /v1/neighbours", 503, "All workers are busy.", {"Retry-After": "1"}),
    "full for long": (r"\w+ /v1/neighbours", 503, "It is being moved to another machine.", {"Retry-After": "600"}),
    "limited": (r"\w+ /v1/neighbours", 429, "This key has 60 requests a minute.", {"Retry-After": "2"}),
    "slow": (r"\w+ /v1/neighbours", 0, "", {}),
    "locked": ("", 401, "This service wants a key.", {}),
    "reading": ("POST /v1/jobs", 403, "This key may only ask; jobs need one with the scope admin.", {}),
}
NEVER = ("nothing", 0, "", {})


class Gate:
    """Stands before a service, and does what it is told; its mood is None for passing on, or a key of MOODS."""

    def __init__(self, service: str) -> None:
        self.mood: str | None = None
        self.service = service
        gate = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                if gate.mood == "away":
                    self.close_connection = True
                    return
                requests, status, sentence, headers = MOODS.get(gate.mood, NEVER)
                is_meant = re.match(requests, f"{self.command} {self.path}")
                if is_meant and status:
                    self.say(status, json.dumps({"detail": sentence}).encode(), headers)
                    return
                time.sleep(SLOW_S if is_meant else 0)
                self.pass_on()

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                kind = self.headers.get("Content-Type")
                headers = {"Content-Type": kind} if kind else {}
                answer = httpx.request(
                    self.command, gate.service + self.path, content=body, headers=headers, timeout=30
                )
                self.say(answer.status_code, answer.content)

            do_GET = do_POST = answer  # noqa: N815 - as http.server calls them

            def say(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def gate_before(service: str) -> Iterator[Gate]:
    gate = Gate(service)
    threading.Thread(target=gate.server.serve_forever, daemon=True).start()
    yield gate
    gate.server.shutdown()
    gate.server.server_close()


@pytest.fixture(scope="module")
def gate(service):
    with gate_before(service) as one:
        yield one


@pytest.fixture(scope="module")
def gated(gate):
    with page_of(gate.address) as address:
        yield address


@pytest.fixture(autouse=True)
def open_gate(gate):
    gate.mood = None
    yield
    gate.mood = None


def without_failed_photos(page):
    """Takes what a browser says of photos that did not come out of the errors."""
    page.errors[:] = [error for error in page.errors if "Failed to load resource" not in error]


def opened(browser, address):
    page = browser.new_context().new_page()
    page.set_default_timeout(20_000)
    page.goto(address)
    return page


def test_a_service_that_is_away_as_the_page_opens_is_waited_for(browser, gate, gated, shoot):
    gate.mood = "away"
    page = opened(browser, gated + "/?item=p00001-1")
    page.wait_for_selector(BANNER)
    assert "cannot be reached" in page.locator(BANNER).inner_text()
    shoot(page)
    gate.mood = None
    # The link is followed once it is back, by itself.
    page.wait_for_selector("#neighbours [data-search]")
    page.wait_for_selector(BANNER, state="detached")
    page.context.close()


def test_a_service_that_goes_away_is_said_and_comes_back(visit, gate, gated):
    page = visit(gated)
    gate.mood = "away"
    page.evaluate("setTimeout(modiste.look, 1100)")
    page.wait_for_selector(BANNER)
    gate.mood = None
    page.wait_for_selector(BANNER, state="detached")
    without_failed_photos(page)


@pytest.mark.parametrize(
    ("mood", "sentence"),
    [
        ("full", "All workers are busy. Trying again in 1 s."),
        ("limited", "This key has 60 requests a minute. Trying again in 2 s."),
    ],
)
def test_a_full_service_or_key_is_waited_for_and_says_so(visit, gate, gated, shoot, mood, sentence):
    page = visit(gated)
    gate.mood = mood
    page.evaluate("modiste.search('p00001-1')")
    page.wait_for_selector(f"#neighbours .m-notice >> text={sentence}")
    shoot(page)
    gate.mood = None
    page.wait_for_selector("#neighbours [data-search]")
    without_failed_photos(page)


def test_a_service_that_is_full_for_long_is_left_alone_until_it_is_asked_again(visit, gate, gated):
    page = visit(gated)
    gate.mood = "full for long"
    page.evaluate("modiste.search('p00001-1')")
    page.wait_for_selector("#neighbours .m-error >> text=It is being moved to another machine.")
    gate.mood = None
    page.keyboard.press("Enter")
    page.wait_for_selector("#neighbours [data-search]")


def test_a_slow_service_is_said_to_be_at_work(visit, gate, gated):
    page = visit(gated)
    gate.mood = "slow"
    page.evaluate("modiste.search('p00001-1')")
    page.wait_for_selector("#neighbours .m-notice >> text=The service is working on it (1 s).")
    page.wait_for_selector("#neighbours [data-search]")


def test_a_key_that_may_only_ask_is_told_so_where_it_orders(visit, gate, gated):
    page = visit(gated + "/?tab=catalog&part=duplicates")
    page.locator("#duplicates .m-notice").first.wait_for()
    gate.mood = "reading"
    page.locator("#duplicates-find").click()
    page.get_by_text("This key may only ask; jobs need one with the scope admin.").first.wait_for()


def test_a_service_that_comes_back_with_another_gallery_fills_the_page_anew(visit, shop, gate, gated, tmp_path):
    page = visit(gated)
    page.locator("#find-filters input").click()
    page.get_by_role("option", name="colour").first.wait_for()
    before = gate.service
    shutil.copytree(shop.gallery, tmp_path / "gallery")
    with service_of("--gallery", tmp_path / "gallery") as other, Client(other) as client:
        client.relabel("p00001-1", {"colour": ["ultraviolet"]})
        gate.service = other
        page.evaluate("setTimeout(modiste.look, 1100)")
        page.locator("#find-filters input").fill("ultrav")
        page.get_by_role("option", name="ultraviolet · colour (1)").wait_for()
    gate.service = before


def test_a_service_that_wants_a_key_says_what_to_do(browser, gate, gated):
    gate.mood = "locked"
    page = opened(browser, gated)
    page.wait_for_selector(BANNER)
    said = page.locator(BANNER).inner_text()
    assert said == "This service wants a key. Start the page again with a key in the variable MODISTE_KEY."
    page.context.close()


def test_what_is_no_modiste_is_said(browser, address):
    # Another page, where a service should be.
    with page_of(address) as second:
        page = opened(browser, second)
        page.wait_for_selector(BANNER)
        assert "This page has nothing there." in page.locator(BANNER).inner_text()
        page.context.close()


def test_a_page_whose_server_is_gone_says_so(browser, service):
    with page_of(service) as address:
        page = opened(browser, address)
        page.wait_for_function("() => window.modiste && modiste.started")
    page.evaluate("modiste.look()")
    page.wait_for_selector(BANNER)
    assert "The page's own server cannot be reached" in page.locator(BANNER).inner_text()
    page.context.close()
