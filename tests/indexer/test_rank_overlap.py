"""Rank-biased overlap, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.rank_overlap import rank_biased_overlap


def overlap(first, second, **options):
    return rank_biased_overlap(np.array([first]), np.array([second]), **options)[0]


def test_the_example_of_the_page():
    # In common among the first 1, 2, 3: 1, 1, 2. 2/3 x 0.125 + (0.5 + 0.5 x 0.25 + 2/3 x 0.125).
    assert overlap([1, 2, 3], [1, 3, 4], persistence=0.5) == pytest.approx(0.79167, abs=1e-5)


def test_the_same_is_one_and_nothing_in_common_is_none():
    assert overlap(range(10), range(10)) == pytest.approx(1)
    assert overlap(range(10), range(10, 20)) == 0
    assert overlap([5], [5]) == pytest.approx(1)


def test_first_ranks_count_most():
    ids = list(range(10))
    swapped_first, swapped_last = [1, 0, *ids[2:]], [*ids[:8], 9, 8]
    # Of the first rank alone (1 - p) / p x p = 0.1 is lost; of the ninth 0.1 / 0.9 x 1/9 x 0.9^9.
    assert overlap(ids, swapped_first) == pytest.approx(0.9)
    assert overlap(ids, swapped_last) == pytest.approx(1 - 0.1 / 0.9 / 9 * 0.9**9)


def test_it_does_not_matter_which_is_first():
    one, other = [4, 2, 9, 7], [2, 8, 4, 1]
    assert overlap(one, other) == overlap(other, one)


def test_padding_shortens_a_ranking():
    assert overlap([1, 2, -1], [1, 2, -1]) == pytest.approx(1)
    assert overlap([1, 2, -1, -1], [2, 3, -1, -1]) == pytest.approx(overlap([1, 2], [2, 3]))
    assert np.isnan(overlap([-1, -1], [-1, -1]))


@pytest.mark.parametrize(
    ("first", "second", "persistence", "message"),
    [
        ([[1, 2]], [[1, 2, 3]], 0.9, r"got shapes \(1, 2\) and \(1, 3\)"),
        ([1, 2], [1, 2], 0.9, r"Both must be \(queries, neighbours\)"),
        ([[1, 2]], [[1, -1]], 0.9, "not as long as the second"),
        ([[1]], [[1]], 1.0, "got 1.0"),
    ],
)
def test_what_does_not_fit_is_refused(first, second, persistence, message):
    with pytest.raises(ValueError, match=message):
        rank_biased_overlap(np.array(first), np.array(second), persistence=persistence)
