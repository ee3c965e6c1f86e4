"""How alike two rankings of neighbours are, the first ranks counting most."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.retrieval_metrics import PADDING_ID, PerQuery


def rank_biased_overlap(
    first_ids: NDArray[np.integer[Any]], second_ids: NDArray[np.integer[Any]], *, persistence: float = 0.9
) -> PerQuery:
    """How much of two rankings a reader would find in both who goes on to the next rank with some probability.

    It is extrapolated: below the K ranks that are known the rankings are taken to agree as far as they do at K.

    Args:
        first_ids: (Q, K) int row ids, nearest first, each once in a row; -1 is padding at the end.
        second_ids: (Q, K) likewise, with as many ids in each row.
        persistence: The probability p to go on, above 0 and below 1; at 0.9 the first ten ranks weigh 86 %.

    Returns:
        (Q,) float64, 0 (nothing in common) to 1 (the same order); nan where a row holds no ids.

    Raises:
        ValueError: Not two tables of one shape, rows of different lengths, or a persistence out of its range.

    Source: Webber, Moffat, Zobel, "A similarity measure for indefinite rankings", ACM Transactions on Information
    Systems 28 (2010), formula 23 (RBO_EXT).
    """
    if first_ids.ndim != 2 or first_ids.shape != second_ids.shape:
        raise ValueError(f"Both must be (queries, neighbours); got shapes {first_ids.shape} and {second_ids.shape}.")
    if not 0 < persistence < 1:
        raise ValueError(f"'persistence' must be above 0 and below 1, for example 0.9; got {persistence}.")
    lengths = (first_ids != PADDING_ID).sum(axis=1)
    if (lengths != (second_ids != PADDING_ID).sum(axis=1)).any():
        raise ValueError("Two rankings are compared at one length; a row of 'first_ids' is not as long as the second.")
    count = first_ids.shape[1]
    sums, shared = np.zeros(len(first_ids)), np.zeros((len(first_ids), count + 1))
    for depth in range(1, count + 1):
        first, second = first_ids[:, depth - 1], second_ids[:, depth - 1]
        # What rank `depth` brings: an id of the one that the other has had by now, and the other way round.
        fresh = (second_ids[:, :depth] == first[:, None]).any(axis=1).astype(np.int64)
        fresh += (first_ids[:, : depth - 1] == second[:, None]).any(axis=1)
        known = depth <= lengths
        shared[:, depth] = shared[:, depth - 1] + np.where(known, fresh, 0)
        sums += np.where(known, shared[:, depth] / depth * persistence**depth, 0)
    last = np.take_along_axis(shared, lengths[:, None], axis=1)[:, 0]
    overlap: PerQuery = np.full(len(first_ids), np.nan)
    some = lengths > 0
    overlap[some] = last[some] / lengths[some] * persistence ** lengths[some]
    overlap[some] += (1 - persistence) / persistence * sums[some]
    return overlap
