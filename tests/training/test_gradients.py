"""Whether stacked, one by one or compiled, gradients are the same; how to step never depends on the company."""

import pytest
import torch
from torch import nn

from mesocosm.models import CNN, LSTM, Transformer
from mesocosm.seeding import generator
from mesocosm.tasks import FlipFlop, Images, SparseParity
from mesocosm.training import SGD, Population, cross_entropy, gradients, hinge, train

STRINGS = FlipFlop(length=16)

MODELS = {
    "transformer with dropout": (lambda: Transformer.for_task(STRINGS, d_model=16, n_heads=2, dropout=0.1), STRINGS),
    "lstm": (lambda: LSTM.for_task(STRINGS, d_model=16), STRINGS),
    "cnn": (lambda: CNN.for_task(Images(), channels=4), Images()),
}


def trained(name: str, **options) -> Population:
    make, task = MODELS[name]
    population = Population(make, range(3))
    train(population, task, cross_entropy, SGD(0.1, momentum=0.9), steps=6, batch_size=8, **options)
    return population


@pytest.mark.parametrize("name", MODELS)
def test_one_by_one_agrees_with_the_stack(name: str, monkeypatch) -> None:
    stacked = trained(name)
    monkeypatch.setattr(gradients, "LARGE", {"cpu": 1})
    alone = trained(name)
    assert not alone.mappable
    torch.testing.assert_close(alone.theta, stacked.theta, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_compiled_agrees_with_eager(name: str) -> None:
    torch.testing.assert_close(trained(name, compile=True).theta, trained(name).theta, atol=2e-6, rtol=0)


def plan(make, task, seeds, batch_size: int = 8) -> tuple[int, str]:
    population = Population(make, seeds)
    batch = task.sample(batch_size, generator(0))
    stack = gradients.plan(population, cross_entropy, batch._make(field[None] for field in batch))
    return stack, population.reason


def test_small_steps_are_stacked_until_they_fill_the_device(monkeypatch) -> None:
    make, task = MODELS["cnn"]
    # Products of the CNN on 8x8 images: 2 x (8x8x9x4 + 4x4x36x8 + 32x10) a sample forward, those of the
    # second layer and the head twice more backward, those of the first once more.
    forward = [2 * 8 * 8 * 9 * 4, 2 * 4 * 4 * 36 * 8, 2 * 32 * 10]
    flops = 8 * (2 * forward[0] + 3 * forward[1] + 3 * forward[2])
    monkeypatch.setattr(gradients, "LARGE", {"cpu": 7.5 * flops})
    assert plan(make, task, range(3)) == (7, "stacked")
    assert plan(make, task, [5]) == (7, "stacked")
    monkeypatch.setattr(gradients, "LARGE", {"cpu": 1.5 * flops})
    assert plan(make, task, range(4)) == (2, "stacked")
    assert plan(make, task, range(3)) == (3, "stacked"), "none is left by itself"
    monkeypatch.setattr(gradients, "LARGE", {"cpu": 0.9 * flops})
    stack, reason = plan(make, task, range(3))
    assert stack == 1
    assert "fill the device" in reason


def test_what_vmap_cannot_trace_is_said() -> None:
    make, task = MODELS["lstm"]
    stack, reason = plan(make, task, range(3))
    assert stack == 1
    assert "vmap can't trace" in reason


def test_planning_leaves_weights_and_buffers_as_they_were() -> None:
    task = SparseParity(n=12, k=2)
    make = lambda: nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 1), nn.Flatten(0))
    population, fresh = Population(make, range(3)), Population(make, range(3))
    batch = task.sample(8, generator(0))
    gradients.plan(population, hinge, batch._make(field[None] for field in batch))
    for name, weight in fresh.weights().items():
        assert torch.equal(population.weights()[name], weight)


def test_an_error_in_a_model_is_its_own() -> None:
    make = lambda: nn.Sequential(nn.Linear(5, 1), nn.Flatten(0))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(Population(make, [0, 1]), SparseParity(n=12, k=2), hinge, SGD(0.1), steps=1, batch_size=4)
