"""The page: its frame, and the tabs in it, each of a file of its own."""

from __future__ import annotations

import gradio as gr

from service.client import Client
from ui import batch_tab, catalog_tab, find_tab, label_tab, query_panel, report_tab
from ui.held_files import HeldFiles
from ui.markup import fill, script
from ui.settings import FILES, Settings
from ui.zips import PhotoZips

# Fonts of the machine: nothing is fetched from elsewhere.
_FONT = ["ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.rose,
    neutral_hue=gr.themes.colors.stone,
    font=_FONT,
    font_mono=["ui-monospace", "monospace"],
)
STYLES = sorted(FILES.glob("*.css"))
# Handlers of one kind that run at a time: the service, not the page, decides how much it can do at once.
_AT_ONCE = 16


def create_page(settings: Settings, client: Client, files: HeldFiles, zips: PhotoZips) -> gr.Blocks:
    """Gradio's blocks.

    Args:
        settings: Of the page.
        client: Of its service.
        files: Where what is sent is held.
        zips: Those among it.
    """
    with gr.Blocks(title="Modiste", analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(fill("header.html"), apply_default_css=False, js_on_load=script("header.js"))
        status = gr.HTML("", apply_default_css=False, js_on_load=script("status.js"), elem_id="status")
        with gr.Row(elem_id="main"):
            with gr.Column(scale=1, min_width=300, elem_id="asking"):
                context = query_panel.build(settings, client, files, zips, status)
            with gr.Column(scale=3, min_width=320), gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):
                with _tab("find", "Find similar"):
                    find = find_tab.build(context)
                with _tab("label", "What is it"):
                    label = label_tab.build(context)
                with _tab("batch", "Batch"):
                    batch_tab.build(context)
                with _tab("catalog", "Catalog"):
                    catalog_tab.build(context)
                with _tab("report", "Report"):
                    report_tab.build(context, find, label)
    blocks.queue(default_concurrency_limit=_AT_ONCE)
    return blocks


def _tab(name: str, title: str) -> gr.Tab:
    """A tab, of which the browser's script hears when it is shown."""
    tab = gr.Tab(title, id=name, elem_id=f"tab-{name}", render_children=True)
    tab.select(None, js=f"() => modiste.showTab('{name}')")
    return tab
