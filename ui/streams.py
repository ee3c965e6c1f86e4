"""Streams: keeps answers of Gradio's queue from getting lost between two streams."""

from __future__ import annotations

import time

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STREAM, _JOIN = "/gradio_api/queue/data", "/gradio_api/queue/join"
_CLOSE = b'"close_stream"'
# Longer than what lies between the arrivals of two messages that were sent at once.
_APART_S = 0.1


class Streams:
    """Has browsers hear that a stream of answers is closed before they hear that the next question is taken.

    Gradio's server closes the stream once nothing is asked. A browser that asks at that moment takes the stream for
    open, and never opens another one: its answer would wait until something else is asked.

    Args:
        app: Gradio's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._apart_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers."""

        async def watched(message: Message) -> None:
            if _CLOSE in message.get("body", b""):
                self._apart_at = time.monotonic() + _APART_S
            await send(message)

        async def held(message: Message) -> None:
            if message["type"] == "http.response.start" and (left := self._apart_at - time.monotonic()) > 0:
                await anyio.sleep(left)
            await send(message)

        path = scope.get("path")
        return await self._app(scope, receive, watched if path == _STREAM else held if path == _JOIN else send)
