"""Bounded Dyck words: brackets of several types, nested to a limited depth."""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.base import Task

__all__ = ["BoundedDyck", "DyckInsertions"]

BRACKETS = ("()", "[]", "{}", "<>")


class DyckBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    depth: Tensor
    level: Tensor
    match: Tensor
    stack_top: Tensor


@dataclass(frozen=True, kw_only=True)
class BoundedDyck(Task):
    """Prefixes of words of brackets, at each of which the type of the next closing bracket is asked for.

        level    1  2  3  3  2  2  2  1
                 (  [  (  )  ]  [  ]  )
        depth    1  2  3  2  1  2  1  0

    At depth 0 a bracket opens, at `max_depth` one closes, and in between one opens with probability `p_open`; types are
    uniform. With `balanced`, words are complete instead, and uniform among all complete words of this length and depth:
    each step is drawn in proportion to the exact number of words that go on from there. A bracket's level is the
    depth inside it, so that matching brackets share theirs.

    Source: Wen et al. (2023), Transformers are uninterpretable with myopic methods: a case study with bounded Dyck
    grammars, arXiv 2312.01429
    """

    length: int = setting(28, "number of brackets N in a string", low=1, high=100_000)
    n_types: int = setting(2, "types of brackets k", low=1, high=1000)
    max_depth: int = setting(4, "most brackets that may be open at once, D", low=1, high=1000)
    p_open: float = setting(0.5, "probability of an opening bracket where both are possible", low=0, high=1)
    balanced: bool = setting(False, "complete words, uniform among all of this length and depth, for any p_open")
    levels: bool = setting(True, "whether a token tells its bracket's level, or its type alone")

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, N] int64: brackets, the opening ones first, then by type, then by level",
        "targets": "[B, N] int64: type of the innermost open bracket, which must close next; 0 at depth 0",
        "weights": "[B, N] float32: 1 where a bracket is open",
        "depth": "[B, N] int64: number of open brackets, including this one where it opens",
        "level": "[B, N] int64: depth inside this bracket, from 1",
        "match": "[B, N] int64: position of the opening bracket that this one closes; -1 where it opens",
        "stack_top": "[B, N] int64: position of the innermost open bracket; -1 at depth 0",
    }

    def check(self) -> None:
        if self.balanced and self.length % 2:
            raise ValueError(f"length={self.length} is not legal: complete words have an even number of brackets")

    @property
    def input_shape(self) -> tuple[int]:
        return (self.length,)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (self.length, self.n_types)

    @property
    def tokens(self) -> tuple[str, ...]:
        pairs = [BRACKETS[t] if t < len(BRACKETS) else (f"({t}:", f"){t}:") for t in range(self.n_types)]
        brackets = [pair[side] for side in (0, 1) for pair in pairs]
        if not self.levels:
            return tuple(brackets)
        return tuple(f"{bracket}{level}" for bracket in brackets for level in range(1, self.max_depth + 1))

    @property
    def pairs(self) -> Tensor:
        """Tokens of matching brackets, `[P, 2]`: opening and closing."""
        opening = torch.arange(len(self.tokens) // 2)
        return torch.stack([opening, opening + len(opening)], dim=1)

    @property
    def chance(self) -> float:
        """Accuracy of a guess."""
        return 1 / self.n_types

    def count(self, length: int) -> int:
        """Number of complete words of `length` brackets; exact."""
        return _shapes(length, self.max_depth)[length][0] * self.n_types ** (length // 2)

    def opening_probability(self) -> Tensor:
        """Probability that the next bracket opens, `[N, D + 1]` float64, by its position and the depth before it."""
        if self.balanced:
            return _uniform_opening(self.length, self.max_depth).flip(0)
        table = torch.full((self.max_depth + 1,), self.p_open, dtype=torch.float64)
        table[0], table[-1] = 1, 0
        return table.expand(self.length, -1)

    def sample(self, size: int, generator: torch.Generator) -> DyckBatch:
        opens = self._walk(self.opening_probability().expand(size, -1, -1), generator)
        types = torch.randint(self.n_types, (size, self.length), generator=generator)
        return self.read(opens, types)

    def parse(self, word: str) -> DyckBatch:
        """The batch of one string of brackets without levels, such as `"([()][])"`.

        Raises:
            ValueError: for a string that no word begins with.
        """
        names = self.tokens if not self.levels else tuple(name[:-1] for name in self.tokens[:: self.max_depth])
        if set(word) - set(names):
            raise ValueError(f"word={word!r} is not legal: it must consist of {' '.join(names)}")
        ids = torch.tensor([[names.index(bracket) for bracket in word]])
        batch = self.read(ids < self.n_types, ids % self.n_types)
        wrong_type = (batch.match >= 0) & (ids % self.n_types != (ids % self.n_types).gather(1, batch.match.clamp(0)))
        if batch.depth.min() < 0 or batch.depth.max() > self.max_depth or wrong_type.any():
            raise ValueError(f"word={word!r} is not legal: no word of depth {self.max_depth} begins with it")
        return batch

    def read(self, opens: Tensor, types: Tensor) -> DyckBatch:
        """The batch of strings given by where brackets open, `[B, T]` bool, and the types of those, `[B, T]`."""
        position = torch.arange(opens.shape[1])
        depth = torch.where(opens, 1, -1).cumsum(1)
        level = depth + (~opens).long()
        last = torch.full((self.max_depth + 1, *opens.shape), -1)  # [D + 1, B, T]: last bracket opened at each level
        for at in range(1, self.max_depth + 1):
            last[at] = torch.where(opens & (level == at), position, -1).cummax(dim=1).values
        stack_top = last.gather(0, depth.clamp(0, self.max_depth)[None])[0]
        match = torch.where(opens, -1, last.gather(0, level.clamp(0, self.max_depth)[None])[0])
        types = types.gather(1, torch.where(opens, position, match.clamp(0)))
        return DyckBatch(
            inputs=self._token(opens, types, level),
            targets=torch.where(depth > 0, types.gather(1, stack_top.clamp(0)), 0),
            weights=(depth > 0).float(),
            depth=depth,
            level=level,
            match=match,
            stack_top=stack_top,
        )

    def _token(self, opens: Tensor, types: Tensor, level: Tensor) -> Tensor:
        bracket = types + self.n_types * (~opens).long()
        return bracket * self.max_depth + level - 1 if self.levels else bracket

    def _walk(self, chance: Tensor, generator: torch.Generator) -> Tensor:
        """Where brackets open, `[B, T]` bool, given each row's probabilities by position and depth, `[B, T, D + 1]`."""
        size, length, _ = chance.shape
        uniform = torch.rand(length, size, dtype=torch.float64, generator=generator)
        depth, opens = torch.zeros(size, dtype=torch.int64), torch.empty(length, size, dtype=torch.bool)
        for t in range(length):
            torch.lt(uniform[t], chance[:, t].gather(1, depth[:, None])[:, 0], out=opens[t])
            depth += 2 * opens[t].long() - 1
        return opens.T.contiguous()


class InsertionBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    depth: Tensor
    level: Tensor
    match: Tensor
    stack_top: Tensor
    longer: Tensor
    moved: Tensor


@dataclass(frozen=True, kw_only=True)
class DyckInsertions(BoundedDyck):
    """Bounded Dyck strings, each also with a random word inserted at a random place, for contrasting the two.

    A complete word changes no later answer. It has 1 to `most_pairs` pairs, is uniform among the words of its length
    that fit the depth, and stands at a uniform place, or one bracket earlier where the stack is full. For a control,
    a lone opening bracket can be inserted instead; the brackets after it keep their levels.

    Source: Wen et al. (2023), Transformers are uninterpretable with myopic methods: a case study with bounded Dyck
    grammars, arXiv 2312.01429
    """

    inserted: Literal["word", "lone bracket"] = setting("word", "what is inserted")
    most_pairs: int = setting(8, "most pairs of brackets in an inserted word", low=1, high=10_000)

    fields: ClassVar[dict[str, str]] = {
        **BoundedDyck.fields,
        "longer": "[B, N + L] int64: the inputs with the insertion, then copies of the last bracket up to L more",
        "moved": "[B, N] int64: position in `longer` of each bracket of the inputs",
    }

    def sample(self, size: int, generator: torch.Generator) -> InsertionBatch:  # type: ignore[override]
        batch = super().sample(size, generator)
        at = torch.randint(self.length, (size, 1), generator=generator)
        before = torch.cat([torch.zeros_like(at), batch.depth], dim=1).gather(1, at)  # depth before position `at`
        full = (before == self.max_depth).long()
        at, before = at - full, before - full

        if self.inserted == "word":
            lengths = 2 * torch.randint(1, self.most_pairs + 1, (size, 1), generator=generator)
            left = (lengths - torch.arange(2 * self.most_pairs)).clamp(0)  # [B, L] brackets still to come
            tables = [_uniform_opening(2 * self.most_pairs, room) for room in range(1, self.max_depth + 1)]
            padded = torch.zeros(self.max_depth + 1, 2 * self.most_pairs + 1, self.max_depth + 1, dtype=torch.float64)
            padded[:, 0, 0] = 1
            for room, table in enumerate(tables, start=1):
                padded[room, 1:, : room + 1] = table
            opens = self._walk(padded[self.max_depth - before, left], generator)
        else:
            lengths, opens = torch.ones_like(at), torch.ones(size, 1, dtype=torch.bool)
        types = torch.randint(self.n_types, opens.shape, generator=generator)
        word = self.read(opens, types).inputs + before * self.levels

        position = torch.arange(self.length)
        there = torch.arange(self.length + opens.shape[1])
        own = torch.where(there < at, there, there - lengths).clamp(0, self.length - 1)
        inside = (there >= at) & (there < at + lengths)
        inserted = word.gather(1, (there - at).clamp(0, opens.shape[1] - 1))
        longer = torch.where(inside, inserted, batch.inputs.gather(1, own))
        return InsertionBatch(*batch, longer=longer, moved=position + lengths * (position >= at))


@cache
def _shapes(length: int, max_depth: int) -> list[list[int]]:
    """Ways to close all brackets, types aside, in exactly r more brackets from depth h: a list of lists by r and h."""
    ways = [[1] + [0] * max_depth]
    for _ in range(length):
        last = [0, *ways[-1], 0]
        ways.append([last[h] + last[h + 2] for h in range(max_depth + 1)])
    return ways


@cache
def _uniform_opening(length: int, max_depth: int) -> Tensor:
    """Probability that a uniform completion opens a bracket next, `[L, D + 1]`, by brackets left (from 1) and depth."""
    ways = _shapes(length, max_depth)
    rows = [
        [after[h + 1] / here[h] if h < max_depth and here[h] else 0 for h in range(max_depth + 1)]
        for after, here in pairwise(ways)
    ]
    return torch.tensor(rows, dtype=torch.float64)
