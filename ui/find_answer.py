"""What the page asks when it finds neighbours, and what it shows of the answer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from service.client import Client, ServiceError
from ui.asking import ask, sentence_of
from ui.label_filter import link_of, read_link, where_of
from ui.markup import fill, notice
from ui.query import Query, QueryError

if TYPE_CHECKING:
    # It needs Gradio's environment no more than the answer does.
    from ui.context import Context

T = TypeVar("T")

# Distances end here: this far is no limit.
FAR = 2
USUAL_K, MOST = 12, 100
# Two encodings of one photo differ by less.
_SAME = 1e-4


@dataclass(frozen=True, slots=True)
class Search:
    """How neighbours are looked for.

    Args:
        k: How many, 1 to 100.
        filters: Values of `ui.label_filter`.
        limit: Greatest distance, 0..2.
        group: Whether a product counts once.
    """

    k: int = USUAL_K
    filters: tuple[str, ...] = ()
    limit: float = FAR
    group: bool = False

    @classmethod
    def read_link(cls, parameters: Mapping[str, str]) -> Search:
        """The search that an address asks for; what it says wrongly is left as usual.

        Args:
            parameters: Of the address, which anybody may have written.
        """
        k = _number(parameters.get("k"), USUAL_K, 1, MOST)
        limit = _number(parameters.get("distance"), FAR, 0, FAR)
        return cls(int(k), tuple(read_link(parameters.get("where"))), limit, parameters.get("group") == "product")

    def link(self) -> dict[str, str | float | None]:
        """What the address says of it; None for what is as usual."""
        return {
            "k": None if self.k == USUAL_K else self.k,
            "where": link_of(self.filters),
            "distance": None if self.limit >= FAR else self.limit,
            "group": "product" if self.group else None,
        }

    def options(self) -> dict[str, Any]:
        """The arguments of the client's `neighbours` that say it."""
        return {
            "k": self.k,
            "where": where_of(self.filters) or None,
            "max_distance": None if self.limit >= FAR else self.limit,
            "group_by_product": self.group,
        }


def find(context: Context, value: Any, search: Search) -> Iterator[str]:
    """The neighbours, as markup; before them, what is waited for.

    Args:
        context: Of the page.
        value: The query as the browser tells it.
        search: How to look.
    """
    try:
        query = Query.read(value)
        subject = query.subject(context.files)
        found = yield from _shown(lambda: context.client.neighbours(**subject, **search.options()))
        if not found.neighbours:
            advice = yield from _shown(lambda: _what_to_loosen(context.client, subject, search))
            yield fill("no_cards.html", advice=advice, link=json.dumps(search.link()), receipt=found.receipt)
            return
    except (ServiceError, ValueError) as error:
        # A page on which nothing is chosen yet has done nothing wrong.
        yield notice(sentence_of(error), "hint" if isinstance(error, QueryError) else "error")
        return
    yield fill(
        "cards.html",
        neighbours=found.neighbours,
        receipt=found.receipt,
        search=search,
        link=json.dumps(search.link()),
        same=found.neighbours[0] if found.neighbours[0].distance < _SAME else None,
    )


def why(context: Context, value: Any, item_id: str) -> Iterator[str]:
    """Which places of the query match an item's, as markup; before it, what is waited for.

    Args:
        context: Of the page.
        value: The query as the browser tells it.
        item_id: The neighbour.
    """
    yield notice(f"Looking at what makes '{item_id}' similar …")
    client = context.client
    try:
        subject = Query.read(value).subject(context.files)
        # Relative shares tell items apart; an encoder that pools the class token alone has none.
        relative = client.catalog().encoder_card.get("pooling") != "cls" or None
        found = yield from _shown(lambda: client.explain(**subject, match_item_id=item_id, relative=relative))
    except (ServiceError, ValueError) as error:
        yield notice(sentence_of(error), "error")
        return
    yield fill("match.html", item_id=item_id, found=found)


def _shown(work: Callable[[], T]) -> Generator[str, None, T]:
    """What the service answers; while it is busy, its sentences as markup."""
    steps = ask(work)
    while True:
        try:
            sentence = next(steps)
        except StopIteration as end:
            answer: T = end.value
            return answer
        yield notice(sentence)


def _what_to_loosen(client: Client, subject: dict[str, Any], search: Search) -> list[str]:
    """Which filters keep everything out, in words."""
    where = where_of(search.filters)
    advice: list[str] = []
    total = client.items(where=where or None, limit=1).total
    if total and search.limit < FAR:
        nearest = client.neighbours(**subject, where=where or None, k=1).neighbours[0].distance
        # The slider has two digits.
        enough = math.ceil(100 * nearest) / 100
        return [f"Set the distance to {enough:.2f} or more: the nearest of {total:,} photos is at {nearest:.3f}."]
    for target in where if len(where) > 1 else ():
        left = client.items(where={name: where[name] for name in where if name != target}, limit=1).total
        if left:
            advice.append(f"Take the filter on {target} away: {left:,} photos pass the others.")
    return advice


def _number(text: str | None, usual: float, least: float, most: float) -> float:
    try:
        number = float(text or usual)
    except ValueError:
        return usual
    return number if least <= number <= most else usual
