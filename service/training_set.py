"""From a gallery to what heads are fitted on, and how far a gallery has moved on since."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from heads.checks import HeadError
from heads.comparator import ComparatorHead
from heads.fitting import Training
from heads.labels import MIN_COUNT, EncodedLabels, encode_labels, label_codes
from indexer.filters import SPLIT, FilterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heads.fitted import FittedHead
    from indexer.gallery import Gallery


def training_set(gallery: Gallery, target: str, *, min_count: int = MIN_COUNT) -> Training:
    """The labelled items of a gallery, those of the split `test` left out.

    Args:
        gallery: Where they are; nothing is encoded.
        target: Whose labels.
        min_count: Labels of fewer items are left out and reported.

    Raises:
        FilterError: The gallery has no such target; the message lists those that it has.
        HeadError: Fewer than two labels with enough items.
    """
    labels, rows = labelled_rows(gallery, target, min_count=min_count)
    return Training(
        embeddings=gallery.snapshot.embeddings()[rows],
        labels=labels,
        groups=product_groups(gallery)[rows],
        keys=gallery.snapshot.columns("vector_key")["vector_key"].to_numpy()[rows],
        encoder=gallery.card.name,
        encoder_fingerprint=gallery.card.fingerprint,
        gallery_version=gallery.snapshot.version,
    )


def labelled_rows(gallery: Gallery, target: str, *, min_count: int) -> tuple[EncodedLabels, NDArray[np.int64]]:
    """The labels that heads of a target learn, and the rows of the gallery that have them, (R,); no embedding is read.

    Raises:
        FilterError: The gallery has no such target.
        HeadError: Fewer than two labels with enough items.
    """
    names = label_names(gallery, target)
    usable = np.ones(len(names), bool)
    if SPLIT in gallery.labels.counts():
        usable[gallery.labels.labels_of(SPLIT).get("test", np.zeros(0, np.int64))] = False
    rows = np.flatnonzero(usable)
    labels = encode_labels(target, [names[row] for row in rows], min_count=min_count)
    return labels, rows[labels.rows]


def product_groups(gallery: Gallery) -> NDArray[np.str_]:
    """The product of each row, (N,); an item of no product is one by itself, whatever products are called."""
    stored = gallery.snapshot.columns("item_id", "product_id").to_pydict()
    pairs = zip(stored["item_id"], stored["product_id"], strict=True)
    return np.array([f"product {product}" if product else f"item {item}" for item, product in pairs], np.str_)


def label_names(gallery: Gallery, target: str) -> list[tuple[str, ...]]:
    """The labels of each row of a gallery in a target; empty where it has none.

    Raises:
        FilterError: The gallery has no such target.
    """
    names: list[tuple[str, ...]] = [()] * len(gallery)
    for label, rows in gallery.labels.labels_of(target).items():
        for row in rows:
            names[row] += (label,)
    return names


@dataclass(frozen=True, slots=True)
class Staleness:
    """How far a gallery has moved on since a head was fitted.

    Args:
        versions: Commits since.
        added: Labelled items that the head has not seen.
        removed: Items that it has seen and that are gone, or have another photo, or no label to learn.
        relabelled: Items whose label in the target is another now.
    """

    versions: int
    added: int
    removed: int
    relabelled: int

    @property
    def is_stale(self) -> bool:
        """Whether fitting again would see other data; a commit alone, such as a compaction, changes none."""
        return bool(self.added or self.removed or self.relabelled)

    def __str__(self) -> str:
        counts = {"added": self.added, "removed": self.removed, "relabelled": self.relabelled}
        parts = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        return f"stale by {self.versions} version{'' if self.versions == 1 else 's'}: {parts}" if parts else "fresh"


def staleness(fitted: FittedHead, gallery: Gallery) -> Staleness:
    """What has changed in a gallery since the head was fitted, item by item; a comparator was not fitted on it."""
    card = fitted.card
    version = gallery.snapshot.version
    if card.gallery_version == version or card.kind == ComparatorHead.kind:
        return Staleness(0, 0, 0, 0)
    try:
        labels, rows = labelled_rows(gallery, card.target, min_count=card.min_count)
    except (FilterError, HeadError):
        # Nothing is left that a head could be fitted on; this one still answers.
        return Staleness(version - card.gallery_version, 0, len(fitted.keys), 0)
    keys = gallery.snapshot.columns("vector_key")["vector_key"].to_numpy()[rows]
    codes = label_codes(labels.truth, labels.names)
    order = np.argsort(fitted.keys)
    places = order[np.searchsorted(fitted.keys, keys, sorter=order).clip(max=len(order) - 1)]
    known = fitted.keys[places] == keys
    relabelled = int(np.count_nonzero(fitted.codes[places[known]] != codes[known]))
    kept = int(np.count_nonzero(known))
    return Staleness(version - card.gallery_version, len(keys) - kept, len(order) - kept, relabelled)
