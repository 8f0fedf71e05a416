"""Prices against what is known of a plan."""

from functools import partial

import pytest

from mesocosm import lab, tasks, training
from mesocosm.lab.cost import price
from mesocosm.lab.lab import Lab
from mesocosm.models import MLP
from mesocosm.training import EMA, SAM, SGD, Growth

TASK = tasks.SparseParity(n=10, k=2)


def mlp(task, width: int = 8) -> MLP:
    return MLP.for_task(task, hidden=(width,))


def cell(**changes) -> lab.Cell:
    plain = {"model": mlp, "objective": training.hinge, "optimiser": SGD(0.1), "steps": 100}
    return lab.Cell(name="cell", task=TASK, batch_size=4, seeds=range(3), **{**plain, **changes})


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
