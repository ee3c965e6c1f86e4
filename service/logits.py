"""The logit that gradient methods explain, as torch computes it. Imports torch: import it where it is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from service.saliency import ExplanationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from heads.logits import Layers
    from indexer.networks import PooledNetwork

# (B, S, S, 3) photos, 0..255, to (B,) logits of one class.
Logit = Callable[[torch.Tensor], torch.Tensor]


def logits_of(features: torch.Tensor, layers: Layers) -> torch.Tensor:
    """What a head says of a network's output: differentiable, and as `heads.head.Head.logits` of the embeddings.

    Args:
        features: (B, D) floats, not yet of unit length.
        layers: As `heads.head.Head.layers`, one or more.

    Returns:
        (B, C), of the features' type and device.

    Raises:
        ExplanationError: The head was fitted on embeddings of another dimension.
    """
    x = torch.nn.functional.normalize(features)
    dimension = len(layers[0][0])
    if x.shape[1] != dimension:
        raise ExplanationError(
            f"The head reads embeddings of {dimension} numbers, and the network gives {x.shape[1]}: it is the network "
            f"of another encoder. Fit the head on this one."
        )
    for number, (weight, bias) in enumerate(layers):
        x = x if number == 0 else x.relu()
        x = x @ torch.tensor(weight).to(x) + torch.tensor(bias).to(x)
    return x


def logit_of(network: PooledNetwork, layers: Layers, class_index: int) -> Logit:
    """The function from photos to one class's raw logit.

    Args:
        network: As `indexer.networks.load_network_of`.
        layers: As `heads.head.Head.layers`.
        class_index: 0 to C - 1.

    Raises:
        ExplanationError: The head has no layers, or not that class.
    """
    if not layers:
        raise ExplanationError(
            "Gradients need a head of layers (linear, mlp or a comparator), and this one (kNN, or an ensemble) has "
            "none. Ask for occlusion or match, or name another head."
        )
    classes = len(layers[-1][1])
    if not 0 <= class_index < classes:
        raise ExplanationError(f"The head knows the classes 0 to {classes - 1}; got class_index {class_index}.")
    return lambda photos: logits_of(network(photos), layers)[:, class_index]


def batch_of(network: PooledNetwork, pixels: NDArray[np.uint8]) -> torch.Tensor:
    """One photo, (S, S, 3) uint8, as the network takes it: (1, S, S, 3) of the network's type and device, 0..255.

    Raises:
        ExplanationError: Another shape or type.
    """
    if pixels.ndim != 3 or pixels.shape[0] != pixels.shape[1] or pixels.shape[2] != 3 or pixels.dtype != "uint8":
        raise ExplanationError(f"A photo is (S, S, 3) uint8, letterboxed; got {pixels.shape} {pixels.dtype}.")
    return torch.tensor(pixels).to(network.mean)[None]


def enlarge(values: torch.Tensor, size: int) -> NDArray[np.float32]:
    """A map (h, w) at the photo's size: (S, S) float32, bilinear, with pixels' centres at halves."""
    # A layer of an adapter gives a finer map than the photo, which is to be averaged and not sampled.
    large = torch.nn.functional.interpolate(
        values.detach()[None, None], size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )
    array: NDArray[np.float32] = large[0, 0].float().cpu().numpy()
    return array
