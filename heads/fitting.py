"""Fitting: heads of one target, calibrated and measured on photos that they have not seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.balance import balanced, check_balance
from heads.calibration import apply_temperature
from heads.checks import HeadError
from heads.ensemble import MEMBERS, EnsembleHead
from heads.fitted import FittedHead, HeadCard
from heads.folds import assign_folds
from heads.head import BaseHead, Head, fit_together
from heads.labels import label_codes
from heads.measurement import calibrate
from heads.mlp import MlpHead, MlpProgress
from heads.novelty import Novelty, Trial
from heads.validation import LabelTrial, ask_without, label_trials, one_thread, out_of_fold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heads.labels import EncodedLabels

KINDS = (*MEMBERS, EnsembleHead.kind)
_FOLDS = 5


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How heads are fitted.

    Args:
        kinds: Of KINDS; an ensemble is of kNN and linear, and of MLP where that is asked for too.
        balance: `none`, `weights` or `resample`, as heads.balance has them; kNN, whose rows are its evidence, takes
            weights for both.
        trials: Settings that the MLP search tries.
        timeout: Seconds that it may take.
        seed: Of folds, resampling and the search.
        progress: Called with a sentence before each step.
    """

    kinds: Sequence[str] = ("knn", "linear", "ensemble")
    balance: str = "none"
    trials: int = 20
    timeout: float = 120.0
    seed: int = 0
    progress: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        """Raises:
        HeadError: An unknown kind or balance.
        """
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise HeadError(f"A head is {', '.join(KINDS)}; got {', '.join(unknown) or 'none'}.")
        check_balance(self.balance)


@dataclass(frozen=True, slots=True)
class Training:
    """What heads of one target are fitted on.

    Args:
        embeddings: (N, D) float32 of unit length, of the labelled items.
        labels: Their labels; `labels.rows` are their places among all items.
        groups: (N,) what belongs together: products.
        keys: (N,) int64, names by which the caller knows the rows again.
        encoder: Name of the encoder.
        encoder_fingerprint: And all about it.
        gallery_version: Where they come from.
    """

    embeddings: NDArray[np.float32]
    labels: EncodedLabels
    groups: NDArray[Any]
    keys: NDArray[np.int64]
    encoder: str
    encoder_fingerprint: str
    gallery_version: int


@dataclass(frozen=True, slots=True)
class _Heard:
    """What a fitted head says of rows that it was not fitted on.

    Args:
        head: Fitted on all rows.
        asked: (M,) rows of the folds that were asked.
        said: (M, C) what heads fitted on other folds say of them.
        tried: Of each trial with labels held out, (A, C) probabilities.
        seconds: That it took.
    """

    head: Head
    asked: NDArray[np.int64]
    said: NDArray[np.float32]
    tried: list[NDArray[np.float32]]
    seconds: float


def fit_heads(training: Training, options: FitOptions) -> dict[str, FittedHead]:
    """The heads asked for, by kind, fitted on all rows and measured on rows that they were not fitted on.

    Settings are chosen on one of five folds; temperature, prediction sets, ensemble weights and "none of these" come
    from what heads of those settings, fitted without them, say of other folds.

    Raises:
        HeadError: Fewer than 10 photos, or of fewer products than folds.
    """
    labels = training.labels
    check_enough(labels, training.groups)
    folds = assign_folds(labels.y, count=_FOLDS, groups=training.groups, seed=options.seed)
    with one_thread():
        trials = [] if labels.multi_label else label_trials(training.embeddings, labels.y, folds, seed=options.seed)
        heard = {
            one.head.kind: one
            for heads, balance in _together(options)
            for one in _hear(heads, training, folds, trials, balance, options)
        }
    if "ensemble" in options.kinds:
        heard["ensemble"] = _combine(list(heard.values()), labels.y)
    return {kind: _finish(heard[kind], training, trials, options) for kind in options.kinds}


def check_enough(labels: EncodedLabels, groups: NDArray[Any]) -> None:
    """Refuses what is too little to fit heads on and to check them.

    Args:
        labels: Of N items.
        groups: (N,) their products.

    Raises:
        HeadError: Fewer than 10 photos, or of fewer products than folds.
    """
    products = len(np.unique(groups))
    if len(labels.y) < 10 or products < _FOLDS:
        raise HeadError(
            f"Heads of '{labels.target}' are fitted on 10 labelled photos or more, of {_FOLDS} products or more, to "
            f"check them on some; got {len(labels.y)} of {products}."
        )


def _together(options: FitOptions) -> list[tuple[list[BaseHead], str]]:
    """The unfitted heads that learn from the same rows, an ensemble's members too, and how these are balanced."""
    wanted = {*options.kinds} | ({"knn", "linear"} if "ensemble" in options.kinds else set())
    heads: list[BaseHead] = [MEMBERS[kind]() for kind in ("knn", "linear") if kind in wanted]
    together = [(heads, options.balance)]
    if options.balance == "resample":
        # kNN shows the rows that voted, so none may stand there twice.
        together = [([head], "weights" if head.kind == "knn" else "resample") for head in heads]
    if "mlp" in wanted:

        def tell(now: MlpProgress) -> None:
            options.progress(f"mlp: trial {now.number} of {now.trials}, {now.accuracy:.3f} right at best")

        mlp = MlpHead(trials=options.trials, timeout=options.timeout, seed=options.seed, progress=tell)
        together.append(([mlp], options.balance))
    return [(heads, balance) for heads, balance in together if heads]


def _hear(
    heads: list[BaseHead],
    training: Training,
    folds: NDArray[np.int64],
    trials: list[LabelTrial],
    balance: str,
    options: FitOptions,
) -> list[_Heard]:
    """Fits heads on all rows, and asks others of their settings about rows that they were not fitted on."""
    started = time.monotonic()
    embeddings, y = training.embeddings, training.labels.y
    sampling = partial(balanced, y, balance=balance, seed=options.seed)
    names = " and ".join(head.kind for head in heads)
    options.progress(f"{names}: choosing settings, then learning")
    fit_together(heads, embeddings, y, folds=folds, sampling=sampling)
    options.progress(f"{names}: measuring on photos that they were not fitted on")
    asked, said = out_of_fold(heads, embeddings, y, folds=folds, sampling=sampling)
    tried = [ask_without(heads, embeddings, y, trial.train, trial.asked, sampling) for trial in trials]
    seconds = (time.monotonic() - started) / len(heads)
    return [
        _Heard(head, asked, part, [of_trial[place] for of_trial in tried], seconds)
        for place, (head, part) in enumerate(zip(heads, said, strict=True))
    ]


def _combine(heard: Sequence[_Heard], y: NDArray[Any]) -> _Heard:
    """The ensemble of heads that were heard."""
    started = time.monotonic()
    asked = heard[0].asked
    members = [one.head for one in heard if isinstance(one.head, BaseHead)]
    ensemble = EnsembleHead(members).combine(members, [one.said for one in heard], y[asked])
    tried = [ensemble.mix(said) for said in zip(*(one.tried for one in heard), strict=True)]
    seconds = sum(one.seconds for one in heard) + time.monotonic() - started
    return _Heard(ensemble, asked, ensemble.mix([one.said for one in heard]), tried, seconds)


def _finish(heard: _Heard, training: Training, trials: list[LabelTrial], options: FitOptions) -> FittedHead:
    """The head with all that was learned from what was heard."""
    labels = training.labels
    learned = calibrate(
        labels.truth[heard.asked],
        heard.said,
        multi_label=labels.multi_label,
        novelty_at=partial(_novelty, heard, trials),
        seed=options.seed,
    )
    card = HeadCard(
        kind=heard.head.kind,
        target=labels.target,
        labels=labels.names,
        multi_label=labels.multi_label,
        encoder=training.encoder,
        encoder_fingerprint=training.encoder_fingerprint,
        gallery_version=training.gallery_version,
        items=len(labels.y),
        unlabelled=labels.unlabelled,
        rare=dict(labels.rare),
        min_count=labels.min_count,
        balance=options.balance,
        settings=heard.head.settings_,
        validation=learned.figures,
        fitted_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(heard.seconds, 2),
    )
    return FittedHead(
        head=heard.head,
        card=card,
        temperature=learned.temperature,
        scores=learned.scores,
        novelty=learned.novelty,
        thresholds=learned.thresholds,
        keys=training.keys,
        codes=label_codes(labels.truth, labels.names),
    )


def _novelty(heard: _Heard, trials: list[LabelTrial], temperature: float) -> Novelty | None:
    """How strange photos of held-out labels look to the head, and known ones; None where there was no trial."""
    answers = []
    for trial, said in zip(trials, heard.tried, strict=True):
        likely = apply_temperature(said, temperature, multi_label=False).max(axis=1)
        answers.append(Trial(trial.distances, likely, trial.is_novel))
    return Novelty.fit(answers) if answers else None
