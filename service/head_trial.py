"""Heads on trial: labelled photos that they were not fitted on, and what they say of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from data.catalog import Catalog, CatalogItem
from heads.checks import HeadError
from heads.comparator import ComparatorHead
from heads.conformal import COVERAGE
from heads.metrics import UNKNOWN
from heads.novelty import NEAREST
from indexer.encoding import Task, encode_tasks
from indexer.filters import SPLIT
from indexer.manifest import Fingerprint
from indexer.rows import Row, vector_key
from service.classification import distances_to_gallery, embed_items
from service.head_evaluation import HeadAnswers, TargetAnswers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heads.fitted import FittedHead
    from indexer.encoders import Encoder
    from indexer.gallery import Gallery

# Photos that are asked about one at a time, for the speed.
_TIMED = 50


@dataclass(frozen=True, slots=True)
class Queries:
    """Labelled photos with their embeddings.

    Args:
        items: The Q records.
        embeddings: (Q, D) float32.
        keys: (Q,) int64, their vector keys.
        found: (Q, k) rows of the gallery nearest to each, -1 where there are fewer.
        distances: (Q, k).
        failed: Photos that could not be read.
        others: By the fingerprint of each comparator's encoder, (Q, E) float32.
    """

    items: Sequence[CatalogItem]
    embeddings: NDArray[np.float32]
    keys: NDArray[np.int64]
    found: NDArray[np.int64]
    distances: NDArray[np.float32]
    failed: int
    others: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


def encode_queries(gallery: Gallery, catalog: Catalog, encoder: Encoder) -> Queries:
    """The photos of a catalog, encoded as the gallery's are; those that cannot be read are counted.

    Raises:
        HeadError: None can be read.
    """
    rows = list(catalog)
    tasks = (Task(row, Fingerprint.of(row)) for row in rows if isinstance(row, CatalogItem))
    encoded = [result.row for result in encode_tasks(tasks, encoder) if isinstance(result.row, Row)]
    if not encoded:
        raise HeadError(f"Heads are tried on photos; {catalog.root} has {len(rows)}, and none can be read.")
    embeddings = np.array([row.embedding for row in encoded], np.float32)
    keys = np.array([vector_key(row.item.item_id, row.embedding) for row in encoded], np.int64)
    found, distances = gallery.searcher.search(embeddings, NEAREST + 1)
    # A photo that the gallery holds is not its own neighbour.
    own = (found == gallery.rows_of_keys(keys)[:, None]) & (found >= 0)
    others = np.argsort(own, axis=1, kind="stable")[:, :NEAREST]
    found, distances = np.take_along_axis(found, others, axis=1), np.take_along_axis(distances, others, axis=1)
    return Queries([row.item for row in encoded], embeddings, keys, found, distances, len(rows) - len(encoded))


def test_queries(gallery: Gallery) -> Queries:
    """The gallery's own items of the split `test`, which no head is fitted on; their neighbours are the other items.

    Raises:
        HeadError: It has none.
    """
    tests = gallery.labels.labels_of(SPLIT).get("test") if SPLIT in gallery.labels.counts() else None
    if tests is None:
        raise HeadError(
            f"Gallery {gallery.folder} has no items of the split 'test'. Give labelled photos that are not in it: "
            f"--queries CATALOG"
        )
    others = np.setdiff1d(np.arange(len(gallery)), tests)
    embeddings = gallery.snapshot.embeddings(tests)
    keys = gallery.snapshot.columns("vector_key")["vector_key"].to_numpy()[tests]
    found, distances = gallery.searcher.search(embeddings, NEAREST, rows=others)
    return Queries(gallery.items(tests), embeddings, keys, found, distances, 0)


def encode_beside(gallery: Gallery, queries: Queries, encoders: Sequence[Encoder]) -> Queries:
    """The queries as comparators see them too; those whose photo cannot be read (any more) are left out and counted.

    Args:
        gallery: Where the photos are of queries that are its own items.
        queries: Encoded as the gallery's.
        encoders: Of the comparators, as service.comparators.encoders_of gives them; none changes nothing.

    Raises:
        HeadError: None can be read.
    """
    if not encoders:
        return queries
    # What a gallery keeps in memory of its items is without photos.
    items = [replace(item, image=item.image or gallery.photo_of(item.item_id)) for item in queries.items]
    reasons, embeddings = embed_items(items, encoders)
    kept = np.flatnonzero([reason is None for reason in reasons])
    if not len(kept):
        raise HeadError(f"A comparator is tried on photos; of {len(items)} none can be read. The first: {reasons[0]}")
    return Queries(
        items=[queries.items[int(row)] for row in kept],
        embeddings=queries.embeddings[kept],
        keys=queries.keys[kept],
        found=queries.found[kept],
        distances=queries.distances[kept],
        failed=queries.failed + len(items) - len(kept),
        others={encoder.card.fingerprint: part for encoder, part in zip(encoders, embeddings, strict=True)},
    )


def try_heads(gallery: Gallery, queries: Queries, heads: Sequence[FittedHead]) -> TargetAnswers:
    """What heads of one target say of the queries that have a label in it.

    Queries that a head was fitted on, the same photo under the same item_id, are left out.

    Raises:
        HeadError: No query is left, or heads know different labels.
    """
    card = heads[0].card
    known = (card.labels, card.multi_label)
    other = next((head.card for head in heads if (head.card.labels, head.card.multi_label) != known), None)
    if other is not None:
        is_trained = ComparatorHead.kind in (card.kind, other.kind)
        way_out = "Evaluate the comparator by itself." if is_trained else "Fit them again together."
        odd = ", ".join(sorted({*card.labels} ^ {*other.labels})[:5])
        raise HeadError(
            f"Heads of '{card.target}' are compared on the same labels; those of the {card.kind} head, of gallery "
            f"version {card.gallery_version}, and of the {other.kind} head, of version {other.gallery_version}, "
            f"differ in {odd or 'how many an item may have'}. {way_out}"
        )
    seen = np.unique(np.concatenate([head.keys for head in heads]))
    asked = np.flatnonzero([bool(item.labels.get(card.target)) for item in queries.items])
    rows = asked[~np.isin(queries.keys[asked], seen)]
    if not len(rows):
        fitted = ", and heads were fitted on all of these" if len(asked) else ""
        raise HeadError(
            f"Heads of '{card.target}' are tried on labelled photos that they were not fitted on; of "
            f"{len(queries.items)} photos {len(asked)} have a label in it{fitted}."
        )
    items = [queries.items[row] for row in rows]
    near = distances_to_gallery(queries.distances[rows])

    def embeddings_for(head: FittedHead) -> NDArray[np.float32]:
        return queries.others.get(head.card.encoder_fingerprint, queries.embeddings)[rows]

    return TargetAnswers(
        target=card.target,
        labels=card.labels,
        truth=truth_of(items, card.target, card.labels, multi_label=card.multi_label),
        true_names=tuple(", ".join(item.labels[card.target]) for item in items),
        items=items,
        gallery_counts={label: len(found) for label, found in gallery.labels.labels_of(card.target).items()},
        heads=tuple(answers_of(head, embeddings_for(head), near) for head in heads),
        neighbours=_neighbours_of(gallery, queries, rows),
    )


def truth_of(
    items: Sequence[CatalogItem], target: str, labels: Sequence[str], *, multi_label: bool
) -> NDArray[np.int64] | NDArray[np.bool_]:
    """What is true of labelled items: (Q,) class numbers, -1 for a label that is not among those; or (Q, C) bool."""
    number = {label: place for place, label in enumerate(labels)}
    if not multi_label:
        return np.array([number.get(item.labels[target][0], UNKNOWN) for item in items], np.int64)
    truth = np.zeros((len(items), len(labels)), bool)
    for line, item in zip(truth, items, strict=True):
        line[[number[name] for name in item.labels[target] if name in number]] = True
    return truth


def answers_of(
    fitted: FittedHead, embeddings: NDArray[np.float32], near: NDArray[np.float32] | None = None
) -> HeadAnswers:
    """What a fitted head says, and how fast.

    Args:
        fitted: The head.
        embeddings: (Q, D) float32, one or more, of the head's encoder.
        near: (Q,) of `distances_to_gallery`; None where it is not asked whether a photo is none of these.
    """
    answers = fitted.answer(embeddings, distances=near)
    card = asdict(fitted.card) | {"coverage": COVERAGE}
    if fitted.thresholds is not None:
        card["thresholds"] = fitted.thresholds.tolist()
    return HeadAnswers(
        kind=fitted.card.kind,
        probabilities=answers.probabilities,
        uncalibrated=answers.uncalibrated,
        predicted=answers.predicted,
        sets=answers.sets,
        none_of_these=answers.none_of_these,
        milliseconds=_milliseconds(fitted, embeddings, near),
        card=card,
    )


def _milliseconds(fitted: FittedHead, embeddings: NDArray[np.float32], near: NDArray[np.float32] | None) -> float:
    """The median time of an answer about one photo."""
    times = []
    for row in range(min(_TIMED, len(embeddings))):
        distances = None if near is None else near[row : row + 1]
        started = time.perf_counter()
        fitted.answer(embeddings[row : row + 1], distances=distances)
        times.append(time.perf_counter() - started)
    return float(np.median(times) * 1000)


def _neighbours_of(
    gallery: Gallery, queries: Queries, rows: NDArray[np.int64]
) -> Callable[[int], Sequence[tuple[CatalogItem, float]]]:
    def neighbours(number: int) -> Sequence[tuple[CatalogItem, float]]:
        found, distances = queries.found[rows[number]], queries.distances[rows[number]]
        kept = found >= 0
        return list(zip(gallery.items(found[kept]), distances[kept].tolist(), strict=True))

    return neighbours
