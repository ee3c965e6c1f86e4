"""Access: who may ask what, how often, and from which web pages."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as ASGIScope

from service.keys import KeyRing, Scope
from service.problems import RefusedError
from service.settings import Settings, is_loopback

# What a web page of another site can make a browser send without asking first, and what changes nothing here.
_SAFE_METHODS = ("GET", "HEAD")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="modiste"'}
_WANTED = "This needs an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`; `modiste key add` makes one."

_BEARER = HTTPBearer(scheme_name="bearer", auto_error=False, description="A key that `modiste key add` made.")
_HEADER = APIKeyHeader(
    name="X-API-Key", scheme_name="header", auto_error=False, description="A key that `modiste key add` made."
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Args:
        name: Of the key, or `loopback` where there are no keys.
        scope: What it may do.
        limited_as: Whose requests it is counted with.
    """

    name: str
    scope: Scope
    limited_as: str


class Access:
    """Who may ask what.

    Without keys at the start, whoever is on this machine may do everything, until there is a first key. A service that
    was started with keys never opens, even when the last one is removed.

    Args:
        settings: Its keys_file, host, cors_origins and rate_limit.

    Raises:
        KeyFileError: The file of keys cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._ring = KeyRing(settings.keys_file)
        self._may_be_open = settings.is_loopback and self._ring.is_empty
        self._rates = Rates(settings.rate_limit)
        self.origins = frozenset(settings.cors_origins)

    async def admit(self, scope: ASGIScope, wanted: Scope) -> Caller:
        """The caller of a request, if it may do what it asks and has not asked too often.

        Raises:
            RefusedError: 401 without a known key, 403 for a key of another scope, 429 past the rate limit.
            KeyFileError: The file of keys was changed to something that cannot be used.
        """
        caller = self.identify(scope)
        if wanted == "admin" and caller.scope != "admin":
            raise RefusedError(
                403, f"The key '{caller.name}' is of scope read; this needs one of scope admin.", reason="scope"
            )
        # A route may depend on both scopes; it is one request all the same.
        if not scope["state"].get("is_counted"):
            scope["state"]["is_counted"] = True
            await self._rates.check(caller)
        return caller

    def identify(self, scope: ASGIScope) -> Caller:
        """The caller of a request; the request's state remembers it.

        Raises:
            RefusedError: 401 without a known key.
            KeyFileError: As `admit`.
        """
        state: dict[str, Any] = scope.setdefault("state", {})
        if "caller" not in state:
            state["caller"] = self._identify(scope)
        caller: Caller = state["caller"]
        return caller

    def _identify(self, scope: ASGIScope) -> Caller:
        if self._may_be_open and self._ring.is_empty:
            # A server without an address is on a Unix socket. A proxy that says whom it asks for is no loopback either.
            address = (scope.get("client") or ("127.0.0.1",))[0]
            if not is_loopback(address):
                raise _unknown("Without API keys only this machine itself is answered. " + _WANTED)
            return Caller("loopback", "admin", address)
        presented = _presented(Headers(scope=scope))
        if presented is None:
            raise _unknown(_WANTED)
        key = self._ring.check(presented)
        if key is None:
            raise _unknown("The API key is not known here, or not any more.")
        return Caller(key.name, key.scope, key.name)


class Rates:
    """How often each caller may ask.

    A sliding window counter: twice a fixed window's limit can come around the turn of one, and a moving window keeps
    the time of every request (and, in `limits`, a thread that forgets them). Counts are of this process alone.

    Args:
        limit: Such as `100/second`; None is no limit.
    """

    def __init__(self, limit: str | None) -> None:
        self._limit: RateLimitItem | None = None if limit is None else parse(limit)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def check(self, caller: Caller) -> None:
        """Counts a request.

        Raises:
            RefusedError: 429, with the seconds after which one more will be answered.
        """
        if self._limit is None or await self._limiter.hit(self._limit, caller.limited_as):
            return
        window = await self._limiter.get_window_stats(self._limit, caller.limited_as)
        raise RefusedError(
            429,
            f"More than {self._limit} came from '{caller.name}'; ask less often.",
            reason="rate",
            retry_after_s=window.reset_time - time.time(),
        )


class Doorkeeper:
    """ASGI middleware that refuses, before a byte of a body is read, what needs no look at it.

    That is whatever could change something or cost much (all but GET and HEAD), where it comes from a web page that is
    not listed, or without a key. Routes do the rest: they know which scope they need.

    Args:
        app: What it is around.
        access: Who may ask what.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] == "http" and scope["method"] not in _SAFE_METHODS:
            _check_page(Headers(scope=scope), self._access.origins)
            self._access.identify(scope)
        await self._app(scope, receive, send)


async def reads(
    request: Request, _bearer: Annotated[Any, Security(_BEARER)], _header: Annotated[Any, Security(_HEADER)]
) -> Caller:
    """Dependency of routes that ask: the caller, who has a key of any scope."""
    access: Access = request.app.state.access
    return await access.admit(request.scope, "read")


async def administers(
    request: Request, _bearer: Annotated[Any, Security(_BEARER)], _header: Annotated[Any, Security(_HEADER)]
) -> Caller:
    """Dependency of routes that change something: the caller, who has a key of scope admin."""
    access: Access = request.app.state.access
    return await access.admit(request.scope, "admin")


def _presented(headers: Headers) -> str | None:
    """The key that a request brings, known or not; the Authorization header counts where it has one."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")


def _unknown(sentence: str) -> RefusedError:
    return RefusedError(401, sentence, reason="key", headers=_CHALLENGE)


def _check_page(headers: Headers, origins: Collection[str]) -> None:
    """Refuses what the page of another site had a browser send: a browser always says so in one of two headers.

    Raises:
        RefusedError: 403.
    """
    origin = headers.get("origin")
    if origin is None:
        is_other = headers.get("sec-fetch-site") == "cross-site"
    else:
        is_other = origin.lower() not in origins and not _is_own(origin.lower(), headers.get("host", "").lower())
    if is_other:
        raise RefusedError(
            403,
            "A web page of another site may not ask this; list its origin in cors_origins if it should.",
            reason="origin",
        )


def _is_own(origin: str, host: str) -> bool:
    """Whether an origin is the service's own; a proxy may speak TLS for it, so the scheme does not count."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    port = _DEFAULT_PORTS.get(parts.scheme, "")
    return bool(parts.netloc) and parts.netloc.removesuffix(port) == host.removesuffix(port)
