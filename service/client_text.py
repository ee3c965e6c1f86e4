"""The text grammars of the API, written: what `indexer.filters` and `heads.groups` read.

Text stays as it is; None, and nothing to write, is None, and is not sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol
from urllib.parse import quote

# A label, or several.
Names = str | Iterable[str]


class BoxLike(Protocol):
    """What has the four numbers of a box, such as `data.catalog.Box`."""

    @property
    def x(self) -> float: ...  # noqa: D102
    @property
    def y(self) -> float: ...  # noqa: D102
    @property
    def width(self) -> float: ...  # noqa: D102
    @property
    def height(self) -> float: ...  # noqa: D102


def where_text(where: str | Mapping[str, Names] | None) -> str | None:
    r"""The filter as text: `{"colour": ["red", "blue"]}` is `colour=red|blue`.

    Raises:
        ValueError: A target that the grammar cannot write.
    """
    return where if where is None or isinstance(where, str) else ",".join(labels_text(where)) or None


def labels_text(labels: Mapping[str, Names]) -> list[str]:
    r"""Labels as texts, one a target: `colour=red|blue`; `colour=` for none.

    Raises:
        ValueError: A target that the grammar cannot write.
    """
    texts = []
    for target, names in labels.items():
        if "=" in target:
            raise ValueError(f"The name of a target has no '='; got {target!r}.")
        texts.append(f"{_escaped(target, ',|')}={'|'.join(_escaped(name, ',|') for name in one_or_more(names))}")
    return texts


def allowed_text(allowed: Names | None) -> str | None:
    """Names of labels or groups as text, `Tops,Shirts`; one that begins with `=` is a label in any case."""
    if allowed is None or isinstance(allowed, str):
        return allowed
    return ",".join(_name_text(name) for name in allowed) or None


def weights_text(weights: str | Mapping[str, float] | None) -> str | None:
    """Weights as text, `Bottoms=0.6,Shirts=1.2`; the names are those of `allowed_text`."""
    if weights is None or isinstance(weights, str):
        return weights
    return ",".join(f"{_name_text(name)}={float(weight)!r}" for name, weight in weights.items()) or None


def box_text(box: str | Sequence[float] | BoxLike | None) -> str | None:
    """The box as text, `x,y,width,height`.

    Raises:
        ValueError: Not four numbers.
    """
    if box is None or isinstance(box, str):
        return box
    numbers = box if isinstance(box, Sequence) else (box.x, box.y, box.width, box.height)
    if len(numbers) != 4:
        raise ValueError(f"A box is four numbers, x, y, width and height, as fractions of the photo; got {box!r}.")
    return ",".join(repr(float(number)) for number in numbers)


def path_part(name: str) -> str:
    """The id of an item or a job as one part of a path; every character that means something in a path is encoded.

    Raises:
        ValueError: An empty id.
    """
    if not name:
        raise ValueError("An id has a character at least; got ''.")
    # A path that ends in `.` or `..` would be taken for a folder.
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")


def one_or_more(names: Names) -> list[str]:
    """The names as a list, of one where it is a string."""
    return [names] if isinstance(names, str) else list(names)


def _escaped(text: str, separators: str) -> str:
    return re.sub(rf"[\\{separators}]", r"\\\g<0>", text)


def _name_text(name: str) -> str:
    mark, label = ("=", name[1:]) if name.startswith("=") else ("", name)
    return mark + _escaped(label, ",=")
