"""Batch: the labels of many photos."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

import gradio as gr

from service.client import Catalog, ServiceError
from ui.asking import ask, sentence_of
from ui.batch import MOST_PHOTOS, Batch, Batches, collect, work
from ui.batch_files import csv_of, json_of
from ui.batch_view import View, labels_of, page_of
from ui.context import Context
from ui.head_answers import BEST, HEAD_NAMES
from ui.markup import fill, notice, script

_HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
_ANY = ""
_HINT = "The labels of your photos appear here, with what could not be read and why, to be sorted, filtered and saved."
_GONE = "This batch is no longer held here; send the photos again."
# The table is drawn anew at most so often while a batch runs: it may be being read.
_REDRAW_S = 2.0
# Outputs of a run: the batch's token, its progress, its table, the filters, and the labels to filter by.
_Shown = tuple[Any, Any, Any, Any, Any]


def build(context: Context) -> None:
    """The tab."""
    batches = Batches()
    gr.HTML(
        "<p class='m-lead'>Label many photos at once, and take the table with you.</p>",
        apply_default_css=False,
    )
    with gr.Row(elem_classes="m-batch-asked"):
        targets = gr.Dropdown([], multiselect=True, label="Targets (all unless chosen)", min_width=200)
        head = gr.Dropdown([("Best of each target", BEST)], value=BEST, label="Head", filterable=False, min_width=200)
    sender = gr.HTML(
        {"files": [], "skipped": []},
        html_template=fill("batch_send.html", most=MOST_PHOTOS),
        apply_default_css=False,
        js_on_load=script("batch_send.js"),
        elem_id="batch-send",
    )
    progress = gr.HTML("", apply_default_css=False, js_on_load=script("batch_progress.js"), elem_id="batch-progress")
    filters = _filters()
    table = gr.HTML(
        notice(_HINT, "hint"), apply_default_css=False, js_on_load=script("batch_table.js"), elem_id="batch-table"
    )
    made = gr.HTML(
        None,
        html_template="<span hidden></span>",
        apply_default_css=False,
        js_on_load="watch('value', () => props.value && modiste.download(props.value));",
    )
    token = gr.State(_ANY)

    shown = [token, progress, table, filters.row, filters.label]
    for begin in (sender.start, progress.again):
        begin(
            _starter(context, batches),
            [sender, targets, head, token, filters.below],
            [*shown, filters.text, filters.only],
            trigger_mode="multiple",
            **_HIDDEN,
        )
    progress.resume(_resumer(context, batches), token, shown, trigger_mode="multiple", **_HIDDEN)
    progress.cancel(_canceller(batches), token, None, queue=False, **_HIDDEN)
    progress.save(_saver(context, batches), token, made, **_HIDDEN)
    table.turn(_turner(batches), token, table, trigger_mode="multiple", **_HIDDEN)
    gr.on(
        [filters.text.change, filters.label.input, filters.only.input, filters.below.change],
        _filterer(batches),
        [token, filters.text, filters.label, filters.only, filters.below],
        table,
        trigger_mode="always_last",
        **_HIDDEN,
    )
    context.status.opened(_filler(context), [targets, head], [targets, head], queue=False, **_HIDDEN)


class _Filters:
    """The controls of the table."""

    def __init__(self) -> None:
        with gr.Row(visible=False, elem_classes="m-batch-filters", elem_id="batch-filters") as self.row:
            self.text = gr.Textbox(label="Find", placeholder="Name, label or reason", max_lines=1, min_width=160)
            self.label = gr.Dropdown([("Any label", _ANY)], value=_ANY, label="Label", min_width=160)
            self.only = gr.Radio(
                [("All", "all"), ("Failures", "failures"), ("Doubtful", "doubtful"), ("None of these", "none")],
                value="all",
                label="Show",
                min_width=260,
                elem_id="batch-only",
            )
            self.below = gr.Slider(0.05, 1, value=0.5, step=0.05, label="Doubtful below", min_width=180, buttons=[])


def _filters() -> _Filters:
    return _Filters()


def _starter(context: Context, batches: Batches) -> Callable[..., Iterator[tuple[Any, ...]]]:
    """Begins a batch of what was sent."""

    def start(
        value: Any, targets: list[str] | None, head: str | None, token: str, below: float
    ) -> Generator[tuple[Any, ...], None, None]:
        value = value if isinstance(value, dict) else {}
        if (before := batches.get(token)) is not None:
            before.is_shown = False
            before.cancelled.set()
        batch = Batch(targets or None, None if head in (None, BEST) else head, view=View(below=below))
        reset = (gr.update(choices=[("Any label", _ANY)], value=_ANY), "", "all")
        yield batch.token, notice("Looking at what came."), "", gr.update(visible=False), *reset
        collect(batch, value.get("files") or [], value.get("skipped") or [], context.zips)
        batches.hold(batch)
        for shown in _follow(batch, context, batches):
            yield *shown, gr.skip(), gr.skip()

    return start


def _resumer(context: Context, batches: Batches) -> Callable[[str], Iterator[_Shown]]:
    """Goes on with a batch that was cancelled, or that had to stop."""

    def resume(token: str) -> Iterator[_Shown]:
        batch = batches.get(token)
        if batch is None:
            yield gr.skip(), notice(_GONE, "error"), gr.skip(), gr.skip(), gr.skip()
        elif batch.state != "running":
            yield from _follow(batch, context, batches)

    return resume


def _follow(batch: Batch, context: Context, batches: Batches) -> Iterator[_Shown]:
    """Does the work, and shows how far it is."""
    drawn, at = "", 0.0
    running = work(batch, context.client, context.files, context.zips)
    try:
        for _ in running:
            batches.get(batch.token)
            if not batch.is_shown:
                return
            table: Any = gr.skip()
            if time.monotonic() - at > _REDRAW_S and (now := _table(batch)) != drawn:
                table, drawn, at = now, now, time.monotonic()
            yield batch.token, _progress(batch), table, gr.update(visible=True), gr.skip()
    finally:
        # Whoever closes the page has no more use for it.
        running.close()
    if batch.is_shown:
        yield batch.token, _progress(batch), _table(batch), gr.update(visible=bool(batch.rows)), _choices(batch)


def _canceller(batches: Batches) -> Callable[[str], None]:
    def cancel(token: str) -> None:
        if (batch := batches.get(token)) is not None:
            batch.cancelled.set()

    return cancel


def _saver(context: Context, batches: Batches) -> Callable[[str, gr.EventData], str | None]:
    """Makes a file of a batch; its token."""

    def save(token: str, event: gr.EventData) -> str | None:
        batch = batches.get(token)
        if batch is None:
            gr.Warning(_GONE)
            return None
        is_csv = event.kind == "csv"
        name, content = ("labels.csv", csv_of(batch)) if is_csv else ("labels.json", json_of(batch))
        return context.files.keep(name, content).token

    return save


def _turner(batches: Batches) -> Callable[[str, gr.EventData], str]:
    """Another page, or another order."""

    def turn(token: str, event: gr.EventData) -> str:
        batch = batches.get(token)
        if batch is None:
            return notice(_GONE, "error")
        view, sort = batch.view, event._data.get("sort")
        if sort:
            # Again: the other way round. What one wants to see of confidences are the low ones.
            batch.view = replace(view, sort=str(sort), falling=sort == view.sort and not view.falling, page=0)
        else:
            batch.view = replace(view, page=int(event._data.get("page", 0)))
        return _table(batch)

    return turn


def _filterer(batches: Batches) -> Callable[..., Any]:
    def narrow(token: str, text: str | None, label: str | None, only: Any, below: float) -> Any:
        batch = batches.get(token)
        if batch is None:
            return notice(_GONE, "error") if token else gr.skip()
        target, _, name = (label or "").partition("\t")
        batch.view = View(
            sort=batch.view.sort,
            falling=batch.view.falling,
            text=text or "",
            label=(target, name) if target else None,
            only=only or "all",
            below=below,
        )
        return _table(batch)

    return narrow


def _filler(context: Context) -> Callable[..., Iterator[tuple[Any, Any]]]:
    """What can be asked; what was set stays, where it is still there."""

    def fill_in(targets: list[str] | None, head: str | None) -> Iterator[tuple[Any, Any]]:
        asking = ask(context.client.catalog)
        try:
            while True:
                next(asking)
        except StopIteration as stop:
            catalog: Catalog = stop.value
        except ServiceError as error:
            gr.Warning(sentence_of(error))
            return
        known = sorted({one.target for one in catalog.heads})
        there = {one.kind for one in catalog.heads}
        kinds = [("Best of each target", BEST), *((name, kind) for kind, name in HEAD_NAMES.items() if kind in there)]
        yield (
            gr.update(choices=known, value=[target for target in targets or [] if target in known]),
            gr.update(choices=kinds, value=head if head in there else BEST),
        )

    return fill_in


def _choices(batch: Batch) -> Any:
    several = len(batch.target_names) > 1
    labels = [
        (f"{target}: {label} ({count:,})" if several else f"{label} ({count:,})", f"{target}\t{label}")
        for target, label, count in labels_of(batch)
    ]
    return gr.update(choices=[("Any label", _ANY), *labels])


def _progress(batch: Batch) -> str:
    return fill("batch_progress.html", batch=batch, total=len(batch.rows))


def _table(batch: Batch) -> str:
    if not batch.rows:
        return ""
    return fill("batch_table.html", page=page_of(batch, batch.view), view=batch.view, targets=batch.target_names)
