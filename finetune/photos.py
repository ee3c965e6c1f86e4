"""Photos to train on and to validate with: which they are, what is true of them, and their pixels in time."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from data.catalog import CatalogItem
from data.images import ImageError
from data.splits import assign_split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune.recipe import Recipe

# Reads the pixels, (S, S, 3) uint8, of row number r.
Reader = Callable[[int], "NDArray[np.uint8]"]
# Batches that are read while the network works on one.
_AHEAD = 3


class DivisionError(ValueError):
    """A catalog that a comparator cannot be trained on."""


@dataclass(frozen=True, slots=True)
class PhotoSet:
    """Photos and their labels.

    Args:
        items: Of N photos.
        y: By target (N,) class numbers, -1 where a photo has no label that is learned.
    """

    items: tuple[CatalogItem, ...]
    y: Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Division:
    """A catalog as training has it.

    Args:
        train: What is learned from.
        validation: What decides which epoch is the best.
        targets: By target the labels that are learned, in class order.
        rare: By target the labels with too few training photos, and how many each had.
        left_out: Photos beyond a limit, of the split `test`, or without any label that is learned.
    """

    train: PhotoSet
    validation: PhotoSet
    targets: Mapping[str, tuple[str, ...]]
    rare: Mapping[str, Mapping[str, int]]
    left_out: int


def divide(
    items: Iterable[CatalogItem], targets: Sequence[str], recipe: Recipe, *, limit: int | None = None
) -> Division:
    """The photos of a catalog that teach and those that validate.

    A catalog's own split `validation` counts where it has one; elsewhere products are divided by a hash, so that all
    photos of a product are on one side. The split `test` is never looked at.

    Args:
        items: Of the catalog.
        targets: One or more.
        recipe: Its `validation`, `min_count` and `seed` count.
        limit: Photos that are taken at most, picked by a hash of their ids; None for all.

    Raises:
        DivisionError: No such target, several labels a photo, fewer than two labels to learn, or no photo to learn
            from or to validate with.
    """
    every = list(items)
    open_to_us = [item for item in every if item.split != "test"]
    if limit is not None:
        open_to_us = sorted(open_to_us, key=lambda item: _place(item.item_id, recipe.seed))[:limit]
    for target in targets:
        _check_target(target, every, open_to_us)
    has_validation = any(item.split == "validation" for item in open_to_us)
    sides: dict[str, list[CatalogItem]] = {"train": [], "validation": []}
    for item in open_to_us:
        sides[(item.split or "train") if has_validation else _side(item, recipe)].append(item)
    known, rare = {}, {}
    for target in targets:
        counts = Counter(name for item in sides["train"] for name in item.labels.get(target, ()))
        known[target] = tuple(sorted(name for name, count in counts.items() if count >= recipe.min_count))
        rare[target] = {name: count for name, count in sorted(counts.items()) if count < recipe.min_count}
        if len(known[target]) < 2:
            raise DivisionError(
                f"A comparator tells two labels or more apart; '{target}' has {len(known[target])} with "
                f"{recipe.min_count} training photos or more ({', '.join(known[target]) or 'none'}). Train on more "
                "photos, or on another target."
            )
    train, validation = (_photo_set(sides[side], known) for side in ("train", "validation"))
    for target in targets:
        if not (validation.y[target] >= 0).any():
            raise DivisionError(
                f"No validation photo has a label of '{target}' that is learned; of {len(open_to_us)} photos "
                f"{len(sides['validation'])} validate. Give the catalog a split column with `validation`, or a "
                "larger share (--set validation=0.2)."
            )
    return Division(train, validation, known, rare, len(every) - len(train.items) - len(validation.items))


def _check_target(target: str, every: Sequence[CatalogItem], items: Sequence[CatalogItem]) -> None:
    """Raises DivisionError unless some photo has the target, and none several labels in it."""
    if not any(item.labels.get(target) for item in items):
        names = ", ".join(sorted({name for item in every for name in item.labels})) or "none"
        raise DivisionError(f"No photo to train on has a label in '{target}'; the catalog's targets are {names}.")
    several = next((item for item in items if len(item.labels.get(target, ())) > 1), None)
    if several is not None:
        raise DivisionError(
            f"A comparator gives one label a photo in each target; '{several.item_id}' has several in '{target}' "
            f"({', '.join(several.labels[target])}). Heads of `modiste fit` learn such targets."
        )


def _place(name: str, seed: int) -> bytes:
    # Not the hash that divides products: the first by that one are all on one side.
    return hashlib.blake2b(f"limit {seed}:{name}".encode(), digest_size=8).digest()


def _side(item: CatalogItem, recipe: Recipe) -> str:
    fractions = {"train": 1 - recipe.validation, "validation": recipe.validation}
    return assign_split(item.product_id or item.item_id, fractions=fractions, seed=recipe.seed)


def _photo_set(items: Iterable[CatalogItem], known: Mapping[str, Sequence[str]]) -> PhotoSet:
    """The photos that have a label to learn, and their class numbers."""
    numbers = {target: {name: number for number, name in enumerate(names)} for target, names in known.items()}
    kept, rows = [], []
    for item in items:
        row = [numbers[target].get(next(iter(item.labels.get(target, ())), ""), -1) for target in known]
        if max(row) >= 0:
            kept.append(item)
            rows.append(row)
    table = np.array(rows, np.int64).reshape(len(rows), len(known))
    return PhotoSet(tuple(kept), {target: table[:, place].copy() for place, target in enumerate(known)})


@dataclass(slots=True)
class Loader:
    """Reads photos in threads, ahead of the network.

    Args:
        threads: 1 or more.

    Attributes:
        unreadable: By item_id, why a photo could not be read; it is left out of its batch.
    """

    threads: int
    unreadable: dict[str, str] = field(default_factory=dict)

    def batches(
        self, items: Sequence[CatalogItem], batches: Iterable[NDArray[np.int64]], read: Reader
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
        """The rows that could be read, (B,), and their pixels, (B, S, S, 3) uint8, batch by batch.

        Args:
            items: Of N photos.
            batches: Of rows (B,) of them.
            read: Gives the pixels of a row; called in threads.
        """
        todo = iter(batches)
        pool = ThreadPoolExecutor(self.threads, "photos")

        def begun(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[Future[NDArray[np.uint8]]]]:
            return rows, [pool.submit(read, int(row)) for row in rows]

        try:
            ahead = deque(begun(rows) for rows in islice(todo, _AHEAD))
            while ahead:
                rows, futures = ahead.popleft()
                kept, pixels = [], []
                for row, future in zip(rows, futures, strict=True):
                    try:
                        pixels.append(future.result())
                        kept.append(row)
                    except ImageError as error:
                        self.unreadable[items[row].item_id] = error.reason
                ahead.extend(begun(rows) for rows in islice(todo, 1))
                yield np.array(kept, np.int64), np.stack(pixels) if kept else np.zeros((0, 1, 1, 3), np.uint8)
        finally:
            pool.shutdown(cancel_futures=True)


def epoch_order(y: NDArray[np.int64], recipe: Recipe, epoch: int) -> NDArray[np.int64]:
    """The rows of an epoch, (N,), in the order in which they are learned; always the same for an epoch.

    Args:
        y: (N,) class numbers of the first target, -1 without a label.
        recipe: Its `sampler` and `seed` count.
        epoch: From 1.
    """
    rng = np.random.default_rng([recipe.seed, epoch])
    if recipe.sampler == "plain":
        return rng.permutation(len(y))
    counts = np.bincount(y[y >= 0])
    # A photo without a label comes as often as in a plain order.
    shares = np.where(y >= 0, len(y) / (np.count_nonzero(counts) * counts[y]), 1.0)
    return rng.choice(len(y), len(y), p=shares / shares.sum())


def cut(rows: NDArray[np.int64], batch: int) -> list[NDArray[np.int64]]:
    """The rows in batches of nearly equal size, near `batch`: batch norm cannot take a last one of a single photo."""
    return np.array_split(rows, max(1, min(round(len(rows) / batch), len(rows) // 2)))
