"""The small networks and the adapter: their shapes, sizes and what the adapter does before it has learned anything."""

from __future__ import annotations

import pytest
import torch

from indexer.architectures import AdaptedNetwork, Adapter, build_small_network
from indexer.encoders import SMALL_WIDTHS

# Channels in and out.
STAGES = [(3, 32), (32, 64), (64, 128), (128, 256)]


@pytest.mark.parametrize(
    ("name", "side", "last", "parameters"),
    [
        # Each stage: 9 * in * out + 9 * out * out weights, and 4 * out of two batch norms; each halves the map.
        ("fashionnet-small", 224, 14, sum(9 * (i + o) * o + 4 * o for i, o in STAGES)),
        ("fashionnet-medium", 224, 7, sum(9 * (i + o) * o + 4 * o for i, o in [*STAGES, (256, 448)])),
        # One convolution and one batch norm a stage; 28 to 14 to 7.
        ("simple-cnn", 28, 7, sum(9 * i * o + 2 * o for i, o in STAGES[:3])),
    ],
)
def test_a_small_network(name: str, side: int, last: int, parameters: int) -> None:
    network = build_small_network(name)
    assert network(torch.zeros(2, 3, side, side)).shape == (2, SMALL_WIDTHS[name], last, last)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_the_widths_are_those_that_encoders_reckon_with() -> None:
    for name, width in SMALL_WIDTHS.items():
        assert build_small_network(name)(torch.zeros(2, 3, 32, 32)).shape[1] == width


def test_the_adapter_starts_from_the_enlarged_grey_photo() -> None:
    adapter = Adapter().eval()
    torch.nn.init.zeros_(adapter.layers[-1].weight)
    torch.nn.init.zeros_(adapter.layers[-1].bias)
    photo = torch.rand(2, 3, 28, 28)
    lifted = adapter(photo)
    assert lifted.shape == (2, 3, 224, 224)
    # Red, green and blue weigh 0.299, 0.587 and 0.114; the corner pixel is enlarged to 8 x 8, and stays in its corner.
    grey = 0.299 * photo[:, 0] + 0.587 * photo[:, 1] + 0.114 * photo[:, 2]
    torch.testing.assert_close(lifted[:, :, 0, 0], grey[:, 0, 0, None].expand(2, 3))
    torch.testing.assert_close(lifted[:, :, -1, -1], grey[:, -1, -1, None].expand(2, 3))


def test_the_adapter_adds_colour_that_it_learns() -> None:
    lifted = Adapter()(torch.rand(2, 3, 28, 28))
    assert (lifted[:, 0] - lifted[:, 1]).abs().max() > 1e-3
    assert sum(parameter.numel() for parameter in Adapter().parameters()) < 10_000


def test_colours_of_one_grey_are_one_to_the_adapter() -> None:
    adapter = Adapter().eval()
    red = torch.zeros(1, 3, 28, 28)
    red[:, 0] = 0.587
    green = torch.zeros(1, 3, 28, 28)
    green[:, 1] = 0.299
    torch.testing.assert_close(adapter(red), adapter(green))


def test_a_run_of_the_adapter_holds_no_constants() -> None:
    names = AdaptedNetwork(build_small_network("simple-cnn")).state_dict()
    assert {name.split(".")[0] for name in names} == {"adapter", "backbone"}
    assert "adapter.grey" not in names
