"""Duplicates: items that show one photo, byte for byte or nearly, and a way to take out what is too much."""

from __future__ import annotations

from typing import Any

import gradio as gr

from service.client import Client, Job, NotFoundError, ServiceError
from ui.asking import sentence_of
from ui.context import Context
from ui.job_view import newest, show_jobs, when
from ui.markup import fill, notice, script
from ui.settings import Settings

# Groups that are shown at a time, items of one, and groups that a job lists.
_SHOWN, _SHOWN_ITEMS, _LISTED = 12, 12, 300
_DISTANCES = [
    ("Exact and near copies", "known"),
    ("Photos that look exactly the same", 0.0),
    ("Photos nearer than 0.02", 0.02),
    ("Photos nearer than 0.05", 0.05),
    ("Photos nearer than 0.1", 0.1),
]


def build(context: Context) -> None:
    """The part."""
    client, settings = context.client, context.settings
    with gr.Row(elem_classes="m-controls", visible=not settings.read_only):
        distance = gr.Dropdown(_DISTANCES, value="known", label="Look for", scale=2, min_width=180)
        search = gr.Button(
            "Find duplicates",
            variant="primary",
            scale=1,
            min_width=140,
            elem_id="duplicates-find",
        )
    # By itself: what looks at jobs writes over their place.
    refusal = gr.HTML(apply_default_css=False)
    status = gr.HTML(
        apply_default_css=False, js_on_load=script("job_status.js"), part="duplicates", elem_id="duplicates-status"
    )
    shown = gr.State("")

    def delete(item_id: Any) -> str:
        """Takes an item out of the gallery; what kept the service from it, or nothing."""
        try:
            client.delete_item(str(item_id))
        except ServiceError as error:
            return sentence_of(error)
        return ""

    found = gr.HTML(
        html_template=fill("duplicates_frame.html"),
        apply_default_css=False,
        js_on_load=script("duplicates.js"),
        server_functions=[] if settings.read_only else [delete],
        elem_id="duplicates",
    )

    def look(shown: str) -> tuple[Any, ...]:
        try:
            jobs = client.jobs()
            job, listed = newest(jobs, "duplicates"), newest(jobs, "duplicates", "done")
            name = "none" if listed is None else listed.id
            groups = gr.skip() if name == shown else show_groups(client, listed, settings)
        except ServiceError as error:
            return notice(sentence_of(error), "error"), gr.skip(), gr.skip()
        is_told = job is not None and job.state != "done"
        return show_jobs([job], settings) if job and is_told else "", groups, name

    def page(event: gr.EventData) -> str:
        try:
            listed = newest(client.jobs(), "duplicates", "done")
            return show_groups(client, listed, settings, start=int(event._data.get("start", 0)))
        except ServiceError as error:
            return notice(sentence_of(error), "error")

    def find(chosen: str | float) -> tuple[str, Any]:
        distance = None if chosen == "known" else float(chosen)
        try:
            return "", show_jobs([client.submit("duplicates", max_distance=distance, limit=_LISTED)], settings)
        except ServiceError as error:
            return notice(sentence_of(error), "error"), gr.skip()

    plain: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
    status.look(look, shown, [status, found, shown], trigger_mode="always_last", **plain)
    found.turn(page, None, found, **plain)
    if not settings.read_only:
        search.click(find, distance, [refusal, status], **plain)


def show_groups(client: Client, job: Job | None, settings: Settings, *, start: int = 0) -> str:
    """A page of the groups that a job has found.

    Args:
        client: Of the service; items that are gone by now are left out.
        job: Which has found them, of a list; None where nobody has looked yet.
        settings: Of the page.
        start: Of the first group on the page, from 0.

    Raises:
        ServiceError: An item cannot be asked for.
    """
    if job is None or job.result is None:
        return fill("duplicates.html", job=None, read_only=settings.read_only)
    whole = client.job(job.id).result or {}
    every, sizes = whole["groups"], whole["sizes"]
    groups = []
    for members, size in zip(every[start:][:_SHOWN], sizes[start:], strict=False):
        there = [one for one in members[:_SHOWN_ITEMS] if _is_there(client, one["item"]["item_id"])]
        if len(there) > 1:
            groups.append({"items": there, "more": size - len(members[:_SHOWN_ITEMS])})
    following = start + _SHOWN
    return fill(
        "duplicates.html",
        job=job,
        groups=groups,
        found=job.result["found"],
        listed=len(every),
        distance=job.result["max_distance"],
        following=following if following < len(every) else None,
        previous=max(0, start - _SHOWN) if start else None,
        read_only=settings.read_only,
        when=when(job.ended_at or job.created_at),
    )


def _is_there(client: Client, item_id: str) -> bool:
    try:
        client.item(item_id)
    except NotFoundError:
        return False
    return True
