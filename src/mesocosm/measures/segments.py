"""The shape of a loss of a parameter vector: gradients along a segment, curvature, and where Newton's method goes."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, hessian, vmap

__all__ = ["condition_number", "gradient_profile", "newton_step"]

Loss = Callable[[Tensor], Tensor]
"""A differentiable function of one vector `[P]`."""


def gradient_profile(loss: Loss, start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """Norms of the gradient `[S]` at start + s (end - start), for every s of `shares` `[S]`.

    Source: Liu et al. (2022), Analyzing and Improving the Optimization Landscape of Noise-Contrastive Estimation, arXiv
    2110.11271
    """
    return vmap(grad(loss))(start + shares[:, None] * (end - start)).norm(dim=-1)


def condition_number(loss: Loss, at: Tensor) -> Tensor:
    """Largest over smallest eigenvalue of the Hessian at `at` `[P]`; infinite where it is not positive definite."""
    eigenvalues = torch.linalg.eigvalsh(hessian(loss)(at))
    return torch.where(eigenvalues[0] > 0, eigenvalues[-1] / eigenvalues[0], torch.inf)


def newton_step(loss: Loss, at: Tensor) -> Tensor:
    """The undamped step of Newton's method from `at`, minus the inverse Hessian times the gradient, `[P]`."""
    return -torch.linalg.solve(hessian(loss)(at), grad(loss)(at))
