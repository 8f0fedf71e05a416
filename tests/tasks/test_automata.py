import itertools
import math
import typing

import pytest
import torch
from scipy import stats

from mesocosm.cli import main
from mesocosm.seeding import generator
from mesocosm.tasks import Automaton


def parity(string, n):
    return [sum(string[: t + 1]) % 2 for t in range(len(string))]


def cyclic(string, n):
    return [sum(string[: t + 1]) % n for t in range(len(string))]


def gridworld(string, n):
    cell, cells = 0, []
    for symbol in string:
        cell = max(cell - 1, 0) if symbol == 0 else min(cell + 1, n - 1)
        cells.append(cell)
    return cells


def abab(string, n):
    """State 3 before and after 0101, then 0 after 0, 1 after 01, 2 after 010; 4 after any mistake."""
    good = "01" * len(string)
    text = "".join(map(str, string))
    return [(0, 1, 2, 3)[t % 4] if good.startswith(text[: t + 1]) else 4 for t in range(len(string))]


def adder(string, n):
    """The sum of whole numbers, digit by digit in base n, with ones of the columns added up."""
    totals = [bin(column).count("1") for column in string]
    states = []
    for t in range(len(string)):
        total = sum(ones * n**s for s, ones in enumerate(totals[: t + 1]))
        states.append(total // n**t % n + n * (total // n ** (t + 1)))
    return states


def flip_flop(string, n):
    state, states = 0, []
    for symbol in string:
        state = symbol or state
        states.append(state)
    return states


def dihedral(string, n):
    """A corner of an n-gon under matrices of rotation and reflection."""
    turn = 2 * math.pi / n
    rotate = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]], dtype=torch.float64)
    flip = torch.tensor([[1.0, 0], [0, -1]], dtype=torch.float64)
    motion, states = torch.eye(2, dtype=torch.float64), []
    for symbol in string:
        motion = motion @ (rotate if symbol else flip)
        angle = torch.atan2(motion[1, 0], motion[0, 0]).item()
        states.append(n * (motion.det().item() < 0) + round(angle / turn) % n)
    return states


def permutation_matrices(actions, elements, left):
    """States by multiplying matrices of permutations, starting from the identity."""
    n = len(elements[0])
    matrix = {p: torch.eye(n, dtype=torch.long)[list(p)] for p in itertools.permutations(range(n))}

    def states(string):
        state, found = torch.arange(n), []
        for symbol in string:
            action = matrix[actions[symbol]]
            state = torch.tensor(actions[symbol])[state] if left else action @ state
            found.append(elements.index(tuple(state.tolist())))
        return found

    return states


def symmetric(string, n):
    elements = list(itertools.permutations(range(n)))
    actions = [elements[0], (*range(1, n), 0), (1, 0, *range(2, n))]
    actions += [p for p in elements if p not in actions]
    return permutation_matrices(actions, elements, left=False)(string)


def alternating(string, n):
    sign = lambda p: round(torch.eye(n, dtype=torch.float64)[list(p)].det().item())
    elements = [p for p in itertools.permutations(range(n)) if sign(p) == 1]
    cycles = []
    for x in range(2, n):
        cycle = list(range(n))
        cycle[0], cycle[1], cycle[x] = 1, x, 0
        cycles.append(tuple(cycle))
    return permutation_matrices([tuple(range(n)), *cycles], elements, left=False)(string)


def quaternion(string, n):
    """Quaternions as 2 x 2 complex matrices."""
    i = torch.tensor([[1j, 0], [0, -1j]])
    j = torch.tensor([[0, 1], [-1, 0]]) + 0j
    units = [torch.eye(2) + 0j, i, j, i @ j]
    units += [-unit for unit in units]
    state, states = units[0], []
    for symbol in string:
        state = state @ units[symbol]
        states.append(next(q for q, unit in enumerate(units) if torch.equal(unit, state)))
    return states


def permutation_reset(string, n):
    elements = list(itertools.permutations(range(n)))
    state, states = elements[0], []
    for symbol in string:
        if symbol < len(elements):
            state = elements[symbol]
        elif symbol == len(elements):
            state = tuple((x + 1) % n for x in state)
        else:
            state = tuple({0: 1, 1: 0}.get(x, x) for x in state)
        states.append(elements.index(state))
    return states


BY_HAND = {
    "parity": parity,
    "cyclic": cyclic,
    "gridworld": gridworld,
    "abab": abab,
    "adder": adder,
    "flip-flop": flip_flop,
    "dihedral": dihedral,
    "symmetric": symmetric,
    "alternating": alternating,
    "quaternion": quaternion,
    "permutation-reset": permutation_reset,
}
SMALL = {
    "cyclic": (2, 5, 7), "gridworld": (2, 4, 9), "adder": (2, 3), "flip-flop": (1, 2, 5), "dihedral": (3, 4, 5),
    "symmetric": (2, 3, 5), "alternating": (3, 4, 5), "permutation-reset": (2, 3),
}  # fmt: skip


def test_every_named_automaton_is_simulated_by_hand():
    hints = typing.get_type_hints(Automaton)["name"]
    assert set(typing.get_args(hints)) == {*BY_HAND, "table"}


@pytest.mark.parametrize(("name", "n"), [(name, n) for name in BY_HAND for n in SMALL.get(name, (None,))])
def test_states_equal_simulation_by_hand(name, n):
    task = Automaton(name=name, n=n, length=14)
    batch = task.sample(60, generator(0))
    for string, states in zip(batch.inputs.tolist(), batch.state.tolist()):
        assert states == BY_HAND[name](string, n)
    assert torch.equal(batch.targets, batch.state)


@pytest.mark.parametrize(("name", "n"), [("cyclic", 5), ("symmetric", 4)])
def test_more_generators_can_be_asked_for(name, n):
    batch = Automaton(name=name, n=n, n_symbols=5, length=20).sample(30, generator(0))
    assert batch.inputs.max() == 4
    for string, states in zip(batch.inputs.tolist(), batch.state.tolist()):
        assert states == BY_HAND[name](string, n)


def test_s3_composed_by_hand():
    """shift, swap, swap, shift from 012: 120, 210, 120, 201."""
    states = Automaton(name="symmetric", n=3).states(torch.tensor([[1, 2, 2, 1, 0]]))
    elements = ["".join(map(str, p)) for p in itertools.permutations(range(3))]
    assert [elements[q] for q in states[0].tolist()] == ["120", "210", "120", "201", "201"]


@pytest.mark.parametrize(
    ("name", "label", "of"),
    [
        ("gridworld", "parity", lambda q: q % 2),
        ("gridworld", "boundary", lambda q: int(q in (0, 8))),
        ("abab", "boundary", lambda q: int(q == 3)),
        ("adder", "digit", lambda q: q % 2),
        ("adder", "carry", lambda q: q // 2),
        ("dihedral", "toggle", lambda q: q // 4),
        ("dihedral", "position", lambda q: q % 4),
        ("symmetric", "first-chair", lambda q: list(itertools.permutations(range(5)))[q][0]),
    ],
)
def test_labels_are_functions_of_the_state(name, label, of):
    task = Automaton(name=name, label=label, length=20)
    batch = task.sample(100, generator(0))
    expected = [[of(q) for q in states] for states in batch.state.tolist()]
    assert batch.targets.tolist() == expected
    assert task.output_shape == (20, max(map(max, expected)) + 1)


def test_a_table_of_ones_own():
    task = Automaton(
        name="table", n_symbols=2, table=(1, 0, 2, 1, 2, 0), start=1, labels=(3, 0, 1), label="own", length=9
    )
    batch = task.sample(40, generator(0))
    for string, states in zip(batch.inputs.tolist(), batch.state.tolist()):
        q = 1
        for symbol, state in zip(string, states):
            q = [[1, 0], [2, 1], [2, 0]][q][symbol]
            assert state == q
    assert torch.equal(batch.targets, torch.tensor([3, 0, 1])[batch.state])
    assert task.output_shape == (9, 4)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("parity", {"probabilities": (0.3, 0.7)}),
        ("gridworld", {"n": 3, "probabilities": (1.0, 2.0)}),
        ("flip-flop", {"n": 2}),
        ("dihedral", {"n": 3, "label": "position"}),
        ("symmetric", {"n": 3, "label": "first-chair", "probabilities": (0.0, 0.5, 0.5)}),
        ("abab", {"p_positive": 0.4, "probabilities": (0.6, 0.4)}),
        ("adder", {}),
        ("permutation-reset", {"n": 2}),
    ],
)
def test_samples_and_chance_follow_the_exact_distribution(name, settings):
    """Against the probability of every string and the state it ends in, straight from the definition."""
    task, length = Automaton(name=name, length=5, **settings), 5
    exact = every_string(task)
    assert sum(exact.values()) == pytest.approx(1)
    count = 30_000
    batch = task.sample(count, generator(4))
    drawn, counts = batch.inputs.unique(dim=0, return_counts=True)
    observed = dict(zip(map(tuple, drawn.tolist()), counts.tolist()))
    assert set(observed) <= {string for string, p in exact.items() if p}
    likely = {string: p for string, p in exact.items() if p * count > 5}
    rest, seen = 1 - sum(likely.values()), [observed.get(s, 0) for s in likely]
    expected = [count * p for p in likely.values()]
    if rest > 1e-3:
        seen, expected = [*seen, count - sum(seen)], [*expected, count * rest]
    assert stats.chisquare(seen, [e * sum(seen) / sum(expected) for e in expected]).pvalue > 1e-3

    states = torch.zeros(length, task.n_states, dtype=torch.float64)
    labels = torch.zeros(length, task.output_shape[1], dtype=torch.float64)
    for string, p in exact.items():
        for t, q in enumerate(BY_HAND[name](string, task.n or 2)):
            states[t, q] += p
            labels[t, task.label_of_state[q]] += p
    torch.testing.assert_close(task.state_distribution(), states)
    torch.testing.assert_close(task.chance(), labels.amax(1))


def every_string(task):
    """Each string of an automaton with its probability."""
    symbols, length = len(task.tokens), task.length
    usual = {"flip-flop": (0.5, 0.25, 0.25)}.get(task.name, (1.0,) * symbols)
    shares = [p / sum(task.probabilities or usual) for p in task.probabilities or usual]
    strings = dict.fromkeys(itertools.product(range(symbols), repeat=length), 0.0)
    for string in strings:
        if task.name == "permutation-reset":
            strings[string] = reset_probability(string)
        elif task.name != "adder":
            strings[string] = math.prod(shares[a] for a in string)
        elif string[-1] == 0:
            strings[string] = math.prod(shares[a] for a in string[:-1])
    if task.name == "abab":
        positive = tuple(t % 2 for t in range(length))
        strings = {s: task.p_positive * (s == positive) + (1 - task.p_positive) * p for s, p in strings.items()}
    return strings


def reset_probability(string):
    """Resets 0, 1 of S_2 at position 0 and after gaps of 1, 2 or 4; generators 2, 3 elsewhere."""
    resets = [t for t, a in enumerate(string) if a < 2]
    if resets[:1] != [0]:
        return 0.0
    gaps = [b - a for a, b in itertools.pairwise(resets)]
    if not set(gaps) <= {1, 2, 4}:
        return 0.0
    beyond = sum(g >= len(string) - resets[-1] for g in (1, 2, 4)) / 3
    return (1 / 3) ** len(gaps) * beyond * 0.5 ** len(string)


def test_chance_of_long_strings_needs_no_enumeration():
    chance = Automaton(name="gridworld", n=9, length=400).chance()
    assert chance[0] == 0.5
    assert chance[-1].item() == pytest.approx(1 / 9, abs=1e-4)


def test_labels_are_revealed_with_their_probability():
    full, part = (Automaton(length=50, p_label=p).sample(400, generator(0)) for p in (1.0, 0.25))
    assert torch.equal(full.inputs, part.inputs) and torch.equal(full.targets, part.targets)
    assert (full.weights == 1).all()
    assert part.weights.unique().tolist() == [0, 1]
    assert part.weights.mean().item() == pytest.approx(0.25, abs=0.02)
    assert Automaton(length=5, p_label=0.0).sample(3, generator(0)).weights.sum() == 0


def test_batch_is_what_the_task_declares():
    for name in BY_HAND:
        task = Automaton(name=name, length=6)
        batch = task.sample(5, generator(0))
        assert batch._fields == tuple(task.fields)
        assert all(field.shape == (5, 6) for field in batch)
        assert batch.inputs.max() < len(task.tokens) == len(set(task.tokens))
        assert batch.targets.max() < task.output_shape[1] == task.n_states


@pytest.mark.parametrize("name", BY_HAND)
def test_strings_of_one_symbol(name):
    batch = Automaton(name=name, length=1).sample(4, generator(0))
    assert batch.state.shape == (4, 1)


def test_samples_from_the_command_line(tmp_path):
    path = tmp_path / "own.jsonl"
    flags = ["--name", "table", "--n-symbols", "2", "--table", "0", "1", "1", "0", "--length", "5"]
    assert main(["sample", "automaton", *flags, "--count", "3", "--to", str(path), "--text"]) == 0
    assert len(path.read_text().splitlines()) == 3
    flags = ["--name", "parity", "--probabilities", "0.9", "0.1", "--length", "5"]
    assert main(["sample", "automaton", *flags, "--count", "3", "--to", str(path)]) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "parity", "n": 3}, "n=3 is not legal: of parity it must be from 2 to 2"),
        ({"name": "symmetric", "n": 7}, "n=7 is not legal: of symmetric it must be from 2 to 6"),
        (
            {"name": "cyclic", "n": 3, "n_symbols": 4},
            "n_symbols=4 is not legal: of cyclic it must be an integer from 1 to 3",
        ),
        ({"name": "gridworld", "n_symbols": 2}, "n_symbols=2 is not legal: of gridworld it must be none"),
        ({"label": "toggle"}, "label='toggle' is not legal: of parity it can be state"),
        ({"name": "dihedral", "label": "digit"}, "label='digit' .* it can be position, state, toggle"),
        ({"probabilities": (1.0,)}, r"probabilities=\(1.0,\) is not legal: it must hold 2 value\(s\) of positive sum"),
        ({"probabilities": (0.0, 0.0)}, "probabilities=.* positive sum"),
        ({"table": (0, 1), "n_symbols": 1}, "n_symbols=1 is not legal: of parity it must be none"),
        ({"table": (0, 1)}, "name='parity' is not legal: table, labels and start are for the name table"),
        ({"name": "table"}, "table=None is not legal"),
        ({"name": "table", "n_symbols": 2, "table": (0, 1, 1)}, "table=.* rows of n_symbols=2 states"),
        ({"name": "table", "n_symbols": 2, "table": (0, 2, 1, 0)}, "table=.* each below the number of rows"),
        ({"name": "table", "n_symbols": 1, "table": (0,), "start": 1}, "start=1 is not legal: the table has 1 states"),
        ({"name": "table", "n_symbols": 1, "table": (0,), "labels": (1, 2)}, "labels=.* it must hold 1 labels"),
        ({"name": "table", "n_symbols": 1, "table": (0,), "n": 1}, "n=1 is not legal: of a table it must be none"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Automaton(**settings)
