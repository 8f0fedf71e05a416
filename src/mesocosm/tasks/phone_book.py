"""A phone book, in which one number is to be looked up."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.base import Task

__all__ = ["PhoneBook"]

# Common names of many languages.
FIRST, LAST = (
    names.split()
    for names in (
        "Ada Amir Ana Anders Aisha Boris Carla Chen Clara Daniel Diego Elena Emma Fatima Felix Grace "
        "Hana Hugo Ines Ivan Jamal Julia Kofi Laila Leo Maria Nadia Omar Paula Ravi Sofia Tomas",
        "Ahmed Alvarez Bauer Brown Costa Dubois Evans Fischer Garcia Haddad Ito Jensen Kaya Khan Kim Kowalski "
        "Larsen Lopez Mensah Meyer Moreau Nguyen Novak Okafor Patel Rossi Santos Silva Singh Smith Tanaka Weber",
    )
)


class PhoneBookBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    source: Tensor
    entry: Tensor
    examples: Tensor


@dataclass(frozen=True, kw_only=True)
class PhoneBook(Task):
    """Look up a number in a phone book of random numbers under different names.

        Ada Kim: 6902
        Ivan Meyer: 7341
        Grace Ito: 9118

        Ivan Meyer: 7341

        Grace Ito:

    A line an entry; then a blank line, entries of the book repeated as examples, another blank line, and the name of
    another entry, whose number is to be said and ended by a new line. A number is random but for its first digit, 6 to
    9. A name is two tokens, a first and a last name of 32 each; a digit is one token. `"".join` of a row's `tokens` is
    the text. In the paper: 10 digits, 2 examples.

    Source: Jelassi et al. (2024), Repeat after me, section 4, arXiv 2402.01032
    """

    entries: int = setting(10, "lines in the book", low=1, high=len(FIRST) * len(LAST))
    digits: int = setting(10, "digits in a number", low=1, high=100)
    examples: int = setting(2, "entries that are repeated before the question", low=0, high=100)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T] int64: the text without its last token, the end of the answer's line",
        "targets": "[B, T] int64: the token after each input",
        "weights": "[B, T] float32: 1 where the target is a digit of the answer or the end of its line",
        "source": "[B, T] int64: where the book holds the digit that the target repeats; -1 elsewhere",
        "entry": "[B] int64: line of the book that is asked for, from 0",
        "examples": "[B, examples] int64: lines that are repeated, in their order",
    }

    def check(self) -> None:
        if self.examples >= self.entries:
            raise ValueError(
                f"examples={self.examples} is not legal: it must be less than entries={self.entries}, for a question"
            )

    @property
    def tokens(self) -> tuple[str, ...]:
        return (*FIRST, *(f" {name}" for name in LAST), *map(str, range(10)), ": ", "\n")

    @property
    def _line(self) -> int:
        """Tokens in a line: two names, the colon, the digits and the end."""
        return self.digits + 4

    @property
    def input_shape(self) -> tuple[int]:
        return ((self.entries + self.examples + 1) * self._line + 1,)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (*self.input_shape, len(self.tokens))

    def chance(self) -> float:
        """Probability of guessing a number."""
        return 0.25 * 0.1 ** (self.digits - 1)

    def sample(self, size: int, generator: torch.Generator) -> PhoneBookBatch:
        colon, end = self.tokens.index(": "), self.tokens.index("\n")
        names = torch.rand(size, len(FIRST) * len(LAST), generator=generator).topk(self.entries).indices
        digits = torch.randint(10, (size, self.entries, self.digits), generator=generator)
        digits[..., 0] = torch.randint(6, 10, (size, self.entries), generator=generator)
        book = torch.full((size, self.entries, self._line), end)
        book[..., 0], book[..., 1] = names // len(LAST), len(FIRST) + names % len(LAST)
        book[..., 2], book[..., 3:-1] = colon, len(FIRST) + len(LAST) + digits

        chosen = torch.rand(size, self.entries, generator=generator).topk(self.examples + 1).indices
        repeated = book.gather(1, chosen[:, :, None].expand(-1, -1, self._line))
        blank = torch.full((size, 1), end)
        text = torch.cat([book.flatten(1), blank, repeated[:, :-1].flatten(1), blank, repeated[:, -1]], dim=1)
        entry = chosen[:, -1]
        source = torch.full((size, text.shape[1] - 1), -1)
        source[:, -1 - self.digits : -1] = entry[:, None] * self._line + 3 + torch.arange(self.digits)
        weights = torch.zeros(source.shape)
        weights[:, -1 - self.digits :] = 1
        return PhoneBookBatch(text[:, :-1], text[:, 1:], weights, source, entry, chosen[:, :-1])
