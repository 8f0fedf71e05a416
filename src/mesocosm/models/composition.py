"""Shallow networks that simulate automata exactly, made by hand: nothing in them is trained.

All give float64 logits `[B, T, Q]` of the state after each of the symbols `[B, T]`; the greatest is right.
"""

import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesocosm.models._checks import check_at_least
from mesocosm.tasks.automata import Automaton
from mesocosm.tasks.base import Task

__all__ = ["CompositionNetwork", "CountingHead", "GridworldNetwork", "LastWriteHead"]


def _fitting(task: Task, model: type, *names: str) -> Automaton:
    if isinstance(task, Automaton) and task.label == "state" and (not names or task.name in names):
        return task
    needed = " or ".join(names) or "an automaton"
    has = f"the {task.label} of {task.name}" if isinstance(task, Automaton) else type(task).__name__
    raise ValueError(f"{model.__name__} gives the state of {needed}, but the task is {has}")


def _prefix_sums(numbers: Tensor) -> Tensor:
    """Uniform attention over `[B, T]`: the mean of the first t numbers, times t."""
    t = torch.arange(1, numbers.shape[1] + 1, dtype=numbers.dtype, device=numbers.device)
    pattern = torch.ones(len(t), len(t), dtype=numbers.dtype, device=numbers.device).tril() / t[:, None]
    return t * (numbers @ pattern.T)


class CountingHead(nn.Module):
    """One head of uniform attention counts modulo n: it averages the symbols, and a cosine reads the sum off.

    The mean of the first t symbols, 0 .. A - 1, times t is their sum c; the logit of q is cos(2 pi (c - q) / n).

    Source: Liu et al. (2023), Transformers Learn Shortcuts to Automata, section 3, arXiv 2210.10749
    """

    def __init__(self, *, n: int) -> None:
        super().__init__()
        check_at_least(2, n=n)
        self.n = n

    @classmethod
    def for_task(cls, task: Task) -> Self:
        """n from a parity or cyclic `Automaton`."""
        return cls(n=_fitting(task, cls, "parity", "cyclic").n_states)

    def forward(self, symbols: Tensor) -> Tensor:
        state = torch.arange(self.n, device=symbols.device)
        return torch.cos(2 * math.pi / self.n * (_prefix_sums(symbols.double())[..., None] - state))


class LastWriteHead(nn.Module):
    """One head of hard attention remembers: it looks at the last symbol that writes, 1 .. n, else before the string.

    Source: Liu et al. (2023), Transformers Learn Shortcuts to Automata, section 3, arXiv 2210.10749
    """

    def __init__(self, *, n: int) -> None:
        super().__init__()
        check_at_least(1, n=n)
        self.n = n

    @classmethod
    def for_task(cls, task: Task) -> Self:
        """n from a flip-flop `Automaton`."""
        return cls(n=_fitting(task, cls, "flip-flop").n_states - 1)

    def forward(self, symbols: Tensor) -> Tensor:
        written = F.pad(symbols, (1, 0))  # position 0 stands before the string
        position = torch.arange(written.shape[1], device=symbols.device)
        score = torch.where(written > 0, position, 0).expand(len(position), *written.shape).movedim(0, 1)
        seen = score.masked_fill(position > position[:, None], -1).argmax(-1)  # [B, T + 1]
        return F.one_hot(written.gather(1, seen)[:, 1:], self.n + 1).double()


class GridworldNetwork(nn.Module):
    """Two layers of attention walk between walls: prefix sums, then the most recent visits to each height.

    Layer 1 is uniform attention over moves of -1 and 1; times the position it gives the height S of a free walk, after
    n - 1 moves to the left, which lead into the first cell from anywhere. In layer 2, head d looks for the last
    position s_d whose height is S_t + d. If the walk stands in cell q, then the free walk has lately kept to the
    heights -q .. n - 1 - q above it and has reached both ends: the logit of q is min(s_{-q}, s_{n-1-q}), since the
    first such pair on the way back settles the cell.

    The construction is our own; that two layers are enough is the paper's theorem.

    Source: Liu et al. (2023), Transformers Learn Shortcuts to Automata, section 3, arXiv 2210.10749
    """

    def __init__(self, *, n: int) -> None:
        super().__init__()
        check_at_least(2, n=n)
        self.n = n

    @classmethod
    def for_task(cls, task: Task) -> Self:
        """n from a gridworld `Automaton`."""
        return cls(n=_fitting(task, cls, "gridworld").n_states)

    def forward(self, symbols: Tensor) -> Tensor:
        moves = F.pad(2.0 * symbols.double() - 1, (self.n - 1, 0), value=-1.0)
        height = F.pad(_prefix_sums(moves).round(), (1, 0))  # [B, P], from before the first move
        position = torch.arange(height.shape[1], dtype=torch.float64, device=symbols.device)
        visits = []
        for d in range(1 - self.n, self.n):
            match = height[:, None, :] == height[:, :, None] + d  # [B, query, key]
            visible = match & (position <= position[:, None])
            visits.append(torch.where(visible, position, -1.0).amax(-1))
        last = torch.stack(visits, -1)[:, self.n :]  # [B, T, 2n - 1], of heights 1 - n .. n - 1 above this one
        below, above = last[..., : self.n].flip(-1), last[..., self.n - 1 :].flip(-1)
        return torch.minimum(below, above)


class CompositionNetwork(nn.Module):
    """Any automaton in ceil(log2 T) layers: each doubles the stretch of symbols whose joint map a position holds.

    A position starts with the map of the states that its symbol makes. Layer k composes it with the map held 2^k
    positions before, the identity before the string; after L layers it is that of the last 2^L symbols.

    Args:
        table: `[Q, S]`, the next state of each state and symbol.
        n_layers: ceil(log2 T) when None; fewer forget what is more than 2^n_layers symbols ago.

    Source: Liu et al. (2023), Transformers Learn Shortcuts to Automata, section 3, arXiv 2210.10749
    """

    table: Tensor

    def __init__(self, table: Tensor, start: int = 0, n_layers: int | None = None) -> None:
        super().__init__()
        check_at_least(0, n_layers=0 if n_layers is None else n_layers)
        self.register_buffer("table", table, persistent=False)
        self.start, self.n_layers = start, n_layers

    @classmethod
    def for_task(cls, task: Task, n_layers: int | None = None) -> Self:
        """Table and start of an `Automaton`."""
        machine = _fitting(task, cls).machine
        return cls(machine.next, machine.start, n_layers)

    def forward(self, symbols: Tensor) -> Tensor:
        enough = (symbols.shape[1] - 1).bit_length()
        maps, identity = self.table.T[symbols], torch.arange(len(self.table), device=symbols.device)  # [B, T, Q]
        for k in range(enough if self.n_layers is None else self.n_layers):
            before = identity.expand(len(symbols), min(2**k, symbols.shape[1]), -1)
            before = torch.cat([before, maps[:, : -(2**k)]], dim=1)
            maps = maps.gather(2, before)  # the earlier map, then the later
        return F.one_hot(maps[..., self.start], len(self.table)).double()
