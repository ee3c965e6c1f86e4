"""Label names to class numbers: which labels there is enough of to learn, and what is said of the rest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.checks import HeadError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Fewer photos than this of a label cannot be learned and checked too.
MIN_COUNT = 2


@dataclass(frozen=True, slots=True)
class EncodedLabels:
    """The labels of a target as numbers.

    Args:
        target: The column that they come from.
        names: (C,) label names in order; the class number is the place.
        rows: (N,) int64, which of the items are left: those with a label that is not rare.
        y: (N,) int64 class numbers, or (N, C) bool where an item has several labels.
        rare: Labels that were left out, and how many items have each.
        unlabelled: Items without a label in the target.
        min_count: Labels of fewer items were rare.
    """

    target: str
    names: tuple[str, ...]
    rows: NDArray[np.int64]
    y: NDArray[Any]
    rare: Mapping[str, int]
    unlabelled: int
    min_count: int

    @property
    def multi_label(self) -> bool:
        """Whether an item may have several labels."""
        return self.y.ndim == 2

    @property
    def truth(self) -> NDArray[np.bool_]:
        """(N, C) bool, whatever the target."""
        return self.y if self.multi_label else np.arange(len(self.names)) == self.y[:, None]


def encode_labels(target: str, labels: Sequence[tuple[str, ...]], *, min_count: int = MIN_COUNT) -> EncodedLabels:
    """The labels of a target as numbers. A label named `NA` is a label; none at all is not one.

    Args:
        target: Its name, for messages.
        labels: Of each item the names; empty where it has none. A target is multi-label where an item has several.
        min_count: Labels of fewer items are left out and reported, 1 or more.

    Raises:
        HeadError: No item has a label, or fewer than two labels are left.
    """
    if min_count < 1:
        raise HeadError(f"'min_count' is a number of photos, 1 or more; got {min_count}.")
    counts = Counter(name for names in labels for name in set(names))
    kept = sorted(name for name, count in counts.items() if count >= min_count)
    if len(kept) < 2:
        known = ", ".join(f"{name} ({count})" for name, count in counts.most_common(5)) or "none"
        raise HeadError(
            f"A head tells labels apart: target '{target}' needs two labels or more with {min_count} photos each; "
            f"{len(labels)} items have {known}."
        )
    number = {name: place for place, name in enumerate(kept)}
    multi_label = any(len(set(names)) > 1 for names in labels)
    truth = np.zeros((len(labels), len(kept)), bool)
    for row, names in enumerate(labels):
        truth[row, [number[name] for name in names if name in number]] = True
    rows = np.flatnonzero(truth.any(axis=1))
    y = truth[rows] if multi_label else truth[rows].argmax(axis=1)
    rare = {name: count for name, count in sorted(counts.items()) if name not in number}
    return EncodedLabels(target, tuple(kept), rows, y, rare, sum(not names for names in labels), min_count)


def label_codes(truth: NDArray[np.bool_], names: Sequence[str]) -> NDArray[np.int64]:
    """A number, (N,) int64, for the labels of each row, which changes when they do, whatever other labels there are.

    Args:
        truth: (N, C) bool.
        names: (C,) label names.
    """
    digests = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names]
    numbers = np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)
    codes = np.zeros(len(truth), np.uint64)
    for column, number in zip(truth.T, numbers, strict=True):
        # Sums wrap around; the order of labels is of no account.
        codes[column] += number
    return codes.view(np.int64)
