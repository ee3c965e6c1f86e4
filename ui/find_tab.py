"""Find similar: the neighbours of a photo or an item."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from service.client import ServiceError
from ui.context import Context
from ui.find_answer import FAR, MOST, USUAL_K, Search, find, why
from ui.label_filter import filter_choices
from ui.markup import notice, script

_LEAD = "<p class='m-lead'>What in the catalog looks like this photo? Click a result to go on from it.</p>"
_START = "Drop a photo, paste one, or click an example: what looks like it appears here."
_PRIVATE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True, slots=True)
class FindTab:
    """What other tabs need of this one: its controls, whose values `ui.find_answer.Search` takes in this order.

    Args:
        k: How many neighbours.
        filters: Values of `ui.label_filter`.
        limit: Greatest distance.
        group: Whether a product counts once.
    """

    k: gr.Slider
    filters: gr.Dropdown
    limit: gr.Slider
    group: gr.Checkbox

    @property
    def controls(self) -> list[Any]:
        """All of them."""
        return [self.k, self.filters, self.limit, self.group]


def build(context: Context) -> FindTab:
    """The tab."""
    gr.HTML(_LEAD, apply_default_css=False, js_on_load=None)
    tab, clear = _controls()
    match = gr.HTML("", apply_default_css=False, js_on_load=script("match.js"), elem_id="match")
    results = gr.HTML(
        notice(_START, "hint"), apply_default_css=False, js_on_load=script("find.js"), elem_id="neighbours"
    )
    is_open = gr.State(False)

    def show(query: Any, k: float, filters: list[str], limit: float, group: bool) -> Iterator[Any]:
        yield from find(context, query, Search(int(k), tuple(filters or ()), limit, group))

    def show_why(query: Any, event: gr.EventData) -> Iterator[str]:
        yield from why(context, query, str(event._data["item_id"]))

    def set_controls(was_open: bool, filters: list[str], request: gr.Request) -> list[Any]:
        return _set_controls(context, was_open, filters, dict(request.query_params))

    # The newest question is asked once the one before it is answered, and none in between.
    explaining = results.why(show_why, context.query, match, trigger_mode="always_last", **_PRIVATE)
    context.query.find(
        show,
        [context.query, *tab.controls],
        results,
        trigger_mode="always_last",
        # A map of the question before would come beside the answer to this one.
        cancels=[explaining],
        **_PRIVATE,
    )
    clear.click(None, None, tab.controls[1:], js=f"() => {{ modiste.findAgain(); return [[], {FAR}, false]; }}")
    gr.on([control.input for control in tab.controls], None, js="() => modiste.findAgain()")
    opened = context.status.opened(
        set_controls, [is_open, tab.filters], [is_open, *tab.controls], queue=False, **_PRIVATE
    )
    opened.then(None, js="() => modiste.start('find')")
    return tab


def _controls() -> tuple[FindTab, gr.Button]:
    with gr.Row(elem_id="find-controls"):
        filters = gr.Dropdown([], multiselect=True, label="Only with these labels", elem_id="find-filters", scale=3)
        k = gr.Slider(1, MOST, USUAL_K, step=1, label="Results", elem_id="find-k")
        limit = gr.Slider(0, FAR, FAR, step=0.01, label="Distance at most", elem_id="find-limit")
        with gr.Column(min_width=150, elem_id="find-rest"):
            group = gr.Checkbox(False, label="One photo per product", elem_id="find-group")
            clear = gr.Button("Clear filters", size="sm", elem_id="find-clear")
    return FindTab(k, filters, limit, group), clear


def _set_controls(context: Context, was_open: bool, filters: list[str], asked: dict[str, str]) -> list[Any]:
    """The catalog's labels as choices; what the address asks for when the page opens, and what people chose later."""
    try:
        choices = filter_choices(context.client.catalog().targets)
    except ServiceError:
        return [gr.skip()] * 5
    known = {value for _, value in choices}
    search = None if was_open else Search.read_link(asked)
    chosen = [value for value in (filters if search is None else search.filters) or () if value in known]
    update = gr.Dropdown(choices=choices, value=chosen)
    if search is None:
        return [True, gr.skip(), update, gr.skip(), gr.skip()]
    return [True, search.k, update, search.limit, search.group]
