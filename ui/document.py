"""The document: the HTML that Gradio's page is written into, with what has to be there before Gradio's script runs."""

from __future__ import annotations

import re

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.markup import fill, script

# Gradio's own pictures, names and manifest in the head; the pictures are another host's.
_GRADIO_OWN = re.compile(rb"<meta\s+(?:property|name)=\"(?:og|twitter):[^>]*>|<link rel=\"manifest\"[^>]*>")


class Document:
    """Gives the page its title, icon and scripts, and something to see while Gradio's script loads.

    Args:
        app: Gradio's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._head = (fill("document.html") + f"<script>{script('streams.js')}\n{script('page.js')}</script>").encode()
        self._loading = fill("loading.html").encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, with the page's document rewritten."""
        if scope["type"] != "http" or scope["path"] != "/":
            return await self._app(scope, receive, send)
        start: Message = {}
        parts: list[bytes] = []

        async def rewrite(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                content = self._written(b"".join(parts)) if start["status"] == 200 else b"".join(parts)
                headers = MutableHeaders(scope=start)
                headers["content-length"] = str(len(content))
                headers["cache-control"] = "no-store"
                await send(start)
                await send({"type": "http.response.body", "body": content})

        return await self._app(scope, receive, rewrite)

    def _written(self, html: bytes) -> bytes:
        head, rest = _GRADIO_OWN.sub(b"", html).split(b"</head>", 1)
        # The page's own scripts come first, so that they see the body before Gradio does.
        top = head.replace(b'<meta charset="utf-8" />', b'<meta charset="utf-8" />' + self._head, 1)
        return top + b"</head>" + rest.replace(b"<gradio-app", self._loading + b"<gradio-app", 1)
