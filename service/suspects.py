"""Suspects: items whose label is disputed both by their neighbours and by a linear head, neither of which knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from heads.calibration import apply_temperature, fit_temperature
from heads.checks import HeadError
from heads.folds import assign_folds
from heads.head import BaseHead, fit_together, sampling_of
from heads.knn import KnnHead
from heads.linear import LinearHead
from heads.validation import one_thread, out_of_fold
from service.training_set import training_set

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from data.catalog import CatalogItem
    from indexer.gallery import Gallery


@dataclass(frozen=True, slots=True)
class Suspect:
    """An item whose label may be wrong.

    Args:
        item: The gallery's record.
        label: What it is labelled.
        probability: Mean calibrated probability of that label, 0..1.
        suggested: What both heads together say.
        suggested_probability: Mean calibrated probability of that, 0..1.
    """

    item: CatalogItem
    label: str
    probability: float
    suggested: str
    suggested_probability: float

    @property
    def margin(self) -> float:
        """How much likelier the suggestion is than the label, 0..1; suspects are ranked by it."""
        return self.suggested_probability - self.probability


def find_suspects(gallery: Gallery, target: str) -> list[Suspect]:
    """The items whose label is the likeliest neither for a kNN nor for a linear head, most disputed first.

    Each item is judged by heads that were fitted on other products only, in five folds. Items of labels that only one
    product has, and of the split `test`, are not judged.

    Args:
        gallery: Whose labels.
        target: Of one label an item.

    Raises:
        FilterError: The gallery has no such target.
        HeadError: Items have several labels in it, or there are too few labels or products.
    """
    training = training_set(gallery, target)
    labels = training.labels
    if labels.multi_label:
        raise HeadError(f"Suspects are looked for in targets with one label an item; items have several in '{target}'.")
    folds = assign_folds(labels.y, groups=training.groups)
    if not folds.any():
        raise HeadError(
            f"An item is judged by the labels of other products; all {len(folds)} labelled in '{target}' are of one."
        )
    heads: list[BaseHead] = [KnnHead(), LinearHead()]
    sampling = sampling_of(None)
    with one_thread():
        fit_together(heads, training.embeddings, labels.y, folds=folds, sampling=sampling)
        _, asked = out_of_fold(heads, training.embeddings, labels.y, folds=folds, sampling=sampling, enough=len(folds))
    said = [apply_temperature(p, fit_temperature(labels.truth, p, multi_label=False), multi_label=False) for p in asked]
    disputed = np.all([part.argmax(axis=1) != labels.y for part in said], axis=0)
    in_fold = np.zeros((len(labels.names), folds.max() + 1), bool)
    in_fold[labels.y, folds] = True
    # A head that has not learned the label cannot but dispute it.
    disputed &= (in_fold.sum(axis=1) > 1)[labels.y]
    mean: NDArray[np.float32] = np.mean(said, axis=0)
    given = mean[np.arange(len(mean)), labels.y]
    suggested = mean.argmax(axis=1)
    margins = mean.max(axis=1) - given
    # Both may dispute a label and yet disagree so much that it stays the likeliest.
    rows = np.flatnonzero(disputed & (margins > 0))
    rows = rows[np.argsort(-margins[rows], kind="stable")]
    items = gallery.items(gallery.rows_of_keys(training.keys[rows]))
    return [
        Suspect(
            item=item,
            label=labels.names[labels.y[row]],
            probability=float(given[row]),
            suggested=labels.names[suggested[row]],
            suggested_probability=float(mean[row, suggested[row]]),
        )
        for item, row in zip(items, rows, strict=True)
    ]
