"""Bodies of requests: how large one may be, how much all may hold at once, and how slowly one may come."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import RefusedError

MEGABYTE = 1_000_000
# What is no photo is parsed in the loop that all requests share, which 24 MB of JSON held for 6 s.
_MOST_TEXT = MEGABYTE
_PHOTOS = ("image/", "multipart/")
# Times the largest body: a client that sends somewhat too much shall finish, or it may see a broken connection and no
# answer.
_DRAINED = 4


@dataclass(slots=True)
class Held:
    """What the bodies of all requests under way hold, and may hold.

    Args:
        most: Bytes of one body.
        most_together: Bytes of all.
        seconds: In which a body must have come.
        bytes: Held now.
    """

    most: int
    most_together: int
    seconds: float
    bytes: int = 0


class Bodies:
    """ASGI middleware that limits what bodies cost: the bytes of one, the bytes of all at once, and the time.

    Bytes are counted as they come, declared or chunked, before a parser or a route sees them.

    Args:
        app: What it is around.
        held: The limits, and what counts towards them.
    """

    def __init__(self, app: ASGIApp, held: Held) -> None:
        self._app = app
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = Body(Headers(scope=scope), receive, self._held)

        async def send_and_close(message: Message) -> None:
            # Nothing reads what still comes; where that may be much, the connection ends with the answer.
            if message["type"] == "http.response.start" and body.has_much_to_come:
                message.setdefault("headers", [])
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        try:
            await self._app(scope, body.receive, send_and_close)
        finally:
            self._held.bytes -= body.received
            scope.setdefault("state", {})["received_bytes"] = body.received


class Body:
    """The body of one request, as it comes.

    Args:
        headers: Of the request.
        receive: Where it comes from.
        held: The limits, and what counts towards them.
    """

    def __init__(self, headers: Headers, receive: Receive, held: Held) -> None:
        declared = headers.get("content-length", "")
        # The server has checked that it is a number, where it is there; none is declared of what comes in chunks.
        self._declared = int(declared) if declared.isdecimal() else None
        self._is_whole = self._declared is None and "transfer-encoding" not in headers
        is_photo = headers.get("content-type", "").lower().startswith(_PHOTOS)
        self._most = held.most if is_photo else min(held.most, _MOST_TEXT)
        self._ends_at = asyncio.get_running_loop().time() + held.seconds
        self._receive = receive
        self._held = held
        self._is_late = False
        self.received = 0

    @property
    def has_much_to_come(self) -> bool:
        """Whether too much may still come to be taken and thrown away, or it comes too slowly."""
        if self._is_whole:
            return False
        return self._is_late or self._declared is None or self._declared - self.received > _DRAINED * self._held.most

    async def receive(self) -> Message:
        """The next message.

        Raises:
            RefusedError: 413 past the limit of one body, 503 past that of all, 408 where it did not come in time.
        """
        if self._declared is not None and self._declared > self._most:
            raise self._too_large()
        try:
            async with asyncio.timeout_at(None if self._is_whole else self._ends_at):
                message = await self._receive()
        except TimeoutError as error:
            self._is_late = True
            raise RefusedError(
                408, f"The body did not come within {self._held.seconds:g} s; send a smaller photo.", reason="slow"
            ) from error
        if message["type"] == "http.request":
            self._count(len(message.get("body", b"")))
            self._is_whole = not message.get("more_body", False)
        return message

    def _count(self, size: int) -> None:
        self.received += size
        self._held.bytes += size
        if self.received > self._most:
            raise self._too_large()
        if self._held.bytes > self._held.most_together:
            raise RefusedError(
                503, "Other photos are being taken in; ask again in 1 s.", reason="buffers", retry_after_s=1
            )

    def _too_large(self) -> RefusedError:
        most = self._most / MEGABYTE
        return RefusedError(413, f"The body of a request may have {most:g} MB; this one has more.", reason="too_large")
