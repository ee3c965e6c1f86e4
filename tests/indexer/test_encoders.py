"""Encoders: which weights are found, what their card says, and that they compute what their own library computes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    BitImageProcessorPil,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTModel,
)

from indexer.encoders import (
    DEFAULT,
    EMBEDDED,
    KNOWN,
    EncoderCard,
    EncoderError,
    check_same_encoder,
    find_weights,
    load_encoder,
    load_encoder_of,
    prepare_encoder,
    unit_length,
)
from indexer.networks import build_backbone, load_backbone
from indexer.pipeline import refresh
from tests.indexer.fakes import CARD, FakeEncoder, catalog_of

ROOT = Path(__file__).parents[2]
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3)).astype(np.uint8)
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
REGISTERS = 4

# Another value of each field of a card.
OTHERS = {
    "weights_sha256": "1" * 64,
    "runtime": "openvino",
    "precision": "bf16",
    "pooling": "cls",
    "dimension": 25,
    "image_size": 33,
    "mean": (0.5, 0.456, 0.406),
    "std": (0.5, 0.224, 0.225),
    "preprocessing": CARD.preprocessing + 1,
}


def test_every_field_but_the_name_changes_the_fingerprint() -> None:
    assert {field.name for field in fields(EncoderCard)} == {"name", *OTHERS}
    prints = {replace(CARD, **{name: value}).fingerprint for name, value in OTHERS.items()}
    assert len(prints | {CARD.fingerprint}) == len(OTHERS) + 1
    assert replace(CARD, name="another").fingerprint == CARD.fingerprint
    # 16 bytes; the same in every process and release, or every gallery would be a stranger's.
    assert len(bytes.fromhex(CARD.fingerprint)) == 16
    assert replace(CARD, preprocessing=1).fingerprint == "beea35b7d2a4792fe812a8b6c641a346"


def test_a_card_comes_back_from_json() -> None:
    for card in (CARD, replace(CARD, name='ü "x"', mean=(0.1, 1 / 3, 1e-17))):
        assert "\n" not in card.to_json()
        assert EncoderCard.from_json(card.to_json()) == card
        assert hash(EncoderCard.from_json(card.to_json())) == hash(card)


@pytest.mark.parametrize("name", OTHERS)
def test_another_encoder_is_refused_with_what_differs(name: str) -> None:
    other = replace(CARD, **{name: OTHERS[name]})
    check_same_encoder(CARD, replace(CARD, name="another"), "Gallery x")
    with pytest.raises(EncoderError) as caught:
        check_same_encoder(CARD, other, "Gallery x")
    assert str(caught.value).startswith("Gallery x holds 24-number embeddings of 'fake-histogram' (torch fp32, mean)")
    assert f"({name} {OTHERS[name]}, not {getattr(CARD, name)})" in str(caught.value)


def test_the_known_encoders() -> None:
    assert EMBEDDED in KNOWN
    assert DEFAULT in KNOWN
    assert all(spec.name == name for name, spec in KNOWN.items())
    assert len(KNOWN) == 9


def test_the_embedded_encoder_is_at_hand() -> None:
    weights = find_weights(EMBEDDED)
    card = weights.card(pooling=None, runtime="torch", precision="fp32")
    assert (card.name, card.pooling, card.dimension, card.image_size) == (EMBEDDED, "mean+early", 1320, 224)
    assert card.dimension == KNOWN[EMBEDDED].dimension
    # `sha256sum efficientnet-lite0-57934424.pth`; the published name carries its beginning.
    assert card.weights_sha256.startswith("57934424")
    dimensions = {
        name: weights.card(pooling=name, runtime="torch", precision="fp32").dimension for name in weights.poolings
    }
    assert dimensions == {"mean+early": 1320, "mean": 1280, "gem": 1280}
    with pytest.raises(
        EncoderError, match=r"Encoder 'efficientnet-lite0' pools mean\+early or mean or gem; got --pooling cls"
    ):
        weights.card(pooling="cls", runtime="torch", precision="fp32")


def save(model: Any, folder: Path) -> Path:
    """The model as a `transformers` folder, with a processor that leaves a photo of 224 pixels as it is."""
    model.save_pretrained(folder)
    size = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}
    BitImageProcessorPil(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.25, 0.3], **size).save_pretrained(folder)
    return folder


def disturb(model: Any) -> Any:
    """Every weight away from its zeros and ones, so that none can be forgotten."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


MODELS: dict[str, Callable[[], Any]] = {
    # Trained at 56 pixels, asked at 224: its positions are interpolated.
    "dinov2": lambda: Dinov2Model(Dinov2Config(image_size=56, patch_size=14, **TINY)),
    "registers": lambda: Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(image_size=56, patch_size=14, num_register_tokens=REGISTERS, **TINY)
    ),
    "vit": lambda: ViTModel(ViTConfig(image_size=224, patch_size=16, intermediate_size=64, **TINY)),
    "resnet": lambda: ResNetModel(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ),
}
POOLINGS = {
    "dinov2": ("cls", "mean", "cls+mean"),
    "registers": ("cls", "mean", "cls+mean"),
    "vit": ("cls", "mean", "cls+mean"),
    "resnet": ("mean", "gem"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small model of each kind, saved as its library saves it."""
    torch.manual_seed(0)
    return {name: save(disturb(make()), tmp_path_factory.mktemp(name)) for name, make in MODELS.items()}


def reference(name: str, folder: Path, pooling: str, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What `transformers` itself makes of the photos, pooled by hand."""
    processor = BitImageProcessorPil.from_pretrained(folder)
    model = type(MODELS[name]()).from_pretrained(folder).eval()
    values = processor([Image.fromarray(photo) for photo in pixels], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        hidden = model(pixel_values=values).last_hidden_state.double()
    if hidden.ndim == 4:
        # (B, C, h, w) to (B, C)
        pooled = hidden.mean((2, 3)) if pooling == "mean" else (hidden**3).mean((2, 3)) ** (1 / 3)
    else:
        patches = hidden[:, 1 + (REGISTERS if name == "registers" else 0) :]
        side = 224 // (16 if name == "vit" else 14)
        assert patches.shape[1] == side**2
        parts = {"cls": hidden[:, 0], "mean": patches.mean(1)}
        pooled = torch.cat([parts[part] for part in pooling.split("+")], dim=1)
    return (pooled / pooled.norm(dim=1, keepdim=True)).float().numpy()  # type: ignore[no-any-return]


@pytest.mark.parametrize(("name", "pooling"), [(name, one) for name, several in POOLINGS.items() for one in several])
def test_a_transformers_folder_gives_what_transformers_gives(folders: dict[str, Path], name: str, pooling: str) -> None:
    encoder = load_encoder(str(folders[name]), pooling=pooling, runtime="torch", precision="fp32")
    card = encoder.card
    assert (card.image_size, card.mean, card.std) == (224, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    expected = reference(name, folders[name], pooling, PIXELS)
    # Or a constant would be as right.
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    found = encoder.encode(PIXELS)
    assert found.shape == (3, card.dimension)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert find_weights(str(folders[name])).poolings == POOLINGS[name]


def test_a_folder_is_known_by_its_full_path(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folders["vit"].parent)
    weights = find_weights(folders["vit"].name)
    assert weights.name == str(folders["vit"])
    assert (weights.kind, weights.width, weights.file) == (
        "transformers",
        32,
        Path(folders["vit"].name, weights.file.name),
    )


@pytest.mark.parametrize(
    ("config", "processor", "size"),
    [
        # DINOv2's config says 518 and its processor crops to 224.
        ({"model_type": "dinov2", "image_size": 518}, {"crop_size": {"height": 224, "width": 224}}, 224),
        ({"model_type": "dinov2", "image_size": 518}, None, 224),
        ({"model_type": "vit", "image_size": 384}, None, 384),
        ({"model_type": "vit", "image_size": 384}, {"size": {"height": 256, "width": 256}}, 256),
        ({"model_type": "vit"}, {"size": {"shortest_edge": 288}}, 288),
        ({"model_type": "resnet"}, {"size": 160}, 160),
    ],
)
def test_the_size_is_the_one_that_the_folder_prepares(
    tmp_path: Path, config: dict[str, Any], processor: dict[str, Any] | None, size: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8, "patch_size": 16, **config}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    if processor is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    assert find_weights(str(tmp_path)).image_size == size


def make_run(folder: Path, network: Any, state: dict[str, torch.Tensor], **config: Any) -> Path:
    """A run folder as `finetune` leaves it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"modiste_checkpoint": 1, "network": network, **config}))
    weights = {f"backbone.{key}": value.clone().contiguous() for key, value in state.items()}
    save_file({**weights, "heads.category.weight": torch.zeros(3, 3)}, folder / "best.safetensors")
    return folder


def lite0_state() -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(find_weights(EMBEDDED).file, weights_only=True)
    return {key: value for key, value in state.items() if not key.startswith("_fc")}


def test_a_run_of_the_embedded_network(tmp_path: Path) -> None:
    """Its weights and not the embedded ones: the same answer for the same weights, another for others."""
    expected = load_encoder(EMBEDDED, runtime="torch", precision="fp32").encode(PIXELS)
    same = make_run(tmp_path / "same", EMBEDDED, lite0_state())
    encoder = load_encoder(str(same), runtime="torch", precision="fp32")
    assert (encoder.card.name, encoder.card.dimension) == (str(same), 1320)
    np.testing.assert_allclose(encoder.encode(PIXELS), expected, atol=1e-6)
    state = lite0_state()
    state["_conv_head.weight"] = state["_conv_head.weight"].flip(0)
    other = load_encoder(str(make_run(tmp_path / "other", EMBEDDED, state)), runtime="torch", precision="fp32")
    assert other.card.weights_sha256 != encoder.card.weights_sha256
    assert np.abs(other.encode(PIXELS) - expected).max() > 1e-2


def test_a_run_says_its_own_size(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", EMBEDDED, lite0_state(), image_size=192)
    assert find_weights(str(folder)).image_size == 192


def test_a_run_of_a_transformers_network(tmp_path: Path, folders: dict[str, Path]) -> None:
    source = folders["dinov2"]
    config = json.loads((source / "config.json").read_text())
    statistics = {"image_size": 224, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}
    run = make_run(tmp_path / "run", config, Dinov2Model.from_pretrained(source).state_dict(), **statistics)
    for pooling in POOLINGS["dinov2"]:
        found = load_encoder(str(run), pooling=pooling, runtime="torch", precision="fp32").encode(PIXELS)
        np.testing.assert_allclose(found, reference("dinov2", source, pooling, PIXELS), atol=1e-5)


@pytest.mark.parametrize(
    ("network", "width", "poolings"),
    [
        (EMBEDDED, 1280, ("mean", "gem", "mean+early")),
        ("simple-cnn", 128, ("mean", "gem")),
        ({"model_type": "resnet", "hidden_sizes": [8, 16]}, 16, ("mean", "gem")),
        ({"model_type": "dinov2", "hidden_size": 8, "patch_size": 14}, 8, ("mean", "cls", "cls+mean")),
        ({"timm": "x", "width": 24, "poolings": ["cls", "mean"]}, 24, ("mean", "cls")),
        ({"adapter": True, "backbone": "fashionnet-medium"}, 448, ("mean", "gem")),
    ],
)
def test_what_a_run_says_of_its_network(tmp_path: Path, network: Any, width: int, poolings: tuple[str, ...]) -> None:
    """The pooling that was trained is the default, whatever the network's own; torch is not needed to know."""
    preparation = {"image_size": 56, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    run = make_run(tmp_path / "run", network, {}, pooling="mean", **preparation)
    weights = find_weights(str(run))
    assert (weights.kind, weights.width, weights.image_size) == ("run", width, 56)
    assert (weights.mean, weights.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert weights.poolings[0] == "mean"
    assert set(weights.poolings) == set(poolings)


def test_a_run_that_pools_as_its_network_cannot(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "simple-cnn", {}, pooling="cls")
    with pytest.raises(EncoderError, match=r"Run .*run pools 'cls'; its network allows mean or gem\."):
        find_weights(str(run))


def test_a_run_of_an_unknown_network(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no vision model that Modiste knows"):
        find_weights(str(make_run(tmp_path / "run", "resnet99", {})))
    with pytest.raises(
        EncoderError, match=r"no network 'resnet99'; the ones known by name are efficientnet-lite0, fash"
    ):
        build_backbone("resnet99")


def test_weights_saved_in_half_precision_are_run_in_fp32(tmp_path: Path, folders: dict[str, Path]) -> None:
    folder = save(Dinov2Model.from_pretrained(folders["dinov2"]).bfloat16(), tmp_path / "half")
    found = load_encoder(str(folder), runtime="torch", precision="fp32").encode(PIXELS)
    np.testing.assert_allclose(found, reference("dinov2", folders["dinov2"], "cls", PIXELS), atol=0.02)
    assert {one.dtype for one in load_backbone(find_weights(str(folder))).parameters()} == {torch.float32}


def test_a_run_of_a_later_modiste(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", EMBEDDED, {}, modiste_checkpoint=2)
    with pytest.raises(EncoderError, match=r"is a run of a newer Modiste \(modiste_checkpoint 2\)"):
        find_weights(str(folder))


def test_a_run_whose_weights_are_not_the_networks(tmp_path: Path, folders: dict[str, Path]) -> None:
    config = json.loads((folders["vit"] / "config.json").read_text())
    state = ViTModel.from_pretrained(folders["vit"]).state_dict()
    state.pop("layernorm.weight")
    with pytest.raises(
        EncoderError, match=r'cannot be loaded: (.|\n)*Missing key\(s\) in state_dict: "layernorm.weight"'
    ):
        load_encoder(str(make_run(tmp_path / "less", config, state)), runtime="torch")
    with pytest.raises(EncoderError, match=r"has no weight whose name starts with 'backbone\.'"):
        load_encoder(str(make_run(tmp_path / "none", config, {})), runtime="torch")


def test_a_run_of_the_embedded_network_that_lacks_weights(tmp_path: Path) -> None:
    state = lite0_state()
    state.pop("_conv_head.weight")
    with pytest.raises(EncoderError, match="cannot be loaded"):
        load_encoder(str(make_run(tmp_path / "run", EMBEDDED, state)), runtime="torch")


def test_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(
        EncoderError, match=r"no encoder 'dinov3': it is neither a folder nor one of efficientnet-lite0, "
    ):
        find_weights("dinov3")
    with pytest.raises(EncoderError, match="neither a folder"):
        find_weights(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"has no config\.json in "),
        ("{", r"config\.json of encoder .* cannot be read: "),
        ("[]", r"should hold a JSON object"),
        ('{"hidden_size": 8}', r"has no model\.safetensors\. Save the model with `save_pretrained\(folder\)`; pickled"),
        ('{"modiste_checkpoint": 1, "network": {}}', r"has no best\.safetensors"),
    ],
)
def test_a_folder_without_an_encoder(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    # Pickled weights are never opened, present or not.
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(EncoderError, match=message):
        find_weights(str(tmp_path))


def test_a_folder_that_is_no_vision_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(EncoderError, match="no vision model that Modiste knows: its config has no width"):
        find_weights(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "nothing-known", "hidden_size": 8}')
    with pytest.raises(EncoderError, match="is of type 'nothing-known', which transformers does not know"):
        load_encoder(str(tmp_path), runtime="torch")


@pytest.mark.parametrize("name", ["vit", "run"])
def test_damaged_weights(tmp_path: Path, folders: dict[str, Path], name: str) -> None:
    if name == "run":
        folder = make_run(tmp_path / "copy", EMBEDDED, lite0_state())
    else:
        folder = Path(shutil.copytree(folders[name], tmp_path / "copy"))
    (file,) = folder.glob("*.safetensors")
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\xff" * 100):
        file.write_bytes(damaged)
        for runtime in ("torch", "openvino"):
            with pytest.raises(EncoderError, match=rf"The weights of '.*copy' \(.*{file.name}\) cannot be loaded: "):
                load_encoder(str(folder), runtime=runtime)


def test_weights_that_give_no_embedding(tmp_path: Path) -> None:
    """A zero or a NaN has no direction: nothing could be near it."""
    for number, value in enumerate((float("nan"), 0.0)):
        model = ViTModel(ViTConfig(image_size=224, patch_size=16, intermediate_size=64, **TINY))
        torch.nn.init.constant_(model.layernorm.weight, value)
        torch.nn.init.constant_(model.layernorm.bias, value)
        encoder = load_encoder(str(save(model, tmp_path / f"{number}")), runtime="torch", precision="fp32")
        with pytest.raises(EncoderError, match="gave an embedding that is zero or not finite; its weights are damaged"):
            encoder.encode(PIXELS)


def test_one_bad_embedding_among_good_ones() -> None:
    good = np.array([[3, 4], [0, -2]], np.float32)
    unit = unit_length(good, "x")
    np.testing.assert_array_equal(unit, np.array([[0.6, 0.8], [0, -1]], np.float32))
    assert unit.dtype == np.float32
    assert unit.flags.c_contiguous
    for value in (0.0, np.nan, np.inf):
        with pytest.raises(EncoderError, match="Encoder 'x' gave an embedding that is zero or not finite"):
            unit_length(np.vstack([good, np.array([[value, value]], np.float32)]), "x")


def test_a_gallery_finds_its_encoder_again(tmp_path: Path, folders: dict[str, Path]) -> None:
    folder = Path(shutil.copytree(folders["dinov2"], tmp_path / "copy"))
    card = load_encoder(str(folder), pooling="cls+mean", runtime="torch", precision="fp32").card
    again = load_encoder_of(EncoderCard.from_json(card.to_json()))
    assert again.card == card
    save(disturb(disturb(MODELS["dinov2"]())), folder)
    with pytest.raises(EncoderError, match=r"The gallery holds 64-number embeddings.*weights_sha256 .*, not "):
        load_encoder_of(card)
    shutil.rmtree(folder)
    with pytest.raises(EncoderError, match="neither a folder"):
        load_encoder_of(card)


def test_describing_an_encoder_does_not_load_it(folders: dict[str, Path], tmp_path: Path) -> None:
    lazy = prepare_encoder(str(folders["vit"]), runtime="torch", precision="fp32")
    assert lazy.card == lazy.load().card
    # The card is all that an unchanged gallery needs.
    fake = FakeEncoder(lazy.card)
    refresh(catalog_of([]), tmp_path / "gallery", fake.lazy)
    assert fake.loads == 0


HUB = """
import sys
from indexer.encoders import EncoderError, find_weights
for name, download in (("dinov2-small", True), ("dinov2-base", False), ("dinov2-large-reg", True)):
    try:
        print(name, find_weights(name, download=download).width)
    except EncoderError as error:
        print(name, error)
assert "torch" not in sys.modules
"""


def test_a_hub_encoder_without_the_hub(tmp_path: Path, folders: dict[str, Path]) -> None:
    """In a process of its own, because the hub's client reads its environment once."""
    # What the hub's client leaves: weights for one, the configuration alone for another.
    for repo in ("dinov2-small", "dinov2-base"):
        cached = tmp_path / "hub" / f"models--facebook--{repo}"
        (cached / "refs").mkdir(parents=True)
        (cached / "refs" / "main").write_text("0" * 40)
        shutil.copytree(folders["dinov2"], cached / "snapshots" / ("0" * 40))
    (cached / "snapshots" / ("0" * 40) / "model.safetensors").unlink()
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment = {key: value for key, value in environment.items() if key not in ("HF_HUB_CACHE", "HF_TOKEN")}
    command = [sys.executable, "-W", "error", "-c", HUB]
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    cached_line, base, registers = done.stdout.splitlines()
    assert cached_line == "dinov2-small 32"
    missing = (
        "{0} The weights of '{0}' are not on this machine and the hub ({1}) could not be reached. "
        "Use `--encoder efficientnet-lite0`, which comes with Modiste, or `--encoder FOLDER` with a downloaded {1}."
    )
    assert base == missing.format("dinov2-base", "facebook/dinov2-base")
    assert registers == missing.format("dinov2-large-reg", "facebook/dinov2-with-registers-large")


def test_no_code_comes_with_weights(tmp_path: Path, folders: dict[str, Path]) -> None:
    """A folder that names its own Python is loaded with the library's class, and the Python is left alone."""
    folder = Path(shutil.copytree(folders["vit"], tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Evil", "AutoConfig": "evil.EvilConfig"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    found = load_encoder(str(folder), runtime="torch", precision="fp32").encode(PIXELS)
    np.testing.assert_allclose(found, reference("vit", folders["vit"], "cls", PIXELS), atol=1e-5)
    assert not (tmp_path / "ran").exists()


def test_the_card_is_json_ready() -> None:
    assert json.loads(CARD.to_json()) == json.loads(json.dumps(asdict(CARD)))
