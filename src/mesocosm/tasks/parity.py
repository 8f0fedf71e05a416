"""Sparse parities of ±1 bits: easy for statistics, hard for computation."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.base import WordTask

__all__ = ["BlockParity", "SparseParity"]


class ParityBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    clean: Tensor


def random_signs(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Fair ±1 numbers, `[rows, columns]` float32, sixty-four from each word of the generator."""
    words = torch.empty(-(-rows * columns // 64), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    return signs_of(words, rows * columns).view(rows, columns)


def signs_of(words: Tensor, count: int) -> Tensor:
    """The first `count` bits of words `[..., W]` int64 as ±1 numbers, `[..., count]` float32."""
    # By a table that has the signs of a byte's eight bits as eight int8 in one number.
    shifts = torch.arange(7, -1, -1, device=words.device)
    bits = torch.arange(256, device=words.device)[:, None] >> shifts & 1
    table = (1 - 2 * bits).to(torch.int8).view(torch.int64)[:, 0]
    octets = words.clone(memory_format=torch.contiguous_format).flatten().view(torch.uint8)
    eights = table.index_select(0, octets.int())
    return eights.view(torch.int8).unflatten(0, (*words.shape[:-1], -1))[..., :count].float()


def cube(n: int) -> Tensor:
    """All of {±1}^n, `[2^n, n]` float32: coordinate i of row r is (-1)^(bit i of r).

    Raises:
        ValueError: when n is not from 1 to 20.
    """
    if not 1 <= n <= 20:
        raise ValueError(f"n={n} is not legal: it must be from 1 to 20 to enumerate all 2^n inputs")
    bits = torch.arange(2**n)[:, None] >> torch.arange(n) & 1
    return 1.0 - 2.0 * bits


@dataclass(frozen=True, kw_only=True)
class SparseParity(WordTask):
    """Uniform ±1 bits labelled by the product of the first k of n: flat error for long, then a sudden drop.

    Which k coordinates count is a matter of naming, since the inputs are exchangeable; here they come first. Samples
    drawn from one generator state have the same inputs at every `noise`.

    Source: Barak et al. (2022), Hidden Progress in Deep Learning: SGD Learns Parities Near the Computational Limit,
    arXiv 2207.08799
    """

    n: int = setting(30, "number of input bits", low=1)
    k: int = setting(3, "number of bits whose product is the label", low=1)
    noise: float = setting(0.0, "probability that a label is replaced by a fair coin", low=0, high=1)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, n] float32, ±1: the bits",
        "targets": "[B] float32, ±1: the label, noise included",
        "weights": "[B] float32: 1 everywhere",
        "clean": "[B] float32, ±1: the product of the relevant bits, without noise",
    }

    def check(self) -> None:
        if self.k > self.n:
            raise ValueError(f"k={self.k} is not legal: it must be at most n={self.n}")

    @property
    def input_shape(self) -> tuple[int]:
        return (self.n,)

    @property
    def output_shape(self) -> tuple[()]:
        return ()

    @property
    def relevant(self) -> slice:
        """The coordinates whose product is the label, as a slice of the n inputs."""
        return slice(self.k)

    @property
    def optimal_error(self) -> float:
        """Probability that the best predictor, the clean parity, misses a noisy label."""
        return self.noise / 2

    @property
    def words(self) -> int:
        return -(-self.n // 64) + (self.noise > 0)

    def read(self, words: Tensor) -> ParityBatch:
        """The samples of random words `[..., words]`: the bits, and with noise a word for whether the label flips."""
        inputs = signs_of(words, self.n)
        clean = inputs[..., self.relevant].prod(dim=-1)
        targets = clean
        if self.noise:
            targets = torch.where(words[..., -1].double() < (self.noise - 1) * 2.0**63, -clean, clean)
        return ParityBatch(inputs, targets, torch.ones_like(clean), clean)

    def enumerate(self) -> ParityBatch:
        """Every input once, in the order of `cube`, with noiseless labels; raises `ValueError` for n > 20."""
        inputs = cube(self.n)
        clean = inputs[:, self.relevant].prod(dim=1)
        return ParityBatch(inputs, clean, torch.ones(len(inputs)), clean)


@dataclass(frozen=True, kw_only=True)
class BlockParity(SparseParity):
    """A parity with one relevant bit, the first, in each of k blocks of n/k bits: the task of disjoint-PolyNets.

    Source: Barak et al. (2022), Hidden Progress in Deep Learning: SGD Learns Parities Near the Computational Limit,
    arXiv 2207.08799
    """

    def check(self) -> None:
        super().check()
        if self.n % self.k:
            raise ValueError(f"k={self.k} is not legal: it must divide n={self.n} into blocks of one size")

    @property
    def relevant(self) -> slice:
        return slice(None, None, self.n // self.k)
