"""A fitted head, ready to answer: calibrated, with prediction sets, "none of these", and a card of how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.calibration import apply_temperature
from heads.conformal import COVERAGE, prediction_sets
from heads.ensemble import EnsembleHead
from heads.groups import reweigh
from heads.head import Head
from heads.knn import KnnHead, Votes
from heads.novelty import REJECTED, Novelty

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class HeadCard:
    """What a fitted head is, as JSON-ready values.

    Args:
        kind: `knn`, `linear`, `mlp`, `ensemble` or `comparator`.
        target: The column that it predicts.
        labels: In class order.
        multi_label: Whether an item may have several.
        encoder: Name of the encoder that made the embeddings; of a comparator, the folder of its run.
        encoder_fingerprint: And everything about it; embeddings of another are refused.
        gallery_version: Version of the gallery that it was fitted on.
        items: Labelled items of the gallery that it was fitted on; of a comparator 0.
        unlabelled: Items that had no label in the target.
        rare: Labels with too few items to learn, and how many each had.
        min_count: Labels of fewer items were too rare.
        balance: `none`, `weights` or `resample`: what was done about frequent labels.
        settings: What was chosen on validation.
        validation: Figures on photos that it was not fitted on; docs/heads.md lists them.
        fitted_at: Date and time, UTC, ISO 8601.
        seconds: That fitting and measuring took.
    """

    kind: str
    target: str
    labels: tuple[str, ...]
    multi_label: bool
    encoder: str
    encoder_fingerprint: str
    gallery_version: int
    items: int
    unlabelled: int
    rare: Mapping[str, int]
    min_count: int
    balance: str
    settings: Mapping[str, Any]
    validation: Mapping[str, Any]
    fitted_at: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Answers:
    """What a head says of B photos and C labels.

    Args:
        probabilities: (B, C) float32, calibrated, with the caller's label factors.
        uncalibrated: (B, C) float32, as the head gave them.
        predicted: (B,) int64 class numbers, or (B, C) bool for several labels an item.
        sets: (B, C) bool prediction sets; None for several labels an item.
        familiarity: (B,) 0..1, the share of known photos that look at least as strange; None where it was not asked, or
            for several labels an item.
    """

    probabilities: NDArray[np.float32]
    uncalibrated: NDArray[np.float32]
    predicted: NDArray[Any]
    sets: NDArray[np.bool_] | None
    familiarity: NDArray[np.float32] | None

    @property
    def none_of_these(self) -> NDArray[np.bool_] | None:
        """(B,) bool, whether a photo looks stranger than 95 % of known ones; None where familiarity is."""
        return None if self.familiarity is None else self.familiarity < REJECTED


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A head and what was learned about it on photos that it had not seen.

    Args:
        head: Gives uncalibrated probabilities.
        card: What it is.
        temperature: Calibrates them.
        scores: (M,) float32 ascending, of heads.conformal; empty for several labels an item.
        novelty: None for several labels an item.
        thresholds: (C,) float32, from which probability on an item has the label; None where it has one label.
        keys: (N,) int64, the caller's names of the training rows, in their order; a comparator has none.
        codes: (N,) int64, what each row's label was: see `label_codes`.
    """

    head: Head
    card: HeadCard
    temperature: float
    scores: NDArray[np.float32]
    novelty: Novelty | None
    thresholds: NDArray[np.float32] | None
    keys: NDArray[np.int64]
    codes: NDArray[np.int64]

    def votes(self, embeddings: NDArray[np.float32]) -> Votes | None:
        """The training rows that vote on (B, D) embeddings; None where kNN has no say."""
        members = self.head.members_ if isinstance(self.head, EnsembleHead) else (self.head,)
        knn = next((member for member in members if isinstance(member, KnnHead)), None)
        return None if knn is None else knn.neighbours(embeddings)

    def answer(
        self,
        embeddings: NDArray[np.float32],
        *,
        votes: Votes | None = None,
        distances: NDArray[np.float32] | None = None,
        factors: NDArray[np.float32] | None = None,
        coverage: float = COVERAGE,
    ) -> Answers:
        """Labels for photos.

        Args:
            embeddings: (B, D) float32, of the head's encoder.
            votes: Of `votes`, where they are at hand: finding them is most of a kNN head's work.
            distances: (B,) mean distance, 0..2, to the nearest heads.novelty.NEAREST gallery items; None where
                familiarity is not asked.
            factors: (C,) of heads.groups.label_factors. Prediction sets and novelty are of the probabilities before
                them; sets then lose the labels that are not allowed.
            coverage: Of the prediction sets, above 0 and below 1.

        Raises:
            HeadError: Another dimension, or a coverage that is none.
        """
        multi_label = self.head.multi_label_
        uncalibrated = self._uncalibrated(embeddings, votes)
        calibrated = apply_temperature(uncalibrated, self.temperature, multi_label=multi_label)
        allowed = calibrated if factors is None else reweigh(calibrated, factors, multi_label=multi_label)
        if self.thresholds is not None:
            # A threshold may be 0 where all but few photos have the label; one that is not allowed is none even so.
            predicted = (allowed >= self.thresholds) & (allowed > 0)
            return Answers(allowed, uncalibrated, predicted, None, None)
        sets = prediction_sets(calibrated, self.scores, coverage=coverage)
        if factors is not None:
            sets &= factors > 0
        familiarity = None
        if self.novelty is not None and distances is not None:
            familiarity = self.novelty.familiarity(distances, calibrated.max(axis=1))
        return Answers(allowed, uncalibrated, allowed.argmax(axis=1), sets, familiarity)

    def _uncalibrated(self, embeddings: NDArray[np.float32], votes: Votes | None) -> NDArray[np.float32]:
        if votes is None:
            return self.head.predict_proba(embeddings)
        if isinstance(self.head, KnnHead):
            return self.head.share(votes)
        assert isinstance(self.head, EnsembleHead)
        return self.head.mix(
            [
                member.share(votes) if isinstance(member, KnnHead) else member.predict_proba(embeddings)
                for member in self.head.members_
            ]
        )
