"""Streams: a question is taken only once the browser has heard that the stream before is closed."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from ui import streams
from ui.streams import Streams


def _told(monkeypatch, *asked):
    """Seconds that each answer was held back, when the clock stands still but for that."""
    now, slept = [50.0], []

    async def sleep(seconds):
        slept.append(round(seconds, 6))
        now[0] += seconds

    monkeypatch.setattr(streams, "time", type("Clock", (), {"monotonic": staticmethod(lambda: now[0])}))
    monkeypatch.setattr(streams, "anyio", type("Wait", (), {"sleep": staticmethod(sleep)}))
    routes = [
        Route("/gradio_api/queue/data", lambda _: PlainTextResponse('data: {"msg":"close_stream"}\n\n')),
        Route("/gradio_api/queue/join", lambda _: JSONResponse({"event_id": "1"}), methods=["POST"]),
        Route("/other", lambda _: PlainTextResponse('"close_stream"')),
    ]
    client = TestClient(Streams(Starlette(routes=routes)))
    for path in asked:
        answer = client.post(path) if path.endswith("join") else client.get(path)
        assert answer.status_code == 200
    return slept


def test_a_question_is_taken_after_the_stream_before_is_closed(monkeypatch):
    # The second question comes when the stream was closed long enough ago.
    asked = ("/gradio_api/queue/data", "/gradio_api/queue/join", "/gradio_api/queue/join")
    assert _told(monkeypatch, *asked) == [0.1]


def test_nothing_else_waits_and_nothing_else_closes_a_stream(monkeypatch):
    assert _told(monkeypatch, "/gradio_api/queue/join", "/other", "/gradio_api/queue/join") == []
    assert _told(monkeypatch, "/gradio_api/queue/data", "/other") == []
