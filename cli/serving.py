"""Commands of the service: serve, and the keys that it asks for."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from cli.options import FormatOption, JsonOption, MapOption
from cli.output import print_json, print_table

if TYPE_CHECKING:
    from types import FrameType

    from service.settings import Settings

KeysOption = Annotated[Path, typer.Option("--keys", help="File of the keys.", show_default=False)]

# Connections that may be open at once; one more is refused before anything is read of it.
_CONNECTIONS = 1000
# Seconds that requests under way get when the service is stopped.
_GRACE_S = 30


def serve(
    gallery: Annotated[Path | None, typer.Option(help="Folder of the gallery.", show_default=False)] = None,
    catalog: Annotated[
        Path | None, typer.Option(help="Catalog that refresh jobs read, under the name 'default'.")
    ] = None,
    catalog_format: FormatOption = None,
    mapping: MapOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one. Default: 8000.")] = None,
    keys: Annotated[Path | None, typer.Option(help="File of keys; without one only this machine is served.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; docs/service.md lists them.")] = None,
) -> None:
    """Answer questions about a gallery over HTTP until Ctrl-C."""
    # Before numpy: a request runs on one core, and idle threads of these libraries would spin on the others.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from indexer.files import digest_ahead
    from service.logs import configure
    from service.settings import Settings

    catalogs = None if catalog is None else {"default": {"path": catalog, "format": catalog_format, "map": mapping}}
    settings = Settings.read(config, gallery=gallery, catalogs=catalogs, host=host, port=port, keys_file=keys)
    configure(settings)
    # Imports leave a core idle for more than a second, and a large gallery has as much to be hashed.
    digest_ahead([*settings.gallery.glob("faiss/*.faiss"), *settings.gallery.glob("items.lance/data/*.lance")])
    with _listen(settings) as listener:
        _serve(settings, listener)


def key_add(
    name: Annotated[str, typer.Argument(help="Whom it is for.", show_default=False)],
    keys: KeysOption,
    scope: Annotated[str, typer.Option(help="read (questions), or admin (edits and jobs too).")] = "read",
) -> None:
    """Make an API key, print it once, and keep its digest."""
    from service.keys import SCOPES, add_key

    chosen = next((known for known in SCOPES if known == scope), None)
    if chosen is None:
        raise typer.BadParameter(f"--scope is {' or '.join(SCOPES)}; got {scope}.")
    print(add_key(keys, name, chosen))
    print("Keep it: it cannot be shown again. Send it as `Authorization: Bearer KEY`.", file=sys.stderr)


def key_list(keys: KeysOption, as_json: JsonOption = False) -> None:
    """List the keys in a file."""
    from service.keys import read_keys

    known = [{"name": key.name, "scope": key.scope, "created_at": key.created_at} for key in read_keys(keys)]
    if as_json:
        return print_json(known)
    return print_table(["name", "scope", "created at"], [list(key.values()) for key in known])


def key_remove(name: Annotated[str, typer.Argument(help="Whose.", show_default=False)], keys: KeysOption) -> None:
    """Remove a key; a running service refuses it a second later."""
    from service.keys import remove_key

    remove_key(keys, name)
    print(f"Removed key {name}.")


def _serve(settings: Settings, listener: socket.socket) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from service.engine import Engine

    # uvicorn raises the signal again once it has stopped; the engine is to be closed all the same.
    signal.signal(signal.SIGTERM, _exit)
    with ThreadPoolExecutor(1) as pool:
        # While a large gallery is read, the web framework is imported.
        opening = pool.submit(Engine, settings)
        import asyncio

        import uvicorn

        from service.app import create_app
        from service.connections import LimitedConnection
        from service.keys import read_keys

    class Server(uvicorn.Server):
        """Says where it listens once it does, and ends jobs before requests."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            gallery = engine.state.serving.gallery
            has_keys = settings.keys_file is not None and read_keys(settings.keys_file)
            only = "" if has_keys else " There are no keys, so only this machine is answered."
            print(
                f"Modiste answers at {_address(settings, listener)}: {len(gallery)} items, {gallery.card.name}, "
                f"{gallery.searcher.variant} search.{only} Ctrl-C stops it.",
                flush=True,
            )

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # Whoever follows a job hears of its end, and holds the end of the service up no longer.
            await asyncio.gather(asyncio.to_thread(engine.jobs.close), super().shutdown(sockets))

    with opening.result() as engine:
        options: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False, "date_header": True}
        server = Server(
            uvicorn.Config(
                create_app(settings, engine),
                http=LimitedConnection,
                limit_concurrency=_CONNECTIONS,
                timeout_graceful_shutdown=_GRACE_S,
                **options,
            )
        )
        server.run(sockets=[listener])
        # Only a signal ends it, and asyncio may have taken the interrupt for a wish to end its loop.
        raise KeyboardInterrupt


def _exit(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _listen(settings: Settings) -> socket.socket:
    """The socket, taken before the gallery is opened: a port that is in use is told at once."""
    from service.settings import SettingsError

    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host.strip("[]"), settings.port), family=family, backlog=2048)
    except OSError as error:
        raise SettingsError(
            f"Modiste cannot listen on {settings.host} port {settings.port}: {error.strerror}. Pass another --port, or "
            "end what listens there."
        ) from error


def _address(settings: Settings, listener: socket.socket) -> str:
    host = f"[{settings.host.strip('[]')}]" if ":" in settings.host else settings.host
    return f"http://{host}:{listener.getsockname()[1]}"
