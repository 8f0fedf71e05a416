"""Intervals against exact laws and nominal coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from mesocosm.lab import bootstrap, exact, mean, median, rank_correlation, share


def test_the_interval_of_a_mean_covers_it_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    covered = [(i := mean(random.normal(3, 1, 40))).low <= 3 <= i.high for _ in range(200)]
    low, high = stats.binom(200, 0.93).ppf([0.001, 0.999])
    assert low <= sum(covered) <= high


def test_the_interval_of_a_mean_is_near_the_normal_one() -> None:
    sample = np.random.default_rng(2).normal(size=400)
    interval = mean(sample)
    half = 1.96 * sample.std() / 20
    assert interval.estimate == pytest.approx(sample.mean())
    assert interval.low == pytest.approx(sample.mean() - half, abs=0.02)
    assert interval.high == pytest.approx(sample.mean() + half, abs=0.02)


def test_paired_resampling_keeps_what_pairs_share() -> None:
    random = np.random.default_rng(3)
    base = random.normal(scale=10, size=30)
    difference = lambda a, b, axis: (a - b).mean(axis=axis)
    paired = bootstrap(difference, base + 1, base, paired=True)
    unpaired = bootstrap(difference, base + 1, base)
    assert (paired.low, paired.high) == pytest.approx((1, 1))
    assert unpaired.high - unpaired.low > 5


def test_same_numbers_same_interval() -> None:
    assert median([1, 2, 3, 5, 8]) == median([1, 2, 3, 5, 8])
    assert median([4, 4, 4]) == exact(4)


def test_too_few_numbers_give_no_interval() -> None:
    lone = median([2.0])
    assert lone.estimate == 2
    assert math.isnan(lone.low)
    assert math.isnan(median([]).estimate)
    assert math.isnan(share(0, 0).estimate)


def test_infinite_times_stay_infinite() -> None:
    interval = median([3.0, 4.0, 5.0, math.inf, math.inf, math.inf, math.inf])
    assert interval.estimate == math.inf


def test_a_share_has_wilsons_interval() -> None:
    interval, z, n, p = share(3, 20), stats.norm.ppf(0.975), 20, 0.15
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (interval.low, interval.high) == pytest.approx((centre - half, centre + half))


def test_rank_correlation_is_spearmans_and_none_with_a_constant() -> None:
    x, y = np.random.default_rng(3).integers(0, 5, (2, 6, 12))  # with ties
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(x, y)]
    assert rank_correlation(x, y) == pytest.approx(expected)
    assert rank_correlation(x.T, y[0][:, None], axis=0) == pytest.approx(rank_correlation(x, y[0]))
    assert rank_correlation(x, np.ones(12)) == pytest.approx(0)
