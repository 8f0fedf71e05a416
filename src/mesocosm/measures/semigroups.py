"""The algebra of an automaton: the maps of its states that strings of symbols make."""

from typing import Literal

import torch
from torch import Tensor

__all__ = ["algebraic_class", "is_commutative", "transformation_semigroup"]


def transformation_semigroup(table: Tensor, limit: int = 20_000) -> Tensor:
    """All maps of the states that non-empty strings of symbols make, `[M, Q]`, sorted.

    Args:
        table: `[Q, S]`, the next state of each state and symbol.
        limit: the most maps to enumerate.

    Raises:
        ValueError: when there are more.
    """
    symbols = table.T.unique(dim=0)
    found, new = symbols, symbols
    while len(new):
        longer = symbols[:, new].flatten(0, 1)  # a new map, then a symbol: [S, N, Q] -> [S N, Q]
        together, place = torch.cat([found, longer]).unique(dim=0, return_inverse=True)
        is_new = torch.ones(len(together), dtype=torch.bool).index_fill_(0, place[: len(found)], False)
        found, new = together, together[is_new]
        if len(found) > limit:
            raise ValueError(f"limit={limit} is not legal: strings make more maps of the {len(table)} states than that")
    return found


def algebraic_class(table: Tensor, limit: int = 20_000) -> Literal["aperiodic", "solvable", "unsolvable"]:
    """How hard an automaton is by Krohn and Rhodes: the groups inside its transformation semigroup.

    Aperiodic if all of them are trivial, solvable if all are solvable, else unsolvable. The groups are the maximal
    ones: for each set of states onto which some idempotent e (e e = e) maps all states, the permutations of that set
    that strings make.

    Args:
        table: `[Q, S]`, the next state of each state and symbol.
        limit: the most maps to enumerate.

    Raises:
        ValueError: when there are more.

    Source: Krohn & Rhodes (1965), Algebraic theory of machines; Liu et al. (2023), section 3, arXiv 2210.10749
    """
    maps = transformation_semigroup(table, limit)
    idempotent = maps[(maps.gather(1, maps) == maps).all(1)]
    images = {tuple(sorted({*e})) for e in idempotent.tolist()}
    groups = [_permutations(maps, torch.tensor(image)) for image in images]
    if all(len(group) == 1 for group in groups):
        return "aperiodic"
    return "solvable" if all(map(_is_solvable, groups)) else "unsolvable"


def _permutations(maps: Tensor, states: Tensor) -> Tensor:
    """The maps that permute these n states, as permutations of 0 .. n - 1, `[G, n]`."""
    onto = maps[:, states]
    onto = onto[(onto.sort(1).values == states).all(1)]
    return torch.searchsorted(states, onto.contiguous()).unique(dim=0)


def _is_solvable(group: Tensor) -> bool:
    """Whether the derived series of a group of permutations `[G, n]` ends in the trivial group."""
    while len(group) > 1:
        inverses = group.argsort(1)
        commutators = [inverses.gather(1, inverse[group[:, g]]) for g, inverse in zip(group, inverses)]
        derived = transformation_semigroup(torch.cat(commutators).unique(dim=0).T)
        if len(derived) == len(group):
            return False
        group = derived
    return True


def is_commutative(table: Tensor) -> bool:
    """Whether the order of the symbols does not matter, so that counting them is enough; `table` is `[Q, S]`."""
    twice = table[table]  # [Q, S, S]
    return bool((twice == twice.transpose(1, 2)).all())
