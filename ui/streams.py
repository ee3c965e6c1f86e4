"""Streams: keeps answers of Gradio's queue from getting lost between two streams."""

from __future__ import annotations

from collections import OrderedDict

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STREAM, _JOIN = "/gradio_api/queue/data", "/gradio_api/queue/join"
_CLOSE = b'data: {"msg":"close_stream"'
_PAGE, _CLOSED = "x-modiste-page", "x-modiste-closed"
# Open pages whose streams are counted.
_MOST_PAGES = 10_000


class Streams:
    """Tells a page with each question that is taken how many of its streams of answers were closed before.

    Gradio's server closes the stream once nothing is asked. A browser that asks at that moment takes the stream for
    open and opens no other: the answer would never come. `streams.js` has it know of the close first.

    Args:
        app: Gradio's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._closed: OrderedDict[str, int] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers."""
        path = scope.get("path", "")
        if not path.endswith((_STREAM, _JOIN)):
            return await self._app(scope, receive, send)
        page = Headers(scope=scope).get(_PAGE, "")

        async def counted(message: Message) -> None:
            # Gradio decides to close, or takes a question, and calls this before anything else runs.
            if path.endswith(_STREAM) and message.get("body", b"").startswith(_CLOSE):
                self._count(page)
            if path.endswith(_JOIN) and message["type"] == "http.response.start":
                MutableHeaders(scope=message)[_CLOSED] = str(self._closed.get(page, 0))
            await send(message)

        return await self._app(scope, receive, counted)

    def _count(self, page: str) -> None:
        self._closed[page] = self._closed.pop(page, 0) + 1
        if len(self._closed) > _MOST_PAGES:
            self._closed.popitem(last=False)
