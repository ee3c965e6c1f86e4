from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request, UploadFile
from fastapi.testclient import TestClient

from service.bodies import Bodies, Held
from service.problems import Problems, RefusedError, handle_errors


def make_app(held: Held) -> FastAPI:
    app = FastAPI()
    app.state.seen = []

    @app.post("/raw")
    async def _raw(request: Request) -> int:
        app.state.seen.append("raw")
        return len(await request.body())

    @app.post("/form")
    async def _form(photo: UploadFile) -> int:
        app.state.seen.append("form")
        return len(await photo.read())

    @app.post("/json")
    async def _json(value: dict[str, Any]) -> int:
        app.state.seen.append("json")
        return len(value)

    @app.post("/unread")
    async def _unread() -> int:
        return held.bytes

    @app.get("/held")
    async def _held() -> int:
        return held.bytes

    handle_errors(app)
    app.add_middleware(Problems)
    app.add_middleware(Bodies, held=held)
    return app


@pytest.fixture
def held() -> Held:
    return Held(most=1000, most_together=2500, seconds=5)


@pytest.fixture
def client(held) -> TestClient:
    return TestClient(make_app(held))


def chunks(*sizes: int) -> Iterator[bytes]:
    for size in sizes:
        yield b"x" * size


def test_a_body_may_have_the_limit_and_no_more(client):
    assert client.post("/raw", content=b"x" * 1000).json() == 1000
    answer = client.post("/raw", content=b"x" * 1001)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "The body of a request may have 0.001 MB; this one has more."


def test_chunks_are_counted_as_they_come(client):
    # No length is declared: httpx sends what a generator gives in chunks.
    assert client.post("/raw", content=chunks(500, 500)).json() == 1000
    assert client.post("/raw", content=chunks(500, 500, 1)).status_code == 413


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/form", {"files": {"photo": b"x" * 2000}}),
        ("/json", {"json": {"a": "x" * 2000}}),
        ("/raw", {"content": b"x" * 2000}),
    ],
)
def test_it_holds_whoever_reads_the_body(client, path, options):
    answer = client.post(path, **options)
    assert (answer.status_code, answer.json()["title"]) == (413, "Content Too Large")
    assert "form" not in client.app.state.seen
    assert "json" not in client.app.state.seen


def test_a_form_below_the_limit_passes(client):
    assert client.post("/form", files={"photo": b"x" * 500}).json() == 500


def run(
    app: Any, messages: list[dict[str, Any]], path: str = "/raw", headers: tuple[tuple[bytes, bytes], ...] = ()
) -> Any:
    """What an application answers to messages, by hand: start, then bodies; and how many messages it took."""
    sent: list[dict[str, Any]] = []
    taken = 0
    scope = {
        **{"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""},
        **{"headers": list(headers), "app": None, "state": {}, "http_version": "1.1", "scheme": "http"},
    }

    async def receive() -> Any:
        nonlocal taken
        if taken < len(messages):
            taken += 1
            return messages[taken - 1]
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    start = sent[0]
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, taken


CHUNKED = ((b"transfer-encoding", b"chunked"),)
PART = {"type": "http.request", "body": b"x" * 600, "more_body": True}


def test_a_declared_length_is_refused_before_a_byte_is_taken(held):
    status, headers, taken = run(make_app(held), [PART] * 9, headers=((b"content-length", b"1001"),))
    assert (status, taken) == (413, 0)
    # Four times the limit may still come and be thrown away; the client sees the answer, and the connection lives.
    assert "connection" not in headers


def test_nothing_is_taken_past_the_limit(held):
    status, headers, taken = run(make_app(held), [PART] * 9, headers=CHUNKED)
    # 600 and 600 are more than 1,000.
    assert (status, taken) == (413, 2)
    assert headers["connection"] == "close"
    assert held.bytes == 0


def test_a_length_far_past_the_limit_ends_the_connection(held):
    _, headers, _ = run(make_app(held), [PART], headers=((b"content-length", b"4001"),))
    assert headers["connection"] == "close"
    _, headers, _ = run(make_app(held), [PART], "/unread", headers=((b"content-length", b"4000"),))
    assert "connection" not in headers


def test_a_length_that_lies_is_counted_all_the_same(held):
    status, _, taken = run(make_app(held), [PART] * 9, headers=((b"content-length", b"10"),))
    assert (status, taken) == (413, 2)


def test_what_never_came_in_whole_is_not_read_on(held):
    # A route that does not look at the body answers; who sends without an end is cut off.
    status, headers, taken = run(make_app(held), [PART] * 9, "/unread", headers=CHUNKED)
    assert (status, taken) == (200, 0)
    assert headers["connection"] == "close"


def test_a_body_that_came_in_whole_keeps_the_connection(held):
    whole = [PART, {"type": "http.request", "body": b"x"}]
    status, headers, _ = run(make_app(held), whole, headers=CHUNKED)
    assert status == 200
    assert "connection" not in headers


def test_a_body_that_comes_too_slowly_is_refused():
    held = Held(most=1000, most_together=2500, seconds=0.05)
    start = time.monotonic()
    status, headers, taken = run(make_app(held), [PART], headers=((b"content-length", b"700"),))
    assert (status, taken) == (408, 1)
    assert headers["connection"] == "close"
    assert time.monotonic() - start < 5
    assert held.bytes == 0


def test_a_request_without_a_body_may_wait_for_as_long_as_it_likes():
    # A stream of events is asked for without a body, and waits for its client to hang up.
    held, waited = Held(most=1000, most_together=2500, seconds=0.01), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        waited.append(await receive())

    async def receive() -> Any:
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    asyncio.run(Bodies(app, held)({"type": "http", "headers": [], "state": {}}, receive, None))  # type: ignore[arg-type]
    assert waited == [{"type": "http.disconnect"}]


def test_once_the_body_came_there_is_no_hurry():
    held, messages = Held(most=1000, most_together=2500, seconds=0.02), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        messages.extend([await receive(), await receive()])

    async def receive() -> Any:
        if not messages and not asked:
            asked.append(True)
            return {"type": "http.request", "body": b"x"}
        await asyncio.sleep(0.1)
        return {"type": "http.disconnect"}

    asked: list[bool] = []
    scope = {"type": "http", "headers": [(b"content-length", b"1")], "state": {}}
    asyncio.run(Bodies(app, held)(scope, receive, None))  # type: ignore[arg-type]
    assert [message["type"] for message in messages] == ["http.request", "http.disconnect"]
    assert scope["state"] == {"received_bytes": 1}


def test_all_bodies_together_have_a_limit(held):
    async def ask() -> list[int]:
        app, statuses, gate = make_app(held), [], asyncio.Event()

        async def one(number: int) -> None:
            messages = iter([{**PART, "body": b"x" * 900}])

            async def receive() -> Any:
                message = next(messages, None)
                if message is None:
                    await gate.wait()
                    return {"type": "http.request", "body": b"", "more_body": False}
                return message

            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])
                    retries.extend(value for name, value in message["headers"] if name == b"retry-after")

            scope = {
                **{"type": "http", "method": "POST", "path": "/raw", "raw_path": b"/raw", "query_string": b""},
                **{"headers": [*CHUNKED], "app": None, "state": {}, "http_version": "1.1", "scheme": "http"},
            }
            await app(scope, receive, send)

        # Three of 900 bytes are more than 2,500: the third is refused at once, while two wait for their end.
        tasks = [asyncio.create_task(one(number)) for number in range(3)]
        while not statuses:
            await asyncio.sleep(0)
        assert statuses == [503]
        assert held.bytes == 1800
        gate.set()
        await asyncio.gather(*tasks)
        return statuses

    retries: list[bytes] = []
    assert asyncio.run(ask()) == [503, 200, 200]
    assert retries == [b"1"]
    assert held.bytes == 0


def test_what_a_request_held_is_given_back(client, held):
    for content in (b"x" * 900, b"x" * 5000, b""):
        client.post("/raw", content=content)
    client.post("/json", content=b"{", headers={"Content-Type": "application/json"})
    assert client.get("/held").json() == 0


def test_what_is_no_request_passes(held):
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(Bodies(app, held)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]


@contextmanager
def listening(app: FastAPI) -> Iterator[Callable[[], socket.socket]]:
    """A real server on loopback; what is given connects to it."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield lambda: socket.create_connection(listener.getsockname(), timeout=10)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def answer_of(connection: socket.socket) -> bytes:
    """All that comes until the other side hangs up."""
    answer = b""
    while part := connection.recv(65536):
        answer += part
    return answer


def test_a_real_server_hangs_up_on_a_body_without_end(held):
    with listening(make_app(held)) as connect, connect() as connection:
        connection.sendall(b"POST /raw HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            connection.sendall(b"1f4\r\n" + b"x" * 500 + b"\r\n")
        answer = answer_of(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()


def test_a_real_server_hangs_up_on_a_body_that_trickles():
    held = Held(most=1000, most_together=2500, seconds=0.2)
    with listening(make_app(held)) as connect, connect() as connection:
        connection.sendall(b"POST /raw HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nxx")
        answer = answer_of(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert held.bytes == 0


@pytest.mark.parametrize(
    ("kind", "status"), [("application/json", 413), (None, 413), ("image/jpeg", 200), ("multipart/form-data; x", 200)]
)
def test_only_photos_may_be_large(kind, status):
    async def app(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})

    size = 1_000_001
    headers = [(b"content-length", str(size).encode())] + ([(b"content-type", kind.encode())] if kind else [])
    held = Held(most=5_000_000, most_together=9_000_000, seconds=5)
    messages = [{"type": "http.request", "body": bytes(size)}]
    statuses = []

    async def receive():
        return messages.pop()

    async def send(message):
        statuses.append(message["status"])

    async def call():
        try:
            await Bodies(app, held)({"type": "http", "headers": headers}, receive, send)
        except RefusedError as error:
            statuses.append(error.status_code)

    asyncio.run(call())
    assert statuses == [status]
    assert held.bytes == 0
