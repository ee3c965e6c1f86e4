"""The report of `modiste audit`: one HTML file with its photos inside, that asks nothing of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from data.alterations import ALONE, CONDITIONS
from data.images import encode_png
from service.audit_photos import UNALTERED, Alterer, AuditedPhotos
from service.photos import Photos
from service.phrases import ABSENT, per_cent
from service.phrases import photos as so_many
from service.report import render_page

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from data.catalog import CatalogItem

# Of each condition of each head, in the report.
_CASES = 8
_PHOTO = 200
# A label's loss in points is as dark as its share; fewer photos than this say little of a label.
_ENOUGH = 5
_FOOTER = (
    "A photo counts as right where the likeliest label is the one it is labelled with. Small ranges are 95 % intervals "
    "for other photos of the same kind. A difference is shown where McNemar's test, corrected for all conditions of a "
    "head, says that chance alone would hardly make it; where none is shown there may still be one that more photos "
    "would show. docs/audit.md says how to read this page, docs/metrics.md defines each figure."
)


def render_audit(
    photos: AuditedPhotos,
    alterer: Alterer,
    neighbours: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    *,
    title: str,
    facts: Mapping[str, str],
    remarks: Sequence[str],
) -> str:
    """The report as one HTML page, self-contained.

    Args:
        photos: The queries.
        alterer: Makes the altered photos that the page shows anew.
        neighbours: Of `service.audit_neighbours.measure_neighbours`.
        targets: Of `service.audit.audit_target`, in the order of the page.
        title: Of the page.
        facts: What was audited with what, by name.
        remarks: What a reader should know of the photos, a sentence each.
    """
    shots = _Shots(photos, alterer)
    return render_page(
        "audit.html",
        title=title,
        facts=facts,
        remarks=remarks,
        examples=shots.example(),
        neighbours=[_neighbour_row(number, one, targets) for number, one in enumerate(neighbours)],
        target_names=[of_target["target"] for of_target in targets],
        targets=[
            {
                "anchor": f"target-{number}",
                "name": of_target["target"],
                "heads": [_head_view(kind, of_head, shots) for kind, of_head in of_target["heads"].items()],
            }
            for number, of_target in enumerate(targets, 1)
        ],
        footer=_FOOTER,
    )


def find_cases(targets: Sequence[Mapping[str, Any]], most: int) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """The most telling photos: target, head, condition and what `cases` says of each; so many of each condition."""
    for of_target in targets:
        for kind, of_head in of_target["heads"].items():
            for condition in of_head["conditions"]:
                for case in condition["cases"][:most]:
                    yield of_target["target"], kind, condition["condition"], case


class _Shots:
    """Photos for the page, as they are and altered; each is made once."""

    def __init__(self, photos: AuditedPhotos, alterer: Alterer) -> None:
        self._photos, self._alterer, self._pictures = photos, alterer, Photos()
        self._items = {item.item_id: item for item in photos.items}
        self._made: dict[tuple[str, str], dict[str, Any]] = {}

    def shot(self, item_id: str, condition: str) -> dict[str, Any]:
        """A photo for the template."""
        key = (item_id, condition)
        if key not in self._made:
            item = self._items[item_id]
            pixels = self._alterer.view(item, condition)
            uri = None if pixels is None else self._pictures.uri(_pictured(item, pixels), _PHOTO)
            self._made[key] = {"uri": uri, "alt": f"{item_id}, {condition}", "missing": "photo cannot be read"}
        return self._made[key]

    def example(self) -> list[dict[str, Any]]:
        """One photo under as many conditions as any has been put."""
        names = list(self._photos.present)
        counts = sum(self._photos.present[name].astype(int) for name in names)
        row = int(counts.argmax())  # type: ignore[union-attr]
        item_id = self._photos.items[row].item_id
        return [
            {"photo": self.shot(item_id, name), "name": name, "text": CONDITIONS.get(name, "the photo as it is")}
            for name in names
            if self._photos.present[name][row]
        ]


def _pictured(item: CatalogItem, pixels: NDArray[np.uint8]) -> CatalogItem:
    return replace(item, image=encode_png(pixels), box=None)


def _neighbour_row(
    number: int, of_condition: Mapping[str, Any], targets: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    return {
        "name": of_condition["condition"],
        "photos": f"{of_condition['photos']:,}",
        "cells": [_share_cell(of_condition[name]) for name in ("overlap_at_10", "rank_biased_overlap", "first_kept")],
        "hits": [_change_cells("hit_rate_at_1", of_target["neighbours"][number]) for of_target in targets],
    }


def _head_view(kind: str, of_head: Mapping[str, Any], shots: _Shots) -> dict[str, Any]:
    """What the template shows of a head."""
    conditions = of_head["conditions"]
    alone = next((one for one in conditions if one["condition"] == ALONE), None)
    return {
        "kind": kind,
        "summary": (alone or conditions[0])["verdict"],
        "verdicts": [one["verdict"] for one in conditions if one is not (alone or conditions[0])],
        "rows": [_condition_row(one) for one in conditions],
        "label_columns": [one["condition"] for one in conditions],
        "label_rows": _label_rows(conditions),
        "least": _ENOUGH,
        "cases": [
            {
                "name": one["condition"],
                "note": _case_note(one),
                "cards": [_card(one["condition"], case, shots) for case in one["cases"][:_CASES]],
            }
            for one in conditions
        ],
    }


def _condition_row(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": figures["condition"],
        "photos": f"{figures['photos']:,}",
        "left_out": figures["left_out"],
        "right": _change_cells("accuracy", figures),
        "changed": {
            "text": f"{figures['answers_changed']:,}",
            "sort": figures["answers_changed"],
            "range": per_cent(figures["answers_changed"] / figures["photos"], 0) if figures["photos"] else None,
        },
        "sure": _change_cells("probability", figures),
        **_finding(figures),
    }


def _finding(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What the last column says, and whether it is something."""
    if figures["condition"] == ALONE:
        is_told = figures["told_by"] == "background"
        return {"finding": "tells the label" if is_told else "no sign", "is_shown": is_told}
    return {"finding": "difference" if figures["is_shown"] else "none shown", "is_shown": figures["is_shown"]}


def _share_cell(value: float | None) -> dict[str, Any]:
    return {"text": ABSENT if value is None else f"{value:.2f}", "sort": "" if value is None else value, "range": None}


def _change_cells(name: str, figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Before, after, and the difference in points with its interval."""
    difference = figures[f"{name}_difference"]
    cells = [
        {"text": per_cent(figures[key]), "sort": "" if figures[key] is None else figures[key], "range": None}
        for key in (f"{name}_unaltered", name)
    ]
    if difference is None:
        return [*cells, {"text": ABSENT, "sort": "", "range": None}]
    low, high = (100 * figures[f"{name}_difference_{end}"] for end in ("low", "high"))
    text = f"{100 * difference:+z.1f}"
    return [*cells, {"text": text, "sort": difference, "range": f"{low:+z.1f} to {high:+z.1f}"}]


def _label_rows(conditions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a label: how many photos, and under each condition how many of 100 are lost; the worst losses first."""
    by_label: dict[str, list[Mapping[str, Any] | None]] = {}
    for place, one in enumerate(conditions):
        for row in one["by_label"]:
            by_label.setdefault(row["label"], [None] * len(conditions))[place] = row
    rows = [
        {
            "name": label,
            "photos": max(row["photos"] for row in cells if row is not None),
            "cells": [None if row is None else _label_cell(row) for row in cells],
        }
        for label, cells in by_label.items()
    ]

    def lost(row: Mapping[str, Any]) -> tuple[bool, float]:
        # With the background alone nearly all is lost, which says nothing of a label.
        cells = zip(conditions, row["cells"], strict=True)
        return row["photos"] >= _ENOUGH, sum(cell["loss"] for one, cell in cells if cell and one["condition"] != ALONE)

    return sorted(rows, key=lost, reverse=True)


def _label_cell(row: Mapping[str, Any]) -> dict[str, Any]:
    loss = (row["right_unaltered"] - row["right"]) / row["photos"]
    depth = round(100 * abs(loss))
    return {
        "loss": loss,
        "kind": "w" if loss > 0 else "r" if loss < 0 else "",
        "depth": depth,
        "strong": depth >= 70,
        "text": f"{-100 * loss:+z.0f}",
        "title": f"{row['right_unaltered']} right before, {row['right']} after, of {so_many(row['photos'])}",
    }


def _case_note(figures: Mapping[str, Any]) -> str:
    if figures["condition"] == ALONE:
        return (
            "Photos whose label is still told with the garment filled in, the surest first. Is it the background, or a "
            "part of the garment that was not filled?"
        )
    return "Photos that get another answer, those first whose label before has lost most of its probability."


def _card(condition: str, case: Mapping[str, Any], shots: _Shots) -> dict[str, Any]:
    return {
        "item_id": case["item_id"],
        "label": case["label"],
        "sides": [
            _side(shots.shot(case["item_id"], UNALTERED), case["before"], case["probability_before"], case["label"]),
            _side(shots.shot(case["item_id"], condition), case["after"], case["probability_of_after"], case["label"]),
        ],
    }


def _side(photo: Mapping[str, Any], said: str, sure: float, label: str) -> dict[str, Any]:
    return {"photo": photo, "said": said, "sure": f"{100 * sure:.0f} %", "right": said == label}
