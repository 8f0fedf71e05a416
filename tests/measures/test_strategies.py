import math

import pytest
import torch

from mesocosm.measures import kl_divergence, ngram_strategies, phases, plateau_length
from mesocosm.seeding import generator
from mesocosm.tasks import MarkovChains


def test_kl_divergence_equals_the_sum():
    p, q = [0.5, 0.3, 0.2], [0.1, 0.6, 0.3]
    expected = sum(a * math.log(a / b) for a, b in zip(p, q))
    assert kl_divergence(torch.tensor(p).log(), torch.tensor(q).log()).item() == pytest.approx(expected, abs=1e-6)
    assert kl_divergence(torch.tensor([1.0, 0.0]).log(), torch.tensor([0.25, 0.75]).log()) == pytest.approx(math.log(4))
    assert kl_divergence(torch.tensor([0.25, 0.75]).log(), torch.tensor([1.0, 0.0]).log()) == math.inf


def test_strategies_are_laws_that_know_more_and_more():
    task = MarkovChains(symbols=2, order=2, length=200)
    batch = task.sample(200, generator(0))
    rules = ngram_strategies(task, batch.inputs, longest=3)
    assert list(rules) == ["uniform", "unigram", "bigram", "trigram"]
    assert all(torch.allclose(rule.exp().sum(-1), torch.ones(200, 200), atol=1e-5) for rule in rules.values())
    losses = [kl_divergence(batch.probabilities.log(), rule)[:, 100:].mean().item() for rule in rules.values()]
    assert losses == sorted(losses, reverse=True)
    assert losses[3] < 0.2 * losses[2]


def test_reference_distances_of_the_specification():
    """KL(truth || strategy) at k = 3, T = 64, second half of the positions."""
    task = MarkovChains()
    batch = task.sample(4000, generator(1))
    found = [
        kl_divergence(batch.probabilities.log(), rule)[:, 32:].mean().item()
        for rule in ngram_strategies(task, batch.inputs).values()
    ]
    assert found == pytest.approx([0.282, 0.176, 0.051], rel=0.05)


def test_phases_are_runs():
    assert phases(["a", "a", "b", "a"]) == [("a", 0, 2), ("b", 2, 3), ("a", 3, 4)]
    assert phases([]) == []


def test_plateau_spans_the_first_to_the_last_near_measurement():
    steps = torch.arange(6) * 10
    curves = torch.tensor([[1.0, 0.55, 0.5, 0.48, 0.2, 0.0], [0.5, 0.9, 0.5, 0.9, 0.9, 0.9], [1.0] * 6]).T
    assert plateau_length(steps, curves, level=0.5, tolerance=0.06).tolist() == [20, 20, 0]
