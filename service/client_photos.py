"""Photos as the client is given them, and as they travel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

# The path of an encoded photo, its bytes, or a file opened in binary mode.
Photo = os.PathLike[str] | bytes | BinaryIO

_UNKNOWN = "application/octet-stream"


def photo_body(photo: Photo | None) -> dict[str, Any]:
    """The photo as the body of a request, in the words of httpx.

    Raises:
        TypeError: It is no path, bytes or binary file.
        ValueError: It is no JPEG, PNG or WEBP.
    """
    if photo is None:
        return {}
    name, content, content_type = photo_file(photo, "this one")
    if content_type == _UNKNOWN:
        raise ValueError(f"A photo is a JPEG, PNG or WEBP file; {name} begins with {content[:12]!r}.")
    return {"content": content, "headers": {"Content-Type": content_type}}


def photo_file(photo: Photo, default: str) -> tuple[str, bytes, str]:
    """Name, bytes and content type of a photo; of several, the service says which one is none.

    Raises:
        TypeError: It is no path, bytes or binary file.
    """
    content: bytes | None
    if isinstance(photo, bytes):
        name, content = default, photo
    elif isinstance(photo, os.PathLike):
        name, content = Path(photo).name, Path(photo).read_bytes()
    else:
        content = photo.read() if hasattr(photo, "read") else None
        name = Path(photo.name).name if isinstance(getattr(photo, "name", None), str) else default
    if not isinstance(content, bytes):
        raise TypeError(f"A photo is a Path, bytes or a file opened in binary mode; got {type(photo).__name__}.")
    return name or default, content, _content_type(content)


def _content_type(content: bytes) -> str:
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    return "image/webp" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else _UNKNOWN
