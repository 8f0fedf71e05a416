"""Flip-flop strings: write a bit, ignore bits, read it back."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.base import Task, share_counts

__all__ = ["FlipFlop"]

WRITE, READ, IGNORE, ZERO = range(4)


class FlipFlopBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    last_write: Tensor
    distance: Tensor
    writes: Tensor
    state: Tensor


@dataclass(frozen=True, kw_only=True)
class FlipFlop(Task):
    """Strings of instruction-bit pairs in which the bit after a read repeats the bit after the last write.

        w 1   i 0   i 1   r 1   w 0   i 1   r 0
          +-----------------^     +-----------^

    The first instruction is a write, the last a read, and the others are independent: ignore with probability
    `p_ignore`, else write or read with equal chances. Bits after writes and ignores are fair coins. The task is
    next-token prediction, and only the bits after reads, which can be known, carry weight. Several `p_ignore` make a
    mixture, with exact shares in every batch.

    Source: Liu et al. (2023), Exposing Attention Glitches with Flip-Flop Language Modeling, arXiv 2306.00946
    """

    length: int = setting(64, "number of tokens T in a string, even", low=4)
    p_ignore: float | tuple[float, ...] = setting(0.8, "probability of an ignore, or several to mix", low=0, high=1)
    shares: tuple[float, ...] = setting((1.0,), "parts of each batch for each p_ignore, in proportion", low=0)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T-1] int64: the string without its last token",
        "targets": "[B, T-1] int64: the token after each input",
        "weights": "[B, T-1] float32: 1 where the input is a read, so that the target is the recalled bit",
        "last_write": "[B, T-1] int64: position of the last written bit, among the inputs so far; -1 before any",
        "distance": "[B, T-1] int64: instructions since the last written bit's; 1 before any",
        "writes": "[B, T-1] int64: number of bits written so far",
        "state": "[B, T-1] int64: the last written bit, 0 or 1; -1 before any",
    }

    def check(self) -> None:
        if self.length % 2:
            raise ValueError(f"length={self.length} is not legal: it must be even, for pairs of instruction and bit")
        count = len(self.p_ignore) if isinstance(self.p_ignore, tuple) else 1
        if len(self.shares) != count or sum(self.shares) == 0:
            raise ValueError(f"shares={self.shares} is not legal: it must hold {count} value(s) of a positive sum")

    @property
    def input_shape(self) -> tuple[int]:
        return (self.length - 1,)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (self.length - 1, len(self.tokens))

    @property
    def tokens(self) -> tuple[str, ...]:
        return ("w", "r", "i", "0", "1")

    def sample(self, size: int, generator: torch.Generator) -> FlipFlopBatch:
        pairs = self.length // 2
        p_ignore = self._p_ignore_of_rows(size)[:, None]
        uniform = torch.rand(size, pairs, generator=generator)
        instructions = torch.where(uniform < p_ignore, IGNORE, torch.where(uniform < (1 + p_ignore) / 2, WRITE, READ))
        instructions[:, 0], instructions[:, -1] = WRITE, READ
        coins = torch.randint(2, (size, pairs), generator=generator)

        pair = torch.arange(pairs)
        last_write = torch.where(instructions == WRITE, pair, 0).cummax(dim=1).values
        bits = torch.where(instructions == READ, coins.gather(1, last_write), coins)
        string = torch.stack((instructions, ZERO + bits), dim=2).flatten(1)  # [B, T]
        return self._label(string)

    def _p_ignore_of_rows(self, size: int) -> Tensor:
        """`[size]`: each row's probability of an ignore, in contiguous shares."""
        choices = torch.tensor(self.p_ignore).reshape(-1)
        return choices.repeat_interleave(share_counts(size, self.shares))

    def _label(self, string: Tensor) -> FlipFlopBatch:
        inputs, targets = string[:, :-1], string[:, 1:]
        position = torch.arange(self.length - 1)
        written = torch.zeros_like(inputs, dtype=torch.bool)
        written[:, 1:] = inputs[:, :-1] == WRITE
        last_write = torch.where(written, position, -1).cummax(dim=1).values
        return FlipFlopBatch(
            inputs,
            targets,
            weights=(inputs == READ).float(),
            last_write=last_write,
            distance=position // 2 - last_write // 2,
            writes=written.cumsum(dim=1),
            state=torch.where(last_write < 0, -1, inputs.gather(1, last_write.clamp(min=0)) - ZERO),
        )
