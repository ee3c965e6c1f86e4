"""Run folders of made-up networks and validation answers, as `modiste finetune` leaves them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from indexer.encoders import EMBEDDED, find_weights

# Of the embedded network with the pooling `mean`.
DIMENSION = 1280
COLOURS = ("red", "green", "blue")


def lite0_state() -> dict[str, NDArray[Any]]:
    """The embedded network without its classifier."""
    state = torch.load(find_weights(EMBEDDED).file, weights_only=True)
    return {key: value.numpy() for key, value in state.items() if not key.startswith("_fc")}


def make_layer(labels: int, *, dimension: int = DIMENSION, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Random weights (C, D) and biases (C,) of a layer whose logits are a few units apart."""
    random = np.random.default_rng(seed)
    weight = random.normal(scale=0.05, size=(labels, dimension))
    return weight.astype(np.float32), random.normal(size=labels).astype(np.float32)


def make_validation(
    labels: int, *, photos: int = 200, right: float = 0.7, unlabelled: int = 0, seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits (V, C) that are too sure, and class numbers (V,), so many of them -1."""
    random = np.random.default_rng(seed)
    y = random.integers(labels, size=photos)
    said = np.where(random.random(photos) < right, y, random.integers(labels, size=photos))
    logits = random.normal(size=(photos, labels)) + 4 * (np.arange(labels) == said[:, None])
    y[:unlabelled] = -1
    return logits.astype(np.float32), y.astype(np.int64)


def make_run(
    folder: Path,
    targets: Mapping[str, Sequence[str]] | None = None,
    *,
    layers: Mapping[str, tuple[NDArray[Any], NDArray[Any]]] | None = None,
    validation: Mapping[str, tuple[NDArray[Any], NDArray[Any]]] | None = None,
    state: Mapping[str, NDArray[Any]] | None = None,
    **config: Any,
) -> Path:
    """A run of the embedded network; of targets without a layer or validation given, made up ones."""
    targets = {"colour": COLOURS} if targets is None else targets
    folder.mkdir(parents=True, exist_ok=True)
    network = {"network": EMBEDDED, "pooling": "mean", "image_size": 64}
    texts = {"modiste_checkpoint": 1, **network, "targets": {name: [*of] for name, of in targets.items()}, **config}
    (folder / "config.json").write_text(json.dumps(texts))
    tensors = {f"backbone.{key}": value for key, value in (lite0_state() if state is None else state).items()}
    said = {}
    for seed, (target, names) in enumerate(targets.items()):
        weight, bias = (layers or {}).get(target) or make_layer(len(names), seed=seed)
        tensors |= {f"heads.{target}.weight": weight, f"heads.{target}.bias": bias}
        logits, y = (validation or {}).get(target) or make_validation(len(names), seed=seed)
        said |= {f"logits.{target}": logits, f"y.{target}": y}
    for name, arrays in (("best", tensors), ("validation", said)):
        # Of what is not contiguous, safetensors writes something else.
        save_file({key: np.ascontiguousarray(of) for key, of in arrays.items()}, folder / f"{name}.safetensors")
    return folder
