"""Where theory gives the answer: a linear learner of bounded norm, and a picture in one dimension."""

import math
from functools import partial
from typing import TYPE_CHECKING

from mesocosm import measures

if TYPE_CHECKING:
    from torch import Tensor

    from mesocosm.lab.lab import Lab
    from mesocosm.studies.resmem import Config

POINTS = 20
"""Training points of the picture."""


def run(config: "Config", lab: "Lab") -> None:
    for radius in (config.radius, 1.0):
        for d in config.dimensions:
            name = f"linear/L={radius:g}/d={d}"
            found = lab.remember(name, partial(risks, config, d, radius))
            for i, n in enumerate(config.samples):
                at = {metric: values[:, i] for metric, values in found.items()}
                lab.record("linear", at, seed=range(config.seeds), radius=radius, d=d, n=n)
    for part, found in (("points", training_points()), ("curves", curves())):
        x = found.pop("x").tolist()
        lab.record(f"picture/{part}", found, seed=[0] * len(x), x=x)


def risks(config: "Config", d: int, radius: float) -> "dict[str, Tensor]":
    """Risks of the bounded linear learner and of ResMem with its nearest neighbour, `[R, E]` by seed and samples.

    y = <theta*, x> with ||theta*|| = 1 and x ~ N(0, I_d / d). The base's risk is exact, ResMem's is on fresh points.
    """
    import torch

    from mesocosm.seeding import generator

    found = torch.zeros(2, config.seeds, len(config.samples), dtype=torch.float64)
    for seed in range(config.seeds):
        for i, n in enumerate(config.samples):
            draw = generator(seed, "linear", f"{d} {n}")
            truth, train, fresh = (
                torch.randn(rows, d, generator=draw, dtype=torch.float64) for rows in (1, n, config.points)
            )
            truth, train, fresh = truth[0] / truth.norm(), train / math.sqrt(d), fresh / math.sqrt(d)
            theta = measures.norm_constrained_least_squares(train, train @ truth, radius)
            nearest = measures.nearest_neighbours(train, fresh, 1)
            looked_up = measures.residual_memory(train @ theta, train @ truth, fresh @ theta, nearest)
            found[0, seed, i] = (theta - truth).square().sum() / d
            found[1, seed, i] = (looked_up - fresh @ truth).square().mean()
    return {"base risk": found[0], "ResMem risk": found[1]}


def training_points() -> "dict[str, Tensor]":
    """Points of a curve, the straight line of least squares through them, and what that leaves."""
    import torch

    x = torch.linspace(0, 1, POINTS, dtype=torch.float64)
    line = straight_line(x, truth(x), x)
    return {"x": x, "truth": truth(x), "base": line, "residual": truth(x) - line}


def curves() -> "dict[str, Tensor]":
    """The same everywhere, with the residual looked up at the three nearest points."""
    import torch

    known, x = training_points(), torch.linspace(0, 1, 201, dtype=torch.float64)
    near = measures.nearest_neighbours(known["x"][:, None], x[:, None], 3)
    base = straight_line(known["x"], known["truth"], x)
    residual = measures.knn_predict(known["residual"], near, sigma=0.02)
    resmem = measures.residual_memory(known["base"], known["truth"], base, near, sigma=0.02)
    return {"x": x, "truth": truth(x), "base": base, "residual": residual, "ResMem": resmem}


def truth(x: "Tensor") -> "Tensor":
    return x + 0.25 * (4 * math.pi * x).sin()


def straight_line(x: "Tensor", y: "Tensor", at: "Tensor") -> "Tensor":
    import torch

    slope, start = torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], dim=1), y).solution
    return start + slope * at
