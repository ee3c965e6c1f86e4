"""Markup: the page's templates, filled in, and its scripts. Whatever a catalog says is escaped, and shown as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ui.settings import FILES


def photo_url(item_id: str, size: int = 256) -> str:
    """Where the page has an item's photo."""
    return f"/photos/{quote(item_id, safe='')}?size={size}"


def percent(share: float) -> str:
    """A share, 0..1, as people read it: `93 %`, `0.4 %`, `99.8 %`; neither 0 % nor 100 % unless it is."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %" if 0 < share < 0.1 or 0.99 < share < 1 else f"{100 * share:.0f} %"


def labels_text(labels: Mapping[str, Sequence[str]]) -> str:
    """An item's labels as people read them: `dress · red, white`."""
    return " · ".join(", ".join(names) for names in labels.values() if names)


def duration(seconds: float) -> str:
    """A time as people read it: `less than a second`, `8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 1:
        return "less than a second"
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


_TEMPLATES = Environment(
    loader=FileSystemLoader(FILES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.globals["photo_url"] = photo_url
_TEMPLATES.filters["percent"] = percent
_TEMPLATES.filters["duration"] = duration
_TEMPLATES.filters["labels"] = labels_text


def fill(template: str, **values: Any) -> str:
    """A template of this folder, filled in.

    Args:
        template: Its file, such as `cards.html`.
        values: What it shows.
    """
    return _TEMPLATES.get_template(template).render(values)


def notice(sentence: str, kind: str = "wait") -> str:
    """A sentence in place of an answer.

    Args:
        sentence: For people.
        kind: `wait` (the service is busy), `error` (nothing came, and why), `hint` (what to do next) or `done`.
    """
    return fill("notice.html", sentence=sentence, kind=kind)


def script(name: str) -> str:
    """A script of this folder, as the body of a component's `js_on_load`."""
    return (FILES / name).read_text("utf-8")
