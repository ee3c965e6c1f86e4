"""Backbones to start from: with the embedded weights, the hub's, a local folder's, an earlier run's, or random ones."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from indexer.architectures import AdaptedNetwork
from indexer.encoders import (
    EMBEDDED,
    IMAGENET_MEAN,
    IMAGENET_STD,
    KNOWN,
    LITE_MEAN,
    LITE_STD,
    SMALL_WIDTHS,
    EncoderError,
    Weights,
    find_weights,
    folder_weights,
    hub_folder,
)
from indexer.networks import build_backbone, create_timm_model, load_backbone, run_backbone

# He et al., "Deep Residual Learning for Image Recognition", 2015, table 1.
_RESNETS: dict[str, dict[str, Any]] = {
    "resnet18": {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]},
    "resnet34": {"layer_type": "basic", "depths": [3, 4, 6, 3], "hidden_sizes": [64, 128, 256, 512]},
    "resnet50": {"layer_type": "bottleneck", "depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048]},
}
# Width, layers, attention heads: Oquab et al., "DINOv2", 2023, table 17.
_DINOV2 = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16), "giant": (1536, 40, 24)}
_HALF = (0.5, 0.5, 0.5)
_SIDES = {"simple-cnn": 28}
# Side of the photos that the adapter lifts: that of Fashion-MNIST.
_ADAPTED_SIDE = 28
_FOLDERS_LICENCE = "that of the folder's weights"
ADAPTED = "fashion-adapter"
# What a `transformers` configuration says beside the network's structure.
_NO_STRUCTURE = {
    "_name_or_path",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "id2label",
    "label2id",
}
NETWORKS = (EMBEDDED, *_RESNETS, *(name for name in KNOWN if name != EMBEDDED), *SMALL_WIDTHS, ADAPTED)


class NetworkError(ValueError):
    """A network that there is not, that cannot be had, or that weights do not fit; the message says which and why."""


@dataclass(frozen=True)
class Backbone:
    """A backbone before it is trained, and how photos are prepared for it.

    Args:
        module: The network, trainable.
        config: As `indexer.networks.build_backbone` takes it.
        weights: Where its weights come from, a sentence.
        licence: Of the weights.
        image_size: Side of the photos, pixels.
        mean: Per-channel mean of values 0..1.
        std: Per-channel divisor after that.
    """

    module: nn.Module
    config: str | dict[str, Any]
    weights: str
    licence: str
    image_size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


def find_backbone(network: str, weights: str, *, adapter: bool) -> Backbone:
    """The backbone of that name with those weights; random numbers come from torch's global generator.

    Args:
        network: A name of `NETWORKS`, `timm:MODEL`, or the path of a local `transformers` vision folder.
        weights: `pretrained`, `scratch`, or the path of a local `transformers` folder or of a run.
        adapter: Whether an adapter for grey photos of 28 pixels stands in front of it.

    Raises:
        NetworkError: There is no such network, its weights cannot be had, or they are another network's.
    """
    if network == ADAPTED:
        network, adapter = EMBEDDED, True
    try:
        backbone = _find(network, weights)
    except EncoderError as error:
        raise NetworkError(str(error)) from error
    is_adapted = isinstance(backbone.module, AdaptedNetwork)
    if is_adapted and not adapter:
        raise NetworkError(f"The weights in {weights} are for a network behind an adapter; ask for an adapter.")
    if is_adapted or not adapter:
        return backbone
    return replace(
        backbone,
        module=AdaptedNetwork(backbone.module),
        config={"adapter": True, "backbone": backbone.config},
        image_size=_ADAPTED_SIDE,
        mean=_HALF,
        std=_HALF,
    )


def _find(network: str, weights: str) -> Backbone:
    is_timm, is_folder = network.startswith("timm:"), network not in NETWORKS and Path(network).expanduser().is_dir()
    if not (is_timm or is_folder or network in NETWORKS):
        raise NetworkError(
            f"There is no network '{network}': it is neither a folder nor `timm:MODEL` nor one of "
            f"{', '.join(NETWORKS)}."
        )
    if weights not in ("pretrained", "scratch"):
        return _from_folder(network, weights)
    if is_timm:
        return _timm(network.removeprefix("timm:"), pretrained=weights == "pretrained")
    if is_folder:
        found = find_weights(network)
        if weights == "pretrained":
            return _loaded(found, f"the folder {network}", _FOLDERS_LICENCE)
        return replace(_random(network), image_size=found.image_size, mean=found.mean, std=found.std)
    return _random(network) if weights == "scratch" or network in SMALL_WIDTHS else _pretrained(network)


def _pretrained(network: str) -> Backbone:
    """The embedded weights, or the hub's."""
    if network == EMBEDDED:
        return _loaded(find_weights(network), f"ImageNet, {KNOWN[EMBEDDED].source}", KNOWN[EMBEDDED].licence)
    repo = KNOWN[network].source.removeprefix("hub ") if network in KNOWN else f"microsoft/resnet-{network[6:]}"
    way_out = (
        f"the network {EMBEDDED}, whose weights come with Modiste, `--weights FOLDER` with a downloaded {repo}, "
        "or `--weights scratch`"
    )
    found = folder_weights(network, hub_folder(network, repo, way_out=way_out))
    # https://huggingface.co/microsoft/resnet-18, facebook/dinov2-small: all of both families.
    return _loaded(found, f"{repo} of the hub", "Apache-2.0")


def _from_folder(network: str, weights: str) -> Backbone:
    """The backbone of a folder or a run, which must be that of the network."""
    folder = Path(weights).expanduser()
    if not folder.is_dir():
        raise NetworkError(f"The weights '{weights}' are neither `pretrained` nor `scratch` nor a folder.")
    backbone = _loaded(folder_weights(weights, folder), f"the folder {weights}", _FOLDERS_LICENCE)
    got, wanted = _fields(backbone.config), _fields(_config(network))
    if got["network"] != wanted["network"]:
        raise NetworkError(f"The weights in {weights} are those of {got['network']}; '{network}' was asked for.")
    if differing := [f"{key} {got.get(key)}, not {value}" for key, value in wanted.items() if got.get(key) != value]:
        raise NetworkError(f"The weights in {weights} are not those of '{network}': {'; '.join(differing)}.")
    return backbone


def _loaded(found: Weights, source: str, licence: str) -> Backbone:
    module = load_backbone(found)
    config: str | dict[str, Any] = EMBEDDED
    if found.kind == "run":
        config = json.loads((found.file.parent / "config.json").read_text("utf-8"))["network"]
    elif found.kind == "transformers":
        config = _transformers_config(module)
    module.requires_grad_(requires_grad=True)
    return Backbone(module, config, source, licence, found.image_size, found.mean, found.std)


def _random(network: str) -> Backbone:
    config = _config(network)
    module = build_backbone(config)
    if isinstance(config, dict) and "model_type" in config:
        config = _transformers_config(module)
    backbone = Backbone(module, config, "random numbers", "none needed")
    if network == EMBEDDED:
        return replace(backbone, mean=LITE_MEAN, std=LITE_STD)
    if network in SMALL_WIDTHS:
        return replace(backbone, image_size=_SIDES.get(network, 224), mean=_HALF, std=_HALF)
    return backbone


def _timm(name: str, *, pretrained: bool) -> Backbone:
    module: Any = create_timm_model(name, pretrained=pretrained)
    described: dict[str, Any] = getattr(module, "pretrained_cfg", None) or {}
    size = int(described.get("input_size", (3, 224, 224))[-1])
    with torch.no_grad():
        # Its own figures leave out what some models put behind their last map.
        features = run_backbone(module.eval(), torch.zeros(1, 3, size, size))
    if features.ndim not in (3, 4):
        raise NetworkError(f"timm's '{name}' gives neither a map nor tokens, but {tuple(features.shape)}.")
    poolings = ["mean", "gem"] if features.ndim == 4 else ["mean"]
    if features.ndim == 3 and getattr(module, "num_prefix_tokens", 0):
        poolings = ["cls", "mean", "cls+mean"]
    return Backbone(
        module,
        {"timm": name, "width": int(features.shape[1 if features.ndim == 4 else 2]), "poolings": poolings},
        f"timm's {name}" if pretrained else "random numbers",
        str(described.get("license") or "as timm says") if pretrained else "none needed",
        size,
        described.get("mean", IMAGENET_MEAN),
        described.get("std", IMAGENET_STD),
    )


def _config(network: str) -> str | dict[str, Any]:
    """What makes the network what it is; for a `transformers` one the part of its configuration that does."""
    if network in (EMBEDDED, *SMALL_WIDTHS):
        return network
    if network.startswith("timm:"):
        return {"timm": network.removeprefix("timm:")}
    if network in _RESNETS:
        return {"model_type": "resnet", "embedding_size": 64, **_RESNETS[network]}
    if network in KNOWN:
        return _dinov2_config(network)
    fields = json.loads((Path(network).expanduser() / "config.json").read_text("utf-8"))
    config = fields.get("network", fields)
    return _structure(config.get("vision_config", config)) if isinstance(config, dict) else str(config)


def _dinov2_config(network: str) -> dict[str, Any]:
    size = network.split("-")[1]
    width, layers, heads = _DINOV2[size]
    config = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    # The hub's were trained at 518 pixels last; other sizes interpolate their positions.
    config |= {"patch_size": 14, "image_size": 518, "use_swiglu_ffn": size == "giant"}
    if network.endswith("-reg"):
        return {"model_type": "dinov2_with_registers", "num_register_tokens": 4, **config}
    return {"model_type": "dinov2", **config}


def _fields(config: str | dict[str, Any]) -> dict[str, Any]:
    """A configuration with what kind of network it is under `network`; that behind an adapter's."""
    if isinstance(config, str):
        return {"network": config}
    if "adapter" in config:
        return _fields(config["backbone"])
    kind = f"timm:{config['timm']}" if "timm" in config else f"type {config.get('model_type')}"
    return {"network": kind, **config}


def _transformers_config(module: Any) -> dict[str, Any]:
    return _structure(json.loads(module.config.to_json_string(use_diff=False)))


def _structure(config: dict[str, Any]) -> dict[str, Any]:
    """A `transformers` configuration without where it comes from and the labels of its first task."""
    return {key: value for key, value in config.items() if key not in _NO_STRUCTURE}
