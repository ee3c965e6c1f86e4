"""Backbones to start from: with the embedded weights, the hub's, a local folder's, an earlier run's, or random ones."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from indexer.networks import build_backbone, create_timm_model, load_backbone

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
    if not adapter or is_adapted:
        if is_adapted and not adapter:
            raise NetworkError(f"The weights in {weights} are for a network behind an adapter; ask for an adapter.")
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
    if network.startswith("timm:"):
        return _timm(network.removeprefix("timm:"), weights)
    if network not in NETWORKS and not Path(network).expanduser().is_dir():
        raise NetworkError(
            f"There is no network '{network}': it is neither a folder nor `timm:MODEL` nor one of "
            f"{', '.join(NETWORKS)}."
        )
    if weights == "scratch":
        return _random(network)
    if weights != "pretrained":
        return _from_folder(network, weights)
    if network in SMALL_WIDTHS:
        return replace(_random(network), weights="random: nobody has trained this network before")
    return _pretrained(network)


def _pretrained(network: str) -> Backbone:
    """The embedded weights, the hub's, or those of a folder that is named as the network."""
    if network in NETWORKS and network != EMBEDDED:
        repo = KNOWN[network].source.removeprefix("hub ") if network in KNOWN else f"microsoft/resnet-{network[6:]}"
        way_out = (
            f"the network {EMBEDDED}, whose weights come with Modiste, `--weights FOLDER` with a downloaded {repo}, "
            "or `--weights scratch`"
        )
        found = folder_weights(network, hub_folder(network, repo, way_out=way_out))
        return _loaded(found, f"{repo} of the hub", "Apache-2.0")
    found = find_weights(network)
    if network == EMBEDDED:
        return _loaded(found, f"ImageNet, {KNOWN[EMBEDDED].source}", KNOWN[EMBEDDED].licence)
    return _loaded(found, f"folder {network}", "that of the folder's weights")


def _from_folder(network: str, weights: str) -> Backbone:
    """The backbone of a folder or a run, which must be that of the network."""
    folder = Path(weights).expanduser()
    if not folder.is_dir():
        raise NetworkError(f"The weights '{weights}' are neither `pretrained` nor `scratch` nor a folder.")
    backbone = _loaded(folder_weights(str(folder), folder), f"folder {folder}", "that of the folder's weights")
    inner = backbone.config["backbone"] if isinstance(backbone.config, dict) and "adapter" in backbone.config else None
    got, wanted = inner or backbone.config, _config(network)
    if isinstance(wanted, str) or isinstance(got, str):
        same, differing = got == wanted, {"network": (got if isinstance(got, str) else got.get("model_type"), network)}
    else:
        differing = {key: (got.get(key), value) for key, value in wanted.items() if got.get(key) != value}
        same = not differing
    if not same:
        what = "; ".join(f"{key} {came}, not {want}" for key, (came, want) in differing.items())
        raise NetworkError(f"The weights in {folder} are not those of '{network}': {what}.")
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
    if isinstance(config, dict):
        config = _transformers_config(module)
    random = Backbone(module, config, "random", "none: trained from scratch")
    if network == EMBEDDED:
        return replace(random, mean=LITE_MEAN, std=LITE_STD)
    if network in SMALL_WIDTHS:
        return replace(random, image_size=_SIDES.get(network, 224), mean=_HALF, std=_HALF)
    return random


def _config(network: str) -> str | dict[str, Any]:
    """What makes the network what it is; for a `transformers` one the part of its configuration that does."""
    if network in (EMBEDDED, *SMALL_WIDTHS):
        return network
    if network in _RESNETS:
        return {"model_type": "resnet", "embedding_size": 64, **_RESNETS[network]}
    if network in KNOWN:
        size = network.split("-")[1]
        width, layers, heads = _DINOV2[size]
        config = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
        config |= {"patch_size": 14, "image_size": 518, "use_swiglu_ffn": size == "giant"}
        if network.endswith("-reg"):
            return {"model_type": "dinov2_with_registers", "num_register_tokens": 4, **config}
        return {"model_type": "dinov2", **config}
    fields = json.loads((Path(network).expanduser() / "config.json").read_text("utf-8"))
    config = fields.get("network", fields)
    return _structure(config) if isinstance(config, dict) else config


def _transformers_config(module: Any) -> dict[str, Any]:
    return _structure(json.loads(module.config.to_json_string(use_diff=False)))


def _structure(config: dict[str, Any]) -> dict[str, Any]:
    """A `transformers` configuration without where it comes from and the labels of its first task."""
    return {key: value for key, value in config.items() if key not in _NO_STRUCTURE}


def _timm(name: str, weights: str) -> Backbone:
    if weights not in ("pretrained", "scratch"):
        found = folder_weights(weights, Path(weights).expanduser())
        backbone = _loaded(found, f"folder {weights}", "that of the folder's weights")
        if not isinstance(backbone.config, dict) or backbone.config.get("timm") != name:
            raise NetworkError(f"The weights in {weights} are not those of 'timm:{name}'.")
        return backbone
    module: Any = create_timm_model(name, pretrained=weights == "pretrained")
    described: dict[str, Any] = getattr(module, "pretrained_cfg", None) or {}
    prefix_tokens = getattr(module, "num_prefix_tokens", None)
    poolings = ("mean", "gem") if prefix_tokens is None else ("cls", "mean", "cls+mean") if prefix_tokens else ("mean",)
    return Backbone(
        module,
        {"timm": name, "width": int(module.num_features), "poolings": list(poolings)},
        f"timm's {name}" if weights == "pretrained" else "random",
        described.get("license") or "as timm says",
        int(described.get("input_size", (3, 224, 224))[-1]),
        tuple(described.get("mean", IMAGENET_MEAN)),
        tuple(described.get("std", IMAGENET_STD)),
    )
