"""Low-degree features of a function on ±1 bits: its correlations with products of few coordinates."""

from collections.abc import Sequence
from itertools import combinations
from math import comb

import torch
from torch import Tensor

from mesocosm.measures.fourier import parities
from mesocosm.seeding import generator

__all__ = ["monomial_correlations", "monomial_strength"]


def monomial_correlations(values: Tensor, inputs: Tensor, sets: Tensor) -> Tensor:
    """E[prod_{i in A} x_i (p(x) - mean p)] for each set A of coordinates.

    Centring keeps the bias of p from leaking into the correlations of a finite sample. On random inputs the error is
    about std(p) / sqrt(N), so take 20,000 or more; on `mesocosm.tasks.parity.cube(n)`, for n up to 15 or so, the result
    is exact.

    Args:
        values: `[..., N]`, p at each input, such as a teacher's probability of class 1; leading axes for replicas.
        inputs: `[N, n]`, ±1.
        sets: `[M, d]`, indices of coordinates.

    Returns:
        `[..., M]`.

    Source: Panigrahi et al. (2025), Progressive distillation induces an implicit curriculum, arXiv 2410.05464
    """
    centred = values - values.mean(-1, keepdim=True)
    return centred @ parities(inputs, sets).to(values.dtype).T / len(inputs)


def monomial_strength(
    values: Tensor, inputs: Tensor, support: Sequence[int], degree: int, count: int = 100, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Mean |correlation| with monomials of one degree: of those within the support, and of those away from it.

    The first is over all subsets of the support, the second over `count` random sets of coordinates outside of it, or
    all where they are no more. A ratio well above 1 tells that p shows which coordinates matter.

    Args:
        values, inputs: as in `monomial_correlations`.
        support: the coordinates that the target depends on.
        degree: d, the number of coordinates in a set.
        count: most sets away from the support.
        seed: of the choice of these.

    Returns:
        c_d and its counterpart off the support, both `[...]`.

    Raises:
        ValueError: when the support, or what lies outside, has fewer than `degree` coordinates.

    Source: Panigrahi et al. (2025), Progressive distillation induces an implicit curriculum, arXiv 2410.05464
    """
    outside = sorted(set(range(inputs.shape[1])) - set(support))
    most = min(len(support), len(outside))
    if not 1 <= degree <= most:
        raise ValueError(
            f"degree={degree} is not legal: it must be from 1 to {most}, to fit the support and its outside"
        )
    within = torch.tensor(list(combinations(support, degree)))
    if comb(len(outside), degree) <= count:
        away = torch.tensor(list(combinations(outside, degree)))
    else:
        uniform = torch.rand(count, len(outside), generator=generator(seed, "monomials", degree))
        away = torch.tensor(outside)[uniform.argsort(1)[:, :degree]]
    on, off = (monomial_correlations(values, inputs, sets).abs().mean(-1) for sets in (within, away))
    return on, off
