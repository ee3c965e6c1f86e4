from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTModel,
)

from indexer.networks import build_backbone
from service.attention import gradient_attention, rollout
from service.logits import enlarge
from service.randomisation import randomised, randomised_layers
from service.saliency import ExplanationError
from tests.service.planted import MARK, answers, draw, peak, pooled, state, train

RANDOM = np.random.default_rng(0)
PATCH = 14
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56, "patch_size": PATCH}
POOLINGS = ("cls", "mean", "cls+mean")
PLANTED_SIZE = 84


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small are slower on several, and much slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def backbone_of(name, **changes):
    makes = {
        "dinov2": lambda: Dinov2Model(Dinov2Config(**TINY | changes)),
        "registers": lambda: Dinov2WithRegistersModel(
            Dinov2WithRegistersConfig(num_register_tokens=4, **TINY | changes)
        ),
        "vit": lambda: ViTModel(ViTConfig(intermediate_size=64, **TINY | changes)),
    }
    torch.manual_seed(0)
    backbone = makes[name]()
    # Away from near zero: new attention is all but even.
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape))
    return backbone


def photo_of(size):
    return RANDOM.integers(0, 256, (size, size, 3)).astype(np.uint8)


def layers_of(pooling, *, hidden=16):
    dimension = 64 if pooling == "cls+mean" else 32
    shapes = ((dimension, hidden), (hidden, 3))
    return [(RANDOM.normal(size=s).astype(np.float32), RANDOM.normal(size=s[1]).astype(np.float32)) for s in shapes]


def matrices_of(network, pixels):
    """Each layer's attention, (heads, T, T), as `transformers` itself gives it."""
    model = deepcopy(network.backbone)
    model.set_attn_implementation("eager")
    photo = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2).to(network.mean.dtype)
    options = {"interpolate_pos_encoding": True} if isinstance(model, ViTModel) else {}
    with torch.no_grad():
        output = model(pixel_values=(photo - network.mean) / network.std, output_attentions=True, **options)
    return [matrix[0].double().numpy() for matrix in output.attentions]


def times(a, b):
    """A matrix product, a row and a column at a time."""
    return np.array([[float((a[i] * b[:, j]).sum()) for j in range(b.shape[1])] for i in range(len(a))])


def plain_rollout(matrices):
    tokens = matrices[0].shape[1]
    paths = np.eye(tokens)
    for matrix in matrices:
        mixed = np.zeros((tokens, tokens))
        for i in range(tokens):
            for j in range(tokens):
                mixed[i, j] = 0.5 * np.mean([head[i, j] for head in matrix]) + (0.5 if i == j else 0)
            mixed[i] /= mixed[i].sum()
        paths = times(mixed, paths)
    return paths


def plain_relevance(matrices, gradients):
    tokens = matrices[0].shape[1]
    relevance = np.eye(tokens)
    for matrix, gradient in zip(matrices, gradients, strict=True):
        step = np.zeros((tokens, tokens))
        for head, slope in zip(matrix, gradient, strict=True):
            for i in range(tokens):
                for j in range(tokens):
                    step[i, j] += max(head[i, j] * slope[i, j], 0) / len(matrix)
        relevance = relevance + times(step, relevance)
    return relevance


def spread(row, size):
    """A row of patches as the map of a photo."""
    side = size // PATCH
    return enlarge(torch.from_numpy(np.reshape(row, (side, side))), size)


@pytest.mark.parametrize("name", ["dinov2", "registers", "vit"])
@pytest.mark.parametrize("pooling", POOLINGS)
# 84: the positions are interpolated.
@pytest.mark.parametrize("size", [56, 84])
def test_rollout_is_what_the_paper_says(name, pooling, size):
    network, pixels = pooled(backbone_of(name), pooling), photo_of(size)
    paths = plain_rollout(matrices_of(network, pixels))
    count = (size // PATCH) ** 2
    first = len(paths) - count
    assert first == (5 if name == "registers" else 1)
    class_row = paths[0, first:]
    patch_row = np.mean([paths[first + patch, first:] for patch in range(count)], axis=0)
    expected = {"cls": class_row, "mean": patch_row, "cls+mean": (class_row + patch_row) / 2}[pooling]
    found = rollout(network, pixels)
    assert (found.shape, found.dtype) == ((size, size), np.float32)
    np.testing.assert_allclose(found, spread(expected, size), atol=1e-6)
    # Or an even map would be as right.
    assert expected.std() / expected.mean() > 0.02


def test_rollout_of_even_attention():
    network = pooled(backbone_of("dinov2"), "cls")
    for layer in network.backbone.encoder.layer:
        layer.attention.q_proj.weight.zero_()
        layer.attention.q_proj.bias.zero_()
    # Each of 17 tokens attends 1/17 to each. One layer passes on 1/34 from another token and keeps 1/2 + 1/34. To the
    # class token through two: 16 others and itself by 1/34 twice, and 1/2 once in each layer: 17/34^2 + 2 * 1/2 * 1/34.
    np.testing.assert_allclose(rollout(network, photo_of(56)), 17 / 34**2 + 1 / 34, rtol=1e-4)


class Wrapper(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *inputs, **options):
        return self.inner(*inputs, **options)


def test_attention_that_a_wrapper_gives_once_more_counts_once():
    network, pixels, layers = pooled(backbone_of("dinov2"), "cls"), photo_of(56), layers_of("cls")
    expected = rollout(network, pixels), gradient_attention(network, layers, pixels, 0)
    for layer in network.backbone.encoder.layer:
        layer.attention = Wrapper(layer.attention)
    np.testing.assert_array_equal(rollout(network, pixels), expected[0])
    np.testing.assert_array_equal(gradient_attention(network, layers, pixels, 0), expected[1])


def measure_slopes(network, layers, pixels, class_index):
    """How the logit moves with each number of each layer's attention, by moving it: (heads, T, T) a layer."""
    attentions = [layer.attention for layer in network.backbone.encoder.layer]
    matrices, slopes = matrices_of(network, pixels), []
    for attention, matrix in zip(attentions, matrices, strict=True):
        heads, tokens = matrix.shape[:2]
        moves = torch.eye(heads * tokens * tokens).double().view(-1, heads, tokens, tokens)

        def logit(moved, attention=attention):
            def replace(module, inputs, options, output):
                hidden = inputs[0] if inputs else options["hidden_states"]
                # (B, T, D) to (B, heads, T, D / heads)
                parts = [p(hidden).unflatten(2, (2, 16)).transpose(1, 2) for p in (module.q_proj, module.k_proj)]
                values = module.v_proj(hidden).unflatten(2, (2, 16)).transpose(1, 2)
                weights = (parts[0] @ parts[1].transpose(2, 3) / 4).softmax(-1) + moved
                return module.o_proj((weights @ values).transpose(1, 2).flatten(2)), weights

            hook = attention.register_forward_hook(replace, with_kwargs=True)
            with torch.no_grad():
                embeddings = network(torch.from_numpy(pixels)[None].expand(len(moved), -1, -1, -1)).numpy()
            hook.remove()
            embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
            (inner, bias), (last, last_bias) = layers
            return (np.maximum(embeddings @ inner + bias, 0) @ last + last_bias)[:, class_index]

        slopes.append(((logit(1e-5 * moves) - logit(-1e-5 * moves)) / 2e-5).reshape(heads, tokens, tokens))
    return matrices, slopes


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradient_attention_is_what_the_paper_says(pooling):
    network = pooled(backbone_of("dinov2"), pooling).double()
    pixels, layers = photo_of(56), layers_of(pooling)
    matrices, slopes = measure_slopes(network, layers, pixels, 1)
    relevance = plain_relevance(matrices, slopes) - np.eye(17)
    class_row, patch_rows = relevance[0, 1:], [relevance[1 + patch, 1:] for patch in range(16)]
    expected = {
        "cls": class_row,
        "mean": np.mean(patch_rows, axis=0),
        "cls+mean": class_row + np.sum(patch_rows, axis=0),
    }[pooling]
    found = gradient_attention(network, layers, pixels, 1)
    assert (found.shape, found.dtype) == ((56, 56), np.float32)
    np.testing.assert_allclose(found, spread(expected, 56), atol=1e-5 * expected.max())
    assert found.min() >= 0
    # Another class has another map.
    assert not np.allclose(found, gradient_attention(network, layers, pixels, 2), rtol=0.1)


@pytest.mark.parametrize("name", ["dinov2", "registers", "vit"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradient_attention_of_every_network_and_size(name, pooling):
    network = pooled(backbone_of(name), pooling)
    pixels, layers = photo_of(84), layers_of(pooling)
    model = network.backbone
    model.set_attn_implementation("eager")
    photo = ((torch.from_numpy(pixels)[None].permute(0, 3, 1, 2) - network.mean) / network.std).requires_grad_()
    options = {"interpolate_pos_encoding": True} if name == "vit" else {}
    output = model(pixel_values=photo, output_attentions=True, **options)
    tokens = output.last_hidden_state[0]
    parts = {"cls": tokens[0], "mean": tokens[-36:].mean(0)}
    embedding = torch.cat([parts[part] for part in pooling.split("+")])
    embedding = embedding / embedding.norm()
    (inner, bias), (last, last_bias) = [(torch.tensor(weight), torch.tensor(bias)) for weight, bias in layers]
    logit = ((embedding @ inner + bias).clamp(min=0) @ last + last_bias)[0]
    gradients = [one[0].numpy() for one in torch.autograd.grad(logit, output.attentions)]
    relevance = plain_relevance([one[0].detach().numpy() for one in output.attentions], gradients)
    relevance -= np.eye(len(relevance))
    rows = {"cls": relevance[0, -36:], "mean": relevance[-36:, -36:].mean(0)}
    rows["cls+mean"] = rows["cls"] + 36 * rows["mean"]
    expected = spread(rows[pooling], 84)
    np.testing.assert_allclose(gradient_attention(network, layers, pixels, 0), expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_nothing_is_left_on_the_network(implementation):
    for trainable in (False, True):
        network = pooled(backbone_of("registers"), "cls").requires_grad_(trainable)
        network.backbone.set_attn_implementation(implementation)
        before, pixels, layers = state(network), photo_of(56), layers_of("cls")
        assert rollout(network, pixels).any()
        assert state(network) == before
        with torch.no_grad():
            assert gradient_attention(network, layers, pixels, 0).any()
        assert state(network) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_after_an_error(error):
    network = pooled(backbone_of("dinov2"), "cls")
    before, pixels, layers = state(network), photo_of(56), layers_of("cls")

    def fail(*_):
        raise error("in the middle")

    for at in (network.backbone.encoder.layer[1].attention, network.backbone, network):
        for explain in (lambda: rollout(network, pixels), lambda: gradient_attention(network, layers, pixels, 0)):
            hook = at.register_forward_hook(fail)
            with pytest.raises(error, match="in the middle"):
                explain()
            hook.remove()
            assert state(network) == before


def refused(network, size=56):
    for explain in (rollout, lambda *of: gradient_attention(of[0], layers_of("cls"), of[1], 0)):
        with pytest.raises(ExplanationError) as caught:
            explain(network, photo_of(size))
        yield str(caught.value)


def test_a_network_without_attention_is_refused_with_what_can_explain_it():
    swin = SwinModel(SwinConfig(image_size=56, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=7))
    timm = torch.nn.Conv2d(3, 8, 3)
    timm.num_prefix_tokens, timm.patch_embed = 1, torch.nn.Module()
    timm.patch_embed.patch_size = (14, 14)
    for backbone, name in ((swin, "SwinModel"), (timm, "Conv2d"), (build_backbone("simple-cnn"), "SmallNetwork")):
        for message in refused(pooled(backbone)):
            assert f"with a class token, such as DINOv2; this is {name}. Ask for gradcam" in message


def test_a_network_without_a_class_token_is_refused():
    network = pooled(SiglipVisionModel(SiglipVisionConfig(intermediate_size=64, **TINY)))
    before = state(network)
    for message in refused(network):
        assert "attend from 4 x 4 patches and a class token to the same; this network's attend to [16]" in message
    assert state(network) == before


def test_a_class_or_head_that_is_not_there_is_refused():
    network = pooled(backbone_of("dinov2"), "cls")
    with pytest.raises(ExplanationError, match="class_index 3"):
        gradient_attention(network, layers_of("cls"), photo_of(56), 3)
    with pytest.raises(ExplanationError, match="linear, mlp or a comparator"):
        gradient_attention(network, [], photo_of(56), 0)


@pytest.fixture(scope="module", params=[("cls", 150), ("mean", 60)], ids=["cls", "mean"])
def planted(request):
    """With `cls`, seeds matter: a network may know a colour by attending to it less, which gradients show elsewhere."""
    pooling, steps = request.param
    torch.manual_seed(1)
    network = pooled(Dinov2Model(Dinov2Config(**TINY | {"image_size": PLANTED_SIZE})), pooling)
    return network, train(network, PLANTED_SIZE, steps=steps, rate=2e-3, dimension=32)


def test_the_peak_lies_in_the_mark_or_in_the_next_patch(planted):
    network, layers = planted
    photos, labels, corners = draw(30, PLANTED_SIZE, seed=1)
    assert (answers(network, layers, photos) == labels).mean() > 0.9
    hits = {"gradients": 0, "rollout": 0}
    for photo, label, (top, left) in zip(photos, labels, corners, strict=True):
        maps = {"gradients": gradient_attention(network, layers, photo, int(label)), "rollout": rollout(network, photo)}
        for name, values in maps.items():
            row, column = peak(values)
            hits[name] += top - PATCH <= row < top + MARK + PATCH and left - PATCH <= column < left + MARK + PATCH
    # 6 x 6 patches: chance is about one in four.
    assert hits["gradients"] >= 27
    # Rollout promises nothing of labels. A class token has nothing else to look at; patches see the mark by themselves.
    if network.pooling == "cls":
        assert hits["rollout"] >= 27


def test_random_weights_have_another_map(planted):
    network, layers = planted
    photos, labels, _ = draw(20, PLANTED_SIZE, seed=2)
    other_network, other_layers = randomised(network, 0), randomised_layers(layers, 0)
    same, network_too, rollouts = [], [], []
    for photo, label in zip(photos, labels, strict=True):
        values, rolled = gradient_attention(network, layers, photo, int(label)), rollout(network, photo)
        again = gradient_attention(network, layers, photo, int(label))
        other = gradient_attention(other_network, other_layers, photo, int(label))
        same.append(spearmanr(values.ravel(), again.ravel()).statistic)
        network_too.append(spearmanr(values.ravel(), other.ravel()).statistic)
        rollouts.append(spearmanr(rolled.ravel(), rollout(other_network, photo).ravel()).statistic)
    assert min(same) == pytest.approx(1)
    assert abs(np.mean(network_too)) < 0.3
    assert abs(np.mean(rollouts)) < 0.3
