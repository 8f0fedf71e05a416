"""A batch that is read in parts teaches what the whole of it does."""

from functools import partial

import pytest
import torch

from mesocosm.models import MLP, Transformer
from mesocosm.seeding import generator
from mesocosm.tasks import FlipFlop, SparseParity
from mesocosm.training import SAM, SGD, Population, RandomPaths, along_paths, cross_entropy, gradients, hinge, train
from mesocosm.training.population import row
from mesocosm.training.streams import Online

TASK = FlipFlop(length=8)
SEEDS, BATCH = [0, 1], 7


def transformer(**sizes) -> Transformer:
    return Transformer.for_task(TASK, d_model=8, n_heads=2, **sizes)


class Uneven:
    """Batches whose parts count differently, and their last three samples not at all."""

    def __call__(self, step, index, device):
        batch = Online(TASK, BATCH, SEEDS)(step, index, device)
        weights = torch.rand(batch.weights.shape, generator=generator(step, "weights"))
        weights[:, -3:] = 0
        return batch._replace(weights=weights)


def trained(accumulate, objective=cross_entropy, stream=None, **options):
    population = Population(partial(transformer, n_layers=3), SEEDS)
    optimiser = options.pop("optimiser", SGD(0.1, momentum=0.9))
    return train(
        population, stream or Uneven(), objective, optimiser, steps=5, every=1, accumulate=accumulate, **options
    )


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("options", [{}, {"clip": 0.1, "optimiser": SAM(SGD(0.1), rho=0.1)}])
def test_parts_of_different_weights_teach_what_the_whole_does(stacked, options, monkeypatch) -> None:
    monkeypatch.setattr(gradients, "LARGE", {"cpu": 1e9 if stacked else 1})
    whole, *others = (trained(parts, **options) for parts in (1, 3, BATCH))
    for other in others:
        assert other.population.mappable == stacked
        torch.testing.assert_close(other.population.theta, whole.population.theta, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(other.metrics["loss"], whole.metrics["loss"], atol=1e-6, rtol=1e-5, equal_nan=True)
        assert torch.equal(other.metrics["flops"], whole.metrics["flops"])
        assert torch.equal(other.metrics["tokens"], whole.metrics["tokens"])


@pytest.mark.slow
def test_parts_are_compiled() -> None:
    task = SparseParity(n=6, k=2)
    whole, parted = (Population(lambda: MLP.for_task(task, hidden=(8,)), SEEDS) for _ in range(2))
    train(whole, task, hinge, SGD(0.1), steps=5, batch_size=BATCH)
    train(parted, task, hinge, SGD(0.1), steps=5, batch_size=BATCH, accumulate=3, compile=True)
    torch.testing.assert_close(parted.theta, whole.theta, atol=2e-6, rtol=1e-5)


def test_what_has_no_axis_of_samples_is_in_every_part() -> None:
    objective = along_paths(cross_entropy, lambda model: model.blocks)
    # As many samples as layers: their axes are told by name.
    stream = RandomPaths(Online(TASK, 3, SEEDS), 3, lambda step: 2.5, SEEDS)
    whole, parted = (trained(parts, objective, stream) for parts in (1, 2))
    torch.testing.assert_close(parted.population.theta, whole.population.theta, atol=1e-6, rtol=1e-5)
    assert torch.equal(parted.metrics["flops"], whole.metrics["flops"])


def test_a_part_is_all_that_is_in_memory_at_once(monkeypatch) -> None:
    sizes, loss = [], lambda model, batch: sizes.append(len(batch.inputs)) or cross_entropy(model, batch)
    monkeypatch.setattr(gradients, "LARGE", {"cpu": 1})
    trained(3, loss)
    assert set(sizes) == {3, 2}


def test_parts_drop_different_activations() -> None:
    population = Population(partial(transformer, dropout=0.5), SEEDS)
    state = population.step_state(4)
    call = population.caller(lambda model, tokens: model(tokens))
    inputs, weights = TASK.sample(2, generator(0)).inputs, row(population.layout.views(population.theta), 0)
    first, second, next_step = (
        call(weights, row(state, 0), inputs)
        for state in (population.part_state(state, 0), population.part_state(state, 1), population.step_state(5))
    )
    assert torch.equal(first, call(weights, row(state, 0), inputs))
    assert not torch.equal(first, second) and not torch.equal(second, next_step)


@pytest.mark.parametrize("parts", [0, BATCH + 1])
def test_parts_without_a_sample_are_refused(parts) -> None:
    with pytest.raises(ValueError, match=f"accumulate={parts} is not legal: it must be from 1 to the 7 samples"):
        trained(parts)
