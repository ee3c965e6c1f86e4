"""Comparison of two encoders on one gallery: whose neighbours are right more often. Definitions in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.exact import merge, smallest
from indexer.filters import LabelIndex
from indexer.retrieval_metrics import hit_at_k, index_recall_at_k, summarise_metric
from indexer.rows import labels_of
from indexer.snapshot import batch_embeddings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.snapshot import Snapshot

QUERIES = 2_000
NEIGHBOURS = 10
# Queries below which a target decides nothing: a bootstrap over fewer values says little of others.
LEAST_QUERIES = 30
# A target most of whose labels stand on one product alone (a title, a stock number) decides nothing either.
LEAST_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class TargetComparison:
    """How often the first neighbour shares the query's label of one target, under both encoders.

    Args:
        queries: Queries that count: another product has their label too.
        queries_with_label: Queries that have a label.
        hit_rate_at_1_old: Under the old encoder, 0..1; None where no query counts.
        hit_rate_at_1_new: Under the new one.
        difference: New less old, -1..1.
        difference_low: Lower end of the 95 % interval of the difference.
        difference_high: Upper end.
        decides: Whether there are queries enough to tell.
    """

    queries: int
    queries_with_label: int
    hit_rate_at_1_old: float | None
    hit_rate_at_1_new: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    decides: bool

    @property
    def is_worse(self) -> bool:
        """Whether the new encoder is worse beyond chance."""
        return self.decides and self.difference_high is not None and self.difference_high < 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two encoders on the same items.

    Args:
        queries: Items that were asked with, one a product.
        neighbour_overlap_at_10: Share of the old encoder's ten neighbours that the new one has too, 0..1.
        neighbour_overlap_at_10_low: Lower end of its 95 % interval.
        neighbour_overlap_at_10_high: Upper end.
        by_target: Hit rates by target.
        verdict: `worse` in at least one target that decides, `not worse`, or `unknown` where none decides.
    """

    queries: int
    neighbour_overlap_at_10: float | None
    neighbour_overlap_at_10_low: float | None
    neighbour_overlap_at_10_high: float | None
    by_target: Mapping[str, TargetComparison]
    verdict: str


@dataclass(frozen=True, slots=True)
class _Shared:
    """The C items that both snapshots hold.

    Args:
        old_rows: (C,) their rows in the old snapshot.
        new_rows: (C,) their rows in the new one.
        products: (C,) a number for each product; an item without one is its own.
    """

    old_rows: NDArray[np.int64]
    new_rows: NDArray[np.int64]
    products: NDArray[np.int64]


def compare(old: Snapshot, new: Snapshot, places: NDArray[np.int64]) -> Comparison:
    """Which of two snapshots has the better neighbours, by the labels of the old one.

    Items of the query's own product are no neighbours: photos of one thing are near each other under any encoder.

    Args:
        old: With the labels.
        new: The same items by another encoder.
        places: (N,) the row of `new` that each row of `old` is; -1 where it has none.
    """
    rows = np.flatnonzero(places >= 0)
    shared = _Shared(rows, places[rows], _products(old)[rows])
    queries = _sample(shared.products)
    near_old = _neighbours(old, shared.old_rows, shared.products, queries)
    near_new = _neighbours(new, shared.new_rows, shared.products, queries)
    overlap = summarise_metric(index_recall_at_k(near_new, near_old, NEIGHBOURS))
    by_target = _by_target(old, shared, queries, near_old[:, 0], near_new[:, 0])
    deciding = [target for target in by_target.values() if target.decides]
    is_worse = any(target.is_worse for target in deciding)
    return Comparison(
        queries=len(queries),
        neighbour_overlap_at_10=_rounded(overlap.mean),
        neighbour_overlap_at_10_low=_rounded(overlap.low),
        neighbour_overlap_at_10_high=_rounded(overlap.high),
        by_target=by_target,
        verdict="worse" if is_worse else "not worse" if deciding else "unknown",
    )


def _products(snapshot: Snapshot) -> NDArray[np.int64]:
    column = snapshot.columns("product_id").column(0).combine_chunks()
    codes: NDArray[np.int64] = column.dictionary_encode().indices.fill_null(-1).to_numpy().astype(np.int64)
    return np.where(codes < 0, len(codes) + np.arange(len(codes)), codes)


def _sample(products: NDArray[np.int64]) -> NDArray[np.int64]:
    """Queries, ascending, one a product: photos of one product are not independent of each other."""
    shuffled = np.random.default_rng(0).permutation(len(products))
    _, first = np.unique(products[shuffled], return_index=True)
    # In the order of the shuffle, so that a cut leaves no kind of product out.
    return np.sort(shuffled[np.sort(first)[:QUERIES]])


def _neighbours(
    snapshot: Snapshot, rows: NDArray[np.int64], products: NDArray[np.int64], queries: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The ten nearest shared items of other products, (Q, 10), -1 where there are fewer; exact, a batch at a time."""
    near = np.full((len(queries), NEIGHBOURS), -1, np.int64), np.full((len(queries), NEIGHBOURS), np.inf, np.float32)
    if not len(queries):
        return near[0]
    number_of = np.full(len(snapshot), -1, np.int64)
    number_of[rows] = np.arange(len(rows))
    vectors = snapshot.embeddings(rows[queries])
    start = 0
    for batch in snapshot.batches("embedding"):
        numbers = number_of[start : start + batch.num_rows]
        start += batch.num_rows
        numbers, matrix = numbers[numbers >= 0], batch_embeddings(batch)[numbers >= 0]
        if not len(numbers):
            continue
        # (Q, D) x (D, B) to (Q, B)
        distances = 1 - vectors @ matrix.T
        distances[products[queries][:, None] == products[numbers]] = np.inf
        columns = smallest(distances, min(NEIGHBOURS, len(numbers)))
        distances = np.take_along_axis(distances, columns, axis=1)
        near = merge([near, (np.where(np.isinf(distances), -1, numbers[columns]), distances)], NEIGHBOURS)
    return near[0]


def _by_target(
    old: Snapshot,
    shared: _Shared,
    queries: NDArray[np.int64],
    first_old: NDArray[np.int64],
    first_new: NDArray[np.int64],
) -> dict[str, TargetComparison]:
    asked, by_old, by_new = (_labels(old, shared.old_rows, numbers) for numbers in (queries, first_old, first_new))
    targets = sorted({target for labels in asked for target in labels})
    index, is_shared = LabelIndex(old), np.zeros(len(old), bool)
    is_shared[shared.old_rows] = True
    product_of = np.zeros(len(old), np.int64)
    product_of[shared.old_rows] = shared.products
    compared = {}
    for target in targets:
        known = {label for labels in asked for label in labels.get(target, ())}
        postings = index.labels_of(target)
        products = {label: product_of[rows[is_shared[rows]]] for label, rows in postings.items() if label in known}
        common = {label for label, numbers in products.items() if np.ptp(numbers) > 0}
        counts = np.array([bool(common.intersection(labels.get(target, ()))) for labels in asked])
        with_label = sum(bool(labels.get(target)) for labels in asked)
        compared[target] = _compare_hits(
            _hits(target, asked, by_old)[counts], _hits(target, asked, by_new)[counts], with_label
        )
    return compared


def _labels(old: Snapshot, rows: NDArray[np.int64], numbers: NDArray[np.int64]) -> list[dict[str, tuple[str, ...]]]:
    """The labels of shared items, (Q,); none where the number is -1."""
    found: list[dict[str, tuple[str, ...]]] = [{} for _ in numbers]
    known = np.flatnonzero(numbers >= 0)
    for place, record in zip(known, old.take(rows[numbers[known]], "targets", "labels"), strict=True):
        found[place] = labels_of(record)
    return found


def _hits(target: str, asked: list[dict[str, Any]], found: list[dict[str, Any]]) -> NDArray[np.float64]:
    """Whether each first neighbour shares the query's label, (Q,), 0 or 1."""
    right = [
        not set(one.get(target, ())).isdisjoint(other.get(target, ())) for one, other in zip(asked, found, strict=True)
    ]
    # (Q,) to (Q, 1)
    return hit_at_k(np.array(right, bool).reshape(-1, 1), 1)


def _compare_hits(old: NDArray[np.float64], new: NDArray[np.float64], with_label: int) -> TargetComparison:
    difference = summarise_metric(new - old)
    return TargetComparison(
        queries=len(old),
        queries_with_label=with_label,
        hit_rate_at_1_old=_rounded(summarise_metric(old).mean),
        hit_rate_at_1_new=_rounded(summarise_metric(new).mean),
        difference=_rounded(difference.mean),
        difference_low=_rounded(difference.low),
        difference_high=_rounded(difference.high),
        decides=len(old) >= LEAST_QUERIES and len(old) >= LEAST_SHARE * with_label,
    )


def _rounded(value: float) -> float | None:
    """A figure to four digits; None, which JSON has, where no query counts."""
    return None if np.isnan(value) else round(value, 4)
