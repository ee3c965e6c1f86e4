"""A layout of a gallery on a plane: its embeddings in two numbers each, so that those that are near stay near.

Source of the method: Wang, Huang, Rudin, Shaposhnik, "Understanding how dimension reduction tools work", JMLR 22(201),
2021 (PaCMAP), which reduces to 100 principal components first, as is done here.
"""

from __future__ import annotations

import io
import logging
import os
import re
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.snapshot import batch_embeddings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from indexer.snapshot import Snapshot

# Fewer have not the 10 near, 5 middling and 20 far others that PaCMAP pulls and pushes each with.
LEAST_FOR_PACMAP = 36
_COMPONENTS = 100
_STEPS = 450
# Of the variance of unit vectors, which is 1 at most: below it all are one photo, up to rounding.
_NO_VARIANCE = 1e-9
# Called with what is done, of how much, and what that is.
Tell = Callable[[int, int, str], None]


class LayoutError(ValueError):
    """A gallery that there is nothing to draw of."""


def lay_out(snapshot: Snapshot, *, seed: int, tell: Tell) -> tuple[NDArray[np.float32], str]:
    """A place for each item of a gallery; the same for the same embeddings, seed and machine.

    One block of embeddings is in memory at a time, and then N x 100 numbers.

    Args:
        snapshot: The gallery.
        seed: Of what is random, 0 to 2^32 - 1.
        tell: Called now and then.

    Returns:
        (N, 2) float32, x to the right and y downwards, 0..1, of one scale; and how they were found, in words.

    Raises:
        LayoutError: The gallery is empty.
        StoreError: It cannot be read.
    """
    if not len(snapshot):
        raise LayoutError("The gallery is empty, so that there is nothing to draw; index some photos first.")
    reduced = _principal_components(snapshot, tell)
    if len(reduced) < LEAST_FOR_PACMAP:
        return fit_square(reduced[:, :2]), "PCA"
    if reduced.var(axis=0).sum() < _NO_VARIANCE:
        return fit_square(np.zeros((len(reduced), 2), np.float32)), "PCA"
    tell(0, _STEPS, "finding neighbours")
    places = _pacmap(reduced, seed, lambda step: tell(step, _STEPS, "placing items"))
    return fit_square(places), f"PaCMAP of {reduced.shape[1]} principal components"


def fit_square(places: NDArray[np.float32]) -> NDArray[np.float32]:
    """Places moved and scaled into the square 0..1, in its middle, with their aspect ratio and with y downwards.

    Args:
        places: (N, 2), y upwards, N 1 or more.
    """
    lowest, highest = places.min(axis=0).astype(np.float64), places.max(axis=0).astype(np.float64)
    scale = float((highest - lowest).max()) or 1.0
    centred = (places - (lowest + highest) / 2) / scale * (1, -1)
    fitted: NDArray[np.float32] = (centred + 0.5).clip(0, 1).astype(np.float32)
    return fitted


def _principal_components(snapshot: Snapshot, tell: Tell) -> NDArray[np.float32]:
    """The first 100 principal components of all embeddings, (N, min(100, D)) float32; two at least."""
    rows, dimension = len(snapshot), snapshot.card.dimension
    total, squares, done = np.zeros(dimension), np.zeros((dimension, dimension)), 0
    for batch in snapshot.batches("embedding"):
        block = batch_embeddings(batch)
        total += block.sum(axis=0, dtype=np.float64)
        squares += block.T @ block
        done += len(block)
        tell(done, 2 * rows, "reading embeddings")
    mean = total / rows
    # E[x x'] - E[x] E[x]', of float64 sums
    axes = _axes(squares / rows - np.outer(mean, mean))
    reduced = np.zeros((rows, max(2, axes.shape[1])), np.float32)
    start = 0
    for batch in snapshot.batches("embedding"):
        block = batch_embeddings(batch)
        reduced[start : start + len(block), : axes.shape[1]] = (block - mean.astype(np.float32)) @ axes
        start += len(block)
        tell(rows + start, 2 * rows, "reducing embeddings")
    return reduced


def _axes(covariance: NDArray[np.float64]) -> NDArray[np.float32]:
    """The eigenvectors, (D, min(100, D)) float32, of the largest eigenvalues, each with its largest number positive."""
    from scipy.linalg import eigh

    dimension = len(covariance)
    _, vectors = eigh(covariance, subset_by_index=(max(0, dimension - _COMPONENTS), dimension - 1))
    vectors = vectors[:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.where(vectors[largest, np.arange(vectors.shape[1])] < 0, -1, 1)
    axes: NDArray[np.float32] = (vectors * signs).astype(np.float32)
    return axes


def _pacmap(reduced: NDArray[np.float32], seed: int, tell: Callable[[int], None]) -> NDArray[np.float32]:
    """PaCMAP's places, (N, 2), of principal components."""
    if "MODISTE_CACHE" in os.environ:
        # Else numba keeps what it compiles beside the package or in the user's own cache, and wants one of them.
        os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(os.environ["MODISTE_CACHE"]) / "numba"))
    with _quiet(tell):
        from pacmap import PaCMAP

        # With a seed it searches neighbours in one thread. Its seeds have a sign.
        places: NDArray[np.float32] = PaCMAP(random_state=seed % 2**31, verbose=True).fit_transform(reduced)
    return places


@contextmanager
def _quiet(tell: Callable[[int], None]) -> Iterator[None]:
    """Keeps PaCMAP's warnings to itself, and tells the steps that it prints."""
    logger = logging.getLogger("pacmap")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(_Steps(tell)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


class _Steps(io.TextIOBase):
    """A file that says which step the text written to it tells of."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell

    def write(self, text: str) -> int:
        """Takes a part of the text."""
        if found := re.match(r"Iteration: +(\d+)", text):
            self._tell(int(found[1]))
        return len(text)
