"""The linear head: logistic regression on scaled embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from heads.calibration import calibrated_log_loss
from heads.checks import HeadError
from heads.head import BaseHead, Head
from heads.logits import sigmoid, softmax
from heads.sample import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heads.logits import Layers

# From strong to weak; the search starts in the middle and walks while validation improves.
PENALTIES = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
_START = 3
# Relative improvement of the objective at which fitting stops: another tenth of it changes no validation figure.
_TOLERANCE = 1e-4
_ITERATIONS = 300


class LinearLayer(Head):
    """A head whose logits are linear in the embeddings.

    Attributes:
        coef_: (D, C) float32, in terms of the embeddings themselves.
        intercept_: (C,) float32.
    """

    coef_: NDArray[np.float32]
    intercept_: NDArray[np.float32]

    def predict_proba(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `Head.predict_proba`."""
        return _probabilities(self.logits(embeddings), self.multi_label_)

    @property
    def layers(self) -> Layers:
        """As `Head.layers`."""
        return [(self.coef_, self.intercept_)]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As `Head.arrays`."""
        return {"coef": self.coef_, "intercept": self.intercept_}


class LinearHead(LinearLayer, BaseHead):
    """Logistic regression (softmax; one sigmoid a label where an item has several), fitted by L-BFGS.

    Args:
        penalty: Weight of half the sum of squared coefficients, against the mean loss, above 0; None chooses it by log
            loss on validation.
    """

    kind = "linear"

    def __init__(self, *, penalty: float | None = None) -> None:
        if penalty is not None and not penalty > 0:
            raise HeadError(f"'penalty' is a number above 0, or None to choose it; got {penalty}.")
        self.penalty = penalty

    @property
    def is_open(self) -> bool:
        """As `BaseHead.is_open`."""
        return self.penalty is None

    def choose(self, sample: Sample, features: NDArray[np.float32], truth: NDArray[np.bool_]) -> None:
        """As `BaseHead.choose`: from the middle of PENALTIES downhill, each fit from the last one's result."""
        losses: dict[int, float] = {}
        solution = None
        step, place = 1, _START
        expected = sample.truth.astype(np.float32)
        while 0 <= place < len(PENALTIES):
            solution = _minimise(
                sample.features, expected, PENALTIES[place], sample.multi_label, sample.weights, start=solution
            )
            said = _probabilities(features @ solution[:-1] + solution[-1], sample.multi_label)
            losses[place] = calibrated_log_loss(truth, said, multi_label=sample.multi_label)
            if losses[place] > min(losses.values()):
                if len(losses) > 2 or step < 0:
                    break
                # The second one was worse: walk the other way from the start.
                step, place = -1, _START
            place += step
        self.settings_ = {"penalty": PENALTIES[min(losses, key=losses.__getitem__)]}

    def learn(self, sample: Sample) -> Self:
        """As `BaseHead.learn`."""
        if self.penalty is not None:
            self.settings_ = {"penalty": self.penalty}
        self.classes_, self.multi_label_ = sample.classes, sample.multi_label
        expected = sample.truth.astype(np.float32)
        penalty = self.settings_["penalty"]
        solution = _minimise(sample.features, expected, penalty, sample.multi_label, sample.weights)
        self.coef_ = sample.scaling.projection @ solution[:-1]
        self.intercept_ = solution[-1] - sample.scaling.mean @ self.coef_
        return self

    def chosen(self) -> Self:
        """As `BaseHead.chosen`."""
        return type(self)(penalty=self.settings_["penalty"])

    @classmethod
    def restored(
        cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], classes: NDArray[Any], multi_label: bool
    ) -> Self:
        """As `Head.restored`."""
        head = cls(penalty=settings["penalty"])
        head.classes_, head.multi_label_, head.settings_ = classes, multi_label, dict(settings)
        head.coef_, head.intercept_ = arrays["coef"], arrays["intercept"]
        return head


def _probabilities(logits: NDArray[np.float32], multi_label: bool) -> NDArray[np.float32]:
    return sigmoid(logits) if multi_label else softmax(logits)


def _minimise(
    features: NDArray[np.float32],
    truth: NDArray[np.float32],
    penalty: float,
    multi_label: bool,
    weights: NDArray[np.float32] | None,
    *,
    start: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Coefficients (E, C) and, in the last row, intercepts, of the least penalised mean log loss.

    L-BFGS sees coefficients divided by the root of their curvature where each label has its mean frequency p, which is
    about p (1 - p) times the feature's mean square, plus the penalty; this takes a quarter of the steps.

    Args:
        features: (N, E).
        truth: (N, C) 0 or 1.
        penalty: As in LinearHead.
        multi_label: A sigmoid a label instead of one softmax.
        weights: (N,) or None.
        start: (E + 1, C) to start from.
    """
    from scipy.optimize import minimize

    count, width = features.shape
    shares = np.full(count, 1 / count, np.float32) if weights is None else weights / weights.sum(dtype=np.float64)
    shares = shares.astype(np.float32)[:, None]
    frequency = ((truth * shares).sum(axis=0) + 0.5 / count).clip(max=1 - 0.5 / count)
    squares = np.append(np.einsum("ne,ne->e", features, features) / count, 1)[:, None]
    penalties = np.append(np.full(width, penalty), 0)[:, None].astype(np.float32)
    unit = (1 / np.sqrt(frequency * (1 - frequency) * squares + penalties + 1e-9)).astype(np.float32)
    logits = np.empty_like(truth)
    gradient = np.empty((width + 1, truth.shape[1]), np.float32)

    def objective(scaled: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        coefficients = unit * scaled.reshape(gradient.shape).astype(np.float32)
        np.matmul(features, coefficients[:-1], out=logits)
        np.add(logits, coefficients[-1], out=logits)
        loss = _residuals(logits, truth, shares, multi_label)
        np.matmul(features.T, logits, out=gradient[:-1])
        gradient[-1] = logits.sum(axis=0)
        decayed = penalties * coefficients
        np.add(gradient, decayed, out=gradient)
        return loss + 0.5 * float(np.vdot(decayed, coefficients)), (gradient * unit).ravel().astype(np.float64)

    first = np.zeros(gradient.shape) if start is None else start / unit
    options = {"maxiter": _ITERATIONS, "ftol": _TOLERANCE, "gtol": 1e-7}
    found = minimize(objective, first.ravel(), jac=True, method="L-BFGS-B", options=options)
    solution: NDArray[np.float32] = unit * found.x.reshape(gradient.shape).astype(np.float32)
    return solution


def _residuals(
    logits: NDArray[np.float32], truth: NDArray[np.float32], shares: NDArray[np.float32], multi_label: bool
) -> float:
    """The weighted mean log loss; turns the logits (N, C), in place, into its derivative."""
    if multi_label:
        loss = float(np.vdot(shares[:, 0], (np.logaddexp(0, logits) - truth * logits).sum(axis=1)))
        logits[:] = sigmoid(logits)
    else:
        logits -= logits.max(axis=1, keepdims=True)
        right = np.einsum("nc,nc->n", logits, truth)
        np.exp(logits, out=logits)
        sums = logits.sum(axis=1, keepdims=True)
        loss = float(np.vdot(shares[:, 0], np.log(sums[:, 0]) - right))
        logits /= sums
    logits -= truth
    logits *= shares
    return loss
