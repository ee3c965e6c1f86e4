"""The MLP head: a small network on scaled embeddings, its settings searched by Optuna's successive halving."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from heads.calibration import calibrated_log_loss
from heads.checks import HeadError
from heads.head import BaseHead
from heads.logits import sigmoid, softmax
from heads.network import Examples, Network, training_session

if TYPE_CHECKING:
    import optuna
    import torch
    from numpy.typing import NDArray
    from optuna.distributions import BaseDistribution

    from heads.logits import Layers
    from heads.sample import Sample

# The first trial, a compromise between six targets (docs/experiments.md); what is given replaces what is here.
DEFAULTS: dict[str, Any] = {
    "layers": 1,
    "width": 768,
    "dropout": 0.4,
    "weight_decay": 0.5,
    "learning_rate": 3e-3,
    "batch_size": 256,
}
_MOST_EPOCHS = 60
_PATIENCE = 12
# ASHA compares trials after 4, 8, 16 and 32 epochs and goes on with the better half.
_FIRST_RUNG, _REDUCTION = 4, 2


@dataclass(frozen=True, slots=True)
class MlpProgress:
    """How far a search is.

    Args:
        number: Trials so far, from 1.
        trials: Of how many at most.
        best: The least log loss on validation so far, under the best temperature.
        accuracy: Of the same trial on validation; for several labels an item, the share of right yes and no.
        seconds: Since the search began.
    """

    number: int
    trials: int
    best: float
    accuracy: float
    seconds: float


class MlpHead(BaseHead):
    """Dropout on the features, then linear layers with batch norm, ReLU and dropout, trained by AdamW.

    The settings from `hidden` on are searched where they are None, by log loss on validation, and the network is then
    trained on all rows. Where all are given it is only trained. On a CPU the same seed gives the same head, unless
    the time ran out.

    Args:
        trials: The most settings to try, 1 or more; the first is a good default.
        timeout: The most seconds to search, above 0; the training on all rows comes after it.
        seed: Of the search, the initial weights, the order of rows and dropout.
        hidden: Sizes of the hidden layers, first to last, each 1 or more.
        dropout: Share of activations dropped, 0 up to but not including 1.
        weight_decay: 0 or more.
        learning_rate: Above 0.
        batch_size: Rows a step, 2 or more.
        epochs: Passes over the rows, 1 or more; None stops once validation no longer improves.
        device: Where to train, as torch names it. Prediction is on the CPU.
        progress: Called after each trial.

    Attributes:
        layers_: Weights (D_in, D_out) and biases (D_out,) float32 of each layer, with scaling and batch norm in them.

    Raises:
        HeadError: A setting outside what is said here.
    """

    kind = "mlp"
    layers_: Layers

    def __init__(  # noqa: PLR0913 - one argument a setting, by name
        self,
        *,
        trials: int = 20,
        timeout: float = 120.0,
        seed: int = 0,
        hidden: tuple[int, ...] | list[int] | None = None,
        dropout: float | None = None,
        weight_decay: float | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        device: str = "cpu",
        progress: Callable[[MlpProgress], None] | None = None,
    ) -> None:
        for name, value, right, wanted in (
            ("trials", trials, trials >= 1, "1 or more"),
            ("timeout", timeout, timeout > 0, "a number of seconds above 0"),
            ("hidden", hidden, hidden is None or (len(hidden) > 0 and min(hidden) >= 1), "sizes of 1 or more"),
            ("dropout", dropout, dropout is None or 0 <= dropout < 1, "0 or more and below 1"),
            ("weight_decay", weight_decay, weight_decay is None or 0 <= weight_decay < np.inf, "0 or more"),
            ("learning_rate", learning_rate, learning_rate is None or 0 < learning_rate < np.inf, "above 0"),
            ("batch_size", batch_size, batch_size is None or batch_size >= 2, "2 or more"),
            ("epochs", epochs, epochs is None or epochs >= 1, "1 or more"),
        ):
            if not right:
                raise HeadError(f"'{name}' of an MLP head is {wanted}; got {value}.")
        self.trials, self.timeout, self.seed, self.device, self.progress = trials, timeout, seed, device, progress
        # None is open.
        self.settings: dict[str, Any] = {
            "hidden": None if hidden is None else tuple(hidden),
            "dropout": dropout,
            "weight_decay": weight_decay,
            "learning_rate": learning_rate,
            "batch_size": batch_size,
            "epochs": epochs,
        }

    @property
    def is_open(self) -> bool:
        """As `BaseHead.is_open`."""
        return None in self.settings.values()

    def choose(self, sample: Sample, features: NDArray[np.float32], truth: NDArray[np.bool_]) -> None:
        """As `BaseHead.choose`: the trial of the least loss, with the epochs that it took to it.

        Raises:
            HeadError: Fewer than two rows, training diverges in all trials, or torch does not have
                the device.
        """
        if len(sample.y) < 2:
            raise HeadError(
                "Searching needs two rows or more in other folds than 0; got 1. Give more rows, or all settings."
            )
        with training_session(self.device):
            self.settings_ = self._search(Examples.of(sample, self.device), features, truth)

    def learn(self, sample: Sample) -> Self:
        """As `BaseHead.learn`, for as many epochs as were given or chosen.

        Raises:
            HeadError: Training diverges, or torch does not have the device.
        """
        settings = self.settings_ if self.is_open else {**self.settings, "seed": self.seed}
        self.classes_, self.multi_label_, self.settings_ = sample.classes, sample.multi_label, settings
        with training_session(self.device):
            examples = Examples.of(sample, self.device)
            network = Network(examples, settings, self.seed)
            for _ in range(settings["epochs"]):
                network.train_epoch()
            if not np.isfinite(network.predict_proba(examples.features)).all():
                raise HeadError(f"Training diverged with {settings}. Give a smaller 'learning_rate'.")
            self.layers_ = network.folded(sample.scaling)
        return self

    def predict_proba(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `Head.predict_proba`."""
        logits = self.logits(embeddings)
        return sigmoid(logits) if self.multi_label_ else softmax(logits)

    @property
    def layers(self) -> Layers:
        """As `Head.layers`."""
        return self.layers_

    def chosen(self) -> Self:
        """As `BaseHead.chosen`."""
        return type(self)(**self.settings_, device=self.device)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As `Head.arrays`: `weight_0`, `bias_0` and so on, first layer first."""
        weights = {f"weight_{i}": weight for i, (weight, _) in enumerate(self.layers_)}
        return weights | {f"bias_{i}": bias for i, (_, bias) in enumerate(self.layers_)}

    @classmethod
    def restored(
        cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], classes: NDArray[Any], multi_label: bool
    ) -> Self:
        """As `Head.restored`."""
        head = cls(**settings)
        head.classes_, head.multi_label_, head.settings_ = classes, multi_label, dict(settings)
        head.layers_ = [(arrays[f"weight_{i}"], arrays[f"bias_{i}"]) for i in range(len(arrays) // 2)]
        return head

    def _search(self, train: Examples, features: NDArray[np.float32], truth: NDArray[np.bool_]) -> dict[str, Any]:
        """The settings of the least log loss on validation features (V, E), with the epochs that it took."""
        import optuna
        import torch

        start = time.monotonic()
        validation = torch.from_numpy(features).to(self.device)
        space = {name: at for name, at in _space().items() if self._is_open(name)}
        study = _study(self.seed)
        study.enqueue_trial({name: DEFAULTS[name] for name in space})
        # Without anything to vary one trial finds the epochs.
        trials = self.trials if space else 1
        best, chosen = _Result(), None
        for number in range(1, trials + 1):
            trial = study.ask(space)
            settings = self._settings({**DEFAULTS, **trial.params})
            network = Network(train, settings, self.seed)
            result = self._try(network, validation, truth, trial, start + self.timeout)
            if result is None:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, result.loss)
            if result is not None and result.loss < best.loss:
                best, chosen = result, settings | {"epochs": settings["epochs"] or result.epochs}
            if self.progress is not None:
                self.progress(MlpProgress(number, trials, best.loss, best.accuracy, time.monotonic() - start))
            if time.monotonic() - start > self.timeout:
                break
        if chosen is None:
            raise HeadError(f"Training diverged in all of {number} trials. Give a smaller 'learning_rate'.")
        return {**chosen, "seed": self.seed}

    def _is_open(self, name: str) -> bool:
        return self.settings["hidden" if name in ("layers", "width") else name] is None

    def _settings(self, sampled: Mapping[str, Any]) -> dict[str, Any]:
        """What was given, and for the rest what was sampled: each layer has half the width of the one before."""
        halved = tuple(max(128, sampled["width"] >> i) for i in range(sampled["layers"]))
        found = {**sampled, "hidden": halved}
        return {name: found.get(name) if given is None else given for name, given in self.settings.items()}

    def _try(
        self,
        network: Network,
        validation: torch.Tensor,
        truth: NDArray[np.bool_],
        trial: optuna.Trial,
        deadline: float,
    ) -> _Result | None:
        """The best epoch of one trial (the last, where `epochs` is given); None if it was pruned or diverged."""
        best, fixed = _Result(), self.settings["epochs"]
        for epoch in range(1, (fixed or _MOST_EPOCHS) + 1):
            network.train_epoch()
            probabilities = network.predict_proba(validation)
            if not np.isfinite(probabilities).all():
                return None
            loss = calibrated_log_loss(truth, probabilities, multi_label=network.examples.multi_label)
            if loss < best.loss or fixed is not None:
                best = _Result(loss, _accuracy(truth, probabilities, network.examples.multi_label), epoch)
            trial.report(best.loss, epoch)
            if trial.should_prune():
                return None
            if time.monotonic() > deadline or epoch - best.epochs >= _PATIENCE:
                break
        return best


@dataclass(frozen=True, slots=True)
class _Result:
    """Validation after so many epochs; before the first one, worse than any."""

    loss: float = np.inf
    accuracy: float = 0.0
    epochs: int = 0


def _space() -> dict[str, BaseDistribution]:
    """What is searched where it was not given."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    return {
        "layers": IntDistribution(1, 3),
        "width": IntDistribution(128, 768, step=128),
        "dropout": FloatDistribution(0.2, 0.6),
        "weight_decay": FloatDistribution(1e-2, 5.0, log=True),
        "learning_rate": FloatDistribution(1.5e-3, 8e-3, log=True),
        "batch_size": CategoricalDistribution((128, 256, 512)),
    }


def _study(seed: int) -> optuna.Study:
    """A search in memory, by ASHA and the tree-structured Parzen estimator, that logs nothing."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=_FIRST_RUNG, reduction_factor=_REDUCTION),
        )
    finally:
        optuna.logging.set_verbosity(verbosity)


def _accuracy(truth: NDArray[np.bool_], probabilities: NDArray[np.float32], multi_label: bool) -> float:
    """The share of right labels; for several labels an item, of right yes and no."""
    if multi_label:
        return float(((probabilities > 0.5) == truth).mean())
    return float(truth[np.arange(len(truth)), probabilities.argmax(axis=1)].mean())
