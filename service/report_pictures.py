"""The photos of a report: the most confident mistakes with their neighbours, and the labels most often confused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from service.phrases import photos as so_many_photos

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from data.catalog import CatalogItem
    from service.head_evaluation import HeadAnswers, TargetAnswers
    from service.photos import Photos

_MISTAKES = 12
_PAIRS = 9
_NEIGHBOURS = 5
_LARGE, _SMALL = 160, 104


def find_mistakes(answers: TargetAnswers, head: HeadAnswers) -> list[tuple[int, float]]:
    """The queries that the head got wrong and how sure it was, 0..1, the surest first.

    For several labels an item a query counts by its surest wrong yes or no.
    """
    wrong = head.predicted != answers.truth
    if wrong.ndim == 2:
        sure = np.where(wrong, np.where(head.predicted, head.probabilities, 1 - head.probabilities), -1).max(axis=1)
        wrong = wrong.any(axis=1)
    else:
        sure = head.probabilities[np.arange(len(wrong)), head.predicted]
    order = np.argsort(-sure, kind="stable")
    return [(int(query), float(sure[query])) for query in order if wrong[query]]


def mistake_cards(answers: TargetAnswers, head: HeadAnswers, pictures: Photos) -> list[dict[str, Any]]:
    """The surest mistakes, each with its photo and its nearest photos of the gallery."""
    cards = []
    for query, sure in find_mistakes(answers, head)[:_MISTAKES]:
        item, true = answers.items[query], set(answers.items[query].labels.get(answers.target, ()))
        said, remark = _said(answers, head, query, sure)
        cards.append(
            {
                "item_id": item.item_id,
                "photo": photo_shot(item, _LARGE, pictures),
                "said": said,
                "sure": remark,
                "truth": answers.true_names[query] or "nothing",
                "neighbours": [
                    _neighbour(near, distance, answers.target, true, pictures)
                    for near, distance in answers.neighbours(query)[:_NEIGHBOURS]
                ],
            }
        )
    return cards


def _said(answers: TargetAnswers, head: HeadAnswers, query: int, sure: float) -> tuple[str, str]:
    """The wrong answer and how sure it was."""
    if answers.truth.ndim == 1:
        abstained = head.none_of_these is not None and head.none_of_these[query]
        remark = f"{100 * sure:.0f} % sure" + (", but said “none of these”" if abstained else "")
        return answers.labels[head.predicted[query]], remark
    wrong = head.predicted[query] != answers.truth[query]
    probabilities = head.probabilities[query]
    worst = np.where(wrong, np.where(head.predicted[query], probabilities, 1 - probabilities), -1).argmax()
    verb = "said" if head.predicted[query, worst] else "missed"
    return f"{verb} {answers.labels[worst]}", f"at a probability of {100 * probabilities[worst]:.0f} %"


def _neighbour(near: CatalogItem, distance: float, target: str, true: set[str], pictures: Photos) -> dict[str, Any]:
    names = near.labels.get(target, ())
    return {
        "photo": photo_shot(near, _SMALL, pictures),
        "name": ", ".join(names) or "no label",
        "same": bool(true & set(names)),
        "distance": f"{distance:.3f}",
    }


def pair_cards(
    answers: TargetAnswers, head: HeadAnswers, pairs: list[Mapping[str, Any]], pictures: Photos
) -> list[dict[str, Any]]:
    """The pairs of labels most often confused, with a photo of each."""
    numbers = {label: number for number, label in enumerate(answers.labels)}
    cards = []
    for pair in pairs[:_PAIRS]:
        sides = []
        for one, other in (("first", "second"), ("second", "first")):
            example = _example(answers, head, numbers[pair[one]], numbers[pair[other]])
            count, queries = pair[f"{one}_as_{other}"], pair[f"{one}_queries"]
            sides.append(
                {
                    "name": pair[one],
                    "photo": photo_shot(example, _LARGE, pictures) if example else _no_shot(pair[one]),
                    "text": f"taken for {pair[other]}: {count} of {so_many_photos(queries)}",
                }
            )
        cards.append({"sides": sides})
    return cards


def _example(answers: TargetAnswers, head: HeadAnswers, label: int, other: int) -> CatalogItem | None:
    """A photo of the label: the one most surely taken for the other, or another query, or a neighbour of such a one."""
    mistaken = _surest((answers.truth == label) & (head.predicted == other), head.probabilities[:, other])
    if mistaken is None:
        mistaken = _surest(answers.truth == label, head.probabilities[:, label])
    if mistaken is not None:
        return answers.items[mistaken]
    near = _surest((answers.truth == other) & (head.predicted == label), head.probabilities[:, label])
    if near is None:
        return None
    same = (
        item for item, _ in answers.neighbours(near) if answers.labels[label] in item.labels.get(answers.target, ())
    )
    return next(same, None)


def _surest(among: NDArray[np.bool_], probabilities: NDArray[np.float32]) -> int | None:
    """The query of the highest probability among some, or None."""
    return int(np.where(among, probabilities, -1).argmax()) if among.any() else None


def photo_shot(item: CatalogItem, size: int, pictures: Photos) -> dict[str, Any]:
    """An item's photo for the template, or what to say in its place."""
    return {"uri": pictures.uri(item, size), "alt": item.item_id, "missing": "photo cannot be read"}


def _no_shot(label: str) -> dict[str, Any]:
    return {"uri": None, "alt": label, "missing": "no photo of it was asked"}
