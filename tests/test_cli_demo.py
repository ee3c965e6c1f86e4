"""demo and ui from the outside: real processes, a real service, and for the page mostly a stand-in that is quick."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from cli import demonstrating
from cli.demonstrating import learnable
from service.client import Client, RefusedError
from tests.test_cli import ROOT, Shop, modiste, shop, start

__all__ = ["shop"]

LONG_S = 120.0
PAGE_PYTHON = ROOT / ".venv-ui" / "bin" / "python"
# Writes down how it was started; ends badly where it is told to.
STAND_IN = """#!{python}
import http.server, json, os, sys
place = os.environ["STAND_IN"]
with open(place, "w") as file:
    json.dump({{"pid": os.getpid(), "arguments": sys.argv[1:], "key": os.environ.get("MODISTE_KEY")}}, file)
if os.environ.get("STAND_IN_DIES"):
    print("Traceback (most recent call last):")
    print("ModuleNotFoundError: No module named 'gradio'")
    sys.exit(1)
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if not os.environ.get("STAND_IN_FAILS") else 500)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"page")
    def log_message(self, *_):
        pass
server.RequestHandlerClass = Page
print(f"Modiste's page is at http://127.0.0.1:{{server.server_port}}", flush=True)
server.serve_forever()
"""
FREE_PORTS = ("--port", 0, "--service-port", 0)


class Demo:
    """`modiste demo` with a stand-in for the page.

    Args:
        folder: For the stand-in and what it writes.
        arguments: Of `modiste demo`.
        program: Instead of `modiste demo` and its arguments; it runs in the folder.
        environment: Beside this one's.
    """

    def __init__(self, folder: Path, *arguments: object, program: list[str] | None = None, **environment: str) -> None:
        stand_in, self.record = folder / "page.py", folder / "page.json"
        stand_in.write_text(STAND_IN.format(python=sys.executable))
        stand_in.chmod(0o755)
        own = {"MODISTE_UI_PYTHON": str(stand_in), "STAND_IN": str(self.record)} | environment
        command = [sys.executable, "-m", "cli", "demo", *map(str, (*FREE_PORTS, *arguments))]
        self.process = subprocess.Popen(
            program or command,
            cwd=folder if program else ROOT,
            env=os.environ | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []

    def read_until(self, beginning: str) -> str:
        """The first line with this beginning; what comes before it is kept."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith(beginning):
                return line
        raise AssertionError("".join(self.said) + self.process.communicate()[1])

    def read_address(self) -> str:
        """Where the service listens, once all of it is there."""
        found = re.search(r"http\S+", self.read_until("The service:"))
        assert found
        return found[0]

    def end(self, number: int | None = None) -> tuple[int, str, str]:
        """Status, stdout and stderr, once it has ended."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=LONG_S)
        return self.process.returncode, "".join(self.said) + out, err

    @property
    def page(self) -> Any:
        """How the page was started."""
        return json.loads(self.record.read_text())

    def children(self) -> list[int]:
        """The processes that it has started, and theirs."""
        return below(self.process.pid)


def below(process: int) -> list[int]:
    lists = Path(f"/proc/{process}/task").glob("*/children")
    own = [int(number) for listed in lists for number in listed.read_text().split()]
    return own + [one for child in own for one in below(child)]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def none_is_left(children: list[int]) -> bool:
    until = time.monotonic() + 10
    while any(map(alive, children)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(alive, children))


linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="/proc is of Linux alone")


@pytest.fixture(scope="module")
def shown(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop whose gallery a demo has prepared; what it said is in `first.txt` beside it."""
    folder = tmp_path_factory.mktemp("demo")
    catalog = shutil.copytree(shop.catalog, folder / "catalog", copy_function=shutil.copy2)
    demo = Demo(folder, "--catalog", catalog, "--targets", "colour", "--once")
    status, out, err = demo.end()
    assert (status, err) == (0, "")
    (folder / "first.txt").write_text(out)
    # The gallery is beside the catalog where none is named.
    return replace(shop, catalog=catalog, gallery=folder / "catalog-gallery")


def arguments(shown: Shop) -> tuple[object, ...]:
    return ("--catalog", shown.catalog, "--targets", "colour")


def test_it_indexes_fits_asks_and_names_both_addresses(shown):
    out = (shown.catalog.parent / "first.txt").read_text()
    assert "24 added" in out
    assert "Fitting heads for colour." in out
    assert "Drawing the map of the catalog." in out
    assert re.search(r"\nLike p00000-1 \(.*\), in \d+ ms:\n  0\.\d{3}  p0", out)
    assert re.search(r"\nWhat p00000-1 is, in \d+ ms:\n  colour: .+ \(.+, \w+ head\)\n", out)
    assert re.search(r"\nThe page:     http://127\S+\nThe service:  http://127\S+\nThe page has answered: 4 bytes", out)
    heads = modiste("stats", "--gallery", shown.gallery, "--json").json["heads"]
    assert {(head["target"], head["kind"]) for head in heads} == {
        ("colour", kind) for kind in ("knn", "linear", "ensemble")
    }


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@linux
def test_it_goes_on_until_it_is_told_to_end_and_leaves_no_process_behind(shown, tmp_path, number, status):
    demo = Demo(tmp_path, *arguments(shown))
    address = demo.read_address()
    demo.read_until("Ctrl-C ends both.")
    # The second time there is nothing to prepare.
    assert not [line for line in demo.said if line.startswith(("Fitting", "Drawing"))]
    assert demo.page["arguments"] == [
        *("-P", "-m", "ui", "--host", "127.0.0.1", "--port", "0", "--service", address),
    ]
    assert demo.page["key"] is None
    children = demo.children()
    assert demo.page["pid"] in children
    with Client(address) as client:
        assert client.catalog().sources == ["default"]
    ended = demo.end(number)
    assert (ended[0], ended[2]) == (status, "")
    assert none_is_left(children)


@linux
def test_read_only_gives_the_page_a_key_that_can_only_ask(shown, tmp_path):
    names = ("--allow-host", "a.example", "--allow-host", "b.example")
    demo = Demo(tmp_path, *arguments(shown), "--read-only", *names, MODISTE_KEY="of another service")
    address = demo.read_address()
    assert demo.page["arguments"][-5:] == ["--allow-host", "b.example", "--read-only", "--service", address]
    with Client(address, demo.page["key"]) as page:
        assert page.catalog().items == 24
        with pytest.raises(RefusedError) as refused:
            page.delete_item("p00000-1")
    assert refused.value.status == 403
    with Client(address) as stranger, pytest.raises(RefusedError) as refused:
        stranger.catalog()
    assert refused.value.status == 401
    out = demo.end(signal.SIGTERM)[1]
    assert demo.page["key"] not in out


def test_two_at_once_do_not_disturb_each_other(shown, tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    demos = [Demo(folder, *arguments(shown), "--once") for folder in folders]
    assert [demo.end()[0] for demo in demos] == [0, 0]


@linux
def test_a_page_that_dies_is_told_with_its_last_lines_and_ends_the_service(shown, tmp_path):
    demo = Demo(tmp_path, *arguments(shown), STAND_IN_DIES="1")
    status, _, err = demo.end()
    assert status == 1
    assert err == (
        "modiste: The page has ended with status 1. It said last:\n"
        "  Traceback (most recent call last):\n  ModuleNotFoundError: No module named 'gradio'\n"
    )


@linux
def test_a_service_that_dies_is_told_and_ends_the_page(shown, tmp_path):
    demo = Demo(tmp_path, *arguments(shown))
    demo.read_until("Ctrl-C ends both.")
    children = demo.children()
    [service] = [one for one in children if b"serve" in Path(f"/proc/{one}/cmdline").read_bytes().split(b"\0")]
    os.kill(service, signal.SIGKILL)
    status, _, err = demo.end()
    assert status == 1
    assert err.startswith("modiste: The service has ended with signal 9. It said last:\n  ")
    assert "Traceback" not in err
    assert none_is_left(children)


def test_a_page_that_fails_is_no_success_and_settings_of_another_service_do_not_count(shown, tmp_path):
    settings = {
        "MODISTE_KEYS_FILE": str(tmp_path / "none.json"),
        "MODISTE_CONFIG": str(tmp_path / "none.toml"),
        "MODISTE_HOST": "0.0.0.0",
    }
    status, _, err = Demo(tmp_path, *arguments(shown), "--once", STAND_IN_FAILS="1", **settings).end()
    assert status == 1
    assert "answers with status 500, and 200 was wanted" in err


@linux
@pytest.mark.parametrize("after", ["", "index", "serve"])
def test_ended_on_the_way_it_loses_nothing_and_the_next_one_goes_on(shop, tmp_path, after):
    gallery = tmp_path / "gallery"
    demo = Demo(tmp_path, "--catalog", shop.catalog, "--gallery", gallery, "--targets", "colour")
    until, children = time.monotonic() + LONG_S, []
    while time.monotonic() < until:
        children = demo.children()
        commands = [place.read_bytes() for one in children if (place := Path(f"/proc/{one}/cmdline")).exists()]
        if any(after.encode() in command.split(b"\0") for command in commands):
            break
        time.sleep(0.01)
    status, _, err = demo.end(signal.SIGINT)
    assert status == 130
    assert "Traceback" not in err
    assert none_is_left(children)
    if (gallery / "items.lance").exists():
        assert modiste("verify", "--gallery", gallery).status == 0
    assert modiste("index", shop.catalog, "--gallery", gallery, "--encoder", "efficientnet-lite0").status == 0


def test_photos_without_labels_are_shown_without_heads(shop, tmp_path):
    (tmp_path / "photos").mkdir()
    for photo in sorted((shop.catalog / "images").iterdir())[:12]:
        shutil.copy(photo, tmp_path / "photos")
    status, out, err = Demo(tmp_path, "--catalog", tmp_path / "photos", "--once").end()
    assert (status, err) == (0, "")
    assert "No column has two labels of five photos or more, so no heads are fitted" in out
    assert "Like p00000-1" in out
    assert "What " not in out


class Jobs:
    """A client whose fits fail where a target is among those that cannot be learned, and that has no map."""

    def __init__(self, *hopeless: str) -> None:
        self.hopeless, self.asked = hopeless, []

    def catalog(self) -> Any:
        head = {"target": "type", "gallery_version": 7}
        heads = [SimpleNamespace(kind=kind, **head) for kind in ("knn", "linear", "ensemble")]
        heads += [SimpleNamespace(kind="knn", target="season", gallery_version=7)]
        heads += [SimpleNamespace(kind=one.kind, target="colour", gallery_version=6) for one in heads[:3]]
        return SimpleNamespace(targets={}, heads=heads, gallery_version=7, has_projection=True)

    def projection(self, **_: int) -> Any:
        return SimpleNamespace(projected_version=6)

    def submit(self, kind: str, **options: Any) -> Any:
        self.asked.append((kind, options.get("targets")))
        if kind == "project":
            raise RefusedError("There is no such job.", 422)
        return SimpleNamespace(id=set(options["targets"]) & set(self.hopeless))

    def wait(self, hopeless: set[str]) -> Any:
        return SimpleNamespace(state="failed" if hopeless else "done", error="Too few." if hopeless else None)


def test_only_what_is_not_fresh_is_prepared_and_what_cannot_be_is_told(capsys):
    jobs = Jobs("season")
    demonstrating._prepare(jobs, ["type", "colour", "season"])  # type: ignore[arg-type]
    # One that cannot be learned keeps the others from being fitted, so each is asked for alone then.
    fits = [["colour", "season"], ["colour"], ["season"]]
    assert jobs.asked == [*(("fit", targets) for targets in fits), ("project", None)]
    assert capsys.readouterr().out.splitlines() == [
        "Fitting heads for colour, season.",
        "There are heads for colour.",
        "There are no heads for season: Too few.",
        "Drawing the map of the catalog.",
        "There is no such job.",
    ]


def test_a_single_target_is_not_tried_twice(capsys):
    jobs = Jobs("season")
    demonstrating._prepare(jobs, ["season"])  # type: ignore[arg-type]
    assert [kind for kind, _ in jobs.asked] == ["fit", "project"]
    assert "There are no heads for season: Too few." in capsys.readouterr().out


@pytest.mark.parametrize("name", ["empty", "absent"])
def test_a_folder_without_photos_is_told_in_a_sentence(tmp_path, name):
    (tmp_path / "empty").mkdir()
    status, _, err = Demo(tmp_path, "--catalog", tmp_path / name).end()
    assert status in (1, 2)
    assert err
    assert "Traceback" not in err
    assert not (tmp_path / "page.json").exists()


@pytest.mark.parametrize(("option", "command"), [("--port", "demo"), ("--service-port", "demo")])
def test_a_port_in_use_is_told_before_the_work(tmp_path, monkeypatch, option, command):
    monkeypatch.setenv("MODISTE_UI_PYTHON", sys.executable)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = {"--port": 0, "--service-port": 0} | {option: port}
        done = modiste(command, "--catalog", tmp_path, *(word for pair in options.items() for word in pair))
    assert done.status == 1
    assert f"Nothing can listen on 127.0.0.1 port {port}: " in done.err
    assert f"pass another {option}; 0 takes a free one" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["demo", "ui"])
def test_a_page_without_an_environment_is_told_with_the_way_to_one(tmp_path, monkeypatch, command):
    monkeypatch.setenv("MODISTE_UI_PYTHON", str(tmp_path / "none"))
    done = modiste(command)
    assert done.status == 1
    assert f"{tmp_path / 'none'} is no program" in done.err
    monkeypatch.delenv("MODISTE_UI_PYTHON")
    monkeypatch.setattr(demonstrating, "_ROOT", tmp_path)
    done = modiste(command)
    assert done.status == 1
    assert f"there is none at {tmp_path}/.venv-ui/bin/python. Run `make setup` in {tmp_path}. By hand:" in done.err
    assert f"/pip install -r {tmp_path}/ui/requirements.txt -c {tmp_path}/ui/constraints.txt" in done.err
    monkeypatch.setattr(demonstrating, "_IS_CHECKOUT", False)
    # Installed, the page's environment needs the page itself too.
    assert "/pip install --no-deps modiste\n  export MODISTE_UI_PYTHON=" in modiste(command).err


@pytest.mark.parametrize(
    ("catalog", "gallery"),
    [("photos/", "photos-gallery"), ("a/items.csv", "a/items.csv-gallery"), ("/x", "/x-gallery")],
)
def test_the_gallery_is_beside_the_catalog(catalog, gallery):
    assert demonstrating._beside(Path(catalog)) == Path(gallery)


def test_the_gallery_of_this_folder_is_beside_it(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    assert demonstrating._beside(Path()) == Path(f"{Path.cwd()}-gallery")


def test_the_sample_is_drawn_once_and_aside(tmp_path):
    class Drawing:
        def __init__(self) -> None:
            self.commands: list[list[str]] = []

        def run(self, command, **_):
            self.commands.append(command)
            out = Path(command[command.index("--out") + 1])
            # Broken off, it would be no catalog.
            assert out.parent.parent == Path("modiste-demo")
            out.mkdir()
            (out / "items.csv").touch()
            return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        drawing = Drawing()
        assert [demonstrating._sample(drawing) for _ in range(2)] == [Path("modiste-demo/catalog")] * 2  # type: ignore[arg-type]
        assert len(drawing.commands) == 1
        assert [one.name for one in Path("modiste-demo").iterdir()] == ["catalog"]
        # What is there and is no sample stays as it is.
        Path("modiste-demo/catalog/items.csv").rename("modiste-demo/catalog/own.csv")
        with pytest.raises(demonstrating.DemoError, match="where something else is"):
            demonstrating._sample(drawing)  # type: ignore[arg-type]
        assert Path("modiste-demo/catalog/own.csv").exists()


def test_targets_that_can_be_learned_come_by_how_many_items_have_them():
    counts = {
        "type": {"shirt": 50, "shoe": 40},
        "season": {"summer": 60, "winter": 40, "odd": 1},
        # Nearly every item has a name of its own.
        "name": {"twice": 5, "again": 5, **{f"n{number}": 1 for number in range(80)}},
        "brand": {"only": 100},
        "rare": {"a": 4, "b": 4},
        "split": {"train": 60, "test": 40},
    }
    assert learnable(counts) == ["season", "type"]
    many = {f"t{number}": {"a": 5 + number, "b": 5} for number in range(10)}
    assert learnable(many) == [f"t{number}" for number in (9, 8, 7, 6, 5, 4, 3, 2)]
    assert learnable({}) == []


page = pytest.mark.skipif(not PAGE_PYTHON.exists(), reason="there is no .venv-ui; `make setup` makes it")


@page
def test_the_page_itself_answers(shown):
    done = start("demo", *FREE_PORTS, *arguments(shown), "--once")
    out, err = done.communicate(timeout=LONG_S)
    assert (done.returncode, err) == (0, "")
    found = re.search(r"The page has answered: (\d+) bytes", out)
    assert found
    assert int(found[1]) > 1000


@page
def test_the_page_alone_says_where_it_is_and_ends_when_told(tmp_path):
    # The service is away, and the page answers all the same. What lies in this folder is not taken for a module.
    (tmp_path / "ui.py").write_text("raise SystemExit(9)")
    alone = subprocess.Popen(
        [sys.executable, "-P", "-m", "cli", "ui", "--service", "http://127.0.0.1:9", "--port", "0", "--read-only"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert alone.stdout is not None
    found = re.search(r"page is at (http\S+)", alone.stdout.readline())
    try:
        assert found, alone.communicate(timeout=LONG_S)
        assert httpx.get(found[1], timeout=LONG_S, trust_env=False).status_code == 200
    finally:
        alone.terminate()
        alone.communicate(timeout=LONG_S)
