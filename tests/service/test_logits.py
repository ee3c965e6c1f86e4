from __future__ import annotations

import numpy as np
import pytest
import torch

from heads.comparator import ComparatorHead
from heads.linear import LinearHead
from heads.mlp import MlpHead
from service.logits import batch_of, enlarge, logit_of, logits_of
from service.saliency import ExplanationError
from tests.service.planted import pooled

RANDOM = np.random.default_rng(0)


def normal(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def linear():
    return LinearHead.restored(
        {"penalty": 1.0}, {"coef": normal(24, 3), "intercept": normal(3)}, np.arange(3), multi_label=False
    )


def mlp():
    shapes = ((24, 16), (16, 8), (8, 3))
    arrays = {f"weight_{i}": normal(*shape) for i, shape in enumerate(shapes)}
    return MlpHead.restored(
        {}, arrays | {f"bias_{i}": normal(out) for i, (_, out) in enumerate(shapes)}, np.arange(3), multi_label=False
    )


def comparator():
    return ComparatorHead.of_layer(normal(3, 24), normal(3))


class Given(torch.nn.Module):
    """A backbone whose map's mean is the photo's mean colour."""

    def forward(self, x):
        return x


@pytest.mark.parametrize("make", [linear, mlp, comparator])
def test_logits_are_those_of_the_head(make):
    head, features = make(), 7 * normal(5, 24)
    embeddings = features / np.linalg.norm(features, axis=1, keepdims=True)
    found = logits_of(torch.from_numpy(features), head.layers)
    np.testing.assert_allclose(found.numpy(), head.logits(embeddings), atol=1e-4)
    # Or the head says the same of everything.
    assert found.std(0).min() > 0.01


def test_logits_are_worked_out_by_hand():
    # (3, 4) has length 5, so (0.6, 0.8). Hidden: 0.6 - 0.8 + 0.1 is below 0, 0.6 + 0.8 - 0.4 = 1. Then 2 * 1 + 0.5.
    layers = [(np.float32([[1, 1], [-1, 1]]), np.float32([0.1, -0.4])), (np.float32([[9], [2]]), np.float32([0.5]))]
    assert logits_of(torch.tensor([[3.0, 4.0]]), layers).tolist() == [[pytest.approx(2.5)]]


def test_layers_that_cannot_be_written_to_do():
    weight, bias = normal(24, 3), normal(3)
    weight.flags.writeable = bias.flags.writeable = False
    assert logits_of(torch.ones(1, 24), [(weight, bias)]).shape == (1, 3)


def test_a_logit_is_one_class_of_each_photo():
    network, layers = pooled(Given()), [(normal(3, 4), normal(4))]
    photos = torch.from_numpy(RANDOM.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8))
    expected = logits_of(network(photos), layers)
    for index in range(4):
        torch.testing.assert_close(logit_of(network, layers, index)(photos), expected[:, index])


@pytest.mark.parametrize("index", [-1, 4])
def test_a_class_that_the_head_has_not_is_refused(index):
    with pytest.raises(ExplanationError, match=rf"knows the classes 0 to 3; got class_index {index}"):
        logit_of(pooled(Given()), [(normal(3, 4), normal(4))], index)


def test_a_head_without_layers_is_refused_with_what_can_explain_it():
    with pytest.raises(ExplanationError, match=r"linear, mlp or a comparator.*Ask for occlusion or match"):
        logit_of(pooled(Given()), [], 0)


def test_the_head_of_another_encoder_is_refused():
    with pytest.raises(ExplanationError, match=r"embeddings of 24 numbers, and the network gives 3"):
        logit_of(pooled(Given()), linear().layers, 0)(torch.ones(1, 8, 8, 3))


@pytest.mark.parametrize(
    ("shape", "kind"), [((8, 8), "uint8"), ((8, 9, 3), "uint8"), ((8, 8, 4), "uint8"), ((8, 8, 3), "float32")]
)
def test_what_is_no_letterboxed_photo_is_refused(shape, kind):
    with pytest.raises(ExplanationError, match=r"\(S, S, 3\) uint8"):
        batch_of(pooled(Given()), np.zeros(shape, kind))


def test_a_photo_is_not_scaled_and_not_shared():
    pixels = RANDOM.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    pixels.flags.writeable = False
    batch = batch_of(pooled(Given()), pixels)
    np.testing.assert_array_equal(batch[0], pixels)
    assert batch.dtype == torch.float32


def test_a_map_is_enlarged_between_the_centres_of_its_cells():
    # Cells of 4 pixels have their centres between pixels 1 and 2, 5 and 6: pixel 2 is 1/8 of the way from 0 to 8.
    found = enlarge(torch.tensor([[0.0, 8.0], [0.0, 8.0]]), 8)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.tile(np.float32([0, 0, 1, 3, 5, 7, 8, 8]), (8, 1)), atol=1e-6)


def test_a_map_finer_than_the_photo_is_averaged():
    fine = torch.zeros(32, 32)
    # A line that sampling every eighth row would miss.
    fine[1] = 1
    assert enlarge(fine, 4)[0].min() > 0.05
