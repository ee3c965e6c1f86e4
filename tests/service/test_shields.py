from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.testclient import TestClient

from indexer.filters import FilterError
from indexer.snapshot import GalleryLockedError
from service.access import reads
from service.bodies import Bodies
from service.keys import add_key
from service.lanes import OverloadedError
from service.logs import request_id
from service.settings import Settings
from service.shields import SECURITY_HEADERS, shield
from tests.service.test_telemetry import engine_like, samples

BASE = "http://localhost:8000"
HERE = ("127.0.0.1", 50000)
HEX = re.compile(r"[0-9a-f]{32}")


class Panic(BaseException):
    """As pyo3's PanicException."""


class StrangerError(LookupError):
    """One of another module."""


def serve(**settings: Any) -> TestClient:
    app = FastAPI()
    router = APIRouter(prefix="/v1")

    @app.get("/healthz")
    async def _healthz() -> str:
        return request_id.get()

    @router.get("/items/{item_id:path}", dependencies=[Depends(reads)])
    async def _item(request: Request, item_id: str) -> str:
        request.state.timings_ms = {"decode": 4.0, "total": 5.0}
        return item_id

    @router.post("/neighbours", dependencies=[Depends(reads)])
    async def _neighbours(request: Request) -> int:
        return len(await request.body())

    @router.get("/image")
    def _image() -> Response:
        # In a thread, where the id must be known too.
        return Response(request_id.get(), headers={"Cache-Control": "max-age=60", "X-Request-ID": "mine"})

    @router.get("/fail/{kind}")
    async def _fail(kind: str) -> None:
        raise {
            "panic": Panic("secret"),
            "locked": GalleryLockedError(f"{Path('shoes').absolute()} is written by 7."),
            "filter": FilterError("No target 'size'."),
            "overload": OverloadedError("questions", 2),
            "stranger": StrangerError("No such thing."),
        }[kind]

    app.include_router(router)
    shield(app, Settings.read(**{"gallery": "shoes", **settings}), statuses={StrangerError: 404})
    return TestClient(app, client=HERE, base_url=BASE)


@pytest.fixture
def client() -> TestClient:
    return serve()


def figures(client: TestClient) -> dict[tuple[str, ...], float]:
    return samples(client.app.state.telemetry)


ANSWERS = [
    ("GET", "/healthz", {}, 200),
    ("GET", "/v1/image", {}, 200),
    ("GET", "/nothing", {}, 404),
    ("DELETE", "/healthz", {}, 405),
    ("GET", "/v1/fail/panic", {}, 500),
    ("GET", "/v1/fail/locked", {}, 409),
    ("GET", "/v1/fail/overload", {}, 503),
    ("GET", "/v1/fail/stranger", {}, 404),
    ("GET", "/healthz", {"Host": "evil.example"}, 400),
    ("POST", "/v1/neighbours", {"Origin": "https://evil.example"}, 403),
    ("POST", "/v1/neighbours", {"Content-Length": "1000001"}, 413),
]


@pytest.mark.parametrize(("method", "path", "headers", "status"), ANSWERS)
def test_every_answer_has_an_id_and_the_security_headers(method, path, headers, status):
    client = serve(max_body_mb=1)
    answer = client.request(method, path, headers=headers)
    assert answer.status_code == status
    assert HEX.fullmatch(answer.headers["X-Request-ID"])
    assert answer.headers.get_list("X-Request-ID") == [answer.headers["X-Request-ID"]]
    for name, value in SECURITY_HEADERS.items():
        assert answer.headers[name] == value or (name, path) == ("Cache-Control", "/v1/image")
    if status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


def test_the_headers_are_those_that_a_browser_heeds():
    assert SECURITY_HEADERS["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in SECURITY_HEADERS["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in SECURITY_HEADERS["Content-Security-Policy"]


def test_a_route_may_say_how_long_its_answer_is_kept(client):
    assert client.get("/v1/image").headers["Cache-Control"] == "max-age=60"
    assert client.get("/healthz").headers["Cache-Control"] == "no-store"


def test_no_two_requests_have_one_id(client):
    assert client.get("/healthz").headers["X-Request-ID"] != client.get("/healthz").headers["X-Request-ID"]


@pytest.mark.parametrize("path", ["/healthz", "/v1/image"])
def test_whatever_is_logged_on_the_way_knows_the_id(client, path):
    answer = client.get(path)
    assert answer.text.strip('"') == answer.headers["X-Request-ID"]
    assert request_id.get() == ""


@pytest.mark.parametrize(
    ("given", "is_taken"),
    [
        ("shop-1.2_x", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("a b", False),
        ("a\tb", False),
        ("<b>", False),
        ("", False),
    ],
)
def test_an_id_of_the_client_is_taken_where_it_is_harmless(client, given, is_taken):
    found = client.get("/healthz", headers={"X-Request-ID": given}).headers["X-Request-ID"]
    assert found == given if is_taken else HEX.fullmatch(found)


def test_a_panic_of_a_native_library_is_a_500_and_no_broken_connection(client, caplog):
    answer = client.get("/v1/fail/panic")
    assert answer.status_code == 500
    assert answer.json()["detail"] == f"The request failed; the log knows it as {answer.headers['X-Request-ID']}."
    assert "secret" not in answer.text
    assert "secret" in caplog.text


def test_folders_are_called_by_their_names(client):
    assert client.get("/v1/fail/locked").json()["detail"] == "GALLERY is written by 7."


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("shop.example", 200),
        ("api.desk.example", 200),
        ("desk.example", 400),
        ("evil.example", 400),
        # And no redirection to the name that it might have meant.
        ("till.example", 400),
        ("shop.example.evil.example", 400),
        ("shop.example@evil.example", 400),
        ("localhost/", 400),
        ("", 400),
    ],
)
def test_only_the_services_own_names_are_answered(host, status):
    client = serve(trusted_hosts=["shop.example", "*.desk.example", "www.till.example"])
    answer = client.get("/healthz", headers={"Host": host})
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["detail"].startswith("The Host header has no name that this service answers to")
        assert figures(client)["modiste_rejections_total", "host"] == 1


def test_any_name_is_answered_where_that_was_spelled_out():
    assert serve(trusted_hosts=["*"]).get("/healthz", headers={"Host": "evil.example"}).status_code == 200


PREFLIGHT = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}


def test_no_page_may_look_in_unless_it_is_listed(client):
    answer = client.get("/healthz", headers={"Origin": "https://shop.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert client.options("/v1/neighbours", headers=PREFLIGHT).status_code == 403


def test_a_listed_page_may_look_in(tmp_path):
    add_key(tmp_path / "keys.json", "shop", "read")
    client = serve(cors_origins=["https://shop.example"], keys_file=tmp_path / "keys.json")
    # A browser asks first, and sends no key with that.
    asked = client.options(
        "/v1/neighbours", headers={**PREFLIGHT, "Access-Control-Request-Headers": "authorization, x-api-key"}
    )
    assert (asked.status_code, asked.headers["Access-Control-Allow-Origin"]) == (200, "https://shop.example")
    assert "PATCH" in asked.headers["Access-Control-Allow-Methods"]
    # Refusals can be read by the page too.
    refused = client.post("/v1/neighbours", headers={"Origin": "https://shop.example"})
    assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, "https://shop.example")
    assert "Retry-After" in refused.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in refused.headers
    other = client.options("/v1/neighbours", headers={**PREFLIGHT, "Origin": "https://evil.example"})
    assert other.status_code == 400
    assert "Access-Control-Allow-Origin" not in other.headers


def test_the_limits_are_those_of_the_settings():
    client = serve(max_body_mb=1)
    assert client.post("/v1/neighbours", content=b"x" * 1_000_000).json() == 1_000_000
    answer = client.post("/v1/neighbours", content=b"x" * 1_000_001)
    assert (answer.status_code, answer.json()["detail"]) == (
        413,
        "The body of a request may have 1 MB; this one has more.",
    )
    assert figures(client)["modiste_rejections_total", "too_large"] == 1
    assert figures(client)[("modiste_buffered_bytes",)] == 0
    (held,) = [each.kwargs["held"] for each in client.app.user_middleware if each.cls is Bodies]
    assert (held.most, held.most_together, held.seconds) == (1_000_000, 8_000_000, 10)


@pytest.mark.parametrize(
    ("method", "path", "headers", "reason"),
    [
        ("POST", "/v1/neighbours", {"Origin": "https://evil.example"}, "origin"),
        ("GET", "/v1/fail/overload", {}, "overloaded"),
        ("GET", "/nothing", {}, None),
        ("GET", "/v1/fail/filter", {}, None),
    ],
)
def test_refusals_are_counted(client, method, path, headers, reason):
    client.request(method, path, headers=headers)
    counted = {key: value for key, value in figures(client).items() if key[0] == "modiste_rejections_total"}
    assert counted == ({} if reason is None else {("modiste_rejections_total", reason): 1})


def test_requests_are_counted_by_route_and_not_by_path(client):
    for item in ("a", "a/b", "c"):
        client.get(f"/v1/items/{item}")
    client.get("/nothing")
    client.get("/nothing/else")
    client.post("/v1/neighbours", headers={"Origin": "null"})
    found = figures(client)
    assert {key[1:]: value for key, value in found.items() if key[0] == "modiste_request_seconds_count"} == {
        ("GET", "/v1/items/{item_id}", "200"): 3,
        ("GET", "unknown", "404"): 2,
        # It was refused before anybody looked where it goes.
        ("POST", "unknown", "403"): 1,
    }
    assert found[("modiste_stage_seconds_count", "decode")] == 3
    assert found[("modiste_stage_seconds_sum", "decode")] == pytest.approx(0.012)


def test_the_engine_is_measured_once_it_is_there(client):
    assert ("modiste_gallery_version",) not in figures(client)
    client.app.state.engine = engine_like()
    assert figures(client)[("modiste_gallery_version",)] == 7


def lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "service.shields"]


def test_a_request_is_a_line_in_the_log(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    key = add_key(tmp_path / "keys.json", "shop", "read")
    client = serve(keys_file=tmp_path / "keys.json")
    client.get("/v1/items/secret-item?where=secret", headers={"X-API-Key": key})
    client.post("/v1/neighbours", headers={"X-API-Key": key}, content=b"x" * 500)
    client.get("/v1/fail/filter")
    client.get("/v1/items/a")
    item, question, failed, refused = lines(caplog)
    assert item.getMessage() == "GET /v1/items/{item_id} 200"
    assert (item.key, item.client, item.stages) == ("shop", "127.0.0.1", {"decode": 4.0, "total": 5.0})
    assert item.milliseconds >= 0
    # A body of JSON: the id in quotes.
    assert (item.received_bytes, item.sent_bytes) == (0, len('"secret-item"'))
    assert (question.received_bytes, question.stages) == (500, None)
    assert (failed.getMessage(), failed.problem) == ("GET /v1/fail/{kind} 422", "No target 'size'.")
    assert (refused.getMessage(), refused.key) == ("GET /v1/items/{item_id} 401", None)
    # Not the item, the filter or the key.
    assert all("secret" not in str(vars(record)) and key not in str(vars(record)) for record in lines(caplog))


def test_what_machines_ask_all_the_time_does_not_fill_the_log(client, caplog):
    caplog.set_level(logging.INFO)
    client.get("/healthz")
    assert lines(caplog) == []
    caplog.set_level(logging.DEBUG)
    client.get("/healthz")
    assert [record.getMessage() for record in lines(caplog)] == ["GET /healthz 200"]


def test_the_line_is_written_while_its_id_is_known(client):
    ids = []

    class Note(logging.Handler):
        def emit(self, _record: logging.LogRecord) -> None:
            ids.append(request_id.get())

    logger, handler = logging.getLogger("service.shields"), Note()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        answer = client.get("/nothing")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert ids == [answer.headers["X-Request-ID"]]


def test_a_client_that_hangs_up_is_noted_as_that(caplog):
    caplog.set_level(logging.INFO)
    client = serve()

    async def ask() -> None:
        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None: ...

        scope = {
            **{"type": "http", "method": "POST", "path": "/v1/neighbours", "raw_path": b"/v1/neighbours"},
            **{"query_string": b"", "scheme": "http", "http_version": "1.1", "client": HERE},
            **{"headers": [(b"host", b"localhost"), (b"content-length", b"9")]},
        }
        await client.app(scope, receive, send)
        # A server answers the next request of a connection in the same context.
        assert request_id.get() == ""

    asyncio.run(ask())
    assert [record.getMessage() for record in lines(caplog)] == ["POST /v1/neighbours 499"]


def test_a_request_that_is_cancelled_is_noted_too(caplog):
    caplog.set_level(logging.INFO)
    client = serve()

    async def ask() -> None:
        async def wait(*_: Any) -> Any:
            await asyncio.Event().wait()

        scope = {
            **{"type": "http", "method": "POST", "path": "/v1/neighbours", "raw_path": b"/v1/neighbours"},
            **{"query_string": b"", "scheme": "http", "http_version": "1.1", "client": HERE},
            **{"headers": [(b"host", b"localhost"), (b"content-length", b"9")]},
        }
        task = asyncio.create_task(client.app(scope, wait, wait))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
    assert [record.getMessage() for record in lines(caplog)] == ["POST /v1/neighbours 499"]


def test_the_start_of_the_server_passes():
    started = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        started.append(True)
        yield

    app = FastAPI(lifespan=lifespan)
    shield(app, Settings.read(gallery="shoes"))
    with TestClient(app, base_url=BASE) as client:
        assert client.get("/nothing").status_code == 404
    assert started == [True]
