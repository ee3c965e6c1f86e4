"""The map: every item at a place of a plane, where those that look alike lie close to each other."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import gradio as gr

from service.client import Client, NotFoundError, ServiceError
from ui.asking import sentence_of
from ui.catalog_overview import chosen_target
from ui.context import Context
from ui.job_view import newest, show_jobs
from ui.markup import fill, notice, script

# Points that a browser is sent at once; dense places are thinned by the service, and come with the next closer view.
_POINTS = 4000
# Targets on the card of an item.
_TARGETS = 6


def build(context: Context) -> None:
    """The part."""
    client = context.client
    with gr.Row(elem_classes="m-controls"):
        target = gr.Dropdown([], label="Colour by", scale=2, min_width=180, elem_id="map-target")
        draw = gr.Button(
            "Draw the map", scale=1, min_width=140, elem_id="map-draw", visible=not context.settings.read_only
        )
    # By itself: what looks at jobs writes over their place.
    refusal = gr.HTML(apply_default_css=False)
    status = gr.HTML(apply_default_css=False, js_on_load=script("job_status.js"), part="map-job")

    def points(asked: Any) -> dict[str, Any]:
        """The points of a view, or `detail` with why there are none, and `is_missing` where there is no map yet."""
        return points_of(client, asked)

    def item(item_id: Any) -> dict[str, Any]:
        """What the card of an item says besides its name: labels by target."""
        try:
            labels = client.item(str(item_id)).labels
        except ServiceError as error:
            return {"detail": sentence_of(error)}
        return {"labels": [[name, ", ".join(labels[name])] for name in list(labels)[:_TARGETS]]}

    gr.HTML(
        html_template=fill("catalog_map.html"),
        apply_default_css=False,
        js_on_load=script("catalog_map.js"),
        server_functions=[points, item],
        elem_id="map",
    )

    def look(target: str | None) -> tuple[Any, ...]:
        try:
            catalog, jobs = client.catalog(), client.jobs()
        except ServiceError as error:
            return notice(sentence_of(error), "error"), gr.skip(), gr.skip()
        told = [job for job in [newest(jobs, "project")] if job and job.state not in ("done", "cancelled")]
        runs = any(not job.is_over for job in told)
        return (
            show_jobs(told, context.settings) if told else "",
            gr.Dropdown(choices=list(catalog.targets), value=chosen_target(catalog, target)),
            gr.Button(
                "Draw again" if catalog.has_projection else "Draw the map",
                variant="secondary" if catalog.has_projection else "primary",
                interactive=not runs,
            ),
        )

    def start() -> tuple[str, Any]:
        try:
            return "", show_jobs([client.submit("project")], context.settings)
        except ServiceError as error:
            return notice(sentence_of(error), "error"), gr.skip()

    plain: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
    status.look(look, target, [status, target, draw], trigger_mode="always_last", **plain)
    draw.click(start, None, [refusal, status], **plain)
    target.change(None, target, None, js="(target) => { modiste.map?.colour(target); }")


def points_of(client: Client, asked: Any) -> dict[str, Any]:
    """The points that a browser asks for, as JSON-ready values.

    Args:
        client: Of the service.
        asked: `target` or null, and `view`: x, y, width, height as fractions of the map, or null for all of it.

    Returns:
        The fields of a Projection; or `detail`, a sentence, and `is_missing` where there is no map yet.
    """
    asked = asked if isinstance(asked, dict) else {}
    view = asked.get("view")
    try:
        found = client.projection(target=asked.get("target") or None, view=view, limit=_POINTS)
    except NotFoundError as error:
        return {"detail": sentence_of(error), "is_missing": True}
    except (ServiceError, ValueError, TypeError) as error:
        return {"detail": sentence_of(error), "is_missing": False}
    return asdict(found)
