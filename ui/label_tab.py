"""What is it: the labels of a photo or an item, and why."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import gradio as gr

from service.client import Catalog, ServiceError
from ui.asking import ask, sentence_of
from ui.context import Context
from ui.head_answers import (
    ALL,
    BEST,
    BOTTOMS,
    EVERY,
    HEAD_NAMES,
    HeadAnswers,
    LabelOptions,
    ask_heads,
    options_of,
    times,
)
from ui.heat_map import METHODS, fill_heat_map
from ui.held_files import HeldFileError
from ui.markup import fill, notice, script
from ui.query import Query, QueryError

T = TypeVar("T")

_HINT = "Choose a photo, or click an item: what it is stands here."
_WHY_HINT = "Click a bar, or press H, to see which places of the photo a label hangs on."
_WAIT = "Hiding parts of the photo and asking the head again and again; this takes a moment."
_PLAIN: dict[str, Any] = {"apply_default_css": False}
_HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True, slots=True)
class LabelTab:
    """What other tabs need of this one: the controls, whose values `LabelOptions.read` takes in this order.

    Args:
        head: A kind, `best` or `all`.
        targets: Chosen targets; none for all.
        allowed: Name of a label group, or `All`.
        top: Labels a head.
        bias: How much the group Bottoms counts.
        coverage: Of prediction sets.
    """

    head: gr.Dropdown
    targets: gr.Dropdown
    allowed: gr.Radio
    top: gr.Slider
    bias: gr.Slider
    coverage: gr.Slider

    @property
    def controls(self) -> list[Any]:
        """All of them."""
        return [self.head, self.targets, self.allowed, self.top, self.bias, self.coverage]


def build(context: Context) -> LabelTab:
    """The tab."""
    gr.HTML(
        "<p class='m-lead'>What a photo shows, how sure each head is, and which places of the photo say so.</p>",
        **_PLAIN,
    )
    tab = _controls()
    answer = gr.HTML(notice(_HINT, "hint"), js_on_load=script("label.js"), elem_id="label-answer", **_PLAIN)
    with gr.Column(elem_id="label-why"):
        methods = [(name, method) for method, name in METHODS.items()]
        method = gr.Dropdown(methods, value="occlusion", label="Heat map by", filterable=False, elem_id="label-method")
        why = gr.HTML(notice(_WHY_HINT, "hint"), **_PLAIN)
    evidence = gr.HTML("", **_PLAIN)

    explaining = answer.why(
        _explainer(context),
        [context.query, method, tab.allowed, tab.bias],
        why,
        trigger_mode="always_last",
        **_HIDDEN,
    )
    method.input(None, js="() => modiste.labels.again()")
    for asked in (context.query.tell, *(control.input for control in tab.controls)):
        asked(
            _answerer(context),
            [context.query, *tab.controls],
            [answer, why, evidence],
            js="(query, ...options) => { modiste.labels.asking(...options); return [query, ...options]; }",
            # A slider that is drawn asks for where it stands, not for each place on its way.
            trigger_mode="always_last",
            cancels=[explaining],
            **_HIDDEN,
        ).then(None, js="() => modiste.labels.answered()")

    is_filled = gr.State(value=False)
    context.status.opened(
        _filler(context),
        [context.query, is_filled, *tab.controls],
        [answer, is_filled, *tab.controls],
        queue=False,
        **_HIDDEN,
    ).then(None, js="() => modiste.start('label')")
    return tab


def _controls() -> LabelTab:
    least: dict[str, Any] = {"min_width": 180}
    with gr.Row(elem_id="label-controls"):
        best = [("Best of each target", BEST)]
        head = gr.Dropdown(best, value=BEST, label="Head", filterable=False, elem_id="label-head", **least)
        targets = gr.Dropdown(
            [], multiselect=True, label="Targets (all unless chosen)", visible=False, elem_id="label-targets", **least
        )
        allowed = gr.Radio([ALL], value=ALL, label="Choose from", visible=False, elem_id="label-allowed", **least)
    with gr.Accordion("More settings", open=False, elem_id="label-more"), gr.Row():
        top = gr.Slider(1, 20, value=5, step=1, label="Labels to show", elem_id="label-top")
        bias = gr.Slider(
            0,
            1,
            value=1,
            step=0.05,
            label="How much bottoms count",
            info="Below 1 the head leans to upper-body garments: at 0.6 a skirt's odds count 0.6 times. 1 is off.",
            visible=False,
            elem_id="label-bias",
        )
        often = "How often the set of labels holds the true one."
        coverage = gr.Slider(0.5, 0.99, value=0.9, step=0.01, label="Coverage", info=often, elem_id="label-coverage")
    return LabelTab(head, targets, allowed, top, bias, coverage)


def _answerer(context: Context) -> Callable[..., Generator[tuple[Any, Any, Any], None, None]]:
    """Asks the heads: yields the answer, the heat map's place and the evidence."""

    def answer(value: Any, *settings: Any) -> Generator[tuple[Any, Any, Any], None, None]:
        options = LabelOptions.read(*settings)
        try:
            subject = Query.read(value).subject(context.files)
            catalog = yield from _telling(ask(context.client.catalog))
            if not catalog.heads:
                yield notice(_unfitted(catalog), "hint"), "", ""
                return
            found = yield from _telling(ask_heads(context.client, catalog, subject, options))
        except QueryError as error:
            yield notice(str(error), "hint"), "", ""
        except (ServiceError, HeldFileError) as error:
            yield notice(sentence_of(error), "error"), "", ""
        else:
            bars = fill("bars.html", answers=found, times=times(options.coverage))
            yield bars, notice(_WHY_HINT, "hint"), _evidence(found)

    return answer


def _telling(work: Generator[str, None, T]) -> Generator[tuple[Any, Any, Any], None, T]:
    """Has the answer's place say what `ui.asking.ask` says while it waits."""
    noticed = _noticed(work)
    while True:
        try:
            yield next(noticed), gr.skip(), gr.skip()
        except StopIteration as done:
            found: T = done.value
            return found


def _noticed(work: Generator[str, None, T]) -> Generator[str, None, T]:
    """What `ui.asking.ask` says while it waits, as notices."""
    while True:
        try:
            yield notice(next(work))
        except StopIteration as done:
            found: T = done.value
            return found


def _evidence(found: HeadAnswers) -> str:
    milliseconds = sum(receipt.timings_ms.get("total", 0) for receipt in found.receipts)
    heads = sum(len(receipt.heads) for receipt in found.receipts)
    return fill("evidence.html", answers=found, milliseconds=milliseconds, heads=heads)


def _explainer(context: Context) -> Callable[..., Generator[str, None, None]]:
    """Asks why: yields the heat map."""

    def explain(value: Any, method: str, group: str, bias: float, event: gr.EventData) -> Generator[str, None, None]:
        asked: dict[str, Any] = {name: str(event._data[name]) for name in ("target", "head", "label")}
        yield notice(_WAIT)
        try:
            query = Query.read(value)
            question = partial(context.client.explain, **query.subject(context.files), method=method, **asked)
            why = yield from _noticed(ask(question))
        except (QueryError, ServiceError, HeldFileError) as error:
            yield notice(sentence_of(error), "error")
        else:
            options = LabelOptions(group=group or ALL, bias=bias)
            yield fill_heat_map(why, query.item_id, is_reweighed=options.is_reweighed)

    return explain


def _filler(context: Context) -> Callable[..., Any]:
    """Fills the controls by the catalog: as the address says at first, then as people have set them."""

    def fill_controls(request: gr.Request, value: Any, is_filled: bool, *settings: Any) -> Any:
        try:
            catalog = context.client.catalog()
        except ServiceError:
            # The banner says that the service is away; this is called again when it is back.
            return [gr.skip()] * 8
        options = LabelOptions.read(*settings) if is_filled else options_of(request.query_params)
        is_asked = bool(value and (value.get("token") or value.get("item_id")))
        hint = notice(_HINT if catalog.heads else _unfitted(catalog), "hint")
        return [gr.skip() if is_asked else hint, True, *_controls_of(catalog, options)]

    return fill_controls


def _controls_of(catalog: Catalog, options: LabelOptions) -> list[Any]:
    """The controls for a catalog, set to what of the options it has."""
    kinds = {head.kind for head in catalog.heads}
    heads = [("Best of each target", BEST)]
    heads += [("All, side by side", EVERY)] * (len(kinds) > 1)
    heads += [(name, kind) for kind, name in HEAD_NAMES.items() if kind in kinds]
    targets = sorted({head.target for head in catalog.heads})
    chosen = [target for target in options.targets if target in targets]
    groups = [ALL, *catalog.groups]
    return [
        gr.Dropdown(choices=heads, value=options.head if options.head in dict(heads).values() else BEST),
        gr.Dropdown(choices=targets, value=chosen, visible=len(targets) > 1),
        gr.Radio(choices=groups, value=options.group if options.group in groups else ALL, visible=len(groups) > 1),
        gr.Slider(value=min(max(options.top, 1), 20)),
        gr.Slider(value=min(max(options.bias, 0), 1), visible=BOTTOMS in groups),
        gr.Slider(value=min(max(options.coverage, 0.5), 0.99)),
    ]


def _unfitted(catalog: Catalog) -> str:
    targets = ",".join(list(catalog.targets)[:3]) or "TARGET"
    return (
        "No head is fitted yet. Heads learn labels from the gallery's own: fit some in the Catalog tab, or run "
        f"'modiste fit --gallery GALLERY --targets {targets}'."
    )
