"""Small nets that can be a parity exactly: products of linear functions, and one neuron that oscillates."""

import math
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from mesocosm.models._checks import check_at_least, check_one_of, score_size
from mesocosm.tasks.base import Task

__all__ = ["DisjointPolyNet", "PolyNet", "SingleNeuron"]

Activation = Literal["zigzag", "infinite-zigzag", "sinusoid"]


class _Scorer(nn.Module):
    @classmethod
    def for_task(cls, task: Task, **sizes: Any) -> Self:
        """Input size from a task of numbers with outputs `()`, the rest from `sizes`."""
        return cls(**{"d_input": score_size(task, cls)} | sizes)


class PolyNet(_Scorer):
    """A product of linear functions, f(x) = prod_i (w_i . x + b_i) for i = 1 .. degree, at PyTorch's default start.

    Raises:
        ValueError: for a size below 1.

    Source: Barak et al. (2022), Hidden progress in deep learning, section 3
    """

    def __init__(self, *, d_input: int, degree: int = 3) -> None:
        super().__init__()
        check_at_least(1, d_input=d_input, degree=degree)
        self.factors = nn.Linear(d_input, degree)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[B]` of `x` `[B, ...]`."""
        return self.factors(x.flatten(1)).prod(-1)


class DisjointPolyNet(_Scorer):
    """A product of linear functions of disjoint blocks, f(x) = prod_i <w_i, x_{P_i}> for i = 1 .. degree, no biases.

    Block P_i is the i-th run of n' = d_input / degree coordinates. Weights start uniform between -1 and 1 over
    sqrt(n'), as PyTorch's linear layers do.

    Raises:
        ValueError: for a size below 1, or a degree that does not divide `d_input`.

    Source: Barak et al. (2022), Hidden progress in deep learning, section 4
    """

    def __init__(self, *, d_input: int, degree: int = 3) -> None:
        super().__init__()
        check_at_least(1, d_input=d_input, degree=degree)
        if d_input % degree:
            raise ValueError(f"degree={degree} is not legal: it must divide d_input={d_input}")
        bound = math.sqrt(degree / d_input)
        self.weight = nn.Parameter(torch.empty(degree, d_input // degree).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[B]` of `x` `[B, ...]`."""
        blocks = x.flatten(1).unflatten(1, self.weight.shape)  # [B, n] -> [B, degree, n']
        return (blocks * self.weight).sum(-1).prod(-1)


class SingleNeuron(_Scorer):
    """One neuron f(x) = s(w . x + b) whose activation s oscillates, so that it can be the parity of `degree` signs.

    With k = degree, each s has s(k - 2j) = (-1)^j: on the sum of k signs it is their product.
    - "infinite-zigzag" joins these points by straight lines for all integers j: a triangle wave of period 4.
    - "zigzag" is the same for j = 0 .. k, and its first and last line go on for ever.
    - "sinusoid" is cos(pi (z - k) / 2).

    Raises:
        ValueError: for a size below 1 or an unknown activation.

    Source: Barak et al. (2022), Hidden progress in deep learning, section 3
    """

    def __init__(self, *, d_input: int, degree: int = 3, activation: Activation = "zigzag") -> None:
        super().__init__()
        check_at_least(1, d_input=d_input, degree=degree)
        check_one_of(Activation, activation=activation)
        self.degree, self.activation = degree, activation
        self.neuron = nn.Linear(d_input, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[B]` of `x` `[B, ...]`."""
        z = self.neuron(x.flatten(1)).squeeze(-1)
        if self.activation == "sinusoid":
            return torch.cos(math.pi / 2 * (z - self.degree))
        if self.activation == "infinite-zigzag":
            return triangle_wave(z - self.degree)
        inside = z.clamp(-self.degree, self.degree)
        last_slope = torch.where(z < 0, (-1) ** (self.degree - 1), 1)
        return triangle_wave(inside - self.degree) + last_slope * (z - inside)


def triangle_wave(z: Tensor) -> Tensor:
    """1 at 0 and at each multiple of 4, -1 halfway between them, straight between."""
    return (z.remainder(4) - 2).abs() - 1
