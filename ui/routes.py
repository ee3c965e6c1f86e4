"""What the page needs besides Gradio: catalog photos through the service, and uploads. Bytes are passed on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse

from service.client import Client, ServiceError
from ui.held_files import HeldFileError, HeldFiles, picture_type
from ui.settings import Settings
from ui.zips import PhotoZips, ZipError

# A photo of the catalog is asked for again and again while somebody looks around.
_CACHED = {"Cache-Control": "private, max-age=300"}


def create_routes(settings: Settings, client: Client, files: HeldFiles) -> APIRouter:
    """The routes of a page.

    Args:
        settings: Of the page.
        client: Of its service.
        files: Where what is sent is held.
    """
    router = APIRouter()
    zips = PhotoZips(files)

    @router.get("/photos/{item_id:path}")
    def photo(item_id: str, size: Annotated[int, Query(ge=16, le=2048)] = 256) -> Response:
        """An item's photo, as the service encodes it."""
        try:
            return Response(client.image(item_id, size=size), headers=_CACHED, media_type="image/jpeg")
        except ServiceError as error:
            raise HTTPException(error.status or 502, error.detail) from error

    @router.post("/uploads")
    async def take(request: Request, name: Annotated[str, Query(max_length=1000)] = "photo") -> Response:
        """Holds a photo or a zip; answers with the token that the page asks about it by."""
        is_zip = name.lower().endswith(".zip")
        try:
            most_mb = settings.zip_mb if is_zip else settings.photo_mb
            upload = await files.take(Path(name).name or "photo", request.stream(), most_mb)
        except HeldFileError as error:
            return JSONResponse({"detail": str(error)}, 413)
        except OSError as error:
            return JSONResponse({"detail": f"There is no room for '{name}' here: {error.strerror}."}, 507)
        return JSONResponse({"token": upload.token, "name": upload.name, "size": upload.size})

    @router.get("/uploads/{token}")
    def uploaded(token: str) -> Response:
        """A photo that was sent; what is none is not sent back."""
        try:
            content = files.get(token).read()
        except HeldFileError as error:
            raise HTTPException(404, str(error)) from error
        kind = picture_type(content)
        if kind is None:
            raise HTTPException(404, "This file is no photo that a browser can show.")
        return Response(content, headers=_CACHED, media_type=kind)

    @router.get("/zips/{token}/{number}")
    def zipped(token: str, number: int) -> Response:
        """A photo in a zip that was sent; what is none is not sent back."""
        content = _unzip(zips, token, number)
        kind = picture_type(content)
        if kind is None:
            raise HTTPException(404, "This file is no photo that a browser can show.")
        return Response(content, headers=_CACHED, media_type=kind)

    @router.post("/zips/{token}/{number}")
    def take_zipped(token: str, number: int, name: Annotated[str, Query(max_length=1000)] = "photo") -> Response:
        """Holds a photo in a zip as one that was sent, so that it can be asked about."""
        try:
            photo = files.keep(Path(name).name or "photo", _unzip(zips, token, number))
        except OSError as error:
            raise HTTPException(507, f"There is no room for '{name}' here: {error.strerror}.") from error
        return JSONResponse({"token": photo.token, "name": photo.name, "size": photo.size})

    @router.get("/downloads/{token}")
    def download(token: str) -> Response:
        """What the page has made, to be saved and never shown as a page of this address."""
        try:
            made = files.get(token)
            content = made.read()
        except HeldFileError as error:
            raise HTTPException(404, str(error)) from error
        headers = {
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(made.name)}",
            "Cache-Control": "no-store",
        }
        return Response(content, headers=headers, media_type="application/octet-stream")

    @router.get("/status")
    def status() -> dict[str, object]:
        """Whether the service answers; `state` is another one whenever the page should look at the catalog again."""
        try:
            catalog = client.catalog()
        except ServiceError as error:
            return {"ready": False, "detail": _why_away(error, settings), "wait_s": settings.wait_s}
        heads = [(head.target, head.kind, head.fitted_at) for head in catalog.heads]
        state = hashlib.blake2b(repr((catalog.gallery_version, heads)).encode(), digest_size=8).hexdigest()
        return {"ready": True, "detail": catalog.error, "state": state}

    return router


def _unzip(zips: PhotoZips, token: str, number: int) -> bytes:
    try:
        return zips.read(token, number)
    except (HeldFileError, ZipError) as error:
        raise HTTPException(404, str(error)) from error


def _why_away(error: ServiceError, settings: Settings) -> str:
    if error.status in (401, 403):
        known = "another key" if settings.key else "a key"
        return f"{error.detail} Start the page again with {known} in the variable MODISTE_KEY."
    return f"{error.detail} The page looks again every {settings.wait_s:g} s."
