"""Catalog: what is in the gallery, and its upkeep."""

from __future__ import annotations

import gradio as gr

from ui.context import Context


def build(context: Context) -> None:
    """The tab."""
    gr.HTML("<p class='m-lead'>catalog</p>")
    del context
