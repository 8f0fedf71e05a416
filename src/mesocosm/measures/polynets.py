"""Theory of disjoint-PolyNets: the error that their weights imply, and the gradient flow of the relevant ones."""

import math

import numpy
import torch
from torch import Tensor

__all__ = ["disjoint_polynet_error", "disjoint_polynet_flow"]


def disjoint_polynet_error(weight: Tensor) -> Tensor:
    """Error of a disjoint-PolyNet whose sums of irrelevant terms are taken as Gaussian.

    With v_i the first weight of block i, the relevant one, and u_i the others, sign <w_i, x_{P_i}> agrees with the
    relevant bit with correlation erf(v_i / (||u_i|| sqrt 2)), and the error is 1/2 - 1/2 prod_i of these.

    Args:
        weight: `[..., k, n']`, n' at least 2, as `DisjointPolyNet.weight`.

    Returns:
        `[...]`, from 0 to 1.

    Source: Barak et al. (2022), Hidden Progress in Deep Learning: SGD Learns Parities Near the Computational
    Limit, arXiv 2207.08799
    """
    relevant, irrelevant = weight[..., 0], weight[..., 1:].norm(dim=-1)
    return (1 - torch.erf(relevant / (irrelevant * math.sqrt(2))).prod(dim=-1)) / 2


def disjoint_polynet_flow(relevant: Tensor, times: Tensor) -> Tensor:
    """Relevant weights of a disjoint-PolyNet under gradient flow on the correlation loss of its block parity.

    They follow dv_i/dt = prod_{j != i} v_j, so that all v_i^2 - v_i(0)^2 are equal; no other weight moves. For k >= 3
    they reach infinity in finite time.

    Args:
        relevant: `[k]`, the weights v_i at time 0.
        times: `[E]`, increasing, from 0.

    Returns:
        `[E, k]` float64.

    Raises:
        ValueError: when `times` reaches to where the weights are infinite.

    Source: Barak et al. (2022), Hidden Progress in Deep Learning: SGD Learns Parities Near the Computational
    Limit, arXiv 2207.08799
    """
    from scipy.integrate import solve_ivp

    def velocity(_: float, v: numpy.ndarray) -> list[float]:
        return [numpy.delete(v, i).prod() for i in range(len(v))]

    end = float(times[-1])
    flow = solve_ivp(velocity, (0, end), relevant.double().numpy(), t_eval=times.numpy(), rtol=1e-10, atol=1e-12)
    if not flow.success:
        raise ValueError(f"times={times.tolist()} is not legal: the weights are infinite before {end:g}")
    return torch.from_numpy(flow.y.T)
