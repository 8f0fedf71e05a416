import pytest
import torch

from mesocosm.measures import exact_match, free_running
from mesocosm.models import generate
from mesocosm.seeding import generator
from mesocosm.tasks import CarryCounter

TASKS = [
    CarryCounter(),
    CarryCounter(base=2, digits=5, numbers=9, given=2, max_stride=7, order="lowest-first"),
    CarryCounter(base=16, digits=2, numbers=4, given=1),
]


def numbers_of(task, row):
    """The numbers that a string of digits spells, by Python's own reading."""
    text = "".join(task.tokens[digit] for digit in row.tolist())
    words = [text[i : i + task.digits] for i in range(0, len(text), task.digits)]
    return [int(word if task.order == "highest-first" else word[::-1], task.base) for word in words]


@pytest.mark.parametrize("task", TASKS)
def test_strings_count_modulo_base_to_the_digits(task):
    batch = task.sample(60, generator(0))
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    rows = torch.cat([batch.inputs, batch.targets[:, -1:]], dim=1)
    for row, start, stride in zip(rows, batch.start.tolist(), batch.stride.tolist()):
        assert numbers_of(task, row) == [(start + i * stride) % task.base**task.digits for i in range(task.numbers)]
    assert batch.stride.unique().tolist() == list(range(1, task.max_stride + 1))


@pytest.mark.parametrize("task", TASKS)
def test_carries_are_those_of_schoolbook_addition(task):
    batch = task.sample(40, generator(1))
    for b, (start, stride) in enumerate(zip(batch.start.tolist(), batch.stride.tolist())):
        flags = []
        for i in range(task.numbers):
            before, added, carry, own = (start + (i - 1) * stride) % task.base**task.digits, stride, 0, []
            for _ in range(task.digits):
                own.append(bool(carry))
                carry = (before % task.base + added % task.base + carry) // task.base
                before, added = before // task.base, added // task.base
            flags += own if task.order == "lowest-first" else own[::-1]
        assert batch.carry[b].tolist() == flags[1:]


def test_loss_is_on_what_follows_the_prompt():
    batch = CarryCounter(digits=2, numbers=4, given=2).sample(3, generator(0))
    assert batch.weights.tolist() == [[0, 0, 0, 1, 1, 1, 1]] * 3


class Rule(torch.nn.Module):
    """Writes the digit that schoolbook counting demands, from the numbers before it; stride 1."""

    def __init__(self, task):
        super().__init__()
        self.task = task

    def forward(self, tokens):
        task, logits = self.task, torch.zeros(*tokens.shape, self.task.base)
        for b, row in enumerate(tokens.tolist()):
            for t in range(task.digits - 1, len(row)):
                whole = (t + 1) // task.digits * task.digits
                last = numbers_of(task, tokens[b, whole - task.digits : whole])[0]
                following = task.count(torch.tensor([last]), torch.tensor([1]))
                word = torch.cat([following.inputs, following.targets[:, -1:]], dim=1)[0, task.digits :]
                logits[b, t, word[(t + 1) % task.digits]] = 1
        return logits


def test_the_rule_is_right_when_it_reads_its_own_writing():
    task = CarryCounter(base=3, digits=2, numbers=5, given=1)
    batch = task.sample(20, generator(2))
    own = free_running(Rule(task), batch)
    assert exact_match(own, batch.targets, batch.weights) == 1
    prompt = batch.inputs[:, : task.digits]
    assert torch.equal(generate(Rule(task), prompt, 4 * task.digits), batch.targets[:, task.digits - 1 :])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"given": 8}, "given=8 is not legal.*below numbers=8"),
        ({"given": 1, "max_stride": 3}, "given=1 is not legal: it must be at least 2, to tell the stride"),
        ({"max_stride": 1000}, "max_stride=1000 is not legal: it must be below"),
        ({"base": 36, "digits": 12}, "digits=12 is not legal"),
        ({"base": 1}, "base=1 is not legal"),
    ],
)
def test_bad_parameters_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        CarryCounter(**settings)


@pytest.mark.parametrize("task", TASKS)
def test_batch_is_what_the_task_declares(task):
    batch = task.sample(7, generator(0))
    assert batch._fields == tuple(task.fields)
    assert batch.inputs.shape == (7, *task.input_shape)
    assert task.output_shape == (*task.input_shape, len(task.tokens))
    assert int(batch.targets.max()) < task.base
    assert torch.equal(batch.inputs, task.sample(7, generator(0)).inputs)
