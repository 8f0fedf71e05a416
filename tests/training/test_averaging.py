"""Averages of weights against their closed forms."""

import copy

import pytest
import torch
from torch import nn

from mesocosm.models import MLP
from mesocosm.tasks import SparseParity
from mesocosm.training import EMA, SGD, Population, hinge, train

TASK = SparseParity(n=10, k=2)


def follow(average: EMA, iterates: torch.Tensor) -> torch.Tensor:
    mean = torch.full_like(iterates[0], 7.0)
    for t, weights in enumerate(iterates, 1):
        average.update(mean, weights, torch.tensor(t))
    return mean


def test_closed_forms() -> None:
    iterates = torch.randn(20, 5, dtype=torch.float64)
    torch.testing.assert_close(follow(EMA(floor=0, power=1), iterates), iterates.mean(0))
    torch.testing.assert_close(follow(EMA(floor=0, power=1, burn_in=8), iterates), iterates[8:].mean(0))
    torch.testing.assert_close(follow(EMA(power=0), iterates), iterates[-1])
    floor = EMA(floor=0.2, power=100.0)
    shares = torch.tensor([0.8**19, *(0.2 * 0.8 ** (20 - t) for t in range(2, 21))], dtype=torch.float64)
    torch.testing.assert_close(follow(floor, iterates), (shares[:, None] * iterates).sum(0))


def test_the_loop_averages_each_replica_and_leaves_training_alone() -> None:
    make = lambda: MLP.for_task(TASK, hidden=(8,))
    rows: list[torch.Tensor] = []

    def measure(population, step):
        rows.append(population.theta.clone())
        expected = torch.stack(rows[1:]).mean(0) if step else population.theta
        torch.testing.assert_close(population.averaged().theta, expected, atol=1e-6, rtol=1e-5)
        return {}

    averaged, plain = Population(make, range(3)), Population(make, range(3))
    train(averaged, TASK, hinge, SGD(0.1), steps=12, batch_size=4, every=1, average=EMA(0, 1), measure=measure)
    train(plain, TASK, hinge, SGD(0.1), steps=12, batch_size=4)
    assert torch.equal(averaged.theta, plain.theta)
    torch.testing.assert_close(averaged.average, torch.stack(rows[1:]).mean(0), atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="there is no average of the weights: train with average=EMA"):
        plain.averaged()


def test_a_module_of_ones_own() -> None:
    model = nn.BatchNorm1d(3)
    mean, total = copy.deepcopy(model), torch.zeros(3)
    for t in range(1, 6):
        with torch.no_grad():
            model.weight.copy_(torch.randn(3))
        model(torch.randn(4, 3))
        total += model.weight.detach()
        EMA(floor=0, power=1).update_module(mean, model, t)
    torch.testing.assert_close(mean.weight.detach(), total / 5)
    assert torch.equal(mean.running_var, model.running_var)


def test_bad_arguments_are_named() -> None:
    for arguments, message in (
        ({"floor": 2.0}, "floor=2.0 is not legal: it must be a number from 0 to 1"),
        ({"power": -1.0}, "power=-1.0 is not legal"),
        ({"burn_in": -1}, "burn_in=-1 is not legal"),
    ):
        with pytest.raises(ValueError, match=message):
            EMA(**arguments)
