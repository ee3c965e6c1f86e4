"""What the page is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """How the page is served.

    Args:
        service: Address of the service.
        key: Its API key, which stays on this side of the page; None where it wants none.
        host: Address to listen on.
        port: Port; 0 takes a free one.
        hosts: Names that a browser may know the page by, besides `host` and this machine's own; `*` for any.
        frames: Origins of pages that may show this one in a frame, such as `https://huggingface.co`.
        read_only: Whether what changes the gallery is left out of the page.
        photo_mb: Largest photo that is taken, MiB.
        zip_mb: Largest zip of photos, MiB.
        held_mb: MiB of uploads that are held for all pages together; the oldest go first.
        wait_s: Seconds between two looks at a service that is away.
    """

    service: str = "http://127.0.0.1:8000"
    key: str | None = field(default=None, repr=False)
    host: str = "127.0.0.1"
    port: int = 7860
    hosts: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()
    read_only: bool = False
    photo_mb: int = 20
    zip_mb: int = 2048
    held_mb: int = 4096
    wait_s: float = 2.0


# The folder of the page's templates, styles and scripts.
FILES = Path(__file__).parent
