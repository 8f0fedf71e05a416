import math

import pytest
import torch
from scipy import stats

from mesocosm.measures import log_rank, time_to_threshold
from mesocosm.seeding import generator


def by_hand(times, others, budget):
    """Observed less expected numbers of the first group over all times at which somebody learns."""
    both, total, variance = [*times, *others], 0.0, 0.0
    for t in sorted({t for t in both if t <= budget}):
        at_risk, first_at_risk = sum(x >= t for x in both), sum(x >= t for x in times)
        events = both.count(t)
        share = first_at_risk / at_risk
        total += times.count(t) - events * share
        if at_risk > 1:
            variance += events * share * (1 - share) * (at_risk - events) / (at_risk - 1)
    return total / math.sqrt(variance)


@pytest.mark.parametrize("budget", [4000, 2500])
def test_statistic_equals_the_formula(budget):
    times, others = (
        (-scale * torch.rand(n, generator=generator(n)).log() / 100).ceil() * 100
        for n, scale in ((12, 1500), (9, 4000))
    )
    times, others = (torch.where(t <= budget, t, torch.inf) for t in (times, others))
    statistic, p = log_rank(times, others, budget)
    assert statistic == pytest.approx(by_hand(times.tolist(), others.tolist(), budget))
    assert p == pytest.approx(2 * stats.norm.sf(abs(statistic)))
    swapped, same = log_rank(others, times, budget)
    assert swapped == pytest.approx(-statistic) and same == pytest.approx(p)


def test_the_faster_group_has_the_positive_statistic():
    fast, slow = torch.arange(100, 1300, 100), torch.tensor([1200.0, 2000, *[math.inf] * 10])
    statistic, p = log_rank(fast, slow, 4000)
    assert statistic > 3 and p < 1e-4


def test_equal_groups_are_not_told_apart():
    times = torch.tensor([100.0, 200, math.inf])
    assert log_rank(times, times, 300) == pytest.approx((0, 1))
    nobody = torch.full((4,), math.inf)
    assert log_rank(nobody, nobody, 300) == (0.0, 1.0)


def test_takes_the_times_of_a_threshold():
    errors = torch.tensor([[0.5, 0.5, 0.4], [0.2, 0.3, 0.4], [0.01, 0.3, 0.4]])
    times = time_to_threshold(torch.tensor([10, 20, 30]), errors, 0.05)
    assert log_rank(times[:1], times[1:], 30) == pytest.approx((by_hand([30], [math.inf] * 2, 30), 0.1573), abs=1e-4)


@pytest.mark.parametrize("bad", [math.nan, 31.0, -math.inf])
def test_illegal_times_are_named(bad):
    with pytest.raises(ValueError, match="must be from 0 to budget=30 or infinite"):
        log_rank(torch.tensor([10.0, bad]), torch.tensor([10.0]), 30)
