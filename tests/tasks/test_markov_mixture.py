import itertools
import math

import numpy
import pytest
import torch
from scipy import stats

from mesocosm.seeding import generator
from mesocosm.tasks import EasyHardMarkov
from mesocosm.tasks.markov_mixture import _stationary

TINY = EasyHardMarkov(symbols=3, length=6)


def enumerate_strings(task, length):
    """Probability of every string of `length` symbols, from the stationary law of its first two on."""
    chain = task.chain
    strings = {}
    for string in itertools.product(range(task.symbols), repeat=length):
        probability = chain.stationary[string[0] * task.symbols + string[1]].item()
        for a, b, c in zip(string, string[1:], string[2:]):
            probability *= chain.laws[a * task.symbols + b, c].item()
        strings[string] = probability
    return strings


def test_strings_follow_the_exact_distribution():
    task = EasyHardMarkov(symbols=3, length=3, easy=0.5)
    exact = enumerate_strings(task, 4)
    batch = task.sample(40_000, generator(0))
    strings = torch.cat((batch.inputs, batch.targets[:, -1:]), dim=1)
    found, counts = strings.unique(dim=0, return_counts=True)
    observed = dict(zip(map(tuple, found.tolist()), counts.tolist()))
    kept = [string for string, p in exact.items() if 40_000 * p >= 5]
    rest = 40_000 - sum(observed.get(s, 0) for s in kept)
    expected = [40_000 * exact[s] for s in kept]
    test = stats.chisquare([*(observed.get(s, 0) for s in kept), rest], [*expected, 40_000 - sum(expected)])
    assert test.pvalue > 1e-3


@pytest.mark.parametrize("settings", [{"symbols": 3}, {"symbols": 8}, {"symbols": 5, "easy": 0.05, "hard_share": 0.0}])
def test_frequencies_are_those_of_the_eigenvector(settings):
    chain = EasyHardMarkov(**settings).chain
    symbols = chain.laws.shape[1]
    moves = numpy.zeros((symbols**2, symbols**2))
    for a, b, c in itertools.product(range(symbols), repeat=3):
        moves[a * symbols + b, b * symbols + c] += chain.laws[a * symbols + b, c]
    values, vectors = numpy.linalg.eig(moves.T)
    vector = vectors[:, numpy.abs(values - 1).argmin()].real
    assert chain.stationary.numpy() == pytest.approx(vector / vector.sum(), abs=1e-9)


def test_entropy_rate_is_the_growth_of_the_entropy_of_strings():
    longer, shorter = (
        -sum(p * math.log(p) for p in enumerate_strings(TINY, length).values() if p > 0) for length in (6, 5)
    )
    assert TINY.entropy_rate == pytest.approx(longer - shorter, abs=1e-9)


@pytest.mark.parametrize("task", [EasyHardMarkov(), EasyHardMarkov(symbols=64, length=16)])
def test_true_laws_earn_the_entropy_rate(task):
    batch = task.sample(1000, generator(1))
    losses = -batch.probabilities.gather(2, batch.targets[..., None]).squeeze(2).double().log()
    surplus = (losses - batch.entropy).mean(1)  # Means of rows are independent and have mean 0.
    assert abs(surplus.mean() / surplus.std() * math.sqrt(1000)) < 3.3
    spread = batch.entropy.mean(1).double()
    assert abs(spread.mean() - task.entropy_rate) < 3.3 * spread.std() / math.sqrt(1000)


def test_hidden_state_is_that_of_the_context():
    batch, chain = TINY.sample(50, generator(2)), TINY.chain
    for row in range(50):
        for t in range(1, 6):
            context = int(3 * batch.inputs[row, t - 1] + batch.inputs[row, t])
            assert torch.equal(batch.probabilities[row, t], chain.laws[context].float())
            assert batch.hard[row, t] == chain.hard[context]
            law = chain.laws[context].tolist()
            assert batch.entropy[row, t] == pytest.approx(-sum(p * math.log(p) for p in law), abs=1e-5)
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert batch.weights.unique(dim=0).tolist() == [[0, 1, 1, 1, 1, 1]]


def test_half_the_contexts_are_hard_and_dirichlet():
    chain = EasyHardMarkov().chain
    assert chain.hard.sum() == 512
    assert chain.laws.sum(1).tolist() == pytest.approx([1] * 1024)
    for hard, concentration in ((True, 2.0), (False, 0.1)):
        laws = chain.laws[chain.hard == hard]
        law = stats.beta(concentration, 31 * concentration).cdf
        assert stats.kstest(laws[:, 0].numpy(), law).pvalue > 1e-3
        assert stats.kstest(laws[:, 31].numpy(), law).pvalue > 1e-3
    entropies = chain.entropies
    assert entropies[chain.hard].min() > entropies[~chain.hard].mean()
    assert not torch.equal(EasyHardMarkov(table=1).chain.laws, chain.laws)


@pytest.mark.parametrize("settings", [{}, {"symbols": 2, "length": 2}, {"symbols": 4, "hard_share": 1.0}])
def test_batch_is_what_the_task_declares(settings):
    task = EasyHardMarkov(**settings)
    batch = task.sample(7, generator(0))
    assert batch._fields == tuple(task.fields)
    assert batch.inputs.shape == batch.targets.shape == batch.weights.shape == (7, *task.input_shape)
    assert batch.probabilities.shape == (7, *task.output_shape)
    assert len(task.tokens) == task.output_shape[1]
    assert max(batch.inputs.max(), batch.targets.max()) < task.symbols
    assert torch.equal(batch.inputs, task.sample(7, generator(0)).inputs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"symbols": 65}, "symbols=65 is not legal.*from 2 to 64"),
        ({"easy": 0.0}, "easy=0.0 is not legal.*from 0.05 to 100"),
        ({"hard_share": 1.5}, "hard_share=1.5 is not legal.*from 0 to 1"),
    ],
)
def test_bad_parameters_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        EasyHardMarkov(**settings)


def test_chains_that_get_caught_in_more_than_one_place_have_no_law():
    stay = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5], [0.0, 1.0]], dtype=torch.float64)
    assert _stationary(stay) is None
    stay[0] = 0.5
    assert _stationary(stay).tolist() == pytest.approx([0, 0, 0, 1], abs=1e-9)


def test_a_draw_without_a_law_is_refused(monkeypatch):
    monkeypatch.setattr("mesocosm.tasks.markov_mixture._stationary", lambda laws: None)
    with pytest.raises(ValueError, match=r"table=1000000000 is not legal: with symbols=2 and easy=0.05"):
        EasyHardMarkov(symbols=2, easy=0.05, table=10**9).sample(1, generator(0))
