"""Strings of probabilistic context-free grammars, with their derivations."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.base import Task
from mesocosm.tasks.grammar_tables import NAMED, Grammar, read
from mesocosm.tasks.masked import corrupt

__all__ = ["ProbabilisticGrammar"]

SPECIAL = ("BOS", "EOS", "PAD", "MASK")


class GrammarBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    length: Tensor
    ancestors: Tensor
    ends: Tensor


@dataclass(frozen=True, kw_only=True)
class ProbabilisticGrammar(Task):
    """Strings of a context-free grammar whose rules are drawn at random, for next-token or masked-token prediction.

        level 0               16
        level 1        15            13
        level 2    12   11   10   11    12         16 -> 15 13 | 13 15 14
        ...                                        15 -> 12 11 10 | 11 12 10
        input   BOS c b c b a c a ... PAD PAD      ...

    cfg3b has 6 levels of rules, of equal chances, and strings of 161 to 432 symbols; `levels` cuts off the upper ones:
    at 4, the start is 16, 17 or 18 and strings have 35 to 72 symbols. Published lists of cfg3b differ in whether 9 has
    a second rule; cfg3b-two-rules has it. With your own `rules` the start is the first left side, symbols without rules
    are terminals, and no symbol may derive itself. Rows are as long as the longest string and a BOS before it.
    In the masked form, chosen terminals are masked, kept or replaced by a random one, and all of them are asked for.

    Source: Panigrahi et al. (2025), Progressive distillation induces an implicit curriculum, arXiv 2410.05464;
    Allen-Zhu & Li (2023), Physics of Language Models: Part 1, Learning Hierarchical Language Structures,
    arXiv 2305.13673
    """

    name: Literal["cfg3b", "cfg3b-two-rules", "own"] = setting("cfg3b", "the grammar")
    rules: tuple[str, ...] | None = setting(None, "rules of --name own, such as 'S -> A b A | b [0.5]', weights in []")
    levels: int | None = setting(None, "levels of rules: the start is any symbol of this height; all when none", low=1)
    form: Literal["next", "masked"] = setting("next", "which tokens are asked for: the next ones or masked ones")
    mask_rate: float = setting(0.3, "probability that a terminal is chosen, of the masked form", low=0, high=1)
    fates: tuple[float, ...] = setting((0.8, 0.1, 0.1), "shares of chosen ones masked, kept, replaced", low=0)
    shuffled: bool = setting(False, "shuffle the terminals of each string, so that only their numbers mean anything")

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T] int64: BOS, the string and PADs; in the masked form with chosen terminals corrupted",
        "targets": "[B, T] int64: the next token, EOS after the string; in the masked form the true token",
        "weights": "[B, T] float32: 1 up to EOS; in the masked form 1 at chosen terminals",
        "length": "[B] int64: number of terminals in the string",
        "ancestors": "[B, T, L] int64: symbol above each terminal at each level, the start at 0; -1 at BOS and PAD",
        "ends": "[B, T, L] bool: where the terminal is the last below its ancestor of that level",
    }

    def check(self) -> None:
        if (self.name == "own") != (self.rules is not None):
            raise ValueError(f"rules={self.rules} is not legal: they are for --name own, which needs them")
        if clash := set(SPECIAL) & set(self.grammar.symbols):
            raise ValueError(f"rules={self.rules} is not legal: {clash.pop()} must not be a symbol")
        if not self.starts:
            highest = max(self.grammar.heights)
            raise ValueError(f"levels={self.levels} is not legal: it must be from 1 to {highest}, as many as there are")
        if len(self.fates) != 3 or sum(self.fates) == 0:
            raise ValueError(f"fates={self.fates} is not legal: it must hold 3 shares of a positive sum")

    @cached_property
    def grammar(self) -> Grammar:
        """The rules as tables."""
        return read(self.rules or NAMED[self.name])

    @property
    def starts(self) -> list[int]:
        """Symbols from which strings are derived, with equal chances."""
        if self.levels is None:
            return [self.grammar.start]
        return [symbol for symbol, height in enumerate(self.grammar.heights) if height == self.levels]

    @property
    def depth(self) -> int:
        """Number of levels L of rules above the terminals."""
        return self.grammar.heights[self.starts[0]]

    @property
    def symbols(self) -> tuple[str, ...]:
        """Terminals and non-terminals by their number in `ancestors`."""
        return self.grammar.symbols

    @property
    def n_terminals(self) -> int:
        """Number A of terminals, which are the first tokens and the first symbols."""
        return self.grammar.n_terminals

    @property
    def tokens(self) -> tuple[str, ...]:
        return (*self.symbols[: self.n_terminals], *SPECIAL)

    def token(self, name: str) -> int:
        """The number of a token, such as `task.token("MASK")`."""
        return self.tokens.index(name)

    @property
    def lengths(self) -> tuple[int, int]:
        """Lengths of the shortest and the longest string."""
        shortest, longest = zip(*(self.grammar.lengths[start] for start in self.starts))
        return min(shortest), max(longest)

    @property
    def input_shape(self) -> tuple[int]:
        return (1 + self.lengths[1],)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (1 + self.lengths[1], len(self.tokens))

    def terminal_frequencies(self) -> Tensor:
        """Share of each terminal among those of all strings, `[A]` float64; exact."""
        counts = self.grammar.expected_counts()[self.starts].sum(0)
        return counts / counts.sum()

    @property
    def chance(self) -> float:
        """Share of the commonest terminal: accuracy on terminals of a predictor that sees nothing."""
        return float(self.terminal_frequencies().max())

    @property
    def shares(self) -> tuple[float, ...]:
        """`fates`, summing to 1."""
        return tuple(fate / sum(self.fates) for fate in self.fates)

    def sample(self, size: int, generator: torch.Generator) -> GrammarBatch:
        first, bounds, right = self.grammar.tables
        symbols = torch.tensor(self.starts)[torch.randint(len(self.starts), (size,), generator=generator)]
        levels, parents = [], []
        for _ in range(self.depth):
            uniform = torch.rand(len(symbols), 1, generator=generator)
            rule = first[symbols] + (uniform >= bounds[symbols]).sum(1)
            children = right[rule].flatten()
            kept = (children >= 0).nonzero()[:, 0]
            levels.append(symbols)
            parents.append(kept // right.shape[1])
            symbols = children[kept]

        node = torch.arange(len(symbols))  # of each terminal its ancestor's place in the level, up to the row itself
        ancestors = torch.empty(len(symbols), self.depth, dtype=torch.int64)
        ends = torch.ones(len(symbols), self.depth, dtype=torch.bool)
        for level in reversed(range(self.depth)):
            node = parents[level][node]
            ancestors[:, level] = levels[level][node]
            torch.ne(node[1:], node[:-1], out=ends[:-1, level])
        if self.shuffled:
            order = (node + torch.rand(len(node), dtype=torch.float64, generator=generator)).argsort()
            symbols, ancestors, ends = symbols[order], ancestors[order], ends[order]
        return self._lay_out(symbols, node.bincount(minlength=size), ancestors, ends, generator)

    def _lay_out(
        self, symbols: Tensor, length: Tensor, ancestors: Tensor, ends: Tensor, generator: torch.Generator
    ) -> GrammarBatch:
        """Rows from the terminals of all strings one after the other."""
        shape = (len(length), self.input_shape[0])
        position = torch.arange(shape[1])
        inside = (position > 0) & (position <= length[:, None])
        at = inside.flatten().nonzero()[:, 0]
        strings = torch.full(shape, self.token("PAD"))
        strings[:, 0] = self.token("BOS")
        strings.view(-1).index_copy_(0, at, symbols)
        laid_ancestors = torch.full((*shape, self.depth), -1)
        laid_ancestors.view(-1, self.depth).index_copy_(0, at, ancestors)
        laid_ends = torch.zeros(laid_ancestors.shape, dtype=torch.bool)
        laid_ends.view(-1, self.depth).index_copy_(0, at, ends)
        if self.form == "masked":
            mask = self.token("MASK")
            inputs, chosen = corrupt(strings, inside, self.mask_rate, self.shares, self.n_terminals, mask, generator)
            return GrammarBatch(inputs, strings, chosen.float(), length, laid_ancestors, laid_ends)
        targets = strings.roll(-1, dims=1)
        targets[:, -1] = self.token("PAD")
        targets.scatter_(1, length[:, None], self.token("EOS"))
        weights = (position <= length[:, None]).float()
        return GrammarBatch(strings, targets, weights, length, laid_ancestors, laid_ends)
