"""What the service answers: the words of the API, shared by the engine, the routes and the client.

Plain dataclasses of JSON-ready values; nothing but the standard library, since the client comes with httpx alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

JobKind = Literal["refresh", "fit", "compact", "migrate", "project", "suspects", "duplicates"]
JobState = Literal["queued", "running", "done", "failed", "cancelled"]
# What of a job's result may be long: it comes with the job itself, not with a list of jobs.
FINDINGS = frozenset({"suspects", "groups", "sizes"})


@dataclass(frozen=True, slots=True)
class Item:
    """An item of the gallery.

    Args:
        item_id: Unique in the gallery.
        product_id: Groups several photos of one product.
        labels: Label names by target.
        box: The garment's region: x, y, width, height as fractions of the EXIF-turned photo; None for all of it.
        split: `train`, `validation` or `test`, where the catalog says so.
    """

    item_id: str
    product_id: str | None = None
    labels: dict[str, list[str]] = field(default_factory=dict)
    box: tuple[float, float, float, float] | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An item near a query.

    Args:
        item: What it is.
        distance: `1 - cosine`, 0..2; lower is closer.
        similarity: Cosine, -1..1; higher is closer.
    """

    item: Item
    distance: float
    similarity: float


@dataclass(frozen=True, slots=True)
class HeadReceipt:
    """A head that answered.

    Args:
        target: What it predicts.
        kind: `knn`, `linear`, `mlp`, `ensemble` or `comparator`.
        gallery_version: Version of the gallery that it was fitted on.
        fitted_at: Date and time, UTC, ISO 8601.
        encoder: Name of a comparator's own encoder; null for heads that answer through the gallery's.
    """

    target: str
    kind: str
    gallery_version: int
    fitted_at: str
    encoder: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """Which state of the gallery an answer is of, and what it cost.

    Args:
        gallery_version: The one version that all of the answer is of.
        items: Items in it.
        encoder: Name of the encoder.
        encoder_fingerprint: Everything that decides which embedding a photo gets.
        variant: How it was searched: `exact`, `hnsw` or `ivf`.
        heads: Those that answered.
        timings_ms: Milliseconds by stage (`queue`, `decode`, `encode`, `search`, `predict`, `explain`) and in `total`.
    """

    gallery_version: int
    items: int
    encoder: str
    encoder_fingerprint: str
    variant: str
    heads: list[HeadReceipt] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The items nearest to a query, closest first."""

    neighbours: list[Neighbour]
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class LabelProbability:
    """A label and its calibrated probability, 0..1."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Vote:
    """A training photo that voted in a kNN head.

    Args:
        item: What it is.
        similarity: Cosine in the head's own scaling, -1..1.
        weight: Share of the vote, 0..1.
    """

    item: Item
    similarity: float
    weight: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one head says of one photo.

    Args:
        target: What it predicts.
        head: Its kind.
        predicted: The label; empty where it abstains; each that is likely enough where an item may have several.
        none_of_these: Whether it abstains: the photo looks stranger than 95 % of those that it knows.
        labels: The likeliest, falling.
        prediction_set: Labels that hold the true one with the coverage asked for; null where an item may have several.
        familiarity: Share of known photos that look at least as strange, 0..1; null likewise.
        votes: The training photos that weighed most, where kNN has a say.
    """

    target: str
    head: str
    predicted: list[str]
    none_of_these: bool
    labels: list[LabelProbability]
    prediction_set: list[str] | None
    familiarity: float | None
    votes: list[Vote]


@dataclass(frozen=True, slots=True)
class ClassifiedPhoto:
    """One photo's answer.

    Args:
        photo: Its file name, or its place among those sent, from 0.
        error: Why there is no answer; null where there is one.
        predictions: One a target.
        neighbours: The nearest items of the gallery, as evidence.
    """

    photo: str
    error: str | None
    predictions: list[Prediction]
    neighbours: list[Neighbour]


@dataclass(frozen=True, slots=True)
class Classification:
    """What the photos are, in the order sent."""

    photos: list[ClassifiedPhoto]
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """How far a map can be trusted: what happens to the answer when the photo is hidden or shown by it.

    Areas are under the curve of the probability or the similarity over the share of the photo: deletion hides the
    highest places first, and lower is better; insertion shows them first, and higher is better.

    Args:
        deletion: Area of the map.
        insertion: Likewise.
        random_deletion: Mean area of maps of random numbers on the same photo.
        random_insertion: Likewise.
        shares: At which shares of the photo, 0..1, the curves were taken.
        deletion_curve: The map's curve, from the whole photo to nothing of it.
        insertion_curve: From a blur to the whole photo.
        sanity: Rank correlation, -1..1, with the map of randomised weights, which should be another one.
        randomised: Whose weights.
        verdict: What that comes to, in words.
    """

    deletion: float
    insertion: float
    random_deletion: float
    random_insertion: float
    shares: list[float]
    deletion_curve: list[float]
    insertion_curve: list[float]
    sanity: float | None
    randomised: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Link:
    """Two places that match: in the query and in the item, as fractions of each photo, and the share they bring."""

    query_x: float
    query_y: float
    item_x: float
    item_y: float
    share: float


@dataclass(frozen=True, slots=True)
class MatchedItem:
    """The other side of a match.

    Args:
        item: The gallery's item.
        links: The strongest pairs of places.
        unattributed: The part of the similarity that no place brings.
        usual: What the query's places bring to the gallery's items on average, which a relative map leaves out; null
            where shares are whole.
        padding: The part that the white around the query brings.
        item_usual: As `usual`, of the item's places.
        item_padding: As `padding`, of the white around the item.
        is_exact: Whether the map, its padding and what is left out add up to the similarity; else it approximates it.
        map: (H, W) values over the item's photo, where they were asked for.
    """

    item: Item
    links: list[Link]
    unattributed: float
    usual: float | None
    padding: float
    item_usual: float | None
    item_padding: float
    is_exact: bool
    map: list[list[float]] | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an answer is what it is.

    Args:
        method: `occlusion`, `gradcam`, `attention`, `rollout` or `match`.
        target: What is explained; null for a match.
        head: Kind of the head; likewise.
        label: The label that is explained; likewise.
        probability: Of it, for the whole photo, 0..1; likewise.
        similarity: With the item, -1..1; null but for a match.
        meaning: What a number of the map says, in one sentence.
        lowest: Least value of the map over the photo.
        highest: Greatest value of the map over the photo.
        overlay_png: The photo, beside it the photo under the map, and the scale of colours, base64 of a PNG.
        map: (H, W) values over `box`, row by row, where they were asked for.
        box: What the map covers: x, y, width, height as fractions of the EXIF-turned photo.
        faithfulness: How far the map can be trusted; null where that was not asked.
        votes: The training photos that weighed most, where kNN has a say.
        match: The item, and how it matches; null for a label.
        remarks: What else should be known, in words.
        receipt: What answered.
    """

    method: str
    target: str | None
    head: str | None
    label: str | None
    probability: float | None
    similarity: float | None
    meaning: str
    lowest: float
    highest: float
    overlay_png: str
    map: list[list[float]] | None
    box: tuple[float, float, float, float]
    faithfulness: Faithfulness | None
    votes: list[Vote]
    match: MatchedItem | None
    remarks: list[str]
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class CatalogHead:
    """A head that can be asked.

    Args:
        target: What it predicts.
        kind: `knn`, `linear`, `mlp`, `ensemble` or `comparator`.
        is_default: Whether it answers where no head is named.
        labels: How many it knows.
        validation: Its figures on photos that it was not fitted on.
        gallery_version: Version of the gallery that it was fitted on.
        fitted_at: Date and time, UTC, ISO 8601.
    """

    target: str
    kind: str
    is_default: bool
    labels: int
    validation: dict[str, Any]
    gallery_version: int
    fitted_at: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """What is in the gallery, and how fresh the answers are.

    Args:
        items: Items in it.
        products: Products in it; an item of no product is one by itself.
        targets: How many items carry each label, by target.
        encoder: Name of the encoder.
        encoder_card: All that decides which embedding a photo gets.
        encoder_fingerprint: Its digest.
        gallery_version: The version that answers.
        variant: How it is searched: `exact`, `hnsw` or `ivf`.
        unindexed_items: Items that the FAISS index does not hold yet and that are compared exactly.
        failures: Photos that could not be taken in when the catalog was last read.
        freshness_s: Seconds after which a commit of another process is seen, at most.
        error: What keeps a newer version from answering; null where nothing does.
        heads: Those that can be asked.
        sources: Names of the catalogs that a refresh may read.
        encoders: Names of the encoders that a migration may take.
        groups: Labels by name of their group, which `allowed` and `weights` take; those that heads know or items carry.
        has_projection: Whether there is a map of the gallery, though items may have come since it was drawn.
    """

    items: int
    products: int
    targets: dict[str, dict[str, int]]
    encoder: str
    encoder_card: dict[str, Any]
    encoder_fingerprint: str
    gallery_version: int
    variant: str
    unindexed_items: int
    failures: int
    freshness_s: float
    error: str | None
    heads: list[CatalogHead]
    sources: list[str]
    encoders: list[str]
    groups: dict[str, list[str]]
    has_projection: bool


@dataclass(frozen=True, slots=True)
class Projection:
    """A map of the gallery: P items at places of a plane, where those that look alike lie close to each other.

    Args:
        item_ids: Of the points, (P,), in order of their place in the gallery.
        x: To the right, 0..1, to five digits.
        y: Downwards, 0..1, likewise.
        label_of: The place of each point's label among `labels`; -1 for none.
        labels: Of the target, most frequent in the gallery first; empty where no target was named.
        total: Items in the view, shown or not.
        missing: Items of the gallery that have no place yet, since they or their photos came later than the map.
        method: How places were found, in words.
        gallery_version: The version that items and labels are of.
        projected_version: The version that was drawn.
        projected_at: When, date and time, UTC, ISO 8601.
    """

    item_ids: list[str]
    x: list[float]
    y: list[float]
    label_of: list[int]
    labels: list[str]
    total: int
    missing: int
    method: str
    gallery_version: int
    projected_version: int
    projected_at: str


@dataclass(frozen=True, slots=True)
class ItemPage:
    """Items in order of item_id.

    Args:
        items: This page's.
        total: Items that pass the filter, on all pages.
        next_after: What to pass as `after` for the next page; null on the last one.
        gallery_version: The version that they are of.
    """

    items: list[Item]
    total: int
    next_after: str | None
    gallery_version: int


@dataclass(frozen=True, slots=True)
class Edited:
    """An item as it is after an edit, which every answer from now on agrees with.

    Args:
        item: What it is.
        gallery_version: The version that has it so.
        created: Whether it is new.
    """

    item: Item
    gallery_version: int
    created: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is.

    Args:
        done: Rows dealt with, or steps of what the message names.
        total: Of so many, where known.
        encoded: Photos encoded.
        message: What it is at, in words.
    """

    done: int = 0
    total: int | None = None
    encoded: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work on the gallery; one runs at a time, the rest wait in order.

    Args:
        id: Its name.
        kind: What it does.
        state: `queued`, `running`, `done`, `failed` or `cancelled`.
        options: As asked for.
        progress: How far it is.
        result: What it did, once done; in a list of jobs without FINDINGS, which may be long.
        error: Why it failed, or was refused, one sentence.
        created_at: Date and time, UTC, ISO 8601.
        started_at: Likewise; null while it waits.
        ended_at: Likewise; null until it is over.
    """

    id: str
    kind: JobKind
    state: JobState
    options: dict[str, Any]
    progress: Progress
    result: dict[str, Any] | None
    error: str | None
    created_at: str
    started_at: str | None = None
    ended_at: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing of it will change any more."""
        return self.state in ("done", "failed", "cancelled")

    @property
    def listed(self) -> Job:
        """The job as a list of jobs has it."""
        if self.result is None:
            return self
        return replace(self, result={name: value for name, value in self.result.items() if name not in FINDINGS})


@dataclass(frozen=True, slots=True)
class Jobs:
    """The jobs that are remembered, newest first, their results without FINDINGS."""

    jobs: list[Job]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a request was refused (RFC 9457, `application/problem+json`).

    Args:
        title: The status in words.
        status: HTTP status.
        detail: One sentence: what was wanted, what came, what to do next.
        request_id: By which the service's log knows the request.
    """

    title: str
    status: int
    detail: str
    request_id: str
    type: str = "about:blank"
