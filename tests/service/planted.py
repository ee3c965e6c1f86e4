"""Drawn photos whose label is the colour of a mark at a random place, and tiny networks that learn it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from indexer.networks import PooledNetwork

if TYPE_CHECKING:
    from heads.logits import Layers

MARK = 16
# The mark's colour by class. The third class has no mark: or a network could learn one colour, and take the other for
# what is left, so that no place would speak for it.
COLOURS = ((220, 40, 40), (40, 60, 220))


def card_of(pooling: str) -> Any:
    """What a PooledNetwork wants to know."""
    return SimpleNamespace(mean=(0.5,) * 3, std=(0.25,) * 3, pooling=pooling)


def pooled(backbone: nn.Module, pooling: str = "mean") -> PooledNetwork:
    """As `indexer.networks.build_network` leaves it."""
    return PooledNetwork(backbone, card_of(pooling)).eval().requires_grad_(requires_grad=False)


def draw(
    count: int, size: int, seed: int, *, classes: int = 2
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Grey noise with a mark: photos (N, S, S, 3), labels (N,), and the mark's top left corners (N, 2), row first."""
    random = np.random.default_rng(seed)
    photos = np.repeat(random.integers(60, 200, (count, size, size, 1), np.uint8), 3, axis=3)
    labels, corners = random.integers(classes, size=count), random.integers(0, size - MARK + 1, (count, 2))
    for photo, label, (top, left) in zip(photos, labels, corners, strict=True):
        if label < len(COLOURS):
            photo[top : top + MARK, left : left + MARK] = COLOURS[label]
    return photos, labels, corners


def train(network: PooledNetwork, size: int, *, steps: int, rate: float, dimension: int) -> Layers:
    """Teaches a network the marks' colours; the layers of its head. The network is as `pooled` leaves it afterwards."""
    linear = nn.Linear(dimension, 3)
    photos, labels, _ = draw(32 * steps, size, seed=0, classes=3)
    network.train().requires_grad_()
    optimizer = torch.optim.AdamW([*network.parameters(), *linear.parameters()], lr=rate)
    for batch in np.split(np.arange(len(photos)), steps):
        embeddings = nn.functional.normalize(network(torch.from_numpy(photos[batch])))
        loss = nn.functional.cross_entropy(linear(10 * embeddings), torch.from_numpy(labels[batch]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    network.eval().requires_grad_(requires_grad=False)
    return [(10 * linear.weight.detach().numpy().T, linear.bias.detach().numpy())]


def answers(network: PooledNetwork, layers: Layers, photos: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The class of each photo, (N,)."""
    weight, bias = layers[0]
    with torch.no_grad():
        embeddings = nn.functional.normalize(network(torch.from_numpy(photos))).numpy()
    return (embeddings @ weight + bias).argmax(1)  # type: ignore[no-any-return]


def peak(values: NDArray[np.float32]) -> tuple[int, int]:
    """Row and column of the highest value."""
    row, column = np.unravel_index(values.argmax(), values.shape)
    return int(row), int(column)


def state(network: PooledNetwork) -> list[Any]:
    """All that an explanation must leave as it was."""
    modules = [
        (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), m.training, sorted(vars(m)))
        for m in network.modules()
    ]
    parameters = [(p.requires_grad, p.grad is None, p.double().sum().item()) for p in network.parameters()]
    buffers = [buffer.double().sum().item() for buffer in network.buffers()]
    return [modules, parameters, buffers, getattr(getattr(network.backbone, "config", None), "_attn_implementation", 0)]
