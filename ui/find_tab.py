"""Find similar: the neighbours of a photo or an item."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from ui.context import Context


@dataclass(frozen=True, slots=True)
class FindTab:
    """What other tabs need of this one."""


def build(context: Context) -> FindTab:
    """The tab."""
    gr.HTML("<p class='m-lead'>find</p>")
    context.status.opened(None, js="() => modiste.start()")
    return FindTab()
