"""`python -m ui`: serves the page until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import socket
import sys

from ui.settings import Settings


def main() -> None:
    """Serves the page."""
    settings = _settings()
    # Nothing phones home.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host.strip("[]"), settings.port), family=family)
    except OSError as error:
        sys.exit(
            f"modiste: The page cannot listen on {settings.host} port {settings.port}: {error.strerror}. Pass another "
            "--port, or end what listens there."
        )
    import uvicorn

    from ui.app import AddressError, create_app

    host = f"[{settings.host.strip('[]')}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{listener.getsockname()[1]}"

    class Server(uvicorn.Server):
        """Says where it listens once it does."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(f"Modiste's page is at {address}", flush=True)

    try:
        with create_app(settings) as app:
            config = uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=3)
            Server(config).run(sockets=[listener])
    except AddressError as error:
        sys.exit(f"modiste: {error}")


def _settings() -> Settings:
    default = Settings()
    parser = argparse.ArgumentParser("python -m ui", description="Modiste's page, in front of a service that runs.")
    parser.add_argument("--service", default=default.service, help="Address of the service. Default: %(default)s.")
    parser.add_argument("--host", default=default.host, help="Address to listen on. Default: %(default)s.")
    parser.add_argument("--port", type=int, default=default.port, help="0 takes a free one. Default: %(default)s.")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="A name browsers may know the page by; * any."
    )
    parser.add_argument(
        "--allow-frame", action="append", default=[], metavar="ORIGIN", help="A page that may show this one in a frame."
    )
    parser.add_argument("--read-only", action="store_true", help="Leave out what changes the gallery.")
    parser.epilog = "The service's API key, where it wants one, is read from the variable MODISTE_KEY."
    asked = parser.parse_args()
    return Settings(
        service=asked.service,
        key=os.environ.get("MODISTE_KEY") or None,
        host=asked.host,
        port=asked.port,
        hosts=tuple(asked.allow_host),
        frames=tuple(asked.allow_frame),
        read_only=asked.read_only,
    )


if __name__ == "__main__":
    main()
