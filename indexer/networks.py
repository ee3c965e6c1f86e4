"""The networks behind the encoders, as torch modules from uint8 photos to pooled features.

Normalisation and pooling are part of the module, so every runtime computes the same thing.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors.torch import load_file
from torch import nn

from indexer.architectures import LIFTED_SIZE, AdaptedNetwork, build_small_network
from indexer.encoders import (
    EARLY_WEIGHT,
    EMBEDDED,
    GEM_POWER,
    SMALL_WIDTHS,
    EncoderCard,
    EncoderError,
    Weights,
    find_weights_of,
    has_class_token,
)

if TYPE_CHECKING:
    from pathlib import Path

# Where colour and print are still in the features of EfficientNet-Lite0, chosen on the validation photos of
# docs/decisions/0002-encoders.md.
_EARLY_BLOCK = 4
# The vision half of a model that also reads text, by the model_type of its config.
_VISION_CLASSES = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel"}


class PhotoCard(Protocol):
    """What a card says about preparing photos and pooling features."""

    @property
    def mean(self) -> tuple[float, float, float]:
        """Per-channel mean of values 0..1."""
        ...

    @property
    def std(self) -> tuple[float, float, float]:
        """Per-channel divisor after that."""
        ...

    @property
    def pooling(self) -> str:
        """Pooling of the last map or tokens."""
        ...


class PooledNetwork(nn.Module):
    """A backbone with normalisation before it and pooling after it."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: nn.Module, card: PhotoCard) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = card.pooling
        self.patch_size = _patch_size(backbone)
        # (1, 3, 1, 1), in the 0..255 scale of the photos.
        self.register_buffer("mean", torch.tensor(card.mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(card.std).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pooled features, (B, D), of (B, S, S, 3) uint8 photos; not yet of unit length."""
        features = self._features(pixels)
        if self.pooling == "mean+early":
            return _pool_with_early(*features)
        last = features[1] if isinstance(features, tuple) else features
        if last.ndim == 4:
            return _pool_map(last, self.pooling)
        class_token, patches = self._split_tokens(last, pixels)
        if self.pooling == "cls":
            return class_token
        patches = patches.mean(1)
        return torch.cat([class_token, patches], dim=1) if self.pooling == "cls+mean" else patches

    def maps(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What is pooled, with channels last, for (B, S, S, 3) uint8 photos.

        Returns:
            The last map, (B, h, w, C), or patch tokens, (B, P, C); with `mean+early` then the early map,
            (B, H, W, c); with `cls` and `cls+mean` then the class token, (B, C).
        """
        features = self._features(pixels)
        if isinstance(features, tuple):
            early, last = (one.permute(0, 2, 3, 1) for one in features)
            return (last, early) if self.pooling == "mean+early" else (last,)
        if features.ndim == 4:
            return (features.permute(0, 2, 3, 1),)
        class_token, patches = self._split_tokens(features, pixels)
        return (patches, class_token) if "cls" in self.pooling else (patches,)

    def _features(self, pixels: torch.Tensor) -> Any:
        """As `run_backbone`, of photos as they are."""
        # (B, S, S, 3) to (B, 3, S, S)
        x = pixels.permute(0, 3, 1, 2).to(self.mean.dtype)
        x = (x - self.mean) / self.std
        if isinstance(self.backbone, AdaptedNetwork):
            return run_backbone(self.backbone.backbone, self.backbone.adapter(x))
        return run_backbone(self.backbone, x)

    def _split_tokens(self, tokens: torch.Tensor, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, C) to the class token, (B, C), which stands first, and the P patches, (B, P, C), after registers."""
        side = LIFTED_SIZE if isinstance(self.backbone, AdaptedNetwork) else int(pixels.shape[1])
        # Where there is no class token P is not known, and all tokens are patches.
        count = (side // self.patch_size) ** 2 if self.patch_size else 0
        return tokens[:, 0], tokens[:, -count:]


class UnpooledNetwork(nn.Module):
    """A network that gives its maps instead of pooling them; as `PooledNetwork.maps`."""

    def __init__(self, network: PooledNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The maps of (B, S, S, 3) uint8 photos."""
        return self.network.maps(pixels)


class LiteNetwork(nn.Module):
    """EfficientNet-Lite0 up to an early map, (B, 40, S / 8, S / 8), and its last one, (B, 1280, S / 32, S / 32)."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        network: Any = EfficientNet.from_name(EMBEDDED)
        # The published names, and no classifier.
        self._conv_stem, self._bn0, self._blocks = network._conv_stem, network._bn0, network._blocks
        self._conv_head, self._bn1, self._swish = network._conv_head, network._bn1, network._swish

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both maps of (B, 3, S, S) normalised photos."""
        x = early = self._swish(self._bn0(self._conv_stem(x)))
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number == _EARLY_BLOCK:
                early = x
        return early, self._swish(self._bn1(self._conv_head(x)))


def build_network(weights: Weights, card: EncoderCard) -> PooledNetwork:
    """The network with its weights loaded, in eval mode, fp32, on the CPU.

    Raises:
        EncoderError: The weights file does not fit the network, or the network is not known.
    """
    backbone = load_backbone(weights)
    return PooledNetwork(backbone, card).eval().requires_grad_(requires_grad=False)


def load_network_of(card: EncoderCard) -> PooledNetwork:
    """The network of an encoder, as `build_network`: the reference that its runtime is held to.

    Raises:
        EncoderError: The weights are gone, or others now.
    """
    return build_network(find_weights_of(card), card)


def load_backbone(weights: Weights) -> nn.Module:
    """The backbone with its weights loaded, fp32, on the CPU, trainable; its state_dict has the names of a run.

    Raises:
        EncoderError: The weights file does not fit the network, or the network is not known.
    """
    load = {"lite0": _load_embedded, "transformers": _load_folder, "run": _load_run}[weights.kind]
    try:
        return load(weights.file).float()
    except EncoderError:
        raise
    except Exception as error:  # torch, safetensors and transformers each raise what they like for a damaged file.
        raise EncoderError(
            f"The weights of '{weights.name}' ({weights.file}) cannot be loaded: {' '.join(str(error).split())[:300]}"
        ) from error


def build_backbone(network: str | Mapping[str, Any]) -> nn.Module:
    """A backbone with random weights, from what stands under `network` in a run's config.json.

    Args:
        network: A name (`efficientnet-lite0`, or one of `indexer.encoders.SMALL_WIDTHS`), `{"timm": NAME, ...}`, the
            configuration of a `transformers` model, or `{"adapter": true, "backbone": ...}` with any of these.

    Raises:
        EncoderError: There is no such network, or its library is not installed.
    """
    if isinstance(network, str):
        if network != EMBEDDED and network not in SMALL_WIDTHS:
            known = ", ".join((EMBEDDED, *SMALL_WIDTHS))
            raise EncoderError(f"There is no network '{network}'; the ones known by name are {known}.")
        return LiteNetwork() if network == EMBEDDED else build_small_network(network)
    if network.get("adapter"):
        return AdaptedNetwork(build_backbone(network["backbone"]))
    if "timm" in network:
        return create_timm_model(str(network["timm"]), pretrained=False)
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_class = _model_class(network)
    fields = {key: value for key, value in network.items() if key != "dtype"}
    return model_class(CONFIG_MAPPING[network["model_type"]].from_dict(fields))  # type: ignore[no-any-return]


def create_timm_model(name: str, *, pretrained: bool) -> nn.Module:
    """A model of timm without classifier and pooling.

    Raises:
        EncoderError: timm is not installed, or does not know it, or cannot have its weights.
    """
    try:
        import timm
    except ImportError as error:
        raise EncoderError(
            f"The network 'timm:{name}' needs the package timm, which is not installed; run `pip install timm`, "
            f"or use another network, for example {EMBEDDED}."
        ) from error
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, global_pool="")
    except Exception as error:  # timm raises what the hub's client and torch raise.
        raise EncoderError(
            f"timm cannot make '{name}'{' with its trained weights' if pretrained else ''}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    return model


def _load_embedded(file: Path) -> nn.Module:
    network = LiteNetwork()
    state = torch.load(file, weights_only=True, map_location="cpu")
    # The classifier of the pretrained network is none of the backbone.
    network.load_state_dict({key: value for key, value in state.items() if not key.startswith("_fc.")})
    return network


def _load_run(file: Path) -> nn.Module:
    backbone = build_backbone(_read_config(file)["network"])
    backbone.load_state_dict(_backbone_weights(file))
    return backbone


def _load_folder(file: Path) -> nn.Module:
    model_class = _model_class(_read_config(file))
    return model_class.from_pretrained(  # type: ignore[no-any-return]
        file.parent, use_safetensors=True, local_files_only=True
    )


def _read_config(file: Path) -> dict[str, Any]:
    return json.loads((file.parent / "config.json").read_text("utf-8"))  # type: ignore[no-any-return]


def _model_class(config: Mapping[str, Any]) -> Any:
    """The concrete class of a `transformers` vision model: the Auto classes can be made to run code from a folder."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    model_type = str(config.get("model_type"))
    class_name = _VISION_CLASSES.get(model_type) or MODEL_MAPPING_NAMES.get(model_type)
    if not isinstance(class_name, str):
        raise EncoderError(f"A network is of type {model_type!r}, which transformers does not know.")
    return getattr(transformers, class_name)


def run_backbone(backbone: nn.Module, x: torch.Tensor) -> Any:
    """The last map (B, C, h, w), or tokens (B, T, C), or a pair of an early map and the last.

    Args:
        backbone: Any but an adapted one.
        x: (B, 3, S, S) normalised photos.
    """
    if not hasattr(backbone, "main_input_name"):
        features = backbone(x)
        # Hierarchical transformers of timm put the channels last.
        return features.permute(0, 3, 1, 2) if getattr(backbone, "output_fmt", None) == "NHWC" else features
    # A model of `transformers`.
    options: dict[str, bool] = {}
    if int(x.shape[-1]) != _trained_size(backbone):
        # Some interpolate their positions to another size when asked, the others always or have none.
        parameters = inspect.signature(type(backbone).forward).parameters
        options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in parameters else {}
    return backbone(pixel_values=x, **options).last_hidden_state


def _trained_size(model: Any) -> int | None:
    size = getattr(model.config, "image_size", None)
    return size if isinstance(size, int) else None


def _patch_size(backbone: Any) -> int:
    """Side of a patch of a transformer with a class token, pixels; 0 for any other network."""
    if isinstance(backbone, AdaptedNetwork):
        return _patch_size(backbone.backbone)
    config = getattr(backbone, "config", None)
    if getattr(backbone, "num_prefix_tokens", 0):
        return int(backbone.patch_embed.patch_size[0])
    size = getattr(config, "patch_size", None)
    return size if isinstance(size, int) and config is not None and has_class_token(config.to_dict()) else 0


def _backbone_weights(file: Path) -> dict[str, torch.Tensor]:
    """The backbone's part of a finetune checkpoint; its heads stay behind."""
    prefix = "backbone."
    state = {key.removeprefix(prefix): value for key, value in load_file(file).items() if key.startswith(prefix)}
    if not state:
        raise EncoderError(f"{file} has no weight whose name starts with '{prefix}'.")
    return state


def _pool_map(features: torch.Tensor, pooling: str) -> torch.Tensor:
    """(B, C, h, w) to (B, C)."""
    if pooling == "gem":
        return features.clamp(min=1e-6).pow(GEM_POWER).mean((2, 3)).pow(1 / GEM_POWER)
    return features.mean((2, 3))


def _pool_with_early(early: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """The mean of the last map, (B, C), beside the early map's, (B, c), taken where the last map is active.

    The spatial weights are those of Kalantidis et al., "Cross-dimensional Weighting for Aggregated Deep Convolutional
    Features", 2016, section 3.2, squared: they keep the backdrop out of the garment's colour.
    """
    # (B, C, h, w) to (B, 1, H, W)
    activity = last.sum(1, keepdim=True).pow(2)
    weights = nn.functional.interpolate(activity, size=early.shape[-2:], mode="bilinear", align_corners=False)
    colour = (early * weights).sum((2, 3)) / weights.sum((2, 3)).clamp(min=1e-6)
    parts = [nn.functional.normalize(last.mean((2, 3))), EARLY_WEIGHT * nn.functional.normalize(colour)]
    return torch.cat(parts, dim=1)
