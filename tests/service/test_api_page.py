"""docs/api.md does what it says: every curl line and example runs against a service, and no route is missing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.client import Client

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
ADDRESS = "http://127.0.0.1:8000"
# A block of curl, the status that it promises, and an excerpt of the answer where the page has one.
BLOCK = re.compile(r"^```sh\n(.+?)^```\n`(\d{3})`\n(?:\n```json\n(.+?)^```\n)?", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall(PAGE)
CURLRC = 'silent\nshow-error\nmax-time = 120\nwrite-out = "\\n%{http_code}"\n'
SECTIONS = dict(re.findall(r"^### `(.+?)`\n(.+?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL))


@dataclass(frozen=True, slots=True)
class Service:
    """A service that answers, and the folder where its demo is."""

    address: str
    folder: Path


# Several commands in one process: each of its own would load the same libraries again.
MAKE = """
import sys, cli
for line in sys.stdin:
    sys.argv = ["modiste", *line.split()]
    try:
        cli.main()
    except SystemExit as end:
        if end.code:
            raise
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """What `make demo` makes, a tenth of it."""
    folder = tmp_path_factory.mktemp("api")
    demo = "artifacts/demo"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    commands = f"""
        sample --out {demo}/catalog --count 60
        index {demo}/catalog --gallery {demo}/gallery --encoder efficientnet-lite0
        fit --gallery {demo}/gallery --targets category --head knn
    """.strip()
    options = {"cwd": folder, "env": environment, "text": True}
    done = subprocess.run([sys.executable, "-c", MAKE], input=commands, capture_output=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    serve = f"serve --gallery {demo}/gallery --catalog {demo}/catalog --port 0".split()
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-c", "import cli; cli.main()", *serve]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, **options)
    try:
        assert process.stdout is not None
        said = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert said, (folder / "log").read_text()
        yield Service(said[0], folder)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def shape(value: Any, above: str = "") -> set[str]:
    """Where a JSON value has what: `neighbours[].item.item_id`."""
    if isinstance(value, dict):
        return {above, *(place for name, each in value.items() for place in shape(each, f"{above}.{name}"))}
    if isinstance(value, list):
        return {above, *(place for each in value for place in shape(each, f"{above}[]"))}
    return {above}


def test_every_curl_line_answers_as_the_page_promises(service):
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    (service.folder / ".curlrc").write_text(CURLRC)
    # One shell for all: a block may use a variable of one before it.
    commands = [
        f"{{\n{command}}} > {number}.out 2> {number}.err || exit {number + 1}"
        for number, (command, *_) in enumerate(BLOCKS)
    ]
    script = "set -o pipefail\n" + "\n".join(commands).replace(ADDRESS, service.address)
    environment = {"PATH": os.environ["PATH"], "CURL_HOME": str(service.folder), "LANG": "C.UTF-8"}
    done = subprocess.run(["bash", "-c", script], cwd=service.folder, env=environment, check=False, timeout=300)
    failed = "" if done.returncode == 0 else BLOCKS[done.returncode - 1][0]
    assert done.returncode == 0, f"{failed}{(service.folder / f'{done.returncode - 1}.err').read_text()}"
    for number, (command, status, excerpt) in enumerate(BLOCKS):
        body, _, answered = (service.folder / f"{number}.out").read_text("utf-8", "replace").rpartition("\n")
        assert answered == status, f"{command}{body}"
        if excerpt:
            missing = shape(json.loads(excerpt)) - shape(json.loads(body))
            assert not missing, f"The page shows what {command} does not answer: {sorted(missing)}"


@pytest.mark.parametrize("number", range(PAGE.count("```python\n")))
def test_every_python_example_runs(service, number):
    code = re.findall(r"^```python\n(.+?)^```", PAGE, re.MULTILINE | re.DOTALL)[number].replace(
        ADDRESS, service.address
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # Edits are refused while a job of the lines above is writing.
    with Client(service.address) as client:
        for job in client.jobs():
            client.wait(job.id, timeout=60)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=service.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_every_route_and_parameter_is_on_the_page(service):
    paths = httpx.get(f"{service.address}/openapi.json").json()["paths"]
    routes = {f"{method.upper()} {path}": each for path, methods in paths.items() for method, each in methods.items()}
    assert set(SECTIONS) == set(routes)
    for route, operation in routes.items():
        assert "\ncurl " in SECTIONS[route], f"{route} has no example."
        for parameter in operation.get("parameters", []):
            name = parameter["name"]
            assert f"`{name}" in SECTIONS[route] or f"{{{name}}}" in route, f"{route} does not say what {name} is."


def test_every_block_of_curl_promises_a_status():
    assert len(BLOCKS) == PAGE.count("```sh\n") > 20
    assert all("curl " in command for command, *_ in BLOCKS)
    # Each address is the demo's, or the test would ask something else.
    assert set(re.findall(r"https?://[^/\s\"`)]+", PAGE)) == {ADDRESS}
