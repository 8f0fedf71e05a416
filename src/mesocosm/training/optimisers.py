"""Optimisers over the stack: each works on rows `[R, P]`, with a rate a replica where one is given."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from mesocosm.training.population import Layout

__all__ = ["SGD", "AdamW", "Lazy"]

Rate = float | Sequence[float]
"""One number for all replicas, or one a replica."""


def _any(rate: Rate) -> bool:
    # In plain Python, which torch.compile sees through.
    return any(rate) if isinstance(rate, Sequence) else rate != 0


class _Optimiser:
    def columns(self, replicas: int, device: torch.device) -> dict[str, Tensor]:
        """Per-replica hyper-parameters as columns `[R, 1]`.

        Raises:
            ValueError: naming a hyper-parameter given for another number of replicas, or out of range.
        """
        columns = {}
        for name in (f.name for f in fields(self) if f.type in (Rate, "Rate")):  # type: ignore[arg-type]
            value = torch.as_tensor(getattr(self, name), dtype=torch.float32)
            if value.dim() and len(value) != replicas:
                raise ValueError(f"{name} has {len(value)} values for {replicas} replicas: give one, or one a replica")
            if not bool((value >= 0).all() & value.isfinite().all()):
                raise ValueError(f"{name}={getattr(self, name)!r} is not legal: it must be finite and at least 0")
            columns[name] = value.expand(replicas).reshape(replicas, 1).to(device)
        return columns


@dataclass(frozen=True)
class SGD(_Optimiser):
    """Stochastic gradient descent with momentum, as `torch.optim.SGD`.

    g <- g + weight_decay theta;  m <- momentum m + g;  theta <- theta - learning_rate m  (Nesterov: g + momentum m).
    """

    learning_rate: Rate
    momentum: Rate = 0.0
    weight_decay: Rate = 0.0
    nesterov: bool = False

    def init(self, theta: Tensor) -> dict[str, Tensor]:
        return {"momentum": torch.zeros_like(theta)} if _any(self.momentum) else {}

    def update(
        self,
        theta: Tensor,
        gradient: Tensor,
        state: dict[str, Tensor],
        columns: dict[str, Tensor],
        t: Tensor,
        layout: Layout,
    ) -> None:
        """Update number `t` (from 1), in place; `columns` as from `columns()`, the rate already scheduled."""
        if _any(self.weight_decay):
            gradient = torch.addcmul(gradient, theta, columns["weight_decay"])
        if "momentum" in state:
            state["momentum"].mul_(columns["momentum"]).add_(gradient)
            gradient = (
                torch.addcmul(gradient, state["momentum"], columns["momentum"]) if self.nesterov else state["momentum"]
            )
        theta.addcmul_(gradient, columns["learning_rate"], value=-1)


@dataclass(frozen=True)
class AdamW(_Optimiser):
    """Adam with decoupled weight decay, as `torch.optim.AdamW`.

    Source: Loshchilov & Hutter (2019), Decoupled weight decay regularization, arXiv 1711.05101
    """

    learning_rate: Rate
    weight_decay: Rate = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def init(self, theta: Tensor) -> dict[str, Tensor]:
        return {"mean": torch.zeros_like(theta), "square": torch.zeros_like(theta)}

    def update(
        self,
        theta: Tensor,
        gradient: Tensor,
        state: dict[str, Tensor],
        columns: dict[str, Tensor],
        t: Tensor,
        layout: Layout,
    ) -> None:
        """Update number `t` (from 1), in place; `columns` as from `columns()`, the rate already scheduled."""
        rate, (beta1, beta2) = columns["learning_rate"], self.betas
        if _any(self.weight_decay):
            theta.mul_(1 - rate * columns["weight_decay"])
        if not torch.compiler.is_compiling():
            # PyTorch's fused kernel takes one rate, so it makes a step of rate 1 from 0, which every row then scales.
            step = torch.zeros_like(theta)
            torch._fused_adamw_(
                [step],
                [gradient],
                [state["mean"]],
                [state["square"]],
                max_exp_avg_sqs=[],
                state_steps=[t.float()],
                lr=1.0,
                beta1=beta1,
                beta2=beta2,
                weight_decay=0.0,
                eps=self.eps,
                amsgrad=False,
                maximize=False,
            )
            theta.addcmul_(step, rate)
            return
        t = t.double()
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        spread = state["square"].sqrt().div_((1 - beta2**t).sqrt()).add_(self.eps)
        theta.addcdiv_(state["mean"] * (rate / (1 - beta1**t)), spread, value=-1)


@dataclass(frozen=True)
class Lazy(_Optimiser):
    """Any optimiser, which leaves a parameter and its memory of it alone in steps in which it has no gradient at all.

    So are the layers that a random path skips: their moments do not fade, and weight decay does not act on them.

    Source: Panigrahi et al. (2024), Efficient Stagewise Pretraining via Progressive Subnetworks, arXiv 2402.05913
    """

    optimiser: Any

    def columns(self, replicas: int, device: torch.device) -> dict[str, Tensor]:
        return self.optimiser.columns(replicas, device)

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
        """As the optimiser's, in place."""
        before = [tensor.clone() for tensor in (theta, *state.values())]
        self.optimiser.update(theta, gradient, state, columns, t, layout)
        idle = torch.zeros_like(gradient, dtype=torch.bool)
        for part, kept in zip(gradient.split(layout.widths, 1), idle.split(layout.widths, 1)):
            kept |= layout.norms(part, torch.inf) == 0
        for tensor, old in zip((theta, *state.values()), before):
            tensor.copy_(torch.where(idle, old, tensor))
