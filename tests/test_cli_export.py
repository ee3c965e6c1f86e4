"""`modiste export`: what it prints, which status it ends with, and that the page's own lines run its files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cli
from data.images import read_pixels
from indexer.encoders import load_encoder
from tests.indexer.test_export import TARGETS, make_run, photos
from tests.test_cli import Done, modiste
from tests.test_docs import documented

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "recipes.md"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three photos, one of which is none."""
    folder = tmp_path_factory.mktemp("few")
    for number, pixels in enumerate(photos(2)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "none.jpg").write_bytes(b"none")
    return folder


@pytest.fixture(scope="module")
def exported(run: Path, few: Path) -> tuple[Path, Done]:
    """What the command wrote and printed."""
    out = few.parent / "exported"
    return out, modiste("export", run, "--out", out, "--photos", few)


def test_it_says_how_near_the_files_are(exported: tuple[Path, Done]) -> None:
    out, done = exported
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "Beside torch in fp32, on 2 photos; 1 could not be read:"
    assert re.fullmatch(r" +onnx +openvino", lines[1])
    assert re.fullmatch(r"least cosine +(1\.000000|0\.99999\d) +(1\.000000|0\.99999\d)", lines[2])
    assert re.fullmatch(r"articleType: same label +1\.000 +1\.000", lines[3])
    assert re.fullmatch(r"articleType: logits off by +\d\.\de-0\d +\d\.\de-0\d", lines[4])
    names = [re.fullmatch(rf"{re.escape(str(out))}/(\S+)  \d+\.\d MB", line) for line in lines[7:10]]
    assert [match and match[1] for match in names] == ["model.bin", "model.onnx", "model.xml"]
    assert lines[10:] == [f"{out}/card.json says what goes in and what comes out."]
    assert done.err.splitlines() == ["Writing onnx.", "Writing openvino.", "Checking on 2 photos."]


def test_one_format_as_json_has_the_keys_of_the_page(run: Path, few: Path, tmp_path: Path) -> None:
    # In a process of its own: what the libraries say when they are first asked would be on its standard error.
    command = [sys.executable, "-m", "cli", "export", run, "--out", tmp_path / "out", "--format", "onnx"]
    ended = subprocess.run(
        [*map(str, command), "--photos", str(few), "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.stderr == "Writing onnx.\nChecking on 2 photos.\n"
    answer = Done(ended.returncode, ended.stdout, ended.stderr).json
    assert set(answer) == documented((ROOT / "docs" / "cli.md").read_text("utf-8"), "modiste export")
    assert (answer["out"], answer["labels"]) == (str(tmp_path / "out"), TARGETS)
    assert set(answer["files"]) == {"model.onnx"}
    row = next(line for line in (ROOT / "docs" / "cli.md").read_text("utf-8").splitlines() if "| `check` |" in line)
    check = answer["check"]
    assert {*check, *check["onnx"], "openvino", "check"} == set(re.findall(r"`(\w+)`", row))


def test_bad_input_ends_with_a_sentence(run: Path, few: Path, tmp_path: Path) -> None:
    exists = modiste("export", run, "--out", few)
    assert (exists.status, exists.out) == (2, "")
    assert f"{few} exists. Choose another" in exists.err
    unknown = modiste("export", run, "--out", tmp_path / "out", "--format", "coreml")
    assert unknown.status == 2
    assert "--format is onnx, openvino or both; got coreml." in " ".join(unknown.err.split())
    no_encoder = modiste("export", "nowhere", "--out", tmp_path / "out")
    assert (no_encoder.status, no_encoder.err[:31]) == (1, "modiste: There is no encoder 'n")
    no_photos = modiste("export", run, "--out", tmp_path / "out", "--photos", tmp_path / "none")
    assert no_photos.status == 2
    pooled = modiste("export", run, "--out", tmp_path / "out", "--pooling", "mean")
    assert pooled.status == 2
    assert list(tmp_path.iterdir()) == []


def test_it_is_among_the_commands() -> None:
    assert cli.exporting.export in cli._COMMANDS


def test_the_lines_of_the_page_run_the_files_alone(exported: tuple[Path, Done], run: Path, tmp_path: Path) -> None:
    section = PAGE.read_text("utf-8").split("\n## Export\n")[1].split("\n## ")[0]
    snippets = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(snippets) == 2
    assert not any(re.search(r"\b(torch|modiste|indexer|data|cli)\b", code) for code in snippets)
    (tmp_path / "exported").symlink_to(exported[0])
    # Wider than high, so that it is letterboxed.
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    code = "\n".join(snippets).replace("photo.jpg", "photo.png")
    code += "\nnp.savez('answers.npz', ours=pixels, onnx=answer['embedding'], openvino=result['embedding'])\n"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("embedding (1, 128)\n") == 2
    first, second = ended.stdout.split("embedding (1, 128)\n")[1:]
    assert first == second
    assert re.fullmatch(rf"articleType ({'|'.join(TARGETS['articleType'])})\nbase colour (Red|Blue)\n", first)
    answers = np.load(tmp_path / "answers.npz")
    wanted = read_pixels(tmp_path / "photo.png", 28)[None]
    np.testing.assert_array_equal(answers["ours"], wanted)
    embedding = load_encoder(str(run), runtime="torch", precision="fp32").encode(wanted)
    np.testing.assert_allclose(answers["onnx"], embedding, atol=1e-5)
    np.testing.assert_allclose(answers["openvino"], embedding, atol=1e-5)
