"""Connections: what a server reads before there is a request, which no middleware sees, is limited here."""

from __future__ import annotations

import asyncio
from asyncio.events import TimerHandle

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Bytes of a request up to its body, as they are read, and the seconds in which they must have come.
MOST = 64 * 1024
SECONDS = 10.0
# Seconds in which whoever asks must have taken what is sent.
READ_SECONDS = 60.0


class LimitedConnection(HttpToolsProtocol):
    """uvicorn's connection, which ends where what is not body is too long or too slow, or nobody reads the answer.

    uvicorn with httptools has no limit of these: 40 MB of headers took 500 MB, trailers as much, and a connection that
    never says anything, or only a line break after an answer, stayed for good.
    """

    # Bytes that may still come besides a body; pieces of a body may have as much around them as they are.
    _spare = MOST
    _timer: TimerHandle | None = None
    _reading: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for the first request."""
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no more."""
        self._end()
        self._resumed()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begins to count a request's headers."""
        self._begin()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Leaves the time of the body to service.bodies."""
        self._end()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Leaves the size of the body to service.bodies."""
        self._spare += 2 * len(body)
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        """Reads on, until what is not body has been too much."""
        before, self._spare = self._timer, self._spare - len(data)
        super().data_received(data)
        if self._spare < 0:
            is_headers = before is not None and self._timer is before
            self._end()
            if is_headers:
                self.send_400_response("The headers of a request are too large.")
            else:
                self.transport.close()
        elif self._timer is None and self.cycle is not None and self.cycle.response_complete:
            # The rest of a body that was answered early, or a line break: uvicorn waits for a request no more.
            self._begin()

    def pause_writing(self) -> None:
        """Begins to wait until what was sent has been read."""
        super().pause_writing()
        self._reading = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Goes on."""
        self._resumed()
        super().resume_writing()

    def _begin(self) -> None:
        self._end()
        self._spare = MOST
        self._timer = self.loop.call_later(SECONDS, self.transport.close)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _resumed(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
