"""Random polynomials of ±1 bits, of which every degree has its equal part."""

import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mesocosm import seeding
from mesocosm.settings import setting
from mesocosm.tasks.base import Task
from mesocosm.tasks.parity import cube, random_signs

__all__ = ["BooleanPolynomial"]


class PolynomialBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    components: Tensor


class Monomials(NamedTuple):
    sets: tuple[Tensor, ...]
    """For degree k = 1, ..., K: `[M, k]` int64, distinct sets of coordinates."""
    coefficients: Tensor
    """`[K, M]`: the factor before each monomial, normalisation included."""


@dataclass(frozen=True, kw_only=True)
class BooleanPolynomial(Task):
    """The value of a fixed random polynomial at uniform ±1 bits: y = (M K)^-1/2 sum_k sum_j c_kj prod_{i in S_kj} x_i.

    There are M monomials of each degree k from 1 to K, over distinct random sets S_kj of k of the n coordinates, with
    standard normal c_kj; `table` numbers the draw. Monomials are orthonormal under uniform bits, so variances are exact
    sums of squared coefficients, and the degrees' parts, the hidden `components`, are orthogonal.

    Source: Panigrahi et al. (2024), Efficient Stagewise Pretraining via Progressive Subnetworks, section 3, arXiv
    2402.05913
    """

    n: int = setting(24, "number of input bits", low=1, high=1000)
    degree: int = setting(5, "largest degree K", low=1, high=16)
    terms: int = setting(4, "monomials M of each degree", low=1, high=1000)
    table: int = setting(0, "number of the draw of the polynomial", low=0)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, n] float32, ±1: the bits",
        "targets": "[B] float32: the polynomial",
        "weights": "[B] float32: 1 everywhere",
        "components": "[B, K] float32: its parts of degree 1, ..., K, whose sum is the target",
    }

    def check(self) -> None:
        for degree in range(1, self.degree + 1):
            if math.comb(self.n, degree) < self.terms:
                raise ValueError(
                    f"terms={self.terms} is not legal: n={self.n} bits have only {math.comb(self.n, degree)} "
                    f"monomials of degree {degree}"
                )

    @property
    def input_shape(self) -> tuple[int]:
        return (self.n,)

    @property
    def output_shape(self) -> tuple[()]:
        return ()

    @property
    def monomials(self) -> Monomials:
        """The polynomial, shared by all callers: do not write into it."""
        return _draw(self.n, self.degree, self.terms, self.table)

    @property
    def degree_variances(self) -> Tensor:
        """Variance of each component, `[K]`: the sum of its squared coefficients."""
        return self.monomials.coefficients.square().sum(1)

    @property
    def variance(self) -> float:
        """Variance of the targets, the mean square error of always answering 0."""
        return float(self.degree_variances.sum())

    def sample(self, size: int, generator: torch.Generator) -> PolynomialBatch:
        return self._evaluate(random_signs(size, self.n, generator))

    def enumerate(self) -> PolynomialBatch:
        """Every input once, in the order of `cube`; raises `ValueError` for n > 20."""
        return self._evaluate(cube(self.n))

    def _evaluate(self, inputs: Tensor) -> PolynomialBatch:
        sets, coefficients = self.monomials
        parts = [inputs[:, chosen].prod(2) @ factor for chosen, factor in zip(sets, coefficients)]
        components = torch.stack(parts, dim=1)
        return PolynomialBatch(inputs, components.sum(1), torch.ones(len(inputs)), components)


@cache
def _draw(n: int, degree: int, terms: int, table: int) -> Monomials:
    stream = seeding.generator("polynomial", n, degree, terms, table)
    sets = []
    for k in range(1, degree + 1):
        chosen: dict[tuple[int, ...], None] = {}
        while len(chosen) < terms:
            chosen[tuple(torch.randperm(n, generator=stream)[:k].sort().values.tolist())] = None
        sets.append(torch.tensor(list(chosen)))
    coefficients = torch.randn(degree, terms, generator=stream) / math.sqrt(terms * degree)
    return Monomials(tuple(sets), coefficients)
