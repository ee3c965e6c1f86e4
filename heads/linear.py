"""The linear head: logistic regression on scaled embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from heads.calibration import calibrated_log_loss
from heads.folds import assign_folds
from heads.head import Head, HeadError, check_query, check_training, one_hot, sigmoid, softmax
from heads.scaling import Scaling

if TYPE_CHECKING:
    from numpy.typing import NDArray

# From strong to weak; the search starts in the middle and walks while validation improves.
PENALTIES = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
_START = 3
# Relative improvement of the objective at which fitting stops: another tenth of it changes no validation figure.
_TOLERANCE = 1e-4
_ITERATIONS = 300


class LinearHead(Head):
    """Logistic regression (softmax; one sigmoid a label where an item has several), fitted by L-BFGS.

    Args:
        penalty: Weight of half the sum of squared coefficients, against the mean loss, above 0; None chooses it by log
            loss on validation.

    Attributes:
        coef_: (D, C) float32, in terms of the embeddings themselves.
        intercept_: (C,) float32.
    """

    kind = "linear"
    coef_: NDArray[np.float32]
    intercept_: NDArray[np.float32]

    def __init__(self, *, penalty: float | None = None) -> None:
        if penalty is not None and not penalty > 0:
            raise HeadError(f"'penalty' is a number above 0, or None to choose it; got {penalty}.")
        self.penalty = penalty

    def fit(
        self,
        embeddings: NDArray[np.float32],
        y: NDArray[Any],
        *,
        folds: NDArray[np.int64] | None = None,
        weights: NDArray[np.float32] | None = None,
    ) -> Self:
        """As `Head.fit`; choosing the penalty fits four fifths of the rows a few times, each from the last result."""
        self.classes_, numbers = check_training(embeddings, y, weights)
        self.multi_label_ = numbers.ndim == 2
        truth = numbers if self.multi_label_ else one_hot(numbers, len(self.classes_))
        penalty = self.penalty
        if penalty is None:
            held_out = (assign_folds(y) if folds is None else folds) == 0
            penalty = _choose_penalty(embeddings, numbers, truth, held_out, weights)
        self.settings_ = {"penalty": penalty}
        scaling = Scaling.fit(embeddings, numbers)
        features = scaling.transform(embeddings)
        solution = _minimise(features, truth.astype(np.float32), penalty, self.multi_label_, weights)
        self.coef_ = scaling.projection @ solution[:-1]
        self.intercept_ = solution[-1] - scaling.mean @ self.coef_
        return self

    def predict_proba(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `Head.predict_proba`."""
        check_query(embeddings, len(self.coef_))
        return _probabilities(embeddings @ self.coef_ + self.intercept_, self.multi_label_)

    def chosen(self) -> Self:
        """As `Head.chosen`."""
        return type(self)(penalty=self.settings_["penalty"])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As `Head.arrays`."""
        return {"coef": self.coef_, "intercept": self.intercept_}

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


def _choose_penalty(
    embeddings: NDArray[np.float32],
    numbers: NDArray[Any],
    truth: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
    weights: NDArray[np.float32] | None,
) -> float:
    """The penalty of the least log loss on the rows held out, among PENALTIES, walking downhill from the middle."""
    train = ~held_out
    scaling = Scaling.fit(embeddings[train], numbers[train])
    features, queries = scaling.transform(embeddings[train]), scaling.transform(embeddings[held_out])
    expected = truth[train].astype(np.float32)
    inner = None if weights is None else weights[train]
    multi_label = numbers.ndim == 2
    losses: dict[int, float] = {}
    solution = None
    step, place = 1, _START
    while 0 <= place < len(PENALTIES):
        solution = _minimise(features, expected, PENALTIES[place], multi_label, inner, start=solution)
        probabilities = _probabilities(queries @ solution[:-1] + solution[-1], multi_label)
        losses[place] = calibrated_log_loss(truth[held_out], probabilities, multi_label=multi_label)
        if losses[place] > min(losses.values()):
            if len(losses) > 2 or step < 0:
                break
            # The second one was worse: walk the other way from the start.
            step, place = -1, _START
        place += step
    return PENALTIES[min(losses, key=losses.__getitem__)]


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
        logits.__iadd__(coefficients[-1])
        loss = _residuals(logits, truth, shares, multi_label)
        np.matmul(features.T, logits, out=gradient[:-1])
        gradient[-1] = logits.sum(axis=0)
        decayed = penalties * coefficients
        gradient.__iadd__(decayed)
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
