"""The shortcut audit: how labels, probabilities and neighbours move when a photo is altered. See docs/audit.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from data.alterations import ALONE
from heads.checks import HeadError
from heads.metrics import wilson_interval
from heads.metrics_paired import SIGNIFICANCE, holm, mcnemar, paired_bootstrap
from service.audit_photos import UNALTERED, AuditedPhotos
from service.audit_verdicts import describe_condition
from service.head_trial import truth_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heads.fitted import FittedHead
    from indexer.gallery import Gallery

# Cases that the figures name for each head and condition, the most telling first.
_CASES = 24
# Neighbours that vote on what the filled box tells.
_VOTERS = 10


def audit_target(
    gallery: Gallery,
    photos: AuditedPhotos,
    heads: Sequence[FittedHead],
    found: Mapping[str, NDArray[np.int64]],
    own: NDArray[np.int64],
) -> dict[str, Any]:
    """The figures of one target's heads and neighbours under each condition, with a verdict each; JSON-ready.

    Args:
        gallery: Whose heads they are.
        photos: The queries; those without a label in the target are left out.
        heads: Of one target, one or more.
        found: Of `find_neighbours`.
        own: Of `find_own_rows`.

    Raises:
        HeadError: The target has several labels an item, or no query has a label in it.
    """
    target = heads[0].card.target
    if any(head.card.multi_label for head in heads):
        raise HeadError(
            f"An audit says whether an answer is right, so it is of targets with one label an item; items of "
            f"'{target}' have several. Leave it out."
        )
    asked = np.array([bool(item.labels.get(target)) for item in photos.items], bool)
    if not asked.any():
        raise HeadError(f"An audit of '{target}' asks about photos with a label in it; of these none has one.")
    names = [name for name in photos.present if name != UNALTERED]
    true_names = np.array(
        [item.labels[target][0] if has else "" for item, has in zip(photos.items, asked, strict=True)]
    )
    hits = {name: _hits(gallery, target, true_names, rows[:, 0]) for name, rows in found.items()}
    return {
        "target": target,
        "queries": int(asked.sum()),
        "heads": {head.card.kind: _audit_head(gallery, photos, head, asked, own) for head in heads},
        "neighbours": [
            {"condition": name, "photos": int((asked & photos.present[name]).sum())}
            | _movement("hit_rate_at_1", hits[UNALTERED], hits[name], asked & photos.present[name])
            for name in names
        ],
    }


def _hits(
    gallery: Gallery, target: str, true_names: NDArray[np.str_], nearest: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Whether the first neighbour has each query's label, (Q,) 0 or 1."""
    hits = np.zeros(len(nearest))
    for label, rows in gallery.labels.labels_of(target).items():
        hits[(true_names == label) & np.isin(nearest, rows)] = 1
    return hits


def _audit_head(
    gallery: Gallery, photos: AuditedPhotos, head: FittedHead, asked: NDArray[np.bool_], own: NDArray[np.int64]
) -> dict[str, Any]:
    """A head's figures: what is known of it and the photos, and one entry a condition."""
    target, labels = head.card.target, head.card.labels
    known = [item for item, has in zip(photos.items, asked, strict=True) if has]
    truth = np.full(len(asked), -1)
    truth[asked] = truth_of(known, target, labels, multi_label=False)
    keys = gallery.snapshot.columns("vector_key")["vector_key"].to_numpy()
    learned = asked & (own >= 0) & np.isin(keys[own], head.keys)
    conditions = [
        _audit_condition(photos, head, name, truth, asked & photos.present[name])
        for name in photos.present
        if name != UNALTERED
    ]
    tested = [one for one in conditions if one["p_value"] is not None]
    for one, corrected in zip(tested, holm([one["p_value"] for one in tested]), strict=True):
        one |= {"p_value_corrected": _rounded(corrected), "is_shown": corrected < SIGNIFICANCE}
    for one in conditions:
        one["verdict"] = describe_condition(head.card.kind, one, len(tested))
    plain = _answers(photos, head, UNALTERED)[1] == truth
    return {
        # A comparator keeps no keys of what it learned.
        "photos_learned": int(learned.sum()) if len(head.keys) else None,
        "queries_with_unknown_label": int((truth[asked] < 0).sum()),
        **_share("accuracy", plain[asked]),
        "conditions": conditions,
    }


def _answers(photos: AuditedPhotos, head: FittedHead, name: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A head's probabilities, (Q, C), and class numbers, (Q,), -1 where a photo cannot be put under the condition."""
    present = photos.present[name]
    probabilities = np.zeros((len(present), len(head.card.labels)), np.float32)
    predicted = np.full(len(present), -1)
    if present.any():
        answers = head.answer(photos.embeddings[head.card.encoder_fingerprint][name][present])
        probabilities[present], predicted[present] = answers.probabilities, answers.predicted
    return probabilities, predicted


def _audit_condition(
    photos: AuditedPhotos, head: FittedHead, name: str, truth: NDArray[np.int64], asked: NDArray[np.bool_]
) -> dict[str, Any]:
    """What becomes of a head's answers under one condition."""
    labels, rows = head.card.labels, np.arange(len(truth))
    (first, before), (second, after) = (_answers(photos, head, one) for one in (UNALTERED, name))
    right_before, right_after = before == truth, (after == truth) & (after >= 0)
    # (Q,) of the label that the unaltered photo was given.
    sure_before, sure_after = first[rows, before].astype(np.float64), second[rows, before].astype(np.float64)
    changed = asked & (before != after)
    true_names = [", ".join(item.labels.get(head.card.target, ())) for item in photos.items]
    cases = asked & right_after if name == ALONE else changed
    telling = second[rows, after] if name == ALONE else sure_before - sure_after
    order = np.argsort(-telling, kind="stable")
    return {
        "condition": name,
        "photos": int(asked.sum()),
        "left_out": int((~photos.present[name]).sum()),
        **_movement("accuracy", right_before, right_after, asked),
        **_share("accuracy", right_after[asked]),
        # That nothing is left of the garment costs accuracy; the question there is what the background tells.
        "p_value": None if name == ALONE else _rounded(mcnemar(right_before[asked], right_after[asked]).p_value),
        "p_value_corrected": None,
        "is_shown": None,
        "answers_changed": int(changed.sum()),
        **_movement("probability", sure_before, sure_after, asked),
        **(_told_by_background(photos.boxes, truth, right_after, asked, labels) if name == ALONE else {}),
        "by_label": [
            _label_row(true, np.array([one == true for one in true_names]) & asked, right_before, right_after, changed)
            for true in sorted({true_names[row] for row in np.flatnonzero(asked)})
        ],
        "cases": [
            {
                "item_id": photos.items[row].item_id,
                "label": true_names[row],
                "before": labels[before[row]],
                "after": labels[after[row]],
                "probability_before": _rounded(sure_before[row]),
                "probability_after": _rounded(sure_after[row]),
                "probability_of_after": _rounded(second[row, after[row]]),
            }
            for row in order[cases[order]][:_CASES]
        ],
    }


def _label_row(
    label: str,
    asked: NDArray[np.bool_],
    right_before: NDArray[np.bool_],
    right_after: NDArray[np.bool_],
    changed: NDArray[np.bool_],
) -> dict[str, Any]:
    return {
        "label": label,
        "photos": int(asked.sum()),
        "right_unaltered": int(right_before[asked].sum()),
        "right": int(right_after[asked].sum()),
        "answers_changed": int(changed[asked].sum()),
    }


def _told_by_background(
    boxes: NDArray[np.float32],
    truth: NDArray[np.int64],
    right: NDArray[np.bool_],
    asked: NDArray[np.bool_],
    labels: Sequence[str],
) -> dict[str, Any]:
    """What a head would get right without any background: the commonest label, and what the filled box tells."""
    rows = np.flatnonzero(asked)
    if not len(rows):
        return {"commonest_label": None, "commonest_share": None, "box_share": None, "told_by": "nothing"}
    counts = np.bincount(truth[rows][truth[rows] >= 0], minlength=len(labels))
    most = int(counts.argmax())
    commonest = truth[rows] == most
    by_box = (vote_by_box(boxes[rows], truth[rows]) == truth[rows]) & (truth[rows] >= 0)
    told_by = "nothing"
    if _is_more_often_right(right[rows], commonest):
        told_by = "background" if _is_more_often_right(right[rows], by_box) else "box"
    return {
        "commonest_label": labels[most],
        "commonest_share": _mean(commonest),
        "box_share": _mean(by_box),
        "told_by": told_by,
    }


def vote_by_box(boxes: NDArray[np.float32], truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """The label of each photo by the ten others whose filled boxes are most alike, (R,): what place and size tell.

    Args:
        boxes: (R, 5) float32, as `AuditedPhotos.boxes`; each number is divided by its standard deviation.
        truth: (R,) int64 class numbers, -1 for a label that the head does not know, which gets no vote.

    Returns:
        (R,) int64; -1 for a photo that has no others. Of labels with as many votes the first.
    """
    from sklearn.neighbors import NearestNeighbors

    voters = min(_VOTERS, len(boxes) - 1)
    if voters < 1:
        return np.full(len(boxes), -1)
    spread = boxes.std(axis=0)
    scaled = boxes / np.where(spread > 0, spread, 1)
    # Asked about nothing, it leaves each photo out of its own neighbours.
    near = NearestNeighbors(n_neighbors=voters).fit(scaled).kneighbors(return_distance=False)
    votes = np.zeros((len(boxes), max(1, truth.max() + 1)))
    for column in truth[near].T:
        known = column >= 0
        votes[np.flatnonzero(known), column[known]] += 1
    return np.where(votes.any(axis=1), votes.argmax(axis=1), -1)


def _is_more_often_right(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> bool:
    return bool(first.sum() > second.sum() and mcnemar(first, second).p_value < SIGNIFICANCE)


def _movement(
    name: str, before: NDArray[Any], after: NDArray[Any], asked: NDArray[np.bool_]
) -> dict[str, float | None]:
    """The means before and after, and their difference with its paired bootstrap interval."""
    difference = paired_bootstrap(before[asked], after[asked])
    return {
        f"{name}_unaltered": _mean(before[asked]),
        name: _mean(after[asked]),
        f"{name}_difference": _rounded(difference.mean),
        f"{name}_difference_low": _rounded(difference.low),
        f"{name}_difference_high": _rounded(difference.high),
    }


def _share(name: str, hits: NDArray[np.bool_]) -> dict[str, float | None]:
    low, high = wilson_interval(int(hits.sum()), len(hits))
    return {name: _mean(hits), f"{name}_low": _rounded(low), f"{name}_high": _rounded(high)}


def _mean(values: NDArray[Any]) -> float | None:
    known = values[~np.isnan(values)]
    return _rounded(float(known.mean())) if len(known) else None


def _rounded(value: float) -> float | None:
    """Four decimals; None, which JSON has, for nan."""
    return None if np.isnan(value) else round(float(value), 4)
