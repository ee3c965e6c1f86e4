"""What `classify` prints: text, CSV or JSON, each answer as it comes."""

from __future__ import annotations

import csv
import re
import sys
from typing import TYPE_CHECKING, Any

from cli.output import plain_labels, print_json_as_it_comes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from indexer.gallery import Gallery
    from service.classification import Classified, Prediction

_COLUMNS = ("photo", "target", "head", "predicted", "label", "probability", "prediction_set", "familiarity", "error")


def write_text(answers: Iterator[Classified]) -> None:
    """A block of lines a photo; photos that could not be read go to stderr."""
    for answer in answers:
        if answer.reason is not None:
            print(f"{answer.photo}: {answer.reason}", file=sys.stderr)
            continue
        print(answer.photo)
        for one in answer.predictions:
            ranked = ", ".join(f"{name} {probability:.3f}" for name, probability in one.labels)
            print(f"  {one.target} ({one.head}): {ranked}{_doubt(one)}")
        print(f"  nearest: {_nearest(answer)}", flush=True)


def write_csv(answers: Iterator[Classified]) -> None:
    """A line a photo and target, or a photo that could not be read."""
    writer = csv.DictWriter(sys.stdout, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for answer in answers:
        if answer.reason is not None:
            writer.writerow({"photo": answer.photo, "error": answer.reason})
        for one in answer.predictions:
            label, probability = one.labels[0]
            writer.writerow(
                {
                    "photo": answer.photo,
                    "target": one.target,
                    "head": one.head,
                    "predicted": _joined(one.predicted),
                    "label": label,
                    "probability": f"{probability:.4f}",
                    "prediction_set": "" if one.prediction_set is None else _joined(one.prediction_set),
                    "familiarity": "" if one.familiarity is None else f"{one.familiarity:.4f}",
                }
            )
        sys.stdout.flush()


def write_json(answers: Iterator[Classified], gallery: Gallery) -> None:
    """One object, its photos as they come."""
    facts = {"gallery": str(gallery.folder), "version": gallery.snapshot.version, "encoder": gallery.card.name}
    print_json_as_it_comes(facts, "photos", (_described(answer) for answer in answers))


def _doubt(one: Prediction) -> str:
    """What else could be, in words."""
    if one.none_of_these:
        return f"; none of these? {one.familiarity:.1%} of known photos look as strange"
    if one.prediction_set is None:
        return f"; it has {', '.join(one.predicted) or 'none'}"
    if not one.prediction_set:
        return "; none is sure enough"
    return "" if len(one.prediction_set) == 1 else f"; it may be {' or '.join(one.prediction_set)}"


def _nearest(answer: Classified) -> str:
    """What the nearest items of the gallery are labelled in the targets that were asked about, and how far they are."""
    targets = [one.target for one in answer.predictions]
    near = [
        (" · ".join("|".join(one.item.labels.get(target, ("-",))) for target in targets), one.distance)
        for one in answer.neighbours
    ]
    # Several labels make long lines.
    return ", ".join(f"{labels} {distance:.3f}" for labels, distance in near[: 5 if len(targets) == 1 else 3])


def _joined(labels: Iterable[str]) -> str:
    r"""Labels in one field, joined by `|`; one of a label itself is written `\|`, as in `--where`."""
    return "|".join(re.sub(r"([|\\])", r"\\\1", label) for label in labels)


def _described(answer: Classified) -> dict[str, Any]:
    return {
        "photo": answer.photo,
        "error": answer.reason,
        "predictions": [
            {
                "target": one.target,
                "head": one.head,
                "predicted": list(one.predicted),
                "none_of_these": one.none_of_these,
                "familiarity": None if one.familiarity is None else round(one.familiarity, 4),
                "labels": [{"label": name, "probability": round(value, 4)} for name, value in one.labels],
                "prediction_set": None if one.prediction_set is None else list(one.prediction_set),
                "votes": [
                    {
                        "item_id": vote.item.item_id,
                        "labels": list(vote.item.labels.get(one.target, ())),
                        "similarity": round(vote.similarity, 4),
                        "weight": round(vote.weight, 4),
                    }
                    for vote in one.votes
                ],
            }
            for one in answer.predictions
        ],
        "neighbours": [
            {
                "item_id": near.item.item_id,
                "distance": round(near.distance, 6),
                "similarity": round(near.similarity, 6),
                "labels": plain_labels(near.item),
            }
            for near in answer.neighbours
        ],
    }
