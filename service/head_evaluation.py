"""How good fitted heads are on labelled photos, target by target. Definitions in docs/metrics.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from data.catalog import CatalogItem
from heads.metrics import (
    LabelScores,
    Reliability,
    accuracy,
    calibration_error,
    confusion_matrix,
    label_scores,
    log_loss,
    macro,
    micro_f1,
    multi_label_log_loss,
    multi_label_scores,
    reliability,
    top_k_accuracy,
    wilson_interval,
)
from heads.metrics_paired import verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOP = (3, 5)
_PAIRS = 10


@dataclass(frozen=True, slots=True)
class HeadAnswers:
    """What one fitted head said of Q queries about C labels.

    Args:
        kind: `knn`, `linear`, `mlp` or `ensemble`; another one for each head of a target.
        probabilities: (Q, C) float32, 0..1, calibrated.
        uncalibrated: (Q, C) float32, 0..1, as fitted.
        predicted: (Q,) int64 class numbers, whether or not the head abstained; (Q, C) bool for several labels an item.
        sets: (Q, C) bool, conformal prediction sets; None for several labels an item.
        none_of_these: (Q,) bool, where the head abstains; None for several labels an item.
        milliseconds: A photo, encoding apart.
        card: What is known of the fitted head, JSON-ready. Two values have a place of their own in a report where they
            are given: `coverage`, 0..1, that the sets aim at, and `thresholds`, C numbers in class order.
    """

    kind: str
    probabilities: NDArray[np.float32]
    uncalibrated: NDArray[np.float32]
    predicted: NDArray[Any]
    sets: NDArray[np.bool_] | None
    none_of_these: NDArray[np.bool_] | None
    milliseconds: float
    card: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TargetAnswers:
    """What the heads of one target said of Q queries, and what is true.

    Args:
        target: The label column.
        labels: C names, in class order.
        truth: (Q,) int64 class numbers, -1 where the true label is none that the heads know; (Q, C) bool for several
            labels an item.
        true_names: Q names of what is true, those that the heads do not know too; several are joined by ", ".
        items: The Q queries.
        gallery_counts: Items of the gallery by label.
        heads: One or more.
        neighbours: The nearest items of the gallery to query number 0..Q - 1, and their distances.
    """

    target: str
    labels: tuple[str, ...]
    truth: NDArray[Any]
    true_names: tuple[str, ...]
    items: Sequence[CatalogItem]
    gallery_counts: Mapping[str, int]
    heads: tuple[HeadAnswers, ...]
    neighbours: Callable[[int], Sequence[tuple[CatalogItem, float]]]


def evaluate_target(answers: TargetAnswers) -> dict[str, Any]:
    """What `measure_target` gives, and as `verdicts` the best head against each other one.

    For several labels an item a query is right, in verdicts, where all its labels are.

    Raises:
        ValueError: No head, two of one kind, or no query.
        MetricError: Arrays that do not fit together.
    """
    figures = measure_target(answers)
    best = next(head for head in answers.heads if head.kind == figures["best_head"])
    right = right_by_head(answers)
    return figures | {
        "verdicts": {
            head.kind: verdict(best.kind, head.kind, right[best.kind], right[head.kind]).sentence
            for head in answers.heads
            if head is not best
        }
    }


def measure_target(answers: TargetAnswers) -> dict[str, Any]:
    """The figures of each head; JSON-ready, None where undefined.

    A query whose label no head knows counts as wrong in `accuracy`, `top_k_accuracy` and calibration; `log_loss`,
    `set_coverage` and the macro means leave it out. The best head is the first of `rank_heads`.

    Raises:
        ValueError: No head, two of one kind, or no query.
        MetricError: Arrays that do not fit together.
    """
    if not answers.heads or not len(answers.truth):
        raise ValueError(
            f"Heads of '{answers.target}' are compared on labelled photos; got {len(answers.heads)} heads and "
            f"{len(answers.truth)} photos."
        )
    if len({head.kind for head in answers.heads}) < len(answers.heads):
        raise ValueError(f"Heads are told apart by their kind; got {', '.join(head.kind for head in answers.heads)}.")
    several = answers.truth.ndim == 2
    figures = {
        head.kind: (_several_figures if several else _one_label_figures)(answers, head) for head in answers.heads
    }
    unknown = ~answers.truth.any(axis=1) if several else answers.truth < 0
    return {
        "target": answers.target,
        "several_labels": several,
        "labels": list(answers.labels),
        "queries": len(answers.truth),
        # For several labels an item: queries without any label that the heads know.
        "queries_with_unknown_label": int(unknown.sum()),
        "best_head": rank_heads(figures)[0],
        "heads": figures,
    }


def rank_heads(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Heads from the best: by accuracy, or micro F1 for several labels an item; of equals, the lower log loss first.

    Args:
        figures: Of each head, by its kind.
    """

    def rank(kind: str) -> tuple[float, float]:
        of_head = figures[kind]
        loss = of_head["log_loss"]
        return of_head.get("accuracy", of_head.get("micro_f1")) or 0.0, -math.inf if loss is None else -loss

    return sorted(figures, key=rank, reverse=True)


def right_by_head(answers: TargetAnswers) -> dict[str, NDArray[np.bool_]]:
    """Whether each head is right about each query, (Q,) by kind; for several labels an item, about all its labels."""
    return {head.kind: _right(answers, head) for head in answers.heads}


def _right(answers: TargetAnswers, head: HeadAnswers) -> NDArray[np.bool_]:
    equal = head.predicted == answers.truth
    right: NDArray[np.bool_] = equal.all(axis=1) if equal.ndim == 2 else equal
    return right


def _one_label_figures(answers: TargetAnswers, head: HeadAnswers) -> dict[str, Any]:
    truth, probabilities, right = answers.truth, head.probabilities, _right(answers, head)
    rows = np.arange(len(truth))
    scores = label_scores(truth, head.predicted, len(answers.labels))
    matrix = confusion_matrix(truth, head.predicted, len(answers.labels))
    return {
        **_share("accuracy", right),
        "accuracy_known_labels": _rounded(accuracy(truth[truth >= 0], head.predicted[truth >= 0])),
        **_macro_figures(scores),
        **{f"top_{k}_accuracy": _rounded(top_k_accuracy(truth, probabilities, k)) for k in _TOP},
        "log_loss": _rounded(log_loss(truth, probabilities)),
        **_calibration_figures("", probabilities[rows, head.predicted], right),
        **_calibration_figures("_uncalibrated", head.uncalibrated[rows, head.predicted], right),
        **_set_figures(truth, head),
        **_abstention_figures(truth, head),
        "milliseconds": _rounded(head.milliseconds),
        "by_label": _label_table(answers, head, scores),
        "confusion": matrix.tolist(),
        "confused_pairs": _confused_pairs(answers.labels, matrix),
    }


def _several_figures(answers: TargetAnswers, head: HeadAnswers) -> dict[str, Any]:
    scores = multi_label_scores(answers.truth, head.predicted)
    return {
        "micro_f1": _rounded(micro_f1(answers.truth, head.predicted)),
        **_macro_figures(scores),
        **_share("exact_match", (answers.truth == head.predicted).all(axis=1)),
        "log_loss": _rounded(multi_label_log_loss(answers.truth, head.probabilities)),
        # (Q, C) -> (Q * C,): each yes or no by itself
        **_calibration_figures("", head.probabilities.ravel(), answers.truth.ravel()),
        **_calibration_figures("_uncalibrated", head.uncalibrated.ravel(), answers.truth.ravel()),
        "milliseconds": _rounded(head.milliseconds),
        "by_label": _label_table(answers, head, scores),
    }


def _macro_figures(scores: LabelScores) -> dict[str, Any]:
    means = macro(scores)
    return {
        "macro_precision": _rounded(means.precision),
        "macro_recall": _rounded(means.recall),
        "macro_f1": _rounded(means.f1),
        "macro_labels": means.label_count,
    }


def _calibration_figures(suffix: str, confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        f"calibration_error{suffix}": _rounded(calibration_error(confidence, right)),
        f"reliability{suffix}": _reliability_table(reliability(confidence, right)),
    }


def _reliability_table(table: Reliability) -> list[dict[str, Any]]:
    """The bins that hold anything, from the least confident."""
    return [
        {
            "queries": int(table.counts[bin_]),
            "confidence": _rounded(table.confidence[bin_]),
            "accuracy": _rounded(table.accuracy[bin_]),
        }
        for bin_ in np.flatnonzero(table.counts)
    ]


def _set_figures(truth: NDArray[np.int64], head: HeadAnswers) -> dict[str, Any]:
    """How often the set of a query holds its label, where the head knows that, and how large sets are."""
    if head.sets is None:
        return {}
    known = np.flatnonzero(truth >= 0)
    return {
        **_share("set_coverage", head.sets[known, truth[known]]),
        "mean_set_size": _rounded(head.sets.sum(axis=1).mean()),
    }


def _abstention_figures(truth: NDArray[np.int64], head: HeadAnswers) -> dict[str, Any]:
    """How often the head says "none of these": wrongly of labels that it knows, rightly of others."""
    if head.none_of_these is None:
        return {}
    return {
        **_share("abstention_known_labels", head.none_of_these[truth >= 0]),
        **_share("abstention_unknown_labels", head.none_of_these[truth < 0]),
    }


def _label_table(answers: TargetAnswers, head: HeadAnswers, scores: LabelScores) -> list[dict[str, Any]]:
    """A row for each label, in class order."""
    thresholds = head.card.get("thresholds") if answers.truth.ndim == 2 else None
    return [
        {
            "label": label,
            "gallery_items": answers.gallery_counts.get(label, 0),
            "queries": int(scores.support[number]),
            "predicted": int(scores.predicted_count[number]),
            "precision": _rounded(scores.precision[number]),
            "precision_low": _rounded(scores.precision_low[number]),
            "precision_high": _rounded(scores.precision_high[number]),
            "recall": _rounded(scores.recall[number]),
            "recall_low": _rounded(scores.recall_low[number]),
            "recall_high": _rounded(scores.recall_high[number]),
            "f1": _rounded(scores.f1[number]),
        }
        | ({} if thresholds is None else {"threshold": _rounded(thresholds[number])})
        for number, label in enumerate(answers.labels)
    ]


def _confused_pairs(labels: Sequence[str], matrix: NDArray[np.int64]) -> list[dict[str, Any]]:
    """The pairs of labels that are taken for each other most often, either way; the way taken more often is first."""
    either = np.triu(matrix + matrix.T, k=1)
    most = np.argsort(-either, axis=None, kind="stable")[:_PAIRS]
    pairs = []
    for one, other in zip(*np.unravel_index(most, matrix.shape), strict=True):
        first, second = (one, other) if matrix[one, other] >= matrix[other, one] else (other, one)
        if either[one, other]:
            pairs.append(
                {
                    "first": labels[first],
                    "second": labels[second],
                    "first_as_second": int(matrix[first, second]),
                    "second_as_first": int(matrix[second, first]),
                    "first_queries": int(matrix[first].sum()),
                    "second_queries": int(matrix[second].sum()),
                }
            )
    return pairs


def _share(name: str, hits: NDArray[np.bool_]) -> dict[str, Any]:
    """The share of hits with its 95 % Wilson interval, and of how many."""
    low, high = wilson_interval(int(hits.sum()), len(hits))
    return {
        name: _rounded(hits.mean() if len(hits) else float("nan")),
        f"{name}_low": _rounded(low),
        f"{name}_high": _rounded(high),
        f"{name}_queries": len(hits),
    }


def _rounded(value: float | np.floating[Any]) -> float | None:
    """Four decimals; None, which JSON has, for nan."""
    return None if np.isnan(value) else round(float(value), 4)
