"""Multi-armed bandits whose rewards are written on tapes beforehand."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.base import Task

__all__ = ["BernoulliBandit"]


class BanditBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    means: Tensor


class History(NamedTuple):
    """What a player of N bandits has seen after t rounds."""

    arms: Tensor
    """`[N, t]` int64: arms pulled."""
    rewards: Tensor
    """`[N, t]` float32: what they paid."""
    pulls: Tensor
    """`[N, K]` int64: pulls of each arm."""
    wins: Tensor
    """`[N, K]` float32: sum of each arm's rewards."""


@dataclass(frozen=True, kw_only=True)
class BernoulliBandit(Task):
    """Say which of K arms pays best: one pays 1 with probability (1 + gap) / 2, the others with (1 - gap) / 2, else 0.

    A tape holds the rewards of an arm's first, second, ... pull, so that all players of a sample get the same ones.
    `measures.play_bandit` lets a player choose arms round by round.

    Source: Krishnamurthy et al. (2024), Can large language models explore in-context?, section 2, arXiv 2403.15371
    """

    arms: int = setting(5, "number of arms K", low=2, high=1000)
    gap: float = setting(0.2, "how much more often the best arm pays", low=0, high=1)
    horizon: int = setting(100, "rounds T", low=1, high=100_000)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, K, T] float32: tapes of rewards 0 or 1; the n-th pull of an arm gives the n-th of its tape",
        "targets": "[B] int64: the best arm, uniform",
        "weights": "[B] float32: 1 everywhere",
        "means": "[B, K] float32: mean reward of each arm",
    }

    @property
    def input_shape(self) -> tuple[int, int]:
        return (self.arms, self.horizon)

    @property
    def output_shape(self) -> tuple[int]:
        return (self.arms,)

    def tapes(self, best: Tensor, generator: torch.Generator) -> BanditBatch:
        """A sample whose best arms `[B]` are given."""
        means = torch.full((len(best), self.arms), (1 - self.gap) / 2)
        means[torch.arange(len(best)), best] = (1 + self.gap) / 2
        tapes = torch.rand(len(best), *self.input_shape, generator=generator) < means[..., None]
        return BanditBatch(tapes.float(), best, torch.ones(len(best)), means)

    def sample(self, size: int, generator: torch.Generator) -> BanditBatch:
        return self.tapes(torch.randint(self.arms, (size,), generator=generator), generator)
