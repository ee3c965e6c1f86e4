"""What heads say of photos that they were not fitted on: of other folds, and of labels kept from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.knn import nearest
from heads.novelty import NEAREST
from heads.sample import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heads.head import BaseHead, Sampling

# Folds are asked until so many rows are known: a share of 0.9 of them is then known to within a point.
ENOUGH = 4000
# Label hold-out: so many times, a fifth of the labels, on at most so many photos.
_TRIALS = 4
_HELD_OUT = 0.2
_ASKED = 1500
# Rows that are asked about at once, for want of memory.
_TOGETHER = 512


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of linear algebra, for fitting.

    On a machine that does something else too, such as serve, OpenBLAS's threads wait for each other: with two of them
    on two busy cores a scaling that takes 0.8 s took 8 to 23 s. On idle ones a fit took 21 s with two, 15 s with one.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


def out_of_fold(
    heads: Sequence[BaseHead],
    embeddings: NDArray[np.float32],
    y: NDArray[Any],
    *,
    folds: NDArray[np.int64],
    sampling: Sampling,
    enough: int = ENOUGH,
) -> tuple[NDArray[np.int64], list[NDArray[np.float32]]]:
    """Rows, (M,) ascending, and for each head their probabilities, (M, C), by one fitted on the other folds.

    Args:
        heads: Fitted on the same labels; they give settings and classes, and are not changed.
        embeddings: (N, D).
        y: As in `Head.fit`.
        folds: (N,); folds are asked from 0 until `enough` rows are known.
        sampling: Of the rows of other folds, those to fit on, and their weights.
        enough: See `folds`.
    """
    asked = int(np.searchsorted(np.cumsum(np.bincount(folds)), min(enough, len(folds)))) + 1
    rows = np.flatnonzero(folds < asked)
    said = [np.zeros((len(rows), len(head.classes_)), np.float32) for head in heads]
    for fold in range(asked):
        train, left_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        answers = ask_without(heads, embeddings, y, train, left_out, sampling)
        for every, answer in zip(said, answers, strict=True):
            every[folds[rows] == fold] = answer
    return rows, said


def ask_without(
    heads: Sequence[BaseHead],
    embeddings: NDArray[np.float32],
    y: NDArray[Any],
    train: NDArray[np.int64],
    asked: NDArray[np.int64],
    sampling: Sampling,
) -> list[NDArray[np.float32]]:
    """The probabilities of some rows, (M, C), by heads of the same settings that were fitted on others only.

    Labels without a row there have probability 0, and a single label that has one is certain.
    """
    chosen, weights = sampling(train)
    said = [np.zeros((len(asked), len(head.classes_)), np.float32) for head in heads]
    labels = y[chosen]
    if y.ndim == 1 and (labels == labels[0]).all():
        for head, part in zip(heads, said, strict=True):
            part[:, head.classes_ == labels[0]] = 1
        return said
    sample = Sample.of(embeddings, y, chosen, weights)
    for head, part in zip(heads, said, strict=True):
        known, fitted = np.searchsorted(head.classes_, sample.classes), head.chosen().learn(sample)
        for start in range(0, len(asked), _TOGETHER):
            place = slice(start, start + _TOGETHER)
            part[place, known] = fitted.predict_proba(embeddings[asked[place]])
    return said


@dataclass(frozen=True, slots=True)
class LabelTrial:
    """One trial with labels held out: who learns, who is asked.

    Args:
        train: (T,) rows of other folds whose labels are not held out.
        asked: (M,) rows.
        is_novel: (M,) bool: the label of an asked row is held out.
        distances: (M,) mean distance, 0..2, to the NEAREST training rows, for embeddings of unit length.
    """

    train: NDArray[np.int64]
    asked: NDArray[np.int64]
    is_novel: NDArray[np.bool_]
    distances: NDArray[np.float32]


def label_trials(
    embeddings: NDArray[np.float32], numbers: NDArray[np.int64], folds: NDArray[np.int64], *, seed: int = 0
) -> list[LabelTrial]:
    """Four trials in which a fifth of the labels, at random, is held out; with two labels nothing is.

    A trial that leaves no row to learn from, or no known one to ask about, is left out.

    Args:
        embeddings: (N, D) of unit length.
        numbers: (N,) class numbers.
        folds: (N,); each trial asks rows of another fold.
        seed: Of the choice of labels.
    """
    count = int(numbers.max()) + 1
    held_out = min(max(1, round(count * _HELD_OUT)), count - 2)
    shuffled = np.random.default_rng(seed).permutation(count)
    trials = []
    for number in range(_TRIALS):
        # Other labels each time, as long as there are enough.
        kept = np.take(shuffled, np.arange(number * held_out, (number + 1) * held_out), mode="wrap")
        is_novel = np.isin(numbers, kept)
        rows = np.flatnonzero(folds == number % (folds.max() + 1))
        asked = rows[np.linspace(0, len(rows) - 1, min(len(rows), _ASKED)).astype(np.int64)]
        train = np.flatnonzero((folds != folds[asked[0]]) & ~is_novel)
        if not len(train) or is_novel[asked].all():
            continue
        distances = 1 - nearest(embeddings[train], embeddings[asked], min(NEAREST, len(train)))[1].mean(axis=1)
        trials.append(LabelTrial(train, asked, is_novel[asked], distances))
    return trials
