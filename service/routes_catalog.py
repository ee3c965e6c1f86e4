"""The catalog: what is in the gallery, item by item, and edits of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

from fastapi import APIRouter, Body, Depends, HTTPException, Path, Query, Request, Response
from pydantic import ConfigDict, StrictBool

from data.catalog import Box, CatalogError
from indexer.edits import parse_labels
from indexer.filters import parse_where
from service import answers
from service.access import administers, reads
from service.asking import ask, engine_of, json_of, photo_body, photo_of
from service.questions import NewItem
from service.routes_questions import BoxText, WhereText, box_of

router = APIRouter(prefix="/v1", tags=["catalog"], dependencies=[Depends(reads)])
edits = APIRouter(prefix="/v1", tags=["catalog"], dependencies=[Depends(administers)])

# Browsers ask again whether a photo is still the same, and mostly hear that it is.
_CACHED = "private, max-age=60"
_JPEG: dict[str, dict[str, object]] = {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}

ItemId = Annotated[
    str, Path(description="An item_id; signs that a URL gives a meaning are percent-encoded.", examples=["p00000-1"])
]


@dataclass(frozen=True, slots=True)
class Relabelling:
    """Labels that are set by hand.

    Args:
        labels: By target; an empty list takes the item's labels of that target away.
        new_targets: Whether labels may be of targets that no item has yet.
    """

    # What is misspelt is told, and not left out.
    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid"}

    labels: dict[str, list[str]]
    new_targets: StrictBool = False


@router.get("/catalog", response_model=answers.Catalog)
async def catalog(request: Request) -> Response:
    """What is in the gallery, which heads can be asked, and how fresh the answers are."""
    engine = engine_of(request)
    return json_of(await ask(request, engine.search_lanes, lambda _: engine.catalog()))


@router.get("/projection", response_model=answers.Projection)
async def projection(
    request: Request,
    target: Annotated[
        str | None, Query(max_length=4000, description="Whose labels come along.", examples=["category"])
    ] = None,
    view: Annotated[
        str | None,
        Query(
            max_length=4000,
            description="Part of the map: x,y,width,height as fractions 0..1 of it.",
            examples=["0.25,0.25,0.5,0.5"],
        ),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=20_000, description="Points at most; dense places are thinned.")] = 3000,
    where: WhereText = None,
) -> Response:
    """A map of the gallery, or a part of it: items at places where those that look alike lie close to each other."""
    engine = engine_of(request)
    passing = None if where is None else parse_where(where)
    work = partial(engine.projection, limit, target=target, view=_view_of(view), where=passing)
    return json_of(await ask(request, engine.search_lanes, lambda _: work()))


@router.get("/items", response_model=answers.ItemPage)
async def items(
    request: Request,
    where: WhereText = None,
    after: Annotated[
        str | None, Query(max_length=4000, description="`next_after` of the page before.", examples=["p00000-1"])
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Items on a page.")] = 50,
) -> Response:
    """Items in order of item_id, a page at a time."""
    engine = engine_of(request)
    passing = None if where is None else parse_where(where)
    work = partial(engine.items, limit, after=after, where=passing)
    return json_of(await ask(request, engine.search_lanes, lambda _: work()))


@router.get(
    "/items/{item_id:path}/image",
    response_class=Response,
    responses={200: {"content": _JPEG, "description": "The photo."}, 304: {"description": "As it was."}},
)
async def image(
    request: Request,
    item_id: ItemId,
    size: Annotated[int, Query(ge=16, le=2048, description="Longer side in pixels, at most.")] = 512,
) -> Response:
    """An item's photo as a JPEG, encoded anew: never its file."""
    if not request.scope.get("raw_path", b"/image").endswith(b"/image"):
        # The slash came encoded: it is in the item_id, as slashes in a file's name are.
        return await item(request, f"{item_id}/image")
    engine = engine_of(request)
    photo = await ask(request, engine.image_lanes, lambda ticket: engine.image(item_id, size, ticket))
    tag = f'"{hashlib.blake2b(photo, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": _CACHED}
    if _is_held(tag, request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    return Response(photo, headers=headers, media_type="image/jpeg")


@router.get("/items/{item_id:path}", response_model=answers.Item)
async def item(request: Request, item_id: ItemId) -> Response:
    """One item and its labels."""
    engine = engine_of(request)
    return json_of(await ask(request, engine.search_lanes, lambda _: engine.item(item_id)))


@edits.put(
    "/items/{item_id:path}",
    response_model=answers.Edited,
    responses={201: {"description": "The item is new.", "model": answers.Edited}},
    openapi_extra=photo_body(),
)
async def put(
    request: Request,
    item_id: ItemId,
    label: Annotated[
        list[str] | None,
        Query(max_length=1000, description="target=label or target=label|label; repeated.", examples=[["colour=red"]]),
    ] = None,
    product_id: Annotated[str | None, Query(min_length=1, max_length=512, description="Groups photos.")] = None,
    box: BoxText = None,
    split: Annotated[Literal["train", "validation", "test"] | None, Query(description="Of the catalog.")] = None,
    new_targets: Annotated[bool, Query(description="Allow targets that no item has yet.")] = False,
) -> Response:
    """Puts a photo and its labels into the gallery, in the place of what it had; it can be found when this returns."""
    engine = engine_of(request)
    new = NewItem(
        item_id=item_id,
        photo=await photo_of(request) or b"",
        labels={target: names for target, names in parse_labels(label or []).items() if names},
        product_id=product_id,
        box=box_of(box),
        split=split,
        new_targets=new_targets,
    )
    edited = await ask(request, engine.edit_lanes, partial(engine.put, new))
    return json_of(edited, 201 if edited.created else 200)


@edits.patch("/items/{item_id:path}", response_model=answers.Edited)
async def relabel(request: Request, item_id: ItemId, relabelling: Annotated[Relabelling, Body()]) -> Response:
    """Sets labels of an item by hand; they outlast the catalog's when it is read again."""
    engine = engine_of(request)
    labels = {target: tuple(names) for target, names in relabelling.labels.items()}
    work = partial(engine.relabel, item_id, labels, new_targets=relabelling.new_targets)
    return json_of(await ask(request, engine.edit_lanes, lambda ticket: work(ticket=ticket)))


@edits.delete("/items/{item_id:path}", status_code=204)
async def delete(request: Request, item_id: ItemId) -> Response:
    """Deletes an item; a catalog that still has it brings it back when it is read again."""
    engine = engine_of(request)
    await ask(request, engine.edit_lanes, partial(engine.delete, item_id))
    return Response(status_code=204)


def _view_of(text: str | None) -> Box | None:
    """The part of the map that a parameter asks for.

    Raises:
        HTTPException: 422.
    """
    try:
        return box_of(text)
    except CatalogError as error:
        raise HTTPException(
            422,
            f"A view is x,y,width,height as fractions 0..1 of the map, wholly inside it; got {(text or '')[:100]!r}.",
        ) from error


def _is_held(tag: str, held: str) -> bool:
    """Whether `If-None-Match` names the tag, among others or weakened by a cache between (RFC 9110, 13.1.2)."""
    return held.strip() == "*" or tag in (one.strip().removeprefix("W/") for one in held.split(","))
