"""Commands that show Modiste in a browser: demo, which starts all of it, and ui, the page alone."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import FormatOption, MapOption, names_of
from cli.processes import Processes, Running

if TYPE_CHECKING:
    from service.answers import Catalog, Item, JobKind
    from service.client import Client

HostOption = Annotated[str, typer.Option(help="Address that the page listens on.")]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")]
ReadOnlyOption = Annotated[bool, typer.Option("--read-only", help="Leave out of the page what changes the gallery.")]
AllowHostOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host", help="Another name by which browsers may know the page; * is any.", show_default=False
    ),
]
AllowFrameOption = Annotated[
    list[str] | None,
    typer.Option("--allow-frame", help="Origin of a site that may show the page in a frame.", show_default=False),
]

_KEYS = "keys.json"
_SAMPLE = Path("modiste-demo", "catalog")
_KINDS = ("knn", "linear", "ensemble")
# A label of fewer photos says little, and a demo is not to fit for long.
_ENOUGH, _MOST_TARGETS = 5, 8
# Seconds to wait for another writer.
_WAIT_S = 60
_ROOT = Path(__file__).parents[1]
_IS_CHECKOUT = (_ROOT / "pyproject.toml").is_file()


class DemoError(RuntimeError):
    """The demo cannot go on; the message says why, and what to do."""


def demo(
    catalog: Annotated[
        Path | None, typer.Option(help="Folder or table of photos. Default: the sample, in modiste-demo/catalog.")
    ] = None,
    gallery: Annotated[Path | None, typer.Option(help="Folder of the gallery. Default: CATALOG-gallery.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Name or folder. Default: the gallery's, or efficientnet-lite0.")
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(help="Label columns to fit, joined by commas. Default: up to eight that can be learned."),
    ] = None,
    catalog_format: FormatOption = None,
    mapping: MapOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 7860,
    service_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the service; 0 takes a free one.")
    ] = 8000,
    allow_host: AllowHostOption = None,
    allow_frame: AllowFrameOption = None,
    read_only: ReadOnlyOption = False,
    once: Annotated[bool, typer.Option("--once", help="End once every part has answered.")] = False,
) -> None:
    """Index a catalog, fit heads, and start the service and its page, until Ctrl-C."""
    wanted = None if targets is None else names_of(targets, "--targets")
    page = page_command(host, port, allow_host, allow_frame, read_only=read_only)
    _check_port(host, port, "--port")
    _check_port("127.0.0.1", service_port, "--service-port")
    shown = [*_option("--format", catalog_format), *_option("--map", mapping)]
    with tempfile.TemporaryDirectory(prefix="modiste-demo-") as private, Processes() as processes:
        source = _sample(processes) if catalog is None else catalog
        folder = gallery or _beside(source)
        _index(processes, source, folder, encoder, shown)
        keys = _new_keys(Path(private)) if read_only else {}
        options = ["--catalog", source, *shown, "--port", service_port]
        options += ["--keys", Path(private, _KEYS)] if read_only else []
        service = _start_service(processes, folder, options)
        page = [*page, "--service", processes.address_of(service)]
        variables = {"MODISTE_KEY": keys["read"]} if read_only else {}
        front = processes.start("The page", page, r"page is at (http\S+)", env=_environment("MODISTE_KEY", **variables))
        _ask(processes, processes.address_of(service), keys.get("admin"), wanted)
        address = processes.address_of(front)
        print(f"\nThe page:     {address}\nThe service:  {service.address}", flush=True)
        if once:
            _visit(address)
        else:
            print("Ctrl-C ends both.", flush=True)
            processes.wait()


def _beside(catalog: Path) -> Path:
    """The folder of a catalog's gallery where none is named."""
    named = catalog if catalog.name not in ("", "..") else catalog.resolve()
    return Path(f"{named}-gallery")


def _start_service(processes: Processes, gallery: Path, options: list[object]) -> Running:
    command = _modiste("serve", "--gallery", gallery, "--host", "127.0.0.1", *options)
    # What is set for another service is not meant for this one.
    return processes.start(
        "The service", command, r"answers at (http\S+?): ", env=_environment("MODISTE_CONFIG", "MODISTE_KEYS_FILE")
    )


def _ask(processes: Processes, address: str, key: str | None, targets: list[str] | None) -> None:
    """Has the service prepare what the page shows, and shows an answer of each kind."""
    from service.client import Client, ServiceError

    try:
        with Client(address, key) as client:
            _prepare(client, targets)
            if key is not None:
                _look_for_visitors(client)
            _show_answers(client)
    except ServiceError as error:
        processes.check()
        raise DemoError(f"The service gave no answer: {error}") from error


def ui(
    service: Annotated[str, typer.Option(help="Address of the service.")] = "http://127.0.0.1:8000",
    host: HostOption = "127.0.0.1",
    port: PortOption = 7860,
    allow_host: AllowHostOption = None,
    allow_frame: AllowFrameOption = None,
    read_only: ReadOnlyOption = False,
) -> None:
    """Serve the page of a service that runs already, until Ctrl-C; its key is read from MODISTE_KEY."""
    command = [*page_command(host, port, allow_host, allow_frame, read_only=read_only), "--service", service]
    os.execve(command[0], command, _environment())


def page_command(
    host: str,
    port: int,
    allow_host: Sequence[str] | None,
    allow_frame: Sequence[str] | None,
    *,
    read_only: bool,
) -> list[str]:
    """The page's program and arguments, all but the service's address.

    Raises:
        DemoError: The page has no environment.
    """
    names = [word for name in allow_host or () for word in ("--allow-host", name)]
    names += [word for origin in allow_frame or () for word in ("--allow-frame", origin)]
    options = ["--host", host, "--port", str(port), *names, *(["--read-only"] if read_only else [])]
    # -P: what lies in the folder that the command is given in is none of the page's modules.
    return [str(_page_python()), "-P", "-m", "ui", *options]


def _page_python() -> Path:
    """The Python of the page's own environment: Gradio wants an older Pillow than Modiste."""
    named = os.environ.get("MODISTE_UI_PYTHON")
    python = Path(named or _ROOT / ".venv-ui" / "bin" / "python")
    if os.access(python, os.X_OK) and python.is_file():
        return python.absolute()
    if named:
        raise DemoError(f"MODISTE_UI_PYTHON names the Python of the page's environment, and {python} is no program.")
    make = f"Run `make setup` in {_ROOT}." if _IS_CHECKOUT else ""
    folder = shlex.quote(str(python.parents[1]) if _IS_CHECKOUT else "modiste-page")
    files = shlex.quote(str(_ROOT / "ui" / "requirements.txt")), shlex.quote(str(_ROOT / "ui" / "constraints.txt"))
    lines = [f"python3 -m venv {folder}", f"{folder}/bin/pip install -r {files[0]} -c {files[1]}"]
    if not _IS_CHECKOUT:
        lines += [f"{folder}/bin/pip install --no-deps modiste", f"export MODISTE_UI_PYTHON=$PWD/{folder}/bin/python"]
    by_hand = "".join(f"\n  {line}" for line in lines)
    raise DemoError(
        f"The page runs in an environment of its own, and there is none at {python}. {make}"
        f"{' By hand:' if make else 'Make one:'}{by_hand}"
    )


def _environment(*without: str, **more: str) -> dict[str, str]:
    """This environment for a child, without some variables, and with the packages of this checkout."""
    kept = {name: value for name, value in os.environ.items() if name not in without} | more
    # Installed packages are found by themselves; on the path they would come before the page's own.
    return kept | ({"PYTHONPATH": str(_ROOT)} if _IS_CHECKOUT else {})


def _check_port(host: str, port: int, option: str) -> None:
    """Refuses a port that is taken before the work is done."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host.strip("[]"), port), family=family).close()
    except OSError as error:
        raise DemoError(
            f"Nothing can listen on {host} port {port}: {error.strerror}. End what listens there, or pass another "
            f"{option}; 0 takes a free one."
        ) from error


def _modiste(*arguments: object) -> list[str]:
    return [sys.executable, "-P", "-m", "cli", *map(str, arguments)]


def _sample(processes: Processes) -> Path:
    """The sample catalog, drawn where it is not there yet."""
    if (_SAMPLE / "items.csv").is_file():
        return _SAMPLE
    _SAMPLE.parent.mkdir(parents=True, exist_ok=True)
    # Drawn aside: a drawing that was broken off is no catalog, and two that draw at once do not meet.
    with tempfile.TemporaryDirectory(prefix=".drawing-", dir=_SAMPLE.parent, ignore_cleanup_errors=True) as aside:
        drawn = Path(aside, "catalog")
        _say(f"Drawing the sample catalog at {_SAMPLE}.")
        _run(processes, _modiste("sample", "--out", drawn), is_quiet=True)
        try:
            drawn.rename(_SAMPLE)
        except OSError as error:
            if not (_SAMPLE / "items.csv").is_file():
                raise DemoError(
                    f"The sample catalog is drawn at {_SAMPLE}, where something else is. Move that, or pass --catalog."
                ) from error
    return _SAMPLE


def _index(processes: Processes, catalog: Path, gallery: Path, encoder: str | None, shown: list[str]) -> None:
    """Takes in what is new or changed."""
    # A new gallery gets the encoder that comes with Modiste: a demo should need no download.
    chosen = encoder or (None if (gallery / "items.lance").is_dir() else "efficientnet-lite0")
    options = [*_option("--encoder", chosen), *shown, "--wait", str(_WAIT_S)]
    _run(processes, _modiste("index", catalog, "--gallery", gallery, *options))


def _run(processes: Processes, command: list[str], *, is_quiet: bool = False) -> None:
    status = processes.run(command, env=_environment(), is_quiet=is_quiet)
    if status:
        # It has said why.
        raise typer.Exit(status if status > 0 else 1)


def _option(name: str, value: object | None) -> list[str]:
    return [] if value is None else [name, str(value)]


def _new_keys(folder: Path) -> dict[str, str]:
    """A key for the page, which may only ask, and one for the demo itself."""
    from service.keys import add_key

    return {scope: add_key(folder / _KEYS, scope, scope) for scope in ("read", "admin")}


def _prepare(client: Client, wanted: list[str] | None) -> None:
    """Has heads fitted and the map drawn, where the gallery has changed since."""
    catalog = client.catalog()
    chosen = learnable(catalog.targets) if wanted is None else wanted
    fresh = {(head.target, head.kind) for head in catalog.heads if head.gallery_version == catalog.gallery_version}
    due = [target for target in chosen if not fresh.issuperset((target, kind) for kind in _KINDS)]
    if not chosen:
        print(
            "No column has two labels of five photos or more, so no heads are fitted: photos are found, not labelled."
        )
    if due:
        _say(f"Fitting heads for {', '.join(due)}.")
        failed = _job(client, "fit", targets=due, heads=_KINDS)
        # One that cannot be learned keeps the others from being fitted.
        for target in due if failed else ():
            failed = _job(client, "fit", targets=[target], heads=_KINDS) if len(due) > 1 else failed
            _say(f"There are no heads for {target}: {failed}" if failed else f"There are heads for {target}.")
    _draw_map(client, catalog)


def _look_for_visitors(client: Client) -> None:
    """Has suspects and duplicates found, which a page that only asks cannot order."""
    catalog = client.catalog()
    done = {
        (job.kind, job.options.get("target"))
        for job in client.jobs()
        if job.state == "done" and (job.result or {}).get("gallery_version") == catalog.gallery_version
    }
    targets = list(dict.fromkeys(head.target for head in catalog.heads))
    asked: list[tuple[JobKind, dict[str, str]]] = [("suspects", {"target": target}) for target in targets]
    for kind, options in [*asked, ("duplicates", {})]:
        if (kind, options.get("target")) not in done:
            _say(f"Looking for {' in '.join([kind, *options.values()])}.")
            failed = _job(client, kind, **options)
            if failed:
                _say(failed)


def learnable(targets: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Up to eight targets that heads can learn, those that most items have first.

    Args:
        targets: How many items carry each label.
    """
    found = {}
    for target, counts in targets.items():
        usable = [count for count in counts.values() if count >= _ENOUGH]
        # A name or a number of its own for nearly every item is nothing to learn.
        if target != "split" and len(usable) >= 2 and sum(usable) >= sum(counts.values()) / 2:
            found[target] = sum(usable)
    return sorted(found, key=lambda target: -found[target])[:_MOST_TARGETS]


def _draw_map(client: Client, catalog: Catalog) -> None:
    from service.client import NotFoundError

    try:
        if catalog.has_projection and client.projection(limit=1).projected_version == catalog.gallery_version:
            return
    except NotFoundError:
        pass
    _say("Drawing the map of the catalog.")
    failed = _job(client, "project")
    if failed:
        _say(failed)


def _job(client: Client, kind: JobKind, **options: Any) -> str | None:
    """Waits for a job; why it did nothing, where it did not."""
    from service.client import RefusedError

    try:
        job = client.wait(client.submit(kind, **options).id)
    except RefusedError as error:
        return error.detail
    return None if job.state == "done" else job.error or f"The {kind} job was {job.state}."


def _show_answers(client: Client) -> None:
    """Asks what an item is like and what it is, and prints both."""
    item = client.items(limit=1).items[0]
    near = client.neighbours(item_id=item.item_id, k=5)
    print(f"\nLike {_named(item)}, in {near.receipt.timings_ms['total']:.0f} ms:")
    for one in near.neighbours:
        print(f"  {one.similarity:.3f}  {_named(one.item)}")
    if not client.catalog().heads:
        return
    answer = client.classify(item_id=item.item_id, top=1)
    print(f"What {item.item_id} is, in {answer.receipt.timings_ms['total']:.0f} ms:")
    for guess in answer.photos[0].predictions:
        label = "none of these" if guess.none_of_these else " | ".join(guess.predicted) or "none"
        sure = f"{guess.labels[0].probability:.0%}" if guess.labels and not guess.none_of_these else "-"
        print(f"  {guess.target}: {label} ({sure}, {guess.head} head)")


def _named(item: Item) -> str:
    labels = ", ".join("|".join(names) for names in item.labels.values() if names)
    return f"{item.item_id} ({labels})" if labels else item.item_id


def _visit(address: str) -> None:
    """Gets the page once, as a browser does."""
    import httpx

    # What listens on all addresses is asked at this machine's own.
    here = address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    start = time.monotonic()
    try:
        answer = httpx.get(here, timeout=60.0, trust_env=False, follow_redirects=True)
    except httpx.HTTPError as error:
        raise DemoError(f"The page at {here} does not answer: {error}.") from error
    if answer.status_code != 200:
        raise DemoError(f"The page at {here} answers with status {answer.status_code}, and 200 was wanted.")
    print(f"The page has answered: {len(answer.content)} bytes in {1000 * (time.monotonic() - start):.0f} ms.")


def _say(sentence: str) -> None:
    print(sentence, flush=True)
