"""The service's state, as all open pages ask for it."""

from __future__ import annotations

import hashlib
import time

import anyio

from service.client import Client, ServiceError
from ui.settings import Settings

# However many pages are open, the service is asked once in so many seconds.
_FRESH_S = 1.0


class ServiceState:
    """Whether the service answers, and what its gallery is.

    Args:
        client: Of the service, with a short timeout.
        settings: Of the page.
    """

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._lock = anyio.Lock()
        # One thread, so that a service that hangs takes none of those that handlers need.
        self._threads = anyio.CapacityLimiter(1)
        self._answer: dict[str, object] = {}
        self._until = 0.0

    async def now(self) -> dict[str, object]:
        """The state, at most a second old.

        Returns:
            `ready`; `detail`, a sentence for people where there is something to say; `state`, another text whenever the
            page should look at the catalog again; or `wait_s`, seconds until the page should ask again.
        """
        async with self._lock:
            if time.monotonic() >= self._until:
                self._answer = await anyio.to_thread.run_sync(self._look, limiter=self._threads)
                self._until = time.monotonic() + _FRESH_S
            return self._answer

    def _look(self) -> dict[str, object]:
        try:
            catalog = self._client.catalog()
        except ServiceError as error:
            return {"ready": False, "detail": self._why(error), "wait_s": self._settings.wait_s}
        # A gallery in its place may have the same version.
        heads = [(head.target, head.kind, head.fitted_at) for head in catalog.heads]
        known = (catalog.gallery_version, catalog.encoder_fingerprint, catalog.items, list(catalog.targets), heads)
        state = hashlib.blake2b(repr((*known, catalog.has_projection)).encode(), digest_size=8).hexdigest()
        return {"ready": True, "detail": catalog.error, "state": state}

    def _why(self, error: ServiceError) -> str:
        if error.status in (401, 403):
            known = "another key" if self._settings.key else "a key"
            return f"{error.detail} Start the page again with {known} in the variable MODISTE_KEY."
        return f"{error.detail} The page looks again every {self._settings.wait_s:g} s."
