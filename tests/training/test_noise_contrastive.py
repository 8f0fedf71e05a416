import math

import pytest
import torch
from torch.func import grad

from mesocosm.measures import bhattacharyya, jensen_shannon
from mesocosm.models import MLP
from mesocosm.seeding import generator
from mesocosm.tasks import GaussianPair
from mesocosm.training import SGD, NormalisedSGD, Population, ence, nce, train

TASK = GaussianPair(d=4, distance=1.5)


def test_nce_is_the_mean_cross_entropy_of_telling_data_from_noise() -> None:
    batch = TASK.sample(100, generator(0))
    model = MLP.for_task(TASK, hidden=(8,))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(model(batch.inputs), (batch.targets + 1) / 2)
    torch.testing.assert_close(nce(model, batch), expected)


def test_ence_is_the_mean_exponential_of_half_the_margin() -> None:
    batch = TASK.sample(100, generator(0))
    model = MLP.for_task(TASK, hidden=(8,))
    z = model(batch.inputs)
    expected = ((-z[:50] / 2).exp().mean() + (z[50:] / 2).exp().mean()) / 2
    torch.testing.assert_close(ence(model, batch), expected)


@pytest.mark.parametrize("objective", [nce, ence])
def test_the_true_log_ratio_is_the_minimum_and_its_value_is_a_divergence(objective) -> None:
    task = GaussianPair(distance=3.0)
    batch = task.quadrature()
    loss = lambda z: objective(lambda _: z, batch)
    assert (grad(loss)(batch.log_ratio).view(2, -1).sum(0)).abs().max() < 1e-15
    x = batch.inputs[:6001, 0]
    log_p, log_q = (-((x - mean) ** 2) / 2 - math.log(2 * math.pi) / 2 for mean in (3.0, 0.0))
    widths = torch.full_like(x, float(x[1] - x[0]))
    if objective is nce:
        expected = math.log(2) - jensen_shannon(log_p, log_q, widths)
    else:
        expected = bhattacharyya(log_p, log_q, widths)
    assert loss(batch.log_ratio).item() == pytest.approx(expected.item(), rel=1e-12)


def test_losses_stay_exact_far_out() -> None:
    batch = TASK.sample(2, generator(0))._replace(targets=torch.tensor([1.0, -1.0]))
    far = lambda x: torch.tensor([300.0, 50.0], dtype=torch.float64)
    assert nce(far, batch).item() == pytest.approx(25, rel=1e-15)
    assert ence(lambda x: torch.tensor([-400.0, 0.0]), batch).item() == math.inf


@pytest.mark.parametrize("scale", [1.0, 1e-30])
def test_normalised_steps_have_the_length_of_the_rate_in_each_replica(scale: float) -> None:
    rates = [0.1, 0.03, 0.0]
    population = Population(lambda: MLP.for_task(TASK, hidden=(8,)), range(3))
    start = population.theta.clone()
    flat = lambda model, batch: scale * nce(model, batch)
    train(population, TASK, flat, NormalisedSGD(rates), steps=1, batch_size=64)
    moved = population.theta - start
    assert moved.norm(dim=1).tolist() == pytest.approx(rates, rel=1e-4)
    plain = Population(lambda: MLP.for_task(TASK, hidden=(8,)), range(3))
    train(plain, TASK, nce, SGD(1.0), steps=1, batch_size=64)
    cosine = torch.nn.functional.cosine_similarity(moved[:2], (plain.theta - start)[:2])
    assert cosine.tolist() == pytest.approx([1, 1], abs=1e-4)


def test_a_gradient_of_zero_moves_nothing() -> None:
    population = Population(lambda: MLP.for_task(TASK, hidden=(8,)), range(2))
    start = population.theta.clone()
    still = lambda model, batch: 0 * nce(model, batch)
    train(population, TASK, still, NormalisedSGD(0.1), steps=2, batch_size=8)
    assert torch.equal(population.theta, start)


@pytest.mark.parametrize("objective", [nce, ence])
def test_normalised_descent_finds_the_log_ratio(objective) -> None:
    population = Population(lambda: MLP.for_task(TASK, hidden=()), range(3))
    train(population, TASK, objective, NormalisedSGD(0.02), steps=400, batch_size=1024)
    weights = population.weights()
    found = torch.cat([weights["layers.0.weight"][:, 0], -weights["layers.0.bias"]], dim=1)
    assert (found - TASK.optimum.float()).norm(dim=1).max() < 0.3
