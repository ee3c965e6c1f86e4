"""Suspects: items whose label is disputed, to be relabelled by a click, and what that does to the heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from service.client import Catalog, Client, Job, NotFoundError, ServiceError
from ui.asking import sentence_of
from ui.catalog_overview import chosen_target
from ui.context import Context
from ui.job_view import change_of, job_rows, newest, show_jobs, when
from ui.markup import fill, notice, script
from ui.settings import Settings

# Suspects that are shown at a time, and that a job lists.
_SHOWN, _LISTED = 24, 500
# Heads that are fitted from embeddings, and those that are where a target has none yet.
_KINDS, _USUAL = ("knn", "linear", "mlp", "ensemble"), ("knn", "linear", "ensemble")
_MOST_OPTIONS = 2000


def build(context: Context) -> None:
    """The part."""
    client, settings = context.client, context.settings
    with gr.Row(elem_classes="m-controls"):
        target = gr.Dropdown([], label="Labels of", scale=2, min_width=180, elem_id="suspects-target")
        search = gr.Button(
            "Find suspects",
            variant="primary",
            scale=1,
            min_width=140,
            elem_id="suspects-find",
            visible=not settings.read_only,
        )
        refit = gr.Button(
            "Refit and see the change", scale=1, min_width=180, elem_id="suspects-refit", visible=not settings.read_only
        )
    # By itself: what looks at jobs writes over their place.
    refusal = gr.HTML(apply_default_css=False)
    status = gr.HTML(
        apply_default_css=False, js_on_load=script("job_status.js"), part="relabel", elem_id="suspects-status"
    )
    # Which list is shown: it stays while labels change, so that each change can be undone.
    shown = gr.State("")

    def relabel(asked: Any) -> str:
        """Gives an item a label; what kept the service from it, or nothing."""
        try:
            client.relabel(str(asked["item"]), {str(asked["target"]): [str(asked["label"])]})
        except ServiceError as error:
            return sentence_of(error)
        return ""

    found = gr.HTML(
        apply_default_css=False,
        js_on_load=script("suspects.js"),
        server_functions=[] if settings.read_only else [relabel],
        elem_id="suspects",
    )

    def look(target: str | None, shown: str) -> tuple[Any, ...]:
        try:
            catalog, jobs = client.catalog(), client.jobs()
            chosen = chosen_target(catalog, target)
            listed = newest(jobs, "suspects", "done", target=chosen)
            name = f"{chosen}/{listed and listed.id}"
            cards = gr.skip() if name == shown else show_suspects(client, catalog, chosen, listed, settings)
        except ServiceError as error:
            return notice(sentence_of(error), "error"), *[gr.skip()] * 3
        told = show_status(jobs, chosen, settings)
        return told, gr.Dropdown(choices=list(catalog.targets), value=chosen), cards, name

    def page(target: str | None, event: gr.EventData) -> Any:
        try:
            listed = newest(client.jobs(), "suspects", "done", target=target)
            start = int(event._data.get("start", 0))
            return show_suspects(client, client.catalog(), target, listed, settings, start=start)
        except ServiceError as error:
            return notice(sentence_of(error), "error")

    def begin(target: str | None, options_of: Callable[[Catalog, str], dict[str, Any]]) -> tuple[str, Any]:
        """Orders a job about the target that is chosen, or will be once the part is filled."""
        try:
            catalog = client.catalog()
            job = client.submit(**options_of(catalog, chosen_target(catalog, target) or ""))
        except ServiceError as error:
            return notice(sentence_of(error), "error"), gr.skip()
        return "", show_jobs([job], settings)

    def find(target: str | None) -> tuple[str, Any]:
        return begin(target, lambda _, chosen: {"kind": "suspects", "target": chosen, "limit": _LISTED})

    def fit(target: str | None) -> tuple[str, Any]:
        return begin(
            target, lambda catalog, chosen: {"kind": "fit", "targets": [chosen], "heads": kinds_of(catalog, chosen)}
        )

    plain: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
    status.look(look, [target, shown], [status, target, found, shown], trigger_mode="always_last", **plain)
    target.input(look, [target, shown], [status, target, found, shown], **plain)
    found.turn(page, target, found, **plain)
    if not settings.read_only:
        search.click(find, target, [refusal, status], **plain)
        refit.click(fit, target, [refusal, status], **plain)


def kinds_of(catalog: Catalog, target: str | None) -> list[str]:
    """The kinds of heads to fit anew: those that a target has, or the usual ones where it has none."""
    fitted = {head.kind for head in catalog.heads if head.target == target}
    return [kind for kind in _KINDS if kind in fitted] or list(_USUAL)


def show_status(jobs: list[Job], target: str | None, settings: Settings) -> str:
    """What runs for a target or has failed, and what the last fit has changed."""
    search, fit = newest(jobs, "suspects", target=target), newest(jobs, "fit", targets=target)
    told = [
        job for job in (search, fit) if job is not None and (not job.is_over or job.state in ("failed", "cancelled"))
    ]
    done = newest(jobs, "fit", "done", targets=target) if fit is None or fit.is_over else None
    heads = (
        [change_of(head) for head in (done.result or {}).get("heads", []) if head["target"] == target] if done else []
    )
    fitted = when(done.ended_at or done.created_at) if done else ""
    return fill("suspects_status.html", jobs=job_rows(told, settings), heads=heads, target=target, fitted=fitted)


def show_suspects(
    client: Client, catalog: Catalog, target: str | None, job: Job | None, settings: Settings, *, start: int = 0
) -> str:
    """A page of the suspects that a job has found.

    Args:
        client: Of the service; items are asked for as they are now.
        catalog: Of the service.
        target: Whose labels.
        job: Which has found them, of a list; None where nobody has looked yet.
        settings: Of the page.
        start: Of the first one on the page, from 0.

    Raises:
        ServiceError: An item cannot be asked for.
    """
    if target is None:
        return notice("No item has a label yet, so none can be wrong.", "hint")
    if job is None or job.result is None:
        return fill("suspects.html", target=target, job=None, read_only=settings.read_only)
    every = (client.job(job.id).result or {})["suspects"]
    is_old = job.result["gallery_version"] != catalog.gallery_version
    rows = [
        {**one, "now": _label_now(client, one, target) if is_old else one["label"]} for one in every[start:][:_SHOWN]
    ]
    return fill(
        "suspects.html",
        job=job,
        target=target,
        rows=rows,
        found=job.result["found"],
        listed=len(every),
        start=start,
        following=start + _SHOWN if start + _SHOWN < len(every) else None,
        previous=max(0, start - _SHOWN) if start else None,
        labels=list(catalog.targets.get(target, {}))[:_MOST_OPTIONS],
        read_only=settings.read_only,
        when=when(job.ended_at or job.created_at),
    )


def _label_now(client: Client, suspect: dict[str, Any], target: str) -> str | None:
    """The label that an item has by now; None where it is gone."""
    try:
        return ", ".join(client.item(suspect["item"]["item_id"]).labels.get(target, []))
    except NotFoundError:
        return None
