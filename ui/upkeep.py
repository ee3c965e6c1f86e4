"""Upkeep: what is done to the whole gallery, as jobs of the service with live progress."""

from __future__ import annotations

from typing import Any

import gradio as gr

from service.client import Client, ServiceError
from ui.asking import sentence_of
from ui.context import Context
from ui.job_view import show_jobs
from ui.markup import fill, notice, script
from ui.settings import Settings

# Jobs that are shown, besides those that wait or run.
_SHOWN = 10
_HEADS = ["knn", "linear", "mlp", "ensemble"]
_PLAIN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}


class UpkeepError(ValueError):
    """Something has to be chosen first; the message says what."""


def build(context: Context) -> None:
    """The part."""
    client, settings = context.client, context.settings
    if settings.read_only:
        gr.HTML(notice("This page only looks: what changes the gallery is left out of it.", "hint"))
        jobs = _job_list()
        jobs.look(lambda: show_all(client, settings), None, jobs, **_PLAIN)
        return
    with gr.Row(elem_classes="m-upkeep"):
        with gr.Column(scale=3, min_width=300, elem_classes="m-orders"):
            source, *refresh = _refresh_controls()
            targets, *fit = _fit_controls()
            compact = _compact_controls()
            encoder, *migrate = _migrate_controls()
        with gr.Column(scale=2, min_width=300):
            refusal = gr.HTML(apply_default_css=False, elem_id="upkeep-refusal")
            jobs = _job_list()

    def look(*chosen: Any) -> tuple[Any, ...]:
        return show_all(client, settings), *_choices(client, *chosen)

    jobs.look(look, [source, targets, encoder], [jobs, source, targets, encoder], trigger_mode="always_last", **_PLAIN)
    for button, inputs, options_of in (
        (refresh[-1], [source, *refresh[:-1]], _refresh_options),
        (fit[-1], [targets, *fit[:-1]], _fit_options),
        (compact[-1], compact[:-1], _compact_options),
        (migrate[-1], [encoder, *migrate[:-1]], _migrate_options),
    ):

        def order(*values: Any, options_of: Any = options_of) -> tuple[str, str]:
            try:
                client.submit(**options_of(*values))
            except (ServiceError, UpkeepError) as error:
                return notice(sentence_of(error), "error"), show_all(client, settings)
            return "", show_all(client, settings)

        done = button.click(order, inputs, [refusal, jobs], **_PLAIN)
        done.then(None, js="() => document.getElementById('upkeep-refusal').scrollIntoView({ block: 'nearest' })")


def _job_list() -> Any:
    return gr.HTML(apply_default_css=False, js_on_load=script("job_status.js"), part="upkeep", elem_id="upkeep-jobs")


def show_all(client: Client, settings: Settings) -> str:
    """The newest jobs as markup, or why they cannot be told."""
    try:
        jobs = client.jobs()
    except ServiceError as error:
        return notice(sentence_of(error), "error")
    shown = [job for place, job in enumerate(jobs) if place < _SHOWN or not job.is_over]
    return show_jobs(shown, settings) if shown else notice("No job has run yet; what you start is shown here.", "hint")


def _choices(client: Client, source: Any, targets: Any, encoder: Any) -> tuple[Any, ...]:
    """The choosers with what the catalog has; what is chosen stays where it is still there."""
    try:
        catalog = client.catalog()
    except ServiceError:
        return gr.skip(), gr.skip(), gr.skip()
    sources, encoders = catalog.sources, [name for name in catalog.encoders if name != catalog.encoder]
    fitted = {head.target for head in catalog.heads}
    kept = [target for target in targets or [] if target in catalog.targets]
    return (
        gr.Dropdown(choices=sources, value=source if source in sources else next(iter(sources), None)),
        gr.Dropdown(choices=list(catalog.targets), value=kept or [name for name in catalog.targets if name in fitted]),
        gr.Dropdown(choices=encoders, value=encoder if encoder in encoders else None),
    )


def _heading(title: str, words: str) -> None:
    gr.HTML(fill("upkeep_heading.html", title=title, words=words), apply_default_css=False)


def _refresh_controls() -> list[Any]:
    with gr.Column(elem_classes="m-order", min_width=260):
        _heading("Refresh", "Reads a catalog again and encodes only what is new or has changed.")
        source = gr.Dropdown([], label="Catalog", elem_id="upkeep-source")
        prune = gr.Checkbox(label="Remove items that the catalog no longer has")
        rehash = gr.Checkbox(label="Read every photo again, whatever its file's time says")
        return [source, prune, rehash, gr.Button("Refresh", elem_id="upkeep-refresh")]


def _refresh_options(source: str | None, prune: bool, rehash: bool) -> dict[str, Any]:
    if not source:
        raise UpkeepError("Choose the catalog to read; where there is none, start the service with --catalog.")
    return {"kind": "refresh", "catalog": source, "prune": prune, "rehash": rehash}


def _fit_controls() -> list[Any]:
    with gr.Column(elem_classes="m-order", min_width=260):
        _heading("Fit heads", "Learns labels from the gallery as it is now, for “What is it”.")
        targets = gr.Dropdown([], label="Labels of", multiselect=True, elem_id="upkeep-targets")
        heads = gr.CheckboxGroup(_HEADS, value=["knn", "linear", "ensemble"], label="Heads (mlp takes minutes)")
        return [targets, heads, gr.Button("Fit", elem_id="upkeep-fit")]


def _fit_options(targets: list[str] | None, heads: list[str]) -> dict[str, Any]:
    if not targets or not heads:
        raise UpkeepError("Choose one label column and one head at least.")
    return {"kind": "fit", "targets": targets, "heads": heads}


def _compact_controls() -> list[Any]:
    with gr.Column(elem_classes="m-order", min_width=260):
        _heading("Compact", "Merges files and drops versions that nobody reads any more: less disk, quicker starts.")
        previous = gr.Checkbox(label="Also delete the gallery as it was before the last change of encoder")
        return [previous, gr.Button("Compact", elem_id="upkeep-compact")]


def _compact_options(previous: bool) -> dict[str, Any]:
    return {"kind": "compact", "forget_previous": previous}


def _migrate_controls() -> list[Any]:
    with gr.Column(elem_classes="m-order", min_width=260):
        _heading(
            "Change the encoder",
            "Encodes every photo anew while the gallery stays in use, and changes only if neighbours are no worse.",
        )
        encoder = gr.Dropdown([], label="New encoder", elem_id="upkeep-encoder")
        sure = gr.Checkbox(label="I know that all heads have to be fitted again afterwards, and the map drawn again")
        return [encoder, sure, gr.Button("Change", elem_id="upkeep-migrate")]


def _migrate_options(encoder: str | None, sure: bool) -> dict[str, Any]:
    if not encoder:
        raise UpkeepError("Choose the new encoder first.")
    if not sure:
        raise UpkeepError("Confirm first that heads are to be fitted again: those of the old encoder stop answering.")
    return {"kind": "migrate", "encoder": encoder}
