"""What the figures of a shortcut audit say, in a sentence or two each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data.alterations import ALONE, DARKENED, FLIPPED, MASKED, REPLACED, TAGGED, TURNED
from heads.metrics_paired import PairedDifference, chance, points
from service.phrases import per_cent, photos

# How a condition is said, and what a loss under it means.
_OPENINGS = {
    MASKED: "With all but the garment white",
    REPLACED: "Before another photo's background",
    FLIPPED: "With left and right exchanged",
    DARKENED: "At half the light",
    TURNED: "Turned by 10 degrees",
    TAGGED: "With a price tag in a corner",
}
_MEANINGS = {
    MASKED: "The background has a part in its answers, or the mask's rim and mistakes disturb them.",
    REPLACED: "It goes by more than the garment: another background misleads it.",
    FLIPPED: "Left and right have a part in its answers, which no garment's label depends on.",
    DARKENED: "The light has a part in its answers: take photos as the gallery's were taken.",
    TURNED: "It wants garments upright.",
    TAGGED: "It takes the tag for something that tells the label.",
}


def describe_condition(head: str, figures: Mapping[str, Any], tests: int) -> str:
    """The verdict on a head under a condition.

    Args:
        head: Its kind.
        figures: Of one condition, as `service.audit.audit_target` gives them.
        tests: How many conditions of the head were tested together.
    """
    if not figures["photos"]:
        return f"No photo could be put under {figures['condition']}."
    if figures["condition"] == ALONE:
        return _describe_background(head, figures)
    before, after = (per_cent(figures[name]) for name in ("accuracy_unaltered", "accuracy"))
    test = chance(figures["p_value_corrected"]) + (f", corrected for {tests} conditions" if tests > 1 else "")
    opening = (
        f"{_OPENINGS[figures['condition']]}, {head} is right about {after} of {photos(figures['photos'])}, and about "
        f"{before} as they are"
    )
    moved = f"{figures['answers_changed']:,} changed their answer."
    if not figures["is_shown"]:
        return f"{opening}. No difference is shown: {_points(figures, 1)}, {test}. {moved}"
    sign = -1 if figures["accuracy_difference"] < 0 else 1
    meaning = _MEANINGS[figures["condition"]] if sign < 0 else "It does better so."
    return f"{opening}: it {'loses' if sign < 0 else 'gains'} {_points(figures, sign)}, {test}. {moved} {meaning}"


def _describe_background(head: str, figures: Mapping[str, Any]) -> str:
    """Whether the background alone tells the label."""
    low, high = (per_cent(figures[f"accuracy_{end}"]) for end in ("low", "high"))
    said = (
        f"with the garment filled in and the background alone left, {head} is right about "
        f"{per_cent(figures['accuracy'])} of {photos(figures['photos'])} ({low} to {high})"
    )
    always = f"{per_cent(figures['commonest_share'])} are “{figures['commonest_label']}”, the commonest label"
    box = f"the place and size of what was filled give {per_cent(figures['box_share'])}"
    if figures["told_by"] == "background":
        return (
            f"The background tells the label: {said}; {always}, and {box}. Look at the photos: a part of the garment "
            "that was not filled tells it too."
        )
    if figures["told_by"] == "box":
        return (
            f"No sign that the background itself tells the label: {said}. That is more than by chance, for {always}; "
            f"but {box}, and the two cannot be told apart."
        )
    return f"No sign that the background tells the label: {said}; {always}."


def _points(figures: Mapping[str, Any], sign: int) -> str:
    """The change in accuracy, or the loss where the sign is -1, in percentage points with its interval."""
    change = PairedDifference(*(figures[f"accuracy_difference{end}"] for end in ("", "_low", "_high")))
    return points(change if sign > 0 else change.reversed)
