"""Small non-linear least squares, solved to machine precision from many starts at once."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacfwd, vmap

__all__ = ["levenberg_marquardt"]

MEMORY = 2**21
"""Numbers in the Jacobians of the starts that are stepped at once, few enough for a processor's cache."""
SETTLED = 1e-9
"""Relative fall of the mean square, foretold at little damping, below which a start sits in a local minimum."""


@torch.no_grad()
def levenberg_marquardt(
    residuals: Callable[..., Tensor], start: Tensor, *data: Tensor, steps: int = 300, enough: float = 1e-25
) -> tuple[Tensor, Tensor]:
    """Minimise the mean square of `residuals(theta, *data)` from every start, by damped Gauss-Newton steps.

    Each start has its own damping, a multiple of the mean curvature: it falls after steps that did as well as the
    quadratic model says and rises after those that failed, which are undone. A start is done at a mean square of
    `enough` or in a local minimum. Deterministic; starts do not touch.

    Args:
        residuals: of ONE start: `residuals(theta [P], *data) -> [N]`, mapped over starts by `vmap`.
        start: `[S, P]`, best in float64.
        data: for every start its own, `[S, ...]` each.
        steps: damped steps at most.
        enough: mean square at which a start is done.

    Returns:
        the weights `[S, P]`, and their mean squares `[S]`.

    Source: Marquardt (1963), An algorithm for least-squares estimation of nonlinear parameters; damping as in Nielsen
    (1999), Damping parameter in Marquardt's method, IMM-REP-1999-05, Technical University of Denmark
    """
    width = vmap(residuals)(start[:1], *(d[:1] for d in data)).shape[1]
    at_once = max(1, MEMORY // (width * start.shape[1]))
    parts = [
        _solve(residuals, theta, rest, steps, enough)
        for theta, *rest in zip(start.split(at_once), *(d.split(at_once) for d in data))
    ]
    thetas, losses = zip(*parts)
    return torch.cat(thetas), torch.cat(losses)


def _solve(
    residuals: Callable[..., Tensor], start: Tensor, data: list[Tensor], steps: int, enough: float
) -> tuple[Tensor, Tensor]:
    value, jacobian = vmap(residuals), vmap(jacfwd(residuals))
    theta, damping, raise_by = start.clone(), torch.full_like(start[:, 0], 1e-2), torch.full_like(start[:, 0], 2.0)
    r = value(theta, *data)
    loss, settled = r.square().mean(1), torch.zeros(len(theta), dtype=torch.bool, device=theta.device)
    eye = torch.eye(start.shape[1], dtype=start.dtype, device=start.device)
    for _ in range(steps):
        live = ((loss > enough) & ~settled).nonzero()[:, 0]
        if not len(live):
            break
        mine = [d[live] for d in data]
        slopes = jacobian(theta[live], *mine)  # [L, N, P]
        curvature = slopes.mT @ slopes
        scale = damping[live] * curvature.diagonal(dim1=1, dim2=2).mean(1)
        gradient = (slopes.mT @ r[live, :, None])[..., 0]
        move = -torch.linalg.solve_ex(curvature + scale[:, None, None] * eye, gradient)[0]
        there = value(theta[live] + move, *mine)
        new = there.square().mean(1)
        expected = (move * (scale[:, None] * move - gradient)).sum(1) / r.shape[1]
        gain = (loss[live] - new) / expected
        better = gain > 0  # Not where it is NaN.
        theta[live] += torch.where(better[:, None], move, 0)
        r[live], loss[live] = torch.where(better[:, None], there, r[live]), torch.where(better, new, loss[live])
        settled[live] = better & (expected < SETTLED * loss[live]) & (damping[live] < 1e-3)
        softer = damping[live] * (1 - (2 * gain - 1) ** 3).clamp_min(1 / 3)
        damping[live] = torch.where(better, softer, damping[live] * raise_by[live]).clamp(1e-15, 1e15)
        raise_by[live] = torch.where(better, 2.0, (2 * raise_by[live]).clamp_max(1e6))
    return theta, loss
