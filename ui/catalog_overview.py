"""The overview: what is in the gallery, which heads it has, and how often each label occurs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from service.client import Catalog, CatalogHead, ServiceError
from ui.asking import sentence_of
from ui.context import Context
from ui.job_view import figure_of, when
from ui.markup import fill, notice, script

_BARS, _ITEMS = 30, 24
_VARIANTS = {
    "exact": "every item is compared",
    "hnsw": "by a FAISS HNSW index",
    "ivf": "by a FAISS IVF index",
}


def build(context: Context) -> None:
    """The part."""
    facts = gr.HTML(apply_default_css=False, js_on_load=script("catalog_overview.js"), elem_id="catalog-facts")
    with gr.Row(elem_classes="m-controls"):
        target = gr.Dropdown([], label="Labels of", scale=1, min_width=180, elem_id="overview-target")
        sought = gr.Textbox(label="Only labels with", placeholder="a part of the name", scale=1, min_width=180)
    with gr.Row(elem_classes="m-labels-row"):
        with gr.Column(scale=1, min_width=300):
            bars = gr.HTML(apply_default_css=False, js_on_load=script("catalog_labels.js"), elem_id="catalog-bars")
        with gr.Column(scale=1, min_width=300):
            items = gr.HTML(apply_default_css=False, js_on_load=script("catalog_labels.js"), elem_id="catalog-items")

    def look(target: str | None, sought: str) -> tuple[Any, ...]:
        try:
            catalog = context.client.catalog()
        except ServiceError as error:
            return notice(sentence_of(error), "error"), gr.skip(), gr.skip()
        chosen = chosen_target(catalog, target)
        return (
            show_facts(catalog),
            gr.Dropdown(choices=list(catalog.targets), value=chosen),
            show_bars(catalog, chosen, sought),
        )

    def draw(target: str | None, sought: str) -> str:
        try:
            catalog = context.client.catalog()
        except ServiceError as error:
            return notice(sentence_of(error), "error")
        return show_bars(catalog, chosen_target(catalog, target), sought)

    def list_items(event: gr.EventData) -> str:
        asked = event._data
        target, label, after = (str(asked.get(name) or "") for name in ("target", "label", "after"))
        try:
            page = context.client.items(where={target: label}, after=after or None, limit=_ITEMS)
        except ServiceError as error:
            return notice(sentence_of(error), "error")
        return fill("catalog_items.html", page=page, target=target, label=label, is_first=not after)

    plain: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
    facts.look(look, [target, sought], [facts, target, bars], **plain)
    for listen in (target.input, sought.change):
        listen(draw, [target, sought], bars, trigger_mode="always_last", **plain)
    bars.pick(list_items, None, items, **plain)
    items.pick(list_items, None, items, **plain)


def chosen_target(catalog: Catalog, target: str | None) -> str | None:
    """The target that is chosen, or else the first that has a head, or the first; None where there is none."""
    known = [target, *(head.target for head in catalog.heads), *catalog.targets]
    return next((one for one in known if one in catalog.targets), None)


def show_facts(catalog: Catalog) -> str:
    """The gallery in figures."""
    heads = [_head_row(head, catalog) for head in catalog.heads]
    return fill(
        "catalog_overview.html", catalog=catalog, heads=heads, variant=_VARIANTS.get(catalog.variant, catalog.variant)
    )


def _head_row(head: CatalogHead, catalog: Catalog) -> dict[str, Any]:
    measure, value = figure_of(head.validation)
    return {
        "head": head,
        "measure": measure,
        "value": value,
        "photos": head.validation.get("photos"),
        "fitted": when(head.fitted_at),
        "is_fresh": head.kind == "comparator" or head.gallery_version == catalog.gallery_version,
    }


def show_bars(catalog: Catalog, target: str | None, sought: str) -> str:
    """How often the labels of a target occur, the most frequent ones as bars.

    Args:
        catalog: Of the service.
        target: One of its targets, or None where it has none.
        sought: What a label has to contain, whatever the case; empty for all.
    """
    if target is None:
        return notice("No item has a label yet. Refresh from a catalog that has some, or label items by hand.", "hint")
    counts = catalog.targets[target]
    part = sought.strip().casefold()
    found = sorted(
        ((label, count) for label, count in counts.items() if part in label.casefold()),
        key=lambda pair: (-pair[1], pair[0]),
    )
    return fill(
        "catalog_labels.html",
        target=target,
        bars=found[:_BARS],
        found=len(found),
        more=found[_BARS:],
        most=max(counts.values(), default=1),
        all=len(counts),
        items=catalog.items,
        sought=sought.strip(),
    )
