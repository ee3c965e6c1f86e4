"""Networks and heads that have learned nothing, for the sanity check of explanations."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from heads.logits import Layers
    from indexer.networks import PooledNetwork


def randomised(network: PooledNetwork, seed: int) -> PooledNetwork:
    """A copy of a network whose weights have been shuffled: each parameter has its numbers at other places.

    An explanation that does not change with the weights explains the photo and not the network (Adebayo et al.,
    "Sanity Checks for Saliency Maps", 2018, section 3, all layers at once). Theirs are drawn again; shuffled ones keep
    their whole distribution, so that nothing turns negative that must not and activations stay in range. A parameter
    whose numbers are all the same stays, and so do the statistics of batch norm.

    Args:
        network: As `indexer.networks.load_network_of`; it is left as it is.
        seed: Of the places.
    """
    import torch

    copy, generator = deepcopy(network), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in copy.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return copy


def randomised_layers(layers: Layers, seed: int) -> Layers:
    """A head's layers with their numbers at other places, as `randomised`.

    Args:
        layers: As `heads.head.Head.layers`; they are left as they are.
        seed: Of the places.
    """
    random = np.random.default_rng(seed)
    return [(random.permuted(weight.ravel()).reshape(weight.shape), random.permuted(bias)) for weight, bias in layers]
