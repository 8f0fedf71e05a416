"""Facts to know by heart, beside statements to read in the context."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mesocosm import seeding
from mesocosm.settings import setting
from mesocosm.tasks.base import Task

__all__ = ["FactRecall"]


class FactRecallBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    in_context: Tensor
    stored: Tensor


@dataclass(frozen=True, kw_only=True)
class FactRecall(Task):
    """Name the object of a subject and relation: of a fact learned by heart, or as the context has just said.

    A statement is four tokens, such as `f3 l7 r0 o5`: a subject of two names, a relation and an object. The objects of
    `facts` pairs of subject and relation are random, but always the same. Half of the rows are different facts, to be
    recalled. In the other half the first statements give such pairs other, random objects, and the last repeats one
    of them, whose object the context overrides.

    A subject takes two names so that facts are stored in the network, and not one by one in its embeddings.

    Source: Jin et al. (2023), The Cost of Down-Scaling Language Models: Fact Recall Deteriorates before In-Context
    Learning, arXiv 2310.04680, whose two abilities it has with known answers
    """

    facts: int = setting(1024, "pairs of a subject and a relation whose object is to be known", low=2)
    names: int = setting(32, "first names, and second names", low=1, high=10_000)
    relations: int = setting(4, "relations", low=1, high=10_000)
    objects: int = setting(64, "objects", low=2, high=10_000)
    statements: int = setting(2, "statements in the context before the one that is asked", low=1, high=100)
    table: int = setting(0, "which random table of facts", low=0)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T] int64: statements of four tokens without the last object, T = 4 statements + 3",
        "targets": "[B, T] int64: the next token",
        "weights": "[B, T] float32: 1 in sum over the objects that can be known",
        "in_context": "[B] bool: whether the last object stands in the context; else all are to be recalled",
        "stored": "[B] int64: token of the last object as the table of facts has it",
    }

    def check(self) -> None:
        pairs = self.names**2 * self.relations
        if not self.statements < self.facts <= pairs:
            raise ValueError(
                f"facts={self.facts} is not legal: it must be above statements={self.statements}, and at most "
                f"{pairs}, the pairs of names^2 subjects and a relation"
            )

    @property
    def input_shape(self) -> tuple[int]:
        return (4 * self.statements + 3,)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (4 * self.statements + 3, len(self.tokens))

    @property
    def tokens(self) -> tuple[str, ...]:
        kinds = {"f": self.names, "l": self.names, "r": self.relations, "o": self.objects}
        return tuple(f"{letter}{i}" for letter, count in kinds.items() for i in range(count))

    @property
    def known(self) -> Tensor:
        """The facts as tokens `[facts, 4]` int64: first name, second name, relation, object."""
        stream = seeding.generator("fact recall", self.names, self.relations, self.objects, self.table)
        pair = torch.randperm(self.names**2 * self.relations, generator=stream)
        objects = torch.randint(self.objects, pair.shape, generator=stream)
        subject, relation = pair // self.relations, pair % self.relations
        columns = (subject // self.names, subject % self.names, relation, objects)
        starts = (0, self.names, 2 * self.names, 2 * self.names + self.relations)
        return torch.stack([column + start for column, start in zip(columns, starts)], dim=1)[: self.facts]

    def sample(self, size: int, generator: torch.Generator) -> FactRecallBatch:
        facts = self.known[_different(self.statements + 1, self.facts, size, generator)]  # [B, statements + 1, 4]
        in_context = torch.arange(size) >= (size + 1) // 2
        first_object = len(self.tokens) - self.objects
        said = facts.clone()
        said[:, :-1, 3] = first_object + torch.randint(self.objects, (size, self.statements), generator=generator)
        asked = torch.randint(self.statements, (size,), generator=generator)
        said[:, -1] = said[torch.arange(size), asked]
        rows = torch.where(in_context[:, None, None], said, facts).flatten(1)
        weights = torch.zeros(rows.shape)
        weights[:, 3::4] = torch.where(in_context, 0.0, 1 / (self.statements + 1))[:, None]
        weights[in_context, -1] = 1
        stored = facts[torch.arange(size), torch.where(in_context, asked, self.statements), 3]
        return FactRecallBatch(rows[:, :-1], rows[:, 1:], weights[:, 1:], in_context, stored)


def _different(count: int, below: int, rows: int, generator: torch.Generator) -> Tensor:
    """`[rows, count]` integers below a bound, uniform, and different in each row."""
    chosen = torch.empty(rows, 0, dtype=torch.int64)
    for taken in range(count):
        drawn = torch.randint(below - taken, (rows,), generator=generator)
        for earlier in chosen.sort(dim=1).values.unbind(1):
            drawn += drawn >= earlier
        chosen = torch.cat((chosen, drawn[:, None]), dim=1)
    return chosen
