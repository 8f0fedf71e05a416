import itertools

import pytest
import torch
from scipy import stats

from mesocosm.seeding import generator
from mesocosm.tasks import FlipFlop

WRITE, READ, IGNORE = 0, 1, 2


def hidden_state(string):
    """The batch's fields for one string, by reading it token by token."""
    last_write, writes, rows = -1, 0, []
    for position, token in enumerate(string[:-1]):
        if position % 2 and string[position - 1] == WRITE:
            last_write, writes = position, writes + 1
        distance = position // 2 - last_write // 2 if writes else 1
        state = string[last_write] - 3 if writes else -1
        rows.append((token, string[position + 1], float(token == READ), last_write, distance, writes, state))
    return [list(column) for column in zip(*rows)]


def all_strings(length, p_ignore):
    """Every string and its probability, straight from the definition."""
    chance = {WRITE: (1 - p_ignore) / 2, READ: (1 - p_ignore) / 2, IGNORE: p_ignore}
    strings = {}
    for middle in itertools.product(chance, repeat=length // 2 - 2):
        instructions = (WRITE, *middle, READ)
        free = [j for j, instruction in enumerate(instructions) if instruction != READ]
        for bits in itertools.product((3, 4), repeat=len(free)):
            written, string, chosen = None, [], dict(zip(free, bits))
            for j, instruction in enumerate(instructions):
                bit = chosen.get(j, written)
                written = bit if instruction == WRITE else written
                string += [instruction, bit]
            probability = 0.5 ** len(free)
            for instruction in middle:
                probability *= chance[instruction]
            strings[tuple(string)] = probability
    return strings


def strings_of(batch):
    return torch.cat((batch.inputs, batch.targets[:, -1:]), dim=1)


@pytest.mark.parametrize(("length", "p_ignore"), [(4, 0.5), (6, 0.1), (8, 0.8)])
def test_strings_follow_the_exact_distribution(length, p_ignore):
    exact = all_strings(length, p_ignore)
    assert sum(exact.values()) == pytest.approx(1)
    count = 40_000
    drawn, counts = strings_of(FlipFlop(length=length, p_ignore=p_ignore).sample(count, generator(0))).unique(
        dim=0, return_counts=True
    )
    observed = dict(zip(map(tuple, drawn.tolist()), counts.tolist()))
    assert set(observed) <= set(exact)
    expected = [count * p for p in exact.values()]
    assert stats.chisquare([observed.get(s, 0) for s in exact], expected).pvalue > 1e-3


@pytest.mark.parametrize("p_ignore", [0.1, 0.8])
def test_hidden_state_equals_reading_token_by_token(p_ignore):
    batch = FlipFlop(length=20, p_ignore=p_ignore).sample(50, generator(1))
    for row, string in enumerate(strings_of(batch).tolist()):
        assert [field[row].tolist() for field in batch] == hidden_state(string)


def test_weighted_targets_are_the_bit_at_the_last_write():
    batch = FlipFlop(length=64, p_ignore=0.5).sample(200, generator(2))
    read = batch.weights == 1
    assert torch.equal(batch.targets[read], batch.inputs.gather(1, batch.last_write.clamp(min=0))[read])
    assert torch.equal(batch.targets[read], 3 + batch.state[read])
    assert read[:, -1].all()
    assert (batch.distance[read] >= 1).all()


def test_batch_is_what_the_task_declares():
    task = FlipFlop(length=10)
    batch = task.sample(7, generator(0))
    assert batch._fields == tuple(task.fields)
    assert task.output_shape == (9, 5)
    assert all(field.shape == (7, *task.input_shape) for field in batch)
    assert batch.inputs.max() < len(task.tokens)


def test_mixture_keeps_its_shares_in_order():
    task = FlipFlop(length=402, p_ignore=(0.8, 0.98, 0.1), shares=(2, 1, 1))
    instructions = task.sample(16, generator(3)).inputs[:, 2::2]
    ignored = (instructions == IGNORE).float().mean(1)
    assert (ignored.sub(0.8).abs() < 0.15)[:8].all()
    assert (ignored > 0.9)[8:12].all()
    assert (ignored < 0.3)[12:].all()


@pytest.mark.parametrize("size", [1, 2, 5, 17])
def test_mixture_fills_any_batch(size):
    task = FlipFlop(length=8, p_ignore=(0.0, 1.0, 0.5), shares=(1.0, 1.0, 1.0))
    assert len(task.sample(size, generator(0)).inputs) == size


def test_single_p_ignore_is_a_mixture_of_one():
    single, mixture = FlipFlop(p_ignore=0.8), FlipFlop(p_ignore=(0.8,))
    assert torch.equal(single.sample(9, generator(0)).inputs, mixture.sample(9, generator(0)).inputs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 2}, "length=2 is not legal.*at least 4"),
        ({"length": 7}, "length=7 is not legal.*even"),
        ({"p_ignore": 1.2}, "p_ignore=1.2 is not legal.*from 0 to 1"),
        ({"p_ignore": (0.8, 0.1)}, r"shares=\(1.0,\) is not legal.*2 value"),
        ({"shares": (0.0,)}, r"shares=\(0.0,\) is not legal.*positive sum"),
    ],
)
def test_bad_parameters_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        FlipFlop(**settings)
