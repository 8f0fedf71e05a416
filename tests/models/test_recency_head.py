import itertools
import math

import pytest
import torch

from mesocosm.models import RecencyHead
from mesocosm.seeding import generator
from mesocosm.tasks import FlipFlop, SparseParity

WRITE, READ, IGNORE = range(3)


def all_strings(length):
    """Every flip-flop string, token by token."""
    for choice in itertools.product(range(5), repeat=length // 2 - 1):
        string, state = [], None
        for instruction, bit in [[(WRITE, 3), (WRITE, 4), (IGNORE, 3), (IGNORE, 4), (READ, None)][c] for c in choice]:
            if state is None and instruction != WRITE:
                break
            state = bit if instruction == WRITE else state
            string += [instruction, state if bit is None else bit]
        else:
            yield [*string, READ, state]


def reads(string, write_logit, recency):
    """Each read's log-odds of the last write against all bits that oppose it, and its attended sum times the state."""
    for t in range(0, len(string), 2):
        if string[t] == READ:
            bits = [
                (string[i], write_logit * (string[i - 1] == WRITE) + recency * i / len(string)) for i in range(1, t, 2)
            ]
            last = [score for (_, score), i in zip(bits, range(0, t, 2)) if string[i] == WRITE][-1]
            opposing = sum(math.exp(score) for bit, score in bits if bit != string[t + 1])
            agreeing = sum(math.exp(score) for bit, score in bits if bit == string[t + 1])
            yield last - math.log(opposing) if opposing else math.inf, agreeing - opposing


def wrong(head, strings):
    strings = torch.as_tensor(strings)
    recalled = head(strings[:, :-1]).argmax(-1)
    return (recalled != strings[:, 1:]) & (strings[:, :-1] == READ)


@pytest.mark.parametrize("length", [4, 6, 8, 10])
@pytest.mark.parametrize(("writes", "spacing"), [(None, 1.0), (2.0, 1.3), (None, 0.5), (1.0, 0.2), (9.0, 0.8)])
def test_head_and_margin_equal_counting_over_all_strings(length, writes, spacing):
    head = RecencyHead(length=length, write_logit=writes, recency=spacing * length / 2 * math.log(2)).double()
    strings = list(all_strings(length))
    assert len(strings) == 2 * 5 ** (length // 2 - 2)
    odds = [list(reads(s, head.write_logit.item(), head.recency.item())) for s in strings]
    assert head.margin() == pytest.approx(min(least for string in odds for least, _ in string))
    assert wrong(head, strings).sum() == sum(attended <= 0 for string in odds for _, attended in string)
    assert bool(wrong(head, strings).any()) == (head.margin() <= 0)


@pytest.mark.parametrize("length", [12, 16])
@pytest.mark.parametrize("p_ignore", [0.0, 1 / 3, 0.8])
def test_default_head_recalls_every_random_string(length, p_ignore):
    task = FlipFlop(length=length, p_ignore=p_ignore)
    batch = task.sample(20_000, generator(0))
    head = RecencyHead.for_task(task)
    assert head.margin() > 0
    assert not ((head(batch.inputs).argmax(-1) != batch.targets) & (batch.weights > 0)).any()


def test_margin_of_the_default_head_in_closed_form():
    head = RecencyHead(length=16)
    assert head.margin() == pytest.approx(math.log(128 * 2) - math.log(2**8 - 4), rel=1e-5)


def test_recency_that_does_not_grow_with_length_fails_on_dense_strings():
    recency = RecencyHead(length=8).recency.item()
    for length in (16, 32, 64):
        head = RecencyHead(length=length, recency=recency)
        batch = FlipFlop(length=length, p_ignore=0.0).sample(2000, generator(1))
        assert head.margin() < 0
        assert ((head(batch.inputs).argmax(-1) != batch.targets) & (batch.weights > 0)).any()


def test_other_tasks_and_short_strings_are_refused():
    with pytest.raises(ValueError, match="RecencyHead needs FlipFlop strings, but the task is SparseParity"):
        RecencyHead.for_task(SparseParity())
    with pytest.raises(ValueError, match="length=2 is not legal: it must be an integer, at least 4"):
        RecencyHead(length=2)
