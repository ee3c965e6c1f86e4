"""Report: an answer as one file."""

from __future__ import annotations

import gradio as gr

from ui.context import Context
from ui.find_tab import FindTab
from ui.label_tab import LabelTab


def build(context: Context, find: FindTab, label: LabelTab) -> None:
    """The tab."""
    gr.HTML("<p class='m-lead'>report</p>")
    del context, find, label
