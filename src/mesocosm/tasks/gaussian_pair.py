"""Two Gaussians to tell apart, whose log density ratio is known."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.base import Task

__all__ = ["GaussianPair"]


class PairBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    log_ratio: Tensor


@dataclass(frozen=True, kw_only=True)
class GaussianPair(Task):
    """Samples of data P* = N(shift u + distance u, I) and of noise Q = N(shift u, I), in equal shares.

    u is the unit vector of equal entries. A model gives z(x) = theta.x - c, the log ratio of its density to that of Q.
    It is P* at the `optimum` and Q at (0, 0). c is the log of a normaliser, which is learned as well.

    Source: Liu et al. (2022), Analyzing and Improving the Optimization Landscape of Noise-Contrastive Estimation, arXiv
    2110.11271
    """

    d: int = setting(1, "dimensions", low=1, high=100_000)
    distance: float = setting(4.0, "distance of the two means, in standard deviations", low=0, high=20)
    shift: float = setting(
        0.0, "distance of the noise's mean from the origin, the data's moving with it", low=0, high=100
    )

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, d] float32: samples of the data in the first half, then of the noise",
        "targets": "[B] float32: 1 for data, -1 for noise",
        "weights": "[B] float32: 1 everywhere",
        "log_ratio": "[B] float32: log of the data's density over the noise's, in nats",
    }

    @property
    def input_shape(self) -> tuple[int]:
        return (self.d,)

    @property
    def output_shape(self) -> tuple[()]:
        return ()

    @property
    def direction(self) -> Tensor:
        """The unit vector u `[d]` from the noise's mean to the data's, float64."""
        return torch.full((self.d,), 1 / math.sqrt(self.d), dtype=torch.float64)

    @property
    def optimum(self) -> Tensor:
        """The parameters (theta, c) `[d + 1]` of the data, float64."""
        c = self.distance**2 / 2 + self.distance * self.shift
        return torch.cat([self.distance * self.direction, torch.tensor([c], dtype=torch.float64)])

    @property
    def bhattacharyya(self) -> float:
        """The Bhattacharyya coefficient of data and noise, exp(-distance^2 / 8)."""
        return math.exp(-(self.distance**2) / 8)

    def log_ratio(self, x: Tensor) -> Tensor:
        """log p*(x) / q(x) in nats, from `[..., d]` to `[...]`."""
        optimum = self.optimum.to(x)
        return x @ optimum[:-1] - optimum[-1]

    def exponential_loss(self, tau: Tensor) -> Tensor:
        """The population's eNCE loss at (theta, c), from `[..., d + 1]` to `[...]`.

        (1/2) exp(|theta|^2 / 8) (exp((c - theta.mu) / 2) + exp(-c / 2)) for noise around 0 and data around mu. It is
        infinite where it overflows.
        """
        theta, along = tau[..., :-1], tau[..., :-1] @ self.direction.to(tau)
        c, scale = tau[..., -1] - self.shift * along, theta.square().sum(-1) / 8
        return ((scale + (c - self.distance * along) / 2).exp() + (scale - c / 2).exp()) / 2

    def quadrature(self, points: int = 6001, tails: float = 12.0) -> PairBatch:
        """The two populations in one dimension, float64: each of `points` nodes x, once as data and once as noise.

        Weights are masses of the trapezoid rule, so an objective that is a mean by weights is the population's.

        Args:
            tails: how far the nodes reach beyond the two means, in standard deviations.

        Raises:
            ValueError: in more than one dimension, or for fewer than 2 points.
        """
        if self.d != 1:
            raise ValueError(f"d={self.d} is not legal: quadrature is for d=1")
        if points < 2:
            raise ValueError(f"points={points} is not legal: it must be an integer, at least 2")
        low, high = self.shift - tails, self.shift + self.distance + tails
        x = torch.linspace(low, high, points, dtype=torch.float64)
        width = torch.full_like(x, (high - low) / (points - 1))
        width[[0, -1]] /= 2
        masses = [width * normal_density(x - mean) for mean in (self.shift + self.distance, self.shift)]
        sides = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat_interleave(points)
        nodes = x.repeat(2)[:, None]
        return PairBatch(nodes, sides, torch.cat(masses) / 2, self.log_ratio(nodes))

    def sample(self, size: int, generator: torch.Generator) -> PairBatch:
        inputs, targets = torch.randn(size, self.d, generator=generator), torch.ones(size)
        targets[(size + 1) // 2 :] = -1
        along = self.shift + self.distance * (targets + 1) / 2
        inputs += along[:, None] * self.direction.float()
        return PairBatch(inputs, targets, torch.ones(size), self.log_ratio(inputs))


def normal_density(x: Tensor) -> Tensor:
    return (-x.square() / 2).exp() / math.sqrt(2 * math.pi)
