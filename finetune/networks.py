"""Comparators: a backbone that is trained together with one linear layer a target, from one factory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from finetune.backbones import NETWORKS, Backbone, NetworkError, find_backbone
from indexer.architectures import AdaptedNetwork
from indexer.encoders import EARLY_WIDTH, backbone_features
from indexer.networks import LiteNetwork, PooledNetwork

__all__ = ["NETWORKS", "Comparator", "NetworkCard", "NetworkError", "ParameterGroups", "build_comparator"]


@dataclass(frozen=True, slots=True)
class NetworkCard:
    """What a comparator's network is.

    Args:
        name: As `build_comparator` takes it.
        parameters: Of the backbone, an adapter with it.
        dimension: Numbers in the pooled embedding.
        image_size: Side of the photos, pixels.
        mean: Per-channel mean of values 0..1.
        std: Per-channel divisor after that.
        pooling: The one that is trained.
        poolings: Those that the network allows.
        weights: Where the start weights come from.
        licence: Of the start weights.
        config: What stands under `network` in the run's config.json.
    """

    name: str
    parameters: int
    dimension: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pooling: str
    poolings: tuple[str, ...]
    weights: str
    licence: str
    config: str | dict[str, Any]


class ParameterGroups(NamedTuple):
    """Trainable parameters, each group in the order of the network; what an optimizer is given."""

    decayed: list[nn.Parameter]
    undecayed: list[nn.Parameter]
    heads: list[nn.Parameter]


class Comparator(nn.Module):
    """A backbone with one linear layer a target on its unit-length embedding; starts with everything open.

    Args:
        backbone: The network; its state_dict has the names of a run file after `backbone.`.
        card: What it is.
        targets: Class names in class order, by target.
        dropout: Share of the embedding that is dropped in training before each linear layer, 0 to less than 1.
    """

    def __init__(
        self, backbone: nn.Module, card: NetworkCard, targets: Mapping[str, Sequence[str]], *, dropout: float
    ) -> None:
        super().__init__()
        self.card = card
        self.targets = {target: tuple(names) for target, names in targets.items()}
        self.pooled = PooledNetwork(backbone, card)
        self.dropouts = nn.ModuleList(nn.Dropout(dropout) for _ in self.targets)
        self.linears = nn.ModuleList(_new_linear(card.dimension, len(names)) for names in self.targets.values())
        self._closed: list[nn.Module] = []

    @property
    def backbone(self) -> nn.Module:
        """The network without pooling and linear layers."""
        return self.pooled.backbone

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embeddings, (B, D) fp32 of unit length, of (B, S, S, 3) uint8 photos."""
        return nn.functional.normalize(self.pooled(pixels).float(), eps=1e-6)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits, (B, C) fp32 a target, of (B, S, S, 3) uint8 photos."""
        # Each number of an embedding is about 1 then, as a linear layer wants them.
        features = self.embed(pixels) * math.sqrt(self.card.dimension)
        # bf16 would leave three digits to a logit.
        with torch.autocast(features.device.type, enabled=False):
            logits = [linear(drop(features)) for drop, linear in zip(self.dropouts, self.linears, strict=True)]
        return dict(zip(self.targets, logits, strict=True))

    def blocks(self) -> list[list[nn.Module]]:
        """The backbone's parts from input to output; what has no part of its own goes with the one before it."""
        inner = self.backbone.backbone if isinstance(self.backbone, AdaptedNetwork) else self.backbone
        return _lite_blocks(inner) if isinstance(inner, LiteNetwork) else _split(inner)

    def open_blocks(self, last: int) -> None:
        """Lets the last blocks of the backbone learn and closes the others, their batch norm and dropout too.

        Linear layers and an adapter, which nobody has trained before, are always open.

        Args:
            last: How many, 0 or more; -1, or as many as there are, for all. A recipe serves networks of few blocks too.

        Raises:
            NetworkError: `last` is below -1.
        """
        blocks = self.blocks()
        if last < -1:
            raise NetworkError(f"'{self.card.name}' has {len(blocks)} blocks to open, or -1 for all; got {last}.")
        is_open = last == -1 or last >= len(blocks)
        self.backbone.requires_grad_(is_open)
        opened = [module for block in blocks[max(0, len(blocks) - max(last, 0)) :] for module in block]
        if isinstance(self.backbone, AdaptedNetwork):
            opened.append(self.backbone.adapter)
        for module in opened:
            module.requires_grad_(requires_grad=True)
        inside = {one for module in opened for one in module.modules()}
        self._closed = [] if is_open else [module for module in self.backbone.modules() if module not in inside]
        self.train(self.training)

    def train(self, mode: bool = True) -> Comparator:
        """As torch, but what is closed stays in eval mode."""
        super().train(mode)
        for module in self._closed:
            module.training = False
        return self

    def parameter_groups(self) -> ParameterGroups:
        """What is open now: of the backbone with and without weight decay; linear layers and adapter."""
        groups = ParameterGroups([], [], [])
        adapter = self.backbone.adapter.parameters() if isinstance(self.backbone, AdaptedNetwork) else ()
        new = {id(parameter) for parameter in adapter}
        for parameter in filter(lambda one: one.requires_grad, self.backbone.parameters()):
            # Biases, norms and scales have one dimension; class, register and position tokens begin with a 1.
            plain = parameter.ndim <= 1 or parameter.shape[0] == 1
            group = groups.heads if id(parameter) in new else groups.undecayed if plain else groups.decayed
            group.append(parameter)
        groups.heads.extend(self.linears.parameters())
        return groups

    def state(self) -> dict[str, torch.Tensor]:
        """A copy of all weights, named as in best.safetensors, contiguous, fp32 (counters int64), on the CPU."""
        state = {f"backbone.{key}": value for key, value in self.backbone.state_dict().items()}
        for target, linear in zip(self.targets, self.linears, strict=True):
            state |= {f"heads.{target}.{key}": value for key, value in linear.state_dict().items()}
        return {key: _copy(value) for key, value in state.items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes over what `state` gave.

        Raises:
            NetworkError: It is another network's, or that of other targets or other numbers of classes.
        """
        own = self.state()
        if missing := [key for key in own if key not in state]:
            raise NetworkError(f"The weights have no '{missing[0]}' ({len(missing)} missing) of '{self._name}'.")
        if left := [key for key in state if key not in own]:
            raise NetworkError(f"The weights have '{left[0]}' ({len(left)} too many), which '{self._name}' has not.")
        for key, value in own.items():
            if state[key].shape != value.shape:
                came, wanted = tuple(state[key].shape), tuple(value.shape)
                raise NetworkError(f"The weights have '{key}' of shape {came}; '{self._name}' wants {wanted}.")
        prefix = "backbone."
        self.backbone.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        for target, linear in zip(self.targets, self.linears, strict=True):
            linear.load_state_dict({key: state[f"heads.{target}.{key}"] for key in ("weight", "bias")})

    @property
    def _name(self) -> str:
        return f"{self.card.name} for {', '.join(self.targets)}"


def build_comparator(
    network: str,
    targets: Mapping[str, Sequence[str]],
    *,
    weights: str = "pretrained",
    image_size: int | None = None,
    pooling: str | None = None,
    dropout: float = 0.0,
    adapter: bool = False,
    seed: int,
) -> Comparator:
    """A comparator in training mode, everything open, fp32, on the CPU.

    Args:
        network: A name of `NETWORKS`, `timm:MODEL`, or the path of a local `transformers` vision folder.
        targets: Class names in class order, by target.
        weights: `pretrained`, `scratch`, or the path of a local `transformers` folder or of a run, whose backbone is
            taken; linear layers are always new.
        image_size: Side of the photos, pixels; None for the network's own.
        pooling: None for the network's own; `mean` for EfficientNet-Lite0 too.
        dropout: Before each target's linear layer, 0 to less than 1.
        adapter: Whether photos are grey, 28 pixels wide, and lifted by a learned module; `fashion-adapter` is this in
            front of EfficientNet-Lite0.
        seed: Of all random weights; torch's own generator is left as it was.

    Raises:
        NetworkError: There is no such network, its weights cannot be had or are another network's, or a value is out of
            its range.
    """
    if not targets or not 0 <= dropout < 1 or (image_size is not None and image_size < 1):
        raise NetworkError(
            "A comparator wants one target or more, a dropout of 0 to less than 1 and photos of 1 pixel or more; "
            f"got {len(targets)} targets, dropout {dropout} and image_size {image_size}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        found = find_backbone(network, weights, adapter=adapter)
        card = _card(network, found, pooling=pooling, image_size=image_size)
        return Comparator(found.module, card, targets, dropout=dropout).train()


def _card(network: str, found: Backbone, *, pooling: str | None, image_size: int | None) -> NetworkCard:
    width, poolings = backbone_features(found.config)
    pooling = pooling or ("mean" if "mean+early" in poolings else poolings[0])
    if pooling not in poolings:
        raise NetworkError(f"The network '{network}' pools {' or '.join(poolings)}; got pooling {pooling}.")
    return NetworkCard(
        name=network,
        parameters=sum(parameter.numel() for parameter in found.module.parameters()),
        dimension=width * 2 if pooling == "cls+mean" else width + EARLY_WIDTH * (pooling == "mean+early"),
        image_size=image_size or found.image_size,
        mean=found.mean,
        std=found.std,
        pooling=pooling,
        poolings=poolings,
        weights=found.weights,
        licence=found.licence,
        config=found.config,
    )


def _new_linear(width: int, classes: int) -> nn.Linear:
    linear = nn.Linear(width, classes)
    # Random logits would send noise through a trained backbone at first: Kolesnikov et al., "Big Transfer", 2020,
    # section 3.3. Validation lost 6 points in the first three epochs by He's initialisation (docs/experiments.md).
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _lite_blocks(network: LiteNetwork) -> list[list[nn.Module]]:
    blocks: list[list[nn.Module]] = [[network._conv_stem, network._bn0]]
    for block in network._blocks:
        # The first block of a stage is the one that changes the width.
        if block._block_args.input_filters != block._block_args.output_filters:
            blocks.append([])
        blocks[-1].append(block)
    return [*blocks, [network._conv_head, network._bn1]]


def _split(network: nn.Module) -> list[list[nn.Module]]:
    """Stages or layers of any network: its lists of modules, or those of the part that holds most parameters."""
    parts = [part for part in network.children() if _size(part)]
    if not any(_is_list(part) for part in parts):
        largest = max(parts, key=_size, default=network)
        if largest is network or _size(largest) < _size(network) / 2:
            return [[network]]
        # The stem stands before, a last norm behind.
        at, inner = parts.index(largest), _split(largest)
        blocks = [parts[:at], *inner[:-1], [*inner[-1], *parts[at + 1 :]]]
        return blocks if at else blocks[1:]
    # Several lists side by side are stages; one alone holds them.
    lists = [part for part in parts if _is_list(part)]
    blocks = [[]]
    for part in parts:
        if not _is_list(part):
            blocks[-1].append(part)
        else:
            blocks += [[block] for block in (part.children() if len(lists) == 1 else [part])]
    return blocks if blocks[0] else blocks[1:]


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList) and bool(_size(module))


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _copy(value: torch.Tensor) -> torch.Tensor:
    value = value.detach()
    value = value.float() if value.is_floating_point() else value
    return value.cpu().clone(memory_format=torch.contiguous_format)
