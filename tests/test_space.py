"""The Hugging Face Space of ui/space: its header, its image and its start. No engine of containers runs here."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.client import Client, RefusedError
from tests.test_cli import Shop, shop
from tests.test_cli_demo import Demo, linux, none_is_left

__all__ = ["shop"]

ROOT = Path(__file__).parents[1]
SPACE = ROOT / "ui" / "space"
# Of the configuration reference of Spaces: what the header may have, and what some fields may be.
FIELDS = {
    *("title", "emoji", "colorFrom", "colorTo", "sdk", "python_version", "sdk_version", "suggested_hardware"),
    *("suggested_storage", "app_file", "app_build_command", "app_port", "base_path", "fullWidth", "header"),
    *("short_description", "models", "datasets", "tags", "thumbnail", "pinned", "hf_oauth", "disable_embedding"),
    *("startup_duration_timeout", "custom_headers", "preload_from_hub", "license"),
}
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


@pytest.fixture(scope="module")
def header() -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", (SPACE / "README.md").read_text("utf-8"), re.DOTALL)
    assert found
    fields: dict[str, Any] = yaml.safe_load(found[1])
    return fields


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and what follows each, its lines joined."""
    lines = [line for line in (SPACE / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(word, " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in joined)]


def test_the_header_has_fields_that_spaces_know(header):
    assert header.keys() <= FIELDS
    assert header["sdk"] == "docker"
    assert {header["colorFrom"], header["colorTo"]} <= COLOURS
    assert len(header["emoji"]) == 1
    assert len(header["short_description"]) <= 60
    assert re.fullmatch(r"\d+[smh]", header["startup_duration_timeout"])
    assert header["license"] == "apache-2.0"


def test_hadolint_has_nothing_to_say():
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed; `make setup` installs it where it has a build for this machine")
    done = subprocess.run([hadolint, SPACE / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert "hadolint ignore" not in (SPACE / "Dockerfile").read_text()


def test_the_image_runs_as_the_user_of_spaces_on_the_port_of_the_header(header, instructions):
    words = [word for word, _ in instructions]
    assert ("USER", "1000:1000") in instructions
    # What is written from there on, the gallery, is this user's.
    assert not {"COPY", "ADD"} & set(words[words.index("USER") :])
    assert [rest for word, rest in instructions if word == "EXPOSE"] == [str(header["app_port"])]
    assert f"${{PORT:-{header['app_port']}}}" in (SPACE / "start.sh").read_text()
    assert [rest for word, rest in instructions if word == "CMD"] == ['["start"]']


def test_each_environment_has_its_own_pinned_versions(instructions):
    installs = [rest for word, rest in instructions if word == "RUN" and "pip install" in rest]
    assert "/opt/modiste/bin/pip install" in installs[0]
    assert installs[0].endswith("-c constraints.txt -r requirements.txt")
    assert installs[1] == "/opt/page/bin/pip install -c ui/constraints.txt -r ui/requirements.txt"
    assert installs[2].count("pip install --no-deps .") == 2
    assert "MODISTE_UI_PYTHON=/opt/page/bin/python" in " ".join(rest for word, rest in instructions if word == "ENV")


def test_what_the_image_copies_is_what_a_space_is_put_together_from(instructions):
    made = re.search(r"^SPACE := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert made
    parts = made[1].split()
    assert all((ROOT / part).exists() for part in parts)
    copied = [name for word, rest in instructions if word == "COPY" for name in rest.split()[:-1] if name != "."]
    assert copied
    assert all(name.split("/")[0] in parts for name in copied)
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} <= set(parts)


@pytest.fixture
def space(shop: Shop, tmp_path: Path) -> dict[str, str]:
    """The folder of a Space that has been built, and where its program is found."""
    shutil.copytree(shop.catalog, tmp_path / "catalog", copy_function=shutil.copy2)
    shutil.copytree(shop.gallery, tmp_path / "gallery")
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PORT": "0",
        "SPACE_HOST": "me-shop.hf.space",
    }


@linux
def test_the_start_script_starts_both_for_visitors_that_only_ask_and_ends_both(space, tmp_path):
    demo = Demo(tmp_path, program=[str(SPACE / "start.sh"), "--targets", "colour"], **space)
    address = demo.read_address()
    demo.read_until("Ctrl-C ends both.")
    asked = demo.page["arguments"]
    assert asked[asked.index("--host") + 1] == "0.0.0.0"
    assert asked[asked.index("--allow-host") + 1] == "me-shop.hf.space"
    # A Space is a frame of that site.
    assert asked[asked.index("--allow-frame") + 1] == "https://huggingface.co"
    assert "--read-only" in asked
    assert address.startswith("http://127.0.0.1:")
    with Client(address, demo.page["key"]) as visitor, pytest.raises(RefusedError) as refused:
        visitor.relabel("p00000-1", {"colour": ["red"]})
    assert refused.value.status == 403
    children = demo.children()
    # The container ends, and is started again, when one of the two does.
    os.kill(demo.page["pid"], signal.SIGKILL)
    status, _, err = demo.end()
    assert status == 1
    assert "The page has ended with signal 9." in err
    assert none_is_left(children)
