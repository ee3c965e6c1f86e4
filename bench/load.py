"""A lean client for bench.service, in a process of its own: requests made beforehand, sockets, counted answers."""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path


class Load:
    """So many clients that ask one request after the other, or at a rate.

    Args:
        port: Of the service, on loopback.
        requests: Whole HTTP requests, taken in turn.
        seconds: How long.
        rate: Requests a second that are offered, whatever has been answered; None asks again once answered.
    """

    def __init__(self, port: int, requests: list[bytes], *, seconds: float, rate: float | None = None) -> None:
        self._port, self._requests, self._seconds, self._rate = port, requests, seconds, rate
        self._lock = threading.Lock()
        # Status and milliseconds of each answer; how late each request was sent.
        self.answers: list[tuple[int, float]] = []
        self.late_ms: list[float] = []

    def run(self, clients: int) -> None:
        self._start = time.perf_counter() + 0.05
        self._due = self._schedule()
        threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _schedule(self) -> Iterator[tuple[float, bytes]]:
        number = 0
        while True:
            due = self._start if self._rate is None else self._start + number / self._rate
            if max(due, time.perf_counter()) > self._start + self._seconds:
                return
            yield due, self._requests[number % len(self._requests)]
            number += 1

    def _ask(self) -> None:
        answers, late = [], []
        connection = _connect(self._port)
        while True:
            with self._lock:
                due, request = next(self._due, (0.0, b""))
            if not request:
                break
            time.sleep(max(0.0, due - time.perf_counter()))
            start = time.perf_counter()
            if self._rate is not None:
                late.append(1000 * (start - due))
            status, is_open = _exchange(connection, request)
            answers.append((status, 1000 * (time.perf_counter() - start)))
            if not is_open:
                connection.close()
                connection = _connect(self._port)
        connection.close()
        with self._lock:
            self.answers += answers
            self.late_ms += late


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _exchange(connection: socket.socket, request: bytes) -> tuple[int, bool]:
    """The answer's status, and whether the connection can be used again; 0 where there was none."""
    try:
        connection.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            part = connection.recv(65536)
            if not part:
                return 0, False
            received += part
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = int(next(line for line in lines if line.startswith(b"content-length:")).split(b":")[1])
        while len(body) < length:
            body += connection.recv(65536)
    except OSError:
        return 0, False
    return int(lines[0].split()[1]), b"connection: close" not in lines


def request_for(path: str, photo: Path | None = None, *, as_form: bool = False) -> bytes:
    """A whole POST request, with a JPEG, raw or in a form, or without a body."""
    body, kind = photo.read_bytes() if photo else b"", "image/jpeg"
    if as_form:
        field = b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'
        body, kind = field + body + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    head += [f"Content-Type: {kind}"] if photo else []
    return "\r\n".join([*head, "", ""]).encode() + body


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("--photos", type=Path, nargs="*", default=[])
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--form", action="store_true")
    asked = parser.parse_args()
    requests = [request_for(asked.path, photo, as_form=asked.form) for photo in asked.photos] or [
        request_for(asked.path)
    ]
    warm = Load(asked.port, requests, seconds=1)
    warm.run(min(asked.clients, 4))
    load = Load(asked.port, requests, seconds=asked.seconds, rate=asked.rate)
    load.run(asked.clients)
    json.dump({"answers": load.answers, "late_ms": load.late_ms}, sys.stdout)


if __name__ == "__main__":
    main()
