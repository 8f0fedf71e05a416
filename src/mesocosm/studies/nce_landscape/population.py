"""What holds for the population in one dimension: identities, flatness and descents, all in float64 by quadrature."""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from mesocosm import measures, tasks
from mesocosm.studies.nce_landscape.rules import JUDGED, SHARES

if TYPE_CHECKING:
    from torch import Tensor

    Objective = Callable[..., Tensor]

OFF = 0.1
"""Error in c at which the gradient must not vanish."""


def of_vector(objective: "Objective", batch: Any) -> "Callable[[Tensor], Tensor]":
    """The loss of (theta, c) `[d + 1]` for the model z(x) = theta.x - c."""
    return lambda tau: objective(lambda x: x @ tau[:-1] - tau[-1], batch)


def identities(objectives: "dict[str, Objective]", distance: float) -> "dict[str, Tensor]":
    """Relative errors of what must hold exactly at the optimum, and what is reported beside it."""
    import torch
    from torch.func import grad, hessian, vmap

    task = tasks.GaussianPair(distance=distance)
    batch, optimum, scale = task.quadrature(), task.optimum, task.bhattacharyya
    nce, ence = (of_vector(objectives[name], batch) for name in ("NCE", "eNCE"))
    x = torch.linspace(-14, distance + 14, 9001, dtype=torch.float64)
    log_p, log_q = (-((x - mean) ** 2) / 2 - math.log(2 * math.pi) / 2 for mean in (distance, 0.0))
    nodes = (log_p, log_q, torch.full_like(x, (distance + 28) / 9000))
    curvature = scale / 4 * torch.tensor([[1 + distance**2 / 4, -distance / 2], [-distance / 2, 1]]).double()
    t = 2 + distance**2 / 4
    condition = ((t + math.sqrt(t**2 - 4)) / 2) ** 2
    apart = math.log(2) - measures.jensen_shannon(*nodes)
    starts = optimum * torch.linspace(0, 0.95, 20).double()[:, None] + torch.tensor([0, OFF]).double()
    routes = {
        "eNCE": (vmap(grad(ence))(starts), vmap(grad(task.exponential_loss))(starts)),
        "NCE": (vmap(grad(nce))(starts), vmap(lambda tau: nce_gradient(tau, batch))(starts)),
    }
    found = {
        "eNCE value": abs(ence(optimum) - scale) / scale,
        "eNCE value, closed form": abs(task.exponential_loss(optimum) - scale) / scale,
        "Bhattacharyya coefficient": abs(measures.bhattacharyya(*nodes) - scale) / scale,
        "NCE value": abs(nce(optimum) - apart) / apart,
        "eNCE Hessian": (hessian(ence)(optimum) - curvature).abs().max() / curvature.abs().max(),
        "eNCE condition": abs(measures.condition_number(ence, optimum) - condition) / condition,
    }
    for name, loss in (("NCE", nce), ("eNCE", ence)):
        one, other = routes[name]
        off = optimum + torch.tensor([0, OFF]).double()
        found |= {
            f"{name} gradient": grad(loss)(optimum).norm() / scale,
            f"{name} gradient routes": ((one - other).norm(dim=1) / other.norm(dim=1)).max(),
            f"{name} gradient off the optimum": grad(loss)(off).norm() / scale,
            f"{name} condition number": measures.condition_number(loss, optimum),
            f"{name} Newton step from noise": measures.newton_step(loss, 0 * optimum).norm() / optimum.norm(),
            f"{name} Newton step halfway": measures.newton_step(loss, optimum / 2).norm() / optimum.norm(),
        }
    return {name: torch.as_tensor(value, dtype=torch.float64) for name, value in found.items()}


def nce_gradient(tau: "Tensor", batch: Any) -> "Tensor":
    """The gradient of NCE as the paper writes it, (1/2) integral of (q s - p (1 - s)) T, with s = sigmoid(z)."""
    import torch

    z = batch.inputs @ tau[:-1] - tau[-1]
    signed = torch.where(batch.targets > 0, torch.sigmoid(-z), -torch.sigmoid(z))
    statistic = torch.cat([batch.inputs, -torch.ones_like(batch.inputs)], dim=1)
    return -((signed * batch.weights) @ statistic)


def profiles(objective: "Objective", task: Any) -> "dict[str, Tensor]":
    """Loss and norm of the gradient at all shares of the way from noise to data, `[S]`."""
    import torch
    from torch.func import vmap

    loss, optimum = of_vector(objective, task.quadrature()), task.optimum
    shares = torch.tensor(SHARES, dtype=torch.float64)
    norms = measures.gradient_profile(loss, 0 * optimum, optimum, shares)
    return {"population loss": vmap(loss)(shares[:, None] * optimum), "gradient norm": norms}


def descents(
    objective: "Objective",
    normalised: bool,
    distances: Sequence[float],
    rates: Sequence[float],
    cap: int,
    points: int,
    radius: float = JUDGED,
) -> "dict[str, Tensor]":
    """Steps `[distances x rates]` of (normalised) gradient descent from noise to within `radius` of the optimum.

    All runs go together. One that does not get there has taken `cap` steps; one that overflows has NaN.
    """
    import torch
    from torch.func import grad, vmap

    runs = list(product(distances, rates))
    pairs = [tasks.GaussianPair(distance=distance) for distance, _ in runs]
    batches = [pair.quadrature(points) for pair in pairs]
    batch = batches[0]._make(torch.stack(fields) for fields in zip(*batches))
    rate = torch.tensor([rate for _, rate in runs], dtype=torch.float64)[:, None]
    optimum = torch.stack([pair.optimum for pair in pairs])
    slope = vmap(grad(lambda tau, batch: of_vector(objective, batch)(tau)))
    steps, left, tau = torch.full((len(runs),), float(cap)).double(), torch.arange(len(runs)), 0 * optimum
    arrived = torch.zeros(len(runs), dtype=torch.bool)
    for step in range(cap + 1):
        there = (tau - optimum[left]).norm(dim=1) <= radius
        gone = there | ~tau.isfinite().all(1)
        if gone.any():
            arrived[left[there]], steps[left[there]] = True, float(step)
            steps[left[gone & ~there]] = torch.nan
            batch = batch._make(field[~gone] for field in batch)
            left, tau, rate = left[~gone], tau[~gone], rate[~gone]
        if not len(left):
            break
        gradient = slope(tau, batch)
        tau = tau - rate * (gradient / gradient.norm(dim=1, keepdim=True) if normalised else gradient)
    return {"steps": steps, "arrived": arrived.double()}
