"""Between the web and the engine: photos out of a request, work into a lane, answers into JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import HTTPException, Request, Response
from pydantic import TypeAdapter
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from data.images import FORMATS
from service import answers
from service.lanes import DeadlineError, Lanes, Ticket
from service.problems import RefusedError

if TYPE_CHECKING:
    from service.engine import Engine

T = TypeVar("T")

PHOTO_TYPES = tuple(f"image/{name.lower()}" for name in FORMATS)
# Made before the first request: making one takes longer than an answer may.
_ADAPTERS: dict[type, TypeAdapter[Any]] = {
    kind: TypeAdapter(kind)
    for kind in (
        *(answers.Neighbours, answers.Classification, answers.Explanation),
        *(answers.Catalog, answers.Projection, answers.Item, answers.ItemPage, answers.Edited),
        *(answers.Job, answers.Jobs),
    )
}
_BINARY = {"type": "string", "format": "binary"}


def photo_body(*, several: bool = False, required: bool = True) -> dict[str, Any]:
    """How OpenAPI describes a body that is a photo, or a form with one or several."""
    photo = {"type": "array", "items": _BINARY, "minItems": 1} if several else _BINARY
    form = {"type": "object", "properties": {"photo": photo}, "required": ["photo"]}
    content: dict[str, Any] = {kind: {"schema": _BINARY} for kind in PHOTO_TYPES}
    return {"requestBody": {"required": required, "content": {**content, "multipart/form-data": {"schema": form}}}}


async def photos_of(request: Request) -> list[tuple[str, bytes]]:
    """The photos of a request, each with its file name or its place; none where it has no body.

    Raises:
        HTTPException: 415 for another content type; 422 for a form without a file field `photo`.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in PHOTO_TYPES:
        return [("0", await request.body())]
    if kind == "multipart/form-data":
        return await _photos_of_form(request)
    if not kind and not await request.body():
        return []
    raise HTTPException(
        415, f"A photo is sent as {', '.join(PHOTO_TYPES)} or as multipart/form-data; got {kind[:100] or 'no type'}."
    )


async def _photos_of_form(request: Request) -> list[tuple[str, bytes]]:
    async with request.form(max_files=engine_of(request).settings.max_photos, max_fields=0) as form:
        photos = []
        for place, file in enumerate(form.getlist("photo")):
            if isinstance(file, UploadFile):
                photos.append((file.filename or str(place), await file.read()))
        if not photos:
            raise HTTPException(422, "The form has no file field 'photo'; send each photo as one.")
        return photos


async def photo_of(request: Request) -> bytes | None:
    """The one photo of a request, or None.

    Raises:
        HTTPException: As `photos_of`; 422 for several.
    """
    photos = await photos_of(request)
    if len(photos) > 1:
        raise HTTPException(422, f"This question is about one photo; got {len(photos)}.")
    return photos[0][1] if photos else None


async def known_parameters(request: Request) -> None:
    """Dependency of routes with options: a misspelt one would be an answer to another question.

    Raises:
        HTTPException: 422.
    """
    known = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    unknown = next((name for name in request.query_params if name not in known), None)
    if unknown is not None:
        there_are = f"there are {', '.join(known)}" if known else "there is none"
        raise HTTPException(422, f"There is no query parameter '{unknown[:100]}' here; {there_are}.")


def engine_of(request: Request) -> Engine:
    """The engine that answers."""
    engine: Engine = request.app.state.engine
    return engine


async def ask(request: Request, lanes: Lanes, work: Callable[[Ticket], T], *, seconds: float | None = None) -> T:
    """What a lane answers; whoever hangs up gives the place back.

    Args:
        request: That is answered.
        lanes: Where the work is done.
        work: What is done.
        seconds: After which it is given up; None for the settings' deadline.

    Raises:
        OverloadedError: No place.
        DeadlineError: No answer in time.
        ClientDisconnect: Nobody waits for it.
        RefusedError: More comes than a request may have.
    """
    seconds = seconds or engine_of(request).settings.deadline_s
    ticket = Ticket(seconds)
    future = lanes.submit(work, ticket)
    answered = asyncio.wrap_future(future)
    gone = asyncio.ensure_future(_disconnected(request))
    waiting: set[asyncio.Future[Any]] = {answered, gone}
    try:
        await asyncio.wait(waiting, timeout=ticket.left_s, return_when=asyncio.FIRST_COMPLETED)
        if answered.done():
            return answered.result()
        if gone.done():
            raise gone.result()
        raise DeadlineError(seconds)
    finally:
        gone.cancel()
        # For the log and the metrics.
        request.state.timings_ms = ticket.timings_ms()
        if not answered.done():
            answered.cancel()
            ticket.abandon()
        # An error keeps this frame, which would keep the error, and both the photo, until the collector comes round.
        del future, answered, gone, waiting


async def _disconnected(request: Request) -> ClientDisconnect | RefusedError:
    """Why no answer is wanted any more: nobody waits for it, or more is sent than a request may have."""
    try:
        while (await request.receive())["type"] != "http.disconnect":
            pass
    except RefusedError as error:
        return error
    return ClientDisconnect()


def json_of(answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer as JSON."""
    return Response(_ADAPTERS[type(answer)].dump_json(answer), status, headers, "application/json")
