"""What is this: labels for photos by a gallery's heads, with how sure they are and what speaks for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from data.catalog import BadRow, CatalogItem
from heads.checks import HeadError
from heads.conformal import COVERAGE
from heads.groups import DEFAULT_GROUPS, is_known, label_factors
from heads.novelty import NEAREST, REJECTED
from indexer.encoding import Task, batched, encode_tasks
from indexer.gallery import Neighbour
from indexer.manifest import Fingerprint
from indexer.rows import Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heads.fitted import FittedHead
    from heads.knn import Votes
    from indexer.encoders import Encoder
    from indexer.gallery import Gallery

# Photos that are answered together.
_BATCH = 64
# Neighbours and votes that are given unless told.
EVIDENCE = 5


@dataclass(frozen=True, slots=True)
class ClassifyOptions:
    """What is asked of heads.

    Args:
        top: Labels in an answer, most likely first, 1 or more.
        allowed: Names of labels or groups; none allows all. A name counts for the targets whose heads know it.
        weights: By name of label or group, 0 or more; likewise.
        groups: Label groups by name.
        coverage: Of the prediction sets, above 0 and below 1.
        evidence: Gallery items given as neighbours, and as votes of kNN, 0 or more.
    """

    top: int = 3
    allowed: Sequence[str] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: DEFAULT_GROUPS)
    coverage: float = COVERAGE
    evidence: int = EVIDENCE

    def __post_init__(self) -> None:
        """Raises:
        HeadError: A number out of its range.
        """
        if self.top < 1 or self.evidence < 0:
            raise HeadError(f"'top' is 1 or more, 'evidence' 0 or more; got {self.top} and {self.evidence}.")


@dataclass(frozen=True, slots=True)
class Vote:
    """A training photo that voted in a kNN head.

    Args:
        item: The gallery's record.
        similarity: Cosine in the head's own scaling, -1..1.
        weight: Share of the vote, 0..1.
    """

    item: CatalogItem
    similarity: float
    weight: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one head says of one photo.

    Args:
        target: What it predicts.
        head: Its kind.
        predicted: The label; none where it is none of these; each that is likely enough where an item may have several.
        labels: The likeliest, each with its probability 0..1, falling.
        prediction_set: Labels that hold the true one with the coverage asked for; None for several labels an item.
        familiarity: Share of known photos that look at least as strange, 0..1; None for several labels an item.
        votes: The training photos that weighed most, where kNN has a say.
    """

    target: str
    head: str
    predicted: tuple[str, ...]
    labels: tuple[tuple[str, float], ...]
    prediction_set: tuple[str, ...] | None
    familiarity: float | None
    votes: tuple[Vote, ...]

    @property
    def none_of_these(self) -> bool:
        """Whether the photo looks stranger than 95 % of those that the head knows."""
        return self.familiarity is not None and self.familiarity < REJECTED


@dataclass(frozen=True, slots=True)
class Classified:
    """One photo's answer.

    Args:
        photo: What was asked about: its path, or how the catalog names it.
        reason: Why there is no answer; None where there is one.
        predictions: One a head.
        neighbours: The nearest items of the gallery.
    """

    photo: str
    reason: str | None
    predictions: tuple[Prediction, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()


class Classifier:
    """Asks fitted heads about photos.

    Args:
        gallery: Whose heads they are; it gives the evidence.
        heads: Stored with it, of one target or several.
        options: What is asked.

    Raises:
        HeadError: A label, group or weight that no head knows.
    """

    def __init__(self, gallery: Gallery, heads: Sequence[FittedHead], options: ClassifyOptions) -> None:
        self._gallery, self._heads, self._options = gallery, heads, options
        self._factors = [_factors(head, heads, options) for head in heads]

    def classify(
        self, rows: Iterable[CatalogItem | BadRow], encoder: Encoder, others: Sequence[Encoder] = ()
    ) -> Iterator[Classified]:
        """The answer to each photo, in order; one that cannot be read has a reason instead.

        Args:
            rows: Photos, as a catalog gives them.
            encoder: The gallery's.
            others: The comparators', as service.comparators.encoders_of gives them.
        """
        for batch in batched(rows, _BATCH):
            items = [row for row in batch if isinstance(row, CatalogItem)]
            reasons, embeddings = embed_items(items, (encoder, *others))
            own, *beside = embeddings
            by_encoder = {one.card.fingerprint: part for one, part in zip(others, beside, strict=True)}
            answers = iter(self.ask(own, by_encoder) if len(own) else [])
            reasons_of_items = iter(reasons)
            for row in batch:
                if isinstance(row, BadRow):
                    yield Classified(str(row.source), row.reason)
                elif (reason := next(reasons_of_items)) is not None:
                    yield Classified(row.item_id, reason)
                else:
                    yield Classified(row.item_id, None, *next(answers))

    def ask(
        self, embeddings: NDArray[np.float32], others: Mapping[str, NDArray[np.float32]] = MappingProxyType({})
    ) -> list[tuple[tuple[Prediction, ...], tuple[Neighbour, ...]]]:
        """Predictions and neighbours for B photos.

        Args:
            embeddings: (B, D) of unit length, of the gallery's encoder.
            others: The same photos' (B, E) of each comparator's encoder, by its fingerprint.
        """
        wanted = max(NEAREST, self._options.evidence)
        found, distances = self._gallery.searcher.search(embeddings, wanted)
        near = distances_to_gallery(distances)
        of_encoder = {self._gallery.card.fingerprint: embeddings, **others}
        by_head = [
            self._predict(head, factors, of_encoder[head.card.encoder_fingerprint], near)
            for head, factors in zip(self._heads, self._factors, strict=True)
        ]
        neighbours = self._neighbours(found[:, : self._options.evidence], distances)
        return list(zip(zip(*by_head, strict=True), neighbours, strict=True))

    def _predict(
        self,
        fitted: FittedHead,
        factors: NDArray[np.float32],
        embeddings: NDArray[np.float32],
        near: NDArray[np.float32],
    ) -> list[Prediction]:
        found = fitted.votes(embeddings)
        coverage = self._options.coverage
        answers = fitted.answer(embeddings, votes=found, distances=near, factors=factors, coverage=coverage)
        names = fitted.card.labels
        votes = voters(self._gallery, fitted, embeddings, found, count=self._options.evidence)
        predictions = []
        for number, probabilities in enumerate(answers.probabilities):
            order = np.argsort(-probabilities, kind="stable")
            order = order[probabilities[order] > 0][: self._options.top]
            familiarity = None if answers.familiarity is None else float(answers.familiarity[number])
            chosen = np.flatnonzero(answers.predicted[number]) if fitted.card.multi_label else order[:1]
            if answers.none_of_these is not None and answers.none_of_these[number]:
                chosen = chosen[:0]
            sets = None if answers.sets is None else tuple(names[c] for c in np.flatnonzero(answers.sets[number]))
            predictions.append(
                Prediction(
                    target=fitted.card.target,
                    head=fitted.card.kind,
                    predicted=tuple(names[c] for c in chosen),
                    labels=tuple((names[c], float(probabilities[c])) for c in order),
                    prediction_set=sets,
                    familiarity=familiarity,
                    votes=votes[number],
                )
            )
        return predictions

    def _neighbours(self, found: NDArray[np.int64], distances: NDArray[np.float32]) -> list[tuple[Neighbour, ...]]:
        items = iter(self._gallery.items(found[found >= 0]))
        return [
            tuple(Neighbour(next(items), float(d)) for row, d in zip(rows, line, strict=False) if row >= 0)
            for rows, line in zip(found, distances, strict=True)
        ]


def voters(
    gallery: Gallery,
    fitted: FittedHead,
    embeddings: NDArray[np.float32],
    votes: Votes | None = None,
    *,
    count: int = EVIDENCE,
) -> list[tuple[Vote, ...]]:
    """The training photos that weighed most on each of B photos, those that the gallery still has; none without kNN.

    Args:
        gallery: That the head was fitted on.
        fitted: The head.
        embeddings: (B, D), of the head's encoder.
        votes: Of `fitted.votes`, where they are at hand.
        count: So many for each photo, at most.
    """
    votes = fitted.votes(embeddings) if votes is None and count else votes
    if votes is None or not count:
        return [()] * len(embeddings)
    rows = gallery.rows_of_keys(fitted.keys[votes.rows[:, :count]])
    record = iter(gallery.items(rows[rows >= 0]))
    return [
        tuple(
            Vote(next(record), float(similarity), float(weight))
            for row, similarity, weight in zip(*line, strict=True)
            if row >= 0
        )
        for line in zip(rows, votes.similarities[:, :count], votes.weights[:, :count], strict=True)
    ]


def embed_items(
    items: Sequence[CatalogItem], encoders: Sequence[Encoder]
) -> tuple[list[str | None], list[NDArray[np.float32]]]:
    """Photos by several encoders.

    Args:
        items: With their photos.
        encoders: One or more.

    Returns:
        For each photo why it cannot be read, or None; and for each encoder the embeddings, (B, D), of those that can.
    """
    tasks = [Task(item, Fingerprint.of(item)) for item in items]
    by_photo = list(zip(*([one.row for one in encode_tasks(tasks, encoder)] for encoder in encoders), strict=True))
    # A file may be changed between two encoders.
    failures = [next((row for row in rows if not isinstance(row, Row)), None) for rows in by_photo]
    whole = [rows for rows, failure in zip(by_photo, failures, strict=True) if failure is None]
    embeddings = [np.array([rows[place].embedding for rows in whole], np.float32) for place in range(len(encoders))]
    return [None if failure is None else failure.reason for failure in failures], embeddings


def distances_to_gallery(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far (B,) queries are from a gallery, as heads.novelty wants it: the mean distance to the nearest few.

    Args:
        distances: (B, k) to the nearest items, closest first; inf where the gallery has fewer. To one without items it
            is the farthest that there is, 2.
    """
    nearest = distances[:, :NEAREST]
    known = np.isfinite(nearest)
    sums = np.where(known, nearest, np.float32(0)).sum(axis=1)
    means: NDArray[np.float32] = np.where(known.any(axis=1), sums / known.sum(axis=1).clip(min=1), 2).astype(np.float32)
    return means


def _factors(head: FittedHead, heads: Sequence[FittedHead], options: ClassifyOptions) -> NDArray[np.float32]:
    """What `allowed` and `weights` come to for a head, by the names that it knows; one that none knows is an error."""

    def knows(one: FittedHead, name: str) -> bool:
        return is_known(name, one.card.labels, options.groups)

    def own(names: Iterable[str]) -> list[str]:
        return [name for name in names if knows(head, name) or not any(knows(other, name) for other in heads)]

    weights = {name: options.weights[name] for name in own(options.weights)}
    return label_factors(head.card.labels, allowed=own(options.allowed), weights=weights, groups=options.groups)
