import itertools
from collections import Counter

import pytest
import torch
from scipy import stats

from mesocosm.seeding import generator
from mesocosm.tasks import BoundedDyck, DyckInsertions


def prefixes(length, n_types, max_depth):
    """Every string that a word begins with, as (type, opens) pairs with its stacks, by trying all brackets."""
    for word in itertools.product(itertools.product(range(n_types), (True, False)), repeat=length):
        stack, stacks = [], []
        for kind, opens in word:
            if opens:
                stack = [*stack, kind]
            elif stack and stack[-1] == kind:
                stack = stack[:-1]
            else:
                break
            stacks.append(stack)
        if len(stacks) == length and all(len(stack) <= max_depth for stack in stacks):
            yield word, stacks


def probability(stacks, task):
    """Of a prefix under the process, straight from its definition."""
    product, before = 1.0, 0
    for stack in stacks:
        opened = len(stack) > before
        chance = 1.0 if before == 0 else 0.0 if before == task.max_depth else task.p_open
        product *= chance / task.n_types if opened else 1 - chance
        before = len(stack)
    return product


def tokens_of(word, stacks, task):
    depths = [len(stack) for stack in stacks]
    levels = [depth if opens else depth + 1 for (_, opens), depth in zip(word, depths)]
    return tuple(
        (kind + (0 if opens else task.n_types)) * task.max_depth + level - 1
        for (kind, opens), level in zip(word, levels)
    )


def chi_square(task, exact, count=40_000):
    drawn, counts = task.sample(count, generator(0)).inputs.unique(dim=0, return_counts=True)
    observed = dict(zip(map(tuple, drawn.tolist()), counts.tolist()))
    assert set(observed) <= set(exact)
    return stats.chisquare([observed.get(word, 0) for word in exact], [count * p for p in exact.values()]).pvalue


@pytest.mark.parametrize(("length", "n_types", "max_depth", "p_open"), [(5, 2, 3, 0.5), (6, 2, 2, 0.3), (6, 1, 3, 0.8)])
def test_prefixes_follow_the_exact_distribution(length, n_types, max_depth, p_open):
    task = BoundedDyck(length=length, n_types=n_types, max_depth=max_depth, p_open=p_open)
    found = list(prefixes(length, n_types, max_depth))
    exact = {tokens_of(*word, task): probability(word[1], task) for word in found}
    assert sum(exact.values()) == pytest.approx(1)
    assert chi_square(task, exact) > 1e-3


@pytest.mark.parametrize(("length", "n_types", "max_depth"), [(6, 2, 3), (6, 2, 2), (8, 1, 3), (4, 3, 4)])
def test_complete_words_are_counted_and_uniform(length, n_types, max_depth):
    task = BoundedDyck(length=length, n_types=n_types, max_depth=max_depth, balanced=True, p_open=0.9)
    words = [(word, stacks) for word, stacks in prefixes(length, n_types, max_depth) if not stacks[-1]]
    assert task.count(length) == len(words)
    exact = {tokens_of(*word, task): 1 / len(words) for word in words}
    assert chi_square(task, exact) > 1e-3


def test_counts_are_catalan_numbers_where_the_depth_does_not_bind():
    task = BoundedDyck(n_types=3, max_depth=20)
    assert [task.count(2 * n) for n in range(6)] == [catalan * 3**n for n, catalan in enumerate((1, 1, 2, 5, 14, 42))]
    assert BoundedDyck(n_types=2, max_depth=1).count(200) == 2**100
    assert task.count(7) == 0


@pytest.mark.parametrize("balanced", [False, True])
def test_hidden_state_equals_that_of_a_stack(balanced):
    task = BoundedDyck(length=40, n_types=3, max_depth=4, balanced=balanced)
    batch = task.sample(50, generator(1))
    for row in range(50):
        stack = []
        for t, token in enumerate(batch.inputs[row].tolist()):
            bracket, level = token // task.max_depth, token % task.max_depth + 1
            opens = bracket < task.n_types
            match = -1 if opens else stack[-1]
            if opens:
                stack.append(t)
            else:
                assert batch.inputs[row, stack.pop()] == token - task.n_types * task.max_depth
            expected = (len(stack), len(stack) + (not opens), match, stack[-1] if stack else -1)
            state = (batch.depth[row, t], batch.level[row, t], batch.match[row, t], batch.stack_top[row, t])
            assert tuple(map(int, state)) == expected
            assert level == expected[1]
            assert batch.weights[row, t] == bool(stack)
            top = batch.inputs[row, stack[-1]] // task.max_depth if stack else 0
            assert batch.targets[row, t] == top
    assert not balanced or (batch.depth[:, -1] == 0).all()


def test_tokens_without_levels_are_the_same_brackets():
    told, untold = (BoundedDyck(levels=levels).sample(20, generator(2)) for levels in (True, False))
    assert torch.equal(told.inputs // 4, untold.inputs)
    assert torch.equal(told.targets, untold.targets)


def test_a_string_is_parsed():
    for levels in (True, False):
        task = BoundedDyck(levels=levels)
        batch = task.parse("([][(")
        assert [task.tokens[i][0] for i in batch.inputs[0]] == list("([][(")
        assert batch.depth[0].tolist() == [1, 2, 1, 2, 3]
        assert batch.targets[0].tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("word", ["(]", ")", "(((((", "(a", "())"])
def test_what_no_word_begins_with_is_refused(word):
    with pytest.raises(ValueError, match="is not legal"):
        BoundedDyck().parse(word)


def test_pairs_match():
    task = BoundedDyck(n_types=3, max_depth=2)
    assert [[task.tokens[i] for i in pair] for pair in task.pairs[:3]] == [["(1", ")1"], ["(2", ")2"], ["[1", "]1"]]
    assert len(set(task.tokens)) == 12
    many = BoundedDyck(n_types=6, levels=False)
    assert [many.tokens[i] for i in many.pairs[5]] == ["(5:", ")5:"]
    assert len(set(many.tokens)) == 12


def test_batch_is_what_the_task_declares():
    for task in (BoundedDyck(length=10, n_types=5), DyckInsertions(length=10)):
        batch = task.sample(7, generator(0))
        assert batch._fields == tuple(task.fields)
        assert all(field.shape == (7, 10) for field in batch[:7])
        assert batch.inputs.max() < len(task.tokens)
        assert task.output_shape == (10, task.n_types)
    assert batch.longer.shape == (7, 26)


@pytest.mark.parametrize("levels", [True, False])
def test_an_inserted_word_is_complete_and_changes_no_answer(levels):
    task = DyckInsertions(length=12, n_types=2, max_depth=3, most_pairs=3, levels=levels)
    batch = task.sample(300, generator(3))
    names = [name[0] for name in task.tokens]
    inserted = Counter()
    for row in range(300):
        length = int(batch.moved[row, -1]) + 1
        longer = "".join(names[i] for i in batch.longer[row, :length])
        whole = task.parse(longer)
        assert torch.equal(whole.inputs[0], batch.longer[row, :length])
        assert torch.equal(whole.inputs[0, batch.moved[row]], batch.inputs[row])
        assert torch.equal(whole.targets[0, batch.moved[row]], batch.targets[row])
        inserted[length - 12] += 1
    assert set(inserted) == {2, 4, 6}
    assert min(inserted.values()) > 60


def test_inserted_words_are_uniform_among_those_that_fit():
    task = DyckInsertions(length=1, n_types=1, max_depth=3, most_pairs=3)
    batch = task.sample(20_000, generator(4))
    words = batch.longer[batch.moved[:, 0] == 6][:, :6]
    _, counts = words.unique(dim=0, return_counts=True)
    assert len(counts) == 5  # Catalan number of 3, none of which is deeper than 3
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_lone_bracket_opens_at_the_depth_it_finds():
    task = DyckInsertions(length=12, max_depth=3, inserted="lone bracket")
    batch = task.sample(200, generator(5))
    for row in range(200):
        kept = batch.moved[row].tolist()
        (new,) = {*range(13)} - {*kept}
        bracket, level = divmod(int(batch.longer[row, new]), 3)
        assert bracket < 2
        assert level == (batch.depth[row, new - 1] if new else 0)
    assert torch.equal(batch.longer.gather(1, batch.moved), batch.inputs)


def test_opening_probability_gives_the_share_of_opening_brackets():
    for balanced in (False, True):
        task = BoundedDyck(length=12, balanced=balanced)
        chance, at = task.opening_probability(), torch.zeros(5, dtype=torch.float64)
        at[0] = 1  # probability of each depth before position t
        opens = (task.sample(20_000, generator(6)).match < 0).double().mean(0)
        for t in range(12):
            up, down = at * chance[t], at * (1 - chance[t])
            assert opens[t].item() == pytest.approx(up.sum().item(), abs=0.015)
            at = up.roll(1) + down.roll(-1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "length=0 is not legal"),
        ({"length": 7, "balanced": True}, "length=7 is not legal: complete words have an even number"),
        ({"p_open": 1.5}, "p_open=1.5 is not legal"),
        ({"max_depth": 0}, "max_depth=0 is not legal"),
    ],
)
def test_bad_parameters_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        BoundedDyck(**settings)
