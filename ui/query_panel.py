"""The query panel: the photo or item that is asked about, with a box on it, and examples to click."""

from __future__ import annotations

from typing import Any

import gradio as gr

from service.client import Client
from ui.context import Context
from ui.held_files import HeldFiles
from ui.markup import fill, script
from ui.settings import Settings


def build(settings: Settings, client: Client, files: HeldFiles, status: Any) -> Context:
    """The panel, and with it what the tabs share."""
    query = gr.HTML(
        {"token": None, "item_id": None, "box": None, "name": ""},
        html_template=fill("query_panel.html"),
        apply_default_css=False,
        js_on_load=script("query_panel.js"),
        elem_id="query",
    )
    return Context(settings, client, files, status, query)
