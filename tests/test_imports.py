"""The folders are the architecture: who may import whom, as in the table of DESIGN.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Modules that each folder may import, besides its own. A name stands for itself and for what is below it.
ALLOWED = {
    "data": (),
    "heads": (),
    "indexer": ("data",),
    # Of indexer the networks, how their weights are found, and files (decision 9).
    "finetune": (
        "data",
        "heads.metrics",
        "heads.metrics_paired",
        "indexer.architectures",
        "indexer.encoders",
        "indexer.files",
        "indexer.networks",
        "indexer.runtimes",
    ),
    "service": ("data", "indexer", "heads"),
    "ui": ("service.client",),
    "cli": ("data", "heads", "indexer", "finetune", "service"),
}
# No part of what is installed, and imported by none.
OUTSIDE = ("tests", "bench", "docs")
# What has no noun of its own has no file of its own.
NAMELESS = ("utils", "util", "common", "helpers", "helper", "misc")


def violations(root: Path) -> list[str]:
    """One sentence for each import that the table does not allow, and for each file or folder that should not be."""
    return [sentence for package in ALLOWED for sentence in _package_violations(root, package)]


def _package_violations(root: Path, package: str) -> Iterator[str]:
    for file in sorted((root / package).rglob("*.py")):
        place = file.relative_to(root)
        if file.stem.strip("_") in NAMELESS:
            yield f"{place} has a name that says nothing about what is in it."
        if file.parent != root / package:
            yield f"{place} lies in a folder of a folder; each package is flat."
        for line, name in imported(ast.parse(file.read_bytes(), str(place)), package):
            top = name.split(".")[0]
            known = top in ALLOWED or top in OUTSIDE
            if known and top != package and not any(f"{name}.".startswith(f"{may}.") for may in ALLOWED[package]):
                yield f"{place}:{line} imports {name}, which {package}/ may not."
    if package == "service" and (root / "service" / "__init__.py").read_bytes().strip():
        yield "service/__init__.py is not empty, and ui/ imports service.client with httpx alone."


def imported(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that is imported, wherever it stands: in functions, under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom():
                # The packages are flat: one dot is the package itself, two are the top.
                start = {0: [], 1: [package]}.get(node.level, []) + ([node.module] if node.module else [])
                # `from heads import metrics` may import a module or a name; the longer one is judged.
                yield from ((node.lineno, ".".join([*start, alias.name])) for alias in node.names)
            case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]) if ast.unparse(function) in (
                "importlib.import_module",
                "import_module",
                "__import__",
            ):
                yield node.lineno, name


def test_every_import_is_an_arrow_of_the_table():
    assert violations(ROOT) == []


def test_the_walk_sees_the_packages():
    # Were a folder renamed, the test above would walk nothing and pass.
    for package in ALLOWED:
        assert (ROOT / package / "__init__.py").is_file()
    names = {name for _, name in imported(ast.parse((ROOT / "indexer" / "gallery.py").read_bytes()), "indexer")}
    assert {"indexer.store.Store", "data.catalog.CatalogItem"} <= names


@pytest.mark.parametrize(
    ("file", "code", "sentence"),
    [
        ("data/a.py", "import indexer", "data/a.py:1 imports indexer, which data/ may not."),
        ("data/a.py", "import indexer.store as s", "data/a.py:1 imports indexer.store, which data/ may not."),
        ("heads/a.py", "from data.catalog import Box", "heads/a.py:1 imports data.catalog.Box, which heads/ may not."),
        ("indexer/a.py", "from heads import knn", "indexer/a.py:1 imports heads.knn, which indexer/ may not."),
        ("finetune/a.py", "from heads import knn", "finetune/a.py:1 imports heads.knn, which finetune/ may not."),
        ("finetune/a.py", "import indexer.store", "finetune/a.py:1 imports indexer.store, which finetune/ may not."),
        ("finetune/a.py", "import indexer", "finetune/a.py:1 imports indexer, which finetune/ may not."),
        (
            "indexer/a.py",
            "from finetune.networks import x",
            "indexer/a.py:1 imports finetune.networks.x, which indexer/ may not.",
        ),
        ("ui/a.py", "from service import engine", "ui/a.py:1 imports service.engine, which ui/ may not."),
        ("ui/a.py", "import service", "ui/a.py:1 imports service, which ui/ may not."),
        ("ui/a.py", "from service.clients import x", "ui/a.py:1 imports service.clients.x, which ui/ may not."),
        ("service/a.py", "import finetune", "service/a.py:1 imports finetune, which service/ may not."),
        ("service/a.py", "import cli", "service/a.py:1 imports cli, which service/ may not."),
        ("cli/a.py", "import ui", "cli/a.py:1 imports ui, which cli/ may not."),
        ("data/a.py", "import tests.data", "data/a.py:1 imports tests.data, which data/ may not."),
        ("data/a.py", "def f():\n    import heads", "data/a.py:2 imports heads, which data/ may not."),
        (
            "data/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ui import app",
            "data/a.py:3 imports ui.app, which data/ may not.",
        ),
        (
            "data/a.py",
            "import importlib\nimportlib.import_module('heads.knn')",
            "data/a.py:2 imports heads.knn, which data/ may not.",
        ),
        ("data/a.py", "from ..heads import knn", "data/a.py:1 imports heads.knn, which data/ may not."),
        ("data/utils.py", "", "data/utils.py has a name that says nothing about what is in it."),
        ("heads/_helpers.py", "", "heads/_helpers.py has a name that says nothing about what is in it."),
        ("data/readers/a.py", "", "data/readers/a.py lies in a folder of a folder; each package is flat."),
        (
            "service/__init__.py",
            "import fastapi",
            "service/__init__.py is not empty, and ui/ imports service.client with httpx alone.",
        ),
    ],
)
def test_a_violation_is_seen(tmp_path, file, code, sentence):
    _plant(tmp_path, {file: code})
    assert violations(tmp_path) == [sentence]


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("data/a.py", "import numpy, data.catalog\nfrom . import catalog\nfrom .catalog import Box"),
        ("data/a.py", "import database, indexers, headsets\nfrom client import service"),
        ("indexer/a.py", "from data import catalog\nfrom indexer.store import Store"),
        ("finetune/a.py", "from heads.metrics import accuracy\nfrom heads import metrics, metrics_paired\nimport data"),
        ("finetune/a.py", "from indexer import architectures, runtimes\nfrom indexer.files import replace_file"),
        ("service/a.py", "import data.images, indexer.gallery, heads.knn"),
        ("cli/a.py", "from cli import items\nfrom service import engine\nimport finetune.recipes"),
        ("ui/a.py", "from service.client import Client\nfrom service import client\nimport service.client"),
    ],
)
def test_what_is_allowed_is_not_seen(tmp_path, file, code):
    _plant(tmp_path, {file: code})
    assert violations(tmp_path) == []


def _plant(root: Path, files: dict[str, str]) -> None:
    """A small tree with the packages and these files."""
    for name in [f"{package}/__init__.py" for package in ALLOWED] + list(files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(files.get(name, ""))
