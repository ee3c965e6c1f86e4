"""Why two photos are alike: their similarity split, exactly, into what each patch and each pair of patches brings.

An embedding that is a mean over patches makes the similarity a sum: with `u = sum a_p` and `v = sum b_q`, `u . v` is
the sum of `a_p . b_q` over all pairs (patches: Stylianou et al., "Visualizing Deep Similarity Networks", 2019; pairs:
Zhu et al., "Visual Explanation for Deep Metric Learning", 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from service.saliency import ExplanationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.feature_maps import PatchParts
    from service.saliency import Subject


@dataclass(frozen=True, slots=True)
class Link:
    """A patch of the query and the patch of the item that answers to it, by their middles.

    Args:
        query_x: Fraction 0..1 of the width of the query's explained region.
        query_y: Fraction 0..1 of its height.
        item_x: As `query_x`, of the item.
        item_y: As `query_y`, of the item.
        share: What the pair brings to the similarity.
    """

    query_x: float
    query_y: float
    item_x: float
    item_y: float
    share: float


@dataclass(frozen=True, slots=True)
class Match:
    """Where the similarity of two photos comes from.

    Args:
        similarity: Cosine of the two embeddings.
        query_map: (S, S) float32 over the query's square: what each pixel brings. It adds up to the similarity less
            `unattributed`, and so does `item_map`.
        item_map: (S, S) float32, the same over the item's.
        links: The patches that answer to each other most, the strongest first.
        padding: How much of the similarity falls on the query's padding, and on the item's.
        unattributed: What of the similarity no patch brings: the class token's part with `cls+mean`, else 0.
        is_exact: False with `cls` pooling, where no sum over patches makes the similarity. The maps then add up to the
            similarity of the patch tokens' means, unscaled, and `unattributed` is what is missing to the real one: far
            from 0, the maps say little about it.
        usual: Of a relative match, what the query's places bring to the usual embedding, and the item's: the maps add
            up to the similarity less `unattributed` and less that. None where shares are whole.
    """

    similarity: float
    query_map: NDArray[np.float32]
    item_map: NDArray[np.float32]
    links: tuple[Link, ...]
    padding: tuple[float, float]
    unattributed: float
    is_exact: bool
    usual: tuple[float, float] | None = None


def match(
    query_parts: PatchParts,
    item_parts: PatchParts,
    query: Subject,
    item: Subject,
    *,
    links: int = 8,
    usual: NDArray[np.float32] | None = None,
) -> Match:
    """Where the similarity of two photos comes from.

    Args:
        query_parts: What each patch of the query brings to its embedding.
        item_parts: The same of the item, by the same encoder.
        query: The query's photo.
        item: The item's photo.
        links: How many pairs of patches are linked, at most.
        usual: (D,) float32, the mean embedding of a gallery: shares are then what a place brings beyond what it brings
            to that, which is what sets these two photos apart. None for whole shares.

    Raises:
        ExplanationError: The parts are those of two encoders, fewer than 0 links are asked for, or something usual
            where patches do not add up.
    """
    if query_parts.parts.shape[1] != item_parts.parts.shape[1]:
        raise ExplanationError(
            f"The query was split into parts of {query_parts.parts.shape[1]} numbers and the item into parts of "
            f"{item_parts.parts.shape[1]}. Split both with the same encoder."
        )
    if links < 0:
        raise ExplanationError(f"A match shows 0 links or more; got {links}.")
    is_exact = query_parts.is_exact and item_parts.is_exact
    if usual is not None and not is_exact:
        raise ExplanationError(
            "A relative match needs an encoder whose patches add up to its embeddings, and this one pools 'cls'. Ask "
            "for whole shares: --whole, or relative=false."
        )
    totals = query_parts.parts.sum(0), item_parts.parts.sum(0)
    common = np.float32(0) if usual is None else usual
    query_shares, item_shares = query_parts.parts @ (totals[1] - common), item_parts.parts @ (totals[0] - common)
    maps = (_spread(query_shares, query_parts, query), _spread(item_shares, item_parts, item))
    similarity = float(query_parts.embedding @ item_parts.embedding)
    has_remainder = query_parts.remainder is not None or item_parts.remainder is not None
    return Match(
        similarity=similarity,
        query_map=maps[0],
        item_map=maps[1],
        links=_strongest_links(query_parts, item_parts, query, item, links),
        padding=(_on_padding(maps[0], query), _on_padding(maps[1], item)),
        unattributed=similarity - float(totals[0] @ totals[1]) if has_remainder else 0.0,
        is_exact=is_exact,
        usual=None if usual is None else (float(totals[0] @ usual), float(totals[1] @ usual)),
    )


def _spread(shares: NDArray[np.float32], parts: PatchParts, subject: Subject) -> NDArray[np.float32]:
    """(S, S): each patch's share, evenly over its pixels."""
    rows, columns = (_coverage(len(subject.pixels), count) for count in parts.grid)
    # (P,) to (h, w)
    spread: NDArray[np.float32] = np.linalg.multi_dot([rows, shares.reshape(parts.grid), columns.T])
    return spread


@lru_cache
def _coverage(size: int, count: int) -> NDArray[np.float32]:
    """(size, count) float32: which part of each of `count` equal cells over a length lies in each of its pixels."""
    pixels, cells = np.arange(size)[:, None], np.arange(count)
    # A cell is size / count pixels long; here a pixel is `count` long and a cell `size`, so that edges are whole.
    ends = np.minimum((pixels + 1) * count, (cells + 1) * size)
    starts = np.maximum(pixels * count, cells * size)
    coverage: NDArray[np.float32] = (np.maximum(ends - starts, 0) / size).astype(np.float32)
    coverage.setflags(write=False)
    return coverage


def _on_padding(values: NDArray[np.float32], subject: Subject) -> float:
    area = subject.area
    return float(values.sum() - values[area.rows, area.columns].sum())


def _strongest_links(
    query_parts: PatchParts, item_parts: PatchParts, query: Subject, item: Subject, count: int
) -> tuple[Link, ...]:
    """One-to-one links, greedily from the strongest.

    Strength is the product of what each patch has beyond the mean patch of its photo: what all patches of a photo have
    in common says nothing of places. Measured in docs/experiments.md.
    """
    (query_numbers, query_middles), (item_numbers, item_middles) = (
        _on_photo(parts.grid, subject) for parts, subject in ((query_parts, query), (item_parts, item))
    )
    left, right = query_parts.parts[query_numbers], item_parts.parts[item_numbers]
    if not (len(left) and len(right)):
        return ()
    strength = (left - left.mean(0)) @ (right - right.mean(0)).T
    links: list[Link] = []
    for _ in range(min(count, *strength.shape)):
        one, other = np.unravel_index(int(strength.argmax()), strength.shape)
        if strength[one, other] <= 0:
            break
        links.append(Link(*query_middles[one], *item_middles[other], share=float(left[one] @ right[other])))
        strength[one] = strength[:, other] = -np.inf
    return tuple(links)


def _on_photo(grid: tuple[int, int], subject: Subject) -> tuple[list[int], list[tuple[float, float]]]:
    """The numbers of the patches whose middle lies on the photo and not on padding, and these middles, (x, y) 0..1."""
    area, size = subject.area, len(subject.pixels)
    numbers, middles = [], []
    for number in range(grid[0] * grid[1]):
        row, column = divmod(number, grid[1])
        x = ((column + 0.5) * size / grid[1] - area.left) / area.width
        y = ((row + 0.5) * size / grid[0] - area.top) / area.height
        if 0 <= x <= 1 and 0 <= y <= 1:
            numbers.append(number)
            middles.append((x, y))
    return numbers, middles
