from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Query, UploadFile
from fastapi.testclient import TestClient
from pydantic import AfterValidator, BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from data.catalog import CatalogError
from data.images import ImageError
from heads.checks import HeadError
from heads.storage import StoredHeadError
from indexer.edits import EditError
from indexer.encoders import EncoderError
from indexer.filters import FilterError
from indexer.searcher import QueryError
from indexer.snapshot import GalleryDamagedError, GalleryLockedError, GalleryNotFoundError, StoreError
from service.head_store import HeadNotFoundError
from service.keys import KeyFileError
from service.lanes import AbandonedError, DeadlineError, OverloadedError
from service.problems import STATUSES, Problems, RefusedError, handle_errors

ID = "0123"


class Panic(BaseException):
    """As pyo3's PanicException: no Exception."""


class StrangerError(LookupError):
    """An error of a module that problems.py does not know."""


class Identified:
    """What gives every request an id; `shields` does that in the service."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.state: dict[str, Any] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["state"] = self.state = {"request_id": ID}
        await self._app(scope, receive, send)


def _odd(value: str) -> str:
    raise ValueError(f"A box is four numbers; got {value}")


def client_that_raises(error: BaseException) -> TestClient:
    app = FastAPI()
    app.state.names = {Path("/srv/shop/gallery"): "GALLERY"}

    @app.post("/")
    async def _raise() -> None:
        raise error

    handle_errors(app)
    app.add_middleware(Problems, statuses={**STATUSES, StrangerError: 404})
    app.add_middleware(Identified)
    return TestClient(app)


def problem_of(error: BaseException) -> dict[str, Any]:
    answer = client_that_raises(error).post("/")
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert (problem["request_id"], problem["type"]) == (ID, "about:blank")
    return problem


@pytest.mark.parametrize(
    ("error", "status", "title"),
    [
        (ImageError("A."), 422, "Unprocessable Content"),
        (CatalogError("A."), 422, "Unprocessable Content"),
        (FilterError("A."), 422, "Unprocessable Content"),
        (QueryError("A."), 422, "Unprocessable Content"),
        (EditError("A."), 422, "Unprocessable Content"),
        (HeadError("A."), 422, "Unprocessable Content"),
        # Both are HeadErrors too; the nearer class counts.
        (HeadNotFoundError("A."), 404, "Not Found"),
        (StoredHeadError("A."), 409, "Conflict"),
        (GalleryLockedError("A."), 409, "Conflict"),
        # One that this service does not know by itself.
        (StrangerError("A."), 404, "Not Found"),
        (HTTPException(415, "A."), 415, "Unsupported Media Type"),
        (HTTPException(503, "A."), 503, "Service Unavailable"),
        (RefusedError(413, "A.", reason="too_large"), 413, "Content Too Large"),
    ],
)
def test_what_the_client_can_mend_is_told(error, status, title):
    problem = problem_of(error)
    assert (problem["status"], problem["title"], problem["detail"]) == (status, title, "A.")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("secret"),
        StoreError("secret"),
        GalleryNotFoundError("secret"),
        GalleryDamagedError("secret"),
        EncoderError("secret"),
        KeyFileError("secret"),
        HTTPException(500, "secret"),
        HTTPException(502, "secret"),
        Panic("secret"),
        ExceptionGroup("secret", [ValueError("secret"), ValueError("secret")]),
        # A cancelled piece of work, in a task that nobody cancelled.
        asyncio.CancelledError("secret"),
    ],
)
def test_what_the_client_cannot_mend_is_logged_and_not_told(error, caplog):
    answer = client_that_raises(error).post("/")
    assert answer.status_code == getattr(error, "status_code", 500)
    assert answer.json()["detail"] == f"The request failed; the log knows it as {ID}."
    assert "secret" not in answer.text
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize(
    "error", [AbandonedError("A."), ClientDisconnect(), OverloadedError("x", 1), FilterError("A.")]
)
def test_what_is_nobodys_failure_is_not_logged_as_one(error, caplog):
    client_that_raises(error).post("/")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_client_that_is_gone_is_no_failure():
    assert problem_of(AbandonedError("A."))["title"] == "Client Closed Request"
    assert problem_of(ClientDisconnect())["status"] == 499


@pytest.mark.parametrize(
    ("error", "status", "seconds"),
    [
        # Whole seconds, never fewer than asked for.
        (OverloadedError("encoding", 2.2), 503, "3"),
        (DeadlineError(10), 503, "1"),
        (GalleryLockedError("Another process writes."), 409, "5"),
        (RefusedError(429, "A.", reason="rate", retry_after_s=0), 429, "1"),
        (FilterError("A."), 422, None),
    ],
)
def test_when_to_ask_again(error, status, seconds):
    answer = client_that_raises(error).post("/")
    assert (answer.status_code, answer.headers.get("Retry-After")) == (status, seconds)


def test_headers_of_the_error_stay():
    answer = client_that_raises(HTTPException(401, "A.", {"WWW-Authenticate": "Bearer"})).post("/")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_an_error_alone_in_a_group_counts_as_itself():
    assert problem_of(ExceptionGroup("of a task group", [FilterError("A.")]))["detail"] == "A."


def test_no_answer_has_a_path():
    detail = problem_of(GalleryLockedError("Gallery /srv/shop/gallery is written by 7; see /var/lib/shop/x.log."))[
        "detail"
    ]
    assert "/srv" not in detail
    assert "/var" not in detail
    assert detail.startswith("Gallery GALLERY is written by 7")
    # A route may pass a sentence on.
    assert "/srv" not in problem_of(HTTPException(400, "In /srv/shop/gallery."))["detail"]


def test_a_sentence_has_an_end():
    detail = problem_of(FilterError("x" * 5000))["detail"]
    assert detail == "x" * 1000 + "..."


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OverloadedError("encoding", 1), "overloaded"),
        (DeadlineError(1), "deadline"),
        (RefusedError(429, "A.", reason="rate"), "rate"),
        (FilterError("A."), None),
    ],
)
def test_log_and_metrics_learn_why(error, reason):
    app = FastAPI()

    @app.get("/")
    async def _raise() -> None:
        raise error

    handle_errors(app)
    app.add_middleware(Problems)
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [],
        "query_string": b"",
        "state": {},
    }

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None: ...

    asyncio.run(app(scope, receive, send))
    assert scope["state"].get("rejection") == reason
    assert scope["state"]["problem"] == (error.detail if isinstance(error, RefusedError) else str(error))


def test_an_answer_that_breaks_off_is_not_taken_for_whole(caplog):
    app = FastAPI()

    async def lines() -> Any:
        yield b"one"
        raise FilterError("two")

    @app.get("/")
    async def _stream() -> StreamingResponse:
        return StreamingResponse(lines())

    app.add_middleware(Problems)
    with pytest.raises(RuntimeError, match="failed while its answer was being sent"):
        TestClient(app).get("/")


def test_a_task_that_is_cancelled_ends():
    async def work(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    async def run() -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        task = asyncio.create_task(Problems(work)({"type": "http"}, None, send))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return sent

    assert asyncio.run(run()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_the_process_can_be_ended(error):
    async def work(scope: Any, receive: Any, send: Any) -> None:
        raise error

    with pytest.raises(type(error)):
        asyncio.run(Problems(work)({"type": "http"}, None, None))  # type: ignore[arg-type]


class Labels(BaseModel, extra="forbid"):
    labels: dict[str, list[str]]
    count: int = 0


@pytest.fixture
def client():
    app = FastAPI()

    @app.get("/items/{number}")
    def _get(
        number: int,
        where: str,
        k: Annotated[int, Query(le=100)] = 1,
        box: Annotated[str | None, AfterValidator(_odd)] = None,
    ) -> int:
        return k

    @app.patch("/items")
    def _patch(labels: Labels) -> int:
        return 1

    @app.put("/items")
    def _put(photo: UploadFile) -> int:
        return 1

    handle_errors(app)
    app.add_middleware(Problems)
    app.add_middleware(Identified)
    return TestClient(app)


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/items/1", "The query parameter 'where' is required."),
        (
            "/items/1?where=a&k=101",
            "The query parameter 'k' should be less than or equal to 100; '101' came.",
        ),
        (
            "/items/x?where=a",
            "The path parameter 'number' should be a valid integer, unable to parse string as an integer; 'x' came.",
        ),
        ("/items/1?where=a&box=b", "The query parameter 'box' was refused: A box is four numbers; got b."),
        # Of what came, 100 characters are shown: a quote and 99, or 100 within a sentence of ours.
        (
            "/items/1?where=a&k=" + "y" * 200,
            "The query parameter 'k' should be a valid integer, unable to parse string as an integer; "
            f"'{'y' * 99}... came.",
        ),
        (
            "/items/1?where=a&box=" + "y" * 200,
            f"The query parameter 'box' was refused: A box is four numbers; got {'y' * 100}....",
        ),
    ],
)
def test_a_parameter_that_cannot_be_is_named(client, path, detail):
    answer = client.get(path)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["detail"]) == (422, detail)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"{", "The body is no JSON: Expecting property name enclosed in double quotes at character 1."),
        (b"", "The body is required."),
        (b"{}", "The field 'labels' is required."),
        (b'{"labels": {}, "label": 1}', "The field 'label' is not known."),
        (b'{"labels": {"colour": "red"}}', "The field 'labels.colour' should be a valid list; 'red' came."),
        (b'{"labels": {}, "count": [1]}', "The field 'count' should be a valid integer; a list or an object came."),
        (b'{"labels": {}, "count": null}', "The field 'count' should be a valid integer; None came."),
        (b'{"labels": {"%s": 1}}' % (b"z" * 500), f"The field 'labels.{'z' * 93}' should be a valid list; 1 came."),
    ],
)
def test_a_body_that_cannot_be_is_explained(client, body, detail):
    answer = client.patch("/items", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["detail"]) == (422, detail)


def test_bytes_of_a_photo_are_not_echoed(client):
    answer = client.put("/items", content=b"\xff\xd8 photo", headers={"Content-Type": "image/jpeg"})
    assert answer.status_code == 422
    assert "xd8" not in answer.text
    answer = client.patch("/items", content=b"\xff\xd8 photo", headers={"Content-Type": "image/jpeg"})
    assert (answer.status_code, answer.json()["detail"].endswith("; something else came.")) == (422, True)
    assert "photo" not in answer.text


def test_an_address_that_is_none_is_a_problem(client):
    answer = client.get("/nothing")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "There is nothing at this address; openapi.json lists what there is."
    answer = client.delete("/items/1")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET")
    assert answer.json()["detail"] == "DELETE is not possible at this address; GET is."


def test_what_is_no_request_passes():
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(Problems(app)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]
