"""The ensemble head: a weighted mean of what calibrated heads say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from heads.calibration import apply_temperature, fit_temperature
from heads.checks import HeadError, check_training
from heads.folds import assign_folds
from heads.head import BaseHead, Head, fit_together, sampling_of
from heads.knn import KnnHead
from heads.linear import LinearHead
from heads.logits import one_hot
from heads.mlp import MlpHead
from heads.validation import out_of_fold

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEMBERS: Mapping[str, type[BaseHead]] = {"knn": KnnHead, "linear": LinearHead, "mlp": MlpHead}


class EnsembleHead(Head):
    """The mean of several heads' calibrated probabilities, weighed by log loss on validation photos.

    Args:
        members: Unfitted heads of two kinds or more, one of each; None is a kNN and a linear head.

    Attributes:
        members_: The fitted heads.
        temperatures_: (M,) of each member.
        weights_: (M,), 0 or more, which sum to 1.
    """

    kind = "ensemble"
    members_: tuple[BaseHead, ...]
    temperatures_: NDArray[np.float32]
    weights_: NDArray[np.float32]

    def __init__(self, members: Sequence[BaseHead] | None = None) -> None:
        self.members = (KnnHead(), LinearHead()) if members is None else tuple(members)
        kinds = [member.kind for member in self.members]
        if len(kinds) < 2 or len(set(kinds)) < len(kinds):
            raise HeadError(f"An ensemble has two heads or more, one of a kind; got {', '.join(kinds) or 'none'}.")

    def fit(
        self,
        embeddings: NDArray[np.float32],
        y: NDArray[Any],
        *,
        folds: NDArray[np.int64] | None = None,
        weights: NDArray[np.float32] | None = None,
    ) -> Self:
        """As `Head.fit`: each member chooses its settings and says what it thinks of rows that it has not seen."""
        y = np.asarray(y)
        check_training(embeddings, y, weights)
        folds = assign_folds(y) if folds is None else folds
        sampling = sampling_of(weights)
        fit_together(self.members, embeddings, y, folds=folds, sampling=sampling)
        rows, said = out_of_fold(self.members, embeddings, y, folds=folds, sampling=sampling)
        return self.combine(self.members, said, y[rows])

    def combine(self, members: Sequence[BaseHead], said: Sequence[NDArray[np.float32]], y: NDArray[Any]) -> Self:
        """The ensemble of heads that are fitted already.

        Args:
            members: Fitted on the same labels.
            said: Of each member the probabilities, (N, C), of rows that it was not fitted on.
            y: The labels of those rows, as in `fit`.
        """
        self.members_ = tuple(members)
        self.classes_, self.multi_label_ = members[0].classes_, members[0].multi_label_
        truth = y if self.multi_label_ else one_hot(np.searchsorted(self.classes_, y), len(self.classes_))
        temperatures = [fit_temperature(truth, part, multi_label=self.multi_label_) for part in said]
        self.temperatures_ = np.array(temperatures, np.float32)
        calibrated = [
            apply_temperature(part, temperature, multi_label=self.multi_label_)
            for part, temperature in zip(said, temperatures, strict=True)
        ]
        self.weights_ = _choose_weights(np.stack(calibrated), truth, multi_label=self.multi_label_)
        self.settings_ = {
            "members": [
                {"kind": member.kind, "weight": round(float(weight), 4), "settings": member.settings_}
                for member, weight in zip(members, self.weights_, strict=True)
            ]
        }
        return self

    def predict_proba(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `Head.predict_proba`."""
        return self.mix([member.predict_proba(embeddings) for member in self.members_])

    def mix(self, said: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """The probabilities, (B, C), that follow from those of each member, (B, C) each."""
        parts = zip(said, self.temperatures_, self.weights_, strict=True)
        mixed = sum(w * apply_temperature(part, float(t), multi_label=self.multi_label_) for part, t, w in parts)
        return np.asarray(mixed, np.float32)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As `Head.arrays`."""
        arrays = {"temperatures": self.temperatures_, "weights": self.weights_}
        for member in self.members_:
            arrays |= {f"{member.kind}.{name}": array for name, array in member.arrays().items()}
        return arrays

    @classmethod
    def restored(
        cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], classes: NDArray[Any], multi_label: bool
    ) -> Self:
        """As `Head.restored`."""
        members = []
        for member in settings["members"]:
            prefix = f"{member['kind']}."
            own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            members.append(MEMBERS[member["kind"]].restored(member["settings"], own, classes, multi_label))
        head = cls(members)
        head.members_, head.classes_, head.multi_label_ = tuple(members), classes, multi_label
        head.temperatures_, head.weights_, head.settings_ = arrays["temperatures"], arrays["weights"], dict(settings)
        return head


def _choose_weights(said: NDArray[np.float32], truth: NDArray[np.bool_], *, multi_label: bool) -> NDArray[np.float32]:
    """The weights, (M,), of the least log loss of the weighted mean of probabilities (M, N, C)."""
    from scipy.optimize import minimize

    # What each member gave to what is so: the true label, or for several labels an item each yes and no.
    right = np.where(truth, said, 1 - said).reshape(len(said), -1) if multi_label else said[:, truth]

    def loss(logits: NDArray[np.float64]) -> float:
        weights = np.exp(logits - logits.max())
        return float(-np.log((weights / weights.sum()) @ right + 1e-9).mean())

    # Its own first steps, of 0.00025, change the loss so little that it would stop there.
    steps = np.vstack([np.zeros(len(said)), np.eye(len(said))])
    options = {"xatol": 1e-2, "fatol": 1e-6, "initial_simplex": steps}
    found = minimize(loss, np.zeros(len(said)), method="Nelder-Mead", options=options).x
    weights = np.exp(found - found.max())
    return np.asarray(weights / weights.sum(), np.float32)
