"""A real server in a thread, as `modiste serve` runs it, and connections that say exactly what a test wants."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from service.connections import LimitedConnection

# Far above what anything here takes; a wait that never ends is a defect.
LONG_S = 30.0


@contextmanager
def server_of(app: Any) -> Iterator[int]:
    """The port on which the application answers."""
    server = uvicorn.Server(
        uvicorn.Config(
            app, http=LimitedConnection, log_config=None, access_log=False, server_header=False, lifespan="on"
        )
    )
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="server")
        thread.start()
        try:
            until(lambda: server.started)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(LONG_S)
            assert not thread.is_alive()


def until(condition: Callable[[], Any], seconds: float = LONG_S) -> None:
    """Returns when it has come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "It did not come true."
        time.sleep(0.005)


@dataclass
class Answer:
    """What came over a connection.

    Args:
        status: HTTP status, 0 where nothing came.
        headers: By name in small letters.
        body: As it came, chunks and all.
        is_closed: Whether the server ended the connection.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    is_closed: bool


class Line:
    """A connection to a server on this machine.

    Args:
        port: The server's.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=LONG_S)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        """Ends it."""
        self._socket.close()

    def say(self, content: bytes) -> bool:
        """Sends bytes; False where the server has ended the connection."""
        try:
            self._socket.sendall(content)
        except ConnectionError:
            return False
        return True

    def ask(self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """Sends one request with exactly these headers, and reads its answer."""
        self.say(head(method, target, headers) + body)
        return self.answer()

    def more(self) -> bytes:
        """What comes next; nothing where the server has ended the connection."""
        try:
            return self._socket.recv(65_536)
        except ConnectionError:
            return b""

    def has_answer(self) -> bool:
        """Whether anything has come that was not read yet, the end of the connection too."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def answer(self, content: bytes = b"") -> Answer:
        """The next answer, as far as Content-Length says, or all that comes until the connection ends.

        Args:
            content: What has come of it already.
        """
        is_closed = False
        while b"\r\n\r\n" not in content and not is_closed:
            content, is_closed = content + (more := self.more()), not more
        start, _, body = content.partition(b"\r\n\r\n")
        if start.startswith(b"HTTP/1.1 100"):
            # The server is ready for the body; the answer is still to come.
            return self.answer(body)
        first, *lines = start.decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in lines]
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        length = int(headers.get("content-length", 0 if first[9:12] in ("204", "304") else 1 << 60))
        while len(body) < length and not is_closed:
            body, is_closed = body + (more := self.more()), not more
        return Answer(int(first[9:12] or 0), headers, body, is_closed or headers.get("connection") == "close")


def head(method: str, target: str, headers: dict[str, str] | None = None) -> bytes:
    """A request up to its body."""
    named = {"Host": "127.0.0.1", **(headers or {})}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
