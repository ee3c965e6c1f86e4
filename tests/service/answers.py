"""Small answers of heads, worked out by hand where the tests say so."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from data.catalog import CatalogItem
from service.head_evaluation import HeadAnswers, TargetAnswers


def jpeg(colour: str = "teal", size: tuple[int, int] = (30, 40)) -> bytes:
    """A photo of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG")
    return file.getvalue()


def item(item_id: str, *labels: str, target: str = "articleType", image: bytes | None = None) -> CatalogItem:
    return CatalogItem(item_id, jpeg() if image is None else image, labels={target: labels} if labels else {})


def head(kind: str, predicted: list[int], class_count: int, **changes: Any) -> HeadAnswers:
    """A head that is 0.6 sure of what it predicts, and was 0.9 sure before calibration."""
    numbers = np.array(predicted, np.int64)
    chosen = np.eye(class_count, dtype=bool)[numbers]
    others = max(1, class_count - 1)
    answers = HeadAnswers(
        kind,
        np.where(chosen, 0.6, 0.4 / others).astype(np.float32),
        np.where(chosen, 0.9, 0.1 / others).astype(np.float32),
        numbers,
        chosen,
        np.zeros(len(numbers), bool),
        0.25,
        {"coverage": 0.9, "training_items": 120},
    )
    return replace(answers, **changes)


def target_answers(truth: list[int], labels: tuple[str, ...], *heads: HeadAnswers, **changes: Any) -> TargetAnswers:
    """Answers about queries q0, q1, ...; a label that no head knows is called `unknown`."""
    names = tuple("unknown" if number < 0 else labels[number] for number in truth)
    answers = TargetAnswers(
        "articleType",
        labels,
        np.array(truth, np.int64),
        names,
        [item(f"q{number}", name) for number, name in enumerate(names)],
        dict.fromkeys(labels, 10),
        heads,
        lambda query: [(item(f"g{query}-{near}", labels[0]), 0.1 * near) for near in range(7)],
    )
    return replace(answers, **changes)


def three_labels() -> TargetAnswers:
    """Two heads on eight queries, two of which have unknown labels; the third label is asked for by none."""
    linear = head("linear", [0, 0, 1, 1, 0, 1, 0, 2], 3)
    assert linear.sets is not None
    assert linear.none_of_these is not None
    # The set of q2 holds the right label too; q2 (known) and q6 (unknown) are abstained from.
    linear.sets[2, 0] = True
    linear.none_of_these[[2, 6]] = True
    knn = head("knn", [0, 0, 0, 1, 1, 1, 0, 2], 3)
    return target_answers([0, 0, 0, 1, 1, 1, -1, -1], ("Tops", "Shirts", "Socks"), linear, knn)


def tags() -> TargetAnswers:
    """Two labels an item at most: the second is missed once, and the third query has none."""
    probabilities = np.array([[0.9, 0.22], [0.8, 0.25], [0.1, 0.1]], np.float32)
    linear = HeadAnswers(
        "linear",
        probabilities,
        probabilities**2,
        np.array([[True, False], [True, False], [False, False]]),
        None,
        None,
        0.5,
        {"thresholds": [0.5, 0.3]},
    )
    return TargetAnswers(
        "tags",
        ("Casual", "Winter"),
        np.array([[True, False], [True, True], [False, False]]),
        ("Casual", "Casual, Winter", ""),
        [item("q0", "Casual", target="tags"), item("q1", "Casual", "Winter", target="tags"), item("q2")],
        {"Casual": 7, "Winter": 3},
        (linear,),
        lambda _: [(item("g", "Winter", target="tags"), 0.2)],
    )
