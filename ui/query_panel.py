"""The query panel: the photo or item that is asked about, with a box on it, and examples to click."""

from __future__ import annotations

from typing import Any

import gradio as gr

from service.client import Client, ServiceError
from ui.context import Context
from ui.examples import find_examples
from ui.held_files import HeldFiles
from ui.markup import fill, labels_text, script
from ui.settings import Settings
from ui.zips import PhotoZips

_NOTHING = {"token": None, "item_id": None, "box": None, "name": ""}
_SCRIPTS = ("query_box.js", "camera.js", "query_panel.js")


def build(settings: Settings, client: Client, files: HeldFiles, zips: PhotoZips, status: Any) -> Context:
    """The panel, and with it what the tabs share."""

    def describe(item_id: str) -> str:
        try:
            return labels_text(client.item(item_id).labels)
        except ServiceError:
            # The answer about the item says what is wrong with it.
            return ""

    def show_examples() -> Any:
        try:
            return fill("examples.html", examples=find_examples(client))
        except ServiceError:
            # The banner says that the service is away; it is asked again when it is back.
            return gr.skip()

    query = gr.HTML(
        _NOTHING,
        html_template=fill("query_panel.html", photo_mb=settings.photo_mb),
        apply_default_css=False,
        js_on_load="\n".join(script(name) for name in _SCRIPTS),
        server_functions=[describe],
        elem_id="query",
    )
    examples = gr.HTML("", apply_default_css=False, js_on_load=None, elem_id="examples")
    status.opened(show_examples, None, examples, queue=False, show_progress="hidden", api_visibility="private")
    return Context(settings, client, files, zips, status, query)
