"""The application: Gradio's page, the routes beside it, and the guard before them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr
from fastapi import FastAPI
from starlette.types import ASGIApp

from service.client import Client
from ui.document import Document
from ui.guard import Guard
from ui.held_files import HeldFiles
from ui.page import STYLES, THEME, create_page
from ui.routes import create_routes
from ui.settings import Settings
from ui.streams import Streams
from ui.zips import PhotoZips

# An explanation may take the service a minute; its state and a photo of the catalog take no time.
_TIMEOUT_S, _SHORT_TIMEOUT_S = 65.0, 10.0


class AddressError(ValueError):
    """What the page was told of its service is no address or no key; the message says which."""


@contextmanager
def create_app(settings: Settings) -> Iterator[ASGIApp]:
    """The application, and what it holds while it runs.

    Args:
        settings: Of the page.

    Raises:
        AddressError: The service's address or its key cannot be one.
    """
    with (
        _client(settings, _TIMEOUT_S) as client,
        _client(settings, _SHORT_TIMEOUT_S) as quick,
        HeldFiles(settings.held_mb) as files,
    ):
        zips = PhotoZips(files)
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        app.include_router(create_routes(settings, quick, files, zips))
        gr.mount_gradio_app(
            app,
            create_page(settings, client, files, zips),
            path="",
            allowed_paths=[],
            show_error=False,
            ssr_mode=False,
            mcp_server=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            theme=THEME,
            css_paths=STYLES,
        )
        yield Guard(Document(Streams(app)), settings)


def _client(settings: Settings, timeout_s: float) -> Client:
    try:
        return Client(settings.service, settings.key, timeout=timeout_s, retries=0)
    except ValueError as error:
        raise AddressError(str(error)) from error
