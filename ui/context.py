"""The context: what the tabs of the page share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.client import Client
from ui.held_files import HeldFiles
from ui.settings import Settings
from ui.zips import PhotoZips


@dataclass(frozen=True, slots=True)
class Context:
    """What the tabs share.

    Args:
        settings: Of the page.
        client: Of its service, without retries of its own: `ui.asking.ask` says that it waits.
        files: What was sent, and what was made to be fetched.
        zips: Those among it.
        status: Triggers `opened` when the page can be filled: at first, and whenever the gallery has changed.
        query: The photo or item that is asked about, for `ui.query.Query.read`; triggers `find` or `tell`, by the tab.
    """

    settings: Settings
    client: Client
    files: HeldFiles
    zips: PhotoZips
    status: Any
    query: Any
