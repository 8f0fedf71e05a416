"""How linear a trained model's output is in its training points, from pairs of correlated subsets of these.

Subsets, outputs and the weights B_d of their degrees are those of `mesocosm.measures.datamodels`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mesocosm.measures.datamodels import biased_subsets

__all__ = [
    "correlated_subsets",
    "datamodel_r2_from_pairs",
    "fit_degree_weights",
    "noise_stability",
    "stability_polynomial",
]


class PairEstimate(NamedTuple):
    """How nearly linear an output is in its training points."""

    r2: Tensor
    """B_1 over the variance, `[]` or `[M]`; NaN for an output that never varies."""
    residual: Tensor
    """Mean squared error of the best linear datamodel, `[]` or `[M]`."""
    weights: Tensor
    """B_1, B_2, ... as fitted, and the jump where one was asked for; `[degree]` or `[degree, M]`."""


def correlated_subsets(masks: Tensor, rho: float, p: float, generator: torch.Generator) -> Tensor:
    """A partner for each subset: every point keeps its state with probability rho, else it is drawn again.

    Args:
        masks: `[K, N]` bool, as from `biased_subsets` at the same p.

    Returns:
        `[K, N]` bool.

    Raises:
        ValueError: unless 0 < p < 1 and 0 <= rho <= 1.

    Source: O'Donnell (2021), Analysis of Boolean Functions, section 8.2, arXiv 2105.10386
    """
    if not 0 <= rho <= 1:
        raise ValueError(f"rho={rho} is not legal: it must be from 0 to 1")
    keep = torch.rand(masks.shape, generator=generator) < rho
    fresh = biased_subsets(len(masks), masks.shape[1], p, generator)
    return torch.where(keep.to(masks.device), masks, fresh.to(masks.device))


def stability_polynomial(weights: Tensor, rhos: Tensor) -> Tensor:
    """Covariance of f over rho-correlated subsets, sum over d >= 1 of rho^d B_d.

    Args:
        weights: `[..., n + 1]`, from `degree_weights`.
        rhos: `[R]`, from 0 to 1.

    Returns:
        `[..., R]`.

    Source: O'Donnell (2021), Analysis of Boolean Functions, sections 2.4 and 8.2, arXiv 2105.10386
    """
    degrees = torch.arange(1, weights.shape[-1], device=weights.device)
    return weights[..., 1:] @ rhos.to(weights) ** degrees[:, None]


def noise_stability(outputs: Tensor, partners: Tensor) -> Tensor:
    """Covariance of outputs over pairs of correlated subsets, estimated.

    The mean taken off is that of all outputs. Without that, B_0 would drown all else.

    Args:
        outputs, partners: `[R, K]` or `[R, K, M]`, of models trained on K pairs of subsets at each of R values of rho.

    Returns:
        `[R]` or `[R, M]`.

    Source: Saunshi et al. (2022), Understanding Influence Functions and Datamodels via Harmonic Analysis, arXiv
    2210.01072
    """
    mean = torch.cat((outputs, partners)).double().mean((0, 1))
    return ((outputs - mean) * (partners - mean)).mean(1)


def fit_degree_weights(rhos: Tensor, stability: Tensor, degree: int = 4, jump: bool = False) -> Tensor:
    """B_1, ..., B_degree >= 0 of the polynomial sum_d rho^d B_d nearest to the measured noise stability.

    Args:
        rhos: `[R]`, from 0 to 1.
        stability: `[R]` or `[R, M]`.
        degree: the highest; higher degrees of f are counted under this one.
        jump: whether to fit one weight more, that counts at rho = 1 only: for training noise that the two models of a
            pair do not share, or for degrees far above `degree`.

    Returns:
        `[degree]` or `[degree, M]` float64, with the jump as one more row.

    Raises:
        ValueError: when there are fewer values of rho than weights.

    Source: Saunshi et al. (2022), Understanding Influence Functions and Datamodels via Harmonic Analysis, arXiv
    2210.01072
    """
    from scipy.optimize import nnls

    if not 1 <= degree <= len(rhos) - jump:
        raise ValueError(f"degree={degree} is not legal: it must be from 1 to {len(rhos) - jump}, to fit the rhos")
    powers = rhos.double()[:, None] ** torch.arange(1, degree + 1, device=rhos.device)
    columns = torch.cat((powers, (rhos == 1).double()[:, None]), dim=1) if jump else powers
    targets = stability.double().reshape(len(rhos), -1).cpu()
    fits = [torch.from_numpy(nnls(columns.cpu().numpy(), target.numpy())[0]) for target in targets.T]
    return torch.stack(fits, dim=1).reshape(-1, *stability.shape[1:]).to(stability.device)


def datamodel_r2_from_pairs(
    rhos: Tensor, outputs: Tensor, partners: Tensor, degree: int = 4, jump: bool = False
) -> PairEstimate:
    """How well the best linear datamodel would do, without fitting one: from few pairs of correlated subsets.

    The outputs' variance joins the noise stabilities as that at rho = 1; `fit_degree_weights` gives B_1 and the rest.
    The number of trainings does not depend on the number of training points. For an almost linear f only R^2 is
    estimated well, not the residual.

    Args:
        rhos: `[R]`, from 0 to 1, such as 0.1, 0.3, 0.5, 0.7 and 0.9.
        outputs, partners: as for `noise_stability`.
        degree, jump: as for `fit_degree_weights`.

    Source: Saunshi et al. (2022), Understanding Influence Functions and Datamodels via Harmonic Analysis, arXiv
    2210.01072
    """
    variance = torch.cat((outputs, partners)).double().flatten(0, 1).var(0, unbiased=False)
    stability = torch.cat((noise_stability(outputs, partners), variance[None]))
    weights = fit_degree_weights(torch.cat((rhos, rhos.new_ones(1))), stability, degree, jump)
    return PairEstimate(weights[0] / weights.sum(0), weights[1:].sum(0), weights)
