"""Grad-CAM: where a convolutional network saw what speaks for a label. Imports torch: import it where it is needed."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from captum.attr import LayerGradCam

from indexer.architectures import AdaptedNetwork
from service.logits import batch_of, enlarge, logit_of
from service.saliency import ExplanationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from heads.logits import Layers
    from indexer.networks import PooledNetwork

# Channels, height and width of a map.
Shape = tuple[int, int, int]
# How many layers an error lists: the last ones, which are those worth asking for.
_LISTED = 8
# Finding a network's layers takes a pass through it, so they are kept as long as the network is, by the photo's size.
_FOUND: WeakKeyDictionary[PooledNetwork, dict[int, dict[str, Shape]]] = WeakKeyDictionary()


def gradcam(
    network: PooledNetwork,
    layers: Layers,
    pixels: NDArray[np.uint8],
    class_index: int,
    *,
    layer: str | None = None,
) -> NDArray[np.float32]:
    """How much each place of a photo speaks for a class, by the gradients at one layer's map.

    The channels of the map are added with their mean gradients as weights, and what is negative is set to 0
    (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", 2017,
    equations 1 and 2). With the pooling `mean+early` the early map counts only by way of where the last one is active.

    Not for several threads at once on one network: for as long as it runs there is a hook on it. Afterwards, after an
    error too, the network is as it was.

    Args:
        network: As `indexer.networks.load_network_of`: in eval mode.
        layers: As `heads.head.Head.layers`.
        pixels: (S, S, 3) uint8, letterboxed.
        class_index: 0 to C - 1.
        layer: One of `spatial_layers`; None for the last block's.

    Returns:
        (S, S), 0 or more, in no unit: only places of one map compare.

    Raises:
        ExplanationError: The network gives no maps, or not by that layer, or the head or its class cannot be explained.
    """
    logit, photo, size = logit_of(network, layers, class_index), batch_of(network, pixels), len(pixels)
    names = spatial_layers(network, size)
    name = next(reversed(names)) if layer is None else layer
    if name not in names:
        listed = ", ".join([*names][-_LISTED:])
        raise ExplanationError(
            f"Grad-CAM needs a layer that gives a map and runs once, and '{name[:100]}' is none of this network. The "
            f"last of its {len(names)}: {listed}."
        )
    method = LayerGradCam(logit, network.backbone.get_submodule(name))
    values = method.attribute(photo, relu_attributions=True)
    # (1, 1, h, w) to (h, w)
    return enlarge(values[0, 0], size)


def spatial_layers(network: PooledNetwork, size: int) -> dict[str, Shape]:
    """The modules of a backbone that give a map and run exactly once, in the order in which they end.

    The first call for a network and a size takes a pass through it.

    Args:
        network: As `indexer.networks.load_network_of`.
        size: Side of the photos, pixels.

    Returns:
        By the module's name in the backbone (C, h, w) of its map; h and w are above 1.

    Raises:
        ExplanationError: What the network pools is no map but tokens, or no map is larger than 1.
    """
    known = _FOUND.setdefault(network, {})
    if size not in known:
        known[size] = _find_layers(network, size)
    return dict(known[size])


def _find_layers(network: PooledNetwork, size: int) -> dict[str, Shape]:
    backbone = network.backbone
    inner = backbone.backbone if isinstance(backbone, AdaptedNetwork) else backbone
    # Names and shapes, (0,) for what is no tensor; and what the network pools.
    ended: list[tuple[str, tuple[int, ...]]] = []
    pooled: list[Any] = []

    def note(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        ended.append((name, tuple(output.shape) if isinstance(output, torch.Tensor) else (0,)))

    with ExitStack() as hooks, torch.no_grad():
        hooks.callback(inner.register_forward_hook(lambda *run: pooled.append(run[-1])).remove)
        for name, module in backbone.named_modules():
            hooks.callback(module.register_forward_hook(partial(note, name)).remove)
        network(torch.zeros(1, size, size, 3).to(network.mean))
    if not _is_map(inner, pooled[-1]):
        attends = network.patch_size and hasattr(inner, "main_input_name")
        others = "attention, rollout, occlusion or match" if attends else "occlusion or match"
        raise ExplanationError(
            f"Grad-CAM needs a network that pools a map of channels; {type(inner).__name__} pools tokens. "
            f"Ask for {others}."
        )
    runs = Counter(name for name, _ in ended)
    # Photos are square, so maps are; what is not has its channels last, or is no map. The whole has no name.
    found = {name: shape[1:] for name, shape in ended if name and runs[name] == 1 and _is_square(shape)}
    if not found:
        raise ExplanationError(
            f"Grad-CAM needs a map larger than 1 x 1; {type(inner).__name__} gives none of a photo of {size} pixels. "
            f"Ask for occlusion or match."
        )
    return found  # type: ignore[return-value]


def _is_map(backbone: nn.Module, output: Any) -> bool:
    # `transformers` wraps what it gives, and the embedded network gives an early map too.
    features = getattr(output, "last_hidden_state", output)
    features = features[-1] if isinstance(features, tuple) else features
    # Hierarchical transformers of timm put the channels last in all their modules.
    return bool(features.ndim == 4) and getattr(backbone, "output_fmt", None) != "NHWC"


def _is_square(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[0] == 1 and shape[2] == shape[3] > 1
