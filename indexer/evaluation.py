"""How good the neighbours are: labelled queries against a gallery. Definitions in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from data.catalog import Catalog, CatalogItem
from indexer.encoding import Task, encode_tasks
from indexer.manifest import Fingerprint
from indexer.retrieval_metrics import (
    average_precision_at_k,
    hit_at_k,
    index_recall_at_k,
    ndcg_at_k,
    precision_at_k,
    summarise_metric,
)
from indexer.rows import Row
from indexer.searcher import Searcher

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.encoders import Encoder
    from indexer.gallery import Gallery

_QUERIES_AT_ONCE = 256


class EvaluationError(ValueError):
    """Queries that cannot be evaluated."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """Queries and how right their neighbours are: arrays of Q queries and K neighbours.

    Args:
        relevant: (Q, K, T) bool: whether a neighbour shares the query's label of each target.
        relevant_count: (Q, T + 1) right items in the gallery by target, and for all targets together.
        ideal: (Q, K) the largest shares of targets that any K items of the gallery reach, descending.
    """

    relevant: NDArray[np.bool_]
    relevant_count: NDArray[np.int64]
    ideal: NDArray[np.float64]


def evaluate_neighbours(
    gallery: Gallery, queries: Catalog, encoder: Encoder, targets: Sequence[str], *, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, Any]:
    """The quality of a gallery's neighbours, as flat, JSON-ready values.

    A neighbour is right where it shares the query's label in every target. A query with an item_id of the gallery is
    not its own neighbour, so a catalog can be evaluated against itself. Queries without a label in one of the targets
    are left out and counted.

    Args:
        gallery: What is searched.
        queries: Labelled photos.
        encoder: The gallery's encoder.
        targets: Targets that make a neighbour right.
        ks: Numbers of neighbours, ascending.

    Raises:
        EvaluationError: No query has labels in all targets.
        FilterError: The gallery has none of the targets.
    """
    for target in targets:
        gallery.labels.labels_of(target)
    items, embeddings, unlabelled, failed = _encode_queries(queries, encoder, targets)
    if not items:
        raise EvaluationError(
            f"No query of {queries.root} has a label in each of {', '.join(targets)}: "
            f"{unlabelled} lack one and {failed} could not be read."
        )
    judged, recall = _judge(gallery, items, embeddings, targets, max(ks))
    every: NDArray[np.bool_] = np.all(judged.relevant, axis=2)
    figures = _figures(every, judged.relevant_count[:, -1], ks)
    gains = judged.relevant.mean(axis=2)
    for k in ks:
        figures |= _with_interval(f"ndcg_at_{k}", ndcg_at_k(gains, judged.ideal, k))
    return {
        "queries": len(items),
        "queries_without_labels": unlabelled,
        "queries_failed": failed,
        "gallery_items": len(gallery),
        "relevant": list(targets),
        **figures,
        f"index_recall_at_{max(ks)}": recall,
        "by_target": {
            target: _figures(judged.relevant[:, :, number], judged.relevant_count[:, number], ks)
            for number, target in enumerate(targets)
        },
    }


def _encode_queries(
    queries: Catalog, encoder: Encoder, targets: Sequence[str]
) -> tuple[list[CatalogItem], NDArray[np.float32], int, int]:
    """The queries with labels in all targets, their embeddings (Q, D), and how many lack a label or failed."""
    rows = list(queries)
    items = [row for row in rows if isinstance(row, CatalogItem)]
    labelled = [item for item in items if all(item.labels.get(target) for target in targets)]
    results = [result.row for result in encode_tasks((Task(item, Fingerprint.of(item)) for item in labelled), encoder)]
    encoded = [row for row in results if isinstance(row, Row)]
    embeddings = np.array([row.embedding for row in encoded], np.float32).reshape(len(encoded), encoder.card.dimension)
    failed = len(rows) - len(items) + len(labelled) - len(encoded)
    return [row.item for row in encoded], embeddings, len(items) - len(labelled), failed


def _judge(
    gallery: Gallery, items: list[CatalogItem], embeddings: NDArray[np.float32], targets: Sequence[str], k: int
) -> tuple[_Judged, float]:
    """The neighbours of all queries against their labels, and the mean index recall."""
    own = gallery.rows_of([item.item_id for item in items])
    oracle = gallery.searcher if gallery.searcher.variant == "exact" else Searcher(gallery.snapshot)
    judged, recalls = [], []
    for start in range(0, len(items), _QUERIES_AT_ONCE):
        part = slice(start, start + _QUERIES_AT_ONCE)
        found = gallery.searcher.search(embeddings[part], k + 1)[0]
        exact = found if oracle is gallery.searcher else oracle.search(embeddings[part], k + 1)[0]
        found, exact = _without(found, own[part]), _without(exact, own[part])
        recalls.append(index_recall_at_k(found, exact, k))
        judged += [
            _judge_one(gallery, item, int(row), neighbours, targets)
            for item, row, neighbours in zip(items[part], own[part], found, strict=True)
        ]
    relevant, counts, ideal = (np.array(column) for column in zip(*judged, strict=True))
    return _Judged(relevant, counts, ideal), round(float(np.nanmean(np.concatenate(recalls))), 4)


def _judge_one(
    gallery: Gallery, item: CatalogItem, own: int, neighbours: NDArray[np.int64], targets: Sequence[str]
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.float64]]:
    """One query's line of each array of _Judged."""
    shared = np.zeros((len(gallery), len(targets)), bool)
    for number, target in enumerate(targets):
        # A label that the gallery lacks is shared by none.
        labels = tuple(label for label in item.labels[target] if label in gallery.labels.labels_of(target))
        if labels:
            shared[gallery.labels.rows({target: labels}), number] = True
    if own >= 0:
        shared[own] = False
    relevant = shared[neighbours] & (neighbours >= 0)[:, None]
    counts = np.append(shared.sum(axis=0), shared.all(axis=1).sum())
    # How many items of the gallery share 0, 1, ... T labels, from the most down.
    by_count = np.bincount(shared.sum(axis=1), minlength=len(targets) + 1)[::-1]
    best = np.repeat(np.arange(len(targets), -1, -1), np.minimum(by_count, len(neighbours)))[: len(neighbours)]
    ideal = np.zeros(len(neighbours))
    ideal[: len(best)] = best / len(targets)
    return relevant, counts, ideal


def _without(found: NDArray[np.int64], own: NDArray[np.int64]) -> NDArray[np.int64]:
    """(Q, K + 1) rows without each query's own, (Q, K)."""
    # -1 stands for a query that is not in the gallery and for padding; the padding stays.
    keep = (found != own[:, None]) | (found < 0)
    # Where the query was not among them, the last one goes.
    keep[keep.all(axis=1), -1] = False
    # (Q * K,) to (Q, K)
    rows: NDArray[np.int64] = found[keep].reshape(len(found), -1)
    return rows


def _figures(
    relevant: NDArray[np.bool_], relevant_count: NDArray[np.int64], ks: Sequence[int]
) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    for k in ks:
        figures |= _with_interval(f"hit_rate_at_{k}", hit_at_k(relevant, k))
        figures |= _with_interval(f"precision_at_{k}", precision_at_k(relevant, k))
    return figures | _with_interval(f"map_at_{max(ks)}", average_precision_at_k(relevant, relevant_count, max(ks)))


def _with_interval(name: str, values: NDArray[np.float64]) -> dict[str, float | None]:
    """The mean and its interval; None, which JSON has, where no query counts."""
    summary = summarise_metric(values)
    figures = {name: summary.mean, f"{name}_low": summary.low, f"{name}_high": summary.high}
    return {key: None if np.isnan(value) else round(value, 4) for key, value in figures.items()}
