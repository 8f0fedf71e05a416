"""How much a gradient depends on the draw of the batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from mesocosm.models._applied import Applied

__all__ = ["gradient_moments"]


class GradientMoments(NamedTuple):
    """Moments of a gradient over draws."""

    mean: Tensor
    """`[P]`."""
    variance: Tensor
    """The trace of the covariance, a scalar."""


def gradient_moments(
    model: nn.Module, objective: Callable[..., Tensor], batches: Any, chunk: int = 256
) -> GradientMoments:
    """Mean and variance, over K draws of a batch, of the gradient of `objective(model, batch)` in the model's weights.

    The same inputs with K draws of the labels show the noise of the labels alone: that of a loss
    (1 - w) CE(labels) + w CE(soft labels) has (1 - w)^2 times the variance of CE(labels).

    Args:
        batches: named tuple of tensors `[K, ...]`, K at least 2.
        chunk: draws that are mapped over at once.

    Source: the identity is that of Rawat et al. (2024), A Little Help Goes a Long Way, on bias and variance, in its
    simplest form, arXiv 2410.18779
    """
    loss = Applied(model, objective)
    weights = {name: p.detach() for name, p in loss.named_parameters()}

    def gradient(batch: Any) -> Tensor:
        found = grad(lambda weights: functional_call(loss, weights, (batch,)))(weights)
        return torch.cat([part.flatten() for part in found.values()])

    count = len(batches[0])
    first = gradient(batches._make(field[0] for field in batches)).double()
    total, squares = torch.zeros_like(first), first.new_zeros(())
    for start in range(0, count, chunk):
        part = batches._make(field[start : start + chunk] for field in batches)
        away = vmap(gradient)(part).double() - first  # from one draw, so that the squares cancel little
        total, squares = total + away.sum(0), squares + away.square().sum()
    return GradientMoments(first + total / count, (squares - total.square().sum() / count) / (count - 1))
