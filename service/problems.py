"""Problems: which status and which sentence an error becomes, so that no answer shows a stack, a path or SQL."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data.catalog import CatalogError
from data.images import ImageError
from heads.checks import HeadError
from heads.storage import StoredHeadError
from indexer.edits import EditError
from indexer.filters import FilterError
from indexer.searcher import QueryError
from indexer.snapshot import GalleryLockedError
from service.answers import Problem
from service.head_store import HeadNotFoundError
from service.lanes import AbandonedError, DeadlineError, OverloadedError
from service.redaction import redacted

# What nginx calls it; nobody sees the answer, and the log should not count it as anybody's failure.
CLIENT_GONE = 499
# The nearest class of an error counts; what is not here is a 500, and its sentence is for the log alone.
STATUSES: Mapping[type[BaseException], int] = {
    CatalogError: 422,
    EditError: 422,
    FilterError: 422,
    HeadError: 422,
    ImageError: 422,
    QueryError: 422,
    HeadNotFoundError: 404,
    StoredHeadError: 409,
    GalleryLockedError: 409,
    OverloadedError: 503,
    DeadlineError: 503,
    AbandonedError: CLIENT_GONE,
    ClientDisconnect: CLIENT_GONE,
}
# Seconds after which another writer may be done.
_LOCKED_RETRY_S = 5
# Why a request was refused, as modiste_rejections_total counts it.
_REASONS: Mapping[type[BaseException], str] = {OverloadedError: "overloaded", DeadlineError: "deadline"}
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content", CLIENT_GONE: "Client Closed Request"}
T = TypeVar("T")

_MOST_ECHOED = 100
_LONGEST = 1000
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_PLACES = {"query": "query parameter", "path": "path parameter", "header": "header", "cookie": "cookie"}

log = logging.getLogger(__name__)


class RefusedError(HTTPException):
    """A request that is refused before anything is done for it.

    Args:
        status: HTTP status.
        detail: One sentence.
        reason: What `modiste_rejections_total` counts it as.
        retry_after_s: Seconds after which it is worth asking again.
        headers: More headers of the answer.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        reason: str,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.reason = reason
        self.retry_after_s = retry_after_s


class Problems:
    """ASGI middleware that answers every error that comes out of the app as `application/problem+json`.

    Args:
        app: What it is around.
        statuses: HTTP status by class of error, as STATUSES.
    """

    def __init__(self, app: ASGIApp, statuses: Mapping[type[BaseException], int] = STATUSES) -> None:
        self._app = app
        self._statuses = statuses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def note(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, note)
        except BaseException as error:  # Lance's panics are no Exceptions.
            if _is_end(error):
                raise
            response = respond(scope, error, self._statuses)
            if has_started:
                # There is no way back: the client must see that the answer is not whole.
                raise RuntimeError("The request failed while its answer was being sent.") from error
            await response(scope, receive, send)


def handle_errors(app: FastAPI) -> None:
    """Has the errors that FastAPI answers itself answered as problems."""

    async def handle(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            # Of several routes with one address, Starlette tells of the first alone.
            error.headers = {"Allow": ", ".join(_allowed(app, request.scope))}
        return respond(request.scope, error, STATUSES)

    app.add_exception_handler(HTTPException, handle)
    app.add_exception_handler(RequestValidationError, handle)


def respond(scope: Scope, error: BaseException, statuses: Mapping[type[BaseException], int]) -> Response:
    """The answer to a request that failed; what is not the client's to know is logged.

    Args:
        scope: Of the request; its state has a request_id, and gets `problem` and maybe `rejection` for log and metrics.
        error: What went wrong.
        statuses: HTTP status by class of error.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    state = scope.setdefault("state", {})
    request_id = str(state.get("request_id", ""))
    status = _status(error, statuses)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if (retry_after_s := _retry_after_s(error)) is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    if status >= 500 and status != HTTPStatus.SERVICE_UNAVAILABLE:
        log.error("A request failed.", exc_info=error)
        detail = f"The request failed; the log knows it as {request_id}."
    else:
        names = getattr(scope["app"].state, "names", {}) if "app" in scope else {}
        detail = redacted(_sentence(error, status, scope), names)
        detail = detail if len(detail) <= _LONGEST else detail[:_LONGEST] + "..."
    state["problem"] = detail
    if reason := _nearest(error, _REASONS) or getattr(error, "reason", None):
        state["rejection"] = reason
    problem = Problem(_title(status), status, detail, request_id)
    return Response(json.dumps(asdict(problem)), status, headers, media_type="application/problem+json")


def _allowed(app: FastAPI, scope: Scope) -> list[str]:
    """The methods that an address has."""
    return [
        method
        for method in _METHODS
        if any(route.matches({**scope, "method": method})[0] == Match.FULL for route in app.router.routes)
    ]


def _is_end(error: BaseException) -> bool:
    """Whether it is the task or the process that ends, and not only the request that fails."""
    if isinstance(error, asyncio.CancelledError):
        # A cancelled piece of work that was waited for raises it too, in a task that nobody cancelled.
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)


def _nearest(error: BaseException, table: Mapping[type[BaseException], T]) -> T | None:
    """What the table says of the error's class, or of the nearest class above it."""
    return next((table[kind] for kind in type(error).__mro__ if kind in table), None)


def _status(error: BaseException, statuses: Mapping[type[BaseException], int]) -> int:
    if isinstance(error, HTTPException):
        return error.status_code
    if isinstance(error, RequestValidationError):
        return 422
    return _nearest(error, statuses) or 500


def _retry_after_s(error: BaseException) -> float | None:
    if isinstance(error, GalleryLockedError):
        return _LOCKED_RETRY_S
    return getattr(error, "retry_after_s", None)


def _title(status: int) -> str:
    return _TITLES.get(status) or HTTPStatus(status).phrase


def _sentence(error: BaseException, status: int, scope: Scope) -> str:
    if isinstance(error, RequestValidationError):
        return _complaint(error.errors()[0])
    if not isinstance(error, HTTPException):
        return str(error)
    # What the framework itself says is a status in words.
    is_bare = error.detail in (_title(status), HTTPStatus(status).phrase)
    if is_bare and status == HTTPStatus.NOT_FOUND:
        return "There is nothing at this address; openapi.json lists what there is."
    if is_bare and status == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow") or "another method"
        return f"{str(scope['method'])[:20]} is not possible at this address; {allowed} is."
    if is_bare and status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return "The body is larger than what may come to this address."
    return str(error.detail)


def _complaint(error: Mapping[str, Any]) -> str:
    """What is wrong with a parameter, in a sentence that names it."""
    place, *names = map(str, error["loc"])
    if error["type"] == "json_invalid":
        return f"The body is no JSON: {error['ctx']['error']} at character {names[0]}."
    name = ".".join(names)[:_MOST_ECHOED]
    what = f"The {_PLACES.get(place, 'field')} '{name}'" if name else f"The {place}"
    if error["type"] == "missing":
        return f"{what} is required."
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{what} is not known."
    came = error["input"]
    wanted = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    if not wanted.startswith("should"):
        # Sentences of our own may hold what came.
        return f"{what} was refused: {wanted.replace(came, _cut(came)) if isinstance(came, str) and came else wanted}."
    if isinstance(came, list | dict):
        return f"{what} {wanted}; a list or an object came."
    # Never the bytes of a photo.
    return (
        f"{what} {wanted}; {_cut(repr(came)) if isinstance(came, str | int | float | None) else 'something else'} came."
    )


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_ECHOED else text[:_MOST_ECHOED] + "..."
