"""None of these: the share of known photos that look as strange, and its error rates on labels held out."""

from __future__ import annotations

import numpy as np
import pytest

from heads import novelty
from heads.metrics import wilson_interval
from heads.novelty import REJECTED, Novelty, Trial


def trial(seed, *, count=400, novel=0.25, gap=0.3, doubt=0.0):
    """Known photos at distances around 0.3, novel ones further off by the gap and with less probability."""
    rng = np.random.default_rng(seed)
    is_novel = np.arange(count) < count * novel
    distances = rng.normal(0.3, 0.05, count).clip(0.01) + gap * is_novel
    probabilities = rng.uniform(0.6, 1, count) - doubt * is_novel
    return Trial(distances.astype(np.float32), probabilities.astype(np.float32), is_novel)


def ask(fitted, distance, probability=0.8):
    return float(fitted.familiarity(np.array([distance], np.float32), np.array([probability], np.float32))[0])


def test_familiarity_by_hand():
    # With nothing novel it is the share of known distances that are at least as large.
    distances = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    fitted = Novelty.fit([Trial(distances, np.array([0.9, 0.5, 0.1, 0.7], np.float32), np.zeros(4, bool))])
    assert [ask(fitted, distance) for distance in (0, 0.1, 0.15, 0.2, 0.35, 0.4, 0.5)] == [
        1,
        1,
        0.75,
        0.75,
        0.25,
        0.25,
        0,
    ]
    # Doubt is of no account then.
    assert ask(fitted, 0.35, 0.01) == 0.25
    assert fitted.rates == {}
    share = fitted.familiarity(distances, distances)
    assert (share.dtype, share.shape) == (np.float32, (4,))


def test_known_photos_are_familiar_and_novel_ones_are_not():
    fitted = Novelty.fit([trial(seed) for seed in range(3)])
    new = trial(9)
    rejected = fitted.familiarity(new.distances, new.probabilities) < REJECTED
    assert rejected[new.is_novel].mean() > 0.95
    assert rejected[~new.is_novel].mean() == pytest.approx(REJECTED, abs=0.04)
    # Further is stranger.
    shares = [ask(fitted, distance) for distance in (0.1, 0.3, 0.35, 0.6)]
    assert shares == sorted(shares, reverse=True)
    assert (shares[0], shares[-1]) == (1, 0)
    assert (fitted.weights.dtype, fitted.weights.shape, fitted.known.dtype) == (np.float32, (3,), np.float32)
    assert (np.diff(fitted.known) >= 0).all()


def test_doubt_makes_strange_where_distance_does_not():
    fitted = Novelty.fit([trial(seed, gap=0, doubt=0.5) for seed in range(3)])
    assert ask(fitted, 0.3, 0.9) > 0.3
    assert ask(fitted, 0.3, 0.2) < REJECTED


def test_rates_are_those_of_scales_that_were_fitted_on_other_trials():
    trials = [trial(seed, gap=0.1) for seed in range(3)]
    rates = Novelty.fit(trials).rates
    out, is_novel = [], []
    for asked in trials:
        others = Novelty.fit([other for other in trials if other is not asked])
        out.append(others.familiarity(asked.distances, asked.probabilities) < 0.05)
        is_novel.append(asked.is_novel)
    out, is_novel = np.concatenate(out), np.concatenate(is_novel)
    for name, among, count in (("known_rejected", ~is_novel, 900), ("novel_found", is_novel, 300)):
        assert rates[name] == out[among].mean()
        assert (rates[f"{name}_low"], rates[f"{name}_high"]) == wilson_interval(int(out[among].sum()), count)
        assert rates[f"{name}_photos"] == count
    assert len(rates) == 8
    assert rates["known_rejected"] == pytest.approx(REJECTED, abs=0.02)
    # Neither all nor none, or the comparison says little.
    assert 0.3 < rates["novel_found"] < 0.9


def test_two_trials_are_enough_to_measure():
    assert Novelty.fit([trial(0), trial(1)]).rates["novel_found_photos"] == 200


@pytest.mark.parametrize("trials", [[trial(0)], [trial(0), trial(1, novel=0)]])
def test_nothing_is_measured_without_novel_photos_in_two_trials(trials):
    fitted = Novelty.fit(trials)
    assert fitted.rates == {}
    assert ask(fitted, 0.6) < REJECTED


def test_many_known_photos_are_kept_as_quantiles(monkeypatch):
    trials = [trial(seed) for seed in range(3)]
    whole = Novelty.fit(trials)
    monkeypatch.setattr(novelty, "_KNOWN_KEPT", 100)
    kept = Novelty.fit(trials)
    assert (len(whole.known), len(kept.known), kept.known.dtype) == (900, 100, np.float32)
    new = trial(9)
    shares = [fitted.familiarity(new.distances, new.probabilities) for fitted in (whole, kept)]
    np.testing.assert_allclose(shares[0], shares[1], atol=0.02)


@pytest.mark.parametrize("distance", [-1e-7, 0.0, 2.0])
@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_extremes_have_a_familiarity(distance, probability):
    # The distance of a photo to itself may come out below 0.
    share = ask(Novelty.fit([trial(seed) for seed in range(3)]), distance, probability)
    assert share == (1 if distance <= 0 else 0)


def test_doubt_alone_by_hand():
    # The share of known photos whose likeliest label is at most as likely, wherever in the gallery a photo is.
    fitted = Novelty.of_doubt(np.array([0.9, 0.5, 0.7, 0.6], np.float32))
    for distance in (0, 0.3, 2):
        shares = [ask(fitted, distance, probability) for probability in (0.95, 0.9, 0.8, 0.7, 0.5, 0.4)]
        assert shares == [1, 1, 0.75, 0.75, 0.25, 0]
    assert fitted.rates == {}
    # A hundred photos: 5 % are below the fifth.
    many = Novelty.of_doubt(np.linspace(0.3, 0.99, 100, dtype=np.float32))
    assert ask(many, 0, 0.3) < REJECTED
    assert ask(many, 0, 0.35) > REJECTED


def test_of_very_many_photos_the_quantiles_are_kept():
    probabilities = np.random.default_rng(0).uniform(0.2, 1, 30_000).astype(np.float32)
    fitted = Novelty.of_doubt(probabilities)
    assert len(fitted.known) <= 2000
    assert ask(fitted, 0, 0.4) == pytest.approx((probabilities <= 0.4).mean(), abs=2e-3)
