"""Progress of training that the loss does not show, and when what shows happens."""

from math import comb

import torch
from torch import Tensor

__all__ = ["max_displacement", "null_z_score", "plateau_share", "projection_progress", "time_to_threshold"]


def projection_progress(displacement: Tensor, gradients: Tensor) -> Tensor:
    """How far weights have moved down each of M gradients: P_S = <W_t - W_0, -G_S> / ||G_S||.

    With G_S the population gradient at W_0 for the parity S (`population_gradient`), progress on the true S beyond that
    on wrong ones is learning that the error does not show yet.

    Args:
        displacement: `[..., D]`, W_t - W_0 flattened.
        gradients: `[..., M, D]`, G_S for M sets; leading axes broadcast.

    Returns:
        `[..., M]`, in units of the weights; NaN for a gradient of zero.

    Source: Barak et al. (2022), Hidden Progress in Deep Learning: SGD Learns Parities Near the Computational
    Limit, arXiv 2207.08799
    """
    return -torch.einsum("...d,...md->...m", displacement, gradients) / gradients.norm(dim=-1)


def null_z_score(value: Tensor, nulls: Tensor) -> Tensor:
    """Standard deviations by which values `[...]` exceed the mean of their nulls `[..., M]`.

    z = (value - mean(nulls)) / std(nulls), with M - 1 degrees of freedom.

    Raises:
        ValueError: when there are fewer than two nulls.
    """
    if nulls.shape[-1] < 2:
        raise ValueError(f"nulls has a last axis of {nulls.shape[-1]}: it must hold at least 2 null values")
    return (value - nulls.mean(dim=-1)) / nulls.std(dim=-1)


def wrong_sets(n: int, k: int, count: int, generator: torch.Generator) -> Tensor:
    """`[count, k]`: distinct random sets of k of n coordinates, none of them the first k.

    Raises:
        ValueError: when there are not so many.
    """
    if not 0 < count < comb(n, k):
        raise ValueError(f"count={count} is not legal: there are {comb(n, k) - 1} wrong sets of {k} of {n} coordinates")
    chosen = 1 + torch.randperm(comb(n, k) - 1, generator=generator)[:count]  # the first combination is the true set
    return torch.combinations(torch.arange(n), k)[chosen]


def max_displacement(weights: Tensor, initial: Tensor) -> Tensor:
    """The paper's probe of hidden progress, rho(t) = ||W_t - W_0||_inf, over the last axis of flat weights `[..., D]`.

    It grows for labels of pure noise too, so it shows progress only together with `projection_progress`.

    Source: Barak et al. (2022), Hidden Progress in Deep Learning: SGD Learns Parities Near the Computational
    Limit, arXiv 2207.08799
    """
    return (weights - initial).abs().amax(dim=-1)


def time_to_threshold(steps: Tensor, values: Tensor, threshold: float) -> Tensor:
    """First step at which each replica's value is below the threshold.

    Args:
        steps: `[E]`, increasing steps of the evaluations.
        values: `[E, R]`, one column a replica; NaN, as after divergence, is not below.

    Returns:
        `[R]` float64; infinite for replicas that never get there, so that they count in a median.

    Raises:
        ValueError: when steps do not increase.
    """
    return first_step(steps, values < threshold)


def first_step(steps: Tensor, reached: Tensor) -> Tensor:
    """First of the increasing `steps` `[E]` at which `reached` `[E, R]` holds, `[R]` float64; infinite where never.

    Raises:
        ValueError: when steps do not increase.
    """
    if not (steps.diff() > 0).all():
        raise ValueError(f"steps={steps.tolist()} is not legal: it must increase")
    return torch.where(reached, steps.double()[:, None], torch.inf).amin(dim=0)


def plateau_share(steps: Tensor, errors: Tensor, left: float = 0.45, solved: float = 0.02) -> Tensor:
    """Share of the time to a solution that passes before error first falls below `left`, close to chance.

    s = (first step with error < `left`) / (first step with error < `solved`).

    Args:
        steps: `[E]`, increasing steps of the evaluations.
        errors: `[E, R]`, fractions, one column a replica.

    Returns:
        `[R]` from 0 to 1; NaN for replicas that never solve the task.

    Raises:
        ValueError: when steps do not increase, or `solved` exceeds `left`.
    """
    if solved > left:
        raise ValueError(f"solved={solved} is not legal: it must be at most left={left}")
    end = time_to_threshold(steps, errors, solved)
    return torch.where(end.isfinite(), time_to_threshold(steps, errors, left) / end, torch.nan)
