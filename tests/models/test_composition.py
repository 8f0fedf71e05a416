import itertools

import pytest
import torch

from mesocosm.models import CompositionNetwork, CountingHead, GridworldNetwork, LastWriteHead
from mesocosm.seeding import generator
from mesocosm.tasks import Automaton, FlipFlop


def predicted(model, task, size=200, key=0):
    batch = task.sample(size, generator(key))
    return model.for_task(task)(batch.inputs).argmax(-1), batch.state


def every_string(symbols, length):
    return torch.tensor(list(itertools.product(range(symbols), repeat=length)))


@pytest.mark.parametrize("n", [2, 3, 5, 7, 24])
@pytest.mark.parametrize("length", [1, 16, 128])
def test_uniform_attention_counts_modulo_n(n, length):
    found, state = predicted(CountingHead, Automaton(name="cyclic", n=n, n_symbols=min(n, 4), length=length))
    assert torch.equal(found, state)


def test_uniform_attention_counts_every_string_of_bits():
    strings = every_string(2, 12)
    found = CountingHead(n=2)(strings).argmax(-1)
    assert torch.equal(found, strings.cumsum(1) % 2)


@pytest.mark.parametrize(("n", "length"), [(1, 5), (2, 40), (5, 128)])
def test_hard_attention_remembers_the_last_write(n, length):
    found, state = predicted(LastWriteHead, Automaton(name="flip-flop", n=n, length=length))
    assert torch.equal(found, state)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 9])
def test_two_layers_walk_every_short_string_between_walls(n):
    strings = every_string(2, 12)
    cell, walked = torch.zeros(len(strings), dtype=torch.long), []
    for move in (2 * strings - 1).unbind(1):
        cell = (cell + move).clamp(0, n - 1)
        walked.append(cell)
    assert torch.equal(GridworldNetwork(n=n)(strings).argmax(-1), torch.stack(walked, 1))


@pytest.mark.parametrize(("n", "p_right"), [(3, 0.5), (9, 0.5), (9, 0.8), (20, 0.55)])
def test_two_layers_walk_long_strings_between_walls(n, p_right):
    task = Automaton(name="gridworld", n=n, length=100, probabilities=(1 - p_right, p_right))
    found, state = predicted(GridworldNetwork, task)
    assert torch.equal(found, state)


@pytest.mark.parametrize("name", ["gridworld", "abab", "adder", "dihedral", "quaternion", "symmetric"])
@pytest.mark.parametrize("length", [1, 2, 7, 16, 33])
def test_doubling_equals_the_automaton(name, length):
    found, state = predicted(CompositionNetwork, Automaton(name=name, length=length))
    assert torch.equal(found, state)


def test_one_layer_too_few_sees_only_half_the_string():
    task = Automaton(name="symmetric", length=32)
    batch = task.sample(500, generator(1))
    found = CompositionNetwork.for_task(task, n_layers=4)(batch.inputs).argmax(-1)
    assert torch.equal(found[:, :16], batch.state[:, :16])
    half = task.states(batch.inputs[:, 16:])[:, -1]
    assert torch.equal(found[:, -1], half)
    assert (found[:, -1] != batch.state[:, -1]).float().mean() > 0.9


def test_more_layers_than_enough_change_nothing():
    task = Automaton(name="dihedral", length=5)
    symbols = task.sample(20, generator(2)).inputs
    assert torch.equal(
        CompositionNetwork.for_task(task, n_layers=6)(symbols), CompositionNetwork.for_task(task)(symbols)
    )


@pytest.mark.parametrize(
    ("model", "task", "message"),
    [
        (
            CountingHead,
            Automaton(name="gridworld"),
            "gives the state of parity or cyclic, but the task is the state of",
        ),
        (LastWriteHead, FlipFlop(), "LastWriteHead gives the state of flip-flop, but the task is FlipFlop"),
        (GridworldNetwork, Automaton(name="gridworld", label="boundary"), "the task is the boundary of gridworld"),
        (CompositionNetwork, FlipFlop(), "gives the state of an automaton, but the task is FlipFlop"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(model, task, message):
    with pytest.raises(ValueError, match=message):
        model.for_task(task)
