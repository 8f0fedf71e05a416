"""Transition tables of named automata, with their symbols, start states and label functions."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

__all__: list[str] = []

Permutation = tuple[int, ...]

SIZES = {
    "parity": (2, 2, 2),
    "cyclic": (5, 2, 1000),
    "gridworld": (9, 2, 1000),
    "abab": (5, 5, 5),
    "adder": (2, 2, 8),
    "flip-flop": (2, 1, 1000),
    "dihedral": (4, 2, 500),
    "symmetric": (5, 2, 6),
    "alternating": (5, 3, 6),
    "quaternion": (8, 8, 8),
    "permutation-reset": (5, 2, 5),
}
"""The usual, least and greatest n of each named automaton."""


@dataclass(frozen=True)
class Machine:
    """A semiautomaton: `next[q, a]` `[Q, S]` is the state after symbol a in state q."""

    next: Tensor
    symbols: tuple[str, ...]
    start: int = 0
    labels: dict[str, Tensor] = field(default_factory=dict)
    """Label functions besides the state itself: by name, the label `[Q]` of each state."""
    probabilities: tuple[float, ...] | None = None
    """How often each symbol comes, in proportion; equally where not given."""


@cache
def machine(name: str, n: int, n_symbols: int | None) -> Machine:
    """A named automaton; `n_symbols` chooses how many generators cyclic and symmetric ones have."""
    if name in ("cyclic", "symmetric"):
        return {"cyclic": cyclic, "symmetric": symmetric}[name](n, n_symbols)
    return MACHINES[name](n)


def parity(n: int) -> Machine:
    return Machine(torch.tensor([[0, 1], [1, 0]]), ("0", "1"))


def cyclic(n: int, n_symbols: int | None = None) -> Machine:
    added = torch.arange(n_symbols or 2)
    return Machine((torch.arange(n)[:, None] + added) % n, tuple(map(str, added.tolist())))


def gridworld(n: int) -> Machine:
    state = torch.arange(n)
    moves = torch.stack([(state - 1).clamp(min=0), (state + 1).clamp(max=n - 1)], dim=1)
    labels = {"parity": state % 2, "boundary": ((state == 0) | (state == n - 1)).long()}
    return Machine(moves, ("L", "R"), labels=labels)


def abab(n: int) -> Machine:
    table = torch.tensor([[4, 1], [2, 4], [4, 3], [0, 4], [4, 4]])
    return Machine(table, ("0", "1"), start=3, labels={"boundary": (torch.arange(5) == 3).long()})


def adder(n: int) -> Machine:
    """Adds n numbers column by column in base n; state = digit + n carry."""
    carry = torch.arange(2 * n) // n
    ones = torch.tensor([column.bit_count() for column in range(2**n)])
    total = carry[:, None] + ones
    symbols = tuple(f"{column:0{n}b}" for column in range(2**n))
    return Machine(total % n + n * (total // n), symbols, labels={"digit": torch.arange(2 * n) % n, "carry": carry})


def flip_flop(n: int) -> Machine:
    state = torch.arange(n + 1)
    table = torch.where(state == 0, state[:, None], state)
    symbols = ("read", *(f"write {i}" for i in range(1, n + 1)))
    return Machine(table, symbols, probabilities=(float(n), *[1.0] * n))


def dihedral(n: int) -> Machine:
    """State = n toggle + position; symbol 0 toggles the direction, 1 drives one step in it."""
    toggle, position = torch.arange(2 * n) // n, torch.arange(2 * n) % n
    driven = n * toggle + (position + 1 - 2 * toggle) % n
    table = torch.stack([n * (1 - toggle) + position, driven], dim=1)
    return Machine(table, ("toggle", "drive"), labels={"toggle": toggle, "position": position})


def symmetric(n: int, n_symbols: int | None = None) -> Machine:
    """Identity, shift, swap of the first two, then the other permutations in lexicographic order."""
    elements = list(itertools.permutations(range(n)))
    first = [elements[0], (*range(1, n), 0), (1, 0, *range(2, n))]
    others = [p for p in elements if p not in first]
    names = ("identity", "shift", "swap", *map(_text, others))
    return _group(elements, [*first, *others][: n_symbols or 3], names[: n_symbols or 3])


def alternating(n: int) -> Machine:
    """Identity, and the cycles of the first two and one other element."""
    cycles = [(1, x, *(0 if i == x else i for i in range(2, n))) for x in range(2, n)]
    names = ("identity", *(f"(1 2 {x + 1})" for x in range(2, n)))
    return _group([p for p in itertools.permutations(range(n)) if _even(p)], [tuple(range(n)), *cycles], names)


def quaternion(n: int) -> Machine:
    """State = unit + 4 if negative, units 1, i, j, k; a symbol multiplies from the right."""
    positive = torch.tensor([[0, 1, 2, 3], [1, 4, 3, 6], [2, 7, 4, 1], [3, 2, 5, 4]])
    return Machine(torch.cat([positive, (positive + 4) % 8]), ("1", "i", "j", "k"))


def permutation_reset(n: int) -> Machine:
    """One symbol to reset to each permutation, then shift and swap, which act from the left."""
    elements = list(itertools.permutations(range(n)))
    actions = [(*range(1, n), 0), (1, 0, *range(2, n))]
    resets = torch.arange(len(elements)).expand(len(elements), -1)
    moves = _products(elements, actions, lambda state, action: tuple(action[i] for i in state))
    symbols = (*(f"reset {_text(p)}" for p in elements), "shift", "swap")
    return Machine(torch.cat([resets, moves], dim=1), symbols)


def _group(elements: Sequence[Permutation], actions: Sequence[Permutation], names: tuple[str, ...]) -> Machine:
    """Position i of the next state holds what position action[i] of this one holds."""
    table = _products(elements, actions, lambda state, action: tuple(state[i] for i in action))
    first_chair = torch.tensor([p[0] for p in elements])
    return Machine(table, names, labels={"first-chair": first_chair})


def _products(
    elements: Sequence[Permutation],
    actions: Sequence[Permutation],
    product: Callable[[Permutation, Permutation], Permutation],
) -> Tensor:
    index = {element: i for i, element in enumerate(elements)}
    return torch.tensor([[index[product(state, action)] for action in actions] for state in elements])


def _even(permutation: Permutation) -> bool:
    return sum(a > b for a, b in itertools.combinations(permutation, 2)) % 2 == 0


def _text(permutation: Permutation) -> str:
    return "".join(map(str, permutation))


MACHINES: dict[str, Callable[[int], Machine]] = {
    "parity": parity,
    "gridworld": gridworld,
    "abab": abab,
    "adder": adder,
    "flip-flop": flip_flop,
    "dihedral": dihedral,
    "alternating": alternating,
    "quaternion": quaternion,
    "permutation-reset": permutation_reset,
}
