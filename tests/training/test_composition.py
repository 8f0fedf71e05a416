"""Methods compose: a student distilled from checkpoints grows in stages under SAM while its weights are averaged."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from mesocosm.models import Transformer
from mesocosm.tasks import FlipFlop
from mesocosm.training import (
    EMA,
    SAM,
    AdamW,
    Growth,
    Population,
    Taught,
    copy_middle,
    cross_entropy,
    distil,
    layer_sources,
    train,
    uphill,
)
from mesocosm.training.streams import Online

TASK = FlipFlop(length=10)


def transformer(layers: int) -> Transformer:
    return Transformer.for_task(TASK, d_model=8, n_heads=2, n_layers=layers)


GROWTHS = [
    Growth(4, partial(transformer, 2), layer_sources("blocks.{}.", copy_middle(1))),
    Growth(8, partial(transformer, 3), layer_sources("blocks.{}.", copy_middle(2))),
]
AVERAGE = EMA(floor=0.1, power=0.7)


@pytest.fixture(scope="module")
def teachers() -> list[Population]:
    teacher, checkpoints = Population(partial(transformer, 2), range(100, 105)), []
    for steps in (5, 20):
        train(teacher, TASK, cross_entropy, AdamW(1e-2), steps=steps, batch_size=8)
        checkpoints.append(teacher.select(range(5)))
    return checkpoints


def taught(teachers: list[Population], seeds: list[int]) -> Taught:
    return Taught(Online(TASK, 8, seeds), teachers, schedule=lambda step: int(step >= 6), weight=0.7)


def everything(teachers: list[Population], seeds: list[int], **options):
    student = Population(partial(transformer, 1), seeds)
    stream = taught([teacher.select(seeds) for teacher in teachers], seeds)
    return train(
        student, stream, distil, SAM(AdamW(1e-2), rho=0.05), grow=GROWTHS, average=AVERAGE, steps=12, **options
    )


def test_all_methods_in_one_call_equal_a_loop_by_hand(teachers: list[Population]) -> None:
    history = everything(teachers, [0, 1, 2])
    for seed in (0, 2):
        model, average = by_hand(teachers, seed)
        for found, expected in ((history.population, model), (history.population.averaged(), average)):
            # Not the weights: biases of keys have no effect, and Adam moves them by rounding errors.
            inputs = TASK.sample(16, torch.Generator().manual_seed(0)).inputs
            torch.testing.assert_close(found.replica(seed)(inputs), expected(inputs), atol=1e-4, rtol=1e-4)


def test_all_methods_read_batches_in_parts(teachers: list[Population]) -> None:
    whole, parted = (everything(teachers, [0, 1], accumulate=parts).population for parts in (1, 3))
    inputs = TASK.sample(16, torch.Generator().manual_seed(0)).inputs
    torch.testing.assert_close(parted.outputs(inputs), whole.outputs(inputs), atol=1e-4, rtol=1e-4)


def by_hand(teachers: list[Population], seed: int) -> tuple[nn.Module, nn.Module]:
    """The same training in plain PyTorch: Adam with copied moments, soft labels, SAM and a moving average."""
    stream = Online(TASK, 8, [seed])
    ages = [Population(partial(transformer, layers), [seed]).replica(0) for layers in (1, 2, 3)]
    sources = {2: [0, 0], 3: [0, 0, 1]}
    model, moments = ages[0], {}
    average = copy.deepcopy(model)
    for step in range(12):
        if step in (4, 8):
            model, average, moments = deepen(model, average, moments, ages[step // 4], sources[1 + step // 4])
        batch = stream(step, [0], torch.device("cpu"))
        inputs, targets, weights = batch.inputs[0], batch.targets[0], batch.weights[0]
        teacher = teachers[int(step >= 6)].replica(seed)
        q = teacher(inputs).softmax(-1).detach()

        def loss(model=model, inputs=inputs, targets=targets, weights=weights, q=q):
            logp = model(inputs).log_softmax(-1)
            each = 0.3 * nn.functional.nll_loss(logp.mT, targets, reduction="none") - 0.7 * (q * logp).sum(-1)
            return (each * weights).sum() / weights.sum()

        model.zero_grad()
        loss().backward()
        with uphill(model, 0.05):
            model.zero_grad()
            loss().backward()
        beta = max((step + 1) ** -0.7, 0.1)
        with torch.no_grad():
            for (name, p), mean in zip(model.named_parameters(), average.parameters()):
                m, v = moments.setdefault(name, (torch.zeros_like(p), torch.zeros_like(p)))
                m.mul_(0.9).add_(0.1 * p.grad)
                v.mul_(0.999).add_(0.001 * p.grad**2)
                p -= 1e-2 * (m / (1 - 0.9 ** (step + 1))) / ((v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
                mean += beta * (p - mean)
    return model, average


def deepen(model, average, moments, larger, sources):
    larger_average, grown = copy.deepcopy(larger), {}
    for name, parameter in larger.named_parameters():
        old = name
        if name.startswith("blocks."):
            number, rest = name.removeprefix("blocks.").split(".", 1)
            old = f"blocks.{sources[int(number)]}.{rest}"
        with torch.no_grad():
            parameter.copy_(model.get_parameter(old))
            larger_average.get_parameter(name).copy_(average.get_parameter(old))
        grown[name] = tuple(moment.clone() for moment in moments[old])
    return larger, larger_average, grown


def test_a_replica_is_the_same_in_any_company(teachers: list[Population]) -> None:
    together = everything(teachers, [0, 1, 2]).population
    for seeds in ([1], [2, 1]):
        others = everything(teachers, seeds).population
        place = seeds.index(1)
        assert torch.equal(others.theta[place], together.theta[1])
        assert torch.equal(others.average[place], together.average[1])


class Interrupted:
    """Saves after some steps and stops; then gives what it saved."""

    def __init__(self, at: int) -> None:
        self.at, self.saved = at, None

    def restore(self):
        return self.saved

    def tick(self, step, fraction, alive, loss, save) -> None:
        if self.saved is None and step >= self.at:
            tensors, facts = save()
            self.saved = ({name: t.clone() for name, t in tensors.items()}, facts)
            raise KeyboardInterrupt


@pytest.mark.parametrize("at", [2, 5, 8, 11])
def test_a_training_that_grows_goes_on_where_it_was(at: int, teachers, monkeypatch) -> None:
    monkeypatch.setattr("mesocosm.training.loop.TICK", 0.0)
    whole = everything(teachers, [0, 1])
    observer = Interrupted(at)
    with pytest.raises(KeyboardInterrupt):
        everything(teachers, [0, 1], observer=observer)
    resumed = everything(teachers, [0, 1], observer=observer)
    assert torch.equal(resumed.population.theta, whole.population.theta)
    assert torch.equal(resumed.population.average, whole.population.average)
    assert torch.equal(resumed.metrics["loss"][-1], whole.metrics["loss"][-1])


def test_a_replica_that_stops_early_is_grown_without_training(teachers: list[Population]) -> None:
    def measure(population, step):
        return {"done": torch.tensor([index == 0 and step >= 2 for index in population.index]).float()}

    stopped = everything(teachers, [0, 1], measure=measure, every=2, stop=lambda values: values["done"] > 0)
    going = everything(teachers, [0, 1])
    assert torch.equal(stopped.population.theta[1], going.population.theta[1])
    blocks = stopped.population.weights()["blocks.0.mlp.fc_in.weight"][0]
    for layer in (1, 2):
        assert torch.equal(stopped.population.weights()[f"blocks.{layer}.mlp.fc_in.weight"][0], blocks)


def test_growths_must_rise_within_the_training() -> None:
    late = [Growth(12, partial(transformer, 2), layer_sources("blocks.{}.", [0, 0]))]
    with pytest.raises(ValueError, match=r"grow at steps \[12\] is not legal: they must rise between 0 and steps=12"):
        train(
            Population(partial(transformer, 1), [0]),
            TASK,
            cross_entropy,
            AdamW(1e-2),
            steps=12,
            batch_size=2,
            grow=late,
        )
