"""No version with a known hole is installed, pinned or permitted."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
# The first version without the hole, and the last hole that it mended.
FLOORS = {
    "filelock": ("3.20.3", "CVE-2026-22701: a lock follows a symbolic link that someone else has put there"),
    "h11": ("0.16.0", "CVE-2025-43859: malformed chunked bodies are taken, which smuggles requests past a proxy"),
    "idna": ("3.7", "CVE-2024-3651: a long name takes quadratic time"),
    "jinja2": ("3.1.6", "CVE-2025-27516: a template leaves the sandbox"),
    "pillow": ("13.0.0", "CVE-2026-112403: heap overflow in the JPEG decoder"),
    "pyarrow": ("23.0.1", "CVE-2026-25087: use after free in the reader of IPC files"),
    "python-multipart": ("0.0.31", "CVE-2026-53537 to 53540: forms that take the parser's time and memory"),
    "requests": ("2.32.4", "CVE-2024-47081: credentials of .netrc go to another host"),
    "starlette": ("1.3.1", "CVE-2026-54283: the limits of a form are ignored"),
    "torch": ("2.10.0", "CVE-2026-24747: a checkpoint corrupts memory although weights_only is on"),
    "transformers": ("5.3.0", "CVE-2026-5241: a nested configuration turns trust_remote_code on"),
    "urllib3": ("2.7.0", "CVE-2026-44432: a compressed answer unpacks without limit"),
}


# The page decodes no photo, so Gradio's Pillow (< 13) may stay; a later one could not be installed beside it.
PAGE_MAY_HAVE = ("pillow",)


def pinned(file: str) -> dict[str, Version]:
    """Version by name in a file of exact versions."""
    pairs = [line.split("==") for line in lines_of(file)]
    return {canonicalize_name(name): Version(number) for name, number in pairs}


def lines_of(file: str) -> list[str]:
    """The lines of a file of requirements, without comments."""
    return [line for line in (ROOT / file).read_text().splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def pins() -> dict[str, Version]:
    """Version by name in constraints.txt."""
    return pinned("constraints.txt")


@pytest.fixture(scope="module")
def page_pins() -> dict[str, Version]:
    """Version by name in ui/constraints.txt."""
    return pinned("ui/constraints.txt")


@pytest.fixture(scope="module")
def wanted() -> dict[str, Requirement]:
    """What pyproject.toml asks for, by name; for development too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = project["dependencies"] + project["optional-dependencies"]["dev"]
    return {canonicalize_name(each.name): each for each in map(Requirement, texts)}


@pytest.fixture(scope="module")
def page_wanted() -> dict[str, Requirement]:
    """What ui/requirements.txt asks for, by name."""
    return {canonicalize_name(each.name): each for each in map(Requirement, lines_of("ui/requirements.txt"))}


def least(requirement: Requirement) -> Version:
    """The lowest version that a requirement permits."""
    return max(Version(each.version) for each in requirement.specifier if each.operator in (">=", "=="))


@pytest.mark.parametrize("name", FLOORS)
def test_the_installed_version_is_without_the_hole(name):
    floor, hole = FLOORS[name]
    assert Version(version(name)) >= Version(floor), f"{name} before {floor} has {hole}; run `make setup`."


@pytest.mark.parametrize("name", FLOORS)
def test_the_pinned_version_is_without_the_hole(name, pins):
    floor, hole = FLOORS[name]
    assert pins[name] >= Version(floor), f"constraints.txt pins {name} {pins[name]}, which has {hole}."


def test_no_version_with_a_hole_is_permitted(wanted):
    for name in FLOORS.keys() & wanted.keys():
        floor, hole = FLOORS[name]
        assert least(wanted[name]) >= Version(floor), f"pyproject.toml permits a {name} before {floor}: {hole}."


@pytest.mark.parametrize("name", sorted(FLOORS.keys() - set(PAGE_MAY_HAVE)))
def test_the_page_has_no_version_with_a_hole(name, page_pins, page_wanted):
    floor, hole = FLOORS[name]
    if name in page_pins:
        assert page_pins[name] >= Version(floor), f"ui/constraints.txt pins {name} {page_pins[name]}: {hole}."
    if name in page_wanted:
        assert least(page_wanted[name]) >= Version(floor), f"ui/requirements.txt permits a {name} before {floor}."


def test_the_page_permits_no_version_with_a_hole_of_what_it_has(page_pins, page_wanted):
    # pip takes the newest version, but an environment that is there already keeps an older one that is permitted.
    assert sorted((FLOORS.keys() & page_pins.keys()) - set(PAGE_MAY_HAVE) - page_wanted.keys()) == []


def test_the_page_has_a_pillow_that_gradio_takes_and_decodes_nothing_with_it(page_pins):
    assert page_pins["pillow"] < Version("13"), "Gradio wants Pillow < 13; pip would take a Gradio of years ago."
    code = "".join(file.read_text("utf-8") for file in (ROOT / "ui").glob("*.py"))
    assert not re.search(r"\b(PIL|cv2|imageio|skimage)\b", code)


def test_both_environments_speak_to_each_other_by_the_same_versions(pins, page_pins):
    # service.client runs in the page's environment too.
    for name in ("httpcore", "httpx", "fastapi", "starlette", "uvicorn"):
        assert page_pins[name] == pins[name]


@pytest.mark.parametrize("file", ["pyproject.toml", "ui/requirements.txt"])
def test_whatever_is_wanted_is_pinned_to_a_version_that_is_permitted(file, wanted, pins, page_wanted, page_pins):
    asked, have = (wanted, pins) if file == "pyproject.toml" else (page_wanted, page_pins)
    assert sorted(asked.keys() - have.keys()) == []
    bad = [
        f"{name} {have[name]} is not {asked[name].specifier}"
        for name in asked
        if have[name] not in asked[name].specifier
    ]
    assert bad == []


def test_what_is_wanted_has_a_lower_bound(wanted, page_wanted):
    # Without one, pip may answer a conflict with a version of ten years ago.
    for name, requirement in [*wanted.items(), *page_wanted.items()]:
        assert [each for each in requirement.specifier if each.operator in (">=", "==")], f"{name} has none."
