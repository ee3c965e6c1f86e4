"""Photos in zips that were sent: shown by the page, and held by themselves where somebody asks about one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Response
from fastapi.responses import JSONResponse

from ui.held_files import HeldFileError, HeldFiles, picture_type
from ui.zips import PhotoZips, ZipError

_CACHED = {"Cache-Control": "private, max-age=300"}


def add_zip_routes(router: APIRouter, files: HeldFiles, zips: PhotoZips) -> None:
    """Adds the routes.

    Args:
        router: Of the page.
        files: Where what is taken out of zips is held.
        zips: Those that are held.
    """

    @router.get("/zips/{token}/{number}")
    def shown(token: str, number: int) -> Response:
        """A photo in a zip; what is none is not sent back."""
        content, kind = _photo(zips, token, number)
        return Response(content, headers=_CACHED, media_type=kind)

    @router.post("/zips/{token}/{number}")
    def take(token: str, number: int, name: Annotated[str, Query(max_length=1000)] = "photo") -> Response:
        """Holds a photo in a zip as one that was sent."""
        content, _ = _photo(zips, token, number)
        try:
            photo = files.keep(Path(name).name or "photo", content)
        except OSError as error:
            return JSONResponse({"detail": f"There is no room for '{name}' here: {error.strerror}."}, 507)
        return JSONResponse({"token": photo.token, "name": photo.name, "size": photo.size})


def _photo(zips: PhotoZips, token: str, number: int) -> tuple[bytes, str]:
    """The bytes of a photo in a zip, and its media type; 404 for what is none."""
    try:
        content = zips.read(token, number)
    except (HeldFileError, ZipError) as error:
        raise HTTPException(404, str(error)) from error
    kind = picture_type(content)
    if kind is None:
        raise HTTPException(404, "This file is no photo that a browser can show.")
    return content, kind
