"""None of these: whether a photo looks like anything that the head has learned, from distance and from doubt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.metrics import wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Neighbours whose mean distance tells how far a photo is from the gallery.
NEAREST = 5
# Share of known photos that is turned away.
REJECTED = 0.05
_SMALL = 1e-6
_KNOWN_KEPT = 2000


@dataclass(frozen=True, slots=True)
class Trial:
    """Photos that were asked of a head that had not learned some of their labels.

    Args:
        distances: (M,) mean distance, 0..2, to the nearest training photos.
        probabilities: (M,) calibrated probability of the likeliest label.
        is_novel: (M,) bool: the label was kept from the head.
    """

    distances: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    is_novel: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Novelty:
    """A scale of strangeness, and how strange known photos are.

    Args:
        weights: (3,) float32: of 1, of the logarithm of the distance, and of the log odds of the likeliest label.
        known: (K,) float32, the strangeness of known photos, ascending.
        rates: Measured on labels held out on purpose, at REJECTED: see `fit`; empty where there are too few labels, or
            none were held out.
    """

    weights: NDArray[np.float32]
    known: NDArray[np.float32]
    rates: Mapping[str, Any]

    @classmethod
    def fit(cls, trials: list[Trial]) -> Novelty:
        """The scale that best tells held-out labels from known ones (logistic regression, both sides weighing alike).

        Its rates are measured on each trial by a scale fitted on the others: `known_rejected` and `novel_found` with
        their intervals. Without a novel photo the scale is the distance alone, and nothing is measured.
        """
        fitted = cls._of(trials)
        if len(trials) < 2 or not all(trial.is_novel.any() for trial in trials):
            return fitted
        rejected, novel = [], []
        for number, trial in enumerate(trials):
            scale = cls._of(trials[:number] + trials[number + 1 :])
            rejected.append(scale.familiarity(trial.distances, trial.probabilities) < REJECTED)
            novel.append(trial.is_novel)
        out, is_novel = np.concatenate(rejected), np.concatenate(novel)
        rates: dict[str, Any] = {}
        for name, among in (("known_rejected", ~is_novel), ("novel_found", is_novel)):
            hits, count = int(out[among].sum()), int(among.sum())
            low, high = wilson_interval(hits, count)
            rates |= {name: hits / count, f"{name}_low": low, f"{name}_high": high, f"{name}_photos": count}
        return cls(fitted.weights, fitted.known, rates)

    @classmethod
    def _of(cls, trials: list[Trial]) -> Novelty:
        features = np.concatenate([_features(trial.distances, trial.probabilities) for trial in trials])
        is_novel = np.concatenate([trial.is_novel for trial in trials])
        weights = _separate(features, is_novel)
        return cls(weights, _kept(features[~is_novel] @ weights), {})

    @classmethod
    def of_doubt(cls, probabilities: NDArray[np.float32]) -> Novelty:
        """The scale of a head that had no trial: the less likely the likeliest label, the stranger.

        Args:
            probabilities: (K,) calibrated probability of the likeliest label, of known photos.
        """
        weights = np.array([0, 0, -1], np.float32)
        return cls(weights, _kept(_features(np.zeros(len(probabilities), np.float32), probabilities) @ weights), {})

    def familiarity(self, distances: NDArray[np.float32], probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """The share, (B,) 0..1, of known photos that look at least as strange; below 0.05, "none of these".

        Args:
            distances: (B,) mean distance, 0..2, to the NEAREST gallery items.
            probabilities: (B,) calibrated probability of the likeliest label.
        """
        strangeness = _features(distances, probabilities) @ self.weights
        below = np.searchsorted(self.known, strangeness, side="left")
        share: NDArray[np.float32] = ((len(self.known) - below) / max(1, len(self.known))).astype(np.float32)
        return share


def _features(distances: NDArray[np.float32], probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, 3) float32: 1, the logarithm of the distance, the log odds of the likeliest label."""
    likely = probabilities.astype(np.float64).clip(_SMALL, 1 - _SMALL)
    columns = [np.ones(len(likely)), np.log(distances.clip(0) + 1e-3), np.log(likely) - np.log1p(-likely)]
    features: NDArray[np.float32] = np.stack(columns, axis=1).astype(np.float32)
    return features


def _kept(strangeness: NDArray[np.float32]) -> NDArray[np.float32]:
    """The strangeness of known photos, ascending; of very many the quantiles."""
    known = np.sort(strangeness)
    if len(known) > _KNOWN_KEPT:
        known = np.quantile(known, np.linspace(0, 1, _KNOWN_KEPT)).astype(np.float32)
    return known


def _separate(features: NDArray[np.float32], is_novel: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The weights, (3,), that tell novel from known; distance alone where nothing is novel."""
    from sklearn.linear_model import LogisticRegression

    if not is_novel.any() or is_novel.all():
        return np.array([0, 1, 0], np.float32)
    model = LogisticRegression(class_weight="balanced", C=100.0).fit(features[:, 1:], is_novel)
    return np.array([*model.intercept_, *model.coef_[0]], np.float32)
