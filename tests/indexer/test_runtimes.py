"""One contract for every runtime and precision, with torch in fp32 as the reference and golden vectors from outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from data.images import read_pixels
from data.sample import write_sample
from indexer import runtimes
from indexer.encoders import EMBEDDED, Encoder, EncoderError, find_weights, load_encoder
from indexer.encoding import encode_across
from indexer.networks import build_backbone
from indexer.runtimes import bf16_pays, cache_folder, cpu_count, import_openvino, resolve_runtime

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
DATASETS = ROOT.parent / "shared" / "datasets"
REAL = 20
COMBINATIONS = [("torch", "fp32"), ("torch", "bf16"), ("openvino", "fp32"), ("openvino", "bf16")]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty cache of converted networks."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODISTE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module", params=COMBINATIONS, ids="-".join)
def encoder(request: pytest.FixtureRequest, cache: Path) -> Encoder:
    """The embedded encoder in each runtime and precision that this processor has."""
    runtime, precision = request.param
    if (runtime, precision) == ("openvino", "bf16"):
        capabilities = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if "BF16" not in capabilities:
            pytest.skip("this processor has no bf16")
    return load_encoder(EMBEDDED, runtime=runtime, precision=precision)


@pytest.fixture(scope="module")
def reference() -> Encoder:
    return load_encoder(EMBEDDED, runtime="torch", precision="fp32")


def golden_pixels() -> NDArray[np.uint8]:
    return np.stack([read_pixels(path, 224) for path in sorted(GOLDEN.glob("*.jpg"))])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.uint8]:
    """Twelve photos of the sample catalog."""
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, count=12, seed=3, workers=1)
    paths = sorted(folder.rglob("*.jpg"))
    assert len(paths) == 12
    return np.stack([read_pixels(path, 224) for path in paths])


@pytest.fixture(scope="module")
def real() -> NDArray[np.uint8]:
    """Twenty photos of people's clothes on messy backgrounds and of a studio."""
    if not DATASETS.is_dir():
        pytest.skip(f"the real photos are not at {DATASETS}")
    messy = sorted(DATASETS.glob("clothing-small/validation/*/*.jpg"))
    studio = sorted(DATASETS.glob("fashion-products/images/*.jpg"))
    chosen = [*messy[:: len(messy) // 10][:10], *studio[:: len(studio) // 10][:10]]
    assert len(chosen) == REAL
    return np.stack([read_pixels(path, 224) for path in chosen])


def cosines(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """The cosine of each pair of rows."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    both: NDArray[np.float64] = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return both


def check_close(encoder: Encoder, reference: Encoder, pixels: NDArray[np.uint8], *, bf16_mean: float) -> None:
    """As near to torch in fp32 as the precision promises, and in that precision and no other."""
    found, wanted = encoder.encode(pixels), reference.encode(pixels)
    agreement = cosines(found, wanted)
    if encoder.card.precision == "fp32":
        assert agreement.min() >= 0.9999
        # bf16 in disguise would be off by a thousandth.
        assert np.abs(found - wanted).max() < 1e-5
    else:
        assert agreement.mean() >= bf16_mean
        assert agreement.min() >= 0.99
        assert np.abs(found - wanted).max() > 1e-4


def test_drawn_photos_give_what_the_reference_gives(
    encoder: Encoder, reference: Encoder, drawn: NDArray[np.uint8]
) -> None:
    # Their flat white backdrops lose more: 0.9987 to 0.9989, where real photos have 0.9993 to 0.9994.
    check_close(encoder, reference, drawn, bf16_mean=0.998)


def test_real_photos_give_what_the_reference_gives(
    encoder: Encoder, reference: Encoder, real: NDArray[np.uint8]
) -> None:
    check_close(encoder, reference, real, bf16_mean=0.999)


def test_golden_photos_give_what_an_independent_script_gave(encoder: Encoder) -> None:
    """Made by make_golden.py with none of our code: an upgrade of anything cannot move embeddings unseen."""
    golden = np.load(GOLDEN / "embeddings.npy")
    assert (golden.shape, golden.dtype) == ((5, 1320), np.float32)
    found = encoder.encode(golden_pixels())
    assert cosines(found, golden).min() >= (0.9999 if encoder.card.precision == "fp32" else 0.99)
    if encoder.card.precision == "fp32":
        # Measured 4e-7; a divisor of 127 for 128 would pass by cosine alone.
        np.testing.assert_allclose(found, golden, atol=1e-5)
    # They are five different photos.
    others = [cosines(golden[[number]], golden[[other]])[0] for number in range(5) for other in range(number)]
    assert max(others) < 0.95


def test_embeddings_are_float32_of_unit_length(encoder: Encoder, drawn: NDArray[np.uint8]) -> None:
    found = encoder.encode(drawn)
    assert (found.dtype, found.shape) == (np.float32, (12, encoder.card.dimension))
    assert found.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(found.astype(np.float64), axis=1), 1, atol=1e-6)


def test_many_photos_are_encoded_as_one_by_one(encoder: Encoder, drawn: NDArray[np.uint8]) -> None:
    """Also in parts that do not come out even, and of memory that is not contiguous."""
    together = encoder.encode(drawn)
    alone = np.concatenate([encoder.encode(drawn[number : number + 1]) for number in range(12)])
    uneven = np.concatenate([encoder.encode(drawn[:7]), encoder.encode(drawn[7:])])
    strided = np.concatenate([encoder.encode(drawn[start::2]) for start in (0, 1)])[
        np.arange(12).reshape(2, 6).T.ravel()
    ]
    for other in (alone, uneven, strided):
        np.testing.assert_allclose(other, together, atol=1e-5 if encoder.card.precision == "fp32" else 5e-3)
        assert cosines(other, together).min() > 0.9999


def test_an_answer_is_not_overwritten_by_the_next(encoder: Encoder, drawn: NDArray[np.uint8]) -> None:
    first = encoder.encode(drawn[:2])
    kept = first.copy()
    encoder.encode(drawn[2:4])
    np.testing.assert_array_equal(first, kept)


def test_threads_get_the_answers_to_their_own_photos(encoder: Encoder, drawn: NDArray[np.uint8]) -> None:
    wanted = [encoder.encode(drawn[number : number + 3]) for number in range(0, 12, 3)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(encoder.encode, [drawn[number : number + 3] for number in range(0, 12, 3)] * 3))
    for number, answer in enumerate(answers):
        np.testing.assert_allclose(answer, wanted[number % 4], atol=1e-6)


def test_a_batch_over_several_cores_is_the_same_to_the_last_bit(encoder: Encoder, drawn: NDArray[np.uint8]) -> None:
    # 11 photos: one of them has no other beside it.
    with encode_across(encoder, 2) as encode:
        np.testing.assert_array_equal(encode(drawn[:11]), encoder.encode(drawn[:11]))


def test_one_thread_alone_encodes_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two threads that came first together hung for ever in OpenVINO's Python layer, in 10 of 14 starts.
    shapes: list[tuple[int, ...]] = []
    encode = runtimes.OpenVinoEncoder.encode
    monkeypatch.setattr(
        runtimes.OpenVinoEncoder, "encode", lambda self, pixels: shapes.append(pixels.shape) or encode(self, pixels)
    )
    load_encoder(EMBEDDED, runtime="openvino", precision="fp32")
    assert shapes == [(1, 224, 224, 3)]


def test_the_photo_itself_is_left_as_it_was(encoder: Encoder, drawn: NDArray[np.uint8]) -> None:
    before = drawn.copy()
    encoder.encode(drawn)
    np.testing.assert_array_equal(drawn, before)


def test_it_says_what_it_is(encoder: Encoder, request: pytest.FixtureRequest) -> None:
    assert f"{encoder.card.runtime}-{encoder.card.precision}" in request.node.name
    assert cpu_count() <= encoder.workers <= cpu_count() + 1


SECOND_LOAD = """
import importlib.metadata
import sys
import numpy as np
from indexer.encoders import load_encoder
from indexer.runtimes import resolve_runtime
if "+cpu" in importlib.metadata.version("torch"):
    assert resolve_runtime()[0] == "openvino"
encoder = load_encoder("efficientnet-lite0", runtime="openvino", precision="fp32")
found = encoder.encode(np.load(sys.argv[1]))
np.save(sys.argv[2], found)
assert "openvino" in sys.modules
assert not [name for name in sys.modules if name.partition(".")[0] in ("torch", "transformers")]
assert sys.modules["openvino_telemetry"] is None
"""


def test_a_second_start_needs_no_torch_and_telemetry_is_off(
    tmp_path: Path, cache: Path, reference: Encoder, drawn: NDArray[np.uint8]
) -> None:
    load_encoder(EMBEDDED, runtime="openvino", precision="fp32")
    converted = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    assert len(converted) == 3
    np.save(tmp_path / "pixels.npy", drawn[:3])
    command = [sys.executable, "-c", SECOND_LOAD, str(tmp_path / "pixels.npy"), str(tmp_path / "found.npy")]
    environment = {**os.environ, "MODISTE_CACHE": str(cache)}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), reference.encode(drawn[:3]), atol=1e-5)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()} == converted


def test_both_precisions_share_one_conversion_and_poolings_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODISTE_CACHE", str(tmp_path))
    converted: list[str] = []

    def convert(_weights: object, card: object, folder: Path) -> None:
        converted.append(f"{card}")
        folder.mkdir()
        for name in ("model.xml", "model.bin"):
            (folder / name).write_bytes(b"")
        empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        (folder / "sha256.json").write_text(f'{{"model.xml": "{empty}", "model.bin": "{empty}"}}')

    monkeypatch.setattr(runtimes, "_convert", convert)
    weights = find_weights(EMBEDDED)
    cards = [
        weights.card(pooling=pooling, runtime="openvino", precision=precision)
        for pooling in ("mean", "gem")
        for precision in ("fp32", "bf16")
    ]
    folders = [runtimes._converted(weights, card).parent for card in cards * 2]
    assert len(converted) == 2
    assert folders[0] == folders[1] != folders[2] == folders[3]
    assert folders[4:] == folders[:4]
    # Nothing is left of the scratch folders.
    assert set((tmp_path / "openvino").iterdir()) == set(folders)


@pytest.mark.parametrize("name", ["model.bin", "model.xml", "sha256.json"])
@pytest.mark.parametrize("damage", ["flipped", "empty", "gone"])
def test_a_damaged_conversion_is_noticed(name: str, damage: str, cache: Path, tmp_path: Path) -> None:
    load_encoder(EMBEDDED, runtime="openvino", precision="fp32")
    folder = shutil.copytree(next(cache.rglob(name)).parent, tmp_path / "copy")
    assert runtimes._is_intact(folder)
    path = folder / name
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 0x40]) + whole[middle + 1 :]
        path.write_bytes(flipped if damage == "flipped" else b"")
    assert not runtimes._is_intact(folder)


def test_a_damaged_conversion_is_made_again(cache: Path, reference: Encoder, drawn: NDArray[np.uint8]) -> None:
    load_encoder(EMBEDDED, runtime="openvino", precision="fp32")
    path = next(cache.rglob("model.bin"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    found = load_encoder(EMBEDDED, runtime="openvino", precision="fp32").encode(drawn[:2])
    np.testing.assert_allclose(found, reference.encode(drawn[:2]), atol=1e-5)
    assert path.read_bytes() == whole


def test_the_cache_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODISTE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "openvino"
    monkeypatch.delenv("MODISTE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder().name == "openvino"
    assert cache_folder().parent.name == "modiste"


@pytest.mark.parametrize("maps", [False, True])
def test_a_cache_that_cannot_be_written_is_named_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maps: bool
) -> None:
    # A file, since folders refuse no superuser.
    (tmp_path / "openvino").write_bytes(b"")
    monkeypatch.setenv("MODISTE_CACHE", str(tmp_path))
    weights = find_weights(EMBEDDED, download=False)
    card = weights.card(pooling=None, runtime="openvino", precision="fp32")
    with pytest.raises(EncoderError, match=rf"kept in {tmp_path / 'openvino'}: File exists\. .*MODISTE_CACHE"):
        runtimes._converted(weights, card, maps=maps)


RUNS: dict[str, tuple[Any, dict[str, Any]]] = {
    "fashionnet-small": ("fashionnet-small", {"image_size": 64}),
    "simple-cnn": ("simple-cnn", {"image_size": 28, "pooling": "gem"}),
    "adapter": ({"adapter": True, "backbone": "simple-cnn"}, {"image_size": 28}),
    "resnet": (
        {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]},
        {"image_size": 64},
    ),
    "vit": (
        # Trained at 32 pixels, asked at 48: its positions are interpolated.
        {"model_type": "vit", "image_size": 32, "patch_size": 16, "hidden_size": 32, "intermediate_size": 64}
        | {"num_hidden_layers": 2, "num_attention_heads": 2},
        {"image_size": 48, "pooling": "cls+mean"},
    ),
    "adapted-dinov2": (
        {
            "adapter": True,
            "backbone": {"model_type": "dinov2", "image_size": 56, "patch_size": 14, "hidden_size": 32}
            | {"num_hidden_layers": 2, "num_attention_heads": 2},
        },
        {"image_size": 28, "pooling": "mean"},
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_every_network_of_a_run_is_the_same_in_openvino(name: str, cache: Path, tmp_path: Path) -> None:
    network, config = RUNS[name]
    torch.manual_seed(0)
    backbone = build_backbone(network)
    for module in backbone.modules():
        # Statistics of a network that has been trained, or a batch norm would do nothing.
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    (tmp_path / "config.json").write_text(json.dumps({"modiste_checkpoint": 1, "network": network, **config}))
    state = {f"backbone.{key}": value.contiguous() for key, value in backbone.state_dict().items()}
    save_file(state, tmp_path / "best.safetensors")
    side = config["image_size"]
    pixels = np.random.default_rng(0).integers(0, 256, (5, side, side, 3)).astype(np.uint8)
    pixels[1] //= 4
    wanted, found = (
        load_encoder(str(tmp_path), runtime=runtime, precision="fp32").encode(pixels)
        for runtime in ("torch", "openvino")
    )
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    # Or a constant would be as right.
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-4


# The lines that matter of /proc/cpuinfo.
ZEN5 = "vendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9R45\nflags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni\n"
ZEN3 = "vendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 7R13\nflags\t\t: fpu avx2 sha_ni vaes\n"
COOPER_LAKE = "vendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni\n"
SAPPHIRE_RAPIDS = "vendor_id\t: GenuineIntel\nflags\t\t: fpu avx512_bf16 amx_bf16 avx512_fp16 amx_tile amx_int8\n"
HASWELL = "vendor_id\t: GenuineIntel\nflags\t\t: fpu avx avx2 bmi1\n"
GRAVITON = "CPU implementer\t: 0x41\nFeatures\t: fp asimd bf16 i8mm\n"


@pytest.mark.parametrize(
    ("cpu", "pays"),
    [
        (ZEN5, True),
        (SAPPHIRE_RAPIDS, True),
        (ZEN3, False),
        (COOPER_LAKE, False),
        (HASWELL, False),
        (GRAVITON, False),
        ("", False),
    ],
)
def test_bf16_is_chosen_where_it_pays(cpu: str, pays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bf16_pays(cpu) is pays
    monkeypatch.setattr(runtimes, "cpu_description", lambda: cpu)
    monkeypatch.setattr(runtimes, "_has_cuda", lambda: False)
    assert resolve_runtime() == ("openvino", "bf16" if pays else "fp32")
    # torch is the reference there, and pinned is pinned.
    assert resolve_runtime("torch") == ("torch", "fp32")
    assert resolve_runtime("openvino", "fp32") == ("openvino", "fp32")
    assert resolve_runtime("auto", "bf16") == ("openvino", "bf16")


def test_a_cuda_device_runs_torch_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "cpu_description", lambda: HASWELL)
    monkeypatch.setattr(runtimes, "_has_cuda", lambda: True)
    assert resolve_runtime() == ("torch", "bf16")
    assert resolve_runtime("torch", "fp32") == ("torch", "fp32")
    assert resolve_runtime("openvino") == ("openvino", "fp32")


@pytest.mark.parametrize(("runtime", "precision"), [("onnx", None), ("torch", "int8"), ("", "fp32")])
def test_an_unknown_runtime_or_precision(runtime: str, precision: str | None) -> None:
    wanted = r"one of auto, openvino, torch and a precision one of fp32, bf16; got "
    with pytest.raises(EncoderError, match=f"{wanted}{runtime} and {precision}"):
        resolve_runtime(runtime, precision)


def test_a_processor_without_bf16_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    core = SimpleNamespace(get_property=lambda *_: ["FP32", "INT8"])
    monkeypatch.setattr(runtimes, "import_openvino", lambda: SimpleNamespace(Core=lambda: core))
    with pytest.raises(
        EncoderError, match=r"no bf16, which 'efficientnet-lite0' is wanted in\. Re-index with `--precision"
    ):
        load_encoder(EMBEDDED, runtime="openvino", precision="bf16")


def test_every_file_of_the_golden_set_is_small() -> None:
    photos = sorted(GOLDEN.glob("*.jpg"))
    assert len(photos) == 5
    assert max(path.stat().st_size for path in photos) <= 20_000
