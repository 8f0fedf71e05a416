import itertools

import pytest
import torch

from mesocosm.measures import algebraic_class, is_commutative, transformation_semigroup
from mesocosm.tasks import Automaton

MADE = {
    "aperiodic": [("gridworld", 2), ("gridworld", 4), ("gridworld", 9), ("flip-flop", 2), ("flip-flop", 5)],
    "solvable": [
        ("parity", None),
        ("cyclic", 6),
        ("dihedral", 4),
        ("dihedral", 5),
        ("quaternion", None),
        ("symmetric", 3),
        ("symmetric", 4),
        ("alternating", 4),
        ("permutation-reset", 3),
    ],
    "unsolvable": [("symmetric", 5), ("alternating", 5), ("permutation-reset", 5)],
}


def table_of(name, n=None):
    return Automaton(name=name, n=n).machine.next


@pytest.mark.parametrize(("expected", "name", "n"), [(k, *automaton) for k, made in MADE.items() for automaton in made])
def test_named_automata_are_in_their_class(expected, name, n):
    assert algebraic_class(table_of(name, n)) == expected


@pytest.mark.parametrize(
    ("name", "n", "size"),
    [
        ("cyclic", 7, 7),
        ("dihedral", 5, 10),
        ("quaternion", None, 8),
        ("symmetric", 4, 24),
        ("alternating", 5, 60),
        ("permutation-reset", 3, 12),
        ("flip-flop", 3, 4),
    ],
)
def test_sizes_are_the_orders_of_the_groups(name, n, size):
    assert len(transformation_semigroup(table_of(name, n))) == size


def all_maps(table):
    """Every map that strings of a length up to the number of maps make, by brute force."""
    columns = [tuple(column) for column in table.T.tolist()]
    found, new = set(columns), set(columns)
    while new:
        new = {tuple(symbol[q] for q in f) for f in new for symbol in columns} - found
        found |= new
    return found


def is_aperiodic(table):
    """Schuetzenberger: f^(k+1) = f^k for some k, for every map f."""
    for f in all_maps(table):
        power = list(range(len(f)))
        for _ in f:
            power = [f[q] for q in power]
        if [f[q] for q in power] != power:
            return False
    return True


def test_random_tables_agree_with_brute_force():
    generator = torch.Generator().manual_seed(0)
    classes = []
    for _ in range(150):
        table = torch.randint(4, (4, 2), generator=generator)
        assert {*map(tuple, transformation_semigroup(table).tolist())} == all_maps(table)
        classes.append(algebraic_class(table))
        assert (classes[-1] == "aperiodic") == is_aperiodic(table)
    assert set(classes) == {"aperiodic", "solvable"}


def test_a_group_on_a_part_of_the_states_is_found():
    """A5 on states 0..4 only, which a reset symbol enters from two more states."""
    cycles = [(1, 2, 0, 3, 4), (0, 1, 3, 4, 2)]
    assert algebraic_class(torch.tensor(cycles).T) == "unsolvable"
    table = torch.tensor([[*cycle, 0, 1] for cycle in cycles] + [[0, 1, 2, 3, 4, 6, 6]]).T
    assert algebraic_class(table) == "unsolvable"
    swap = torch.tensor([[1, 0, 2, 2]]).T
    assert algebraic_class(swap) == "solvable"


def test_every_group_below_order_60_is_solvable():
    for shift in itertools.permutations(range(4)):
        assert algebraic_class(torch.tensor([shift, (1, 0, 2, 3)]).T) != "unsolvable"


def test_too_many_maps_are_refused():
    with pytest.raises(ValueError, match=r"limit=100 is not legal: strings make more maps of the 120 states"):
        transformation_semigroup(table_of("symmetric", 5), limit=100)


def test_counters_commute_and_the_others_do_not():
    assert is_commutative(table_of("parity")) and is_commutative(table_of("cyclic", 6))
    others = ("gridworld", "flip-flop", "dihedral", "quaternion", "symmetric", "alternating", "abab")
    assert not any(is_commutative(table_of(name)) for name in others)
    assert is_commutative(table_of("dihedral", 2))  # Klein's four-group
