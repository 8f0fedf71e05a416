"""Word problems in rows whose questions all end at one place, to be written on from there, or judged."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mesocosm.seeding import generator as keyed
from mesocosm.tasks import WordProblems
from mesocosm.tasks.word_problems import END, WordProblemBatch

QUESTION = 31
"""Tokens of the longest question, and so the place where every program begins."""
PROGRAM = 19
"""Tokens of the longest program, and one end more."""


@dataclass(frozen=True, kw_only=True)
class Problems(WordProblems):
    """Write a program after its question, which has ends on its left until it is as long as the longest.

    Fields are those of `WordProblems`, with `inputs` `[B, QUESTION + PROGRAM - 1]`.
    """

    question: ClassVar[int] = QUESTION
    program: ClassVar[int] = PROGRAM
    entry: ClassVar[str] = "result"
    """The variable that holds a program's answer."""

    @property
    def input_shape(self) -> tuple[int]:
        return (QUESTION + PROGRAM - 1,)

    @property
    def end(self) -> int:
        return self.tokens.index(END)

    def draw(self, count: int, seed: int, name: str) -> WordProblemBatch:
        """Problems of a seed's own, for what `name` says."""
        return self.sample(count, keyed(seed, name))

    def sample(self, size: int, generator: torch.Generator) -> WordProblemBatch:
        batch = super().sample(size, generator)
        length = QUESTION + PROGRAM
        rows = torch.full((size, length), self.end)
        rows[:, 0] = batch.inputs[:, 0]
        rows[:, 1 : batch.targets.shape[1] + 1] = batch.targets
        # The ends that follow a document go before it when the row turns right.
        documents = rows.gather(1, (torch.arange(length) - (QUESTION - batch.prompt)[:, None]) % length)
        weights = torch.zeros(size, length - 1)
        weights[:, QUESTION - 1 :] = through_end(documents[:, QUESTION:], self.end)
        return batch._replace(inputs=documents[:, :-1], targets=documents[:, 1:], weights=weights)


@dataclass(frozen=True, kw_only=True)
class Verification(Problems):
    """Say at every token of a program whether its answer will be right: `targets` are 1 or 0, one for all tokens."""

    @property
    def output_shape(self) -> tuple[int, int]:
        return (*self.input_shape, 1)

    def sample(self, size: int, generator: torch.Generator) -> WordProblemBatch:
        batch = super().sample(size, generator)
        right = (batch.teacher == batch.answer).float()
        inputs, targets, weights = to_judge(
            batch.inputs[:, :QUESTION], batch.targets[:, QUESTION - 1 :], right, self.end
        )
        return batch._replace(inputs=inputs, targets=targets, weights=weights)


def through_end(programs: Tensor, end: int) -> Tensor:
    """1 for each token up to the first end and for that, 0 after it; float32, as `programs` `[..., T]`."""
    ends = (programs == end).long()
    return (ends.cumsum(-1) - ends == 0).float()


def to_judge(questions: Tensor, programs: Tensor, right: Tensor, end: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and weights `[B, Q + P - 1]` for a verifier of programs `[B, P]` that are right, 1 or 0 `[B]`.

    `questions` are `[B, Q]`. The last token of a program is left out: its end comes before.
    """
    programs = programs[:, :-1]
    inputs = torch.cat([questions, programs], 1)
    weights = torch.zeros(inputs.shape)
    weights[:, questions.shape[1] :] = through_end(programs, end)
    return inputs, right[:, None].expand(inputs.shape).contiguous(), weights
