"""Strings of letters to copy, and n-grams to look up in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.base import Task

__all__ = ["NGramLookup", "StringCopy"]

RAREST = 0.01
"""Least probability, about, with which an n-gram must stand only once in a string, so that redraws come to an end."""

Part = str | tuple[Tensor, Tensor]
"""A symbol, or tokens `[B, n]` with how many of them count `[B]`."""


@dataclass(frozen=True, kw_only=True)
class _Strings(Task):
    """Uniform strings of letters, each of a length of its own, and the symbols around them."""

    letters: int = setting(26, "letters D of the alphabet", low=2, high=26)
    min_length: int = setting(5, "letters in the shortest string", low=1)
    max_length: int = setting(20, "letters in the longest string", low=1)

    def check(self) -> None:
        if self.min_length > self.max_length:
            raise ValueError(
                f"min_length={self.min_length} is not legal: it must be at most max_length={self.max_length}"
            )

    @property
    def tokens(self) -> tuple[str, ...]:
        return (*ascii_lowercase[: self.letters], "$", "|", ".", "*")

    @property
    def _width(self) -> int:
        """Tokens in a row, from the start symbol to the longest answer's end symbol."""
        raise NotImplementedError

    @property
    def input_shape(self) -> tuple[int]:
        return (self._width - 1,)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (self._width - 1, len(self.tokens))

    def _string(self, size: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self.letters, (size, self.max_length), generator=generator)

    def _lengths(self, size: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self.min_length, self.max_length + 1, (size,), generator=generator)

    def _join(self, parts: Sequence[Part], size: int) -> Tensor:
        """`[B, W]`: one part after another, then pads."""
        row = torch.full((size, self._width + 1), self.tokens.index("*"))
        start = torch.zeros(size, 1, dtype=torch.int64)
        for part in parts:
            if isinstance(part, str):
                part = torch.full((size, 1), self.tokens.index(part)), torch.ones(size, dtype=torch.int64)
            tokens, counts = part
            column = torch.arange(tokens.shape[1])
            # What does not count goes to a last column, which is cut off.
            row.scatter_(1, torch.where(column < counts[:, None], start + column, self._width), tokens)
            start = start + counts[:, None]
        return row[:, :-1]

    def _label(self, row: Tensor, first: Tensor, count: Tensor, origin: Tensor) -> tuple[Tensor, ...]:
        """Inputs, targets, weights and sources of rows whose `count` answer letters from place `first` on repeat those
        from `origin` on."""
        offset = torch.arange(1, self._width) - first[:, None]
        letter = (offset >= 0) & (offset < count[:, None])
        weights = (offset >= 0) & (offset <= count[:, None])
        return row[:, :-1], row[:, 1:], weights.float(), torch.where(letter, origin[:, None] + offset, -1)


class CopyBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    source: Tensor
    length: Tensor
    first: Tensor
    second: Tensor


@dataclass(frozen=True, kw_only=True)
class StringCopy(_Strings):
    """Repeat a string of random letters: `$cab|cab.`, padded by `*`.

    Letters are uniform and independent, and each row has its own length, uniform between the two ends. With
    `duplicated` = n > 0, one n-gram stands in the string twice: two places that do not overlap are drawn uniformly, and
    the letters of the first are put into the second.

    Source: Jelassi et al. (2024), Repeat after me, section 3, arXiv 2402.01032
    """

    duplicated: int = setting(0, "letters n of an n-gram that is put into the string twice; 0 for none", low=0)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T] int64: the row without its last token; T = 2 max_length + 2",
        "targets": "[B, T] int64: the token after each input",
        "weights": "[B, T] float32: 1 where the target is a letter of the copy or the end symbol",
        "source": "[B, T] int64: where the inputs hold the letter that the target repeats; -1 elsewhere",
        "length": "[B] int64: letters in the string",
        "first": "[B] int64: letters before the duplicated n-gram; -1 without one",
        "second": "[B] int64: letters before its duplicate; -1 without one",
    }

    def check(self) -> None:
        super().check()
        if 2 * self.duplicated > self.min_length:
            raise ValueError(
                f"duplicated={self.duplicated} is not legal: it must fit into min_length={self.min_length} twice"
            )

    @property
    def _width(self) -> int:
        return 2 * self.max_length + 3

    def chance(self, length: int) -> float:
        """Probability D^-L of guessing a string of this many letters."""
        return float(self.letters) ** -length

    def sample(self, size: int, generator: torch.Generator) -> CopyBatch:
        string, length = self._string(size, generator), self._lengths(size, generator)
        first = second = torch.full((size,), -1)
        if self.duplicated:
            first, second = self._places(length, generator)
            gram = torch.arange(self.duplicated)
            string.scatter_(1, second[:, None] + gram, string.gather(1, first[:, None] + gram))
        row = self._join(["$", (string, length), "|", (string, length), "."], size)
        inputs, targets, weights, source = self._label(row, length + 2, length, torch.ones_like(length))
        return CopyBatch(inputs, targets, weights, source, length, first, second)

    def _places(self, length: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two places for an n-gram, uniform among the pairs that do not overlap."""
        # Two distinct numbers below L - 2n + 2, the larger moved on by n - 1.
        choices = length - 2 * self.duplicated + 2
        one, other = _below(choices, generator), _below(choices - 1, generator)
        other = other + (other >= one)
        return torch.minimum(one, other), torch.maximum(one, other) + self.duplicated - 1


class LookupBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    source: Tensor
    length: Tensor
    place: Tensor


@dataclass(frozen=True, kw_only=True)
class NGramLookup(_Strings):
    """Say what follows a key in a string: `$cabdbca|ab` or `$ab|cabdbca|`, to be answered by `dbc.`

    The key, an n-gram, comes after the string (`suffix`) or before it (`prefix`). String and key are uniform among
    those where the key stands in the string once; each row has its own length, uniform between the two ends.

    Source: Jelassi et al. (2024), Repeat after me, section 3, arXiv 2402.01032
    """

    min_length: int = setting(10, "letters in the shortest string", low=1)
    n: int = setting(3, "letters in the key", low=1, high=12)
    answer: int = setting(4, "letters in the answer; 0 for all that follow the key", low=0)
    key: Literal["suffix", "prefix"] = setting("suffix", "where the key is given: after or before the string")

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T] int64: the row without its last token",
        "targets": "[B, T] int64: the token after each input",
        "weights": "[B, T] float32: 1 where the target is a letter of the answer or the end symbol",
        "source": "[B, T] int64: where the inputs hold the letter that the target repeats; -1 elsewhere",
        "length": "[B] int64: letters in the string",
        "place": "[B] int64: letters in the string before the key",
    }

    def check(self) -> None:
        super().check()
        if self.n + max(self.answer, 1) > self.min_length:
            raise ValueError(
                f"n={self.n} is not legal: with the answer of {max(self.answer, 1)} it must fit into "
                f"min_length={self.min_length}"
            )
        if (1 - self.letters**-self.n) ** (self.max_length - self.n) < RAREST:
            raise ValueError(
                f"n={self.n} is not legal: hardly any {self.n}-gram of {self.letters} letters stands only once in "
                f"max_length={self.max_length} letters"
            )

    @property
    def _width(self) -> int:
        symbols = 3 if self.key == "suffix" else 4
        return symbols + self.n + self.max_length + (self.answer or self.max_length - self.n)

    def sample(self, size: int, generator: torch.Generator) -> LookupBatch:
        string, length = self._string(size, generator), self._lengths(size, generator)
        places = length - self.n - max(self.answer, 1) + 1
        place = _below(places, generator)
        redraw = torch.arange(size)
        while len(redraw):
            redraw = redraw[~self._unique(string[redraw], length[redraw], place[redraw])]
            string[redraw] = self._string(len(redraw), generator)
            place[redraw] = _below(places[redraw], generator)

        end = place + self.n
        count = (length - end).clamp(max=self.answer or self.max_length)
        ahead = end[:, None] + torch.arange(self.answer or self.max_length - self.n)
        answer = string.gather(1, ahead.clamp(max=self.max_length - 1)), count
        key = string.gather(1, place[:, None] + torch.arange(self.n)), torch.full_like(count, self.n)
        suffix = self.key == "suffix"
        given: list[Part] = ["$", (string, length), "|", key] if suffix else ["$", key, "|", (string, length), "|"]
        row = self._join([*given, answer, "."], size)
        before = 1 if suffix else self.n + 2
        first = before + length + 1 + (self.n if suffix else 0)
        inputs, targets, weights, source = self._label(row, first, count, before + end)
        return LookupBatch(inputs, targets, weights, source, length, place)

    def _unique(self, string: Tensor, length: Tensor, place: Tensor) -> Tensor:
        """`[B]`: whether the n-gram at `place` stands nowhere else in the string."""
        last = self.max_length - self.n
        # Every n-gram as one number.
        grams = sum(string[:, i : last + 1 + i] * self.letters**i for i in range(self.n))
        same = (grams == grams.gather(1, place[:, None])) & (torch.arange(last + 1) <= (length - self.n)[:, None])
        return same.sum(1) == 1


def _below(ends: Tensor, generator: torch.Generator) -> Tensor:
    """A uniform integer from 0 to below each of `ends` `[B]`."""
    return (torch.rand(len(ends), dtype=torch.float64, generator=generator) * ends).long()
