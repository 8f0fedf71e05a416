"""Automata: the state after every symbol of a random string."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.automaton_tables import SIZES, Machine, machine
from mesocosm.tasks.base import Task

__all__ = ["Automaton"]


class AutomatonBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    state: Tensor


@dataclass(frozen=True, kw_only=True)
class Automaton(Task):
    """The state of an automaton after each symbol of a random string: q_t = next(q_{t-1}, symbol_t).

        gridworld of 4     R  R  L  R  R  R  L
        state, from 0      1  2  1  2  3  3  2

    The automata, with n their size: parity of bits; cyclic counters modulo n; gridworld, a walk on n cells in a row
    between walls; abab, which checks for 0101...; adder of n binary numbers, whose last column is 0; flip-flop of n
    written values; the groups dihedral (toggle or drive on a ring of n), symmetric and alternating (permutations of n)
    and quaternion; permutation-reset, where gaps of 1, 2, 4, ... symbols lie between resets to a random permutation of
    n; and your own: a `table` with the next state of each state and symbol, row by row.

    Source: Liu et al. (2023), Transformers Learn Shortcuts to Automata, appendix B, arXiv 2210.10749
    """

    name: Literal[
        "parity",
        "cyclic",
        "gridworld",
        "abab",
        "adder",
        "flip-flop",
        "dihedral",
        "symmetric",
        "alternating",
        "quaternion",
        "permutation-reset",
        "table",
    ] = setting("parity", "the automaton")
    n: int | None = setting(None, "its size; the usual one when none", low=1, high=1000)
    n_symbols: int | None = setting(None, "generators of cyclic and symmetric, columns of your table", low=1)
    length: int = setting(100, "symbols T in a string", low=1, high=100_000)
    label: Literal["state", "parity", "boundary", "toggle", "position", "first-chair", "digit", "carry", "own"] = (
        setting("state", "what is asked at each position: the state or a function of it")
    )
    p_label: float = setting(1.0, "probability that a label is revealed, so that its weight is 1", low=0, high=1)
    probabilities: tuple[float, ...] | None = setting(None, "how often each symbol comes, in proportion", low=0)
    p_positive: float = setting(0.25, "probability that a string of abab is 0101...", low=0, high=1)
    table: tuple[int, ...] | None = setting(None, "next states of --name table, n_symbols for each state", low=0)
    start: int = setting(0, "state of your table before the first symbol", low=0)
    labels: tuple[int, ...] | None = setting(None, "label of each state of your table, for --label own", low=0)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T] int64: the symbols",
        "targets": "[B, T] int64: the label of the state after each symbol",
        "weights": "[B, T] float32: 1 where the label is revealed",
        "state": "[B, T] int64: the state after each symbol",
    }

    def check(self) -> None:
        if self.name == "table":
            self._check_table()
        else:
            self._check_named()
        labels = sorted({"state", *self.machine.labels})
        if self.label not in labels:
            raise ValueError(f"label={self.label!r} is not legal: of {self.name} it can be {', '.join(labels)}")
        if len(self._shares) != self._drawn or not sum(self._shares):
            raise ValueError(
                f"probabilities={self.probabilities} is not legal: it must hold {self._drawn} value(s) of positive sum"
            )

    def _check_named(self) -> None:
        usual, low, high = SIZES[self.name]
        n = usual if self.n is None else self.n
        if not low <= n <= high:
            raise ValueError(f"n={n} is not legal: of {self.name} it must be from {low} to {high}")
        most = {"cyclic": n, "symmetric": math.factorial(n) if self.name == "symmetric" else 0}.get(self.name, 0)
        if self.n_symbols is not None and self.n_symbols > most:
            legal = f"an integer from 1 to {most}" if most else "none"
            raise ValueError(f"n_symbols={self.n_symbols} is not legal: of {self.name} it must be {legal}")
        if self.table is not None or self.labels is not None or self.start:
            raise ValueError(f"name={self.name!r} is not legal: table, labels and start are for the name table")

    def _check_table(self) -> None:
        if self.table is None or self.n_symbols is None:
            raise ValueError("table=None is not legal: give table and n_symbols, its number of columns")
        n_states, rest = divmod(len(self.table), self.n_symbols)
        if rest or max(self.table) >= n_states:
            rows = f"rows of n_symbols={self.n_symbols} states, each below the number of rows"
            raise ValueError(f"table={self.table} is not legal: it must be {rows}")
        if self.n is not None:
            raise ValueError(f"n={self.n} is not legal: of a table it must be none")
        if self.start >= n_states:
            raise ValueError(f"start={self.start} is not legal: the table has {n_states} states")
        if self.labels is not None and len(self.labels) != n_states:
            raise ValueError(f"labels={self.labels} is not legal: it must hold {n_states} labels, one a state")

    @cached_property
    def machine(self) -> Machine:
        """The transition table `next` `[Q, S]`, start state, symbols and label functions."""
        if self.table is None or self.n_symbols is None:
            return machine(self.name, SIZES[self.name][0] if self.n is None else self.n, self.n_symbols)
        table = torch.tensor(self.table).view(-1, self.n_symbols)
        labels = {} if self.labels is None else {"own": torch.tensor(self.labels)}
        return Machine(table, tuple(map(str, range(self.n_symbols))), self.start, labels)

    @property
    def n_states(self) -> int:
        return len(self.machine.next)

    @property
    def label_of_state(self) -> Tensor:
        """`[Q]`: the label of each state."""
        return self.machine.labels.get(self.label, torch.arange(self.n_states))

    @property
    def input_shape(self) -> tuple[int]:
        return (self.length,)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (self.length, int(self.label_of_state.max()) + 1)

    @property
    def tokens(self) -> tuple[str, ...]:
        return self.machine.symbols

    def sample(self, size: int, generator: torch.Generator) -> AutomatonBatch:
        symbols = self._symbols(size, generator)
        state = self.states(symbols)
        weights = torch.ones(size, self.length)
        if self.p_label < 1:
            weights = (torch.rand(size, self.length, generator=generator) < self.p_label).float()
        return AutomatonBatch(symbols, self.label_of_state[state], weights, state)

    def states(self, symbols: Tensor) -> Tensor:
        """States `[B, T]` after each of `symbols` `[B, T]`, one by one."""
        table, n_symbols = self.machine.next.flatten(), len(self.tokens)
        state, states = torch.tensor(self.machine.start), []
        for symbol in symbols.unbind(1):
            state = table[state * n_symbols + symbol]
            states.append(state)
        return torch.stack(states, dim=1)

    def state_distribution(self) -> Tensor:
        """`[T, Q]` float64: exact probability of each state after each symbol, by dynamic programming."""
        if self.name == "permutation-reset":
            return torch.full((self.length, self.n_states), 1 / self.n_states, dtype=torch.float64)
        step = torch.zeros(self.n_states, self.n_states, dtype=torch.float64)  # [from, to]
        shares = torch.tensor(self._shares, dtype=torch.float64)
        step.scatter_add_(1, self.machine.next, (shares / shares.sum()).expand(self.n_states, -1))
        now, distribution = F.one_hot(torch.tensor(self.machine.start), self.n_states).double(), []
        for _ in range(self.length):
            now = now @ step
            distribution.append(now)
        exact = torch.stack(distribution)
        if self.name == "adder":
            before = exact[-2] if self.length > 1 else F.one_hot(torch.tensor(0), self.n_states).double()
            exact[-1] = torch.zeros_like(before).index_add_(0, self.machine.next[:, 0], before)
        if self.name == "abab":
            positive = F.one_hot(self.states(torch.arange(self.length)[None] % 2)[0], self.n_states)
            exact = torch.lerp(exact, positive.double(), self.p_positive)
        return exact

    def chance(self) -> Tensor:
        """`[T]` float64: exact accuracy of the best constant guess at each position, the most common label."""
        labels = torch.zeros(self.length, self.output_shape[1], dtype=torch.float64)
        return labels.index_add_(1, self.label_of_state, self.state_distribution()).amax(1)

    @property
    def _drawn(self) -> int:
        """How many symbols are drawn by `probabilities`: the generators of permutation-reset, else all."""
        return len(self.tokens) - (self.n_states if self.name == "permutation-reset" else 0)

    @property
    def _shares(self) -> tuple[float, ...]:
        return self.probabilities or self.machine.probabilities or (1.0,) * self._drawn

    def _symbols(self, size: int, generator: torch.Generator) -> Tensor:
        shape, shares = (size, self.length), torch.tensor(self._shares)
        if len(set(self._shares)) == 1:
            symbols = torch.randint(len(shares), shape, generator=generator)
        else:
            ends = shares.cumsum(0) / shares.sum()
            symbols = torch.bucketize(torch.rand(shape, generator=generator), ends[:-1], right=True)
        if self.name == "adder":
            symbols[:, -1] = 0
        elif self.name == "abab":
            positive = torch.rand(size, generator=generator) < self.p_positive
            symbols[positive] = torch.arange(self.length) % 2
        elif self.name == "permutation-reset":
            resets = torch.randint(self.n_states, shape, generator=generator)
            symbols = torch.where(self._is_reset(size, generator), resets, symbols + self.n_states)
        return symbols

    def _is_reset(self, size: int, generator: torch.Generator) -> Tensor:
        """`[B, T]`: the first position, and others at gaps drawn from 1, 2, 4, ... below T."""
        choices = (self.length - 1).bit_length() or 1
        gaps = 2 ** torch.randint(choices, (size, self.length), generator=generator)
        places = (gaps.cumsum(1) - gaps[:, :1]).clamp(max=self.length)
        return torch.zeros(size, self.length + 1, dtype=torch.bool).scatter_(1, places, True)[:, :-1]
