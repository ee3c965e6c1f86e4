"""Parts of embeddings: they add up to what the encoder gives, lie where the patch lies, and follow the poolings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from transformers import SwinConfig, SwinModel

from data.images import read_pixels
from indexer import feature_maps
from indexer.encoders import EMBEDDED, EncoderCard, EncoderError, load_encoder
from indexer.feature_maps import PatchParts, load_patch_encoder, split_pooling
from indexer.networks import PooledNetwork, _pool_map, _pool_with_early, build_backbone
from indexer.runtimes import import_openvino, is_converted
from tests.indexer.fakes import CARD
from tests.indexer.test_encoders import MODELS, disturb, save
from tests.indexer.test_runtimes import COMBINATIONS, RUNS

ROOT = Path(__file__).parents[2]
DATASETS = ROOT.parent / "shared" / "datasets"
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty cache of converted networks."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODISTE_CACHE", str(folder))
        yield folder


def draw(side: int) -> NDArray[np.uint8]:
    """Three photos: noise, a dark one with a bright corner, and stripes on white."""
    photos = RANDOM.integers(0, 256, (3, side, side, 3)).astype(np.uint8)
    photos[1] //= 6
    photos[1, : side // 3, side // 2 :] = (220, 120, 40)
    photos[2] = 255
    photos[2, :, side // 4 : side // 2 : 3] = (30, 40, 90)
    return photos


def check_sums(card: EncoderCard, pixels: NDArray[np.uint8]) -> list[PatchParts]:
    """Holds the parts to the encoder's own embeddings; in fp32 to 1e-5."""
    wanted = load_encoder(card.name, pooling=card.pooling, runtime=card.runtime, precision=card.precision)
    parts = load_patch_encoder(card).encode_parts(pixels)
    found = np.stack([one.embedding for one in parts])
    expected = wanted.encode(pixels)
    assert found.shape == expected.shape == (len(pixels), card.dimension)
    assert all(one.parts.dtype == np.float32 for one in parts)
    assert all(one.parts.shape == (one.grid[0] * one.grid[1], card.dimension) for one in parts)
    if card.precision == "fp32":
        np.testing.assert_allclose(found, expected, atol=1e-5)
        # Or a constant would be as right.
        assert np.abs(expected[0] - expected[1]).max() > 1e-4
    else:
        assert (found * expected).sum(1).min() >= 0.999
    return parts


def card_of(name: Path | str, pooling: str, runtime: str = "torch", precision: str = "fp32") -> EncoderCard:
    from indexer.encoders import prepare_encoder

    return prepare_encoder(str(name), pooling=pooling, runtime=runtime, precision=precision).card


@pytest.mark.parametrize("pooling", ["mean+early", "mean", "gem"])
@pytest.mark.parametrize(("runtime", "precision"), COMBINATIONS)
def test_parts_of_the_embedded_encoder_add_up(pooling: str, runtime: str, precision: str) -> None:
    if (runtime, precision) == ("openvino", "bf16") and "BF16" not in import_openvino().Core().get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    ):
        pytest.skip("this processor has no bf16")
    parts = check_sums(card_of(EMBEDDED, pooling, runtime, precision), draw(224))
    assert {(one.grid, one.is_exact, one.remainder is None) for one in parts} == {((7, 7), True, True)}


@pytest.mark.parametrize("pooling", ["mean+early", "mean", "gem"])
def test_parts_of_real_photos_add_up(pooling: str) -> None:
    if not DATASETS.is_dir():
        pytest.skip(f"the real photos are not at {DATASETS}")
    paths = sorted(DATASETS.glob("clothing-small/validation/*/*.jpg"))
    pixels = np.stack([read_pixels(path, 224) for path in paths[:: len(paths) // 4][:4]])
    for runtime in ("torch", "openvino"):
        check_sums(card_of(EMBEDDED, pooling, runtime), pixels)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small model of each kind, saved as its library saves it; Swin with tokens and no class token."""
    torch.manual_seed(0)
    # 224 pixels, patches of 4, merged once: 28 x 28 tokens.
    swin = SwinConfig(image_size=224, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=7)
    models = {**{name: make() for name, make in MODELS.items()}, "swin": SwinModel(swin)}
    return {name: save(disturb(model), tmp_path_factory.mktemp(name)) for name, model in models.items()}


GRIDS = {"dinov2": (16, 16), "registers": (16, 16), "vit": (14, 14), "resnet": (28, 28), "swin": (28, 28)}
KINDS = [
    *((name, pooling) for name in ("dinov2", "registers", "vit") for pooling in ("cls", "mean", "cls+mean")),
    *((name, pooling) for name in ("resnet", "swin") for pooling in ("mean", "gem")),
]


@pytest.mark.parametrize(("name", "pooling"), KINDS)
def test_parts_of_a_transformers_folder_add_up(name: str, pooling: str, folders: dict[str, Path]) -> None:
    parts = check_sums(card_of(folders[name], pooling), draw(224))[0]
    assert parts.grid == GRIDS[name]
    assert parts.is_exact is (pooling != "cls")
    assert (parts.remainder is not None) is ("cls" in pooling)


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean"])
def test_patches_are_the_tokens_of_transformers_without_class_token_and_registers(
    pooling: str, folders: dict[str, Path]
) -> None:
    model = type(MODELS["registers"]()).from_pretrained(folders["registers"]).eval()
    pixels = draw(224)[:1]
    # The statistics that `save` writes. (B, S, S, 3) to (B, 3, S, S)
    x = (torch.from_numpy(pixels).float() / 255 - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.2, 0.25, 0.3])
    with torch.inference_mode():
        tokens = model(pixel_values=x.permute(0, 3, 1, 2)).last_hidden_state[0].numpy()
    # The class token, four registers, 16 x 16 patches row by row.
    class_token, patches = tokens[0], tokens[5:]
    mean = patches.mean(0)
    found = load_patch_encoder(card_of(folders["registers"], pooling)).encode_parts(pixels)[0]
    assert found.remainder is None or found.remainder.shape == (64 if pooling == "cls+mean" else 32,)
    if pooling == "cls+mean":
        length = np.hypot(np.linalg.norm(class_token), np.linalg.norm(mean))
        np.testing.assert_allclose(found.parts[:, :32], 0)
        np.testing.assert_allclose(found.parts[:, 32:], patches / 256 / length, atol=1e-6)
        np.testing.assert_allclose(found.remainder, np.concatenate([class_token / length, 0 * mean]), atol=1e-6)
    else:
        np.testing.assert_allclose(found.parts, patches / 256 / np.linalg.norm(mean), atol=1e-6)


def make_run(folder: Path, name: str, **config: Any) -> Path:
    """A run of a network of `RUNS` with random weights."""
    network, options = RUNS[name]
    torch.manual_seed(0)
    state = build_backbone(network).state_dict()
    content = {"modiste_checkpoint": 1, "network": network, **options, **config}
    (folder / "config.json").write_text(json.dumps(content))
    save_file({f"backbone.{key}": value.contiguous() for key, value in state.items()}, folder / "best.safetensors")
    return folder


RUNTIMES = ("torch", "openvino")
# An adapter lifts photos to 224 pixels before the network sees them.
RUN_GRIDS = {
    "fashionnet-small": (4, 4),
    "simple-cnn": (7, 7),
    "adapter": (56, 56),
    "resnet": (8, 8),
    "vit": (3, 3),
    "adapted-dinov2": (16, 16),
}


@pytest.mark.parametrize("name", RUNS)
def test_parts_of_every_network_of_a_run_add_up(name: str, tmp_path: Path) -> None:
    options = RUNS[name][1]
    pixels = draw(options["image_size"])
    run = make_run(tmp_path, name)
    found = [check_sums(card_of(run, options.get("pooling", "mean"), runtime), pixels) for runtime in RUNTIMES]
    for one, other in zip(*found, strict=True):
        assert one.grid == other.grid == RUN_GRIDS[name]
        np.testing.assert_allclose(one.parts, other.parts, atol=1e-5)


def test_the_parts_of_a_photo_lie_where_it_is_not_blank() -> None:
    """Textured at the top right, plain elsewhere: rows and columns are not mixed up, nor the two maps."""
    pixels = np.full((1, 224, 224, 3), 255, np.uint8)
    pixels[0, :64, 160:] = RANDOM.integers(0, 256, (64, 64, 3))
    parts = load_patch_encoder(card_of(EMBEDDED, "mean+early", "openvino")).encode_parts(pixels)[0].parts
    # (P, D) to (7, 7, D): the last map's channels, and the early map's.
    for channels in (slice(1280), slice(1280, None)):
        strength = np.linalg.norm(parts.reshape(7, 7, -1)[:, :, channels], axis=2)
        assert strength[:2, 5:].mean() > 3 * strength[3:, :4].mean()
        row, column = np.unravel_index(strength.argmax(), strength.shape)
        assert row < 3
        assert column > 3


def split(pooling: str, *maps: Any) -> PatchParts:
    return split_pooling([np.asarray(one, np.float32) for one in maps], replace(CARD, pooling=pooling))


def test_the_mean_by_hand() -> None:
    # Two patches of two numbers: the mean is (3, 4), of length 5, and each brings half of itself over 5.
    found = split("mean", [[[6, 0], [0, 8]]])
    np.testing.assert_allclose(found.parts, [[0.6, 0], [0, 0.8]], rtol=1e-6)
    assert found.grid == (1, 2)
    assert split("mean", [[[6, 0]], [[0, 8]]]).grid == (2, 1)


def test_the_generalised_mean_by_hand() -> None:
    # One channel of 1 and 2: the powers are 1 and 8, so they bring a ninth and eight ninths of it, whatever its scale.
    # The other is 3 in both patches: half each, of 3 beside the cube root of 9/2.
    found = split("gem", [[[1, 3], [2, 3]]])
    pooled = np.array([4.5 ** (1 / 3), 3])
    unit = pooled / np.linalg.norm(pooled)
    np.testing.assert_allclose(found.parts, [[unit[0] / 9, unit[1] / 2], [unit[0] * 8 / 9, unit[1] / 2]], rtol=1e-6)


def test_a_class_token_beside_the_mean_by_hand() -> None:
    # A class token of length 12 beside a mean of length 5: 13 together.
    found = split("cls+mean", [[6, 0], [0, 8], [0, 0], [6, 8]], [0, 12])
    expected = np.array([[6, 0], [0, 8], [0, 0], [6, 8]]) / 4 / 13
    np.testing.assert_allclose(found.parts, np.hstack([np.zeros((4, 2)), expected]), rtol=1e-6)
    assert found.remainder is not None
    np.testing.assert_allclose(found.remainder, [0, 12 / 13, 0, 0], rtol=1e-6)
    assert (found.grid, found.is_exact) == ((2, 2), True)


def test_a_class_token_alone_by_hand() -> None:
    # The patches' mean, (3, 4) of length 5, stands in for the class token, (0, 1) at unit length.
    found = split("cls", [[6, 0], [0, 8], [0, 0], [6, 8]], [0, 12])
    np.testing.assert_allclose(found.parts, np.array([[6, 0], [0, 8], [0, 0], [6, 8]]) / 20, rtol=1e-6)
    assert found.remainder is not None
    np.testing.assert_allclose(found.remainder, [-0.6, 0.2], rtol=1e-6)
    np.testing.assert_allclose(found.embedding, [0, 1], atol=1e-6)
    assert not found.is_exact


# The early map of 224 pixels, one that the last map does not divide, and one no larger.
@pytest.mark.parametrize("sides", [((7, 7), (28, 28)), ((4, 4), (13, 13)), ((2, 3), (4, 7)), ((1, 1), (1, 1))])
def test_an_early_map_beside_the_mean_as_a_plain_loop(sides: tuple[tuple[int, int], tuple[int, int]]) -> None:
    (height, width), (rows, columns) = sides
    last, early = RANDOM.random((height, width, 6), np.float32), RANDOM.normal(size=(rows, columns, 3))
    early = early.astype(np.float32)
    tensors = [torch.from_numpy(one).permute(2, 0, 1)[None] for one in (early, last)]
    activity = tensors[1].sum(1, keepdim=True) ** 2
    weights = torch.nn.functional.interpolate(activity, size=(rows, columns), mode="bilinear")[0, 0].numpy()
    colour = (early * weights[:, :, None]).sum((0, 1))
    means = last.mean((0, 1))
    expected = np.zeros((height, width, 9))
    expected[:, :, :6] = last / (height * width) / np.linalg.norm(means)
    for row in range(rows):
        for column in range(columns):
            cell = int((row + 0.5) * height / rows), int((column + 0.5) * width / columns)
            expected[cell][6:] += 0.5 * early[row, column] * weights[row, column] / np.linalg.norm(colour)
    found = split("mean+early", last, early)
    # Of a first half of length 1 and a second of length 0.5.
    np.testing.assert_allclose(found.parts, expected.reshape(-1, 9) / np.sqrt(1.25), atol=1e-6)
    pooled = _pool_with_early(*tensors)[0].numpy()
    np.testing.assert_allclose(found.embedding, pooled / np.linalg.norm(pooled), atol=1e-6)


def test_a_generalised_mean_with_dead_and_negative_channels_is_that_of_torch() -> None:
    last = RANDOM.normal(size=(3, 2, 5)).astype(np.float32)
    last[:, :, 0] = 0
    pooled = _pool_map(torch.from_numpy(last).permute(2, 0, 1)[None], "gem")[0].numpy()
    np.testing.assert_allclose(split("gem", last).embedding, pooled / np.linalg.norm(pooled), atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "mean+early", "cls", "cls+mean"])
@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_maps_that_give_no_embedding(pooling: str, value: float) -> None:
    last = np.full((2, 2, 3) if pooling == "mean+early" else (4, 3), value)
    others = {"mean+early": [np.full((4, 4, 2), value)], "cls": [np.ones(3)], "cls+mean": [np.full(3, value)]}
    with np.errstate(invalid="ignore"), pytest.raises(EncoderError, match="'fake-histogram' gave an embedding that is"):
        split(pooling, last, *others.get(pooling, []))


def test_patches_that_form_no_square(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tokens(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(x), 12, 24)

    network = PooledNetwork(Tokens(), CARD)
    run = lambda pixels: [one.numpy() for one in network.maps(torch.from_numpy(pixels))]  # noqa: E731
    monkeypatch.setattr(feature_maps, "load_unpooled", lambda *_: type("Fake", (), {"run": staticmethod(run)})())
    with pytest.raises(EncoderError, match=r"'fake-histogram' makes 12 patches .* no square.* by occlusion"):
        feature_maps.PatchEncoder(None, CARD)  # type: ignore[arg-type]


def test_many_photos_are_split_as_one_by_one_also_in_threads() -> None:
    encoder = load_patch_encoder(card_of(EMBEDDED, "mean+early", "openvino"))
    pixels = np.concatenate([draw(224), draw(224)[:2]])
    before = pixels.copy()
    together = encoder.encode_parts(pixels)
    with ThreadPoolExecutor(3) as pool:
        alone = list(pool.map(lambda number: encoder.encode_parts(pixels[number : number + 1])[0], [0, 1, 2, 3, 4] * 2))
    assert len(together) == 5
    for number, one in enumerate(alone):
        np.testing.assert_allclose(one.parts, together[number % 5].parts, atol=1e-5)
    np.testing.assert_array_equal(pixels, before)
    assert encoder.encode_parts(pixels[:0]) == []


def test_weights_that_are_gone_or_others_now_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, "simple-cnn")
    card = card_of(run, "gem")
    assert load_patch_encoder(card).card == card
    save_file({"backbone.x": torch.zeros(1)}, run / "best.safetensors")
    with pytest.raises(EncoderError, match="weights_sha256"):
        load_patch_encoder(card)
    (run / "best.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"has no best\.safetensors"):
        load_patch_encoder(card)


SECOND_LOAD = """
import sys
import numpy as np
from indexer.encoders import EncoderCard
from indexer.feature_maps import load_patch_encoder
found = load_patch_encoder(EncoderCard.from_json(sys.argv[1])).encode_parts(np.load(sys.argv[2]))
np.save(sys.argv[3], found[0].parts)
assert not [name for name in sys.modules if name.partition(".")[0] in ("torch", "transformers")]
"""


def test_a_network_is_converted_up_to_its_maps_once_and_a_second_start_needs_no_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("MODISTE_CACHE", str(cache))
    (tmp_path / "run").mkdir()
    card = card_of(make_run(tmp_path / "run", "simple-cnn"), "gem", "openvino")
    load_encoder(card.name, pooling="gem", runtime="openvino", precision="fp32")
    # The encoder itself is another conversion.
    assert is_converted(card)
    assert not is_converted(card, maps=True)
    pixels = draw(28)
    wanted = load_patch_encoder(card).encode_parts(pixels)
    assert is_converted(card, maps=True)
    converted = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    # Three files for the encoder and three for the maps.
    assert len(converted) == 6
    np.save(tmp_path / "pixels.npy", pixels)
    command = [
        sys.executable,
        "-c",
        SECOND_LOAD,
        card.to_json(),
        *(str(tmp_path / f"{x}.npy") for x in ("pixels", "found")),
    ]
    environment = {**os.environ, "MODISTE_CACHE": str(cache)}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), wanted[0].parts, atol=1e-6)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()} == converted


@pytest.mark.parametrize("pooling", ["cls", "cls+mean"])
def test_the_class_token_comes_out_of_openvino_too(pooling: str, folders: dict[str, Path]) -> None:
    check_sums(card_of(folders["dinov2"], pooling, "openvino"), draw(224)[:2])
