"""Shields: what every request goes through before a route sees it, as plain ASGI middleware."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access import Access, Doorkeeper
from service.bodies import MEGABYTE, Bodies, Held
from service.logs import request_id
from service.problems import CLIENT_GONE, STATUSES, Problems, RefusedError, handle_errors
from service.redaction import names_of_places
from service.settings import Settings
from service.telemetry import UNKNOWN, Telemetry

# An answer is data: nothing in it may run, be framed, be guessed at or be kept, unless its route says so.
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# Bodies of the largest size that may be held at the same time.
BODIES = 8
_PASSED = "modiste.passed"
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Asked every few seconds, by machines: they would drown the rest of the log.
_QUIET = ("/healthz", "/readyz", "/metrics")

log = logging.getLogger(__name__)


def shield(app: FastAPI, settings: Settings, *, statuses: Mapping[type[BaseException], int] | None = None) -> None:
    """Installs everything that stands between the network and the routes; routes depend on `access.reads` and the like.

    Args:
        app: A service that was not started yet. Its state gets `access` and `telemetry`, and has or will have `engine`.
        settings: What it runs with.
        statuses: HTTP status by class of error, besides problems.STATUSES.

    Raises:
        KeyFileError: The file of keys cannot be used.
    """
    app.state.access, app.state.telemetry = Access(settings), Telemetry()
    app.state.names = names_of_places(settings.gallery, settings.catalogs)
    held = Held(settings.max_body_mb * MEGABYTE, BODIES * settings.max_body_mb * MEGABYTE, settings.deadline_s)
    app.state.telemetry.follow("modiste_buffered_bytes", lambda: held.bytes)
    app.state.telemetry.follow_engine(lambda: getattr(app.state, "engine", None))
    handle_errors(app)
    # From the innermost to the outermost.
    app.add_middleware(Doorkeeper, access=app.state.access)
    app.add_middleware(TrustedHosts, hosts=settings.trusted_hosts)
    app.add_middleware(Problems, statuses={**STATUSES, **(statuses or {})})
    app.add_middleware(Bodies, held=held)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
            allow_headers=("Authorization", "X-API-Key", "X-Request-ID"),
            expose_headers=("X-Request-ID", "Retry-After", "ETag"),
        )
    app.add_middleware(Requests, telemetry=app.state.telemetry)


class Requests:
    """Gives every request an id and every answer its headers, and tells log and metrics what became of it.

    Args:
        app: What it is around.
        telemetry: Where it is counted.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        named = Headers(scope=scope).get("x-request-id", "")
        name = named if _SAFE_ID.fullmatch(named) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = name
        token = request_id.set(name)
        start, status, sent = time.perf_counter(), CLIENT_GONE, 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", [])
                headers = MutableHeaders(scope=message)
                for header, value in SECURITY_HEADERS.items():
                    headers.setdefault(header, value)
                headers["X-Request-ID"] = name
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            self._note(scope, status, seconds=time.perf_counter() - start, sent=sent)
            request_id.reset(token)

    def _note(self, scope: Scope, status: int, *, seconds: float, sent: int) -> None:
        state: dict[str, Any] = scope["state"]
        route = scope.get("route")
        template = str(getattr(route, "path_format", None) or getattr(route, "path", None) or UNKNOWN)
        method = str(scope["method"])
        timings_ms: Mapping[str, float] = state.get("timings_ms", {})
        self._telemetry.observe_request(template, method, status=status, seconds=seconds)
        self._telemetry.observe_stages(timings_ms)
        if "rejection" in state:
            self._telemetry.reject(state["rejection"])
        caller = state.get("caller")
        # The template and never the path: ids and filters are the shop's own business.
        log.log(
            logging.DEBUG if template in _QUIET else logging.INFO,
            "%s %s %d",
            method[:20],
            template,
            status,
            extra={
                "milliseconds": round(1000 * seconds, 3),
                "received_bytes": state.get("received_bytes", 0),
                "sent_bytes": sent,
                "client": (scope.get("client") or ("",))[0],
                "key": None if caller is None else caller.name,
                "stages": timings_ms or None,
                "problem": state.get("problem"),
            },
        )


class TrustedHosts:
    """ASGI middleware that answers only to the service's own names, so that no other site's name can lead here.

    Args:
        app: What it is around.
        hosts: Names, as Starlette's TrustedHostMiddleware takes them.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        # Starlette's own answer would be plain text: only its judgement is wanted.
        self._judge = TrustedHostMiddleware(_pass, hosts, www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request.

        Raises:
            RefusedError: 400.
        """
        if scope["type"] == "http":
            judged = {**scope, _PASSED: []}
            await self._judge(judged, receive, _drop)
            if not judged[_PASSED]:
                raise RefusedError(
                    400,
                    "The Host header has no name that this service answers to; list it in trusted_hosts if it should.",
                    reason="host",
                )
        await self._app(scope, receive, send)


async def _pass(scope: Scope, _receive: Receive, _send: Send) -> None:
    scope[_PASSED].append(True)


async def _drop(_message: Message) -> None:
    pass
