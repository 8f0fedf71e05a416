"""Tensors as sums of few rank-one terms."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["jennrich"]


class Factors(NamedTuple):
    first: Tensor
    """`[m, k]`: columns of length 1."""
    second: Tensor
    """`[n, k]`: columns of length 1."""
    third: Tensor
    """`[l, k]`: these carry the size."""
    residual: float
    """Frobenius norm of what the terms leave of the tensor, over that of the tensor."""


def jennrich(tensor: Tensor, rank: int, generator: torch.Generator, draws: int = 20) -> Factors:
    """Factors A, B and C of a tensor sum_j a_j ⊗ b_j ⊗ c_j, by simultaneous diagonalisation.

    Two random combinations of slices are A D B^T and A D' B^T with diagonal D and D': within the span of A, the first
    times the inverse of the second has the columns of A as eigenvectors. B follows by inversion and C by least squares.
    They are exact and unique up to order and scale where A and B have full column rank and no two columns of C are
    parallel. With noise, eigenvalues that are close do harm: of `draws` pairs of combinations, the one whose factors
    leave the smallest residual is kept. Eigenvectors that come out complex count with their real parts, and columns may
    be 0 where the tensor has a lower rank.

    Args:
        tensor: `[m, n, l]`, best in float64.
        rank: k, at most m and n.

    Raises:
        ValueError: for a rank above m or n.

    Source: Harshman (1970), Foundations of the PARAFAC procedure, UCLA Working Papers in Phonetics 16 (there credited
    to Jennrich); Leurgans, Ross & Abel (1993), A decomposition for three-way arrays, SIAM J. Matrix Anal. Appl. 14
    """
    if not 1 <= rank <= min(tensor.shape[:2]):
        raise ValueError(f"rank={rank} is not legal: it must be from 1 to {min(tensor.shape[:2])}")
    left = torch.linalg.svd(tensor.flatten(1), full_matrices=False)[0][:, :rank]
    right = torch.linalg.svd(tensor.movedim(1, 0).flatten(1), full_matrices=False)[0][:, :rank]
    core = torch.einsum("mnl,mi,nj->ijl", tensor, left, right)
    weights = torch.randn(draws, 2, tensor.shape[2], dtype=tensor.dtype, generator=generator).to(tensor.device)
    slices = torch.einsum("ijl,tpl->ptij", core, weights)
    ratio = slices[0] @ torch.linalg.pinv(slices[1])
    a = torch.linalg.eig(ratio)[1].real  # [draws, k, k]
    b = (torch.linalg.pinv(a) @ slices[0]).mT
    a, b = (left @ a), (right @ b)
    a, b = (part / part.norm(dim=1, keepdim=True).clamp_min(1e-300) for part in (a, b))
    terms = (a[:, :, None] * b[:, None]).flatten(1, 2)  # [draws, m n, k]
    c = (torch.linalg.pinv(terms) @ tensor.flatten(0, 1)).mT
    left_over = (terms @ c.mT - tensor.flatten(0, 1)).flatten(1).norm(dim=1) / tensor.norm()
    best = int(left_over.nan_to_num(torch.inf).argmin())
    return Factors(a[best], b[best], c[best], float(left_over[best]))
