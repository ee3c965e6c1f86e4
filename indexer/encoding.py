"""Encoding: photos to embeddings, read, decoded and encoded side by side, in the order they came.

The work runs in as many threads as the encoder keeps busy (each releases the interpreter's lock for nearly all of its
time), a chunk of photos at a time. A few chunks at most are under way, so memory does not grow with the catalog.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from data.catalog import CatalogItem
from data.images import ImageError, read_bytes, read_pixels
from indexer.failures import Failure
from indexer.manifest import Fingerprint
from indexer.rows import Row, box_of, content_hash_of, labels_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.encoders import Encoder

_T = TypeVar("_T")

# Photos that a worker decodes and encodes together: enough to hide the cost of a call, few enough to stay in cache.
CHUNK = 16

# Photos of a batch that one core encodes at a time in `encode_across`: few, so that all cores end together, and a
# multiple of what OpenVINO infers together, so that the embeddings are those of one core to the last bit.
_SHARE = 4

# What became of an item.
ADDED, CHANGED, RELABELLED, UNCHANGED, FAILED = "added", "changed", "relabelled", "unchanged", "failed"
# What `examine` wants to know of an item that the gallery holds; its embedding beside it.
STORED_COLUMNS = (
    *("image", "targets", "labels", "box"),
    *("content_hash", "file_size", "file_mtime_ns", "metadata_key", "corrected"),
)


@dataclass(frozen=True, slots=True)
class Task:
    """An item whose photo may have to be encoded, and what the gallery holds of it (None for a new item)."""

    item: CatalogItem
    fingerprint: Fingerprint
    stored: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a task: its outcome, and a row to store or a failure."""

    outcome: str
    row: Row | Failure


def examine(task: Task, *, trust_times: bool = True) -> Result | Task:
    """What became of an item that the gallery holds, if that can be told without encoding; else the task.

    Args:
        task: With the STORED_COLUMNS and the embedding.
        trust_times: Whether a file of the same path, size and modification time is taken for the same, unread.
    """
    stored = task.stored
    assert stored is not None
    try:
        if trust_times and _has_same_file(task, stored):
            content_hash = stored["content_hash"]
        else:
            content_hash = content_hash_of(read_bytes(task.item.image))
    except ImageError as error:
        return Result(FAILED, failure_of(task.item, error.reason))
    if content_hash != stored["content_hash"] or box_of(stored["box"]) != task.item.box:
        return task
    is_same_record = stored["metadata_key"] == task.fingerprint.metadata_key
    return Result(UNCHANGED if is_same_record else RELABELLED, _row(task, content_hash, stored["embedding"]))


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


@contextmanager
def encode_across(encoder: Encoder, cores: int) -> Iterator[Callable[[NDArray[np.uint8]], NDArray[np.float32]]]:
    """An `encode` that spreads a batch over cores, for as long as the block lasts; the embeddings are the same.

    One call of OpenVINO's `encode` keeps one core busy. One of torch keeps all busy, and is left as it is.

    Args:
        encoder: What encodes.
        cores: Threads that encode side by side.
    """
    if encoder.card.runtime != "openvino" or cores < 2:
        yield encoder.encode
        return
    with ThreadPoolExecutor(cores, "encode") as pool:

        def encode(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            parts = [pixels[start : start + _SHARE] for start in range(0, len(pixels), _SHARE)]
            return np.concatenate(list(pool.map(encoder.encode, parts)))

        yield encode


def _encode(tasks: list[Task], encoder: Encoder) -> list[Result]:
    """Reads, decodes and encodes the photos of some tasks; runs in a worker."""
    results: list[Result | None] = [None] * len(tasks)
    waiting: list[tuple[int, str]] = []
    pixels = []
    for place, task in enumerate(tasks):
        try:
            content = read_bytes(task.item.image)
            pixels.append(read_pixels(content, encoder.card.image_size, box=task.item.box))
            waiting.append((place, content_hash_of(content)))
        except ImageError as error:
            results[place] = Result(FAILED, failure_of(task.item, error.reason))
    if pixels:
        for (place, content_hash), embedding in zip(waiting, encoder.encode(np.stack(pixels)), strict=True):
            outcome = ADDED if tasks[place].stored is None else CHANGED
            results[place] = Result(outcome, _row(tasks[place], content_hash, embedding))
    return [result for result in results if result is not None]


def _has_same_file(task: Task, stored: dict[str, Any]) -> bool:
    seen = (str(task.item.image), task.fingerprint.file_size, task.fingerprint.file_mtime_ns)
    return seen[2] != 0 and seen == (stored["image"], stored["file_size"], stored["file_mtime_ns"])


def _row(task: Task, content_hash: str, embedding: Any) -> Row:
    item, fingerprint = task.item, task.fingerprint
    corrected = tuple((task.stored or {}).get("corrected") or ())
    if corrected:
        assert task.stored is not None
        by_hand = labels_of(task.stored)
        labels = {target: names for target, names in item.labels.items() if target not in corrected}
        item = replace(item, labels=labels | {target: by_hand[target] for target in corrected if target in by_hand})
    size, mtime = fingerprint.file_size, fingerprint.file_mtime_ns
    return Row(item, content_hash, size, mtime, embedding, fingerprint.metadata_key, corrected)


def failure_of(item: CatalogItem, reason: str) -> Failure:
    """The line of the failures list for an item whose photo is not taken in."""
    source = str(item.image) if isinstance(item.image, Path) else f"the photo of item {item.item_id}"
    return Failure(source, reason, item.item_id, item.source_row)


def batched(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of `size` values, the last one shorter; itertools has it from Python 3.12 on."""
    iterator = iter(values)
    while batch := list(islice(iterator, size)):
        yield batch
