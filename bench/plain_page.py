"""The page as most people write it first, for bench.page: Gradio with one Image and one Gallery, before the service."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gradio as gr
import httpx


def main(service: str, port: int) -> None:
    """Serves it until it is ended."""

    def find(path: str) -> list[Any]:
        photo = Path(path).read_bytes()
        with httpx.Client(base_url=service) as client:
            answer = client.post("/v1/neighbours", params={"k": 12}, files={"photo": photo}).json()
        ids = [one["item"]["item_id"] for one in answer["neighbours"]]
        return [(f"{service}/v1/items/{item_id}/image?size=256", item_id) for item_id in ids]

    with gr.Blocks(analytics_enabled=False) as blocks:
        photo = gr.Image(type="filepath")
        photo.upload(find, photo, gr.Gallery())
    blocks.launch(server_name="127.0.0.1", server_port=port, quiet=True, ssr_mode=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
