"""Two features that both tell the label, one of them more plainly."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.base import Task
from mesocosm.tasks.parity import random_signs

__all__ = ["RedundantFeatures"]


class FeaturesBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    margins: Tensor


@dataclass(frozen=True, kw_only=True)
class RedundantFeatures(Task):
    """A label y = ±1 that an easy and a hard feature both predict: x_i = y s_i u + noise z_i in d dimensions each.

    The noise z_i is standard normal, the unit vector u is the same in both, and s_i is the strength of the feature.
    Errors of linear classifiers are known in closed form.

    Source: Springer et al. (2024), Sharpness-Aware Minimization Enhances Feature Quality via Balanced Learning, section
    3, arXiv 2405.20439
    """

    d: int = setting(40, "dimensions of each feature", low=1)
    easy: float = setting(1.0, "strength of the easy feature", low=0)
    hard: float = setting(0.35, "strength of the hard feature", low=0)
    noise: float = setting(0.3, "standard deviation of the noise in every dimension", low=1e-6)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, 2, d] float32: the easy and the hard feature",
        "targets": "[B] float32, ±1: the label",
        "weights": "[B] float32: 1 everywhere",
        "margins": "[B, 2] float32: y <x_i, u>, negative where the best classifier of the feature alone errs",
    }

    @property
    def input_shape(self) -> tuple[int, int]:
        return (2, self.d)

    @property
    def output_shape(self) -> tuple[()]:
        return ()

    @property
    def direction(self) -> Tensor:
        """The unit vector u `[d]`, with equal entries."""
        return torch.full((self.d,), 1 / math.sqrt(self.d))

    @property
    def strengths(self) -> Tensor:
        """Of the easy and of the hard feature, `[2]`."""
        return torch.tensor([self.easy, self.hard])

    @property
    def optimal_errors(self) -> Tensor:
        """Least error from the easy and from the hard feature alone, Phi(-s_i / noise), `[2]`."""
        return torch.special.ndtr(-self.strengths / self.noise)

    @property
    def optimal_error(self) -> float:
        """Least error from both features, Phi(-sqrt(s_e^2 + s_h^2) / noise)."""
        return float(torch.special.ndtr(-self.strengths.norm() / self.noise))

    def branch_errors(self, readers: Tensor) -> Tensor:
        """Error of the sign of <a_i, x_i> for each feature alone, Phi(-s_i <a_i, u> / (noise |a_i|)).

        Args:
            readers: `[..., 2, d]`, the vectors a_e and a_h, times the sign of the weight that a head gives them.

        Returns:
            `[..., 2]`; NaN for a vector of 0.
        """
        return torch.special.ndtr(-self.strengths * self._along(readers) / (self.noise * readers.norm(dim=-1)))

    def linear_error(self, readers: Tensor) -> Tensor:
        """Error of the sign of <a_e, x_e> + <a_h, x_h>, from `[..., 2, d]` to `[...]`; NaN for vectors of 0."""
        signal = (self.strengths * self._along(readers)).sum(-1)
        return torch.special.ndtr(-signal / (self.noise * readers.flatten(-2).norm(dim=-1)))

    def _along(self, readers: Tensor) -> Tensor:
        # A matrix product would round a reader otherwise in other company.
        return (readers * self.direction).sum(-1)

    def sample(self, size: int, generator: torch.Generator) -> FeaturesBatch:
        targets = random_signs(size, 1, generator)
        inputs = self.noise * torch.randn(size, 2, self.d, generator=generator)
        inputs += targets[:, :, None] * self.strengths[:, None] * self.direction
        return FeaturesBatch(inputs, targets[:, 0], torch.ones(size), targets * (inputs @ self.direction))
