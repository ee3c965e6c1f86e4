"""The networks behind the encoders, as torch modules from uint8 photos to pooled features.

Normalisation and pooling are part of the module, so every runtime computes the same thing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import nn

from indexer.encoders import EncoderCard, EncoderError, Weights

if TYPE_CHECKING:
    from pathlib import Path

# GeM exponent of Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", 2018, section 3.2.
GEM_POWER = 3.0
# Where colour and print are still in the features of EfficientNet-Lite0, and what they count beside the last map.
# Chosen on the validation photos of docs/decisions/0002-encoders.md.
_EARLY_BLOCK = 4
_EARLY_WEIGHT = 0.5
# The vision half of a model that also reads text, by the model_type of its config.
_VISION_CLASSES = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel"}


class PooledNetwork(nn.Module):
    """A backbone with normalisation before it and pooling after it."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: nn.Module, card: EncoderCard, patches: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = card.pooling
        self.patches = patches
        # (1, 3, 1, 1), in the 0..255 scale of the photos.
        self.register_buffer("mean", torch.tensor(card.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(card.std).view(1, 3, 1, 1) * 255)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pooled features, (B, D), of (B, S, S, 3) uint8 photos; not yet of unit length."""
        # (B, S, S, 3) to (B, 3, S, S)
        x = pixels.permute(0, 3, 1, 2).to(self.mean.dtype)
        features = self.backbone((x - self.mean) / self.std)
        if self.pooling == "mean+early":
            return _pool_with_early(*features)
        last = features[1] if isinstance(features, tuple) else features
        return _pool_map(last, self.pooling) if last.ndim == 4 else self._pool_tokens(last)

    def _pool_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, T, C) to (B, D): the class token stands first, registers between it and the P patches."""
        class_token, patches = tokens[:, 0], tokens[:, -self.patches :].mean(1)
        if self.pooling == "cls+mean":
            return torch.cat([class_token, patches], dim=1)
        return class_token if self.pooling == "cls" else patches


class _LiteBackbone(nn.Module):
    """EfficientNet-Lite0 up to an early map, (B, 40, S / 8, S / 8), and its last one, (B, 1280, S / 32, S / 32)."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        network = self.network
        x = early = network._swish(network._bn0(network._conv_stem(x)))
        for number, block in enumerate(network._blocks):
            x = block(x)
            if number == _EARLY_BLOCK:
                early = x
        return early, network._swish(network._bn1(network._conv_head(x)))


class _TransformersBackbone(nn.Module):
    """A `transformers` vision model up to its last hidden state."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=x).last_hidden_state  # type: ignore[no-any-return]


def build_network(weights: Weights, card: EncoderCard) -> PooledNetwork:
    """The network with its weights loaded, in eval mode, fp32, on the CPU.

    Raises:
        EncoderError: The weights file does not fit the network, or the network is not known.
    """
    build = {"lite0": _build_lite0, "transformers": _build_transformers}[weights.kind]
    try:
        backbone, patches = build(weights)
    except EncoderError:
        raise
    except Exception as error:  # torch, safetensors and transformers each raise what they like for a damaged file.
        raise EncoderError(
            f"The weights of '{weights.name}' ({weights.file}) cannot be loaded: {' '.join(str(error).split())[:300]}"
        ) from error
    return PooledNetwork(backbone, card, patches).eval().requires_grad_(requires_grad=False)


def _build_lite0(weights: Weights) -> tuple[nn.Module, int]:
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    if weights.file.suffix == ".safetensors":
        # The classifier of the pretrained network is none of the backbone.
        classifier = {key: value for key, value in network.state_dict().items() if key.startswith("_fc.")}
        network.load_state_dict(classifier | _backbone_weights(weights.file))
    else:
        network.load_state_dict(torch.load(weights.file, weights_only=True, map_location="cpu"))
    return _LiteBackbone(network), 0


def _build_transformers(weights: Weights) -> tuple[nn.Module, int]:
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    fields: dict[str, Any] = json.loads((weights.file.parent / "config.json").read_text("utf-8"))
    is_run = "modiste_checkpoint" in fields
    fields = fields["network"] if is_run else fields
    model_type = str(fields.get("model_type"))
    class_name = _VISION_CLASSES.get(model_type) or MODEL_MAPPING_NAMES.get(model_type)
    if not isinstance(class_name, str):
        raise EncoderError(f"Encoder '{weights.name}' is of type {model_type!r}, which transformers does not know.")
    # A concrete class: the Auto classes can be made to run code that comes with the weights.
    model_class = getattr(transformers, class_name)
    if is_run:
        model = model_class(CONFIG_MAPPING[model_type].from_dict(fields))
        model.load_state_dict(_backbone_weights(weights.file))
    else:
        model = model_class.from_pretrained(weights.file.parent, use_safetensors=True, local_files_only=True)
    patch_size = getattr(model.config, "patch_size", None)
    patches = (
        (weights.image_size // patch_size) ** 2 if isinstance(patch_size, int) and "cls" in weights.poolings else 0
    )
    return _TransformersBackbone(model), patches


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
    parts = [nn.functional.normalize(last.mean((2, 3))), _EARLY_WEIGHT * nn.functional.normalize(colour)]
    return torch.cat(parts, dim=1)
