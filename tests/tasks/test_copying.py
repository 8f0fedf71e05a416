import itertools
from collections import Counter
from fractions import Fraction

import pytest
import torch
from scipy import stats

from mesocosm.seeding import generator
from mesocosm.tasks import NGramLookup, StringCopy

COUNT = 40_000


def text(task, batch):
    """The rows as text, from inputs and the last target."""
    rows = torch.cat([batch.inputs, batch.targets[:, -1:]], dim=1)
    return ["".join(task.tokens[i] for i in row) for row in rows.tolist()]


def words(letters, length):
    return ["".join(word) for word in itertools.product("abcdefghijklmnopqrstuvwxyz"[:letters], repeat=length)]


def agrees(observed, exact):
    assert sum(exact.values()) == 1
    assert set(observed) <= set(exact)
    expected = [float(COUNT * p) for p in exact.values()]
    return stats.chisquare([observed[key] for key in exact], expected).pvalue > 1e-3


def test_copies_follow_the_exact_distribution():
    task = StringCopy(letters=3, min_length=2, max_length=4)
    exact = {
        f"${word}|{word}.".ljust(11, "*"): Fraction(1, 3 * 3**length)
        for length in (2, 3, 4)
        for word in words(3, length)
    }
    assert agrees(Counter(text(task, task.sample(COUNT, generator(0)))), exact)


def test_duplicates_follow_the_exact_distribution():
    task, exact = StringCopy(letters=2, min_length=4, max_length=6, duplicated=2), Counter()
    for length in (4, 5, 6):
        pairs = [(i, j) for i in range(length - 1) for j in range(i + 2, length - 1)]
        for word, (i, j) in itertools.product(words(2, length), pairs):
            planted = word[:j] + word[i : i + 2] + word[j + 2 :]
            exact[f"${planted}|{planted}.".ljust(15, "*"), i, j] += Fraction(1, 3 * 2**length * len(pairs))
    batch = task.sample(COUNT, generator(1))
    assert agrees(Counter(zip(text(task, batch), batch.first.tolist(), batch.second.tolist())), exact)


@pytest.mark.parametrize("key", ["suffix", "prefix"])
@pytest.mark.parametrize(("n", "answer"), [(1, 2), (1, 0), (2, 1)])
def test_lookups_follow_the_exact_distribution(key, n, answer):
    task, exact = NGramLookup(letters=3, min_length=3, max_length=4, n=n, answer=answer, key=key), Counter()
    for length in (3, 4):
        pairs = []
        for word, i in itertools.product(words(3, length), range(length - n - max(answer, 1) + 1)):
            sought, found = word[i : i + n], word[i + n : i + n + answer] if answer else word[i + n :]
            if sum(word[j : j + n] == sought for j in range(length - n + 1)) == 1:
                pairs.append((f"${word}|{sought}{found}." if key == "suffix" else f"${sought}|{word}|{found}.", i))
        for row, i in pairs:
            exact[row.ljust(task.input_shape[0] + 1, "*"), i] += Fraction(1, 2 * len(pairs))
    batch = task.sample(COUNT, generator(2))
    assert agrees(Counter(zip(text(task, batch), batch.place.tolist())), exact)


@pytest.mark.parametrize(
    ("task", "before_answer"),
    [
        (StringCopy(letters=4, min_length=3, max_length=9), lambda row, batch, r: row.index("|") + 1),
        (StringCopy(letters=4, min_length=6, max_length=9, duplicated=3), lambda row, batch, r: row.index("|") + 1),
        (NGramLookup(min_length=8, max_length=15), lambda row, batch, r: row.index("|") + 4),
        (NGramLookup(min_length=8, max_length=15, key="prefix"), lambda row, batch, r: row.rindex("|") + 1),
        (NGramLookup(min_length=8, max_length=15, answer=0), lambda row, batch, r: row.index("|") + 4),
    ],
)
def test_labels_equal_reading_letter_by_letter(task, before_answer):
    batch = task.sample(100, generator(3))
    for r, row in enumerate(text(task, batch)):
        first, end = before_answer(row, batch, r), row.index(".")
        string = row.strip("$*.").split("|")[1 if getattr(task, "key", "") == "prefix" else 0]
        offset = row.index(string, 2 if getattr(task, "key", "") == "prefix" else 1)
        if isinstance(task, NGramLookup):
            offset += batch.place[r].item() + task.n
        source = [-1] * len(row)
        source[first:end] = range(offset, offset + end - first)
        assert batch.weights[r].tolist() == [float(first <= p <= end) for p in range(1, len(row))]
        assert batch.source[r].tolist() == source[1:]
        assert [row[p] for p in source[first:end]] == list(row[first:end])
        assert batch.length[r] == len(string)


@pytest.mark.parametrize(
    "task",
    [StringCopy(), NGramLookup(), NGramLookup(answer=0, key="prefix", n=12, min_length=13, max_length=14)],
)
@pytest.mark.parametrize("size", [1, 7])
def test_batch_is_what_the_task_declares(task, size):
    batch = task.sample(size, generator(0))
    assert batch._fields == tuple(task.fields)
    assert task.output_shape == (*task.input_shape, len(task.tokens))
    assert all(field.shape == (size, *task.input_shape) for field in batch[:4])
    assert all(field.shape == (size,) for field in batch[4:])
    assert batch.inputs.max() < len(task.tokens)


def test_guessing_has_the_stated_chance():
    copy = StringCopy(letters=2, min_length=4, max_length=4)
    strings = copy.sample(COUNT, generator(4)).inputs[:, 1:5]
    assert stats.binomtest(int((strings == 0).all(1).sum()), COUNT, copy.chance(4)).pvalue > 1e-3


def test_samples_are_a_function_of_the_generator():
    task = NGramLookup(letters=4, n=2, min_length=8, max_length=12)
    assert all(torch.equal(a, b) for a, b in zip(task.sample(9, generator(0)), task.sample(9, generator(0))))


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (StringCopy, {"letters": 27}, "letters=27 is not legal.*from 2 to 26"),
        (StringCopy, {"min_length": 9, "max_length": 8}, "min_length=9 is not legal.*max_length=8"),
        (StringCopy, {"min_length": 5, "duplicated": 3}, "duplicated=3 is not legal.*min_length=5 twice"),
        (NGramLookup, {"n": 4, "answer": 4, "min_length": 7}, "n=4 is not legal: with the answer of 4"),
        (NGramLookup, {"n": 5, "answer": 0, "min_length": 5}, "n=5 is not legal: with the answer of 1"),
        (NGramLookup, {"n": 1, "letters": 2, "answer": 1}, "n=1 is not legal: hardly any 1-gram"),
        (NGramLookup, {"key": "infix"}, "key='infix' is not legal.*suffix, prefix"),
    ],
)
def test_bad_parameters_are_named(task, settings, message):
    with pytest.raises(ValueError, match=message):
        task(**settings)
