import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from mesocosm.models import UCB, EpsilonGreedy, ThompsonSampling, UniformPlay
from mesocosm.seeding import generator
from mesocosm.tasks.bandits import History


def history(pulls, wins, copies=1):
    nothing = torch.zeros(copies, 0)
    return History(nothing.long(), nothing, torch.tensor([pulls] * copies), torch.tensor([wins] * copies).float())


def noise(copies, k):
    return torch.rand(copies, k + 1, dtype=torch.float64, generator=generator(0, "noise"))


def shares(agent, pulls, wins, copies=20_000):
    arms = agent(history(pulls, wins, copies), noise(copies, len(pulls)))
    return (arms.bincount(minlength=len(pulls)) / copies).tolist()


@pytest.mark.parametrize("bonus", [0.25, 1.0, 2 * math.log(100)])
def test_ucb_is_the_formula(bonus):
    for pulls, wins in [([3, 5, 9], [1, 3, 5]), ([1, 20, 20], [0, 14, 12]), ([7, 7, 8], [1, 6, 7])]:
        scores = [w / n + math.sqrt(bonus / n) for n, w in zip(pulls, wins)]
        assert UCB(bonus=bonus)(history(pulls, wins), noise(1, 3)).item() == int(np.argmax(scores))


@pytest.mark.parametrize("agent", [UCB(), EpsilonGreedy()])
def test_each_arm_comes_first_and_ties_are_broken_evenly(agent):
    assert shares(agent, [1, 0, 3, 0], [1, 0, 3, 0]) == pytest.approx([0, 0.5, 0, 0.5], abs=0.015)
    assert shares(agent, [2, 2, 2], [1, 1, 0]) == pytest.approx([0.5, 0.5, 0], abs=0.015)


def test_equal_means_of_different_counts_tie():
    assert shares(EpsilonGreedy(), [3, 9, 7], [1, 3, 2]) == pytest.approx([0.5, 0.5, 0], abs=0.015)


def test_epsilon_is_the_share_of_random_pulls():
    assert shares(EpsilonGreedy(epsilon=0.3), [5, 5, 5], [4, 1, 1]) == pytest.approx([0.8, 0.1, 0.1], abs=0.015)
    assert shares(UniformPlay(), [5, 5, 5], [5, 0, 0]) == pytest.approx([1 / 3] * 3, abs=0.015)


def test_thompson_pulls_an_arm_as_often_as_its_posterior_mean_is_the_highest():
    pulls, wins = [4, 0, 10], [3, 0, 5]
    posteriors = [stats.beta(1 + w, 1 + n - w) for n, w in zip(pulls, wins)]

    def density(x, arm):
        others = [p.cdf(x) for p in posteriors if p is not arm]
        return arm.pdf(x) * math.prod(others)

    exact = [integrate.quad(density, 0, 1, args=(arm,))[0] for arm in posteriors]
    assert sum(exact) == pytest.approx(1)
    assert shares(ThompsonSampling(), pulls, wins) == pytest.approx(exact, abs=0.015)


def test_a_negative_bonus_is_refused():
    with pytest.raises(ValueError, match=r"bonus=-1\.0 is not legal: it must be a finite number, at least 0"):
        UCB(bonus=-1.0)
