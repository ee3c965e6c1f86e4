"""Examples of answers, as the OpenAPI page shows them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from service import answers

ITEM = answers.Item("p00000-1", "p00000", {"category": ["dress"], "colour": ["red"]})
_NEAR = answers.Item("p00012-1", "p00012", {"category": ["dress"], "colour": ["red"]})
_RECEIPT = answers.Receipt(
    gallery_version=7,
    items=600,
    encoder="efficientnet-lite0",
    encoder_fingerprint="1c0f2a7d9b3e4f5061728394a5b6c7d8",
    variant="exact",
    timings_ms={"queue": 0.1, "decode": 2.4, "encode": 3.9, "search": 1.2, "total": 7.8},
)
_HEAD = answers.HeadReceipt("category", "ensemble", 7, "2026-11-01T09:30:00+00:00")
_NEIGHBOUR = answers.Neighbour(_NEAR, distance=0.083, similarity=0.917)
NEIGHBOURS = answers.Neighbours([_NEIGHBOUR], _RECEIPT)
CLASSIFICATION = answers.Classification(
    [
        answers.ClassifiedPhoto(
            photo="0",
            error=None,
            predictions=[
                answers.Prediction(
                    target="category",
                    head="ensemble",
                    predicted=["dress"],
                    none_of_these=False,
                    labels=[answers.LabelProbability("dress", 0.94), answers.LabelProbability("skirt", 0.04)],
                    prediction_set=["dress"],
                    familiarity=0.62,
                    votes=[answers.Vote(_NEAR, similarity=0.81, weight=0.12)],
                )
            ],
            neighbours=[_NEIGHBOUR],
        )
    ],
    replace(_RECEIPT, heads=[_HEAD]),
)
EXPLANATION = answers.Explanation(
    method="occlusion",
    target="category",
    head="ensemble",
    label="dress",
    probability=0.94,
    similarity=None,
    meaning="By how much the label's logit falls when this place of the photo is hidden.",
    lowest=-0.2,
    highest=1.3,
    overlay_png="iVBORw0KGgo=",
    map=None,
    box=(0.0, 0.0, 1.0, 1.0),
    faithfulness=answers.Faithfulness(
        deletion=0.31,
        insertion=0.72,
        random_deletion=0.52,
        random_insertion=0.55,
        shares=[0.0, 0.5, 1.0],
        deletion_curve=[0.94, 0.2, 0.01],
        insertion_curve=[0.02, 0.9, 0.94],
        sanity=0.08,
        randomised="the head",
        verdict="Hiding what the map marks takes the probability down sooner than hiding random places.",
    ),
    votes=[answers.Vote(_NEAR, similarity=0.81, weight=0.12)],
    match=None,
    remarks=[],
    receipt=replace(_RECEIPT, heads=[_HEAD]),
)
CATALOG = answers.Catalog(
    items=600,
    products=300,
    targets={"category": {"dress": 84, "skirt": 60}},
    encoder="efficientnet-lite0",
    encoder_card={"name": "efficientnet-lite0", "pooling": "mean+early", "dimension": 1320},
    encoder_fingerprint=_RECEIPT.encoder_fingerprint,
    gallery_version=7,
    variant="exact",
    unindexed_items=0,
    failures=0,
    freshness_s=5.0,
    error=None,
    heads=[
        answers.CatalogHead(
            "category", "ensemble", True, 8, {"accuracy": 0.96, "log_loss": 0.14}, 7, "2026-11-01T09:30:00+00:00"
        )
    ],
    sources=["default"],
    encoders=["efficientnet-lite0", "dinov2-small"],
    groups={"Tops": ["shirt"], "Bottoms": ["pants", "skirt"]},
    has_projection=True,
)
PROJECTION = answers.Projection(
    item_ids=["p00000-1", "p00012-1", "p00031-2"],
    x=[0.20315, 0.21077, 0.90008],
    y=[0.55121, 0.5493, 0.12],
    label_of=[0, 0, 1],
    labels=["dress", "skirt"],
    total=597,
    missing=3,
    method="PaCMAP of 100 principal components",
    gallery_version=7,
    projected_version=6,
    projected_at="2026-11-01T09:30:00+00:00",
)
PAGE = answers.ItemPage([ITEM], total=600, next_after="p00000-1", gallery_version=7)
EDITED = answers.Edited(ITEM, gallery_version=8)
JOB = answers.Job(
    id="20261101T093000-9f2c41",
    kind="refresh",
    state="running",
    options={"catalog": "default", "prune": False},
    progress=answers.Progress(done=256, total=600, encoded=256),
    result=None,
    error=None,
    created_at="2026-11-01T09:30:00+00:00",
    started_at="2026-11-01T09:30:00+00:00",
)
JOBS = answers.Jobs([JOB])
PROBLEM = answers.Problem(
    title="Unprocessable Content",
    status=422,
    detail="The gallery has no target 'color'; did you mean 'colour'?",
    request_id="5f0c2b9e8d1a4c7f93b6e0d2a1c4f785",
)
JOB_REQUESTS: Any = {
    "refresh": {"value": {"kind": "refresh", "catalog": "default", "prune": False}},
    "fit": {"value": {"kind": "fit", "targets": ["category"], "heads": ["knn", "linear", "ensemble"]}},
    "compact": {"value": {"kind": "compact", "keep_hours": 1}},
    "migrate": {"value": {"kind": "migrate", "encoder": "dinov2-small"}},
    "project": {"value": {"kind": "project", "seed": 0}},
    "suspects": {"value": {"kind": "suspects", "target": "category", "limit": 100}},
    "duplicates": {"value": {"kind": "duplicates", "max_distance": 0.01, "limit": 100}},
}
# By name of what is answered.
EXAMPLES = {
    type(one).__name__: one
    for one in (NEIGHBOURS, CLASSIFICATION, EXPLANATION, CATALOG, PROJECTION, ITEM, PAGE, EDITED, JOB, JOBS)
}
