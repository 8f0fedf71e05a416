"""Losses that fit a density by telling data from noise; the model gives z(x), the log of its ratio to the noise."""

from typing import Any

import torch
from torch import Tensor, nn

from mesocosm.training.objectives import _mean

__all__ = ["ence", "nce"]


def nce(model: nn.Module, batch: Any) -> Tensor:
    """Noise-contrastive estimation: log(1 + exp(-y z(x))), for targets y of 1 for data and -1 for noise, `[B]`.

    With as much noise as data this is (1/2) E_data softplus(-z) + (1/2) E_noise softplus(z), in nats. At the optimum it
    is log 2 less their Jensen-Shannon divergence.

    Source: Gutmann & Hyvarinen (2010), Noise-contrastive estimation: a new estimation principle for unnormalized
    statistical models; as studied by Liu et al. (2022), section 2, arXiv 2110.11271
    """
    margins = batch.targets * model(batch.inputs)
    return _mean(torch.logaddexp(torch.zeros_like(margins), -margins), batch.weights)


def ence(model: nn.Module, batch: Any) -> Tensor:
    """Exponential noise-contrastive estimation (eNCE): exp(-y z(x) / 2), for targets y of 1 for data and -1 for noise.

    With as much noise as data this is (1/2) E_data exp(-z/2) + (1/2) E_noise exp(z/2), which has the optimum of NCE and
    is there their Bhattacharyya coefficient. Nothing is clipped: it overflows where a step was too long.

    Source: Liu et al. (2022), Analyzing and Improving the Optimization Landscape of Noise-Contrastive Estimation, arXiv
    2110.11271
    """
    return _mean((-batch.targets * model(batch.inputs) / 2).exp(), batch.weights)
