"""Figures as a reader says them: "88 of 100 photos (86 to 90)"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ABSENT = "–"  # noqa: RUF001  A dash in a table, where there is no figure.

# Below this many photos "of 100" would claim more than was seen.
_HUNDRED = 100


def of_hundred(figures: Mapping[str, Any], name: str) -> str:
    """A share of photos with its interval, out of 100, or out of what was asked where that is less.

    Args:
        figures: Holds `name`, and `name` with `_low`, `_high` and `_queries`.
        name: Of the share, which is a number.
    """
    share, count = figures[name], figures[f"{name}_queries"]
    low, high = (hundredths(figures[f"{name}_{end}"]) for end in ("low", "high"))
    if count < _HUNDRED:
        return f"{round(share * count)} of {photos(count)} ({low} to {high} of 100)"
    return f"{hundredths(share)} of 100 photos ({low} to {high})"


def hundredths(share: float) -> str:
    """A share as a whole number out of 100; 0 and 100 only where it is no more and no less."""
    whole = round(100 * share)
    if whole in (0, 100) and share not in (0, 1):
        return f"{min(max(100 * share, 0.1), 99.9):.1f}"
    return str(whole)


def per_cent(share: float | None, digits: int = 1) -> str:
    """A share as a percentage, such as `88.1 %`; a dash for None."""
    return ABSENT if share is None else f"{100 * share:.{digits}f} %"


def short_count(count: float) -> str:
    """A count in three digits: `950`, `3.37 M`."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * unit:
            value = count / unit
            return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f} {name}"
    return f"{count:.0f}"


def photos(count: int) -> str:
    """So many photos."""
    return "1 photo" if count == 1 else f"{count:,} photos"


def enumerate_names(names: list[str]) -> str:
    """Names in a sentence: `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
