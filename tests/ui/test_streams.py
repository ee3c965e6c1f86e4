"""Streams: no answer is lost where a question is asked while a stream of answers is being closed."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from service.client import Client
from ui import streams
from ui.streams import Streams

STREAM, JOIN = "/gradio_api/queue/data", "/gradio_api/queue/join"
# A browser that is slow to read: Gradio's script hears of a close a second after its answer.
SLOW = """(() => {
  const plain = window.fetch;
  window.fetch = async (...asked) => {
    const response = await plain(...asked);
    if (!response.url.includes("/queue/data")) return response;
    const later = new TransformStream({
      async transform(text, out) {
        for (const part of text.split(/(?<=\\n\\n)/)) {
          await new Promise((done) => setTimeout(done, part.includes("close_stream") ? 1000 : 0));
          out.enqueue(part);
        }
      },
    });
    const text = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(later);
    return new Response(text.pipeThrough(new TextEncoderStream()), response);
  };
})()"""


@pytest.fixture
def asked():
    """Asks, and gives the number of streams that the answer names: asked(path, page)."""
    says = {"text": 'data: {"msg":"close_stream","event_id":null}\n\n'}
    routes = [
        Route(STREAM, lambda _: PlainTextResponse(says["text"])),
        Route(JOIN, lambda _: JSONResponse({"event_id": "1"}), methods=["POST"]),
        Route("/other", lambda _: PlainTextResponse(says["text"])),
    ]
    client = TestClient(Streams(Starlette(routes=routes)))

    def ask(path, page="a", text=None):
        says["text"] = text or says["text"]
        answer = client.request("POST" if path == JOIN else "GET", path, headers={"X-Modiste-Page": page})
        assert answer.status_code == 200
        return answer.headers.get("x-modiste-closed")

    return ask


def test_a_question_is_told_how_many_streams_of_its_page_were_closed(asked):
    assert [asked(path) for path in (JOIN, STREAM, JOIN, STREAM, STREAM, JOIN)] == ["0", None, "1", None, None, "3"]
    assert asked(JOIN, "b") == "0"


def test_nothing_else_counts(asked):
    asked("/other")
    asked(STREAM, text='data: {"msg":"process_completed","output":["close_stream"]}\n\n')
    assert asked(JOIN) == "0"


def test_only_so_many_pages_are_remembered(asked, monkeypatch):
    monkeypatch.setattr(streams, "_MOST_PAGES", 2)
    for page in ("a", "b", "a", "c"):
        asked(STREAM, page)
    assert [asked(JOIN, page) for page in ("a", "b", "c")] == ["2", "0", "1"]


def test_a_question_during_the_close_of_a_stream_is_answered(visit, address, service):
    page = visit(address, script=SLOW)
    with Client(service) as client:
        for item in ("p00001-1", "p00003-1", "p00004-1"):
            nearest = client.neighbours(item_id=item, k=1).neighbours[0].item.item_id
            page.evaluate("item => modiste.search(item)", item)
            page.wait_for_selector(f"#neighbours .m-card:first-child [data-search='{nearest}']")


def test_a_close_that_was_never_read_is_not_waited_for_for_ever(visit, address):
    page = visit(address)

    def miscount(route):
        answer = route.fetch()
        route.fulfill(response=answer, headers={**answer.headers, "x-modiste-closed": "99"})

    page.route("**/queue/join*", miscount)
    page.evaluate("modiste.search('p00001-1')")
    page.wait_for_selector("#neighbours [data-search]")
