"""An explanation as it is answered: in words, in figures, and as a picture."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING

from data.catalog import Box
from data.images import encode_png
from service import answers
from service.classification import voters
from service.conversion import item_answer
from service.explain import NAMES, stale_remarks
from service.faithfulness import SAME_MAP, verdict
from service.match_overlay import draw_match
from service.overlay import draw_explanation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from data.catalog import CatalogItem
    from heads.fitted import FittedHead
    from indexer.gallery import Gallery
    from service.explain import Explained
    from service.faithfulness import Faithfulness

# Methods whose maps have places that speak against.
_SIGNED = ("occlusion", "match")
# Of whole shares, mostly.
_USUAL = "Most of this map would be the same with any item; ask for relative shares, which leave that out."
# Of an answer's map.
_DECIMALS = 9


def label_answer(
    explained: Explained,
    fitted: FittedHead,
    gallery: Gallery,
    *,
    receipt: answers.Receipt,
    with_map: bool,
    font_file: Path | None = None,
) -> answers.Explanation:
    """Why a head gives a label.

    Args:
        explained: The map and its figures.
        fitted: The head.
        gallery: That it was fitted on, for what voted, and for whether it is stale.
        receipt: What answered.
        with_map: Whether the map's numbers are wanted.
        font_file: Of the picture; None for Pillow's own font.
    """
    card, remarks = fitted.card, stale_remarks(fitted, gallery)
    assert explained.embedding is not None
    votes = voters(gallery, fitted, explained.embedding[None])[0]
    method = NAMES.get(explained.method, explained.method)
    title = f"{card.target}: {explained.label}, {explained.score:.2f} ({card.kind} head, {method})"
    picture = draw_explanation(
        explained.subject,
        explained.values,
        signed=explained.method in _SIGNED,
        title=title,
        lines=_lines(explained, remarks),
        meaning=explained.meaning,
        font_file=font_file,
    )
    return replace(
        _answer(explained, picture, remarks, receipt, with_map=with_map),
        target=card.target,
        head=card.kind,
        label=explained.label,
        probability=explained.score,
        votes=[answers.Vote(item_answer(vote.item), vote.similarity, vote.weight) for vote in votes],
    )


def match_answer(
    explained: Explained,
    item: CatalogItem,
    *,
    receipt: answers.Receipt,
    with_map: bool,
    font_file: Path | None = None,
) -> answers.Explanation:
    """Why a photo is like an item.

    Args:
        explained: The maps and their figures.
        item: The gallery's.
        receipt: What answered.
        with_map: Whether the maps' numbers are wanted.
        font_file: As in `label_answer`.
    """
    match, other = explained.match, explained.item
    assert match is not None
    assert other is not None
    measured = explained.faithfulness
    is_usual = match.usual is None and match.is_exact and measured is not None and (measured.sanity or 0) >= SAME_MAP
    remarks = [_USUAL] if is_usual else []
    picture = draw_match(
        explained.subject,
        other,
        match,
        title=f"Match with {item.item_id}: similarity {explained.score:.3f}",
        lines=_lines(explained, remarks),
        font_file=font_file,
    )
    found = answers.MatchedItem(
        item=item_answer(item),
        links=[answers.Link(link.query_x, link.query_y, link.item_x, link.item_y, link.share) for link in match.links],
        unattributed=match.unattributed,
        usual=None if match.usual is None else match.usual[0],
        padding=match.padding[0],
        item_usual=None if match.usual is None else match.usual[1],
        item_padding=match.padding[1],
        is_exact=match.is_exact,
        map=_numbers(match.item_map[other.area.rows, other.area.columns]) if with_map else None,
    )
    answer = _answer(explained, picture, remarks, receipt, with_map=with_map)
    return replace(answer, similarity=explained.score, match=found)


def _answer(
    explained: Explained,
    picture: NDArray[np.uint8],
    remarks: Sequence[str],
    receipt: answers.Receipt,
    *,
    with_map: bool,
) -> answers.Explanation:
    """What both have in common."""
    on_photo, box = explained.on_photo, explained.subject.box or Box(0, 0, 1, 1)
    return answers.Explanation(
        method=explained.method,
        target=None,
        head=None,
        label=None,
        probability=None,
        similarity=None,
        meaning=explained.meaning,
        lowest=float(on_photo.min()),
        highest=float(on_photo.max()),
        overlay_png=base64.b64encode(encode_png(picture)).decode(),
        map=_numbers(on_photo) if with_map else None,
        box=(box.x, box.y, box.width, box.height),
        faithfulness=_faithfulness(explained),
        votes=[],
        match=None,
        remarks=[*remarks],
        receipt=receipt,
    )


def _faithfulness(explained: Explained) -> answers.Faithfulness | None:
    measured = explained.faithfulness
    if measured is None:
        return None
    return answers.Faithfulness(
        deletion=measured.deletion,
        insertion=measured.insertion,
        random_deletion=measured.random_deletion,
        random_insertion=measured.random_insertion,
        shares=[*measured.shares],
        deletion_curve=[*measured.deletion_curve],
        insertion_curve=[*measured.insertion_curve],
        sanity=measured.sanity,
        randomised=measured.randomised,
        verdict=_verdict(explained, measured),
    )


def _lines(explained: Explained, remarks: Sequence[str]) -> list[str]:
    """What is written below the picture."""
    measured = explained.faithfulness
    return [*([] if measured is None else [_verdict(explained, measured)]), *remarks]


def _verdict(explained: Explained, measured: Faithfulness) -> str:
    if explained.is_flat:
        return "Nothing stands out: the map is the same everywhere, so it says nothing of places."
    return verdict(measured, score="similarity" if explained.match else "probability")


def _numbers(values: NDArray[np.float32]) -> list[list[float]]:
    numbers: list[list[float]] = values.astype(float).round(_DECIMALS).tolist()
    return numbers
