"""Gradient descent that looks at the direction of the gradient alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mesocosm.training.optimisers import Rate, _Optimiser
from mesocosm.training.population import Layout

__all__ = ["NormalisedSGD"]


@dataclass(frozen=True)
class NormalisedSGD(_Optimiser):
    """Normalised gradient descent: theta <- theta - learning_rate g / |g|, the norm being that of all weights together.

    Every step has the length of the learning rate, however flat the loss. Clipping is not the same: it leaves tiny
    gradients tiny. With a constant rate it ends by swinging around the optimum at about that distance, so average the
    tail. A gradient of 0 moves nothing.

    Source: Liu et al. (2022), Analyzing and Improving the Optimization Landscape of Noise-Contrastive Estimation, arXiv
    2110.11271
    """

    learning_rate: Rate

    def init(self, theta: Tensor) -> dict[str, Tensor]:
        return {}

    def update(
        self,
        theta: Tensor,
        gradient: Tensor,
        state: dict[str, Tensor],
        columns: dict[str, Tensor],
        t: Tensor,
        layout: Layout,
    ) -> None:
        """Update in place; `columns` as from `columns()`, the rate already scheduled."""
        # Squares of small gradients would underflow.
        largest = layout.norms(gradient, torch.inf)
        scaled = gradient / torch.where(largest > 0, largest, 1)
        norms = layout.norms(scaled).clamp_min(1)
        theta.addcmul_(scaled / norms, columns["learning_rate"], value=-1)
