"""A batch: many photos, what the service says of each, and the work of asking it."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from service.client import ClassifiedPhoto, Client, OverloadedError, RefusedError, ServiceError, UnreachableError
from ui.batch_view import View
from ui.held_files import HeldFileError, HeldFiles
from ui.zips import PhotoZips, Skipped, ZipError, shown_name

MOST_PHOTOS = 20_000
# Photos and bytes of a request: well below what a service takes by default (16 photos, 25 MB), so that answers come
# soon after each other. Two are under way at a time, since a service without a GPU encodes two photos at once.
_PHOTOS, _BYTES, _AT_ONCE = 8, 12 * 2**20, 2
# A service that gives up after so many seconds had too much in one request; sooner, it had too many requests.
_SLOW_S = 3.0
_LOOK_S = 0.5
# A service that is busy or away is asked again after so many seconds where it names none, and given up after so many:
# people leave a batch alone, and a service is started again within minutes.
_PAUSE_S, _PATIENCE_S = 2.0, 300.0
# Refusals that may be about a photo of the request, and not about the question.
_ABOUT_PHOTOS = (400, 413, 415, 422)
# A rate is of the last so many seconds.
_RATE_S = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said of a photo for one target.

    Args:
        labels: Predicted; none where it is none of these.
        likeliest: The likeliest label, predicted or not.
        probability: Of the likeliest, 0..1.
        none_of_these: Whether the photo looks like none that the head knows.
        head: Kind of the head.
    """

    labels: tuple[str, ...]
    likeliest: str
    probability: float
    none_of_these: bool
    head: str


@dataclass(slots=True)
class Row:
    """A photo of a batch.

    Args:
        place: In the batch, from 0.
        name: For people; a path within a folder or a zip.
        token: Of the held photo, or of the zip that it is in.
        number: Its place in the zip; None for a photo of its own.
        answers: By target; empty until it was asked about.
        error: Why there is no answer; None where there is one, or where it was not asked about yet.
    """

    place: int
    name: str
    token: str | None
    number: int | None
    answers: dict[str, Answer] = field(default_factory=dict)
    error: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether it was asked about."""
        return bool(self.answers) or self.error is not None

    @property
    def url(self) -> str | None:
        """Where the page has the photo; None where there is none."""
        if self.token is None:
            return None
        return f"/uploads/{self.token}" if self.number is None else f"/zips/{self.token}/{self.number}"


@dataclass(slots=True)
class Batch:
    """Photos and what is known of them.

    Args:
        token: By which the page knows it; nobody can guess it.
        targets: What is predicted; None for all that have a head.
        head: Kind of the head; None for the best of each target.
        rows: One a photo.
        skipped: What was no photo, by reason.
        done: Photos that were asked about.
        failed: Those of them that have no answer.
        gallery_version: That answered last.
        state: `running`, `done`, `cancelled` or `stopped`.
        sentence: What it waits for, or why it stopped.
        size: Photos of a request, which become fewer where a service is slow.
        view: What somebody wants to see of it.
        is_shown: Whether it is the one that its page shows.
        seconds: That asking took so far, without pauses between two runs.
    """

    targets: Sequence[str] | None
    head: str | None
    token: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, Skipped] = field(default_factory=dict)
    done: int = 0
    failed: int = 0
    gallery_version: int | None = None
    state: str = "running"
    sentence: str = ""
    size: int = _PHOTOS
    view: View = field(default_factory=View)
    is_shown: bool = True
    seconds: float = 0.0
    cancelled: threading.Event = field(default_factory=threading.Event)
    _times: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=500))

    @property
    def target_names(self) -> list[str]:
        """The targets that were answered, in the order of the answers."""
        if self.targets:
            return list(self.targets)
        return list(dict.fromkeys(target for row in self.rows for target in row.answers))

    @property
    def rate(self) -> float | None:
        """Photos a second of late; None where that is not known yet."""
        if len(self._times) < 2 or (passed := self._times[-1][0] - self._times[0][0]) <= 0:
            return None
        return (self._times[-1][1] - self._times[0][1]) / passed

    @property
    def left_s(self) -> float | None:
        """Seconds that it may still take; None where that is not known."""
        return (len(self.rows) - self.done) / self.rate if self.rate else None

    def note(self, row: Row, answers: dict[str, Answer], error: str | None) -> None:
        """Writes down what was said of a photo; of the thread that follows the work only."""
        row.answers, row.error = answers, error
        self.done += 1
        self.failed += error is not None

    def forget_rate(self) -> None:
        """Begins to measure the rate anew."""
        self._times.clear()

    def tick(self) -> None:
        """Looks at the clock, for the rate."""
        now = time.monotonic()
        self._times.append((now, self.done))
        while self._times[0][0] < now - _RATE_S:
            self._times.popleft()


class Batches:
    """The batches of one run of the page, of which the latest used are kept. Safe to use from any thread."""

    def __init__(self, most: int = 24) -> None:
        self._most = most
        self._held: OrderedDict[str, Batch] = OrderedDict()
        self._lock = threading.Lock()

    def hold(self, batch: Batch) -> None:
        """Keeps a batch; the one that was not looked at for longest goes."""
        with self._lock:
            self._held[batch.token] = batch
            while len(self._held) > self._most:
                self._held.popitem(last=False)

    def get(self, token: str) -> Batch | None:
        """A batch; None where it is no longer kept."""
        with self._lock:
            if token in self._held:
                self._held.move_to_end(token)
            return self._held.get(token)


def collect(batch: Batch, sent: Sequence[dict[str, Any]], left_out: Sequence[dict[str, Any]], zips: PhotoZips) -> None:
    """Fills a batch with the photos that were sent, and those in zips that were sent.

    Args:
        batch: An empty one.
        sent: What the browser tells of each: `name`, and `token` or `error`.
        left_out: What it did not send: `reason`, `count` and `names` of the first few.
        zips: Those that are held.
    """
    for one in left_out:
        reason = str(one.get("reason"))
        names = [shown_name(str(name)) for name in one.get("names") or []]
        batch.skipped[reason] = Skipped(reason, int(one.get("count") or 0), names)
    for one in sent:
        name, token, error = (str(one.get(key) or "") for key in ("name", "token", "error"))
        name = shown_name(name or "photo")
        if not token or not name.lower().endswith(".zip"):
            _add(batch, name, token or None, None, error or (None if token else "It was not sent."))
            continue
        try:
            for number, inner in zips.get(token).photos(batch.skipped):
                _add(batch, inner, token, number, None)
        except (ZipError, HeldFileError) as refusal:
            _add(batch, name, None, None, str(refusal))


def _add(batch: Batch, name: str, token: str | None, number: int | None, error: str | None) -> None:
    if len(batch.rows) >= MOST_PHOTOS:
        reason = f"more than the {MOST_PHOTOS:,} photos of a batch; send the rest as another one"
        batch.skipped.setdefault(reason, Skipped(reason)).add(name)
        return
    row = Row(len(batch.rows), name, token, number)
    batch.rows.append(row)
    if error is not None:
        batch.note(row, {}, error)


def work(batch: Batch, client: Client, files: HeldFiles, zips: PhotoZips) -> Generator[None, None, None]:
    """Asks the service about the photos that were not asked about yet, until they are through or it is cancelled.

    Yields:
        Nothing, twice a second or so, when something may have changed. Whoever stops listening ends the work: no more
        is asked than the requests under way.
    """
    batch.state, batch.sentence = "running", ""
    batch.forget_rate()
    batch.cancelled = cancelled = threading.Event()
    asker = _Asker(batch, client, files, zips)
    before, start = batch.seconds, time.monotonic()
    todo = deque(row for row in batch.rows if not row.is_done)
    under_way: dict[Future[list[_Said]], list[Row]] = {}
    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="batch")
    batch.tick()
    try:
        while (todo or under_way) and not cancelled.is_set():
            while todo and len(under_way) < _AT_ONCE:
                rows = [todo.popleft() for _ in range(min(batch.size, len(todo)))]
                under_way[pool.submit(asker.ask, rows)] = rows
            done, _ = wait(under_way, _LOOK_S, FIRST_COMPLETED)
            for future in done:
                for said, row in zip(future.result(), under_way.pop(future), strict=True):
                    batch.note(row, *said)
            batch.tick()
            batch.seconds = before + time.monotonic() - start
            yield
        batch.state = "cancelled" if todo or under_way else "done"
    except ServiceError as error:
        # A request that waits for the service ends so when it is cancelled, which is no failure.
        if not cancelled.is_set():
            batch.state, batch.sentence = "stopped", error.detail
    finally:
        cancelled.set()
        pool.shutdown(wait=False, cancel_futures=True)
        if batch.state == "running":
            batch.state = "cancelled"
        if batch.state == "cancelled":
            # Nothing is waited for any more.
            batch.sentence = ""


# The answers by target, or why there are none.
_Said = tuple[dict[str, Answer], str | None]


class _Asker:
    """Asks about a few photos at a time, in a thread."""

    def __init__(self, batch: Batch, client: Client, files: HeldFiles, zips: PhotoZips) -> None:
        self._batch = batch
        self._client = client
        self._files = files
        self._zips = zips
        # Of this run: the batch has another one when it goes on.
        self._cancelled = batch.cancelled

    def ask(self, rows: Sequence[Row]) -> list[_Said]:
        """What is said of each photo.

        Raises:
            ServiceError: It refuses all photos, or is away for long.
        """
        said: list[_Said] = []
        photos: list[tuple[int, bytes]] = []
        for place, row in enumerate(rows):
            said.append(({}, None))
            try:
                photos.append((place, self._read(row)))
            except (HeldFileError, ZipError, OSError) as error:
                said[place] = ({}, str(error))
        for part in _parts(photos):
            for (place, _), answer in zip(part, self._ask([photo for _, photo in part]), strict=True):
                said[place] = answer
        return said

    def _read(self, row: Row) -> bytes:
        if row.token is None:
            raise HeldFileError("It is not held here; send it again.")
        if row.number is None:
            return self._files.get(row.token).read()
        return self._zips.read(row.token, row.number)

    def _ask(self, photos: list[bytes]) -> list[_Said]:
        try:
            return self._ask_once(photos)
        except RefusedError as error:
            if error.status not in _ABOUT_PHOTOS:
                raise
            if len(photos) == 1:
                return [({}, error.detail)]
            # It may be about one of them, or about their being so many.
        except _TooSlowError:
            self._batch.size = max(1, min(self._batch.size, len(photos) // 2))
        half = len(photos) // 2
        return self._ask(photos[:half]) + self._ask(photos[half:])

    def _ask_once(self, photos: list[bytes]) -> list[_Said]:
        start = time.monotonic()
        while True:
            try:
                answer = self._classify(photos)
            except (OverloadedError, UnreachableError) as error:
                pause = error.retry_after or _PAUSE_S
                if time.monotonic() - start + pause > _PATIENCE_S:
                    raise
                self._batch.sentence = f"{error.detail} Trying again in {pause:.0f} s."
            else:
                self._batch.sentence = ""
                return [_said(photo) for photo in answer]
            self._cancelled.wait(pause)

    def _classify(self, photos: list[bytes]) -> list[ClassifiedPhoto]:
        if self._cancelled.is_set():
            raise ServiceError("The batch was cancelled.")
        batch, start = self._batch, time.monotonic()
        try:
            answer = self._client.classify(*photos, targets=batch.targets, head=batch.head, top=1, evidence=0)
        except OverloadedError as error:
            if len(photos) > 1 and time.monotonic() - start > _SLOW_S:
                raise _TooSlowError from error
            raise
        batch.gallery_version = answer.receipt.gallery_version
        return answer.photos


class _TooSlowError(RuntimeError):
    """The service gave up: fewer photos in a request might do."""


def _said(photo: ClassifiedPhoto) -> _Said:
    answers = {
        one.target: Answer(
            tuple(one.predicted), one.labels[0].label, one.labels[0].probability, one.none_of_these, one.head
        )
        for one in photo.predictions
        if one.labels
    }
    return answers, photo.error if answers or photo.error else "The service predicts nothing: no target has a head."


def _parts(photos: Sequence[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    """The photos in parts that are small enough for a request."""
    part: list[tuple[int, bytes]] = []
    size = 0
    for place, photo in photos:
        if part and size + len(photo) > _BYTES:
            yield part
            part, size = [], 0
        part.append((place, photo))
        size += len(photo)
    if part:
        yield part
