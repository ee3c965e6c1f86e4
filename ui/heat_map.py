"""Heat maps: why a head gives a label, with how far the map can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.client import Explanation
from ui.head_answers import HEAD_NAMES
from ui.markup import fill

# The service says which are possible with a head and its encoder.
METHODS = {
    "occlusion": "Occlusion",
    "gradcam": "Grad-CAM",
    "attention": "Attention",
    "rollout": "Attention rollout",
}
# Height of a curve's picture in its own units; its width is 100.
_HEIGHT = 60
OUTSIDE = "The map and its figures are of the head as it is: groups and the weight of bottoms are left out of them."


def fill_heat_map(why: Explanation, item_id: str | None, *, is_reweighed: bool = False) -> str:
    """An explanation of a label, as HTML.

    Args:
        why: As the service gives it.
        item_id: The item that was asked about; None for a photo.
        is_reweighed: Whether labels were restricted or reweighed where the label was predicted.
    """
    trust = why.faithfulness
    values: dict[str, Any] = {
        "why": why,
        "head": HEAD_NAMES.get(why.head or "", why.head),
        "method": METHODS.get(why.method, why.method),
        "remarks": [*why.remarks, *([OUTSIDE] if is_reweighed else [])],
        "item_id": item_id,
        "hidden": trust and curve_points(trust.shares, trust.deletion_curve),
        "shown": trust and curve_points(trust.shares, trust.insertion_curve),
    }
    return fill("heat_map.html", **values)


def curve_points(shares: Sequence[float], values: Sequence[float]) -> str:
    """The points of an SVG polyline, 100 wide and 60 high, for values 0..1 at shares 0..1."""
    return " ".join(
        f"{100 * share:.1f},{_HEIGHT * (1 - min(max(value, 0), 1)):.1f}"
        for share, value in zip(shares, values, strict=True)
    )
