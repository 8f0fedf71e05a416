"""Primitives of reasoning and of memory: variables to look up, facts to know by heart, strings to copy, and filler."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mesocosm import seeding
from mesocosm.settings import setting
from mesocosm.tasks.base import Task, share_counts
from mesocosm.tasks.markov_mixture import EasyHardMarkov

__all__ = ["ClosedBookFacts", "InductionCopying", "ReasoningMixture", "VariableAssignment"]

PAD = "."


class AssignmentBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    depth: Tensor


@dataclass(frozen=True, kw_only=True)
class VariableAssignment(Task):
    """Say the values of variables, some of which are assigned through other variables, in shuffled lines.

        c=b  a=3  b=5  d=a  d=?  c=?        two chains of depth 1
                             3    5         the targets

    In every chain the first variable gets a value, and each of `depth` further ones the variable before it. The chains'
    values differ, the names are fresh in every row, and the last variable of each chain is asked for. A line is one
    token, the pair of a name and what stands right of it, so that nothing need be learned of neighbouring positions.

    Source: Saunshi et al. (2024), On the Inductive Bias of Stacking Towards Improving Reasoning, section 5, arXiv
    2409.19044
    """

    chains: int = setting(4, "chains m of variables, and queries", low=1)
    depths: tuple[int, ...] = setting(
        (0, 1, 2), "depths to draw from: steps from a query's variable to a value's", low=0
    )
    names: int = setting(16, "names of variables", low=1, high=26)
    values: int = setting(8, "values", low=1, high=100)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T] int64: lines, then queries, then pads; T = m (largest depth + 2)",
        "targets": "[B, T] int64: the value at queries, a pad elsewhere",
        "weights": "[B, T] float32: 1 at queries",
        "depth": "[B] int64: depth of the row's chains",
    }

    def check(self) -> None:
        if self.chains > self.values:
            raise ValueError(f"chains={self.chains} is not legal: their values differ, so at most values={self.values}")
        if self.chains * (max(self.depths) + 1) > self.names:
            raise ValueError(
                f"depths={self.depths} is not legal: chains={self.chains} of the largest need "
                f"{self.chains * (max(self.depths) + 1)} names, more than names={self.names}"
            )

    @property
    def input_shape(self) -> tuple[int]:
        return (self.chains * (max(self.depths) + 2),)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (*self.input_shape, len(self.tokens))

    @property
    def tokens(self) -> tuple[str, ...]:
        names, values = ascii_lowercase[: self.names], tuple(map(str, range(self.values)))
        return (*(f"{name}={right}" for name in names for right in (*values, *names, "?")), *values, PAD)

    @property
    def chance(self) -> float:
        """Accuracy of guessing any value."""
        return 1 / self.values

    @property
    def chance_in_context(self) -> float:
        """Accuracy of naming any value that stands in the row."""
        return 1 / self.chains

    def sample(self, size: int, generator: torch.Generator) -> AssignmentBatch:
        m, levels = self.chains, max(self.depths) + 1
        rights = self.values + self.names + 1
        value_ids, pad = self.names * rights, self.names * rights + self.values
        depth = torch.tensor(self.depths)[torch.randint(len(self.depths), (size,), generator=generator)]
        name = _shuffled(size, self.names, generator)[:, : m * levels]  # Level by level, chain by chain.
        value = _shuffled(size, self.values, generator)[:, :m]
        lines = name * rights + torch.cat((value, self.values + name[:, : m * (levels - 1)]), dim=1)

        count = m * (depth + 1)[:, None]
        unused = torch.arange(m * levels) >= count
        order = (torch.rand(lines.shape, generator=generator) + unused).argsort(1)
        asked = _shuffled(size, m, generator)
        queries = name.gather(1, count - m + asked) * rights + rights - 1

        place = count + torch.arange(m)
        inputs = torch.full((size, *self.input_shape), pad)
        inputs[:, : m * levels] = torch.where(unused, pad, lines.gather(1, order))
        inputs.scatter_(1, place, queries)
        targets = torch.full_like(inputs, pad).scatter_(1, place, value_ids + value.gather(1, asked))
        return AssignmentBatch(inputs, targets, (targets != pad).float(), depth)


class FactBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    fact: Tensor


@dataclass(frozen=True, kw_only=True)
class ClosedBookFacts(Task):
    """Know by heart the value of every pair of keys, in a table that is random but always the same.

    Source: Saunshi et al. (2024), On the Inductive Bias of Stacking Towards Improving Reasoning, section 4, whose
    closed-book questions it stands for, arXiv 2409.19044
    """

    keys: int = setting(16, "first keys, and second keys; there are keys^2 facts", low=1, high=1000)
    values: int = setting(8, "values", low=1, high=100)
    table: int = setting(0, "number of the draw of the table", low=0)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, 2] int64: a first key and a second key",
        "targets": "[B, 2] int64: the second key, and the value of the pair",
        "weights": "[B, 2] float32: 1 for the value",
        "fact": "[B] int64: number of the fact, first key times keys plus second key",
    }

    @property
    def input_shape(self) -> tuple[int]:
        return (2,)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (2, len(self.tokens))

    @property
    def tokens(self) -> tuple[str, ...]:
        keys = range(self.keys)
        return (*(f"k{i}" for i in keys), *(f"l{i}" for i in keys), *map(str, range(self.values)))

    @property
    def facts(self) -> Tensor:
        """Value of each fact, `[keys^2]` int64, uniform and independent."""
        stream = seeding.generator("facts", self.keys, self.values, self.table)
        return torch.randint(self.values, (self.keys**2,), generator=stream)

    def sample(self, size: int, generator: torch.Generator) -> FactBatch:
        fact = torch.randint(self.keys**2, (size,), generator=generator)
        first, second = fact // self.keys, self.keys + fact % self.keys
        value = 2 * self.keys + self.facts[fact]
        weights = torch.tensor([0.0, 1.0]).repeat(size, 1)
        return FactBatch(torch.stack((first, second), 1), torch.stack((second, value), 1), weights, fact)


class CopyingBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    start: Tensor
    copied: Tensor


@dataclass(frozen=True, kw_only=True)
class InductionCopying(Task):
    """Complete the repeat of a part of a string of distinct symbols: after `f c h a d b c h a` comes d.

    Source: Saunshi et al. (2024), On the Inductive Bias of Stacking Towards Improving Reasoning, section 5, arXiv
    2409.19044
    """

    symbols: int = setting(64, "number of symbols", low=2, high=1000)
    string: int = setting(10, "distinct symbols in the string", low=2)
    shortest: int = setting(3, "symbols in the shortest part, its last included", low=2)
    longest: int = setting(6, "symbols in the longest part", low=2)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T] int64: the string, the part without its last symbol, pads; T = string + longest - 1",
        "targets": "[B, T] int64: the token after each input; the last symbol of the part after its beginning",
        "weights": "[B, T] float32: 1 for the last symbol of the part",
        "start": "[B] int64: position of the part in the string",
        "copied": "[B] int64: symbols in the part, its last included",
    }

    def check(self) -> None:
        if not self.shortest <= self.longest <= self.string <= self.symbols:
            raise ValueError(
                f"longest={self.longest} is not legal: shortest={self.shortest}, longest, string={self.string} and "
                f"symbols={self.symbols} must be in increasing order"
            )

    @property
    def input_shape(self) -> tuple[int]:
        return (self.string + self.longest - 1,)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (*self.input_shape, len(self.tokens))

    @property
    def tokens(self) -> tuple[str, ...]:
        return (*(f"s{i}" for i in range(self.symbols)), PAD)

    def sample(self, size: int, generator: torch.Generator) -> CopyingBatch:
        string = _shuffled(size, self.symbols, generator)[:, : self.string]
        copied = torch.randint(self.shortest, self.longest + 1, (size,), generator=generator)
        start = (torch.rand(size, generator=generator, dtype=torch.float64) * (self.string - copied + 1)).long()
        offset = torch.arange(self.longest)
        part = string.gather(1, (start[:, None] + offset).clamp_max(self.string - 1))
        row = torch.cat((string, torch.where(offset < copied[:, None], part, self.symbols)), dim=1)
        last = self.string + copied[:, None] - 1
        place = torch.arange(row.shape[1])
        inputs = torch.where(place < last, row, self.symbols)[:, :-1]
        return CopyingBatch(inputs, row[:, 1:], (place == last).float()[:, 1:], start, copied)


class ReasoningBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    source: Tensor
    depth: Tensor


@dataclass(frozen=True, kw_only=True)
class ReasoningMixture(Task):
    """Variables to look up, facts to know by heart, strings to copy and filler to predict, in one vocabulary.

    The sources are `VariableAssignment`, `ClosedBookFacts`, `InductionCopying` and, as filler whose least loss is
    known, `EasyHardMarkov`; what they call alike is one token. Each has its exact share of every batch, in this order.
    Rows are padded to one length.

    Source: Saunshi et al. (2024), On the Inductive Bias of Stacking Towards Improving Reasoning, arXiv 2409.19044
    """

    shares: tuple[float, ...] = setting((5.0, 2.0, 1.0, 1.0), "parts of each batch for each source", low=0)
    chains: int = setting(4, "chains of variables in an assignment, and queries", low=1)
    depths: tuple[int, ...] = setting((0, 1, 2), "depths of assignments to draw from", low=0)
    names: int = setting(16, "names of variables", low=1, high=26)
    values: int = setting(8, "values of variables and of facts", low=1, high=100)
    keys: int = setting(16, "first keys, and second keys, of facts", low=1, high=1000)
    symbols: int = setting(64, "symbols of strings and filler", low=10, high=64)
    table: int = setting(0, "number of the draw of facts and filler", low=0)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T] int64: tokens",
        "targets": "[B, T] int64: what each source asks for at each input",
        "weights": "[B, T] float32: 1 at queries, values of facts, last symbols of copies, and in filler",
        "source": "[B] int64: 0 for assignments, 1 for facts, 2 for copying, 3 for filler",
        "depth": "[B] int64: depth of an assignment; -1 elsewhere",
    }

    def check(self) -> None:
        if len(self.shares) != 4 or sum(self.shares) == 0:
            raise ValueError(f"shares={self.shares} is not legal: it must hold 4 values of a positive sum")
        _ = self.sources

    @property
    def sources(self) -> tuple[VariableAssignment, ClosedBookFacts, InductionCopying, EasyHardMarkov]:
        """The tasks that are mixed."""
        assignment = VariableAssignment(chains=self.chains, depths=self.depths, names=self.names, values=self.values)
        copying = InductionCopying(symbols=self.symbols)
        length = max(*assignment.input_shape, *copying.input_shape)
        return (
            assignment,
            ClosedBookFacts(keys=self.keys, values=self.values, table=self.table),
            copying,
            EasyHardMarkov(symbols=self.symbols, length=length, table=self.table),
        )

    @property
    def input_shape(self) -> tuple[int]:
        return self.sources[-1].input_shape

    @property
    def output_shape(self) -> tuple[int, int]:
        return (*self.input_shape, len(self.tokens))

    @property
    def tokens(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(token for source in self.sources for token in source.tokens))

    def sample(self, size: int, generator: torch.Generator) -> ReasoningBatch:
        number = {token: i for i, token in enumerate(self.tokens)}
        counts = share_counts(size, self.shares)
        parts: list[list[Tensor]] = []
        for task, count in zip(self.sources, counts.tolist()):
            batch = task.sample(count, generator)
            own = torch.tensor([number[token] for token in task.tokens or ()])
            missing = (0, self.input_shape[0] - task.input_shape[0])
            tokens = [F.pad(own[field], missing, value=number[PAD]) for field in (batch.inputs, batch.targets)]
            depth = batch.depth if isinstance(batch, AssignmentBatch) else torch.full((count,), -1)
            parts.append([*tokens, F.pad(batch.weights, missing), depth])
        inputs, targets, weights, depth = (torch.cat(field) for field in zip(*parts))
        return ReasoningBatch(inputs, targets, weights, torch.arange(4).repeat_interleave(counts), depth)


def symbol_pairs(tokens: Sequence[str]) -> Tensor:
    """Left and right half of each token, `[V, 2]` int64: the line `a=b` is name a left and name b right.

    A token that is no line has a half of its own on the left and the empty one, 0, on the right. With a table of
    vectors for each side, lines share what they have in common.
    """
    halves = [token.split("=") if "=" in token else (token, "") for token in tokens]
    columns = []
    for side in zip(*halves):
        number = {half: i for i, half in enumerate(sorted(set(side)))}
        columns.append([number[half] for half in side])
    return torch.tensor(columns).T


def _shuffled(rows: int, count: int, generator: torch.Generator) -> Tensor:
    """`[rows, count]`: independent uniform permutations of 0, ..., count - 1."""
    return torch.rand(rows, count, generator=generator, dtype=torch.float64).argsort(1)
