"""Export: what the files answer, what the card says of them, and that nothing is left where they do not agree."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)

from data.images import read_pixels
from indexer import export as exporting
from indexer.architectures import build_small_network
from indexer.encoders import EMBEDDED, EncoderError, load_encoder
from indexer.export import ExportedNetwork, ExportError, ExportInputError, export, load_source
from indexer.export_check import CheckPhotosError, compare, read_photos
from indexer.files import sha256
from indexer.runtimes import import_openvino
from tests.indexer.test_encoders import TINY, disturb, save

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
TARGETS = {"articleType": ["Blazers", "Shirts", "Jupes d'été"], "base colour": ["Red", "Blue"]}
SIZE, WIDTH = 28, 128


def make_run(folder: Path, *, targets: Any = None, **changes: torch.Tensor | None) -> Path:
    """A run of the smallest network with two heads; `changes` are tensors put in place of its own, or taken out."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    network = disturb(build_small_network("simple-cnn"))
    targets = TARGETS if targets is None else targets
    state = {f"backbone.{key}": value.contiguous() for key, value in network.state_dict().items()}
    for target, labels in TARGETS.items():
        state[f"heads.{target}.weight"] = torch.randn(len(labels), WIDTH, generator=generator)
        state[f"heads.{target}.bias"] = torch.randn(len(labels), generator=generator)
    state |= {name: value for name, value in changes.items() if value is not None}
    folder.mkdir()
    save_file(
        {key: value for key, value in state.items() if changes.get(key, value) is not None}, folder / "best.safetensors"
    )
    config = {"network": "simple-cnn", "image_size": SIZE, "pooling": "gem", "targets": targets}
    config |= {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}
    (folder / "config.json").write_text(json.dumps({"modiste_checkpoint": 1, **config}))
    return folder


@dataclass(frozen=True)
class Exported:
    """A run, the folder that it was exported to, what `export` gave and printed."""

    run: Path
    out: Path
    card: dict[str, Any]
    said: list[str]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("export")
    run = make_run(folder / "run")
    said: list[str] = []
    card = export(str(run), folder / "new" / "out", progress=said.append)
    return Exported(run, folder / "new" / "out", card, said)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three small photos."""
    folder = tmp_path_factory.mktemp("few")
    for number, pixels in enumerate(photos(3)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def photos(count: int, size: int = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


def run_onnx(folder: Path, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"pixels": pixels}), strict=True))


def run_openvino(folder: Path, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    core = import_openvino().Core()
    model = core.compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answer = model({"pixels": pixels})
    return {output.get_any_name(): np.array(answer[output]) for output in model.outputs}


RUNS: dict[str, Callable[[Path, NDArray[np.uint8]], dict[str, NDArray[np.float32]]]] = {
    "onnx": run_onnx,
    "openvino": run_openvino,
}


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("count", [1, 5])
def test_a_run_answers_as_its_encoder_and_its_heads(exported: Exported, kind: str, count: int) -> None:
    pixels = photos(count)
    answer = RUNS[kind](exported.out, pixels)
    assert list(answer) == ["embedding", "logits.articleType", "logits.base colour"]
    assert {value.dtype for value in answer.values()} == {np.dtype(np.float32)}
    embeddings = load_encoder(str(exported.run), runtime="torch", precision="fp32").encode(pixels)
    np.testing.assert_allclose(answer["embedding"], embeddings, atol=1e-5)
    from safetensors.numpy import load_file

    state = load_file(exported.run / "best.safetensors")
    for target in TARGETS:
        # As in training: Linear(u * sqrt(D)).
        logits = (embeddings * WIDTH**0.5) @ state[f"heads.{target}.weight"].T + state[f"heads.{target}.bias"]
        np.testing.assert_allclose(answer[f"logits.{target}"], logits, atol=1e-4)
        # sqrt(D) = 11 is what they would be without.
        assert np.abs(logits - state[f"heads.{target}.bias"]).max() > 1


def test_the_card_says_what_is_in_the_folder(exported: Exported) -> None:
    card = json.loads((exported.out / "card.json").read_text("utf-8"))
    assert card == exported.card
    assert {path.name for path in exported.out.iterdir()} == {"card.json", "model.onnx", "model.xml", "model.bin"}
    assert card["files"] == {name: sha256(exported.out / name) for name in ("model.bin", "model.onnx", "model.xml")}
    assert card["labels"] == TARGETS
    assert card["input"] == {"name": "pixels", "type": "uint8", "shape": ["batch", 28, 28, 3]}
    assert card["outputs"] == {
        "embedding": ["batch", 128],
        "logits.articleType": ["batch", 3],
        "logits.base colour": ["batch", 2],
    }
    encoder = card["encoder"]
    assert (encoder["name"], encoder["pooling"], encoder["runtime"]) == (str(exported.run), "gem", "torch")
    assert encoder["weights_sha256"] == sha256(exported.run / "best.safetensors")
    assert (card["preprocessing"]["size"], card["preprocessing"]["letterbox"]) == (28, "white")
    assert card["preprocessing"]["in_graph"] == {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
    assert (card["modiste_export"], card["opset"]) == (1, 18)


def test_the_card_has_the_figures_of_the_check(exported: Exported) -> None:
    check = exported.card["check"]
    assert (check["photos"], check["drawn"], check["unreadable"]) == (16, True, 0)
    for kind in RUNS:
        assert check[kind]["least_cosine"] >= 0.99999
        assert check[kind]["length_error"] < 1e-5
        assert set(check[kind]["logit_differences"]) == set(TARGETS)
        # Two runtimes do not round alike: not a single bit off would be torch beside itself.
        assert 0 < max(check[kind]["logit_differences"].values()) < 1e-3
        assert check[kind]["label_agreements"] == dict.fromkeys(TARGETS, 1.0)
    assert exported.said == ["Writing onnx.", "Writing openvino.", "Checking on 16 drawn photos."]


def test_the_onnx_file_takes_any_batch_and_is_of_the_opset_promised(exported: Exported) -> None:
    model = onnx.load(exported.out / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    (pixels,) = onnxruntime.InferenceSession(exported.out / "model.onnx").get_inputs()
    assert (pixels.name, pixels.type, pixels.shape) == ("pixels", "tensor(uint8)", ["batch", 28, 28, 3])


def test_the_files_tell_nothing_of_this_machine(exported: Exported) -> None:
    # torch's exporter writes the stack of each operator into it.
    for path in exported.out.iterdir():
        content = path.read_bytes()
        for word in (str(ROOT).encode(), b"site-packages", b".py", b"pkg.torch"):
            assert path.name == "card.json" or word not in content, (path.name, word)


def test_nothing_is_left_beside_the_folder_and_nothing_printed(
    exported: Exported, few: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert [path.name for path in exported.out.parent.iterdir()] == ["out"]
    export(str(exported.run), tmp_path / "out", formats=("onnx",), photos=few)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"card.json", "model.onnx"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    # torch says that torchvision is not installed, four times, when it is first asked; this is not the first.
    assert tuple(capfd.readouterr()) == ("", "")


def test_the_embedded_encoder_gives_what_an_independent_script_gave(tmp_path: Path) -> None:
    card = export(EMBEDDED, tmp_path / "out", photos=GOLDEN)
    assert (card["check"]["photos"], card["check"]["drawn"], card["labels"]) == (5, False, {})
    assert card["outputs"] == {"embedding": ["batch", 1320]}
    pixels = np.stack([read_pixels(path, 224) for path in sorted(GOLDEN.glob("*.jpg"))])
    for run in RUNS.values():
        # Where OpenVINO's bf16 would be off by a thousandth.
        np.testing.assert_allclose(
            run(tmp_path / "out", pixels)["embedding"], np.load(GOLDEN / "embeddings.npy"), atol=1e-5
        )


def test_a_transformers_folder(few: Path, tmp_path: Path) -> None:
    config = Dinov2WithRegistersConfig(image_size=56, patch_size=14, num_register_tokens=4, **TINY)
    folder = save(disturb(Dinov2WithRegistersModel(config)), tmp_path / "folder")
    card = export(str(folder), tmp_path / "out", pooling="cls+mean", photos=few)
    assert (card["encoder"]["pooling"], card["outputs"]) == ("cls+mean", {"embedding": ["batch", 64]})
    encoder = load_encoder(str(folder), pooling="cls+mean", runtime="torch", precision="fp32")
    pixels = photos(3, 224)
    for run in RUNS.values():
        answer = run(tmp_path / "out", pixels)["embedding"]
        assert (answer * encoder.encode(pixels)).sum(axis=1).min() > 0.9999


def test_a_network_whose_weights_are_called_as_the_output_is(few: Path, tmp_path: Path) -> None:
    config = CLIPVisionConfig(image_size=56, patch_size=28, intermediate_size=64, **TINY)
    folder = save(disturb(CLIPVisionModel(config)), tmp_path / "folder")
    export(str(folder), tmp_path / "out", formats=("onnx",), photos=few)
    assert list(run_onnx(tmp_path / "out", photos(1, 224))) == ["embedding"]


# What the check refuses


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda u, *logits: (u.roll(1, 1), *logits), r"onnx: the least cosine is 0\.\d+, wanted 0\.999\.$"),
        (lambda u, one, two: (u, one, two + 0.02), r"onnx: a logit of base colour is off by 0\.0200, allowed 0\.01\.$"),
        (lambda u, one, two: (u, one[:1].expand_as(one), two), r"onnx: a logit of articleType is off by"),
    ],
    ids=["turned", "logit", "batch"],
)
def test_files_that_answer_otherwise_are_not_kept(
    exported: Exported,
    few: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: Callable[..., Any],
    message: str,
) -> None:
    forward = ExportedNetwork.forward
    monkeypatch.setattr(ExportedNetwork, "forward", lambda self, pixels: wrong(*forward(self, pixels)))
    with pytest.raises(
        ExportError, match=rf"does not answer as torch does when exported, so nothing was written\. {message}"
    ):
        export(str(exported.run), tmp_path / "out", formats=("onnx",), photos=few)
    assert list(tmp_path.iterdir()) == []


def test_the_figures_of_answers_worked_by_hand() -> None:
    # (3, 4) and (4, 3) over 5 have a cosine of 24 / 25; the second photo's is 1, and its length is off by a tenth.
    wanted = {"embedding": [[0.6, 0.8], [1, 0]], "logits.a": [[1, 2], [3, 4]], "logits.b": [[5, 5.5], [5, 0]]}
    found = {"embedding": [[0.8, 0.6], [1.1, 0]], "logits.a": [[1, 2.25], [3.5, 4]], "logits.b": [[6, 5], [5, 0]]}
    as_arrays = [{name: np.array(rows, np.float32) for name, rows in each.items()} for each in (found, wanted)]
    agreement = compare("onnx", *as_arrays)
    assert agreement.least_cosine == pytest.approx(0.96)
    assert agreement.length_error == pytest.approx(0.1)
    assert agreement.logit_differences == {"a": 0.5, "b": 1.0}
    # Of b, the first photo's label is another.
    assert agreement.label_agreements == {"a": 1.0, "b": 0.5}
    assert len(agreement.failures()) == 4
    same = compare("onnx", as_arrays[1], as_arrays[1])
    assert same.failures() == []
    nothing = {name: rows * np.float32("nan") for name, rows in as_arrays[1].items()}
    assert len(compare("onnx", nothing, as_arrays[1]).failures()) == 4


@pytest.mark.parametrize("kind", RUNS)
def test_what_a_converter_cannot_write(
    exported: Exported, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NotImplementedError("no such\n  operator")

    monkeypatch.setattr(torch.onnx, "export", fail)
    monkeypatch.setattr(exporting, "convert_network", fail)
    with pytest.raises(ExportError, match=rf"run' cannot be written as {kind}: no such operator$"):
        export(str(exported.run), tmp_path / "out", formats=(kind,), photos=few)
    assert list(tmp_path.iterdir()) == []


def test_what_a_runtime_cannot_run(
    exported: Exported, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_write_onnx", lambda *given: (given[2] / "model.onnx").write_bytes(b"none"))
    with pytest.raises(ExportError, match=r"was exported and does not run, so nothing was written: .*model\.onnx"):
        export(str(exported.run), tmp_path / "out", formats=("onnx",), photos=few)
    assert list(tmp_path.iterdir()) == []


def test_onnxruntime_is_told_to_report_nothing(
    exported: Exported, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(onnxruntime, "disable_telemetry_events", lambda: told.append("nothing"))
    content = (exported.out / "model.onnx").read_bytes()
    monkeypatch.setattr(exporting, "_write_onnx", lambda *given: (given[2] / "model.onnx").write_bytes(content))
    export(str(exported.run), tmp_path / "out", formats=("onnx",), photos=few)
    assert told == ["nothing"]


def test_a_full_disk_leaves_nothing(
    exported: Exported, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "_write_onnx", lambda *given: (given[2] / "model.onnx").write_bytes(b"none"))
    monkeypatch.setattr(exporting, "check_files", lambda *_: {})
    monkeypatch.setattr(exporting, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        export(str(exported.run), tmp_path / "out", formats=("onnx",), photos=few)
    assert list(tmp_path.iterdir()) == []


# Bad input


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_an_export_overwrites_nothing(exported: Exported, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    {"folder": out.mkdir, "file": out.touch, "link": lambda: out.symlink_to("nowhere")}[kind]()
    with pytest.raises(ExportInputError, match=r"written to a new folder; .*out exists\. Choose another, or remove it"):
        export(str(exported.run), out)


@pytest.mark.parametrize(("formats", "given"), [(("onnx", "coreml"), "onnx, coreml"), ((), "none")])
def test_an_unknown_format(exported: Exported, tmp_path: Path, formats: tuple[str, ...], given: str) -> None:
    with pytest.raises(ExportInputError, match=f"A format is one of onnx, openvino; got {given}"):
        export(str(exported.run), tmp_path / "out", formats=formats)


def test_an_encoder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="There is no encoder 'nowhere'"):
        export("nowhere", tmp_path / "out")


def test_the_heads_of_a_run_stand_on_its_pooling(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(ExportInputError, match=r"were trained on embeddings pooled by gem; got --pooling mean\. Leave"):
        load_source(str(exported.run), pooling="mean")
    assert load_source(str(exported.run), pooling="gem").card.pooling == "gem"
    # A run without heads is an encoder like any other.
    run = make_run(tmp_path / "run", targets={})
    source = load_source(str(run), pooling="mean")
    assert (source.card.pooling, source.outputs) == ("mean", ["embedding"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("heads.articleType.weight", torch.zeros(4, WIDTH), r"of shape \(3, 128\), as .* says; it is \(4, 128\), with"),
        ("heads.articleType.weight", torch.zeros(3, 5), r"of shape \(3, 128\), .*; it is \(3, 5\), with"),
        ("heads.articleType.bias", torch.zeros(2), r"it is \(3, 128\), with a bias of \(2,\)\. Train the run again"),
        ("heads.base colour.bias", None, r"The heads of .*best\.safetensors cannot be read: .*base colour\.bias"),
    ],
)
def test_heads_that_are_not_as_the_run_says(tmp_path: Path, name: str, value: Any, message: str) -> None:
    run = make_run(tmp_path / "run", **{name: value})
    with pytest.raises(ExportError, match=message):
        load_source(str(run))


def test_exported_heads_are_no_longer_trained(exported: Exported) -> None:
    network = ExportedNetwork(load_source(str(exported.run)))
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(isinstance(module, nn.Dropout) for module in network.modules())


# Photos to check on


def test_photos_are_taken_evenly_over_a_folder(tmp_path: Path) -> None:
    for number in range(130):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number:03}.png")
    pixels, unreadable = read_photos(tmp_path, 8)
    assert (pixels.shape, pixels.dtype, unreadable) == ((64, 8, 8, 3), np.uint8, 0)
    reds = pixels[:, 0, 0, 0].astype(int)
    assert (reds[0], reds[-1]) == (0, 127)
    assert set(np.diff(reds)) == {2, 3}


def test_unreadable_photos_are_counted(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"none")
    pixels, unreadable = read_photos(tmp_path, 8)
    assert (len(pixels), unreadable) == (1, 1)
    (tmp_path / "a.png").unlink()
    with pytest.raises(CheckPhotosError, match=r"No photo in .* can be read, .*leave --photos out"):
        read_photos(tmp_path, 8)
    with pytest.raises(CheckPhotosError, match=re.escape(f"are in a folder; {tmp_path / 'b.jpg'} is none.")):
        read_photos(tmp_path / "b.jpg", 8)


def test_drawn_photos_are_the_same_each_time() -> None:
    first, second = read_photos(None, 16), read_photos(None, 16)
    assert (first[0].shape, first[1]) == ((16, 16, 16, 3), 0)
    np.testing.assert_array_equal(first[0], second[0])
