"""How far a map can be trusted: whether hiding what it marks moves the answer sooner than hiding random places."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from service.occlusion import TOGETHER, hide
from service.saliency import ExplanationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from data.images import Area
    from service.saliency import Subject

# (B, S, S, 3) uint8 photos to (B,): a probability, or a similarity.
ScorePhotos = Callable[["NDArray[np.uint8]"], "NDArray[np.floating]"]

# From this rank correlation on, a map has not changed enough when the weights did. Maps of heads that have nothing in
# common correlate by chance, since few of a map's places move by themselves: of 30 photos and 5 shuffled heads, 5 in
# 100 occlusion maps came above 0.54, and 11 above 0.5; the mean over the 5 heads stayed below 0.4 for each photo.
SAME_MAP = 0.5
# Cells whose means differ by less than this part of the largest are tied: float32 knows no more.
_TIED_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Deletion and insertion of a photo by a map, beside random orders of the same cells.

    An area is that under a curve of the score over the share of cells, 0..1 for a probability.

    Args:
        shares: Where the curves were taken: shares of the cells that are hidden (deletion) or shown (insertion), from
            0 to 1.
        deletion_curve: The score at each share while cells are hidden, the map's highest first.
        insertion_curve: The score at each share while cells are shown, the map's highest first.
        random_deletion_curve: The mean over the random orders.
        random_insertion_curve: The mean over the random orders.
        deletion: Area; lower is better.
        insertion: Area; higher is better.
        random_deletions: The area of each random order.
        random_insertions: The area of each random order.
        cells: How many the photo was cut into.
        sanity: Rank correlation, -1..1, with the map of randomised weights; None where it was not asked.
        randomised: Which weights those were, as in "the head's weights".
    """

    shares: tuple[float, ...]
    deletion_curve: tuple[float, ...]
    insertion_curve: tuple[float, ...]
    random_deletion_curve: tuple[float, ...]
    random_insertion_curve: tuple[float, ...]
    deletion: float
    insertion: float
    random_deletions: tuple[float, ...]
    random_insertions: tuple[float, ...]
    cells: int
    sanity: float | None = None
    randomised: str = ""

    @property
    def steps(self) -> int:
        """Parts that each curve was taken in."""
        return len(self.shares) - 1

    @property
    def random_deletion(self) -> float:
        """The mean area of the random orders."""
        return float(np.mean(self.random_deletions))

    @property
    def random_insertion(self) -> float:
        """The mean area of the random orders."""
        return float(np.mean(self.random_insertions))

    @property
    def deletes_sooner(self) -> bool:
        """Whether the map's deletion beats that of every random order."""
        return self.deletion < min(self.random_deletions)

    @property
    def inserts_sooner(self) -> bool:
        """Whether the map's insertion beats that of every random order."""
        return self.insertion > max(self.random_insertions)


def measure_faithfulness(
    subject: Subject,
    values: NDArray[np.float32],
    score: ScorePhotos,
    *,
    steps: int = 16,
    cells: int = 14,
    randoms: int = 3,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> Faithfulness:
    """The deletion and insertion figures of a map, beside those of random orders on the same photo.

    The photo is cut into cells, and a cell ranks by the mean of its values; ties are broken by chance. Deletion lays
    the photo's mean colour over cells, from the highest on; insertion starts from the blurred photo and puts cells
    back.

    Args:
        subject: The photo.
        values: (S, S) float32, finite: the map. What it says of the padding does not count.
        score: Gives (B,) of (B, S, S, 3) uint8 photos: a probability, or a similarity. Asked about no photo twice.
        steps: Parts that a curve is taken in, at most one a cell.
        cells: Cells along a side of the square; the photo has as many as lie in it.
        randoms: Random orders.
        seed: Of the random orders and of the ties.
        check: Called before each batch; what it raises ends the work.

    Raises:
        ExplanationError: The map is not one of this photo, or an argument is out of its range.

    Source: Petsiuk, Das and Saenko 2018 (RISE), section 4.2, with cells in place of pixels.
    """
    if min(steps, cells, randoms) < 1:
        raise ExplanationError(
            f"Faithfulness takes at least 1 step, cell and random order; got {steps}, {cells} and {randoms}."
        )
    pixels, area = subject.pixels, subject.area
    grid = _grid(area, len(pixels), cells)
    count = int(grid.max()) + 1
    # At most one step a cell: with more, some would change nothing.
    counts = np.linspace(0, count, min(steps, count) + 1).round().astype(int)
    orders = [_rank_cells(values, grid, seed)]
    orders += [np.random.default_rng([seed, number]).permutation(count) for number in range(1, randoms + 1)]
    ways = ((pixels, hide(pixels, area, "mean")), (hide(pixels, area, "blur"), pixels))
    photos = (photo for way in ways for order in orders for photo in _exchange(*way, grid, order, counts))
    # (2 * (1 + randoms) * (1 + steps),) to a curve for each way and order
    return _summarise(_ask(photos, score, check).reshape(2, len(orders), len(counts)), counts / count, count)


def _summarise(curves: NDArray[np.float64], shares: NDArray[np.float64], cells: int) -> Faithfulness:
    """The figures of (2, 1 + randoms, 1 + steps) scores: deletion and insertion, in the map's order and random ones."""
    deletions, insertions = (np.asarray(np.trapezoid(way, shares, axis=1)) for way in curves)
    means = curves[:, 1:].mean(axis=1)
    return Faithfulness(
        shares=tuple(shares.tolist()),
        deletion_curve=tuple(curves[0, 0].tolist()),
        insertion_curve=tuple(curves[1, 0].tolist()),
        random_deletion_curve=tuple(means[0].tolist()),
        random_insertion_curve=tuple(means[1].tolist()),
        deletion=float(deletions[0]),
        insertion=float(insertions[0]),
        random_deletions=tuple(deletions[1:].tolist()),
        random_insertions=tuple(insertions[1:].tolist()),
        cells=cells,
    )


def rank_correlation(a: NDArray[np.floating], b: NDArray[np.floating], area: Area) -> float:
    """How alike two maps rank the pixels of a photo, -1..1: Spearman's correlation; 0 where just one of them is flat.

    Args:
        a: (S, S), finite.
        b: (S, S), finite.
        area: Where the photo lies.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(values[area.rows, area.columns]) for values in (a, b)]
    flat = [bool(np.ptp(rank) == 0) for rank in ranks]
    # Two flat maps are the same map; one flat map says nothing of another.
    return float(all(flat)) if any(flat) else float(np.corrcoef(*ranks)[0, 1])


def centre_map(area: Area, size: int) -> NDArray[np.float32]:
    """A map that knows only that photos show their garment in the middle, (S, S) float32 in 0..1; 0 in the padding.

    Args:
        area: Where the photo lies.
        size: S, pixels.
    """
    down, across = (((np.arange(length) + 0.5) / length - 0.5) * 4 for length in (area.height, area.width))
    values = np.zeros((size, size), np.float32)
    # A standard deviation is a quarter of the side.
    values[area.rows, area.columns] = np.exp(-0.5 * (down[:, None] ** 2 + across[None, :] ** 2))
    return values


def verdict(faithfulness: Faithfulness, *, score: str = "probability") -> str:
    """What the figures mean, in a few plain sentences for people who sell clothes.

    Nothing is said against a map that beats every random order in deletion and in insertion, and that changed with the
    weights: its rank correlation with that of randomised weights is below SAME_MAP.

    Args:
        faithfulness: The figures.
        score: What was asked for: `probability` or `similarity`.

    Source: the sanity check is that of Adebayo et al. 2018, "Sanity Checks for Saliency Maps", section 4.
    """
    f = faithfulness
    hiding = f"takes the {score} down {_soon(f.deletes_sooner, f.deletion < f.random_deletion)} than hiding random "
    hiding += f"places ({_compare(f.deletion, f.random_deletion)}; lower is better)"
    showing = f"showing it first brings it up {_soon(f.inserts_sooner, f.insertion > f.random_insertion)} "
    showing += f"({_compare(f.insertion, f.random_insertion)}; higher is better)"
    joint = "and" if f.deletes_sooner == f.inserts_sooner else "but"
    return f"{_opening(f)} {hiding}, {joint} {showing}."


def _opening(f: Faithfulness) -> str:
    """How far the map can be trusted, up to the figures of deletion."""
    if f.sanity is not None and f.sanity >= SAME_MAP:
        return (
            f"Do not rely on this map: it looks much the same when {f.randomised} are replaced by random ones (rank "
            f"correlation {f.sanity:.2f}; less than {SAME_MAP} is wanted), so it shows what the photo is like and not "
            "what was learned. Hiding what it marks"
        )
    if f.deletes_sooner and f.inserts_sooner:
        return "Hiding what the map marks"
    if f.deletes_sooner or f.inserts_sooner:
        return "Take this map with care: hiding what it marks"
    return "Do not rely on this map: hiding what it marks"


def _soon(beats_all: bool, beats_mean: bool) -> str:
    return "sooner" if beats_all else "not clearly sooner" if beats_mean else "no sooner"


def _grid(area: Area, size: int, cells: int) -> NDArray[np.intp]:
    """The number of each pixel's cell, (S, S), counted row by row; -1 in the padding."""
    grid = np.full((size, size), -1)
    down, across = _cells_along(area.height, size, cells), _cells_along(area.width, size, cells)
    grid[area.rows, area.columns] = down[:, None] * (across.max() + 1) + across[None, :]
    return grid


def _cells_along(length: int, size: int, cells: int) -> NDArray[np.intp]:
    """The cell of each pixel along a side, (length,): about as long as those of the whole square, none empty."""
    count = min(max(1, round(length * cells / size)), length)
    return np.arange(length) * count // length


def _rank_cells(values: NDArray[np.float32], grid: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """The cells, from the one with the highest mean on."""
    inside = grid >= 0
    if values.shape != grid.shape or not np.isfinite(values[inside]).all():
        raise ExplanationError(
            f"The map of this photo has {len(grid)} x {len(grid)} finite values; got shape {values.shape} with "
            f"{np.count_nonzero(~np.isfinite(values))} that are not finite."
        )
    means = np.bincount(grid[inside], values[inside]) / np.bincount(grid[inside])
    means /= np.abs(means).max() or 1
    # By place, ties would go to the top left, and a flat map would mark a corner.
    chance = np.random.default_rng([seed, 0]).permutation(len(means))
    return np.lexsort((chance, -means.round(_TIED_DECIMALS)))


def _exchange(
    start: NDArray[np.uint8],
    end: NDArray[np.uint8],
    grid: NDArray[np.intp],
    order: NDArray[np.intp],
    counts: NDArray[np.intp],
) -> Iterator[NDArray[np.uint8]]:
    """The start with the first cells of an order taken from the end, for each of some counts of cells."""
    # The place of each pixel in the order, (S, S, 1); any will do in the padding, where start and end are the same.
    place = np.argsort(order)[grid][..., None]
    for count in counts:
        yield np.where(place < count, end, start)


def _ask(photos: Iterable[NDArray[np.uint8]], score: ScorePhotos, check: Callable[[], None]) -> NDArray[np.float64]:
    """The score of each photo, in batches; equal photos, such as the ends of all curves, are asked about once."""
    numbers: dict[bytes, int] = {}
    asked: list[int] = []
    waiting: list[NDArray[np.uint8]] = []
    answers: list[float] = []

    def flush() -> None:
        check()
        answers.extend(score(np.stack(waiting)).tolist())
        waiting.clear()

    for photo in photos:
        key = hashlib.blake2b(photo.tobytes(), digest_size=16).digest()
        if key not in numbers:
            numbers[key] = len(numbers)
            waiting.append(photo)
        asked.append(numbers[key])
        if len(waiting) == TOGETHER:
            flush()
    if waiting:
        flush()
    return np.array(answers)[asked]


def _compare(ours: float, random: float) -> str:
    """Both areas, in as many digits as tell them apart."""
    digits = next((digits for digits in (2, 3) if f"{ours:.{digits}f}" != f"{random:.{digits}f}"), 4)
    return f"{ours:.{digits}f} against {random:.{digits}f}"
