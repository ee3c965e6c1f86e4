from __future__ import annotations

import gc
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import (
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
    SwinConfig,
    SwinModel,
)

from indexer.networks import PooledNetwork, build_backbone
from service import gradcam as module
from service.gradcam import gradcam, spatial_layers
from service.randomisation import randomised, randomised_layers
from service.saliency import ExplanationError
from tests.service.planted import MARK, answers, card_of, draw, peak, pooled, state, train

RANDOM = np.random.default_rng(0)
PLANTED_SIZE = 56


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small are slower on several, and much slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def photo_of(size):
    return RANDOM.integers(0, 256, (size, size, 3)).astype(np.uint8)


def layers_of(network, size, *, hidden=None):
    """A random head of four classes."""
    with torch.no_grad():
        dimension = network(torch.zeros(1, size, size, 3)).shape[1]
    widths = [dimension, *([hidden] if hidden else []), 4]
    return [
        (RANDOM.normal(size=shape).astype(np.float32), RANDOM.normal(size=shape[1]).astype(np.float32))
        for shape in pairwise(widths)
    ]


def network_of(name, pooling="mean"):
    torch.manual_seed(0)
    backbones = {
        "adapter": lambda: build_backbone({"adapter": True, "backbone": "fashionnet-small"}),
        "resnet": lambda: ResNetModel(
            ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
        ),
        "convnext": lambda: ConvNextModel(ConvNextConfig(hidden_sizes=[6, 10, 14, 18], depths=[1, 1, 1, 1])),
        "dinov2": lambda: Dinov2Model(
            Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14)
        ),
        "swin": lambda: SwinModel(
            SwinConfig(image_size=56, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=7)
        ),
    }
    make = backbones.get(name) or (lambda: build_backbone(name))
    return pooled(make(), pooling)


def bilinear(values, size):
    """Enlarged plainly: each pixel's centre lies between four cells' centres."""
    large, cells = np.zeros((size, size)), len(values)
    for row in range(size):
        for column in range(size):
            y, x = (np.clip((at + 0.5) * cells / size - 0.5, 0, cells - 1) for at in (row, column))
            top, left = min(int(y), cells - 2), min(int(x), cells - 2)
            y, x = y - top, x - left
            upper = values[top, left] * (1 - x) + values[top, left + 1] * x
            lower = values[top + 1, left] * (1 - x) + values[top + 1, left + 1] * x
            large[row, column] = upper * (1 - y) + lower * y
    return large


class Cut(torch.nn.Module):
    """A network from one map on: whatever photo it is given, it goes on from there."""

    def __init__(self, values, go_on):
        super().__init__()
        self.values, self.go_on = values, go_on

    def forward(self, _):
        return self.go_on(self.values)


def plain_gradcam(network, layers, pixels, class_index, cut):
    """Grad-CAM as the paper has it, of a network that was cut in two by hand."""
    photo = torch.from_numpy(pixels)[None]
    with torch.no_grad():
        x = (photo.permute(0, 3, 1, 2).float() - network.mean) / network.std
        values, go_on = cut(network.backbone, x)
    values = values.detach().clone().requires_grad_()
    features = PooledNetwork(Cut(values, go_on), card_of(network.pooling))(photo)[0]
    embedding = features / features.norm()
    for number, (weight, bias) in enumerate(layers):
        embedding = (embedding if number == 0 else embedding.clamp(min=0)) @ torch.tensor(weight) + torch.tensor(bias)
    (gradients,) = torch.autograd.grad(embedding[class_index], values)
    total = np.zeros(values.shape[2:])
    for gradient, channel in zip(gradients[0].numpy(), values[0].detach().numpy(), strict=True):
        total += gradient.mean() * channel
    return bilinear(total.clip(min=0), len(pixels))


def cut_small(at):
    def cut(backbone, x):
        return backbone.stages[: at + 1](x), backbone.stages[at + 1 :]

    return cut


def cut_lite_at_block(backbone, x):
    x = backbone._swish(backbone._bn0(backbone._conv_stem(x)))
    maps = []
    for block in backbone._blocks:
        x = block(x)
        maps.append(x)
    early = maps[4]
    return x, lambda x: (early, backbone._swish(backbone._bn1(backbone._conv_head(x))))


def cut_lite_at_norm(backbone, x):
    x, go_on = cut_lite_at_block(backbone, x)
    early, _ = go_on(x)
    return backbone._bn1(backbone._conv_head(x)), lambda x: (early, backbone._swish(x))


@pytest.mark.parametrize(
    ("name", "pooling", "layer", "cut", "hidden"),
    [
        ("simple-cnn", "mean", "stages.1", cut_small(1), None),
        ("simple-cnn", "gem", "stages.0", cut_small(0), 8),
        ("fashionnet-small", "mean", "stages.2", cut_small(2), 8),
        ("efficientnet-lite0", "mean", "_blocks.15", cut_lite_at_block, None),
        ("efficientnet-lite0", "gem", "_blocks.15", cut_lite_at_block, None),
        ("efficientnet-lite0", "mean+early", "_blocks.15", cut_lite_at_block, 8),
        # The default: the last map that a module of its own gives.
        ("efficientnet-lite0", "mean+early", None, cut_lite_at_norm, None),
    ],
)
def test_it_is_what_the_paper_says(name, pooling, layer, cut, hidden):
    network = network_of(name, pooling)
    pixels, layers = photo_of(64), layers_of(network, 64, hidden=hidden)
    for index in (0, 3):
        expected = plain_gradcam(network, layers, pixels, index, cut)
        found = gradcam(network, layers, pixels, index, layer=layer)
        assert (found.shape, found.dtype) == ((64, 64), np.float32)
        np.testing.assert_allclose(found, expected, atol=1e-5 * max(expected.max(), 1))
        assert found.min() >= 0


@pytest.mark.parametrize(
    ("name", "size", "last"),
    [
        ("simple-cnn", 28, "stages"),
        ("fashionnet-medium", 64, "stages"),
        ("adapter", 28, "backbone"),
        ("resnet", 64, "encoder.stages.1"),
        ("convnext", 64, "encoder.stages.3"),
        ("efficientnet-lite0", 64, "_bn1"),
    ],
)
def test_every_network_of_maps_can_be_explained(name, size, last):
    network = network_of(name)
    pixels, layers = photo_of(size), layers_of(network, size)
    assert next(reversed(spatial_layers(network, size))) == last
    maps = [gradcam(network, layers, pixels, index) for index in range(4)]
    assert all(values.shape == (size, size) and np.isfinite(values).all() for values in maps)
    assert max(values.max() for values in maps) > 0
    np.testing.assert_array_equal(maps[1], gradcam(network, layers, pixels, 1, layer=last))
    # Another class has another map, or it would be one of the photo alone.
    assert not np.allclose(maps[0], maps[1])


def test_layers_are_listed_in_the_order_in_which_they_end():
    maps = spatial_layers(network_of("simple-cnn"), 28)
    stages = {name: shape for name, shape in maps.items() if name.count(".") == 1}
    assert stages == {"stages.0": (32, 28, 28), "stages.1": (64, 14, 14), "stages.2": (128, 7, 7)}
    assert [*maps][:4] == ["stages.0.0", "stages.0.1", "stages.0.2", "stages.0"]
    assert [*maps][-2:] == ["stages.2", "stages"]


def test_layers_that_run_twice_or_put_channels_last_or_give_no_map_are_left_out():
    lite = spatial_layers(network_of("efficientnet-lite0"), 64)
    assert lite["_blocks.15"] == (320, 2, 2)
    # Only the first block has nothing to expand, and so one activation.
    assert [name for name in lite if "swish" in name] == ["_blocks.0._swish"]
    # ConvNeXt's linear layers give (1, h, w, C), and its last norm has no place.
    convnext = spatial_layers(network_of("convnext"), 64)
    assert not [name for name in convnext if "pwconv" in name or name == "layernorm"]
    # An adapter's whole is run in two halves.
    assert spatial_layers(network_of("adapter"), 28)["adapter.layers.0"] == (32, 28, 28)


def test_a_map_of_one_cell_is_none():
    # 16 pixels, halved four times: the last stage's map is 1 x 1.
    network = network_of("fashionnet-small")
    assert next(reversed(spatial_layers(network, 16))) == "stages.2"
    with pytest.raises(ExplanationError, match=r"SmallNetwork gives none of a photo of 2 pixels"):
        spatial_layers(network, 2)
    # What is a map of a larger photo is none of this one.
    assert "stages.3" in spatial_layers(network, 64)
    with pytest.raises(ExplanationError, match=r"'stages\.3' is none"):
        gradcam(network, layers_of(network, 16), photo_of(16), 0, layer="stages.3")


@pytest.mark.parametrize("layer", ["stages.7", "", "stages.2.9.1", "backbone"])
def test_a_layer_that_is_none_is_refused_with_the_last_ones(layer):
    network = network_of("fashionnet-small")
    with pytest.raises(ExplanationError) as caught:
        gradcam(network, layers_of(network, 64), photo_of(64), 0, layer=layer)
    message = str(caught.value)
    assert f"'{layer}' is none of this network" in message
    assert message.endswith("stages.3.2, stages.3.3, stages.3.4, stages.3.5, stages.3, stages.")
    assert "stages.0" not in message


@pytest.mark.parametrize(
    ("name", "others"), [("dinov2", "attention, rollout, occlusion or match"), ("swin", "occlusion or match")]
)
@pytest.mark.parametrize("layer", [None, "embeddings.patch_embeddings.projection"])
def test_a_network_of_tokens_is_refused_with_what_can_explain_it(name, others, layer):
    network = network_of(name)
    with pytest.raises(ExplanationError, match=rf"pools tokens\. Ask for {others}\."):
        gradcam(network, layers_of(network, 56), photo_of(56), 0, layer=layer)


def test_a_network_with_channels_last_is_refused():
    backbone = torch.nn.Conv2d(3, 8, 3)
    backbone.output_fmt = "NHWC"
    with pytest.raises(ExplanationError, match=r"Conv2d pools tokens\. Ask for occlusion or match"):
        spatial_layers(pooled(backbone), 16)


def test_nothing_is_left_on_the_network():
    for trainable in (False, True):
        network = network_of("efficientnet-lite0", "mean+early").requires_grad_(trainable)
        before, layers = state(network), layers_of(network, 64)
        with torch.no_grad():
            found = gradcam(network, layers, photo_of(64), 1)
        assert state(network) == before
        assert found.any()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("is_known", [True, False])
def test_nothing_is_left_after_an_error(error, is_known):
    network = network_of("simple-cnn")
    layers, pixels = layers_of(network, 28), photo_of(28)
    if is_known:
        # So that the error comes in the second pass and not in the first.
        spatial_layers(network, 28)
    before = state(network)

    def fail(*_):
        raise error("in the middle")

    for at in (network.backbone.stages[1], network.backbone.stages[2], network.backbone, network):
        hook = at.register_forward_hook(fail)
        with pytest.raises(error, match="in the middle"):
            gradcam(network, layers, pixels, 0, layer="stages.1")
        hook.remove()
        assert state(network) == before


def test_the_second_explanation_takes_one_pass():
    network, passes = network_of("simple-cnn"), []
    layers = layers_of(network, 28)
    network.register_forward_hook(lambda *_: passes.append(1))
    gradcam(network, layers, photo_of(28), 0)
    assert len(passes) == 2
    gradcam(network, layers, photo_of(28), 1, layer="stages.0")
    assert len(passes) == 3
    # Another size has other maps.
    assert spatial_layers(network, 32)["stages.0"] == (32, 32, 32)
    assert len(passes) == 4
    # What the caller does to the answer is not remembered.
    spatial_layers(network, 32).clear()
    assert spatial_layers(network, 32)


def test_what_is_remembered_goes_with_the_network():
    gc.collect()
    network = network_of("simple-cnn")
    spatial_layers(network, 28)
    count = len(module._FOUND)
    del network
    gc.collect()
    assert len(module._FOUND) == count - 1


@pytest.fixture(scope="module")
def planted():
    torch.manual_seed(0)
    network = pooled(build_backbone("simple-cnn"))
    return network, train(network, PLANTED_SIZE, steps=30, rate=3e-3, dimension=128)


def test_the_peak_lies_in_the_mark(planted):
    network, layers = planted
    photos, labels, corners = draw(40, PLANTED_SIZE, seed=1)
    assert (answers(network, layers, photos) == labels).mean() > 0.9
    hits = 0
    for photo, label, (top, left) in zip(photos, labels, corners, strict=True):
        row, column = peak(gradcam(network, layers, photo, int(label)))
        hits += top <= row < top + MARK and left <= column < left + MARK
    assert hits >= 36


def test_random_weights_have_another_map(planted):
    network, layers = planted
    photos, labels, _ = draw(20, PLANTED_SIZE, seed=2)
    others = {
        "the same": (network, layers),
        "network": (randomised(network, 0), layers),
        "both": (randomised(network, 1), randomised_layers(layers, 1)),
    }
    agreement = {name: [] for name in others}
    for photo, label in zip(photos, labels, strict=True):
        values = gradcam(network, layers, photo, int(label))
        for name, (network_too, layers_too) in others.items():
            other = gradcam(network_too, layers_too, photo, int(label))
            # A map of zeros has no ranks; it is not the same map either.
            agreement[name].append(spearmanr(values.ravel(), other.ravel()).statistic if other.any() else 0)
    assert min(agreement["the same"]) == pytest.approx(1)
    assert abs(np.mean(agreement["network"])) < 0.3
    assert abs(np.mean(agreement["both"])) < 0.3
