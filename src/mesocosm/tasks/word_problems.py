"""Grade-school word problems with a program that solves each, written by a teacher who errs."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add, mul, sub
from random import Random
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.base import Task

__all__ = ["WordProblems"]

# Words carry their spaces and marks, and digits none, so that the tokens of a text join to it.
NAMES, OBJECTS, WORDS = (
    words.split(",")
    for words in (
        " Ada, Ben, Cora, Dan, Eve, Finn, Gus, Hal, Ida, Jon, Kim, Lea, Max, Nora, Omar, Pia",
        " apples, books, coins, eggs, keys, pens, shells, stamps",
        " has , buys , finds , gives , loses , is , become , more, fewer, than, of, does, did, have?\n, at first?\n,"
        " have, How many, Now, Then the, times as many., years old.,.",
    )
)
VARIABLES = "abcd"
LINES = ("a = ", *(f"\n{name} = " for name in (*VARIABLES[1:], "result")))
"""The beginnings of a program's lines."""
PROGRAM = (*LINES, *VARIABLES, " + ", " - ", " * ")
END = "<end>"
APPLY = {"+": add, "-": sub, "*": mul}
FAMILIES = 3
LENGTH = 48
"""Tokens of the longest document, its end included."""


class WordProblemBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    family: Tensor
    prompt: Tensor
    answer: Tensor
    teacher: Tensor


Program = list[int | tuple[int, str, int]]
"""One variable a step: a number, or an operator between the variables of two earlier steps."""


class _Problem(NamedTuple):
    question: list[str]
    program: Program


@dataclass(frozen=True, kw_only=True)
class WordProblems(Task):
    """Write the program that solves a word problem, after a teacher whose operators are sometimes wrong.

        Ada has 34 apples. Ben is 12 years old. Ada buys 5 more apples.
        Then the apples of Ada become 3 times as many. How many apples does Ada have?
        a = 34
        b = 5
        c = a + b
        d = 3
        result = c * d

    on two lines fewer: a line break ends the question and each line of the program but the last. The families are
    equally likely. A chain has one or two steps; a comparison asks what somebody else has, after no or one step; an
    unknown start, "Ada gives 5 apples. Now Ada has 34 apples. How many apples did Ada have at first?", needs the
    inverse of the operator that its verb suggests. All numbers on the right way are positive.

    The teacher errs on each family at its rate. An error on an unknown start takes the suggested operator; elsewhere
    it replaces one operator by one of the two others. An error that a family makes more often than not is systematic:
    who imitates the teacher and takes the likeliest program is always wrong there, and always right elsewhere.

    Source: Liu et al. (2023), TinyGSM: achieving >80% on GSM8k with small language models, whose problems and teacher
    it stands for, arXiv 2312.09241
    """

    errors: tuple[float, ...] = setting(
        (0.03, 0.03, 0.6), "probabilities of an error for chains, comparisons and unknown starts", low=0, high=1
    )
    irrelevant: float = setting(1 / 3, "probability of a sentence that tells an age", low=0, high=1)
    families: tuple[int, ...] = setting((0, 1, 2), "families to draw from, 2 for unknown starts", low=0, high=2)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T] int64: the question, the teacher's program, and ends",
        "targets": "[B, T] int64: the token after each input",
        "weights": "[B, T] float32: 1 where the target is in the program or ends it",
        "family": "[B] int64: 0 for a chain, 1 for a comparison, 2 for an unknown start",
        "prompt": "[B] int64: tokens in the question, its line break included",
        "answer": "[B] int64: the true answer",
        "teacher": "[B] int64: what the teacher's program gives",
    }

    def check(self) -> None:
        if len(self.errors) != FAMILIES:
            raise ValueError(f"errors={self.errors} is not legal: it must hold {FAMILIES} rates, one a family")

    @property
    def input_shape(self) -> tuple[int]:
        return (LENGTH - 1,)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (*self.input_shape, len(self.tokens))

    @property
    def tokens(self) -> tuple[str, ...]:
        return (*NAMES, *OBJECTS, *(f"{thing}." for thing in OBJECTS), *"0123456789", *WORDS, *PROGRAM, END)

    def text(self, tokens: Sequence[int] | Tensor) -> str:
        """What tokens `[T]` say, up to the first end."""
        words = [self.tokens[int(token)] for token in tokens]
        return "".join(words[: words.index(END)] if END in words else words).lstrip(" ")

    def teacher_accuracy(self) -> float:
        """Share of the teacher's programs without an error; a few errors give the right answer by chance."""
        return 1 - sum(self.errors[family] for family in self.families) / len(self.families)

    def sample(self, size: int, generator: torch.Generator) -> WordProblemBatch:
        chance = Random(int(torch.randint(2**62, (), generator=generator)))
        number = {token: i for i, token in enumerate(self.tokens)}
        rows, hidden = [], []
        for _ in range(size):
            family = chance.choice(self.families)
            question, program = self._problem(family, chance)
            taught = _err(family, program, chance) if chance.random() < self.errors[family] else program
            document = [*question, *_write(taught), END]
            rows.append([number[word] for word in document] + [number[END]] * (LENGTH - len(document)))
            hidden.append((family, len(question), _solve(program), _solve(taught), len(document)))
        documents = torch.tensor(rows, dtype=torch.int64).view(size, LENGTH)
        family, prompt, answer, teacher, length = torch.tensor(hidden, dtype=torch.int64).view(size, 5).T
        place = torch.arange(1, LENGTH)
        weights = ((place >= prompt[:, None]) & (place < length[:, None])).float()
        return WordProblemBatch(documents[:, :-1], documents[:, 1:], weights, family, prompt, answer, teacher)

    def _problem(self, family: int, chance: Random) -> _Problem:
        who, other = chance.sample(NAMES, 2)
        thing, start = chance.choice(OBJECTS), chance.randint(10, 60)
        first = [who, " has ", *str(start), f"{thing}."]
        program: Program = [start]
        rest: list[str] = []
        if family == 2:
            verb, inverse = chance.choice([(" finds ", "-"), (" gives ", "+")])
            amount = _amount(inverse, start, chance)
            first = [who, verb, *str(amount), f"{thing}."]
            rest = [" Now", who, " has ", *str(start), f"{thing}."]
            rest += [" How many", thing, " did", who, " have", " at first?\n"]
            program = [amount, start, (1, inverse, 0)]
        else:
            for _ in range(chance.randint(1, 2) if family == 0 else chance.randint(0, 1)):
                operator = chance.choice(_signs(_solve(program)) + "*")
                amount = _amount(operator, _solve(program), chance)
                rest += _change(who, thing, operator, amount, chance)
                program += [amount, (len(program) - 1, operator, len(program))]
            if family == 1:
                operator = chance.choice(_signs(_solve(program)))
                amount = _amount(operator, _solve(program), chance)
                than = " more" if operator == "+" else " fewer"
                rest += [other, " has ", *str(amount), than, thing, " than", who, "."]
                program += [amount, (len(program) - 1, operator, len(program))]
            rest += [" How many", thing, " does", other if family == 1 else who, " have?\n"]
        age = [chance.choice(NAMES), " is ", *str(chance.randint(5, 99)), " years old."]
        return _Problem([*first, *(age if chance.random() < self.irrelevant else []), *rest], program)


def _signs(value: int) -> str:
    """Operators + and - where a number can be taken from `value`, else + alone."""
    return "+-" if value > 2 else "+"


def _amount(operator: str, value: int, chance: Random) -> int:
    """The number of a step from `value` that leaves a positive one."""
    if operator == "*":
        return chance.randint(2, 5)
    return chance.randint(2, min(30, value - 1) if operator == "-" else 30)


def _change(who: str, thing: str, operator: str, amount: int, chance: Random) -> list[str]:
    if operator == "*":
        return [" Then the", thing, " of", who, " become ", str(amount), " times as many."]
    if operator == "-":
        return [who, chance.choice([" gives ", " loses "]), *str(amount), f"{thing}."]
    return [who, chance.choice([" buys ", " finds "]), *str(amount), " more", f"{thing}."]


def _err(family: int, program: Program, chance: Random) -> Program:
    """The program with one wrong operator: the one that the verb suggests for an unknown start, any other elsewhere."""
    operations = [(place, step) for place, step in enumerate(program) if not isinstance(step, int)]
    place, (left, operator, right) = chance.choice(operations)
    others = [o for o in ("+-" if family == 2 else APPLY) if o != operator]
    return [*program[:place], (left, chance.choice(others), right), *program[place + 1 :]]


def _solve(program: Program) -> int:
    values: list[int] = []
    for step in program:
        values.append(step if isinstance(step, int) else APPLY[step[1]](values[step[0]], values[step[2]]))
    return values[-1]


def _write(program: Program) -> list[str]:
    names = [*VARIABLES[: len(program) - 1], "result"]
    words: list[str] = []
    for line, step in zip([*LINES[: len(program) - 1], LINES[-1]], program):
        words += [line, *str(step)] if isinstance(step, int) else [line, names[step[0]], f" {step[1]} ", names[step[2]]]
    return words
