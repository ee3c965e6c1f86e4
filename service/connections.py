"""Connections: what a server reads before there is a request, which no middleware sees, is limited here."""

from __future__ import annotations

import asyncio
from asyncio.events import TimerHandle

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Bytes of a request up to its body, as they are read, and the seconds in which they must have come.
MOST = 64 * 1024
SECONDS = 10.0


class LimitedConnection(HttpToolsProtocol):
    """uvicorn's connection, which ends where a request's headers are too long or too slow.

    uvicorn with httptools has no limit of either: 40 MB of headers took 500 MB, and a connection that never says
    anything stayed for good.
    """

    _received = 0
    _timer: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for the first request."""
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no more."""
        self._end()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begins to count a request's headers."""
        self._begin()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Leaves the body to service.bodies."""
        self._end()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Reads on, until a request's headers have been too much."""
        waiting = self._timer
        super().data_received(data)
        if waiting is not None and self._timer is waiting:
            # Nothing but headers of one request.
            self._received += len(data)
            if self._received > MOST:
                self._end()
                self.send_400_response("The headers of a request are too large.")

    def _begin(self) -> None:
        self._end()
        self._received = 0
        self._timer = self.loop.call_later(SECONDS, self.transport.close)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
