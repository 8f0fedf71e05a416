import itertools

import pytest
import torch
from scipy import stats

from mesocosm.seeding import generator
from mesocosm.tasks import FactRecall
from mesocosm.tasks.fact_recall import _different


def statements(task, row):
    """The statements of a row `[T + 1]` as four words each."""
    words = [task.tokens[token] for token in row]
    return [tuple(words[i : i + 4]) for i in range(0, len(words), 4)]


@pytest.mark.parametrize("settings", [{}, {"facts": 6, "names": 2, "relations": 3, "objects": 2, "statements": 5}])
def test_rows_tell_facts_or_override_them(settings):
    task = FactRecall(**settings)
    table = {tuple(words[:3]): words[3] for (words,) in (statements(task, row) for row in task.known.tolist())}
    assert len(table) == task.facts
    batch = task.sample(401, generator(0))
    assert batch.inputs.shape[1:] == task.input_shape
    assert int(batch.in_context.sum()) == 200
    rows = torch.cat((batch.inputs, batch.targets[:, -1:]), dim=1)
    assert torch.equal(batch.targets, rows[:, 1:])
    for row, weights, in_context, stored in zip(rows.tolist(), batch.weights, batch.in_context, batch.stored):
        *earlier, last = statements(task, row)
        asked = last[:3]
        assert len({statement[:3] for statement in earlier}) == task.statements
        if in_context:
            assert last in earlier
            assert weights.nonzero()[:, 0].tolist() == [4 * task.statements + 2]
        else:
            assert asked not in {statement[:3] for statement in earlier}
            assert all(table[statement[:3]] == statement[3] for statement in (*earlier, last))
            assert weights.nonzero()[:, 0].tolist() == [4 * i + 2 for i in range(task.statements + 1)]
        assert weights.sum() == pytest.approx(1)
        assert task.tokens[stored] == table[asked]


def test_contexts_say_nothing_of_the_facts():
    """Said objects are uniform, and agree with the stored ones as often as by chance."""
    task = FactRecall(facts=50, names=5, relations=2, objects=8)
    batch = task.sample(16_000, generator(1))
    said = batch.targets[batch.in_context, -1] - (len(task.tokens) - 8)
    assert stats.chisquare(said.bincount(minlength=8)).pvalue > 1e-3
    agree = int((batch.targets[batch.in_context, -1] == batch.stored[batch.in_context]).sum())
    assert stats.binomtest(agree, 8000, 1 / 8).pvalue > 1e-3
    assert torch.equal(batch.targets[~batch.in_context, -1], batch.stored[~batch.in_context])


def test_more_facts_hold_the_fewer():
    few, many = FactRecall(facts=10), FactRecall(facts=4096)
    assert torch.equal(few.known, many.known[:10])
    assert len(many.known[:, :3].unique(dim=0)) == 4096
    assert not torch.equal(many.known, FactRecall(facts=4096, table=1).known)


def test_different_integers_are_uniform_over_ordered_choices():
    rows = _different(3, 4, 24_000, generator(2))
    choices = list(itertools.permutations(range(4), 3))
    counts = [int((rows == torch.tensor(choice)).all(1).sum()) for choice in choices]
    assert sum(counts) == 24_000
    assert stats.chisquare(counts).pvalue > 1e-3


def test_facts_must_fit_in_their_pairs():
    with pytest.raises(ValueError, match=r"facts=4097 is not legal: .* at most 4096"):
        FactRecall(facts=4097)
    with pytest.raises(ValueError, match="facts=2 is not legal: it must be above statements=2"):
        FactRecall(facts=2)
