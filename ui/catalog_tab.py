"""Catalog: what is in the gallery, a map of it, labels and copies to look into, and its upkeep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from service.client import ServiceError
from ui import catalog_map, catalog_overview, duplicates, suspects, upkeep
from ui.asking import sentence_of
from ui.context import Context
from ui.markup import fill, script

_PARTS: dict[str, tuple[str, Callable[[Context], None]]] = {
    "overview": ("Overview", catalog_overview.build),
    "map": ("Map", catalog_map.build),
    "relabel": ("Relabel", suspects.build),
    "duplicates": ("Duplicates", duplicates.build),
    "upkeep": ("Upkeep", upkeep.build),
}


def build(context: Context) -> None:
    """The tab: parts of which one is shown, each filled when somebody looks at it."""

    def cancel(job_id: Any) -> str:
        """Asks a job to stop; what kept the service from it, or nothing."""
        try:
            context.client.cancel(str(job_id))
        except ServiceError as error:
            return sentence_of(error)
        return ""

    gr.HTML(
        html_template=fill("catalog_parts.html", parts={name: title for name, (title, _) in _PARTS.items()}),
        apply_default_css=False,
        js_on_load=script("catalog_parts.js"),
        server_functions=[] if context.settings.read_only else [cancel],
        elem_id="catalog-parts",
    )
    for name, (_, build_part) in _PARTS.items():
        with gr.Column(elem_id=f"part-{name}", elem_classes="m-part"):
            build_part(context)
    context.status.opened(None, js="() => modiste.catalog?.changed()")
