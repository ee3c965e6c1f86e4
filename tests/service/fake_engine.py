"""An engine that knows its answers by heart and remembers what it was asked, for the tests of everything before it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import SimpleNamespace
from typing import Any, ClassVar

from data.images import ImageError
from service import answers
from service.engine import ItemNotFoundError
from service.examples import CATALOG, CLASSIFICATION, EXPLANATION, ITEM, JOB, NEIGHBOURS, PROJECTION
from service.job_options import JobOptions
from service.jobs import JobNotFoundError
from service.lanes import Lanes, Ticket
from service.questions import ClassifyQuestion, ExplainQuestion, NeighboursQuestion, NewItem
from service.settings import Settings

VERSION = 7
JPEG = b"\xff\xd8\xff the photo of an item"


class FakeJobs:
    """Jobs that change only when a test changes them."""

    encoders: ClassVar[list[str]] = ["fake"]

    def __init__(self) -> None:
        self.asked: list[JobOptions] = []
        self.failure: BaseException | None = None
        self._jobs: dict[str, answers.Job] = {}

    def submit(self, options: JobOptions) -> answers.Job:
        """A job that waits."""
        if self.failure is not None:
            raise self.failure
        self.asked.append(options)
        name = f"job-{len(self._jobs)}"
        self._jobs[name] = replace(JOB, id=name, kind=options.kind, state="queued", options=asdict(options))
        return self._jobs[name]

    def get(self, job_id: str) -> answers.Job:
        """The job as a test left it."""
        if job_id not in self._jobs:
            raise JobNotFoundError(job_id)
        return self._jobs[job_id]

    def all(self) -> list[answers.Job]:
        """The jobs, newest first."""
        return [*reversed(self._jobs.values())]

    def cancel(self, job_id: str) -> answers.Job:
        """The job, which is over."""
        return self.change(job_id, state="cancelled", ended_at="2026-11-01T09:31:00+00:00")

    def change(self, job_id: str, **fields: Any) -> answers.Job:
        """What the job's process would have told."""
        self._jobs[job_id] = replace(self.get(job_id), **fields)
        return self._jobs[job_id]


@dataclass
class FakeGallery:
    """What metrics read of a gallery."""

    items: Mapping[str, answers.Item]
    snapshot: Any = field(default_factory=lambda: SimpleNamespace(version=VERSION))
    searcher: Any = field(default_factory=lambda: SimpleNamespace(tail_rows=11))

    def __len__(self) -> int:
        return len(self.items)


class FakeEngine:
    """What service.engine.Engine looks like from its routes.

    Args:
        settings: Of the service; `lanes` are one unless they say more.
        items: Ids of the items that there are.
    """

    def __init__(self, settings: Settings, items: Sequence[str] = (ITEM.item_id,)) -> None:
        self.settings = settings
        self.items_by_id = {name: replace(ITEM, item_id=name) for name in items}
        # Method and what it was given, without the ticket, in the order of the answers.
        self.asked: list[tuple[str, Any]] = []
        # What every question fails with.
        self.failure: BaseException | None = None
        # Closed, it holds every question back.
        self.gate = threading.Event()
        self.gate.set()
        self.decoders = SimpleNamespace(deaths=3)
        self.state = SimpleNamespace(
            serving=SimpleNamespace(gallery=FakeGallery(self.items_by_id)),
            error=None,
            index_recall=0.97,
            encoder_load_s=1.25,
        )
        self.jobs = FakeJobs()
        self.search_lanes = Lanes("questions", settings.lanes or 1, settings.places)
        self.image_lanes = Lanes("images", 1, settings.places)
        self.explain_lanes = Lanes("explanations", 1, settings.places)
        self.edit_lanes = Lanes("edits", 1, settings.places)
        self.lanes = (self.search_lanes, self.image_lanes, self.explain_lanes, self.edit_lanes)

    def close(self) -> None:
        """Ends the threads."""
        self.gate.set()
        for lanes in self.lanes:
            lanes.close()

    def neighbours(self, question: NeighboursQuestion, ticket: Ticket) -> answers.Neighbours:
        """The same neighbours always, with the stages that a question has."""
        with ticket.stage("search"):
            self._note("neighbours", question, ticket)
        receipt = replace(NEIGHBOURS.receipt, timings_ms=ticket.timings_ms())
        return replace(NEIGHBOURS, receipt=receipt)

    def classify(self, question: ClassifyQuestion, ticket: Ticket) -> answers.Classification:
        """The same labels always."""
        self._note("classify", question, ticket)
        return CLASSIFICATION

    def explain(self, question: ExplainQuestion, ticket: Ticket) -> answers.Explanation:
        """The same explanation always."""
        self._note("explain", question, ticket)
        return EXPLANATION

    def catalog(self) -> answers.Catalog:
        """The same catalog always."""
        self._note("catalog", None)
        return CATALOG

    def projection(self, limit: int, *, target: Any = None, view: Any = None, where: Any = None) -> answers.Projection:
        """The same map always."""
        self._note("projection", (limit, target, view, where))
        return PROJECTION

    def items(self, limit: int, *, after: str | None = None, where: Any = None) -> answers.ItemPage:
        """Items from the first one on, whatever the filter is."""
        self._note("items", (limit, after, where))
        names = sorted(name for name in self.items_by_id if after is None or name > after)
        page = [self.items_by_id[name] for name in names[:limit]]
        return answers.ItemPage(page, len(self.items_by_id), names[limit - 1] if len(names) > limit else None, VERSION)

    def item(self, item_id: str) -> answers.Item:
        """The item as it was put or relabelled last."""
        self._note("item", item_id)
        return self._known(item_id)

    def image(self, item_id: str, size: int, ticket: Ticket) -> bytes:
        """Some bytes that differ by item and size."""
        self._note("image", (item_id, size), ticket)
        self._known(item_id)
        return JPEG + f" {item_id} {size}".encode(errors="replace")

    def put(self, new: NewItem, ticket: Ticket) -> answers.Edited:
        """The item as it was put."""
        self._note("put", new, ticket)
        if not new.photo:
            raise ImageError("The photo is empty.")
        box = None if new.box is None else (new.box.x, new.box.y, new.box.width, new.box.height)
        labels = {target: list(names) for target, names in new.labels.items()}
        item = answers.Item(new.item_id, new.product_id, labels, box, new.split)
        created = new.item_id not in self.items_by_id
        self.items_by_id[new.item_id] = item
        return answers.Edited(item, VERSION + 1, created)

    def relabel(self, item_id: str, labels: Any, *, new_targets: bool, ticket: Ticket) -> answers.Edited:
        """The item with those labels and no others."""
        self._note("relabel", (item_id, labels, new_targets), ticket)
        named = {target: list(names) for target, names in labels.items()}
        self.items_by_id[item_id] = replace(self._known(item_id), labels=named)
        return answers.Edited(self.items_by_id[item_id], VERSION + 1)

    def delete(self, item_id: str, ticket: Ticket) -> None:
        """It is gone."""
        self._note("delete", item_id, ticket)
        self._known(item_id)
        del self.items_by_id[item_id]

    def _note(self, method: str, given: Any, ticket: Ticket | None = None) -> None:
        self.asked.append((method, given))
        self.gate.wait()
        if ticket is not None:
            ticket.check()
        if self.failure is not None:
            raise self.failure

    def _known(self, item_id: str) -> answers.Item:
        if item_id not in self.items_by_id:
            raise ItemNotFoundError(item_id)
        return self.items_by_id[item_id]
