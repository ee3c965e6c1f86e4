"""The client's connection: one request, repeated where that is safe and of use, and errors as exceptions."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

# No service that is well asks for more, and nobody wants to wait longer without knowing.
LONGEST_PAUSE_S = 10.0
# The service closes a connection that was idle for 5 s: what is sent on it at that moment would be lost.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=2.0)
_FIRST_PAUSE_S = 0.2
_BUSY = (409, 429, 503)
_REFUSED_UNDONE = (429, 503)


class ServiceError(RuntimeError):
    """The service gave no answer that is of use.

    Args:
        detail: Why, one sentence.
        status: HTTP status; None where no answer came.
        request_id: By which the service's log knows the request; None where no answer came.
        retry_after: Seconds after which the service wants to be asked again, 0 or more; None where it did not say so.
    """

    def __init__(
        self,
        detail: str,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        known = ", ".join(f"{name} {value}" for name, value in (("status", status), ("request", request_id)) if value)
        super().__init__(f"{detail} ({known})" if known else detail)
        self.detail = detail
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after


class NotFoundError(ServiceError):
    """There is no such item, job or head (404)."""


class RefusedError(ServiceError):
    """The request cannot be answered as it is: another 4xx; `detail` says what to do."""


class OverloadedError(ServiceError):
    """The service has too much to do, or is not ready (429, 503), also after the retries."""


class UnreachableError(ServiceError):
    """No answer came: nothing listens there, the connection broke, or it took too long."""


class Connection:
    """A pool of connections to one service; several threads may use it at a time.

    Args:
        base_url: Where the service is.
        key: Its API key, where it wants one.
        timeout: Seconds to wait for the connection, and for each part of an answer.
        retries: Repetitions at most, 0 or more.
        transport: Instead of sockets, for tests.

    Raises:
        ValueError: An address or a key that is none, or fewer than 0 retries.
    """

    def __init__(
        self, base_url: str, key: str | None, *, timeout: float, retries: int, transport: httpx.BaseTransport | None
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"The address of a service begins with http:// or https://; got {base_url!r}.")
        if retries < 0:
            raise ValueError(f"retries is 0 or more; got {retries}.")
        if key is not None and not (key.isascii() and key.isprintable() and key.strip()):
            raise ValueError("A key is printable ASCII characters, as `modiste key` wrote it; this one is not.")
        headers = {} if key is None else {"Authorization": f"Bearer {key.strip()}"}
        self.base_url = base_url
        self.timeout = timeout
        self.retries = retries
        self._http = httpx.Client(
            base_url=base_url, headers=headers, timeout=timeout, transport=transport, limits=_LIMITS
        )

    def close(self) -> None:
        """Closes the connections that wait for use."""
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        once: bool = False,
        stream: bool = False,
        retries: int | None = None,
        **ask: Any,
    ) -> httpx.Response:
        """The answer to a request, repeated where the service asks for that, or the connection broke.

        Args:
            method: HTTP method.
            path: From the service's address on.
            once: Whether it may be done once only; then it is repeated only where nothing can have been done.
            stream: Whether the caller reads and closes the answer.
            retries: Instead of the connection's own.
            ask: `params`, `content`, `files`, `json`, `headers` and `timeout` of httpx.

        Raises:
            ServiceError: No answer, or an answer that is an error.
        """
        attempts = 1 + (self.retries if retries is None else retries)
        was_lost = False
        for attempt in range(1, attempts + 1):
            try:
                response = self._http.send(self._http.build_request(method, path, **ask), stream=stream)
                if not response.is_success:
                    response.read()
            except httpx.TransportError as error:
                if attempt == attempts or not _may_repeat(error, once):
                    raise UnreachableError(self._why_unreachable(error)) from error
                was_lost, pause = True, _FIRST_PAUSE_S * 2 ** (attempt - 1)
            else:
                # The item went at the first request, whose answer was lost.
                is_gone = was_lost and method == "DELETE" and response.status_code == 404
                if response.is_success or is_gone:
                    return response
                wanted = _pause_asked_for(response)
                may_repeat = response.status_code in (_REFUSED_UNDONE if once else _BUSY)
                if attempt == attempts or not may_repeat or wanted is None:
                    raise error_of(response)
                pause = wanted
            # Clients that were refused together do not come back together.
            time.sleep(min(pause, LONGEST_PAUSE_S) * random.uniform(1.0, 1.1))
        raise AssertionError("The last attempt returns or raises.")

    def _why_unreachable(self, error: httpx.TransportError) -> str:
        if isinstance(error, httpx.TimeoutException):
            return f"The service at {self.base_url} did not answer within {self.timeout:g} s; is it overloaded?"
        return f"The service at {self.base_url} cannot be reached: {str(error) or type(error).__name__}; is it running?"


def error_of(response: httpx.Response) -> ServiceError:
    """The exception for an answer that is an error (RFC 9457 where Modiste wrote it, anything where a proxy did)."""
    status = response.status_code
    try:
        problem = response.json()
    except ValueError:
        problem = None
    problem = problem if isinstance(problem, dict) else {}
    detail = problem.get("detail") or f"{response.request.url} answered {status} {response.reason_phrase}."
    kinds = {404: NotFoundError, 429: OverloadedError, 503: OverloadedError}
    kind = kinds.get(status, RefusedError if 400 <= status < 500 else ServiceError)
    request_id = response.headers.get("X-Request-ID") or problem.get("request_id")
    return kind(str(detail), status, request_id, _pause_asked_for(response))


def event_data(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The data of server-sent events (WHATWG HTML, 9.2), however they are cut into chunks."""
    rest, data = b"", []
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in (each.rstrip(b"\r") for each in lines):
            if line.startswith(b"data:"):
                data.append(line.removeprefix(b"data:").removeprefix(b" "))
            elif not line and data:
                yield b"\n".join(data)
                data = []


def _may_repeat(error: httpx.TransportError, once: bool) -> bool:
    """Whether a request may be sent again; one that timed out would only add to what the service has to do."""
    if isinstance(error, httpx.ConnectError):
        return True
    return not once and isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError)


def _pause_asked_for(response: httpx.Response) -> float | None:
    """Seconds after which the service wants to be asked again, 0 or more; None where it does not say so."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
