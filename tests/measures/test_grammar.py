import itertools
from functools import cache

import pytest
import torch
from torch import nn

from mesocosm.measures import (
    masked_posterior,
    next_token_posterior,
    ngram_closeness,
    ngram_dependence,
    string_log_probability,
)
from mesocosm.seeding import generator
from mesocosm.tasks import ProbabilisticGrammar
from mesocosm.training import Population

RULES = {
    "S": [(0.25, "XYX"), (0.75, "YX")],
    "X": [(0.5, "Zc"), (0.5, "Z")],
    "Z": [(0.8, "ab"), (0.2, "b")],
    "Y": [(0.5, "c"), (0.25, "Za"), (0.25, "abc")],
}
TEXTS = tuple(f"{left} -> " + " | ".join(f"{' '.join(r)} [{p}]" for p, r in rights) for left, rights in RULES.items())
MASKED = {"mask_rate": 0.3, "fates": (0.5, 0.2, 0.3), "form": "masked"}


@pytest.fixture
def task():
    return ProbabilisticGrammar(name="own", rules=TEXTS, **MASKED)


def derive(symbols):
    """Strings of a sequence of symbols with their probabilities, derivation by derivation."""
    if not symbols:
        return {"": 1.0}
    strings = {}
    rest = derive(symbols[1:])
    for p, right in RULES.get(symbols[0], []):
        for start, q in derive(right).items():
            for end, r in rest.items():
                strings[start + end] = strings.get(start + end, 0) + p * q * r
    return strings or {symbols[0] + end: r for end, r in rest.items()}


STRINGS = derive("S")


def rows(task, strings):
    """Tokens of strings in which a dot is a mask."""
    name = {".": "MASK"}
    token = {string: [task.token(name.get(s, s)) for s in string] for string in strings}
    length = max(map(len, strings))
    bos, pad = task.token("BOS"), task.token("PAD")
    return torch.tensor([[bos, *token[s], *[pad] * (length - len(s))] for s in strings])


def test_string_probabilities_equal_enumeration(task):
    assert sum(STRINGS.values()) == pytest.approx(1)
    strings = list(STRINGS)
    exact = torch.tensor(list(STRINGS.values()), dtype=torch.float64)
    torch.testing.assert_close(string_log_probability(task, rows(task, strings)).exp(), exact)
    others = [s for n in (1, 4) for s in map("".join, itertools.product("abc", repeat=n)) if s not in STRINGS]
    assert (string_log_probability(task, rows(task, others)) == -torch.inf).all()


def chart_probability(task, string):
    """Probability of a string by the recursion over symbols, spans and split points."""
    grammar = task.grammar

    @cache
    def of_symbol(symbol, begin, end):
        if symbol < task.n_terminals:
            return float(end == begin + 1 and string[begin] == symbol)
        shortest, longest = grammar.lengths[symbol]
        if not shortest <= end - begin <= longest:
            return 0.0
        return sum(p * of_sequence(right, begin, end) for p, right in grammar.rules[symbol])

    @cache
    def of_sequence(symbols, begin, end):
        if len(symbols) == 1:
            return of_symbol(symbols[0], begin, end)
        return sum(
            of_symbol(symbols[0], begin, split) * of_sequence(symbols[1:], split, end)
            for split in range(begin + 1, end)
        )

    return sum(of_symbol(start, 0, len(string)) for start in task.starts) / len(task.starts)


def test_probabilities_of_cfg3b_equal_the_chart_recursion():
    task = ProbabilisticGrammar(name="cfg3b-two-rules", levels=4)
    batch = task.sample(4, generator(0))
    strings = [tuple(row[1 : 1 + n]) for row, n in zip(batch.inputs.tolist(), batch.length.tolist())]
    expected = torch.tensor([chart_probability(task, s) for s in strings], dtype=torch.float64)
    assert (expected > 0).all()
    torch.testing.assert_close(string_log_probability(task, batch.inputs), expected.log())


def test_next_token_posterior_equals_enumeration(task):
    strings = list(STRINGS)[::3]
    posterior = next_token_posterior(task, rows(task, strings))
    torch.testing.assert_close(posterior.sum(-1), torch.ones(posterior.shape[:2], dtype=torch.float64))
    for b, string in enumerate(strings):
        for t in range(len(string) + 1):
            ways = {"EOS": STRINGS.get(string[:t], 0)}
            ways |= {a: sum(p for s, p in STRINGS.items() if s.startswith(string[:t] + a)) for a in "abc"}
            for name, p in ways.items():
                assert posterior[b, t, task.token(name)].item() == pytest.approx(p / sum(ways.values()))
        assert (posterior[b, len(string) + 1 :, task.token("PAD")] == 1).all()


def test_next_token_posteriors_multiply_to_the_string():
    task = ProbabilisticGrammar(levels=4)
    batch = task.sample(5, generator(0))
    posterior = next_token_posterior(task, batch.inputs)
    chosen = posterior.gather(-1, batch.targets[..., None])[..., 0].log().sum(1)
    torch.testing.assert_close(chosen, string_log_probability(task, batch.inputs))


def test_masked_posterior_equals_enumeration(task):
    shown = ["ab.b", "....", "c..", "abcb", "a.cab.", ".b.", "ab.....c"]
    posterior = masked_posterior(task, rows(task, shown))
    for b, string in enumerate(shown):
        for i in range(len(string)):
            others = [(j, a) for j, a in enumerate(string) if a != "." and j != i]
            fitting = {s: p for s, p in STRINGS.items() if len(s) == len(string) and all(s[j] == a for j, a in others)}
            ways = [sum(p for s, p in fitting.items() if s[i] == a) for a in "abc"]
            got = posterior[b, 1 + i]
            if sum(ways):
                expected = torch.tensor([*ways, 0, 0, 0, 0], dtype=torch.float64) / sum(ways)
                torch.testing.assert_close(got, expected)
            else:
                assert got[:3].isnan().all()
        assert posterior[b, 0, task.token("BOS")] == 1
        assert (posterior[b, 1 + len(string) :, task.token("PAD")] == 1).all()


def test_posterior_of_corrupted_tokens_equals_enumeration(task):
    """By Bayes' rule over all strings and all that may have happened to each of their tokens."""

    def channel(shown, true, chosen):
        masked, kept, random = task.fates
        fate = masked if shown == "." else kept * (shown == true) + random / 3
        return fate if chosen else task.mask_rate * fate + (1 - task.mask_rate) * (shown == true)

    shown = ["ab.b", "cccc", "c..", "abcb", "a.cab."]  # cccc is no string of the grammar
    posterior = masked_posterior(task, rows(task, shown), corrupted=True)
    for b, string in enumerate(shown):
        for i in range(len(string)):
            ways = dict.fromkeys("abc", 0.0)
            for true, p in STRINGS.items():
                if len(true) == len(string):
                    for j, (x, y) in enumerate(zip(string, true)):
                        p *= channel(x, y, chosen=i == j)
                    ways[true[i]] += p
            expected = torch.tensor(list(ways.values()), dtype=torch.float64) / sum(ways.values())
            torch.testing.assert_close(posterior[b, 1 + i, :3], expected)


def test_the_posterior_of_corrupted_tokens_is_calibrated(task):
    batch = task.sample(4000, generator(0))
    chosen = batch.weights == 1
    posterior, true = masked_posterior(task, batch.inputs, corrupted=True)[chosen], batch.targets[chosen]
    right = posterior.argmax(-1) == true
    assert right.double().mean().item() == pytest.approx(posterior.amax(-1).mean().item(), abs=0.03)
    loss = -posterior.gather(1, true[:, None]).log().mean()
    plain = -task.terminal_frequencies()[true].log().mean()
    assert loss < plain - 0.05


def test_many_rows_are_worked_off_in_parts(monkeypatch, task):
    tokens = task.sample(40, generator(0)).targets
    whole = [measure(task, tokens) for measure in (string_log_probability, masked_posterior, next_token_posterior)]
    monkeypatch.setattr("mesocosm.measures.grammar.CHUNK", 300)
    parts = [measure(task, tokens) for measure in (string_log_probability, masked_posterior, next_token_posterior)]
    assert all(torch.equal(a, b) for a, b in zip(whole, parts))


@pytest.mark.parametrize("measure", [string_log_probability, next_token_posterior])
def test_only_whole_strings_are_legal(measure, task):
    for bad in ([[3, 0, 6]], [[3, 0, 5, 1]], [[0, 1, 2]], [[3, 0, 4]]):  # a mask, a gap, no BOS, an EOS
        with pytest.raises(ValueError, match="tokens are not legal: each row must be BOS, terminals"):
            measure(task, torch.tensor(bad))


def test_shuffled_strings_have_no_probabilities():
    task = ProbabilisticGrammar(levels=1, shuffled=True)
    with pytest.raises(ValueError, match="shuffled=True is not legal here"):
        string_log_probability(task, task.sample(2, generator(0)).inputs)


TOKENS = torch.randint(4, (6, 12), generator=generator(5))
EVERYWHERE = torch.ones(6, 12, dtype=torch.bool)
MASK = 4


def neighbours(reach):
    """Probabilities from a hash of the tokens up to `reach` places to either side."""
    values = torch.rand(997, 5, generator=generator(6), dtype=torch.float64).softmax(-1)

    def predict(tokens):
        padded = nn.functional.pad(tokens, (reach, reach), value=7)
        windows = padded.unfold(1, 2 * reach + 1, 1)
        return values[(windows * 11 ** torch.arange(2 * reach + 1)).sum(-1) % 997]

    return predict


@pytest.mark.parametrize("position", [0, 5, 11])
def test_a_trigram_predictor_depends_on_its_trigram_alone(position):
    where = torch.full((6,), position)
    measure = lambda of, n: of(neighbours(1), TOKENS, where, n, EVERYWHERE, MASK)
    for n in (3, 4, 5, 7, 30):
        assert (measure(ngram_closeness, n) == 0).all()
        assert (measure(ngram_dependence, n) > 0).all()
    assert (measure(ngram_dependence, 1) == 0).all()
    assert (measure(ngram_closeness, 1) > 0).all()
    bigram = measure(ngram_dependence, 2)  # masks the left neighbour only
    assert (bigram > 0).all() if position else (bigram == 0).all()


def test_distances_by_hand():
    """A model that says "b" with the share of masks in the sentence."""
    predict = lambda tokens: (
        torch.stack([1 - (s := (tokens == MASK).double()), s], -1).mean(1, keepdim=True).expand(-1, 12, -1)
    )
    where = torch.tensor([0, 1, 2, 6, 10, 11])
    left, right = where.clamp(max=2), (11 - where).clamp(max=2)
    dependence = ngram_dependence(predict, TOKENS, where, 5, EVERYWHERE, MASK)
    torch.testing.assert_close(dependence, (left + right) / 12.0, check_dtype=False)
    closeness = ngram_closeness(predict, TOKENS, where, 5, EVERYWHERE, MASK)
    torch.testing.assert_close(closeness, (11 - left - right) / 12.0, check_dtype=False)
    maskable = EVERYWHERE & (torch.arange(12) < 8)
    closeness = ngram_closeness(predict, TOKENS[:3], where[:3], 5, maskable[:3], MASK)
    torch.testing.assert_close(closeness, (7 - left - right)[:3] / 12.0, check_dtype=False)


def test_exact_predictors_can_be_measured(task):
    tokens, where = rows(task, ["cab", "cbc"]), torch.tensor([2, 2])
    predict = lambda tokens: masked_posterior(task, tokens)
    maskable = tokens < task.n_terminals
    mask = task.token("MASK")
    dependence = ngram_dependence(predict, tokens, where, 3, maskable, mask)
    for b, string in enumerate(["cab", "cbc"]):
        of = lambda shown: masked_posterior(task, rows(task, [shown]))[0, 2]
        expected = (of(f"{string[0]}.{string[2]}") - of("...")).abs().sum() / 2
        torch.testing.assert_close(dependence[b], expected)
    assert (ngram_closeness(predict, tokens, where, 3, maskable, mask) == 0).all()


def test_populations_are_measured_at_once():
    make = lambda: nn.Sequential(nn.Embedding(5, 3), nn.Flatten(1), nn.Linear(36, 60), nn.Unflatten(1, (12, 5)))
    population = Population(make, seeds=range(3))
    where = torch.full((6,), 4)
    measure = lambda model: ngram_dependence(lambda x: model(x).softmax(-1), TOKENS, where, 3, EVERYWHERE, MASK)
    together = population.map(measure)
    assert together.shape == (3, 6) and (together > 0).all()


def test_illegal_n_is_named():
    with pytest.raises(ValueError, match="n=0 is not legal: it must be at least 1"):
        ngram_closeness(neighbours(1), TOKENS, torch.zeros(6, dtype=torch.int64), 0, EVERYWHERE, MASK)
