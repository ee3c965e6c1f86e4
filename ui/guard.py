"""The guard: who may ask the page, for what, and what browsers are told to refuse."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.settings import Settings

# What the page itself asks for. Of Gradio's own routes all others are closed: its uploads, files, proxy, streams,
# recordings, pages of its API and more, which nothing here needs.
_OPEN = re.compile(
    r"/|/config/?|/theme\.css|/(assets|static)/.+|/(photos|uploads|downloads|zips)/.*|/uploads|/status|/scripts/[\w.-]+"
    r"|/gradio_api/(startup-events|app_id/?|theme\.css|heartbeat/\w+|queue/(join|data)|run/\w+/?|component_server/?"
    r"|cancel|reset/?)",
    re.DOTALL,
)
# What a browser's question to a handler may weigh: it names photos, and holds none.
_QUESTION_MIB = 8
_MIB = 2**20
# Names of this machine by which browsers know it.
_HERE = ("localhost", "127.0.0.1", "::1")
# Gradio compiles each component's script in the browser, hence 'unsafe-eval'. Nothing may come from another host.
_CONTENT = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; media-src 'self' blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}
# Gradio's files carry a digest in their names.
_FOR_GOOD = "public, max-age=31536000, immutable"


class Guard:
    """Refuses strange hosts, what the pages of other sites send, and routes of Gradio's that the page does not use.

    Args:
        app: What it stands before.
        settings: Of the page.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._hosts = {name.strip("[]").lower() for name in (*_HERE, settings.host, *settings.hosts)}
        self._content = " ".join((_CONTENT, *settings.frames))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or passes on."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            # The page opens no socket.
            return await send({"type": "websocket.close", "code": 1008})
        refusal = _refusal(scope["method"], scope["path"], Headers(scope=scope), self._hosts)
        app: ASGIApp = self._app if refusal is None else JSONResponse({"detail": refusal[1]}, refusal[0])

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update({**_HEADERS, "content-security-policy": self._content})
                if scope["path"].startswith("/assets/") and message["status"] == 200:
                    headers["cache-control"] = _FOR_GOOD
                # Gradio's; no other site is to read anything here.
                for name in ("access-control-allow-origin", "access-control-allow-credentials"):
                    del headers[name]
            await send(message)

        return await app(scope, receive, with_headers)


def _refusal(method: str, path: str, headers: Headers, hosts: set[str]) -> tuple[int, str] | None:
    """Status and sentence where a request is refused."""
    host = _host_of(headers.get("host", ""))
    if "*" not in hosts and host not in hosts:
        return 400, f"This page does not know itself as '{host}'; start it with --allow-host {host}."
    if method not in ("GET", "HEAD"):
        origin = headers.get("origin")
        # A proxy may write another Host; then the origin has a name that the page was told.
        known = hosts.difference(_HERE)
        if origin and urlsplit(origin).netloc != headers.get("host") and _host_of(origin) not in known:
            return 403, "Only this page's own scripts may send to it."
        length = headers.get("content-length", "")
        if path.startswith("/gradio_api/") and not (length.isdecimal() and int(length) <= _QUESTION_MIB * _MIB):
            return 413, f"A question to this page has a length, and {_QUESTION_MIB} MiB at most."
    if not _OPEN.fullmatch(path):
        return 404, "This page has nothing there."
    return None


def _host_of(address: str) -> str:
    """The name in a Host header or an origin, without the port; empty where it is none."""
    try:
        return urlsplit(address if "//" in address else f"//{address}").hostname or ""
    except ValueError:
        return ""
