"""Report: what the service says of a photo or an item, as one file to keep or to send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from service.client import ServiceError
from ui.asking import sentence_of
from ui.context import Context
from ui.find_answer import Search
from ui.find_tab import FindTab
from ui.head_answers import LabelOptions
from ui.label_tab import LabelTab
from ui.markup import fill, notice, script
from ui.report import MAPS, PARTS, Plan, gather, keep_report

_LEAD = (
    "<p class='m-lead'>One file to keep or to send: photo, labels, maps, neighbours and receipts, as the tabs Find "
    "similar and What is it are set.</p>"
)
_HINT = "Choose a photo or an item, then make its report. It is one HTML file that opens anywhere and prints well."
_PRIVATE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def build(context: Context, find: FindTab, label: LabelTab) -> None:
    """The tab."""
    gr.HTML(_LEAD, apply_default_css=False)
    with gr.Row(elem_id="report-controls"):
        parts = gr.CheckboxGroup(list(PARTS), value=list(PARTS), label="Parts", scale=3, min_width=280)
        targets = gr.Dropdown([], multiselect=True, label="Heat maps of", elem_id="report-targets", scale=2)
        make = gr.Button("Make report", variant="primary", elem_id="make-report", min_width=140)
    result = gr.HTML(
        notice(_HINT, "hint"), apply_default_css=False, js_on_load=script("report.js"), elem_id="report-result"
    )
    is_filled = gr.State(value=False)
    make.click(
        _maker(context, len(find.controls)),
        [context.query, parts, targets, *find.controls, *label.controls],
        result,
        trigger_mode="once",
        **_PRIVATE,
    )
    context.status.opened(_filler(context), [is_filled, targets], [is_filled, targets], queue=False, **_PRIVATE)


def _maker(context: Context, searched: int) -> Callable[..., Iterator[str]]:
    """Makes the report; the first `searched` settings are the Find tab's."""

    def make(value: Any, parts: list[str], targets: list[str], *settings: Any) -> Iterator[str]:
        k, filters, limit, group = settings[:searched]
        search = Search(int(k), tuple(filters or ()), limit, group)
        plan = Plan(tuple(parts or ()), tuple(targets or ()), search, LabelOptions.read(*settings[searched:]))
        if not plan.parts:
            yield notice("Choose a part at least.", "hint")
            return
        steps = gather(context, value, plan)
        try:
            while True:
                yield notice(next(steps))
        except StopIteration as end:
            report = end.value
        except (ServiceError, ValueError) as error:
            yield notice(sentence_of(error), "error")
            return
        try:
            file = keep_report(context, report)
        except OSError as error:
            yield notice(f"There is no room for the report on the page's machine: {error.strerror}.", "error")
            return
        wants_maps = MAPS in plan.parts and not plan.targets
        yield fill("report_made.html", file=file, problems=report.problems, wants_maps=wants_maps)

    return make


def _filler(context: Context) -> Callable[..., list[Any]]:
    """Fills the targets that have heads; the first is chosen at first, then what people have chosen."""

    def fill_targets(is_filled: bool, chosen: list[str]) -> list[Any]:
        try:
            targets = sorted({head.target for head in context.client.catalog().heads})
        except ServiceError:
            # The banner says that the service is away; this is called again when it is back.
            return [gr.skip(), gr.skip()]
        value = [target for target in chosen or () if target in targets] if is_filled else targets[:1]
        return [True, gr.Dropdown(choices=targets, value=value)]

    return fill_targets
