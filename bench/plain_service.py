"""The service as most people write it first, for bench.service: a FastAPI route in a `def` over torch and FAISS."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import faiss
import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, File
from PIL import Image

from data.images import letterbox
from indexer.encoders import find_weights
from indexer.gallery import Gallery
from indexer.networks import build_network


def build(folder: Path) -> FastAPI:
    gallery = Gallery(folder)
    index = faiss.IndexFlatIP(gallery.card.dimension)
    index.add(gallery.snapshot.embeddings())
    items = gallery.items(np.arange(len(gallery)))
    network = build_network(find_weights(gallery.card.name), gallery.card)
    app = FastAPI()

    @app.post("/v1/neighbours")
    def neighbours(photo: Annotated[bytes, File()], k: int = 10) -> list[dict[str, object]]:
        image = Image.open(io.BytesIO(photo)).convert("RGB")
        pixels = torch.from_numpy(letterbox(image, gallery.card.image_size)[None])
        with torch.inference_mode():
            features = network(pixels).float().numpy()
        embedding = features / np.linalg.norm(features, axis=1, keepdims=True)
        similarities, rows = index.search(embedding, k)
        return [
            {"item_id": items[row].item_id, "labels": items[row].labels, "distance": 1 - float(similarity)}
            for row, similarity in zip(rows[0], similarities[0], strict=True)
        ]

    return app


if __name__ == "__main__":
    uvicorn.run(build(Path(sys.argv[1])), port=int(sys.argv[2]), log_level="error")
