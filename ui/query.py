"""The query: which photo or item the page asks about, as the browser tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ui.held_files import HeldFiles

# Fractions of a photo below which a box shows nothing.
_LEAST_SIDE = 0.01


class QueryError(ValueError):
    """There is nothing to ask about, or a box that is none; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked about: a photo that was sent, or an item.

    Args:
        token: Of a photo that was sent; or
        item_id: An item of the gallery.
        box: The garment's region of a photo that was sent: x, y, width, height as fractions 0..1; None for all of it.
        name: How people know it.
    """

    token: str | None
    item_id: str | None
    box: tuple[float, float, float, float] | None
    name: str

    @classmethod
    def read(cls, value: Any) -> Query:
        """What the browser tells: `token` or `item_id`, `box` and `name`.

        Raises:
            QueryError: Nothing is chosen, or the box has no size.
        """
        value = value if isinstance(value, dict) else {}
        token, item_id = (str(value[key]) if value.get(key) else None for key in ("token", "item_id"))
        if (token is None) == (item_id is None):
            raise QueryError("Choose a photo first: drop one, paste one, take one, or click an example.")
        return cls(token, item_id, _box(value.get("box")) if token else None, str(value.get("name") or item_id or ""))

    def subject(self, files: HeldFiles) -> dict[str, Any]:
        """The arguments of the client's questions that say what they are about.

        Raises:
            HeldFileError: The photo is no longer held.
        """
        if self.token is None:
            return {"item_id": self.item_id}
        return {"photo": files.get(self.token).read(), "box": self.box}


def _box(value: Any) -> tuple[float, float, float, float] | None:
    if value is None:
        return None
    x, y, width, height = (float(number) for number in value)
    if min(width, height) < _LEAST_SIDE:
        raise QueryError("This box has no size: drag across the garment, or press R to use the whole photo.")
    return x, y, width, height
