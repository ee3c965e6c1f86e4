from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from indexer.networks import build_backbone
from service.randomisation import randomised, randomised_layers
from tests.service.planted import pooled

PHOTOS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 56, 56, 3)).astype(np.uint8))


def network_of(name):
    torch.manual_seed(0)
    if name != "dinov2":
        return pooled(build_backbone(name))
    tiny = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
    return pooled(Dinov2Model(Dinov2Config(**tiny)), "cls")


@pytest.mark.parametrize("name", ["simple-cnn", "efficientnet-lite0", "dinov2"])
def test_every_parameter_has_its_numbers_elsewhere(name):
    network = network_of(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    copy = randomised(network, 0)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    for (key, ours), (_, theirs) in zip(copy.named_parameters(), network.named_parameters(), strict=True):
        torch.testing.assert_close(ours.flatten().sort().values, theirs.flatten().sort().values, rtol=0, atol=0)
        if len(theirs.unique()) > 9:
            # By chance few stay.
            assert (ours == theirs).float().mean() < 0.2, key
        assert ours.data_ptr() != theirs.data_ptr()
    for ours, theirs in zip(copy.buffers(), network.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    assert not copy.training


def test_a_seed_gives_one_network():
    network = network_of("simple-cnn")
    one, again, another = (randomised(network, seed)(PHOTOS) for seed in (0, 0, 1))
    torch.testing.assert_close(one, again, rtol=0, atol=0)
    assert not torch.allclose(one, another)


def test_layers_have_their_numbers_elsewhere():
    random = np.random.default_rng(0)
    layers = [
        (random.normal(size=s).astype(np.float32), random.normal(size=s[1]).astype(np.float32))
        for s in ((30, 20), (20, 9))
    ]
    before = [(weight.copy(), bias.copy()) for weight, bias in layers]
    shuffled = randomised_layers(layers, 0)
    for ours, theirs, kept in zip(sum(shuffled, ()), sum(layers, ()), sum(before, ()), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, np.float32)
        np.testing.assert_array_equal(theirs, kept)
        np.testing.assert_array_equal(np.sort(ours, axis=None), np.sort(theirs, axis=None))
        assert (ours == theirs).mean() < 0.5
    # Rows are not moved as wholes: the first one's 20 numbers come from several.
    assert np.isin(layers[0][0], shuffled[0][0][0]).any(axis=1).sum() > 5
    np.testing.assert_array_equal(randomised_layers(layers, 0)[0][0], shuffled[0][0])
    assert not np.array_equal(randomised_layers(layers, 1)[0][0], shuffled[0][0])
