"""Whether a player of bandits explores: what it plays, and the signs of exploring too little or too much."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mesocosm.tasks.bandits import History

__all__ = ["greedy_fraction", "mean_reward", "min_fraction", "play_bandit", "suffix_failures"]

Policy = Callable[[History, Tensor], Tensor]
"""Arms `[N]` from what was seen so far and uniform noise `[N, K + 1]`."""


class Play(NamedTuple):
    arms: Tensor
    """`[N, T]` int64: arm pulled in each round."""
    rewards: Tensor
    """`[N, T]` float32: what it paid."""


def play_bandit(policy: Policy, tapes: Tensor, noise: Tensor) -> Play:
    """Let a policy play N bandits in lockstep, all of them by its own choices.

    Args:
        tapes: `[N, K, T]`, `inputs` of a `BernoulliBandit`: the n-th pull of an arm pays the n-th of its tape.
        noise: `[N, T, K + 1]` uniform numbers: all of the policy's randomness.

    Raises:
        ValueError: for noise of another shape, or an arm that there is not.

    Source: Krishnamurthy et al. (2024), Can large language models explore in-context?, section 2, arXiv 2403.15371
    """
    count, k, rounds = tapes.shape
    if noise.shape != (count, rounds, k + 1):
        raise ValueError(f"noise of shape {list(noise.shape)} is not legal: it must be {[count, rounds, k + 1]}")
    arms, rewards = torch.zeros(count, rounds, dtype=torch.int64), torch.zeros(count, rounds)
    pulls, wins, rows = torch.zeros(count, k, dtype=torch.int64), torch.zeros(count, k), torch.arange(count)
    for t in range(rounds):
        arm = policy(History(arms[:, :t], rewards[:, :t], pulls, wins), noise[:, t])
        if arm.min() < 0 or arm.max() >= k:
            raise ValueError(f"arms {sorted(set(arm.tolist()))} are not legal: they must be from 0 to {k - 1}")
        arms[:, t], rewards[:, t] = arm, tapes[rows, arm, pulls[rows, arm]]
        wins[rows, arm] += rewards[:, t]
        pulls[rows, arm] += 1
    return Play(arms, rewards)


def suffix_failures(arms: Tensor, best: Tensor) -> Tensor:
    """Whether the best arm is never pulled from round t to the last one, for t = 1, ..., T: bool `[..., T]`.

    Its mean over games is SuffFailFreq(t). It can't be seen in play that is uniform; see `min_fraction`.

    Args:
        arms: `[..., T]`, the arm of each round.
        best: `[...]`.

    Source: Krishnamurthy et al. (2024), Can large language models explore in-context?, section 3, arXiv 2403.15371
    """
    hits = arms == best[..., None]
    return hits.flip(-1).cumsum(-1).flip(-1) == 0


def min_fraction(arms: Tensor, k: int) -> Tensor:
    """K MinFrac(t): pulls of the least pulled of K arms within t rounds, times K / t, for t = 1, ..., T: `[..., T]`.

    It falls when a player comes to a choice, and nears 1 in uniform play.

    Source: Krishnamurthy et al. (2024), Can large language models explore in-context?, section 3, arXiv 2403.15371
    """
    pulls = one_hot(arms, k).cumsum(-2)
    return k * pulls.amin(-1) / torch.arange(1, arms.shape[-1] + 1)


def greedy_fraction(arms: Tensor, rewards: Tensor, k: int) -> Tensor:
    """Share of rounds `[...]` whose arm has the highest mean reward so far among arms that were pulled before.

    Args:
        arms, rewards: `[..., T]`.

    Source: Krishnamurthy et al. (2024), Can large language models explore in-context?, section 3, arXiv 2403.15371
    """
    pulled = one_hot(arms, k)
    pulls = pulled.cumsum(-2) - pulled
    wins = (pulled * rewards[..., None]).cumsum(-2) - pulled * rewards[..., None]
    means = torch.where(pulls > 0, wins / pulls, -1.0)
    chosen = means.gather(-1, arms[..., None]).squeeze(-1)
    return ((chosen == means.amax(-1)) & (chosen >= 0)).double().mean(-1)


def mean_reward(arms: Tensor, means: Tensor) -> Tensor:
    """Expected reward a round of the arms that were pulled, (1/T) sum_t mu(a_t), from `[..., T]` to `[...]`.

    Args:
        means: mean reward of each arm `[..., K]`.
    """
    return means.gather(-1, arms).double().mean(-1)
