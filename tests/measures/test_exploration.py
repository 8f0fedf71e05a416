import itertools
import math

import numpy as np
import pytest
import torch

from mesocosm.lab import median
from mesocosm.measures import greedy_fraction, mean_reward, min_fraction, play_bandit, suffix_failures
from mesocosm.models import UCB, EpsilonGreedy, ThompsonSampling, UniformPlay
from mesocosm.seeding import generator
from mesocosm.tasks import BernoulliBandit


def play(agent, task, count):
    batch = task.sample(count, generator(0, "tapes"))
    shape = (count, task.horizon, task.arms + 1)
    noise = torch.rand(shape, dtype=torch.float64, generator=generator(0, "noise", str(agent)))
    return batch, play_bandit(agent, batch.inputs, noise)


def test_the_nth_pull_pays_the_nth_of_the_tape():
    tapes = torch.tensor([[[1, 0, 1, 1], [0, 0, 1, 0]], [[0, 1, 0, 1], [1, 1, 0, 0]]]).float()
    plan = torch.tensor([[0, 1, 0, 0], [1, 1, 0, 1]])
    seen = []

    def policy(history, noise):
        seen.append(history)
        return plan[:, history.arms.shape[1]]

    found = play_bandit(policy, tapes, torch.zeros(2, 4, 3))
    assert torch.equal(found.arms, plan)
    assert found.rewards.tolist() == [[1, 0, 0, 1], [1, 1, 0, 0]]
    assert torch.equal(seen[-1].arms, plan[:, :3])
    assert seen[-1].rewards.tolist() == [[1, 0, 0], [1, 1, 0]]


def test_measures_by_hand():
    arms = torch.tensor([[0, 1, 1, 0, 1, 1], [2, 2, 2, 2, 2, 2]])
    rewards = torch.tensor([[1.0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0]])
    assert suffix_failures(arms, torch.tensor([0, 2])).tolist() == [[False] * 4 + [True] * 2, [False] * 6]
    assert min_fraction(arms, 2 + 1)[0].tolist() == [0] * 6
    assert min_fraction(arms[:1], 2)[0].tolist() == pytest.approx([0, 1, 2 / 3, 1, 4 / 5, 2 / 3])
    # Means before each round, of arms 0 and 1: none; 1, none; 1, 0; 1, 1/2; 1/2, 1/2; 1/2, 2/3.
    assert greedy_fraction(arms, rewards, 3).tolist() == pytest.approx([3 / 6, 5 / 6])
    assert mean_reward(arms, torch.tensor([[0.4, 0.6, 0.4]] * 2)).tolist() == pytest.approx([(4 * 0.6 + 0.8) / 6, 0.4])


def test_uniform_play_has_the_share_that_enumeration_gives():
    task = BernoulliBandit(arms=3, horizon=5)
    every = torch.tensor(list(itertools.product(range(3), repeat=5)))
    exact = min_fraction(every, 3).mean(0)
    assert exact[2].item() == pytest.approx(6 / 27)
    _, found = play(UniformPlay(), task, 20_000)
    shares = min_fraction(found.arms, 3)
    assert ((shares.mean(0) - exact).abs() <= 4 * shares.std(0) / math.sqrt(20_000) + 1e-9).all()


def greedy_failure(task, t):
    """Probability that Greedy never pulls arm 0, the best, from round t on, over all rewards and ties."""

    def failing(pulls, wins, round_):
        if round_ > task.horizon:
            return 1.0
        means = [w / n if n else math.inf for n, w in zip(pulls, wins)]
        tied = [a for a, mean in enumerate(means) if mean == max(means)]
        total = 0.0
        for arm in tied:
            if arm == 0 and round_ >= t:
                continue
            paid = (1 + task.gap * (1 if arm == 0 else -1)) / 2
            for reward, chance in ((1, paid), (0, 1 - paid)):
                more = [[x + d * (a == arm) for a, x in enumerate(xs)] for xs, d in ((pulls, 1), (wins, reward))]
                total += chance / len(tied) * failing(*more, round_ + 1)
        return total

    return failing([0] * task.arms, [0] * task.arms, 1)


@pytest.mark.parametrize(("task", "t"), [
    (BernoulliBandit(arms=2, gap=0.4, horizon=8), 4),
    (BernoulliBandit(arms=3, gap=0.2, horizon=7), 5),
])  # fmt: skip
def test_greedy_fails_as_often_as_enumeration_says(task, t):
    exact = greedy_failure(task, t)
    batch, found = play(EpsilonGreedy(), task, 20_000)
    share = suffix_failures(found.arms, batch.targets)[:, t - 1].double().mean().item()
    assert 0.1 < exact < 0.9
    assert abs(share - exact) < 4 * math.sqrt(exact * (1 - exact) / 20_000)


def test_ucb_on_a_tape_is_that_of_a_plain_loop():
    task = BernoulliBandit(arms=3, horizon=40)
    batch = task.sample(20, generator(1))
    noise = torch.rand(20, 40, 4, dtype=torch.float64, generator=generator(2))
    found = play_bandit(UCB(bonus=0.5), batch.inputs, noise)
    for game in range(20):
        rewards = [[] for _ in range(3)]
        for t in range(40):
            scores = [np.mean(r) + math.sqrt(0.5 / len(r)) if r else math.inf for r in rewards]
            tied = [a for a in range(3) if scores[a] >= max(scores) - 1e-6]
            arm = max(tied, key=lambda a: noise[game, t, a])
            assert found.arms[game, t] == arm
            rewards[arm].append(batch.inputs[game, arm, len(rewards[arm])].item())


def test_a_game_does_not_depend_on_its_company():
    batch = BernoulliBandit(horizon=30).sample(6, generator(1))
    noise = torch.rand(6, 30, 6, dtype=torch.float64, generator=generator(2))
    for agent in (ThompsonSampling(), EpsilonGreedy(epsilon=0.2)):
        whole, alone = play_bandit(agent, batch.inputs, noise), play_bandit(agent, batch.inputs[4:5], noise[4:5])
        assert torch.equal(whole.arms[4:5], alone.arms)


HARD, EASY = BernoulliBandit(), BernoulliBandit(arms=4, gap=0.5)
TABLE = {
    # Suffix failures, K MinFrac, greedy share, median reward, of 2,000 games that another program played.
    (HARD, UCB()): (0.023, 0.181, 0.712, 0.516),
    (HARD, UCB(bonus=2 * math.log(100))): (0.000, 0.599, 0.379, 0.462),
    (HARD, ThompsonSampling()): (0.006, 0.282, 0.569, 0.492),
    (HARD, EpsilonGreedy()): (0.464, 0.051, 0.950, 0.496),
    (HARD, EpsilonGreedy(epsilon=0.1)): (0.128, 0.106, 0.875, 0.526),
    (EASY, EpsilonGreedy()): (0.21, None, None, None),
    (EASY, EpsilonGreedy(epsilon=0.1)): (0.04, None, None, None),
    (EASY, ThompsonSampling()): (0.00, None, None, None),
}


@pytest.mark.parametrize(("case", "expected"), TABLE.items(), ids=str)
def test_agents_do_as_in_another_program(case, expected):
    task, agent = case
    batch, found = play(agent, task, 2000)
    failures, least, greedy, reward = expected
    p = max(failures, 0.005)
    # Two estimates, of 2,000 and at least 1,000 games.
    error = math.sqrt(p * (1 - p) * (1 / 2000 + 1 / 1000))
    share = suffix_failures(found.arms, batch.targets)[:, task.horizon // 2 - 1].double().mean().item()
    assert abs(share - failures) < 4 * error
    if least is None:
        return
    for values, value in (
        (min_fraction(found.arms, task.arms)[:, -1], least),
        (greedy_fraction(found.arms, found.rewards, task.arms), greedy),
    ):
        assert abs(values.mean().item() - value) < 4 * values.std().item() * math.sqrt(2 / 2000) + 6e-4
    middle = median(mean_reward(found.arms, batch.means))
    assert abs(middle.estimate - reward) < 2 * (middle.high - middle.low) + 6e-4


def test_noise_and_arms_that_do_not_fit_are_named():
    tapes = torch.zeros(2, 3, 4)
    with pytest.raises(ValueError, match=r"noise of shape \[2, 4, 3\] is not legal: it must be \[2, 4, 4\]"):
        play_bandit(UniformPlay(), tapes, torch.zeros(2, 4, 3))
    with pytest.raises(ValueError, match=r"arms \[3\] are not legal: they must be from 0 to 2"):
        play_bandit(lambda history, noise: torch.tensor([3, 3]), tapes, torch.zeros(2, 4, 4))
