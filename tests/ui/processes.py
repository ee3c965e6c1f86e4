"""A service and a page in processes of their own, as a user runs them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.test_cli_serving import Service

ROOT = Path(__file__).parents[2]
LONG_S = 60.0
# Where `make setup` puts the page's environment.
UI_PYTHON = Path(os.environ.get("MODISTE_UI_PYTHON", ROOT / ".venv-ui" / "bin" / "python"))


@contextmanager
def service_of(*arguments: object) -> Iterator[str]:
    """The address of a service, which lasts for as many requests as a page makes."""
    one = Service(*arguments)
    stdout, stderr = one.process.stdout, one.process.stderr
    assert stdout is not None
    assert stderr is not None
    # It logs every request: where nobody reads that, it stops answering once the pipe is full.
    reader = threading.Thread(target=lambda: [None for _ in stderr], daemon=True)
    reader.start()
    try:
        yield one.address
    finally:
        one.process.send_signal(signal.SIGTERM)
        one.process.wait(LONG_S)
        reader.join(LONG_S)
        stdout.close()
        stderr.close()


@contextmanager
def page_of(service: str, *arguments: str, key: str | None = None) -> Iterator[str]:
    """The address of a page in front of a service."""
    if not UI_PYTHON.exists():
        pytest.skip("The page's environment is not there; `make setup` makes it.")
    environment = {name: value for name, value in os.environ.items() if name != "MODISTE_KEY"}
    if key is not None:
        environment["MODISTE_KEY"] = key
    process = subprocess.Popen(
        [str(UI_PYTHON), "-m", "ui", "--service", service, "--port", "0", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        greeting = process.stdout.readline()
        found = re.search(r"http://\S+", greeting)
        assert found, greeting + process.communicate(timeout=LONG_S)[0]
        yield found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LONG_S)
