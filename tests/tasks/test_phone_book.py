import itertools
import re
from collections import Counter

import pytest
import torch
from scipy import stats

from mesocosm.seeding import generator
from mesocosm.tasks import PhoneBook
from mesocosm.tasks.phone_book import FIRST, LAST


def text(task, row):
    return "".join(task.tokens[i] for i in row.tolist())


@pytest.mark.parametrize("task", [PhoneBook(), PhoneBook(entries=1, examples=0), PhoneBook(entries=40, digits=3)])
def test_the_text_is_a_phone_book_and_the_answer_the_asked_number(task):
    batch = task.sample(50, generator(0))
    for r in range(50):
        book, rest = text(task, batch.inputs[r]).split("\n\n", 1)
        *repeated, question = rest.split("\n")
        lines = book.split("\n")
        numbers = dict(line.split(": ") for line in lines)
        assert len(numbers) == len(lines) == task.entries
        assert all(re.fullmatch(rf"[6-9]\d{{{task.digits - 1}}}", number) for number in numbers.values())
        name, answer = question.split(": ")
        assert numbers[name] == answer
        assert lines.index(f"{name}: {answer}") == batch.entry[r]
        examples = [lines[i] for i in batch.examples[r].tolist()]
        assert repeated == [*examples, ""]
        assert not {f"{name}: {answer}"} & set(examples)
        asked = batch.weights[r] == 1
        assert text(task, batch.targets[r][asked]) == answer + "\n"
        copied = batch.source[r] >= 0
        assert text(task, batch.inputs[r][batch.source[r][copied]]) == answer
        assert torch.equal(copied.nonzero(), asked.nonzero()[:-1])


def test_names_are_drawn_without_repetition_and_all_alike():
    task = PhoneBook(entries=4, digits=1, examples=1)
    batch = task.sample(20_000, generator(1))
    lines = batch.inputs[:, : 4 * 5].unflatten(1, (4, 5))
    codes = lines[..., 0] * len(LAST) + lines[..., 1] - len(FIRST)
    assert (codes.sort(1).values.diff(dim=1) > 0).all()
    for place in range(4):
        assert stats.chisquare(codes[:, place].bincount(minlength=1024)).pvalue > 1e-3
    assert stats.chisquare((lines[..., 3] - 64).flatten().bincount(minlength=10)[6:]).pvalue > 1e-3


def test_question_and_examples_are_uniform_and_distinct():
    task = PhoneBook(entries=4, digits=1, examples=2)
    batch = task.sample(20_000, generator(2))
    drawn = Counter(zip(*batch.examples.T.tolist(), batch.entry.tolist()))
    assert stats.chisquare([drawn[places] for places in itertools.permutations(range(4), 3)]).pvalue > 1e-3
    assert sum(drawn.values()) == sum(drawn[places] for places in itertools.permutations(range(4), 3))


def test_digits_are_uniform_and_guessing_has_the_stated_chance():
    task = PhoneBook(entries=2, digits=2, examples=0)
    batch = task.sample(40_000, generator(3))
    answers = (batch.targets[:, -3:-1] - 64) @ torch.tensor([10, 1])
    counts = answers.bincount(minlength=100)
    assert counts[:60].sum() == 0
    assert stats.chisquare(counts[60:]).pvalue > 1e-3
    assert task.chance() == 1 / 40


def test_batch_is_what_the_task_declares():
    task = PhoneBook(entries=3, digits=4)
    batch = task.sample(7, generator(0))
    assert batch._fields == tuple(task.fields)
    assert task.output_shape == (*task.input_shape, len(task.tokens))
    assert all(field.shape == (7, *task.input_shape) for field in batch[:4])
    assert batch.examples.shape == (7, 2)
    assert len(set(task.tokens)) == len(task.tokens) == 76


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"entries": 2}, "examples=2 is not legal: it must be less than entries=2"),
        ({"entries": 1025}, "entries=1025 is not legal.*from 1 to 1024"),
    ],
)
def test_bad_parameters_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        PhoneBook(**settings)
