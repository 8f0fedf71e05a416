"""Context-free grammars: the rules of named ones, and tables made of rules."""

import itertools
import re
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

__all__: list[str] = []

CFG3B = (
    "22 -> 21 20 | 20 19",
    "19 -> 16 17 18 | 17 18 16",
    "20 -> 17 16 18 | 16 17",
    "21 -> 18 16 | 16 18 17",
    "16 -> 15 13 | 13 15 14",
    "17 -> 14 13 15 | 15 13 14",
    "18 -> 15 14 13 | 14 13",
    "13 -> 11 12 | 12 11",
    "14 -> 11 10 12 | 10 11 12",
    "15 -> 12 11 10 | 11 12 10",
    "10 -> 7 9 8 | 9 8 7",
    "11 -> 8 7 9 | 7 8 9",
    "12 -> 8 9 7 | 9 7 8",
    "7 -> c a | a b c",
    "8 -> c b | c a b",
)

NAMED = {"cfg3b": (*CFG3B, "9 -> c b a"), "cfg3b-two-rules": (*CFG3B, "9 -> c b a | b a")}
"""Rules of the named grammars, equally likely; the first left side is the start."""

LONGEST = 100_000
"""Most symbols that a string may have."""


@dataclass(frozen=True)
class Grammar:
    """A probabilistic context-free grammar without recursion; A terminals come first among its S symbols."""

    symbols: tuple[str, ...]
    """Terminals in alphabetical order, then the others, each after all that it derives."""
    rules: tuple[tuple[tuple[float, tuple[int, ...]], ...], ...]
    """Of each symbol: probability and right side of each rule. A terminal's only rule is itself."""
    heights: tuple[int, ...]
    """Most rules between each symbol and a terminal; 0 of terminals."""
    start: int

    @property
    def n_terminals(self) -> int:
        return self.heights.count(0)

    @cached_property
    def lengths(self) -> tuple[tuple[int, int], ...]:
        """Lengths of the shortest and the longest string of each symbol."""
        found: list[tuple[int, int]] = [(1, 1)] * self.n_terminals
        for rules in self.rules[self.n_terminals :]:
            sums = [[sum(found[s][end] for s in right) for _, right in rules] for end in (0, 1)]
            found.append((min(sums[0]), max(sums[1])))
        return tuple(found)

    def expected_counts(self) -> Tensor:
        """Expected number of each terminal in a string of each symbol, `[S, A]` float64."""
        counts = torch.eye(len(self.symbols), self.n_terminals, dtype=torch.float64)
        for symbol in range(self.n_terminals, len(self.symbols)):
            for p, right in self.rules[symbol]:
                counts[symbol] += p * counts[list(right)].sum(0)
        return counts

    @cached_property
    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """What sampling looks up, over S symbols and R rules.

        Each symbol's first rule `[S]`; bounds `[S, K - 1]` float32, at which a uniform number passes on to its next
        rule; and right sides of rules `[R, width]`, filled up by -1.
        """
        counts = torch.tensor([len(rules) for rules in self.rules])
        rights = [right for rules in self.rules for _, right in rules]
        width, most = max(map(len, rights)), int(counts.max())
        right = torch.tensor([(*right, *[-1] * (width - len(right))) for right in rights])
        bounds = torch.full((len(self.symbols), most - 1), 2.0)
        for symbol, rules in enumerate(self.rules):
            sums = list(itertools.accumulate(p for p, _ in rules))
            bounds[symbol, : len(rules) - 1] = torch.tensor(sums[:-1])
        return counts.cumsum(0) - counts, bounds, right


@cache
def read(texts: tuple[str, ...]) -> Grammar:
    """The grammar of rules such as `"S -> A b A | b [0.5]"`, whose bracketed weights are 1 where missing.

    Raises:
        ValueError: naming the rule that is not legal and why.
    """
    weighted: dict[str, list[tuple[float, list[str]]]] = {}
    for text in texts:
        left, arrow, rights = text.partition("->")
        if not arrow or len(left.split()) != 1:
            raise ValueError(f"rules hold {text!r}, which is not legal: it must read like 'S -> A b A | b [0.5]'")
        for right in rights.split("|"):
            found = re.fullmatch(r"([^\[\]]*[^\[\]\s])\s*(?:\[\s*(\d+\.?\d*|\.\d+)\s*\])?\s*", right)
            if not found or (found[2] and not float(found[2])):
                raise ValueError(f"rules hold {text!r}, which is not legal: {right.strip()!r} must be symbols [weight]")
            weighted.setdefault(left.strip(), []).append((float(found[2] or 1), found[1].split()))

    terminals = sorted({s for rules in weighted.values() for _, right in rules for s in right} - set(weighted))
    heights = dict.fromkeys(terminals, 0)
    while waiting := [symbol for symbol in weighted if symbol not in heights]:
        ready = [x for x in waiting if all(s in heights for _, right in weighted[x] for s in right)]
        if not ready:
            raise ValueError(f"rules are not legal: {waiting[0]} must not derive itself, as strings would be unbounded")
        heights |= {x: 1 + max(heights[s] for _, right in weighted[x] for s in right) for x in ready}

    index = {symbol: i for i, symbol in enumerate(heights)}
    rules: list[tuple[tuple[float, tuple[int, ...]], ...]] = [((1.0, (i,)),) for i in range(len(terminals))]
    for symbol in list(heights)[len(terminals) :]:
        total = sum(weight for weight, _ in weighted[symbol])
        rules.append(tuple((weight / total, tuple(index[s] for s in right)) for weight, right in weighted[symbol]))
    grammar = Grammar(tuple(heights), tuple(rules), tuple(heights.values()), index[next(iter(weighted))])
    longest = max(longest for _, longest in grammar.lengths)
    if longest > LONGEST:
        raise ValueError(f"rules are not legal: strings of up to {longest} symbols must not exceed {LONGEST}")
    return grammar
