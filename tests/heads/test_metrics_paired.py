"""The comparison of two heads against arithmetic done by hand and against the binomial summed term by term."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heads.metrics import MetricError
from heads.metrics_paired import McNemar, PairedDifference, holm, mcnemar, paired_bootstrap, photos_needed, verdict


def answers(both: int, only_first: int, only_second: int, neither: int = 0) -> tuple[Any, Any]:
    """What two heads have right, so many photos of each kind."""
    counts = [both, only_first, only_second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def test_mcnemar_counts_the_queries_on_which_the_heads_differ():
    # Eight differ, as 1 to 7. A fair coin gives 0 or 1 head in 8 throws, or 0 or 1 tail, in (1 + 8) * 2 of 256 cases.
    assert mcnemar(*answers(20, 1, 7, 3)) == McNemar(1, 7, pytest.approx(18 / 256))
    assert mcnemar(*answers(20, 7, 1, 3)) == McNemar(7, 1, pytest.approx(18 / 256))
    # As 2 to 2: nothing is more even, so everything is at least as uneven.
    assert mcnemar(*answers(0, 2, 2)) == McNemar(2, 2, 1.0)


@pytest.mark.parametrize("counts", [(5, 0, 0, 5), (0, 0, 0, 0)])
def test_heads_that_never_differ_have_a_p_value_of_one(counts):
    assert mcnemar(*answers(*counts)) == McNemar(0, 0, 1.0)


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 5))
def test_mcnemar_is_the_two_sided_binomial_whatever_both_have_right(only_first, only_second, both):
    test = mcnemar(*answers(both, only_first, only_second, 2 * both))
    count = only_first + only_second
    tail = sum(math.comb(count, wins) for wins in range(min(only_first, only_second) + 1)) / 2**count
    assert test.p_value == pytest.approx(min(1, 2 * tail))


def test_the_difference_is_the_second_less_the_first():
    first, second = np.array([0.2, 0.5, 0.9]), np.array([0.4, 0.5, 1.0])
    # A mean of 0.2, 0 and 0.1.
    assert paired_bootstrap(first, second).mean == pytest.approx(0.1)
    # All differ alike, so every resample gives that.
    assert paired_bootstrap(first, first + 0.25) == PairedDifference(*[pytest.approx(0.25)] * 3)
    assert paired_bootstrap(np.array([True, True]), np.array([False, False])) == PairedDifference(-1, -1, -1)


def test_the_interval_agrees_with_the_normal_approximation():
    first, second = answers(500, 100, 200, 200)
    difference = paired_bootstrap(first, second, resamples=4000)
    # 0.1 on average, with a variance of 0.3 - 0.1^2 = 0.29: 0.1 -+ 1.96 * sqrt(0.29 / 1000) = 0.0666..0.1334. Unpaired
    # it would be sqrt((0.24 + 0.21) / 1000) and so a fourth wider. The ends of 4,000 resamples wobble by about 0.001.
    assert difference.mean == pytest.approx(0.1)
    assert (difference.low, difference.high) == pytest.approx((0.0666, 0.1334), abs=0.003)
    half = paired_bootstrap(first, second, confidence=0.5, resamples=4000)
    # The middle half: 0.1 -+ 0.6745 * 0.01703.
    assert (half.low, half.high) == pytest.approx((0.0885, 0.1115), abs=0.003)


def test_the_interval_is_the_same_for_the_same_seed_and_in_any_number_of_chunks(monkeypatch):
    first, second = np.random.default_rng(1).random((2, 50))
    whole = paired_bootstrap(first, second, seed=3)
    assert whole == paired_bootstrap(first, second, seed=3)
    assert whole != paired_bootstrap(first, second, seed=4)
    sizes = []

    class Generator:
        """Notes how many numbers are drawn at a time."""

        def __init__(self, seed: int) -> None:
            self.real = np.random.Generator(np.random.PCG64(seed))

        def integers(self, high: int, size: tuple[int, int]) -> Any:
            sizes.append(size)
            return self.real.integers(high, size=size)

    monkeypatch.setattr("numpy.random.default_rng", Generator)
    # 400 resamples of two at a time, then one at a time because a single one passes the limit.
    for draws, rows in ((100, 2), (10, 1)):
        monkeypatch.setattr("heads.metrics_paired._DRAWS_AT_A_TIME", draws)
        chunked = paired_bootstrap(first, second, seed=3)
        assert set(sizes) == {(rows, 50)}
        sizes.clear()
        assert (chunked.low, chunked.high) == pytest.approx((whole.low, whole.high), abs=1e-12)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_the_other_way_round_the_difference_changes_its_sign(seed, count):
    first, second = np.random.default_rng(seed).random((2, count)).astype(np.float32)
    there, back = paired_bootstrap(first, second, resamples=50), paired_bootstrap(second, first, resamples=50)
    assert (back.mean, back.low, back.high) == pytest.approx((-there.mean, -there.high, -there.low), abs=1e-12)
    assert there.low <= there.high


def test_of_no_queries_there_is_no_difference():
    nothing = paired_bootstrap(np.empty(0), np.empty(0))
    assert all(math.isnan(value) for value in (nothing.mean, nothing.low, nothing.high))


@pytest.mark.parametrize(("only_knn", "only_linear"), [(30, 60), (60, 30)])
def test_the_verdict_names_the_winner(only_knn, only_linear):
    first, second = answers(900, only_knn, only_linear, 10)
    result = verdict("knn", "linear", first, second)
    winner, loser = ("linear", "knn") if only_linear > only_knn else ("knn", "linear")
    assert result.winner == winner
    assert result.mcnemar == mcnemar(first, second)
    assert result.difference == paired_bootstrap(first, second)
    # 30 / 1,000 is 3 points; the variance is 0.09 - 0.03^2, so 0.03 -+ 1.96 * 0.00944 is 1.1 to 4.9 points, give or
    # take the wobble of 1,000 resamples; the sentence speaks of the winner's lead. The p-value of 30 of 90 is 0.002.
    low, high = sorted(abs(100 * end) for end in (result.difference.low, result.difference.high))
    assert (low, high) == pytest.approx((1.1, 4.9), abs=0.3)
    assert result.sentence == (
        f"{winner} is right more often than {loser}: 3.0 points ({low:.1f} to {high:.1f}), McNemar p = 0.002, "
        f"on 1,000 photos."
    )


def test_a_p_value_too_small_to_print_is_said_to_be_below():
    result = verdict("knn", "linear", *answers(0, 0, 20))
    assert result.sentence == (
        "linear is right more often than knn: 100.0 points (100.0 to 100.0), McNemar p < 0.001, on 20 photos."
    )


def test_the_verdict_does_not_name_the_one_ahead_by_chance():
    # 1 to 7 has a p-value of 18 / 256, though the bootstrap interval excludes 0.
    first, second = answers(20, 1, 7, 2)
    result = verdict("knn", "linear", first, second)
    assert result.winner is None
    assert result.difference.low > 0
    low, high = 100 * result.difference.low, 100 * result.difference.high
    assert result.sentence == (
        f"knn and linear cannot be told apart on these 30 photos: linear is ahead by 20.0 points "
        f"({low:.1f} to {high:.1f}), McNemar p = 0.070."
    )
    swapped = verdict("linear", "knn", second, first)
    assert swapped.sentence == result.sentence.replace("knn and linear", "linear and knn")


def test_the_verdict_on_heads_that_are_equally_good():
    assert verdict("knn", "mlp", *answers(3, 0, 0, 1)).sentence == (
        "knn and mlp cannot be told apart on these 4 photos: a difference of 0.0 points (0.0 to 0.0), "
        "McNemar p = 1.000."
    )
    assert verdict("knn", "mlp", *answers(0, 1, 0)).sentence == (
        "knn and mlp cannot be told apart on this photo: knn is ahead by 100.0 points (100.0 to 100.0), "
        "McNemar p = 1.000."
    )
    nothing = verdict("knn", "mlp", *answers(0, 0, 0))
    assert nothing.winner is None
    assert nothing.sentence == "knn and mlp have no photos to be compared on."


def test_a_lead_that_may_be_none_has_no_minus_before_its_zero():
    # In most resamples of a hundred one of three is drawn at least once, in some none: the interval starts at 0.
    sentence = verdict("knn", "mlp", *answers(97, 3, 0)).sentence
    assert "knn is ahead by 3.0 points (0.0 to " in sentence


RIGHT = np.array([True, False])


def test_p_values_of_several_tests_are_corrected_by_holm():
    # In order 0.01, 0.03, 0.04, 0.5, times 4, 3, 2, 1: 0.04, 0.09, 0.08, 0.5. None is smaller than the one before.
    assert holm([0.04, 0.01, 0.5, 0.03]) == pytest.approx([0.09, 0.04, 0.5, 0.09])
    # Twice 0.6 is no chance.
    assert holm([0.6, 0.7]) == [1, 1]
    # One test needs no correction.
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_the_photos_that_a_difference_takes():
    # Of 30 photos 8 differ, by 6: shares of 0.2667 and 0.2. 1.960 * sqrt(0.2667) = 1.0121, 0.8416 * sqrt(0.2667 - 0.04)
    # = 0.4007, and ((1.0121 + 0.4007) / 0.2)^2 = 49.9.
    assert photos_needed(1, 7, 30) == photos_needed(7, 1, 30) == 50
    # At 0.005 it is 2.807 * 0.5164 = 1.4496, and (1.8503 / 0.2)^2 = 85.6.
    assert photos_needed(1, 7, 30, significance=0.005) == 86
    # In half of the trials: (1.0121 / 0.2)^2 = 25.6.
    assert photos_needed(1, 7, 30, power=0.5) == 26
    # All differ, one way: 1.960^2 = 3.8.
    assert photos_needed(0, 5, 5) == 4
    assert photos_needed(3, 3, 20) is None


def test_with_so_many_photos_four_trials_of_five_show_the_difference():
    count = photos_needed(40, 80, 1000)
    assert count == 587
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(count, [0.04, 0.08, 0.88], size=400)
    shown = [mcnemar(*answers(0, first, second, rest)).p_value < 0.05 for first, second, rest in drawn]
    # The standard error is 0.02, and the exact test shows a little less than the formula says.
    assert 0.72 < np.mean(shown) < 0.84


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mcnemar(RIGHT, RIGHT[:1]), r"two \(queries,\) bool; got bool \(2,\) and bool \(1,\)"),
        (lambda: mcnemar(RIGHT, RIGHT * 1), r"got bool \(2,\) and int64 \(2,\)"),
        (lambda: mcnemar(RIGHT * 1, RIGHT), r"got int64 \(2,\) and bool \(2,\)"),
        (lambda: mcnemar(RIGHT[None], RIGHT[None]), r"got bool \(1, 2\)"),
        (lambda: verdict("knn", "mlp", RIGHT, RIGHT[:1]), r"two \(queries,\) bool"),
        (lambda: paired_bootstrap(RIGHT, RIGHT[:1]), r"one value a query; got \(2,\) and \(1,\)"),
        (lambda: paired_bootstrap(RIGHT[None], RIGHT[None]), r"got \(1, 2\) and \(1, 2\)"),
        (lambda: paired_bootstrap(np.array([0.1, np.nan]), RIGHT), "A value is not finite"),
        (lambda: paired_bootstrap(RIGHT, np.array([0.1, np.inf])), "A value is not finite"),
        (lambda: paired_bootstrap(RIGHT, RIGHT, confidence=1), "above 0 and below 1, for example 0.95; got 1"),
        (lambda: paired_bootstrap(RIGHT, RIGHT, confidence=0), "above 0 and below 1, for example 0.95; got 0"),
        (lambda: holm([0.1, 1.5]), "A p value is 0 to 1; got 0.1, 1.5"),
        (lambda: paired_bootstrap(RIGHT, RIGHT, resamples=0), "'resamples' must be 1 or more; got 0"),
    ],
)
def test_a_wrong_argument_is_refused_with_a_sentence(call: Callable[[], Any], message: str):
    with pytest.raises(MetricError, match=message):
        call()
