"""A client of the service: every route as a method, every answer as a dataclass. Needs httpx alone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, TypeVar

import httpx

from service.answers import (
    Catalog,
    CatalogHead,
    Classification,
    ClassifiedPhoto,
    Edited,
    Explanation,
    Faithfulness,
    HeadReceipt,
    Item,
    ItemPage,
    Job,
    JobKind,
    Jobs,
    JobState,
    LabelProbability,
    Link,
    MatchedItem,
    Neighbour,
    Neighbours,
    Prediction,
    Problem,
    Progress,
    Projection,
    Receipt,
    Vote,
)
from service.client_answers import AnswerError, read_answer
from service.client_connection import (
    Connection,
    NotFoundError,
    OverloadedError,
    RefusedError,
    ServiceError,
    UnreachableError,
    event_data,
)
from service.client_photos import Photo, photo_body, photo_file
from service.client_text import (
    BoxLike,
    Names,
    allowed_text,
    box_text,
    labels_text,
    one_or_more,
    path_part,
    weights_text,
    where_text,
)

# All that a program needs that talks to a service: nothing else of Modiste has to be imported.
__all__ = [
    "Box",
    "Catalog",
    "CatalogHead",
    "Classification",
    "ClassifiedPhoto",
    "Client",
    "Edited",
    "Explanation",
    "Faithfulness",
    "HeadReceipt",
    "Item",
    "ItemPage",
    "Job",
    "JobKind",
    "JobState",
    "Jobs",
    "LabelProbability",
    "Link",
    "MatchedItem",
    "Neighbour",
    "Neighbours",
    "NotFoundError",
    "OverloadedError",
    "Photo",
    "Prediction",
    "Problem",
    "Progress",
    "Projection",
    "Receipt",
    "RefusedError",
    "ServiceError",
    "UnreachableError",
    "Vote",
    "Where",
]

# Text of the grammar, or labels by target.
Where = str | Mapping[str, Names]
# Text `x,y,width,height`, the four numbers, or what has them.
Box = str | Sequence[float] | BoxLike
T = TypeVar("T")

_RECONNECT_S = 0.5
_LONGEST_POLL_S = 2.0


class Client:
    """One service; several threads may share a client, and should, since it keeps connections open.

    Args:
        base_url: Where the service is.
        key: Its API key, where it wants one.
        timeout: Seconds to wait for the connection, and for each part of an answer.
        retries: Repetitions at most, 0 or more: where the service names a time to come back at (Retry-After; up to 10 s
            are waited), and where the connection broke and the request may be done twice. A job is begun once.
        transport: Of httpx, instead of sockets, for tests.

    Every method raises `ServiceError`, where one fits as `NotFoundError`, `RefusedError` (the request is wrong as it
    is), `OverloadedError` (also after the retries) or `UnreachableError`. What cannot even be asked is a ValueError or
    a TypeError.

    Example:
        with Client() as client:
            for neighbour in client.neighbours(Path("query.jpg"), k=5, where={"colour": ["red", "pink"]}).neighbours:
                print(neighbour.item.item_id, neighbour.similarity)
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 3,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._connection = Connection(base_url, key, timeout=timeout, retries=retries, transport=transport)

    def __repr__(self) -> str:
        return f"Client({self._connection.base_url!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; the client is of no use any more."""
        self._connection.close()

    def neighbours(
        self,
        photo: Photo | None = None,
        *,
        item_id: str | None = None,
        k: int = 10,
        where: Where | None = None,
        box: Box | None = None,
        group_by_product: bool = False,
        max_distance: float | None = None,
    ) -> Neighbours:
        """The items nearest to a photo, or to an item.

        Args:
            photo: The query; or
            item_id: An item of the gallery as the query.
            k: Neighbours, 1 or more.
            where: Only items with these labels: every target must agree, any of its labels will do.
            box: The garment's region of the photo: x, y, width, height as fractions.
            group_by_product: Whether a product counts once.
            max_distance: None further away than this, 0..2.
        """
        _check_one(photo is not None, item_id)
        ask = _params(
            item_id=item_id,
            k=k,
            where=where_text(where),
            box=box_text(box),
            group_by="product" if group_by_product else None,
            max_distance=max_distance,
        )
        return self._ask(Neighbours, "POST", "/v1/neighbours", params=ask, **photo_body(photo))

    def classify(  # noqa: PLR0913 - one argument an option
        self,
        *photos: Photo,
        item_id: str | None = None,
        targets: Names | None = None,
        head: str | None = None,
        top: int = 3,
        allowed: Names | None = None,
        weights: str | Mapping[str, float] | None = None,
        coverage: float = 0.9,
        evidence: int = 5,
        box: Box | None = None,
    ) -> Classification:
        """What photos are, or an item is, in the order given.

        Args:
            photos: The queries, one or more; or
            item_id: An item of the gallery as the query.
            targets: What to predict; None for all that have a head.
            head: Kind of the heads, such as `knn`; None for the best of each target.
            top: Likeliest labels to name, 1 or more.
            allowed: Labels or groups to choose from, as names or as text: `Tops,Shirts`.
            weights: How much labels or groups count, by name or as text: `Bottoms=0.6`.
            coverage: Of the prediction sets, 0..1.
            evidence: Nearest items to send along.
            box: The garment's region of each photo.
        """
        _check_one(bool(photos), item_id)
        ask = _params(
            item_id=item_id,
            targets=None if targets is None else ",".join(one_or_more(targets)),
            head=head,
            top=top,
            allowed=allowed_text(allowed),
            weights=weights_text(weights),
            coverage=coverage,
            evidence=evidence,
            box=box_text(box),
        )
        # As a form, so that the answers carry the names of the files.
        files = [("photo", photo_file(photo, str(place))) for place, photo in enumerate(photos)]
        return self._ask(Classification, "POST", "/v1/classify", params=ask, files=files or None)

    def explain(  # noqa: PLR0913 - as many as there are options
        self,
        photo: Photo | None = None,
        *,
        target: str | None = None,
        item_id: str | None = None,
        match_item_id: str | None = None,
        method: str | None = None,
        label: str | None = None,
        head: str | None = None,
        box: Box | None = None,
        layer: str | None = None,
        window: int | None = None,
        stride: int | None = None,
        fill: str | None = None,
        relative: bool | None = None,
        faithfulness: bool = True,
        raw: bool = False,
    ) -> Explanation:
        """Why a head says what it says of a photo, or of an item; or what makes it like an item.

        Args:
            photo: The query; or item_id, one of them.
            target: What is predicted; or match_item_id, one of them.
            item_id: An item of the gallery as the query.
            match_item_id: An item of the gallery that the query is like.
            method: How it is found out; None for `match` with an item, `occlusion` of a label.
            label: The label to explain; None for the one predicted.
            head: Kind of the head; None for the target's best.
            box: The garment's region of the photo.
            layer: Of Grad-CAM: name of a module.
            window: Of occlusion: side of what is hidden, pixels of the letterboxed photo.
            stride: Of occlusion: its steps.
            fill: Of occlusion: `mean`, `white`, `black` or `blur`.
            relative: Of a match: whether shares are beyond what a place brings to the gallery's items on average.
            faithfulness: Whether to measure how far the map can be trusted.
            raw: Whether to send the numbers of the map along with the picture.
        """
        _check_one(photo is not None, item_id)
        ask = _params(
            target=target,
            item_id=item_id,
            match_item_id=match_item_id,
            method=method or ("occlusion" if match_item_id is None else "match"),
            label=label,
            head=head,
            box=box_text(box),
            layer=layer,
            window=window,
            stride=stride,
            fill=fill,
            relative=relative,
            faithfulness=faithfulness,
            raw=raw,
        )
        return self._ask(Explanation, "POST", "/v1/explain", params=ask, **photo_body(photo))

    def catalog(self) -> Catalog:
        """What is in the gallery, and how fresh the answers are."""
        return self._ask(Catalog, "GET", "/v1/catalog")

    def projection(
        self,
        *,
        target: str | None = None,
        view: Box | None = None,
        limit: int = 3000,
        where: Where | None = None,
    ) -> Projection:
        """The gallery's map, which a job of kind `project` draws, or a part of it; NotFoundError where there is none.

        Args:
            target: Whose labels come with the points; None for no labels.
            view: The part: x, y, width, height as fractions of the map; None for all of it.
            limit: Points at most, 1 to 20,000: dense places are thinned, and points that are alone stay.
            where: Only items with these labels.
        """
        ask = _params(target=target, view=box_text(view), limit=limit, where=where_text(where))
        return self._ask(Projection, "GET", "/v1/projection", params=ask)

    def items(self, *, where: Where | None = None, after: str | None = None, limit: int = 50) -> ItemPage:
        """A page of the items, in order of item_id.

        Args:
            where: Only items with these labels.
            after: The last page's `next_after`.
            limit: Items of a page, 1 or more.
        """
        ask = _params(where=where_text(where), after=after, limit=limit)
        return self._ask(ItemPage, "GET", "/v1/items", params=ask)

    def iter_items(self, *, where: Where | None = None, limit: int = 200) -> Iterator[Item]:
        """All items in order of item_id, asked for a page at a time; each page is of the version of its moment."""
        after: str | None = None
        while True:
            page = self.items(where=where, after=after, limit=limit)
            yield from page.items
            after = page.next_after
            if after is None:
                return

    def item(self, item_id: str) -> Item:
        """An item."""
        return self._ask(Item, "GET", f"/v1/items/{path_part(item_id)}")

    def image(self, item_id: str, *, size: int = 512) -> bytes:
        """An item's photo as a JPEG, its longer side at most `size` pixels."""
        return self._connection.send("GET", f"/v1/items/{path_part(item_id)}/image", params={"size": size}).content

    def put_item(
        self,
        item_id: str,
        photo: Photo,
        labels: Mapping[str, Names] | None = None,
        *,
        product_id: str | None = None,
        box: Box | None = None,
        split: str | None = None,
        new_targets: bool = False,
    ) -> Edited:
        """Adds an item, or replaces it; every answer from now on knows it.

        Args:
            item_id: Its name.
            photo: A JPEG, PNG or WEBP.
            labels: By target.
            product_id: Groups several photos of one product.
            box: The garment's region of the photo.
            split: `train`, `validation` or `test`.
            new_targets: Whether labels may be of targets that no item has yet.
        """
        ask = _params(
            label=labels_text(labels or {}),
            product_id=product_id,
            box=box_text(box),
            split=split,
            new_targets=new_targets,
        )
        return self._ask(Edited, "PUT", f"/v1/items/{path_part(item_id)}", params=ask, **photo_body(photo))

    def relabel(self, item_id: str, labels: Mapping[str, Names], *, new_targets: bool = False) -> Edited:
        """Replaces the labels of the targets named; an empty list takes them away, other targets stay as they are."""
        change = {target: one_or_more(names) for target, names in labels.items()}
        body = {"labels": change, "new_targets": new_targets}
        return self._ask(Edited, "PATCH", f"/v1/items/{path_part(item_id)}", json=body)

    def delete_item(self, item_id: str) -> None:
        """Takes an item out of the gallery; its photo's file stays where it is."""
        self._connection.send("DELETE", f"/v1/items/{path_part(item_id)}")

    def submit(self, kind: JobKind, **options: Any) -> Job:
        """Asks for a job, which waits until those before it are over.

        Args:
            kind: `refresh`, `fit`, `compact`, `migrate`, `project`, `suspects` or `duplicates`.
            options: Of the kind; docs/api.md lists them, and what the job's `result` has.
        """
        return self._ask(Job, "POST", "/v1/jobs", once=True, json={"kind": kind, **options})

    def jobs(self) -> list[Job]:
        """The jobs that are remembered, newest first; what suspects and duplicates found comes with `job` alone."""
        return self._ask(Jobs, "GET", "/v1/jobs").jobs

    def job(self, job_id: str) -> Job:
        """A job as it is now."""
        return self._ask(Job, "GET", f"/v1/jobs/{path_part(job_id)}")

    def cancel(self, job_id: str) -> Job:
        """Ends a job; what it has committed stays."""
        return self._ask(Job, "POST", f"/v1/jobs/{path_part(job_id)}/cancel")

    def follow(self, job_id: str) -> Iterator[Job]:
        """A job whenever it has changed, until it is over; a stream that breaks is taken up again."""
        last: Job | None = None
        while True:
            for job in self._events(job_id):
                if job != last:
                    yield job
                last = job
                if job.is_over:
                    return
            time.sleep(_RECONNECT_S)

    def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """A job once it is over, whether it is done, has failed or was cancelled.

        Args:
            job_id: Its id.
            timeout: Seconds to wait; None for ever.

        Raises:
            TimeoutError: It is not over by then; it goes on.
        """
        start, pause = time.monotonic(), 0.1
        while not (job := self.job(job_id)).is_over:
            left = float("inf") if timeout is None else timeout - (time.monotonic() - start)
            if left <= 0:
                raise TimeoutError(f"Job {job_id} is still {job.state} after {timeout:g} s; cancel it, or wait on.")
            time.sleep(min(pause, left))
            pause = min(1.5 * pause, _LONGEST_POLL_S)
        return job

    def ready(self) -> bool:
        """Whether the service answers questions now; False where nothing listens, too."""
        return self._answers("/readyz")

    def health(self) -> bool:
        """Whether the service runs, ready or not; False where nothing listens."""
        return self._answers("/healthz")

    def _answers(self, path: str) -> bool:
        try:
            self._connection.send("GET", path, retries=0)
        except (OverloadedError, UnreachableError):
            return False
        return True

    def _events(self, job_id: str) -> Iterator[Job]:
        """The job as the events of one stream tell it, and as it is when they break off."""
        path = f"/v1/jobs/{path_part(job_id)}/events"
        try:
            with closing(self._connection.send("GET", path, stream=True)) as response:
                for text in event_data(response.iter_bytes()):
                    yield _read(Job, text, f"GET {path}")
        except httpx.TransportError:
            pass
        yield self.job(job_id)

    def _ask(self, kind: type[T], method: str, path: str, **ask: Any) -> T:
        response = self._connection.send(method, path, **ask)
        return _read(kind, response.content, f"{method} {path}", response)


def _read(kind: type[T], text: bytes, request: str, response: httpx.Response | None = None) -> T:
    """The answer to a request.

    Raises:
        ServiceError: It is not what it should be.
    """
    try:
        return read_answer(kind, json.loads(text))
    except (AnswerError, ValueError) as error:
        status = None if response is None else response.status_code
        request_id = None if response is None else response.headers.get("X-Request-ID")
        why = error if isinstance(error, AnswerError) else "It is no JSON."
        remedy = "Is it Modiste that listens there, no older than this client?"
        raise ServiceError(f"The answer to {request} cannot be read. {why} {remedy}", status, request_id) from error


def _params(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _check_one(has_photo: bool, item_id: str | None) -> None:
    if has_photo == (item_id is not None):
        raise ValueError(f"A question is about a photo or an item_id; got {'both' if has_photo else 'neither'}.")
