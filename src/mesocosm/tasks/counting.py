"""Counting with carry: strings whose every symbol follows from the first ones by a rule."""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.base import Task

__all__ = ["CarryCounter"]


class CountingBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    start: Tensor
    stride: Tensor
    carry: Tensor


@dataclass(frozen=True, kw_only=True)
class CarryCounter(Task):
    """Count on in steps of a fixed size, digit by digit, modulo base^digits.

        1 9 7 | 1 9 8 | 1 9 9 | 2 0 0      stride 1, highest digit first, without the bars
        7 9 1 | 8 9 1 | 9 9 1 | 0 0 2      lowest digit first

    The first number is uniform and the stride is uniform from 1 to `max_stride`; the numbers of the prompt, which carry
    no loss, tell both. All that follows is certain, so the optimal loss is 0 and a text that a model writes itself is
    either right or wrong. One wrong digit spoils all numbers after it: the rewards of long rollouts in small.

    Source: Block et al. (2024), Butterfly Effects of SGD Noise: Error Amplification in Behavior Cloning and
    Autoregression, whose text generation it replaces by a rule with known answers, arXiv 2310.11428
    """

    base: int = setting(10, "number of digits there are", low=2, high=36)
    digits: int = setting(3, "digits in a number", low=1, high=12)
    numbers: int = setting(8, "numbers in a string", low=2, high=1000)
    given: int = setting(2, "numbers of the prompt", low=1)
    max_stride: int = setting(1, "largest step between numbers", low=1)
    order: Literal["lowest-first", "highest-first"] = setting("highest-first", "how numbers are written")

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T] int64: the string without its last digit; T = numbers * digits - 1",
        "targets": "[B, T] int64: the digit after each input",
        "weights": "[B, T] float32: 0 where the target is a digit of the prompt, else 1",
        "start": "[B] int64: the first number",
        "stride": "[B] int64: the step between numbers",
        "carry": "[B, T] bool: whether lower digits carry into the target's digit",
    }

    def check(self) -> None:
        if self.base**self.digits > 2**53:
            raise ValueError(f"digits={self.digits} is not legal: base^digits must be at most 2^53")
        if self.max_stride >= self.base**self.digits:
            raise ValueError(f"max_stride={self.max_stride} is not legal: it must be below base^digits")
        least = 1 if self.max_stride == 1 else 2
        if not least <= self.given < self.numbers:
            raise ValueError(
                f"given={self.given} is not legal: it must be at least {least}, to tell the stride, and below "
                f"numbers={self.numbers}"
            )

    @property
    def input_shape(self) -> tuple[int]:
        return (self.numbers * self.digits - 1,)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (*self.input_shape, self.base)

    @property
    def tokens(self) -> tuple[str, ...]:
        return tuple("0123456789abcdefghijklmnopqrstuvwxyz"[: self.base])

    def sample(self, size: int, generator: torch.Generator) -> CountingBatch:
        start = torch.randint(self.base**self.digits, (size,), generator=generator)
        stride = torch.randint(1, self.max_stride + 1, (size,), generator=generator)
        return self.count(start, stride)

    def count(self, start: Tensor, stride: Tensor) -> CountingBatch:
        """The strings that start from numbers `[B]` and go on in steps of `stride` `[B]`."""
        values = (start[:, None] + torch.arange(self.numbers) * stride[:, None]) % self.base**self.digits
        powers = self.base ** torch.arange(self.digits)
        # A digit gets a carry where the lower digits of the number before and of the stride overflow.
        before = (values - stride[:, None])[..., None] % powers
        carry = before + stride[:, None, None] % powers >= powers
        text = values[..., None] // powers % self.base
        if self.order == "highest-first":
            text, carry = text.flip(-1), carry.flip(-1)
        text, carry = text.flatten(1), carry.flatten(1)
        weights = (torch.arange(1, text.shape[1]) >= self.given * self.digits).float().expand(len(text), -1)
        return CountingBatch(text[:, :-1], text[:, 1:], weights, start, stride, carry[:, 1:])
