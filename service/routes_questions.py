"""The three questions: what is like it, what is this, why do you say so."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from data.catalog import Box
from heads.groups import parse_allowed, parse_weights
from indexer.filters import parse_where
from service import answers
from service.asking import ask, engine_of, json_of, photo_body, photo_of, photos_of
from service.classification import ClassifyOptions
from service.explain import ExplainOptions
from service.questions import ClassifyQuestion, ExplainQuestion, NeighboursQuestion

router = APIRouter(prefix="/v1", tags=["questions"])

# A text of a few thousand signs is no filter of a person's.
_LONGEST = 4000

AskedHead = Literal["knn", "linear", "mlp", "ensemble", "comparator"]
ItemId = Annotated[
    str | None,
    Query(max_length=_LONGEST, description="An item of the gallery, instead of a photo.", examples=["p00000-1"]),
]
BoxText = Annotated[
    str | None,
    Query(
        max_length=_LONGEST,
        description="Region of the photo: x,y,width,height as fractions 0..1 of the EXIF-turned photo.",
        examples=["0.1,0.1,0.8,0.8"],
    ),
]
WhereText = Annotated[
    str | None,
    Query(
        max_length=_LONGEST,
        description=r"Labels that items must have: target=label|label, joined by commas; \ takes , | \ literally.",
        examples=["category=dress,colour=red|blue"],
    ),
]


def box_of(text: str | None) -> Box | None:
    """The region that a parameter asks for."""
    return None if text is None else Box.parse(text)


def names_of(text: str | None) -> tuple[str, ...] | None:
    """The names in a list joined by commas, each once; None where there is no list."""
    if text is None:
        return None
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


@router.post(
    "/neighbours",
    response_model=answers.Neighbours,
    openapi_extra=photo_body(required=False),
)
async def neighbours(
    request: Request,
    item_id: ItemId = None,
    k: Annotated[int, Query(ge=1, le=1000, description="Neighbours wanted.")] = 10,
    where: WhereText = None,
    box: BoxText = None,
    group_by: Annotated[
        Literal["product"] | None, Query(description="`product`: at most one item of each product.")
    ] = None,
    max_distance: Annotated[
        float | None, Query(ge=0, le=2, description="Only neighbours at most this far: 1 - cosine.")
    ] = None,
) -> Response:
    """The items of the gallery nearest to a photo, or to one of its own items."""
    engine = engine_of(request)
    question = NeighboursQuestion(
        photo=await photo_of(request),
        item_id=item_id,
        k=k,
        where=None if where is None else parse_where(where),
        box=box_of(box),
        group_by_product=group_by == "product",
        max_distance=max_distance,
    )
    return json_of(await ask(request, engine.search_lanes, partial(engine.neighbours, question)))


@router.post(
    "/classify",
    response_model=answers.Classification,
    openapi_extra=photo_body(several=True, required=False),
)
async def classify(  # noqa: PLR0913, PLR0917 - as many as there are options
    request: Request,
    item_id: ItemId = None,
    targets: Annotated[
        str | None,
        Query(max_length=_LONGEST, description="Targets, joined by commas; all that have a head.", examples=["colour"]),
    ] = None,
    head: Annotated[
        AskedHead | None,
        Query(description="Kind of head; of each target the selected one, or the best on validation."),
    ] = None,
    top: Annotated[int, Query(ge=1, le=1000, description="Labels in an answer.")] = 3,
    allowed: Annotated[
        str | None,
        Query(max_length=_LONGEST, description="Labels or groups to choose from, joined by commas.", examples=["Tops"]),
    ] = None,
    weights: Annotated[
        str | None,
        Query(max_length=_LONGEST, description="Weights of labels or groups.", examples=["Bottoms=0.6,Shirts=1.2"]),
    ] = None,
    coverage: Annotated[
        float, Query(gt=0, lt=1, description="Share of cases in which the prediction set holds the true label.")
    ] = 0.9,
    evidence: Annotated[int, Query(ge=0, le=100, description="Neighbours, and votes of kNN, in an answer.")] = 5,
    box: BoxText = None,
) -> Response:
    """What one photo or several are, with how sure the heads are and what speaks for it."""
    engine = engine_of(request)
    options = ClassifyOptions(
        top=top,
        allowed=() if allowed is None else parse_allowed(allowed),
        weights={} if weights is None else parse_weights(weights),
        coverage=coverage,
        evidence=evidence,
    )
    question = ClassifyQuestion(
        photos=tuple(await photos_of(request)),
        item_id=item_id,
        targets=names_of(targets),
        head=head,
        options=options,
        box=box_of(box),
    )
    return json_of(await ask(request, engine.search_lanes, partial(engine.classify, question)))


@router.post(
    "/explain",
    response_model=answers.Explanation,
    openapi_extra=photo_body(required=False),
)
async def explain(  # noqa: PLR0913, PLR0917 - as many as there are options
    request: Request,
    target: Annotated[
        str | None,
        Query(max_length=_LONGEST, description="Whose prediction; none for a match.", examples=["category"]),
    ] = None,
    item_id: ItemId = None,
    method: Annotated[
        Literal["occlusion", "gradcam", "attention", "rollout", "match"],
        Query(
            description="How: `occlusion` hides each place and asks any head again; `gradcam` (of CNNs) and "
            "`attention` (of transformers) look into the network, for linear, MLP and comparator heads; `rollout` is "
            "attention whatever the label; `match` says what brings the similarity with an item."
        ),
    ] = "occlusion",
    match_item_id: Annotated[
        str | None,
        Query(max_length=_LONGEST, description="Of `match`: the item of the gallery.", examples=["p00000-1"]),
    ] = None,
    label: Annotated[
        str | None, Query(max_length=_LONGEST, description="Which label; the likeliest.", examples=["dress"])
    ] = None,
    head: Annotated[
        AskedHead | None, Query(description="Kind of head; the selected one, or the best on validation.")
    ] = None,
    box: BoxText = None,
    layer: Annotated[
        str | None, Query(max_length=_LONGEST, description="Of `gradcam`: name of a module; the last that gives a map.")
    ] = None,
    window: Annotated[
        int | None,
        Query(ge=1, le=10_000, description="Of `occlusion`: side of what is hidden, pixels of the letterboxed photo."),
    ] = None,
    stride: Annotated[
        int | None, Query(ge=1, le=10_000, description="Of `occlusion`: its steps; half the window.")
    ] = None,
    fill: Annotated[
        Literal["mean", "white", "black", "blur"] | None,
        Query(description="Of `occlusion`: what hidden places become; `mean`."),
    ] = None,
    relative: Annotated[
        bool,
        Query(description="Of `match`: shares beyond what a place brings to the gallery's items on average."),
    ] = False,
    faithfulness: Annotated[bool, Query(description="Whether it is measured how far the map can be trusted.")] = True,
    raw: Annotated[bool, Query(description="Whether the map's numbers are wanted too.")] = False,
) -> Response:
    """Which places of a photo an answer hangs on, as a picture over the photo, and how far the picture can be trusted.

    Of a head's answer, named by its `target`, or of the similarity with an item, `match_item_id`.
    """
    engine = engine_of(request)
    question = ExplainQuestion(
        target=target,
        photo=await photo_of(request),
        item_id=item_id,
        match_item_id=match_item_id,
        label=label,
        head=head,
        box=box_of(box),
        options=ExplainOptions(
            method=method,
            layer=layer,
            window=window,
            stride=stride,
            fill=fill,
            is_relative=relative,
            is_checked=faithfulness,
        ),
        with_map=raw,
    )
    seconds = engine.settings.explain_deadline_s
    return json_of(await ask(request, engine.explain_lanes, partial(engine.explain, question), seconds=seconds))
