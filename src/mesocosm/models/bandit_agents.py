"""Players of Bernoulli bandits: functions from what was seen so far, and from noise, to the next arm.

All are called as `agent(history, noise)` with a `mesocosm.tasks.bandits.History` of N games and uniform noise
`[N, K + 1]`, their only randomness, and give arms `[N]`. K numbers decide between arms, the last whether to explore.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mesocosm.settings import Settings, setting
from mesocosm.tasks.bandits import History

__all__ = ["UCB", "EpsilonGreedy", "ThompsonSampling", "UniformPlay"]


@dataclass(frozen=True, kw_only=True)
class UCB(Settings):
    """Pull the arm of the highest mean + sqrt(bonus / pulls), each arm once first, ties at random.

    A bonus of 1 is tuned; 2 ln(T) is the textbook's, which hardly leaves exploring within a hundred rounds.

    Source: Auer, Cesa-Bianchi & Fischer (2002), Finite-time analysis of the multiarmed bandit problem, section 2
    """

    bonus: float = setting(1.0, "C in sqrt(C / pulls)", low=0)

    def __call__(self, history: History, noise: Tensor) -> Tensor:
        return best_of(observed_means(history) + (self.bonus / history.pulls).sqrt(), noise)


@dataclass(frozen=True, kw_only=True)
class EpsilonGreedy(Settings):
    """Pull the arm of the highest mean, but with probability epsilon any; each arm once first, ties at random.

    With an epsilon of 0 it is Greedy, which locks on an arm that was lucky early.

    Source: Sutton & Barto (2018), Reinforcement learning: an introduction, section 2.2
    """

    epsilon: float = setting(0.0, "probability of pulling an arm at random", low=0, high=1)

    def __call__(self, history: History, noise: Tensor) -> Tensor:
        explores = noise[:, -1] < self.epsilon
        return torch.where(explores, noise[:, :-1].argmax(1), best_of(observed_means(history), noise))


@dataclass(frozen=True, kw_only=True)
class ThompsonSampling(Settings):
    """Pull the arm whose draw from its posterior Beta(1 + wins, 1 + losses) is highest.

    Source: Thompson (1933), On the likelihood that one unknown probability exceeds another in view of the evidence of
    two samples
    """

    def __call__(self, history: History, noise: Tensor) -> Tensor:
        from scipy.special import betaincinv

        wins, losses = history.wins, history.pulls - history.wins
        draws = betaincinv(*(x.double().numpy() for x in (1 + wins, 1 + losses, noise[:, :-1])))
        return torch.from_numpy(draws).argmax(1)


@dataclass(frozen=True, kw_only=True)
class UniformPlay(Settings):
    """Pull any arm, whatever was seen."""

    def __call__(self, history: History, noise: Tensor) -> Tensor:
        return noise[:, :-1].argmax(1)


def observed_means(history: History) -> Tensor:
    """Mean reward of each arm so far `[N, K]`, infinite where it was never pulled."""
    return torch.where(history.pulls > 0, history.wins / history.pulls, torch.inf)


def best_of(scores: Tensor, noise: Tensor) -> Tensor:
    """The arm `[N]` of the highest score `[N, K]`, ties at random."""
    tied = scores == scores.amax(1, keepdim=True)
    return torch.where(tied, noise[:, :-1], -1.0).argmax(1)
