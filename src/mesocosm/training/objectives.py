"""Objectives for one replica, `objective(model, batch) -> scalar`: means over samples or tokens by `weights`."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["correlation", "cross_entropy", "hinge", "square"]


def _mean(losses: Tensor, weights: Tensor) -> Tensor:
    return (losses * weights).sum() / weights.sum().clamp_min(1e-12)


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    """-log softmax of the target class or token; logits `[B, ..., V]`, targets `[B, ...]`. In nats."""
    losses = F.cross_entropy(model(batch.inputs).flatten(0, -2), batch.targets.flatten(), reduction="none")
    return _mean(losses, batch.weights.flatten())


def hinge(model: nn.Module, batch: Any) -> Tensor:
    """max(0, 1 - y f(x)) for targets y of -1 or 1 and scores f(x), both `[B]`."""
    return _mean((1 - batch.targets * model(batch.inputs)).relu(), batch.weights)


def square(model: nn.Module, batch: Any) -> Tensor:
    """(f(x) - y)^2, mean over output coordinates."""
    losses = (model(batch.inputs) - batch.targets).square()
    return _mean(losses.flatten(1).mean(1) if losses.dim() > 1 else losses, batch.weights)


def correlation(model: nn.Module, batch: Any) -> Tensor:
    """-y f(x), the linear loss under which one neuron's gradient is a Fourier coefficient.

    Source: Barak et al. (2022), Hidden progress in deep learning, section 4, arXiv 2207.08799
    """
    return _mean(-batch.targets * model(batch.inputs), batch.weights)
