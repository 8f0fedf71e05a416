"""How far two densities are from each other, by quadrature."""

import math

import torch
from torch import Tensor

__all__ = ["bhattacharyya", "effective_samples", "jensen_shannon"]


def bhattacharyya(log_p: Tensor, log_q: Tensor, widths: Tensor) -> Tensor:
    """Bhattacharyya coefficient, the integral of sqrt(p q): 1 for equal densities, 0 for disjoint ones.

    Args:
        log_p, log_q: log densities at the nodes of a quadrature, `[..., N]`.
        widths: its weights, `[N]`.

    Source: Bhattacharyya (1943), On a measure of divergence between two statistical populations
    """
    return (((log_p + log_q) / 2).exp() * widths).sum(-1)


def jensen_shannon(log_p: Tensor, log_q: Tensor, widths: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats: the mean of KL(p, m) and KL(q, m) for m = (p + q) / 2; at most log 2.

    Args:
        log_p, log_q: log densities at the nodes of a quadrature, `[..., N]`.
        widths: its weights, `[N]`.

    Source: Lin (1991), Divergence measures based on the Shannon entropy
    """
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    halves = log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)
    return (halves * widths).sum(-1) / 2


def effective_samples(log_weights: Tensor) -> Tensor:
    """How many equal weights are worth as much as these: (sum w)^2 / sum w^2, from `[..., N]` to `[...]`.

    Source: Kong (1992), A note on importance sampling using standardized weights
    """
    return (2 * log_weights.logsumexp(-1) - (2 * log_weights).logsumexp(-1)).exp()
