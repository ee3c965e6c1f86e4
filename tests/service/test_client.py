"""Every method of the client asks what it should, and over a real socket too."""

from __future__ import annotations

import io
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, TypeVar, get_origin, get_type_hints
from urllib.parse import parse_qsl

import httpx
import pytest

from data.catalog import Box
from service import answers, examples
from service import client as client_module
from service.answers import (
    Catalog,
    Classification,
    Edited,
    Item,
    ItemPage,
    Job,
    Jobs,
    Neighbour,
    Neighbours,
    Progress,
    Receipt,
)
from service.client import Client, NotFoundError, RefusedError, ServiceError, UnreachableError

T = TypeVar("T")
JPEG = b"\xff\xd8\xff\xe0 a photo"
PNG = b"\x89PNG\r\n\x1a\n a photo"
WEBP = b"RIFF\x10\x00\x00\x00WEBPVP8 "
ITEM = Item("red/0.png", "p1", {"colour": ["red"]}, (0.0, 0.0, 1.0, 0.5), "train")
RECEIPT = Receipt(7, 3, "fake", "f00d", "exact", timings_ms={"total": 1.5})
JOB = Job("j1", "fit", "queued", {"targets": ["colour"]}, Progress(), None, None, "2026-11-21T00:00:00Z")
RUNNING = replace(JOB, state="running", progress=Progress(1, 2, 1, "photo 1 \u2028 é"))
DONE = replace(RUNNING, state="done", progress=Progress(2, 2, 2), result={"heads": 1})


def least(kind: type[T]) -> T:
    """An answer of which nothing but the types matters."""
    values = {bool: True, int: 7, float: 0.5, str: "x", dict: {}, list: [], UnionType: None}
    return kind(**{name: values[get_origin(part) or part] for name, part in get_type_hints(kind).items()})


ANSWERS: dict[str, Any] = {
    "neighbours": Neighbours([Neighbour(ITEM, 0.25, 0.75)], RECEIPT),
    "classify": Classification([], RECEIPT),
    "explain": examples.EXPLANATION,
    "catalog": least(Catalog),
    "projection": examples.PROJECTION,
    "items": ItemPage([ITEM], 1, None, 7),
    "item": ITEM,
    "put_item": Edited(ITEM, 8, True),
    "relabel": Edited(ITEM, 8),
    "submit": JOB,
    "job": JOB,
    "cancel": JOB,
}


def serve(handler: Callable[[httpx.Request], httpx.Response], **options: Any) -> Client:
    return Client("http://shop:1", transport=httpx.MockTransport(handler), **options)


def asked(call: Callable[[Client], Any], answer: Any) -> tuple[httpx.Request, Any]:
    """The request that a call made, and what it returned."""
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        request.read()
        seen.append(request)
        return httpx.Response(200, json=asdict(answer))

    with serve(handler) as client:
        result = call(client)
    assert len(seen) == 1
    return seen[0], result


# What is called, and the request that it should make: method, path and query, as they travel.
CALLS: list[tuple[str, Callable[[Client], Any], str, str, dict[str, Any]]] = [
    ("neighbours", lambda c: c.neighbours(JPEG), "POST", "/v1/neighbours", {"k": "10"}),
    ("neighbours", lambda c: c.neighbours(item_id="a b"), "POST", "/v1/neighbours", {"item_id": "a b", "k": "10"}),
    (
        "neighbours",
        lambda c: c.neighbours(
            JPEG,
            k=3,
            where={"colour": ["red", "a|b"]},
            box=Box(0.0, 0.5, 0.5, 0.25),
            group_by_product=True,
            max_distance=0.0,
        ),
        "POST",
        "/v1/neighbours",
        {
            "k": "3",
            "where": r"colour=red|a\|b",
            "box": "0.0,0.5,0.5,0.25",
            "group_by": "product",
            "max_distance": "0.0",
        },
    ),
    (
        "classify",
        lambda c: c.classify(JPEG, PNG),
        "POST",
        "/v1/classify",
        {"top": "3", "coverage": "0.9", "evidence": "5"},
    ),
    (
        "classify",
        lambda c: c.classify(
            item_id="a",
            targets=["type", "colour"],
            head="knn",
            top=1,
            allowed=["Tops", "=Tops"],
            weights={"Bottoms": 0.6},
            coverage=0.5,
            evidence=0,
            box="0,0,1,1",
        ),
        "POST",
        "/v1/classify",
        {
            "item_id": "a",
            "targets": "type,colour",
            "head": "knn",
            "top": "1",
            "allowed": "Tops,=Tops",
            "weights": "Bottoms=0.6",
            "coverage": "0.5",
            "evidence": "0",
            "box": "0,0,1,1",
        },
    ),
    (
        "explain",
        lambda c: c.explain(PNG, target="colour", label="red", head="linear", box=(0, 0, 1, 1), raw=True),
        "POST",
        "/v1/explain",
        {
            "target": "colour",
            "method": "occlusion",
            "label": "red",
            "head": "linear",
            "box": "0.0,0.0,1.0,1.0",
            "faithfulness": "true",
            "raw": "true",
        },
    ),
    (
        "explain",
        lambda c: c.explain(
            item_id="a", target="colour", method="other", layer="x", window=8, stride=4, fill="blur", faithfulness=False
        ),
        "POST",
        "/v1/explain",
        {
            "target": "colour",
            "item_id": "a",
            "method": "other",
            "layer": "x",
            "window": "8",
            "stride": "4",
            "fill": "blur",
            "faithfulness": "false",
            "raw": "false",
        },
    ),
    (
        "explain",
        lambda c: c.explain(item_id="a", match_item_id="b"),
        "POST",
        "/v1/explain",
        {"item_id": "a", "match_item_id": "b", "method": "match", "faithfulness": "true", "raw": "false"},
    ),
    ("catalog", lambda c: c.catalog(), "GET", "/v1/catalog", {}),
    ("projection", lambda c: c.projection(), "GET", "/v1/projection", {"limit": "3000"}),
    (
        "projection",
        lambda c: c.projection(target="colour", view=(0, 0.5, 0.5, 0.25), limit=10, where={"type": ["Shirt", "a,b"]}),
        "GET",
        "/v1/projection",
        {"target": "colour", "view": "0.0,0.5,0.5,0.25", "limit": "10", "where": r"type=Shirt|a\,b"},
    ),
    ("items", lambda c: c.items(), "GET", "/v1/items", {"limit": "50"}),
    (
        "items",
        lambda c: c.items(where="colour=red", after="a&b", limit=2),
        "GET",
        "/v1/items",
        {"where": "colour=red", "after": "a&b", "limit": "2"},
    ),
    ("item", lambda c: c.item("red/0.png"), "GET", "/v1/items/red%2F0.png", {}),
    ("item", lambda c: c.item(".."), "GET", "/v1/items/%2E%2E", {}),
    (
        "put_item",
        lambda c: c.put_item(
            "red/0.png",
            WEBP,
            {"colour": ["red", "dark red"], "type": "Shirt"},
            product_id="p1",
            box=(0, 0, 1, 1),
            split="train",
            new_targets=True,
        ),
        "PUT",
        "/v1/items/red%2F0.png",
        {
            "label": ["colour=red|dark red", "type=Shirt"],
            "product_id": "p1",
            "box": "0.0,0.0,1.0,1.0",
            "split": "train",
            "new_targets": "true",
        },
    ),
    ("put_item", lambda c: c.put_item("a", JPEG), "PUT", "/v1/items/a", {"new_targets": "false"}),
    ("relabel", lambda c: c.relabel("a/b", {"colour": "red", "type": []}), "PATCH", "/v1/items/a%2Fb", {}),
    ("submit", lambda c: c.submit("fit", targets=["colour"], seed=1), "POST", "/v1/jobs", {}),
    ("job", lambda c: c.job("j/1"), "GET", "/v1/jobs/j%2F1", {}),
    ("cancel", lambda c: c.cancel("j1"), "POST", "/v1/jobs/j1/cancel", {}),
]


@pytest.mark.parametrize(("name", "call", "method", "path", "query"), CALLS)
def test_each_method_asks_its_route_and_reads_its_answer(name, call, method, path, query):
    request, result = asked(call, ANSWERS[name])
    assert result == ANSWERS[name]
    assert request.method == method
    raw_path, _, raw_query = request.url.raw_path.decode().partition("?")
    assert raw_path == path
    pairs = [(key, value) for key, given in query.items() for value in ([given] if isinstance(given, str) else given)]
    assert parse_qsl(raw_query, keep_blank_values=True, strict_parsing=bool(raw_query)) == pairs


def test_bodies_of_edits_and_jobs():
    request, _ = asked(lambda c: c.relabel("a", {"colour": "red", "type": []}, new_targets=True), ANSWERS["relabel"])
    assert json.loads(request.content) == {"labels": {"colour": ["red"], "type": []}, "new_targets": True}
    request, _ = asked(lambda c: c.submit("fit", targets=["colour"], seed=1), JOB)
    assert json.loads(request.content) == {"kind": "fit", "targets": ["colour"], "seed": 1}


@pytest.mark.parametrize(
    ("content", "content_type"),
    [(JPEG, "image/jpeg"), (PNG, "image/png"), (WEBP, "image/webp")],
    ids=["jpeg", "png", "webp"],
)
@pytest.mark.parametrize("route", ["neighbours", "explain", "put_item"])
def test_one_photo_is_the_body_as_it_is(tmp_path, route, content, content_type):
    # The name says nothing about what is in it.
    path = tmp_path / "photo.gif"
    path.write_bytes(content)
    for photo in (content, path, path.open("rb"), io.BytesIO(content)):
        given = ("a", photo) if route == "put_item" else (photo,)
        options = {"target": "colour"} if route == "explain" else {}
        request, _ = asked(lambda c, given=given, options=options: getattr(c, route)(*given, **options), ANSWERS[route])
        assert request.content == content
        assert request.headers["Content-Type"] == content_type
        if not isinstance(photo, bytes | Path):
            photo.close()


def test_photos_to_classify_are_a_form_with_the_names_of_their_files(tmp_path):
    path = tmp_path / 'a "b".png'
    path.write_bytes(PNG)
    with path.open("rb") as file:
        request, _ = asked(lambda c: c.classify(JPEG, path, file, io.BytesIO(WEBP)), ANSWERS["classify"])
    assert request.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    parts = re.findall(rb'form-data; name="photo"; filename="(.+)"\r\nContent-Type: (.+)\r\n\r\n', request.content)
    assert parts == [
        (b"0", b"image/jpeg"),
        (b"a %22b%22.png", b"image/png"),
        (b"a %22b%22.png", b"image/png"),
        (b"3", b"image/webp"),
    ]
    assert request.content.count(PNG) == 2


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\xff\xd8", b"RIFF\x10\x00\x00\x00WAVE", b"<svg/>"])
def test_what_is_no_photo_is_not_sent(tmp_path, content):
    path = tmp_path / "shirt.jpg"
    path.write_bytes(content)
    with serve(no_request) as client:
        for photo in (content, path):
            with pytest.raises(ValueError, match=r"A photo is a JPEG, PNG or WEBP file; .+ begins with b'"):
                client.neighbours(photo)
        with pytest.raises(ValueError, match=r"; shirt\.jpg begins with"):
            client.put_item("a", path)


def test_of_several_photos_the_service_says_which_one_is_none():
    request, _ = asked(lambda c: c.classify(JPEG, b"GIF89a"), ANSWERS["classify"])
    assert re.findall(rb"Content-Type: (.+)\r\n\r\n", request.content) == [b"image/jpeg", b"application/octet-stream"]


@pytest.mark.parametrize("photo", ["shirt.jpg", 3, io.StringIO("text")])
def test_a_photo_is_a_path_bytes_or_a_binary_file(photo):
    with (
        pytest.raises(TypeError, match="A photo is a Path, bytes or a file opened in binary mode; got"),
        serve(no_request) as client,
    ):
        client.neighbours(photo)


@pytest.mark.parametrize("ask", ["neighbours", "classify", "explain"])
def test_a_question_is_about_one_thing(ask):
    options = {"target": "colour"} if ask == "explain" else {}
    with serve(no_request) as client:
        with pytest.raises(ValueError, match="got neither"):
            getattr(client, ask)(**options)
        with pytest.raises(ValueError, match="got both"):
            getattr(client, ask)(JPEG, item_id="a", **options)


def no_request(request: httpx.Request) -> httpx.Response:
    raise AssertionError(f"Nothing should be asked, and {request.url} was.")


def test_a_picture_is_its_bytes():
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.raw_path == b"/v1/items/a%2Fb/image?size=64"
        return httpx.Response(200, content=JPEG)

    assert serve(handler).image("a/b", size=64) == JPEG


def test_deleting_answers_nothing():
    def handler(request: httpx.Request) -> httpx.Response:
        assert (request.method, request.url.raw_path) == ("DELETE", b"/v1/items/a%2Fb")
        return httpx.Response(204)

    assert serve(handler).delete_item("a/b") is None


def test_all_pages_are_one_walk():
    # Where the next page begins is the service's matter.
    pages = {None: (["a", "b"], "2/b"), "2/b": (["c", "d"], "4"), "4": ([], None)}

    def handler(request: httpx.Request) -> httpx.Response:
        names, following = pages[request.url.params.get("after")]
        assert request.url.params["where"] == "colour=red"
        assert request.url.params["limit"] == "2"
        return httpx.Response(200, json=asdict(ItemPage([Item(name) for name in names], 4, following, 7)))

    walk = serve(handler).iter_items(where={"colour": "red"}, limit=2)
    assert [item.item_id for item in walk] == ["a", "b", "c", "d"]


def test_jobs_are_a_list():
    assert serve(lambda _: httpx.Response(200, json=asdict(Jobs([DONE, JOB])))).jobs() == [DONE, JOB]


@pytest.mark.parametrize("check", ["ready", "health"])
def test_readiness_and_health(check):
    path = {"ready": "/readyz", "health": "/healthz"}[check]
    statuses = iter([200, 503])

    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.path == path
        # Asked once: the caller wants to know how it is now.
        return httpx.Response(next(statuses), headers={"Retry-After": "1"})

    client = serve(handler)
    assert getattr(client, check)() is True
    assert getattr(client, check)() is False
    # Something else listens there.
    with pytest.raises(NotFoundError):
        getattr(serve(lambda _: httpx.Response(404)), check)()


def test_the_key_goes_along_and_is_not_shown():
    client = serve(
        lambda request: httpx.Response(401 if request.headers["Authorization"] == "Bearer s3" else 500), key="s3"
    )
    with pytest.raises(RefusedError) as caught:
        client.catalog()
    assert "s3" not in repr(client) + str(caught.value)
    assert repr(client) == "Client('http://shop:1')"


@pytest.mark.parametrize(
    ("response", "sentence"),
    [
        (httpx.Response(200, text="<html>"), "GET /v1/catalog cannot be read. It is no JSON"),
        (httpx.Response(200, json={"items": 3}), "Catalog lacks products, targets"),
        (httpx.Response(200, json=[]), "Catalog should be Catalog"),
        (httpx.Response(204), "It is no JSON"),
        (httpx.Response(200, content=b"\xff\xfe\xfa"), "It is no JSON"),
    ],
)
def test_an_answer_that_is_none_is_said_to_be(response, sentence):
    response.headers["X-Request-ID"] = "r9"
    with pytest.raises(ServiceError, match=sentence) as caught:
        serve(lambda _: response).catalog()
    assert (caught.value.status, caught.value.request_id) == (response.status_code, "r9")


def test_a_job_is_submitted_once():
    seen = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        raise httpx.ReadError("reset")

    with pytest.raises(UnreachableError):
        serve(handler).submit("compact")
    assert len(seen) == 1


def events(*jobs: Job, comments: str = ": still here\n\n") -> str:
    names = ["end" if job.is_over else "progress" for job in jobs]
    blocks = [f"event: {name}\ndata: {json.dumps(asdict(job))}\n\n" for name, job in zip(names, jobs, strict=True)]
    return comments + comments.join(blocks)


def job_service(streams: list[str | Exception], state: Job) -> tuple[Client, list[str]]:
    """A service whose streams of events are these in turn, and whose job is as said."""
    turns, paths = iter(streams), []

    def handler(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        if not request.url.path.endswith("/events"):
            return httpx.Response(200, json=asdict(state))
        this = next(turns)
        if isinstance(this, Exception):
            raise this
        return httpx.Response(200, text=this, headers={"Content-Type": "text/event-stream"})

    return serve(handler), paths


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(client_module.time, "sleep", slept.append)
    return slept


def test_a_job_is_followed_to_its_end(pauses):
    client, paths = job_service([events(JOB, RUNNING, RUNNING, DONE)], DONE)
    assert list(client.follow("j1")) == [JOB, RUNNING, DONE]
    assert paths == ["/v1/jobs/j1/events"]
    assert pauses == []


def test_a_stream_that_ends_early_is_taken_up_again(pauses):
    client, paths = job_service([events(JOB), events(), events(RUNNING, DONE)], RUNNING)
    assert list(client.follow("j1")) == [JOB, RUNNING, DONE]
    stream, job = "/v1/jobs/j1/events", "/v1/jobs/j1"
    assert paths == [stream, job, stream, job, stream]
    assert pauses == [0.5, 0.5]


def test_a_job_that_ends_between_two_streams_has_ended(pauses):
    client, _ = job_service([events(JOB)], DONE)
    assert list(client.follow("j1")) == [JOB, DONE]
    assert pauses == []


def test_a_job_that_is_not_there_is_not_followed():
    with pytest.raises(NotFoundError):
        next(serve(lambda _: httpx.Response(404)).follow("j1"))


def test_who_follows_no_longer_hangs_up():
    closed = []

    class Stream(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield events(JOB, RUNNING).encode()

        def close(self) -> None:
            closed.append(True)

    follow = serve(lambda _: httpx.Response(200, stream=Stream())).follow("j1")
    assert next(follow) == JOB
    assert closed == []
    follow.close()
    assert closed == [True]


def test_an_event_that_is_no_job_is_said_to_be_none():
    client, _ = job_service(['data: {"id": 3}\n\n'], DONE)
    with pytest.raises(ServiceError, match=r"GET /v1/jobs/j1/events cannot be read. Job lacks kind"):
        list(client.follow("j1"))


def test_waiting_asks_less_and_less_often(pauses):
    states = iter([JOB] * 12 + [DONE])
    client = serve(lambda _: httpx.Response(200, json=asdict(next(states))))
    assert client.wait("j1") == DONE
    assert pauses == pytest.approx([min(2.0, 0.1 * 1.5**turn) for turn in range(12)])


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_waiting_ends_with_the_job_however_it_ends(state):
    over = replace(DONE, state=state, result=None, error="No.")
    assert serve(lambda _: httpx.Response(200, json=asdict(over))).wait("j1", timeout=0) == over


def test_waiting_has_an_end(pauses):
    client = serve(lambda _: httpx.Response(200, json=asdict(RUNNING)))
    with pytest.raises(TimeoutError, match=r"Job j1 is still running after 0\.01 s"):
        client.wait("j1", timeout=0.01)
    assert max(pauses) <= 0.01


class Shop(BaseHTTPRequestHandler):
    """A service that refuses the first question, and breaks the first stream of events off in the middle of one."""

    protocol_version = "HTTP/1.1"
    times: ClassVar[dict[str, int]]

    def do_GET(self) -> None:
        self.times[self.path] = self.times.get(self.path, 0) + 1
        if self.path == "/v1/jobs/gone/events":
            self._send(404, {"detail": "There is no job 'gone'."})
        elif self.path.endswith("/events"):
            self._events(events(JOB, RUNNING) if self.times[self.path] == 1 else events(RUNNING, DONE))
        elif self.path == "/v1/catalog" and self.times[self.path] == 1:
            self._send(503, {"detail": "Full."}, {"Retry-After": "0"})
        else:
            self._send(200, asdict(ANSWERS["catalog"] if self.path == "/v1/catalog" else RUNNING))

    def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _events(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        whole = text.encode()
        is_broken = self.times[self.path] == 1
        # Cuts of 50 bytes fall into the middle of lines, and the last one of the first stream into an event.
        for start in range(0, len(whole) - 60 if is_broken else len(whole), 50):
            part = whole[start : start + 50]
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.flush()
        if is_broken:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: Any) -> None:
        """Keeps the test's output clean."""


@contextmanager
def shop() -> Iterator[tuple[Client, type[Shop]]]:
    handler = type("OneShop", (Shop,), {"times": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with Client(f"http://127.0.0.1:{server.server_port}", timeout=10) as client:
                yield client, handler
        finally:
            server.shutdown()
            thread.join()


def test_a_refusal_is_waited_out_over_a_socket():
    with shop() as (client, handler):
        assert client.catalog() == ANSWERS["catalog"]
        assert handler.times == {"/v1/catalog": 2}


def test_a_broken_stream_is_taken_up_again_over_a_socket(monkeypatch):
    monkeypatch.setattr(client_module, "_RECONNECT_S", 0.01)
    with shop() as (client, handler):
        assert list(client.follow("j1")) == [JOB, RUNNING, DONE]
        assert handler.times == {"/v1/jobs/j1/events": 2, "/v1/jobs/j1": 1}


def test_a_job_that_is_not_there_is_not_followed_over_a_socket():
    with shop() as (client, _), pytest.raises(NotFoundError, match="There is no job 'gone'"):
        next(client.follow("gone"))


def test_one_client_serves_several_threads():
    with shop() as (client, _):
        found: list[Job] = []
        threads = [threading.Thread(target=lambda: found.append(client.job("j1"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [RUNNING] * 8


def test_where_nothing_listens_there_is_no_service():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    client = Client(f"http://127.0.0.1:{port}", retries=0)
    assert client.ready() is False
    assert client.health() is False
    with pytest.raises(UnreachableError, match=f"127.0.0.1:{port} cannot be reached: .*refused; is it running"):
        client.catalog()


def test_a_service_that_says_nothing_is_not_waited_for():
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Client(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.05) as client,
        pytest.raises(UnreachableError, match=r"did not answer within 0\.05 s"),
    ):
        client.catalog()


ALONE = """
import sys
from importlib.abc import MetaPathFinder

class OnlyHttpx(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        known = {"httpx", "httpcore", "h11", "anyio", "certifi", "idna", "sniffio", "service", "typing_extensions"}
        if top not in known and top not in sys.stdlib_module_names and not top.startswith("_"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, OnlyHttpx())
from service.client import Client
print(sorted(name for name in sys.modules if name.startswith("service")), Client().__class__.__name__)
"""


def test_the_client_needs_httpx_alone():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", ALONE], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    own = "['service', 'service.answers', 'service.client', 'service.client_answers', 'service.client_connection',"
    assert done.stdout == f"{own} 'service.client_photos', 'service.client_text'] Client\n"


def test_whatever_an_answer_holds_can_be_imported_from_the_client():
    # Whoever has httpx and this module alone names every class that a method returns, and those within.
    named = {name for name in client_module.__all__ if is_dataclass(getattr(client_module, name))}
    assert named == {name for name, kind in vars(answers).items() if is_dataclass(kind)}


def test_a_connection_that_was_idle_is_not_used_again():
    # The service closes it after 5 s, perhaps at the moment of the next question.
    ports = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            ports.append(self.client_address[1])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Client(f"http://127.0.0.1:{server.server_port}") as client:
        for pause in (0, 0, 2.5):
            time.sleep(pause)
            assert client.health()
    server.shutdown()
    server.server_close()
    assert ports[0] == ports[1] != ports[2]
