"""Dockerfile and compose.yaml: well formed, and with no more rights than they need. No engine runs here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[1]
PACKAGES = ("cli", "data", "finetune", "heads", "indexer", "service", "ui")


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    """The instructions and what follows each, its lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(word, " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in joined)]


@pytest.fixture(scope="module")
def final(dockerfile: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The instructions of the last stage."""
    start = max(place for place, (word, _) in enumerate(dockerfile) if word == "FROM")
    return dockerfile[start:]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return content


@pytest.fixture(scope="module")
def environment(final: list[tuple[str, str]]) -> dict[str, str]:
    """The variables of the image."""
    [text] = [rest for word, rest in final if word == "ENV"]
    return dict(part.split("=", 1) for part in text.split())


def test_hadolint_has_nothing_to_say():
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed; `make setup` installs it where it has a build for this machine")
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    # A rule that is passed over is passed over for a reason that stands here: there is none.
    assert "hadolint ignore" not in (ROOT / "Dockerfile").read_text()


def test_every_stage_says_its_tag(dockerfile):
    assert [rest for word, rest in dockerfile if word == "FROM"] == ["python:3.13-slim AS build", "python:3.13-slim"]


def test_the_image_runs_as_nobody_in_particular(final):
    words = [word for word, _ in final]
    [user] = [rest for word, rest in final if word == "USER"]
    assert user == "10001:10001"
    # Nothing is done as root after that, and nothing is copied that this user could change.
    assert not {"RUN", "COPY", "ADD"} & set(words[words.index("USER") :])
    assert all("--chown" not in rest for _, rest in final)


def test_the_image_starts_the_service_itself(final):
    assert [json.loads(rest) for word, rest in final if word == "ENTRYPOINT"] == [["modiste", "serve"]]
    assert not [rest for word, rest in final if word == "CMD"]


def test_nothing_secret_is_in_the_image(dockerfile, environment):
    assert not [name for name in environment if re.search("KEY|TOKEN|SECRET|PASSWORD", name)]
    assert [rest for word, rest in dockerfile if word == "ARG"] == ['EXTRA_INDEX_URL=""']
    assert all("http" not in rest for word, rest in dockerfile if word != "HEALTHCHECK")
    assert not [rest for word, rest in dockerfile if word == "ADD"]


def test_the_build_keeps_to_the_pinned_versions(dockerfile):
    [install] = [rest for word, rest in dockerfile if word == "RUN" and "-r requirements.txt" in rest]
    assert "-c constraints.txt" in install
    [own] = [rest for word, rest in dockerfile if word == "RUN" and rest.endswith("install --no-deps .")]
    assert own


def test_the_environment_is_one_for_containers(environment):
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environment["MALLOC_ARENA_MAX"] == "2"
    assert environment["OMP_NUM_THREADS"] == "1"
    # The root filesystem may be read-only.
    assert environment["MODISTE_CACHE"] == "/cache"
    assert environment["HF_HOME"].startswith("/cache/")


def test_all_that_is_installed_gets_into_the_build_and_nothing_else():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    needed = {"LICENSE", "README.md", "constraints.txt", "pyproject.toml", *PACKAGES}
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == needed
    assert all((ROOT / name).exists() for name in needed)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["setuptools"]["packages"]) == set(PACKAGES)


class Ready(BaseHTTPRequestHandler):
    """Answers /readyz with the server's status."""

    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/readyz" else 404)  # type: ignore[attr-defined]
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Keeps the test's output clean."""


@contextmanager
def ready_server(status: int) -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        server.status = status  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (404, False)])
def test_the_health_check_asks_whether_the_service_is_ready(final, compose, status, healthy):
    [text] = [rest for word, rest in final if word == "HEALTHCHECK"]
    check = json.loads(text.partition(" CMD ")[2])
    assert compose["services"]["modiste"]["healthcheck"]["test"] == ["CMD", *check]
    with ready_server(status) as port:
        # A proxy that the environment names is not asked.
        variables = {"MODISTE_PORT": str(port), "http_proxy": "http://127.0.0.1:9", "PATH": os.environ["PATH"]}
        done = subprocess.run([sys.executable, *check[1:]], env=variables, capture_output=True, check=False, timeout=60)
    assert (done.returncode == 0) is healthy


def test_the_health_checks_keep_the_same_time(final, compose):
    [text] = [rest for word, rest in final if word == "HEALTHCHECK"]
    options = dict(part.removeprefix("--").split("=") for part in text.partition(" CMD ")[0].split())
    check = compose["services"]["modiste"]["healthcheck"]
    assert options == {name.replace("_", "-"): str(value) for name, value in check.items() if name != "test"}


def test_the_compose_file_is_one_by_the_specification(compose):
    schema = json.loads((ROOT / "tests" / "compose-spec.json").read_text())
    assert [error.message for error in jsonschema_rs.validator_for(schema).iter_errors(compose)] == []


def test_the_schema_finds_a_slip(compose):
    schema = json.loads((ROOT / "tests" / "compose-spec.json").read_text())
    slip = {**compose, "services": {"modiste": {**compose["services"]["modiste"], "readonly": True}}}
    assert not jsonschema_rs.validator_for(schema).is_valid(slip)


def test_every_service_has_as_few_rights_as_it_needs(compose):
    for service in compose["services"].values():
        assert service["user"] == "10001:10001"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"]
        assert service["pids_limit"]
        assert service["healthcheck"]
        assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & service.keys()
        # Docker opens a port to everyone unless an address stands before it, past the machine's firewall too.
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        [temporary] = service["tmpfs"]
        assert temporary.startswith("/tmp:")
        assert {"noexec", "nosuid", "nodev"} <= set(temporary.split(":")[1].split(","))


def test_the_catalog_cannot_be_written_and_the_gallery_can(compose):
    service = compose["services"]["modiste"]
    mounts = {mount.rsplit(":", 2 if mount.endswith(":ro") else 1)[1]: mount for mount in service["volumes"]}
    assert mounts["/catalog"].endswith(":ro")
    assert mounts["/gallery"] == "gallery:/gallery"
    assert set(compose["volumes"]) == {"gallery", "cache"}


def test_the_keys_are_a_secret_and_stand_nowhere_else(compose):
    service = compose["services"]["modiste"]
    assert service["secrets"] == list(compose["secrets"])
    assert service["environment"]["MODISTE_KEYS_FILE"] == f"/run/secrets/{service['secrets'][0]}"


def test_the_service_takes_the_settings_that_the_container_gives_it(environment, compose, tmp_path, monkeypatch):
    from service.keys import add_key

    add_key(tmp_path / "keys.json", "shop", "read")
    given = {**environment, **compose["services"]["modiste"]["environment"]}
    given |= {"MODISTE_KEYS_FILE": str(tmp_path / "keys.json"), "MODISTE_TRUSTED_HOSTS": "shop.example"}
    for name in [name for name in os.environ if name.startswith("MODISTE_")]:
        monkeypatch.delenv(name)
    for name, value in given.items():
        if name.startswith("MODISTE_"):
            monkeypatch.setenv(name, value)
    settings = Settings.read()
    assert (settings.host, settings.port, settings.gallery) == ("0.0.0.0", 8000, Path("/gallery"))
    assert settings.catalogs["default"].path == Path("/catalog")
    assert "shop.example" in settings.trusted_hosts
