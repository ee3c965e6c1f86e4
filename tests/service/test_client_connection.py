"""Requests are repeated where that is safe and of use, and what goes wrong has a name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from service import client_connection
from service.client_connection import (
    LONGEST_PAUSE_S,
    Connection,
    NotFoundError,
    OverloadedError,
    RefusedError,
    ServiceError,
    UnreachableError,
    event_data,
)

Answer = httpx.Response | Exception


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were slept, which cost none; the jitter is at its least."""
    slept: list[float] = []
    monkeypatch.setattr(client_connection.time, "sleep", slept.append)
    monkeypatch.setattr(client_connection.random, "uniform", min)
    return slept


def connection(answers: list[Answer], seen: list[httpx.Request] | None = None, retries: int = 3) -> Connection:
    """One whose requests are answered by these in turn."""
    turns: Iterator[Answer] = iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        if seen is not None:
            seen.append(request)
        this = next(turns)
        if isinstance(this, Exception):
            raise this
        return this

    transport = httpx.MockTransport(answer)
    return Connection("http://shop:1", None, timeout=5.0, retries=retries, transport=transport)


def busy(status: int = 503, after: str | None = "2") -> httpx.Response:
    problem = {"title": "Busy", "status": status, "detail": "All places are taken.", "request_id": "r1"}
    headers = {"Content-Type": "application/problem+json", "X-Request-ID": "r1"}
    return httpx.Response(status, json=problem, headers=headers if after is None else {**headers, "Retry-After": after})


DONE = httpx.Response(200, text="done")


@pytest.mark.parametrize("status", [503, 429, 409])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_the_service_says_when_to_come_back(pauses, status, method):
    seen: list[httpx.Request] = []
    answer = connection([busy(status, "2"), busy(status, "0"), DONE], seen).send(method, "/x", content=b"photo")
    assert answer.text == "done"
    assert pauses == [2.0, 0.0]
    # The whole request goes again, its body too.
    assert [(request.method, request.content) for request in seen] == [(method, b"photo")] * 3


def test_a_form_goes_again_whole():
    seen: list[httpx.Request] = []
    files = [("photo", ("a.jpg", b"\xff\xd8\xff1", "image/jpeg"))]
    connection([busy(), DONE], seen).send("POST", "/x", files=files)
    assert all(b"\xff\xd8\xff1" in request.content for request in seen)
    assert len(seen) == 2


@pytest.mark.parametrize("status", [503, 429, 409])
@pytest.mark.parametrize("after", [None, "", "soon", "-1", "1.5"])
def test_without_a_time_to_come_back_it_is_not_asked_again(pauses, status, after):
    with pytest.raises(ServiceError, match="All places are taken"):
        connection([busy(status, after)]).send("GET", "/x")
    assert pauses == []


@pytest.mark.parametrize(
    ("status", "after", "seconds"),
    [(503, "2", 2.0), (429, "0", 0.0), (409, "7", 7.0), (503, None, None), (503, "soon", None)],
)
def test_who_repeats_requests_itself_is_told_when(pauses, status, after, seconds):
    with pytest.raises(ServiceError, match="All places are taken") as caught:
        connection([busy(status, after)], retries=0).send("GET", "/x")
    assert caught.value.retry_after == seconds
    assert pauses == []


def test_where_no_answer_came_nobody_named_a_time():
    with pytest.raises(UnreachableError) as caught:
        connection([httpx.ConnectError("refused")], retries=0).send("GET", "/x")
    assert caught.value.retry_after is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 422, 500, 502, 504])
def test_other_errors_are_not_asked_again(pauses, status):
    with pytest.raises(ServiceError):
        connection([busy(status)]).send("GET", "/x")
    assert pauses == []


def test_no_pause_is_longer_than_the_cap_but_for_the_jitter(pauses, monkeypatch):
    monkeypatch.setattr(client_connection.random, "uniform", max)
    connection([busy(after="3600"), busy(after="9" * 400), busy(after="1"), DONE]).send("GET", "/x")
    assert pauses == pytest.approx([LONGEST_PAUSE_S * 1.1, LONGEST_PAUSE_S * 1.1, 1.1])


def test_a_date_is_a_time_to_come_back_too(pauses):
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=5), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=5), usegmt=True)
    connection([busy(after=soon), busy(after=past), DONE]).send("GET", "/x")
    # The date has whole seconds.
    assert 3 < pauses[0] <= 5
    assert pauses[1] == 0


@pytest.mark.parametrize("status", [503, 429])
def test_after_the_retries_it_is_overloaded(pauses, status):
    with pytest.raises(OverloadedError, match=r"All places are taken. \(status \d+, request r1\)") as caught:
        connection([busy(status)] * 3, retries=2).send("GET", "/x")
    assert (caught.value.status, caught.value.detail, caught.value.request_id) == (
        status,
        "All places are taken.",
        "r1",
    )
    assert pauses == [2.0, 2.0]


def test_a_lasting_conflict_is_refused(pauses):
    with pytest.raises(RefusedError):
        connection([busy(409)] * 2, retries=1).send("PUT", "/x")
    assert pauses == [2.0]


def test_no_retries_are_none(pauses):
    with pytest.raises(OverloadedError):
        connection([busy()], retries=0).send("GET", "/x")
    with pytest.raises(OverloadedError):
        connection([busy()]).send("GET", "/x", retries=0)
    assert pauses == []


def test_what_may_be_done_once_is_repeated_where_nothing_was_done(pauses):
    assert connection([busy(503), busy(429), DONE]).send("POST", "/x", once=True).text == "done"
    # Nobody heard it.
    assert connection([httpx.ConnectError("refused"), DONE]).send("POST", "/x", once=True).text == "done"
    assert pauses == [2.0, 2.0, 0.2]


@pytest.mark.parametrize("answer", [busy(409), httpx.ReadError("reset"), httpx.RemoteProtocolError("closed")])
def test_what_may_be_done_once_is_not_repeated_where_it_may_have_been(pauses, answer):
    with pytest.raises(ServiceError):
        connection([answer]).send("POST", "/x", once=True)
    assert pauses == []


LOST = [
    httpx.ConnectError("refused"),
    httpx.ReadError("reset"),
    httpx.WriteError("pipe"),
    httpx.RemoteProtocolError(""),
]


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
def test_a_lost_connection_is_taken_up_again_later_and_later(pauses, error):
    assert connection([error, error, error, DONE]).send("PUT", "/x").text == "done"
    assert pauses == [0.2, 0.4, 0.8]


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
def test_after_the_retries_it_is_unreachable(error):
    with pytest.raises(UnreachableError, match=r"http://shop:1 cannot be reached: .+; is it running") as caught:
        connection([error] * 4).send("GET", "/x")
    assert (caught.value.status, caught.value.request_id) == (None, None)


@pytest.mark.parametrize("error", [httpx.ReadTimeout("slow"), httpx.ConnectTimeout("slow"), httpx.PoolTimeout("full")])
def test_what_took_too_long_is_not_asked_again(pauses, error):
    with pytest.raises(UnreachableError, match="did not answer within 5 s"):
        connection([error]).send("GET", "/x")
    assert pauses == []


def test_an_item_that_went_at_the_request_whose_answer_was_lost_is_gone():
    assert connection([httpx.ReadError("reset"), busy(404)]).send("DELETE", "/x").status_code == 404
    # It was not there, as far as anyone knows.
    with pytest.raises(NotFoundError):
        connection([busy(404)]).send("DELETE", "/x")
    with pytest.raises(NotFoundError):
        connection([busy(503), busy(404)]).send("DELETE", "/x")
    with pytest.raises(NotFoundError):
        connection([httpx.ReadError("reset"), busy(404)]).send("PATCH", "/x")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RefusedError),
        (401, RefusedError),
        (403, RefusedError),
        (404, NotFoundError),
        (409, RefusedError),
        (413, RefusedError),
        (422, RefusedError),
        (429, OverloadedError),
        (500, ServiceError),
        (502, ServiceError),
        (503, OverloadedError),
        # Nobody follows a redirection with a key in hand.
        (302, ServiceError),
    ],
)
def test_each_status_has_its_exception(status, kind):
    with pytest.raises(ServiceError) as caught:
        connection([busy(status, None)]).send("GET", "/x")
    assert type(caught.value) is kind
    assert caught.value.status == status


@pytest.mark.parametrize(
    "text", ["<html>Bad Gateway</html>", "", "[]", "null", '"x"', "[1]", '{"detail": ""}', '{"error": "x"}']
)
def test_a_proxy_says_less(text):
    with pytest.raises(ServiceError, match=r"^http://shop:1/x answered 502 Bad Gateway\. \(status 502\)$"):
        connection([httpx.Response(502, text=text)]).send("GET", "/x")


def test_the_request_id_is_in_the_header_or_in_the_problem():
    both = {"detail": "No.", "request_id": "body"}
    for headers, expected in (({"X-Request-ID": "header"}, "header"), ({}, "body")):
        with pytest.raises(RefusedError) as caught:
            connection([httpx.Response(400, json=both, headers=headers)]).send("GET", "/x")
        assert caught.value.request_id == expected


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "", "ftp://shop", "/v1"])
def test_an_address_is_http(address):
    with pytest.raises(ValueError, match="begins with http"):
        Connection(address, None, timeout=1.0, retries=0, transport=None)


def test_retries_are_not_fewer_than_none():
    with pytest.raises(ValueError, match="retries is 0 or more; got -1"):
        connection([], retries=-1)


@pytest.mark.parametrize("key", ["", " ", "ké", "secret\r\nX-Evil: 1"])
def test_a_key_that_no_header_holds_is_refused_without_being_shown(key):
    with pytest.raises(ValueError, match="A key is printable ASCII") as caught:
        Connection("http://shop", key, timeout=1.0, retries=0, transport=None)
    assert "secret" not in str(caught.value)


def cut(text: bytes, size: int) -> list[bytes]:
    return [text[start : start + size] for start in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_events_are_whole_however_they_are_cut(size, ending):
    lines = [
        b": hello",
        b"event: progress",
        b"id: 1",
        # A separator of lines to Unicode, and none to an event stream.
        'data: {"message": "a\u2028b"}'.encode(),
        b"",
        b": still here",
        b"",
        b"event: end",
        b"data:{",
        b"data:  } ",
        b"",
        b"data: cut off",
    ]
    assert list(event_data(cut(ending.join(lines), size))) == ['{"message": "a\u2028b"}'.encode(), b"{\n } "]
