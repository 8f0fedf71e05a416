import itertools
from collections import Counter

import pytest
import torch
from scipy import stats

from mesocosm.cli import main
from mesocosm.seeding import generator
from mesocosm.tasks import ProbabilisticGrammar

SMALL = ("S -> X Y X [1] | Y X [3]", "X -> Z c | Z", "Z -> a b [2] | b [0.5]", "Y -> c | Z a | a b c")
"""Ambiguous, with rules of 1 to 3 symbols and terminals at several depths."""


CFG3B = """
    22->21 20 | 20 19; 19->16 17 18 | 17 18 16; 20->17 16 18 | 16 17; 21->18 16 | 16 18 17; 16->15 13 | 13 15 14;
    17->14 13 15 | 15 13 14; 18->15 14 13 | 14 13; 13->11 12 | 12 11; 14->11 10 12 | 10 11 12;
    15->12 11 10 | 11 12 10; 10->7 9 8 | 9 8 7; 11->8 7 9 | 7 8 9; 12->8 9 7 | 9 7 8; 7->3 1 | 1 2 3;
    8->3 2 | 3 1 2; 9->3 2 1
"""
"""The published rules, in which 1, 2 and 3 are a, b and c."""


def derivations(rules, symbol):
    """Each string of a symbol with its probability, straight from the texts of the rules."""
    sides = {}
    for text in rules:
        left, rights = text.split(" -> ")
        sides[left] = [
            (float(r[r.index("[") + 1 : -1]) if "[" in r else 1.0, r.split("[")[0].split()) for r in rights.split(" | ")
        ]
    if symbol not in sides:
        return {(symbol,): 1.0}
    strings = Counter()
    for weight, right in sides[symbol]:
        for parts in itertools.product(*(derivations(rules, s).items() for s in right)):
            p = weight / sum(w for w, _ in sides[symbol])
            for _, q in parts:
                p *= q
            strings[sum((string for string, _ in parts), ())] += p
    return dict(strings)


def strings_of(task, tokens, length):
    return [tuple(task.tokens[t] for t in row[1 : 1 + n]) for row, n in zip(tokens.tolist(), length.tolist())]


def nodes(task, ancestors, ends, length, level):
    """Symbols at a level of one string, with how many terminals each derives."""
    found, begun = [], 1
    for t in range(1, length + 1):
        if level == task.depth or ends[t][level]:
            assert level == task.depth or len({ancestors[u][level] for u in range(begun, t + 1)}) == 1
            found.append((begun, t + 1))
            begun = t + 1
    assert begun == length + 1
    return found


def derivation(task, batch, row):
    """(symbol, right side) of each rule that the hidden state of one string tells of."""
    ancestors, ends = batch.ancestors[row].tolist(), batch.ends[row].tolist()
    length = int(batch.length[row])
    terminals = batch.targets if task.form == "masked" else batch.inputs
    name = lambda t, level: terminals[row, t].item() if level == task.depth else ancestors[t][level]
    rules = []
    for level in range(task.depth):
        below = nodes(task, ancestors, ends, length, level + 1)
        for begin, end in nodes(task, ancestors, ends, length, level):
            right = [name(b, level + 1) for b, e in below if begin <= b and e <= end]
            rules.append((name(begin, level), tuple(right)))
    return [(task.symbols[left], tuple(task.symbols[s] for s in right)) for left, right in rules]


def test_strings_follow_the_exact_distribution():
    exact = derivations(SMALL, "S")
    assert sum(exact.values()) == pytest.approx(1)
    task = ProbabilisticGrammar(name="own", rules=SMALL)
    assert task.tokens == ("a", "b", "c", "BOS", "EOS", "PAD", "MASK")
    assert task.lengths == (min(map(len, exact)), max(map(len, exact)))
    batch = task.sample(60_000, generator(0))
    seen = Counter(strings_of(task, batch.inputs, batch.length))
    assert set(seen) <= set(exact)
    likely = [string for string, p in exact.items() if p * 60_000 > 5]
    counts, expected = [seen[s] for s in likely], [60_000 * exact[s] for s in likely]
    rest = 60_000 - sum(expected)
    if rest > 1:
        counts, expected = [*counts, 60_000 - sum(counts)], [*expected, rest]
    expected = [e * sum(counts) / sum(expected) for e in expected]
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_terminal_frequencies_are_exact():
    exact = derivations(SMALL, "S")
    task = ProbabilisticGrammar(name="own", rules=SMALL)
    counts = [sum(p * string.count(a) for string, p in exact.items()) for a in "abc"]
    expected = torch.tensor(counts).double() / sum(counts)
    torch.testing.assert_close(task.terminal_frequencies(), expected, atol=1e-6, rtol=0)
    assert task.chance == pytest.approx(max(counts) / sum(counts))


@pytest.mark.parametrize("form", ["next", "masked"])
def test_hidden_state_is_a_derivation(form):
    task = ProbabilisticGrammar(form=form)
    batch = task.sample(12, generator(0))
    used = Counter(rule for row in range(12) for rule in derivation(task, batch, row))
    named = lambda side: tuple({"1": "a", "2": "b", "3": "c"}.get(symbol, symbol) for symbol in side.split())
    published = [rule.split("->") for rule in CFG3B.strip().split(";")]
    assert set(used) == {(left.strip(), named(right)) for left, rights in published for right in rights.split("|")}
    assert all(task.symbols[root] == "22" for root in batch.ancestors[:, 1, 0])


def test_rules_of_a_symbol_are_drawn_independently_with_their_probabilities():
    task = ProbabilisticGrammar(name="own", rules=("S -> A A", "A -> a [1] | b [2] | c [5] | d d [0.5]"))
    batch = task.sample(20_000, generator(1))
    used = [derivation(task, batch, row) for row in range(20_000)]
    pairs = Counter((rules[1][1], rules[2][1]) for rules in used)
    weights = {("a",): 1, ("b",): 2, ("c",): 5, ("d", "d"): 0.5}
    expected = {(x, y): 20_000 * weights[x] * weights[y] / 8.5**2 for x in weights for y in weights}
    assert stats.chisquare([pairs[pair] for pair in expected], list(expected.values())).pvalue > 1e-3


def test_derivations_of_uneven_depth():
    task = ProbabilisticGrammar(name="own", rules=SMALL)
    assert task.depth == 3
    sides = {tuple(right) for right in [("X", "Y", "X"), ("Y", "X"), ("Z", "c"), ("Z",), ("a", "b"), ("b",)]}
    sides |= {("c",), ("Z", "a"), ("a", "b", "c"), ("a",)}  # a terminal repeats itself below
    batch = task.sample(200, generator(0))
    assert {right for row in range(200) for _, right in derivation(task, batch, row)} == sides


@pytest.mark.parametrize(
    ("levels", "starts", "lengths"),
    [(6, {"22"}, (161, 432)), (4, {"16", "17", "18"}, (35, 72)), (1, {"7", "8", "9"}, (2, 3))],
)
def test_levels_cut_off_the_upper_ones(levels, starts, lengths):
    task = ProbabilisticGrammar(levels=levels)
    batch = task.sample(3000, generator(0))
    assert task.depth == levels and batch.ancestors.shape[2] == levels
    roots = Counter(task.symbols[root] for root in batch.ancestors[:, 1, 0])
    assert set(roots) == starts
    assert len(starts) == 1 or stats.chisquare(list(roots.values())).pvalue > 1e-3
    assert task.lengths == lengths
    assert batch.length.min() >= lengths[0] and batch.length.max() <= lengths[1]
    if levels == 1:
        strings = set(strings_of(task, batch.inputs, batch.length))
        assert strings == set(map(tuple, ("ca", "abc", "cb", "cab", "cba")))


def test_nine_has_a_second_rule_where_asked():
    task = ProbabilisticGrammar(name="cfg3b-two-rules", levels=1)
    batch = task.sample(2000, generator(0))
    nine = batch.ancestors[:, 1, 0] == task.symbols.index("9")
    counts = Counter(strings_of(task, batch.inputs[nine], batch.length[nine]))
    assert set(counts) == {("c", "b", "a"), ("b", "a")}
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_next_token_rows():
    task = ProbabilisticGrammar(levels=2)
    batch = task.sample(50, generator(0))
    bos, eos, pad = (task.token(name) for name in ("BOS", "EOS", "PAD"))
    for inputs, targets, weights, length in zip(*(f.tolist() for f in batch[:4])):
        string = inputs[1 : 1 + length]
        after = [pad] * (len(inputs) - 1 - length)
        assert inputs == [bos, *string, *after]
        assert targets == [*string, eos, *after]
        assert weights == [1.0] * (length + 1) + [0.0] * len(after)
        assert max(string) < 3
    outside = batch.inputs >= 3
    assert (batch.ancestors[outside] == -1).all() and not batch.ends[outside].any()
    assert (batch.ancestors[~outside] >= 3).all()


def test_masked_rows():
    task = ProbabilisticGrammar(levels=3, form="masked", mask_rate=0.4, fates=(6, 1, 3))
    batch = task.sample(2000, generator(0))
    whole = ProbabilisticGrammar(levels=3).sample(2000, generator(0))
    assert torch.equal(batch.targets, whole.inputs)
    assert torch.equal(batch.ancestors, whole.ancestors)
    terminals, chosen = batch.targets < 3, batch.weights == 1
    assert set(batch.weights.unique().tolist()) == {0, 1}
    assert not chosen[~terminals].any()
    assert torch.equal(batch.inputs[~chosen], batch.targets[~chosen])
    shown, true = batch.inputs[chosen], batch.targets[chosen]
    assert stats.binomtest(len(shown), int(terminals.sum()), 0.4).pvalue > 1e-3
    counts = [(shown == task.token("MASK")).sum(), (shown == true).sum(), ((shown != true) & (shown < 3)).sum()]
    assert stats.chisquare(counts, [len(shown) * share for share in (0.6, 0.2, 0.2)]).pvalue > 1e-3


def test_shuffled_strings_keep_their_terminals_and_lose_their_order():
    plain, shuffled = (ProbabilisticGrammar(levels=3, shuffled=s).sample(3000, generator(0)) for s in (False, True))
    assert torch.equal(plain.length, shuffled.length)
    assert torch.equal(plain.inputs.sort(1).values, shuffled.inputs.sort(1).values)
    counts = [torch.zeros(3, 3).index_put((b.inputs[:, 5], b.inputs[:, 6]), torch.tensor(1.0), accumulate=True)
              for b in (plain, shuffled)]  # fmt: skip
    assert stats.chi2_contingency(counts[0]).pvalue < 1e-9
    assert stats.chi2_contingency(counts[1]).pvalue > 1e-3


def test_batch_is_what_the_task_declares():
    for form in ("next", "masked"):
        task = ProbabilisticGrammar(form=form)
        batch = task.sample(7, generator(3))
        assert batch._fields == tuple(task.fields)
        assert batch.inputs.shape == batch.targets.shape == batch.weights.shape == (7, *task.input_shape)
        assert batch.ancestors.shape == batch.ends.shape == (7, *task.input_shape, 6)
        assert task.output_shape == (*task.input_shape, len(task.tokens))
        assert all(torch.equal(a, b) for a, b in zip(batch, task.sample(7, generator(3))))
        assert not torch.equal(batch.inputs, task.sample(7, generator(4)).inputs)
    assert task.sample(0, generator(0)).inputs.shape == (0, *task.input_shape)


def test_samples_from_the_command_line(tmp_path):
    path = tmp_path / "own.jsonl"
    flags = ["--name", "own", "--rules", "S -> A A", "A -> a b | b [0.2]", "--form", "masked"]
    assert main(["sample", "probabilistic-grammar", *flags, "--count", "3", "--to", str(path), "--text"]) == 0
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "own"}, "rules=None is not legal: they are for --name own, which needs them"),
        ({"rules": ("S -> a",)}, r"rules=\('S -> a',\) is not legal: they are for --name own"),
        ({"name": "own", "rules": ("S = a",)}, "rules hold 'S = a', which is not legal"),
        ({"name": "own", "rules": ("S T -> a",)}, "rules hold 'S T -> a', which is not legal"),
        ({"name": "own", "rules": ("S -> a |",)}, "rules hold .*'' must be symbols"),
        ({"name": "own", "rules": ("S -> a [0]",)}, r"rules hold .*'a \[0\]' must be symbols"),
        ({"name": "own", "rules": ("S -> a [x]",)}, r"rules hold .*'a \[x\]' must be symbols"),
        ({"name": "own", "rules": ("S -> a T", "T -> b S")}, "S must not derive itself"),
        ({"name": "own", "rules": ("S -> a T | b", "T -> T a | b")}, "must not derive itself"),
        ({"name": "own", "rules": ("S -> a PAD",)}, "PAD must not be a symbol"),
        (
            {"name": "own", "rules": tuple(f"{i} -> {' '.join([str(i + 1)] * 100)}" for i in range(3))},
            "1000000 symbols",
        ),
        ({"levels": 7}, "levels=7 is not legal: it must be from 1 to 6"),
        ({"fates": (1.0, 0.0)}, r"fates=\(1.0, 0.0\) is not legal: it must hold 3 shares"),
        ({"fates": (0.0, 0.0, 0.0)}, "fates=.* positive sum"),
        ({"mask_rate": 1.5}, "mask_rate=1.5 is not legal"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ProbabilisticGrammar(**settings)
