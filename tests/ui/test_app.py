"""The guard before the page, and what the page is opened with. Gradio is not needed for this."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from ui.document import Document
from ui.guard import Guard
from ui.settings import Settings

GRADIO = (
    '<html><head><meta charset="utf-8" /><meta property="og:image" content="https://elsewhere.example/a.jpg" />'
    '<link rel="manifest" href="/manifest.json" /></head><body><gradio-app></gradio-app></body></html>'
)


async def answer(request):
    if request.url.path == "/":
        return HTMLResponse(GRADIO)
    return Response(f"reached {request.url.path}", headers={"access-control-allow-origin": "*"})


def browser(*, host="127.0.0.1", **settings):
    inner = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
    return TestClient(Guard(Document(inner), Settings(**settings)), base_url=f"http://{host}:7860")


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/upload",
        "/gradio_api/upload_progress",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/proxy=https://elsewhere.example/",
        "/gradio_api/info",
        "/gradio_api/stream/1",
        "/gradio_api/process_recording",
        "/gradio_api/deep_link",
        "/gradio_api/call/find",
        "/gradio_api/vibe-edit",
        "/monitoring",
        "/monitoring/summary",
        "/custom_component/x",
        "/svelte/x.js",
        "/dev/reload",
        "/pwa_icon",
        "/manifest.json",
    ],
)
def test_what_the_page_does_not_use_of_gradio_is_closed(path):
    with browser() as client:
        assert client.get(path).status_code == 404
        assert client.post(path, content=b"x").status_code in (404, 413)


@pytest.mark.parametrize("path", ["/status", "/photos/a%2Fb", "/photos/..%2Fx", "/config", "/gradio_api/queue/data"])
def test_what_the_page_uses_is_reached(path):
    with browser() as client:
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_it_knows_itself_by_this_machines_names(host):
    with browser(host=host) as client:
        assert client.get("/").status_code == 200


def test_a_strange_name_is_refused_and_a_told_one_is_not():
    # A name that somebody else's DNS leads here would make their scripts this page's own.
    with browser(host="evil.example") as client:
        refused = client.get("/")
        assert refused.status_code == 400
        assert "--allow-host evil.example" in refused.json()["detail"]
    for hosts in (("shop.example",), ("*",)):
        with browser(host="shop.example", hosts=hosts) as client:
            assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    ("origin", "hosts", "status"),
    [
        (None, (), 200),
        ("http://127.0.0.1:7860", (), 200),
        ("http://127.0.0.1:9999", (), 403),  # another server of this machine
        ("https://evil.example", (), 403),
        ("https://evil.example", ("*",), 403),
        ("null", (), 403),
        ("https://shop.example", ("shop.example",), 200),  # behind a proxy that writes another Host
    ],
)
def test_only_the_pages_own_scripts_may_send(origin, hosts, status):
    with browser(hosts=hosts) as client:
        headers = {} if origin is None else {"origin": origin}
        assert client.post("/uploads", content=b"x", headers=headers).status_code == status


def test_a_question_has_a_length_and_a_limit():
    with browser() as client:
        assert client.post("/gradio_api/queue/join", content=b"x").status_code == 200
        assert client.post("/gradio_api/queue/join", content=iter([b"x"])).status_code == 413
        assert client.post("/gradio_api/queue/join", content=bytes(8 * 2**20 + 1)).status_code == 413


def test_browsers_are_told_what_to_refuse():
    with browser(frames=("https://huggingface.co",)) as client:
        for path in ("/", "/status", "/gradio_api/upload"):
            headers = client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert "frame-ancestors 'self' https://huggingface.co" in headers["content-security-policy"]
            assert "default-src 'self'" in headers["content-security-policy"]
            assert "access-control-allow-origin" not in headers


def test_the_document_is_the_pages_own():
    with browser() as client:
        answer = client.get("/")
    assert "<title>Modiste</title>" in answer.text
    assert "elsewhere.example" not in answer.text
    assert "manifest" not in answer.text
    assert answer.text.index("window.modiste") < answer.text.index("m-loading") < answer.text.index("<gradio-app")
    assert int(answer.headers["content-length"]) == len(answer.content)
