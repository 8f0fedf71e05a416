"""Prices against what is known of a plan."""

from functools import partial

import pytest

from mesocosm import lab, models, tasks, training
from mesocosm.lab.cost import price
from mesocosm.lab.lab import Lab
from mesocosm.models import MLP
from mesocosm.training import EMA, SAM, SGD, Growth

TASK = tasks.SparseParity(n=10, k=2)


def mlp(task, width: int = 8) -> MLP:
    return MLP.for_task(task, hidden=(width,))


def cell(**changes) -> lab.Cell:
    plain = {
        "task": TASK,
        "seeds": range(3),
        "model": mlp,
        "objective": training.hinge,
        "optimiser": SGD(0.1),
        "steps": 100,
    }
    return lab.Cell(name="cell", **{"batch_size": 4, **plain, **changes})


def test_operations_are_counted_by_hand() -> None:
    (found,) = price(Lab(None), [cell()], timed=False)
    # Two products forward, of 10 x 8 and 8 x 1, and backward those of their weights and of the hidden layer.
    assert found.flops == 3 * 100 * 4 * 2 * (2 * 10 * 8 + 3 * 8)
    assert found.parameters == 10 * 8 + 8 + 8 + 1
    assert (found.replicas, found.steps, found.seconds) == (3, 100, None)


def test_each_size_of_a_growing_network_is_charged_for_its_own_steps() -> None:
    grow = [Growth(40, partial(mlp, TASK, 16), lambda name: None)]
    grown, small, large = price(
        Lab(None), [cell(grow=grow), cell(steps=40), cell(steps=60, model=partial(mlp, width=16))], timed=False
    )
    assert grown.flops == small.flops + large.flops
    assert (grown.steps, grown.parameters, grown.memory) == (100, large.parameters, large.memory)


def test_a_step_uphill_costs_a_second_gradient_and_an_average_memory() -> None:
    plain, flat = price(Lab(None), [cell(), cell(optimiser=SAM(SGD(0.1)), average=EMA())], timed=False)
    assert flat.flops == 2 * plain.flops
    assert flat.memory - plain.memory == pytest.approx(4 * plain.parameters * 3)


def test_a_batch_in_parts_costs_the_same_and_keeps_less() -> None:
    large = {"batch_size": 40, "seeds": [0]}
    whole, parted = price(Lab(None), [cell(**large), cell(**large, accumulate=10)], timed=False)
    assert parted.flops == whole.flops
    # Inputs and hidden units, a tenth of them at a time, and a gradient to add to.
    kept = whole.memory - parted.memory + 4 * parted.parameters
    assert kept / (whole.memory - 3 * 4 * whole.parameters) == pytest.approx(0.9, abs=0.02)


def test_teachers_and_paths_are_charged_by_the_steps_they_are_in() -> None:
    task = tasks.FlipFlop(length=8)
    make = partial(models.Transformer.for_task, task, d_model=8, n_heads=2, n_layers=4)
    online = training.Online(task, 4, [0])
    taught = training.Taught(online, [training.stand_in(make)], weight=lambda step: float(step < 25))
    paths = training.RandomPaths(online, 4, lambda step: 2 if step < 50 else 4, seeds=[0])
    along = training.along_paths(training.cross_entropy, lambda model: model.blocks)
    make_cell = partial(cell, task=task, model=lambda task: make(), seeds=[0])
    cells = [
        make_cell(objective=training.cross_entropy),
        make_cell(objective=training.cross_entropy, model=lambda task: make(n_layers=2)),
        make_cell(objective=training.distil, stream=taught),
        make_cell(objective=training.distil, stream=taught, optimiser=SAM(SGD(0.1))),
        make_cell(objective=along, stream=paths),
    ]
    whole, ends, learning, flat, skipping = (found.flops for found in price(Lab(None), cells, timed=True))
    assert learning == pytest.approx(whole * (1 + 0.25 / 3))
    assert flat == pytest.approx(whole * (2 + 0.25 / 3))
    assert skipping == (whole + ends) / 2
    trained = training.train(training.Population(make, [0]), paths, along, SGD(0.1), steps=100)
    assert trained.last("flops").item() == skipping
