"""Encoding: photos to embeddings, read, decoded and encoded side by side, in the order they came.

The work runs in as many threads as the encoder keeps busy (each releases the interpreter's lock for nearly all of its
time), a chunk of photos at a time. A few chunks at most are under way, so memory does not grow with the catalog.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from data.catalog import Box, CatalogItem
from data.images import ImageError, read_bytes, read_pixels
from indexer.manifest import Fingerprint
from indexer.store import Failure, Row, metadata_key

if TYPE_CHECKING:
    from indexer.encoders import Encoder

_T = TypeVar("_T")

# Photos that a worker decodes and encodes together: enough to hide the cost of a call, few enough to stay in cache.
CHUNK = 16

# What became of an item.
ADDED, CHANGED, RELABELLED, UNCHANGED, FAILED = "added", "changed", "relabelled", "unchanged", "failed"


@dataclass(frozen=True, slots=True)
class Task:
    """An item whose photo has to be read, and what the gallery holds of it (None for a new item)."""

    item: CatalogItem
    fingerprint: Fingerprint
    stored: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a task: its outcome, and a row to store or a failure."""

    outcome: str
    row: Row | Failure


def encode_tasks(tasks: Iterable[Task], encoder: Encoder) -> Iterator[Result]:
    """The result of each task, in order."""
    pending: deque[Future[list[Result]]] = deque()
    with ThreadPoolExecutor(encoder.workers, "encode") as pool:
        try:
            for chunk in batched(tasks, CHUNK):
                pending.append(pool.submit(_encode, chunk, encoder))
                if len(pending) > 2 * encoder.workers:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _encode(tasks: list[Task], encoder: Encoder) -> list[Result]:
    """Reads, decodes and encodes the photos of some tasks; runs in a worker."""
    results: list[Result | None] = [None] * len(tasks)
    waiting: list[tuple[int, str]] = []
    pixels = []
    for place, task in enumerate(tasks):
        try:
            content = read_bytes(task.item.image)
            content_hash = hashlib.blake2b(content, digest_size=16).hexdigest()
            if task.stored is not None and _is_same_photo(task, content_hash):
                outcome = UNCHANGED if task.stored["metadata_key"] == metadata_key(task.item) else RELABELLED
                results[place] = Result(outcome, _row(task, content_hash, task.stored["embedding"]))
                continue
            pixels.append(read_pixels(content, encoder.card.image_size, box=task.item.box))
            waiting.append((place, content_hash))
        except ImageError as error:
            results[place] = Result(FAILED, failure_of(task.item, error.reason))
    if pixels:
        for (place, content_hash), embedding in zip(waiting, encoder.encode(np.stack(pixels)), strict=True):
            outcome = ADDED if tasks[place].stored is None else CHANGED
            results[place] = Result(outcome, _row(tasks[place], content_hash, embedding))
    return [result for result in results if result is not None]


def _is_same_photo(task: Task, content_hash: str) -> bool:
    assert task.stored is not None
    box = None if task.stored["box"] is None else Box(*task.stored["box"])
    return bool(task.stored["content_hash"] == content_hash and box == task.item.box)


def _row(task: Task, content_hash: str, embedding: Any) -> Row:
    return Row(task.item, content_hash, task.fingerprint.file_size, task.fingerprint.file_mtime_ns, embedding)


def failure_of(item: CatalogItem, reason: str) -> Failure:
    """The line of the failures list for an item whose photo is not taken in."""
    source = str(item.image) if isinstance(item.image, Path) else f"the photo of item {item.item_id}"
    return Failure(source, reason, item.item_id, item.source_row)


def batched(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of `size` values, the last one shorter; itertools has it from Python 3.12 on."""
    iterator = iter(values)
    while batch := list(islice(iterator, size)):
        yield batch
