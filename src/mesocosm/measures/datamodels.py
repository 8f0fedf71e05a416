"""What a training set's subsets say of a trained model's outputs: linear datamodels and Fourier coefficients.

An output f(x) is that of a model trained on the subset x in {0,1}^N, where each point is in with probability p. The
orthonormal basis for these subsets are the products phi_T(x) = prod_{i in T} (x_i - p) / sqrt(p (1 - p)), and the
weight of degree d is B_d, the sum of f's squared coefficients on the sets T of d points.
"""

from collections.abc import Sequence
from itertools import combinations
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "biased_fourier",
    "biased_subsets",
    "degree_weights",
    "group_influence",
    "harmonic_datamodel",
    "linear_datamodel",
    "pair_coefficients",
]


class LinearDatamodel(NamedTuple):
    """f(x) ~ intercept + sum_i theta_i phi_i(x)."""

    intercept: Tensor
    """`[]` or `[M]`."""
    theta: Tensor
    """`[N]` or `[N, M]`."""
    p: float

    @property
    def influences(self) -> Tensor:
        """What adding each point changes: theta / sqrt(p (1 - p)), `[N]` or `[N, M]`."""
        return self.theta / sqrt(self.p * (1 - self.p))

    def predict(self, masks: Tensor) -> Tensor:
        """`[K]` or `[K, M]`, from masks `[K, N]`."""
        return self.intercept + _phi(masks, self.p) @ self.theta

    def residual(self, masks: Tensor, outputs: Tensor) -> Tensor:
        """Mean squared error on models trained on these subsets, `[]` or `[M]`."""
        return (self.predict(masks) - outputs).square().mean(0)


def _check_p(p: float) -> None:
    if not 0 < p < 1:
        raise ValueError(f"p={p} is not legal: it must lie between 0 and 1")


def _phi(masks: Tensor, p: float) -> Tensor:
    _check_p(p)
    return (masks.double() - p) / sqrt(p * (1 - p))


def biased_subsets(count: int, n: int, p: float, generator: torch.Generator) -> Tensor:
    """Subsets of n points with each point in with probability p: masks `[count, n]` bool.

    Raises:
        ValueError: unless 0 < p < 1.

    Source: Ilyas et al. (2022), Datamodels: Predicting Predictions from Training Data, arXiv 2202.00622; there subsets
    have a fixed size
    """
    _check_p(p)
    return torch.rand(count, n, generator=generator) < p


def linear_datamodel(
    masks: Tensor, outputs: Tensor, p: float = 0.5, *, ridge: float = 0.0, lasso: float = 0.0
) -> LinearDatamodel:
    """The linear datamodel by regression of outputs on which points were in the training set.

    It minimises mean (f - intercept - theta.phi)^2 / 2 + lasso |theta|_1 + ridge |theta|^2 / 2. Without penalties and
    over the whole law of subsets it is the degree-1 part of f, and its residual is B_2 + B_3 + ...; where the subsets
    do not determine it, theta is the shortest solution.

    Args:
        masks: `[K, N]` bool, the training points of each of K models.
        outputs: `[K]` or `[K, M]`, for M test points or kinds of output.

    Raises:
        ValueError: for a negative penalty, or unless 0 < p < 1.

    Source: Ilyas et al. (2022), Datamodels: Predicting Predictions from Training Data, arXiv 2202.00622; Saunshi et al.
    (2022), Understanding Influence Functions and Datamodels via Harmonic Analysis, arXiv 2210.01072
    """
    if min(ridge, lasso) < 0:
        raise ValueError(f"ridge={ridge}, lasso={lasso} is not legal: penalties must not be negative")
    phi, f = _phi(masks, p), outputs.double()
    x, y = phi - phi.mean(0), f - f.mean(0)
    if lasso:
        from sklearn.linear_model import ElasticNet

        net = ElasticNet(
            lasso + ridge, l1_ratio=lasso / (lasso + ridge), fit_intercept=False, tol=1e-8, max_iter=10_000
        )
        coefficients = net.fit(x.cpu().numpy(), y.cpu().numpy()).coef_.T
        theta = torch.as_tensor(coefficients, device=y.device).reshape(x.shape[1], *y.shape[1:])
    else:
        gram = x.T @ x / len(x) + ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        theta = torch.linalg.pinv(gram, hermitian=True) @ (x.T @ y) / len(x)
    return LinearDatamodel(f.mean(0) - phi.mean(0) @ theta, theta, p)


def harmonic_datamodel(masks: Tensor, outputs: Tensor, p: float = 0.5) -> LinearDatamodel:
    """The linear datamodel by Fourier coefficients, theta_i = E[f phi_i], with no system to solve.

    On random subsets each has a standard error of about sd(f) / sqrt(K).

    Args:
        masks, outputs: as for `linear_datamodel`.

    Source: Saunshi et al. (2022), Understanding Influence Functions and Datamodels via Harmonic Analysis, arXiv
    2210.01072
    """
    f = outputs.double()
    return LinearDatamodel(f.mean(0), _phi(masks, p).T @ (f - f.mean(0)) / len(masks), p)


def pair_coefficients(masks: Tensor, outputs: Tensor, p: float = 0.5) -> Tensor:
    """Fourier coefficients of degree 2, E[f phi_i phi_j]: how much two training points act together.

    Args:
        masks, outputs: as for `linear_datamodel`.

    Returns:
        `[N, N]` or `[N, N, M]`, symmetric, with 0 on the diagonal.

    Source: Saunshi et al. (2022), Understanding Influence Functions and Datamodels via Harmonic Analysis, arXiv
    2210.01072
    """
    phi, f = _phi(masks, p), outputs.double()
    columns = (f - f.mean(0)).reshape(len(f), -1).unbind(1)
    both = torch.stack([phi.T @ (phi * column[:, None]) / len(phi) for column in columns])
    both.diagonal(dim1=1, dim2=2).zero_()
    return both.movedim(0, -1).reshape(*both.shape[1:], *f.shape[1:])


def biased_fourier(values: Tensor, p: float = 0.5) -> Tensor:
    """All Fourier coefficients E[f phi_T] of functions of p-biased subsets, exactly.

    At p = 1/2 it is `walsh_hadamard` times (-1)^|T|, since there the bit 1 stands for -1.

    Args:
        values: `[..., 2^n]`: at index s, f of the subset of those i whose bit is set in s, as in `cube(n) < 0` with
            `mesocosm.tasks.parity.cube`.

    Returns:
        `[..., 2^n]`: at index t, the coefficient of the set of those i whose bit is set in t.

    Raises:
        ValueError: when the last axis is not a power of two, or unless 0 < p < 1.

    Source: O'Donnell (2021), Analysis of Boolean Functions, section 8.4, arXiv 2105.10386
    """
    _check_p(p)
    size = values.shape[-1]
    if size < 1 or size & (size - 1):
        raise ValueError(f"values has a last axis of {size}: it must be a power of two, 2^n for n points")
    coefficients = values
    for bit in range(size.bit_length() - 1):
        out, within = coefficients.reshape(*values.shape[:-1], -1, 2, 2**bit).unbind(-2)
        parts = ((1 - p) * out + p * within, sqrt(p * (1 - p)) * (within - out))
        coefficients = torch.stack(parts, dim=-2)
    return coefficients.reshape(values.shape)


def degree_weights(coefficients: Tensor) -> Tensor:
    """B_0, ..., B_n: squared Fourier coefficients summed over the sets of each size.

    Args:
        coefficients: `[..., 2^n]`, as from `biased_fourier` or `walsh_hadamard`.

    Returns:
        `[..., n + 1]`; their sum is E[f^2].

    Source: O'Donnell (2021), Analysis of Boolean Functions, section 1.4, arXiv 2105.10386
    """
    size = coefficients.shape[-1]
    degrees = torch.tensor([s.bit_count() for s in range(size)], device=coefficients.device)
    weights = coefficients.new_zeros(*coefficients.shape[:-1], size.bit_length())
    return weights.index_add(-1, degrees, coefficients.square())


def group_influence(coefficients: Tensor, group: Sequence[int], p: float = 0.5) -> Tensor:
    """Mean change of f when a whole group is in rather than out: E[f | all of A in] - E[f | all of A out].

    It is sum over T in A of f_T (((1 - p) / p)^(|T| / 2) - (-1)^|T| (p / (1 - p))^(|T| / 2)). At p = 1/2 only sets of
    odd size count, so that the influences of two points add up exactly; those of three need not.

    Args:
        coefficients: `[..., 2^n]`, from `biased_fourier` at the same p.
        group: indices of the points of A, each once.

    Returns:
        `[...]`.

    Raises:
        ValueError: for a point that is not there or comes twice, or unless 0 < p < 1.

    Source: Saunshi et al. (2022), Understanding Influence Functions and Datamodels via Harmonic Analysis, arXiv
    2210.01072
    """
    _check_p(p)
    n = coefficients.shape[-1].bit_length() - 1
    if len(set(group)) < len(group) or not set(group) <= set(range(n)):
        raise ValueError(f"group={list(group)} is not legal: it must hold different points from 0 to {n - 1}")
    within, out = sqrt((1 - p) / p), -sqrt(p / (1 - p))
    total = torch.zeros_like(coefficients[..., 0])
    for size in range(1, len(group) + 1):
        members = [sum(1 << i for i in part) for part in combinations(group, size)]
        total = total + (within**size - out**size) * coefficients[..., members].sum(-1)
    return total
