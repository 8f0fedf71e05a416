import collections

import pytest
import torch
from scipy import stats

from mesocosm.seeding import generator
from mesocosm.tasks import ClosedBookFacts, EasyHardMarkov, InductionCopying, ReasoningMixture, VariableAssignment
from mesocosm.tasks.reasoning import symbol_pairs


def run_program(lines):
    """Values of all variables, from `a=3` and `b=a` in any order, and how many steps each took."""
    right = dict(line.split("=") for line in lines)
    assert len(right) == len(lines), "a name is assigned twice"
    found = {}
    for name in right:
        value, steps = right[name], 0
        while value in right:
            value, steps = right[value], steps + 1
        found[name] = (value, steps)
    return found


def rows_of(task, batch):
    for row in zip(batch.inputs.tolist(), batch.targets.tolist(), batch.weights.tolist()):
        inputs, targets, weights = row
        yield [task.tokens[i] for i in inputs], [task.tokens[i] for i in targets], weights


def check_assignment(tokens, targets, weights, depth, chains):
    words = [word for word in tokens if word != "."]
    assert tokens[: len(words)] == words, "pads come last"
    lines, queries = words[:-chains], words[-chains:]
    assert len(lines) == chains * (depth + 1)
    values = run_program(lines)
    assert len({value for value, _ in values.values()}) == chains
    asked = [query.removesuffix("=?") for query in queries]
    assert sorted(asked) == sorted(name for name, (_, steps) in values.items() if steps == depth)
    answers = [values[name][0] for name in asked]
    assert [target for target, weight in zip(targets, weights) if weight] == answers
    assert [place for place, weight in enumerate(weights) if weight] == [len(lines) + i for i in range(chains)]


@pytest.mark.parametrize(
    "settings", [{}, {"chains": 2, "depths": (3,), "values": 2, "names": 8}, {"chains": 1, "depths": (0,), "names": 1}]
)
def test_assignments_are_solved_by_running_them(settings):
    task = VariableAssignment(**settings)
    batch = task.sample(300, generator(0))
    for row, depth in zip(rows_of(task, batch), batch.depth.tolist()):
        check_assignment(*row, depth, task.chains)
    assert set(batch.depth.tolist()) == set(task.depths)


def test_answers_cannot_be_told_by_position():
    """Depths, values, and the line that holds a query's variable are uniform."""
    task = VariableAssignment()
    batch = task.sample(6000, generator(1))
    assert stats.chisquare(batch.depth.bincount()).pvalue > 1e-3
    for query in range(4):
        answers = batch.targets.gather(1, 4 * (batch.depth[:, None] + 1) + query)
        assert stats.chisquare(answers.flatten().bincount()[-8:]).pvalue > 1e-3

    deepest = batch._make(field[batch.depth == 2] for field in batch)
    first_query = deepest.inputs[:, 12]
    name = first_query // (task.values + task.names + 1)
    line = (deepest.inputs[:, :12] // (task.values + task.names + 1) == name[:, None]).long().argmax(1)
    assert stats.chisquare(line.bincount(minlength=12)).pvalue > 1e-3
    assert stats.chisquare(name.bincount(minlength=16)).pvalue > 1e-3


def test_depth_zero_follows_the_exact_distribution():
    """Two chains with two names and two values: 2 orders of names x 2 of values x 2 of queries, all alike."""
    task = VariableAssignment(chains=2, depths=(0,), names=2, values=2)
    counts = collections.Counter(map(tuple, task.sample(8000, generator(2)).inputs.tolist()))
    assert len(counts) == 8
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_facts_are_one_table_for_ever():
    task = ClosedBookFacts()
    batch = task.sample(5000, generator(3))
    values = collections.defaultdict(set)
    for (first, second), (_, value), weights in rows_of(task, batch):
        values[first, second].add(value)
        assert weights == [0, 1]
    assert len(values) == 256
    assert all(len(found) == 1 for found in values.values())
    assert stats.chisquare(batch.fact.bincount(minlength=256)).pvalue > 1e-3
    assert values["k3", "l5"] == {str(int(task.facts[3 * 16 + 5]))}
    assert stats.chisquare(task.facts.bincount(minlength=8)).pvalue > 1e-3
    assert torch.equal(task.facts, ClosedBookFacts().facts)
    assert (task.facts != ClosedBookFacts(table=1).facts).float().mean() > 0.75


def test_copies_are_found_by_search():
    task = InductionCopying()
    batch = task.sample(500, generator(4))
    for row, start, copied in zip(rows_of(task, batch), batch.start.tolist(), batch.copied.tolist()):
        tokens, targets, weights = row
        words = [word for word in tokens if word != "."]
        string, part = words[:10], words[10:]
        assert len(set(string)) == 10
        places = [i for i in range(10) if string[i : i + len(part)] == part]
        assert places == [start]
        assert len(part) == copied - 1
        assert [(i, target) for i, (target, w) in enumerate(zip(targets, weights)) if w] == [
            (len(words) - 1, string[start + len(part)])
        ]
        assert targets[: len(words) - 1] == words[1:]


def test_parts_are_uniform():
    task = InductionCopying(symbols=6, string=5, shortest=2, longest=4)
    batch = task.sample(12_000, generator(5))
    assert stats.chisquare(batch.copied.bincount()[2:]).pvalue > 1e-3
    for copied in (2, 3, 4):
        starts = batch.start[batch.copied == copied].bincount(minlength=6 - copied)
        assert len(starts) == 6 - copied
        assert stats.chisquare(starts).pvalue > 1e-3


def test_mixture_holds_its_shares_and_solvable_rows():
    task = ReasoningMixture()
    batch = task.sample(90, generator(6))
    assert batch.source.bincount().tolist() == [50, 20, 10, 10]
    assert (batch.source.diff() >= 0).all()
    facts, filler = ClosedBookFacts().facts, EasyHardMarkov(symbols=64, length=16)
    for row, source, depth in zip(rows_of(task, batch), batch.source.tolist(), batch.depth.tolist()):
        tokens, targets, weights = row
        assert (depth >= 0) == (source == 0)
        if source == 0:
            check_assignment(*row, depth, 4)
        elif source == 1:
            value = facts[int(tokens[0][1:]) * 16 + int(tokens[1][1:])]
            assert (targets[1], weights) == (str(int(value)), [0, 1] + 14 * [0])
        elif source == 2:
            (place,) = (i for i, weight in enumerate(weights) if weight)
            assert targets[place] == tokens[tokens.index(tokens[place]) + 1]
        else:
            assert targets[:-1] == tokens[1:]
            assert weights == [0] + 15 * [1]
            symbols = [int(token[1:]) for token in (*tokens, targets[-1])]
            laws = [filler.chain.laws[64 * a + b, c] for a, b, c in zip(symbols, symbols[1:], symbols[2:])]
            assert min(laws) > 0


def test_mixture_takes_turns_as_streams_expect():
    """A chunk of steps has the exact shares in every step when its samples are dealt out in turn."""
    task = ReasoningMixture(shares=(2.0, 1.0, 0.0, 1.0))
    dealt = task.sample(8 * 5, generator(7)).source.unflatten(0, (8, 5))
    assert all(dealt[:, step].tolist() == [0, 0, 0, 0, 1, 1, 3, 3] for step in range(5))


@pytest.mark.parametrize("size", [1, 2, 7])
def test_mixture_fills_any_batch(size):
    assert len(ReasoningMixture().sample(size, generator(0)).inputs) == size


@pytest.mark.parametrize("task", [VariableAssignment(), ClosedBookFacts(), InductionCopying(), ReasoningMixture()])
def test_batch_is_what_the_task_declares(task):
    batch = task.sample(9, generator(0))
    assert batch._fields == tuple(task.fields)
    assert all(len(field) == 9 for field in batch)
    assert batch.inputs.shape == batch.targets.shape == batch.weights.shape == (9, *task.input_shape)
    assert task.output_shape == (*task.input_shape, len(task.tokens))
    assert len(set(task.tokens)) == len(task.tokens)
    assert max(batch.inputs.max(), batch.targets.max()) < len(task.tokens)
    assert all(torch.equal(a, b) for a, b in zip(batch, task.sample(9, generator(0))))


def test_symbol_pairs_tell_halves_of_lines():
    tokens = ("a=1", "a=b", "b=a", "b=1", "1", ".")
    pairs = symbol_pairs(tokens).tolist()
    assert pairs[0][0] == pairs[1][0] != pairs[2][0] == pairs[3][0]
    assert pairs[0][1] == pairs[3][1] != pairs[1][1]
    assert pairs[4][1] == pairs[5][1] == 0
    assert len(set(map(tuple, symbol_pairs(ReasoningMixture().tokens).tolist()))) == len(ReasoningMixture().tokens)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VariableAssignment(depths=(0, 4)), r"depths=\(0, 4\) is not legal.*20 names, more than names=16"),
        (lambda: VariableAssignment(values=3), "chains=4 is not legal.*values=3"),
        (lambda: ClosedBookFacts(keys=0), "keys=0 is not legal.*from 1 to 1000"),
        (lambda: InductionCopying(longest=11), "longest=11 is not legal.*string=10"),
        (lambda: InductionCopying(shortest=7), "longest=6 is not legal.*shortest=7"),
        (lambda: ReasoningMixture(shares=(1.0, 1.0)), r"shares=\(1.0, 1.0\) is not legal.*4 values"),
        (lambda: ReasoningMixture(names=3), "is not legal.*names=3"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
