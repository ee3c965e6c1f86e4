"""The small networks that are trained from scratch, and the adapter that lets any network read grey thumbnails."""

from __future__ import annotations

import torch
from torch import nn

# Widths of the stages; each holds two convolutions and halves the map.
_FASHIONNETS = {"fashionnet-small": (32, 64, 128, 256), "fashionnet-medium": (32, 64, 128, 256, 448)}
# Widths of the three convolutions.
_SIMPLE_CNN = (32, 64, 128)
# Side that the adapter lifts to, pixels.
LIFTED_SIZE = 224


class SmallNetwork(nn.Module):
    """Stages one after another, from (B, 3, S, S) to the last map."""

    def __init__(self, stages: list[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.Sequential(*stages)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The last map, (B, C, h, w)."""
        return self.stages(x)  # type: ignore[no-any-return]


def build_small_network(name: str) -> SmallNetwork:
    """One of the networks of `indexer.encoders.SMALL_WIDTHS` with random weights."""
    stages: list[nn.Module] = []
    if name == "simple-cnn":
        for width_in, width in zip((3, *_SIMPLE_CNN), _SIMPLE_CNN, strict=False):
            halving = [nn.MaxPool2d(2)] if stages else []
            stages.append(nn.Sequential(*halving, *_convolution(width_in, width)))
    else:
        widths = _FASHIONNETS[name]
        for width_in, width in zip((3, *widths), widths, strict=False):
            stages.append(nn.Sequential(*_convolution(width_in, width, stride=2), *_convolution(width, width)))
    return SmallNetwork(stages)


class Adapter(nn.Module):
    """Grey thumbnails lifted to RGB of 224 pixels: the enlarged thumbnail, and what three convolutions add to it."""

    grey: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_convolution(1, 32),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            *_convolution(32, 16),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(16, 3, 3, padding=1),
        )
        # Luminance of ITU-R BT.601, as Pillow's convert("L"). (1, 3, 1, 1)
        self.register_buffer("grey", torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S), S usually 28, to (B, 3, 224, 224)."""
        # (B, 3, S, S) to (B, 1, S, S)
        thumbnail = (x * self.grey).sum(1, keepdim=True)
        return _enlarge(thumbnail) + _enlarge(self.layers(thumbnail))


class AdaptedNetwork(nn.Module):
    """A backbone behind an adapter; indexer.networks runs the one after the other."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.adapter = Adapter()
        self.backbone = backbone


def _convolution(width_in: int, width: int, *, stride: int = 1) -> list[nn.Module]:
    # Its bias would be taken off again by the batch norm.
    convolution = nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


def _enlarge(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(x, size=(LIFTED_SIZE, LIFTED_SIZE), mode="bilinear", align_corners=False)
