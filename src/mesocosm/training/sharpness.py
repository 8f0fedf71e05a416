"""Sharpness-aware minimisation: the gradient of a step is taken a little way uphill."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from mesocosm.training.optimisers import Rate, _Optimiser
from mesocosm.training.population import Layout

__all__ = ["SAM", "uphill"]


def every(name: str) -> bool:
    return True


@dataclass(frozen=True)
class SAM(_Optimiser):
    """Any optimiser on the gradient at theta + rho g / ||g||, with the norm of each replica's own gradient.

    Adaptive: theta + rho theta^2 g / ||theta g||, which does not change when layers are rescaled.

    Args:
        optimiser: takes the step.
        rho: length of the way uphill; 0 is the optimiser alone, at twice the cost.
        only: which parameters are moved uphill, by name; all by default. The norm is over these.

    Source: Foret et al. (2021), Sharpness-Aware Minimization, equation 2, arXiv 2010.01412; Kwon et al. (2021), ASAM,
    arXiv 2102.11600
    """

    optimiser: Any
    rho: Rate = 0.05
    adaptive: bool = False
    only: Callable[[str], bool] = every

    def columns(self, replicas: int, device: torch.device) -> dict[str, Tensor]:
        return self.optimiser.columns(replicas, device) | super().columns(replicas, device)

    def init(self, theta: Tensor) -> dict[str, Tensor]:
        return self.optimiser.init(theta)

    def update(
        self,
        theta: Tensor,
        gradient: Tensor,
        state: dict[str, Tensor],
        columns: dict[str, Tensor],
        t: Tensor,
        layout: Layout,
    ) -> None:
        self.optimiser.update(theta, gradient, state, columns, t, layout)

    def ascend(self, theta: Tensor, gradient: Tensor, columns: dict[str, Tensor], layout: Layout) -> Tensor:
        """The weights `[R, P]` at which the step's gradient is to be taken."""
        if self.only is not every:
            gradient = gradient * _mask(layout, self.only, theta.device)
        return theta + columns["rho"] * _direction(theta, gradient, self.adaptive, layout.norms)


def _direction(weights: Tensor, gradient: Tensor, adaptive: bool, norms: Callable[[Tensor], Tensor]) -> Tensor:
    scaled = weights.abs() * gradient if adaptive else gradient
    norm = norms(scaled).clamp_min(1e-12)
    return (weights.abs() * scaled if adaptive else scaled) / norm


@cache
def _mask(layout: Layout, only: Callable[[str], bool], device: torch.device) -> Tensor:
    mask = torch.zeros(layout.size, device=device)
    for name, view in layout.views(mask).items():
        view.fill_(float(only(name)))
    return mask


@contextmanager
def uphill(model: nn.Module, rho: float, adaptive: bool = False, only: Callable[[str], bool] = every) -> Iterator[None]:
    """Move the weights of a module of your own uphill along its gradients, and put them back on leaving.

        loss(model).backward()
        with uphill(model, rho=0.05):
            optimiser.zero_grad()
            loss(model).backward()
        optimiser.step()

    Source: Foret et al. (2021), Sharpness-Aware Minimization, algorithm 1, arXiv 2010.01412
    """
    moved = [p for name, p in model.named_parameters() if p.grad is not None and only(name)]
    before = [p.detach().clone() for p in moved]
    weights = torch.cat([p.flatten() for p in before])
    gradient = torch.cat([p.grad.flatten() for p in moved if p.grad is not None])
    steps = (rho * _direction(weights, gradient, adaptive, torch.linalg.vector_norm)).split([p.numel() for p in moved])
    with torch.no_grad():
        for parameter, step in zip(moved, steps):
            parameter.add_(step.view_as(parameter))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, old in zip(moved, before):
                parameter.copy_(old)
