"""Held files: what browsers have sent, and what is made for them to download. Nothing here ever decodes a photo."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

MIB = 2**20
# The first bytes of what a browser may be handed back as a picture; all else stays here.
_SIGNATURES = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"))
# Of a zip, also of an empty or a split one.
_ZIP = b"PK"


class HeldFileError(ValueError):
    """What was sent cannot be taken, or is no longer held; the message is for people."""


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A file that was sent, or that was made to be fetched.

    Args:
        token: By which the page knows it; nobody can guess it.
        name: As the browser called it.
        path: Where it lies.
        size: Bytes.
    """

    token: str
    name: str
    path: Path
    size: int

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            HeldFileError: It is no longer held.
        """
        try:
            return self.path.read_bytes()
        except FileNotFoundError as error:
            raise HeldFileError(f"'{self.name}' is no longer held here; choose it again.") from error


class HeldFiles:
    """The files of one run of the page, in a folder that goes when it ends. Safe to use from any thread.

    Args:
        held_mb: MiB that are held; the oldest go first.
    """

    def __init__(self, held_mb: int) -> None:
        self._most = held_mb * MIB
        self._folder = Path(tempfile.mkdtemp(prefix="modiste-ui-"))
        self._held: OrderedDict[str, HeldFile] = OrderedDict()
        # Bytes that are held, and that are on their way.
        self._size = self._coming = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    async def take(self, name: str, chunks: AsyncIterator[bytes], most_mb: int, *, zip_mb: int) -> HeldFile:
        """Holds a file.

        Args:
            name: What the browser calls it.
            chunks: Its bytes as they come.
            most_mb: Largest size, MiB.
            zip_mb: Largest size of a zip, which its first bytes tell.

        Raises:
            HeldFileError: It is empty or too large, or others send too much at the same time.
            OSError: There is no room for it.
        """
        token = secrets.token_urlsafe(18)
        path = self._folder / token
        size, start = 0, b""
        try:
            with path.open("wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if self._come(len(chunk)) > self._most:
                        raise HeldFileError(f"Too much is being sent at once; send '{name}' again in a moment.")
                    start = (start + chunk)[: len(_ZIP)] if len(start) < len(_ZIP) else start
                    if start == _ZIP:
                        most_mb = zip_mb
                    if size > most_mb * MIB:
                        raise HeldFileError(f"'{name}' is larger than {most_mb} MB; send a smaller file.")
                    file.write(chunk)
            if not size:
                raise HeldFileError(f"'{name}' is empty; choose another file.")
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            self._come(-size)
        return self._hold(HeldFile(token, name, path, size))

    def keep(self, name: str, content: bytes) -> HeldFile:
        """Holds what was made here.

        Args:
            name: What a browser is to call it.
            content: Its bytes.

        Raises:
            OSError: There is no room for it.
        """
        token = secrets.token_urlsafe(18)
        path = self._folder / token
        path.write_bytes(content)
        return self._hold(HeldFile(token, name, path, len(content)))

    def get(self, token: str) -> HeldFile:
        """A file by its token.

        Raises:
            HeldFileError: It is no longer held.
        """
        with self._lock:
            file = self._held.get(token)
            if file is None:
                raise HeldFileError("This file is no longer held here; choose it, or make it, again.")
            self._held.move_to_end(token)
            return file

    def _come(self, size: int) -> int:
        """Counts bytes as on their way, or as there; how many are on their way now."""
        with self._lock:
            self._coming += size
            return self._coming

    def _hold(self, file: HeldFile) -> HeldFile:
        with self._lock:
            self._held[file.token] = file
            self._size += file.size
            while len(self._held) > 1 and self._size > self._most:
                _, oldest = self._held.popitem(last=False)
                self._size -= oldest.size
                oldest.path.unlink(missing_ok=True)
        return file


def picture_type(content: bytes) -> str | None:
    """The media type of a JPEG, PNG or WEBP by its first bytes; None for anything else, which no browser is given."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in _SIGNATURES if content.startswith(start)), None)
