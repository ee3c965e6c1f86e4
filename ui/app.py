"""The application: Gradio's page with the routes beside it, and who may ask it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import gradio as gr
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.client import Client
from ui.held_files import HeldFiles
from ui.page import HEAD, STYLES, THEME, create_page
from ui.routes import create_routes
from ui.settings import Settings

# An explanation may take the service a minute.
_TIMEOUT_S = 65.0
_HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "same-origin"}


@contextmanager
def create_app(settings: Settings) -> Iterator[FastAPI]:
    """The application, and what it holds while it runs.

    Args:
        settings: Of the page.
    """
    with (
        Client(settings.service, settings.key, timeout=_TIMEOUT_S, retries=0) as client,
        HeldFiles(settings.held_mb) as files,
    ):
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        app.include_router(create_routes(settings, client, files))
        app.add_middleware(_OwnSite)
        if "*" not in settings.hosts:
            hosts = ["localhost", "127.0.0.1", "[::1]", settings.host, *settings.hosts]
            app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
        yield gr.mount_gradio_app(
            app,
            create_page(settings, client, files),
            path="",
            allowed_paths=[],
            # Uploads have a route of their own; Gradio's is not used.
            max_file_size=1,
            show_error=False,
            ssr_mode=False,
            mcp_server=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            theme=THEME,
            css_paths=STYLES,
            head=HEAD,
        )


class _OwnSite:
    """Refuses what the pages of other sites send, and says in each answer that browsers must not guess its type."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin and scope["method"] not in ("GET", "HEAD") and urlsplit(origin).netloc != headers.get("host"):
            refusal = PlainTextResponse("Only this page's own scripts may send to it.", 403)
            return await refusal(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            await send(message)

        return await self._app(scope, receive, with_headers)
