"""What is it: the labels of a photo or an item, and why."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from ui.context import Context


@dataclass(frozen=True, slots=True)
class LabelTab:
    """What other tabs need of this one."""


def build(context: Context) -> LabelTab:
    """The tab."""
    gr.HTML("<p class='m-lead'>label</p>")
    del context
    return LabelTab()
