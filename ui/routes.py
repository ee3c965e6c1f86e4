"""What the page needs besides Gradio: catalog photos through the service, uploads, downloads. Bytes are passed on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import quote

import anyio
from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from starlette.requests import ClientDisconnect

from service.client import Client, ServiceError
from ui.held_files import MIB, HeldFileError, HeldFiles, picture_type
from ui.service_state import ServiceState
from ui.settings import FILES, Settings
from ui.zip_routes import add_zip_routes
from ui.zips import PhotoZips

T = TypeVar("T")

# A photo of the catalog is asked for again and again while somebody looks around.
_CACHED = {"Cache-Control": "private, max-age=300"}
# Photos that are asked of the service at a time: one that hangs must not take the threads that handlers need.
_PHOTOS_AT_ONCE = 16
# Scripts that a page loads when it has use for them.
_SCRIPTS = {"modern-screenshot.js"}


def create_routes(settings: Settings, client: Client, files: HeldFiles, zips: PhotoZips) -> APIRouter:
    """The routes of a page.

    Args:
        settings: Of the page.
        client: Of its service, with a short timeout.
        files: Where what is sent is held.
        zips: Those among it.
    """
    router = APIRouter()
    at_once = anyio.CapacityLimiter(_PHOTOS_AT_ONCE)
    state = ServiceState(client, settings)

    @router.get("/photos/{item_id:path}")
    async def photo(item_id: str, size: Annotated[int, Query(ge=16, le=2048)] = 256) -> Response:
        """An item's photo, as the service encodes it."""
        try:
            content = await anyio.to_thread.run_sync(lambda: client.image(item_id, size=size), limiter=at_once)
        except ServiceError as error:
            raise HTTPException(error.status or 502, error.detail) from error
        except ValueError as error:
            raise HTTPException(404, str(error)) from error
        return Response(content, headers=_CACHED, media_type="image/jpeg")

    @router.get("/status")
    async def status() -> dict[str, object]:
        """Whether the service answers; `state` is another one whenever the page should look at the catalog again."""
        return await state.now()

    @router.get("/scripts/{name}")
    def script(name: str) -> Response:
        """A script that the page loads when it has use for it."""
        if name not in _SCRIPTS:
            raise HTTPException(404, "There is no such script.")
        return FileResponse(FILES / name, media_type="text/javascript", headers=_CACHED)

    _add_uploads(router, settings, files)
    add_zip_routes(router, files, zips)
    return router


def _add_uploads(router: APIRouter, settings: Settings, files: HeldFiles) -> None:
    @router.post("/uploads")
    async def take(request: Request, name: Annotated[str, Query(max_length=1000)] = "photo") -> Response:
        """Holds a photo or a zip; answers with the token that the page asks about it by."""
        try:
            upload = await files.take(
                Path(name).name or "photo", request.stream(), settings.photo_mb, zip_mb=settings.zip_mb
            )
        except HeldFileError as error:
            return JSONResponse({"detail": str(error)}, 413)
        except OSError as error:
            return JSONResponse({"detail": f"There is no room for '{name}' here: {error.strerror}."}, 507)
        except ClientDisconnect:
            # Nobody is there to read this; what came of the file is gone.
            return Response(status_code=400)
        return JSONResponse({"token": upload.token, "name": upload.name, "size": upload.size})

    @router.get("/uploads/{token}")
    def uploaded(token: str) -> Response:
        """A photo that was sent; what is none is not sent back."""
        file = _held(lambda: files.get(token))
        # A zip may be large, and is not read for this.
        content = _held(file.read) if file.size <= settings.photo_mb * MIB else b""
        kind = picture_type(content)
        if kind is None:
            raise HTTPException(404, "This file is no photo that a browser can show.")
        return Response(content, headers=_CACHED, media_type=kind)

    @router.get("/downloads/{token}")
    def download(token: str) -> Response:
        """What the page has made, to be saved and never shown as a page of this address."""
        made = _held(lambda: files.get(token))
        headers = {
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(made.name)}",
            "Cache-Control": "no-store",
        }
        return Response(_held(made.read), headers=headers, media_type="application/octet-stream")


def _held(ask: Callable[[], T]) -> T:
    """What is held; 404 where it is no more."""
    try:
        return ask()
    except HeldFileError as error:
        raise HTTPException(404, str(error)) from error
