import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from mesocosm.seeding import generator
from mesocosm.tasks import MarkovChains
from mesocosm.tasks.markov_chains import stationary_law


def sequences_of(batch):
    return torch.cat([batch.inputs, batch.targets[:, -1:]], dim=1)


def next_law(rows, law, order, symbols, past):
    """Law of the symbol after `past`, by summing the probabilities of all contexts that it may be part of."""
    if len(past) >= order:
        context = 0
        for symbol in past[len(past) - order :]:
            context = context * symbols + symbol
        return rows[context]
    masses = [0.0] * symbols
    for context, word in enumerate(itertools.product(range(symbols), repeat=order)):
        if list(word[: len(past)]) == past:
            masses[word[len(past)]] += law[context]
    return [mass / sum(masses) for mass in masses]


@pytest.mark.parametrize("settings", [{}, {"symbols": 2, "order": 2}, {"symbols": 2, "order": 3}, {"order": 0}])
def test_probabilities_are_those_of_the_chain(settings):
    task = MarkovChains(length=6, **settings)
    batch = task.sample(20, generator(0))
    laws = stationary_law(batch.transitions).tolist() if task.order else [[1.0]] * 20
    for rows, law, sequence, probabilities in zip(
        batch.transitions.tolist(), laws, sequences_of(batch).tolist(), batch.probabilities.tolist()
    ):
        for t, found in enumerate(probabilities):
            expected = next_law(rows, law, task.order, task.symbols, sequence[: t + 1])
            assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("settings", [{}, {"symbols": 2, "order": 2}, {"order": 0}, {"prior": "iid"}])
def test_sequences_follow_the_probabilities(settings):
    """Whether each symbol is 0, given the past, adds up to the variance that independent trials have."""
    batch = MarkovChains(length=16, **settings).sample(20_000, generator(1))
    p = batch.probabilities[..., 0].double()
    surplus = ((batch.targets == 0).double() - p).sum(0)
    z = surplus / (p * (1 - p)).sum(0).sqrt()
    assert stats.chi2.sf(z.square().sum().item(), 16) > 1e-3


@pytest.mark.parametrize("settings", [{}, {"symbols": 2, "order": 2}, {"prior": "doubly-stochastic"}])
def test_first_symbols_follow_the_stationary_law(settings):
    task = MarkovChains(length=4, **settings)
    batch = task.sample(20_000, generator(2))
    law = stationary_law(batch.transitions)
    law = law.unflatten(1, (task.symbols, -1)).sum(2)[:, 0]
    z = ((batch.inputs[:, 0] == 0).double() - law).sum() / (law * (1 - law)).sum().sqrt()
    assert abs(z) < 3.3


@pytest.mark.parametrize(("symbols", "order"), [(2, 1), (3, 1), (5, 1), (2, 2), (3, 2), (2, 3)])
def test_stationary_law_equals_the_eigenvector(symbols, order):
    transitions = MarkovChains(symbols=symbols, order=order).sample(10, generator(3)).transitions
    for rows, law in zip(transitions.double().numpy(), stationary_law(transitions).numpy()):
        contexts = len(rows)
        moves = np.zeros((contexts, contexts))
        for context in range(contexts):
            for symbol in range(symbols):
                moves[context, (context * symbols + symbol) % contexts] += rows[context, symbol]
        values, vectors = np.linalg.eig(moves.T)
        vector = vectors[:, np.abs(values - 1).argmin()].real
        assert law == pytest.approx(vector / vector.sum(), abs=1e-6)


def test_rows_are_uniform_on_the_simplex():
    rows = MarkovChains(length=2).sample(3000, generator(4)).transitions
    assert torch.allclose(rows.sum(2), torch.ones(3000, 3), atol=1e-6)
    for row, symbol in itertools.product(range(3), repeat=2):
        assert stats.kstest(rows[:, row, symbol].numpy(), stats.beta(1, 2).cdf).pvalue > 1e-3
    correlation = np.corrcoef(rows[:, :, 0].T.numpy())
    assert np.abs(correlation[~np.eye(3, dtype=bool)]).max() < 0.07


def test_one_row_serves_all_contexts_of_the_iid_prior():
    batch = MarkovChains(prior="iid").sample(50, generator(5))
    assert (batch.transitions == batch.transitions[:, :1]).all()
    assert (batch.probabilities == batch.transitions[:, :1]).all()


def test_two_doubly_stochastic_symbols_stay_with_a_uniform_probability():
    matrices = MarkovChains(symbols=2, prior="doubly-stochastic").sample(3000, generator(6)).transitions
    stay = matrices[:, 0, 0]
    assert stats.kstest(stay.numpy(), "uniform").pvalue > 1e-3
    assert torch.allclose(matrices, torch.stack([stay, 1 - stay, 1 - stay, stay], 1).view(-1, 2, 2), atol=1e-6)


def test_three_doubly_stochastic_symbols_equal_rejection_of_corners():
    """The upper left corner is uniform on the unit cube where the matrix that it fixes has no negative entry."""
    matrices = MarkovChains(symbols=3, prior="doubly-stochastic").sample(4000, generator(7)).transitions
    assert matrices.min() >= 0
    assert torch.allclose(matrices.sum(1), torch.ones(4000, 3), atol=1e-6)
    assert torch.allclose(matrices.sum(2), torch.ones(4000, 3), atol=1e-6)
    corner = np.random.default_rng(0).random((40_000, 2, 2))
    legal = (corner.sum(1) <= 1).all(1) & (corner.sum(2) <= 1).all(1) & (corner.sum((1, 2)) >= 1)
    assert legal.mean() == pytest.approx(1 / 8, abs=0.01)
    corner, matrices = corner[legal], matrices.double().numpy()
    for statistic in (
        lambda m: m[:, 0, 0],
        lambda m: m[:, 0, 0] * m[:, 1, 1],
        lambda m: (m[:, :2, :2] ** 2).sum((1, 2)),
    ):
        assert stats.ks_2samp(statistic(corner), statistic(matrices)).pvalue > 1e-3
    for i, j in itertools.product(range(3), repeat=2):  # No entry is special.
        assert stats.ks_2samp(matrices[:2000, 0, 0], matrices[2000:, i, j]).pvalue > 1e-4


def count(sequence, order, symbols):
    """Add-one estimates after every symbol, by reading on."""
    estimates = []
    for t in range(1, len(sequence) + 1):
        followers = [1.0] * symbols
        for s in range(order, t):
            if t >= order and sequence[s - order : s] == sequence[t - order : t]:
                followers[sequence[s]] += 1
        estimates.append([f / sum(followers) for f in followers])
    return estimates


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_ngram_rule_equals_counting(order):
    task = MarkovChains(length=12)
    inputs = task.sample(30, generator(8)).inputs
    expected = torch.tensor([count(sequence, order, 3) for sequence in inputs.tolist()])
    torch.testing.assert_close(task.ngram(inputs, order), expected)


def expectation(value, sequence):
    """Mean of `value(a, b)` under the posterior of two rows (a, 1 - a), (b, 1 - b) given the moves of a sequence."""

    def weight(a, b):
        rows = ((a, 1 - a), (b, 1 - b))
        return math.prod(rows[x][y] for x, y in itertools.pairwise(sequence))

    def integral(f):
        return integrate.dblquad(f, 0, 1, 0, 1, epsabs=1e-10, epsrel=1e-10)[0]

    return integral(lambda a, b: weight(a, b) * value(a, b)) / integral(weight)


@pytest.mark.parametrize("sequence", [[0], [0, 0, 1], [1, 0, 1, 1, 0], [0, 1, 1, 0, 0, 1, 0]])
def test_bigram_rule_is_the_posterior_mean(sequence):
    found = MarkovChains(symbols=2).bayes(torch.tensor([sequence]))[0, -1, 0].item()
    assert found == pytest.approx(expectation(lambda a, b: (a, b)[sequence[-1]], sequence), abs=1e-6)


def test_unigram_rule_is_the_posterior_mean_of_iid_chains():
    sequence = [0, 1, 1, 1, 0, 1]
    likelihood = lambda p: p**2 * (1 - p) ** 4
    mean = integrate.quad(lambda p: p * likelihood(p), 0, 1)[0] / integrate.quad(likelihood, 0, 1)[0]
    for task in (MarkovChains(symbols=2, prior="iid"), MarkovChains(symbols=2, order=0)):
        assert task.bayes(torch.tensor([sequence]))[0, -1, 0].item() == pytest.approx(mean, abs=1e-6)


def test_no_counting_rule_beats_bayes():
    task = MarkovChains(length=32, symbols=2, order=2)
    batch = task.sample(4000, generator(9))
    loss = [-task.ngram(batch.inputs, order).gather(2, batch.targets[..., None]).log().mean() for order in range(4)]
    assert min(loss) == loss[2]
    assert torch.equal(task.bayes(batch.inputs), task.ngram(batch.inputs, 2))


def test_batch_is_what_the_task_declares():
    task = MarkovChains(length=10, symbols=2, order=2)
    batch = task.sample(7, generator(0))
    assert batch._fields == tuple(task.fields)
    assert task.output_shape == (10, 2)
    assert batch.inputs.shape == batch.targets.shape == batch.weights.shape == (7, 10)
    assert batch.probabilities.shape == (7, 10, 2)
    assert batch.transitions.shape == (7, 4, 2)
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert len(task.tokens) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"symbols": 1}, "symbols=1 is not legal"),
        ({"symbols": 6, "order": 2}, "order=2 is not legal.*at most 32, not 36"),
        ({"symbols": 2, "order": 3, "length": 2}, "order=3 is not legal.*at most length=2"),
        ({"prior": "beta"}, "prior='beta' is not legal.*dirichlet, doubly-stochastic, iid"),
        ({"prior": "doubly-stochastic", "order": 2}, "prior='doubly-stochastic' is not legal with order=2"),
        ({"prior": "doubly-stochastic", "symbols": 6}, "at most 5 symbols"),
    ],
)
def test_bad_parameters_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        MarkovChains(**settings)


def test_doubly_stochastic_chains_have_no_known_bayes_predictor():
    task = MarkovChains(prior="doubly-stochastic")
    with pytest.raises(ValueError, match="no closed form"):
        task.bayes(task.sample(2, generator(0)).inputs)
