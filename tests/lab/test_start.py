"""A cell may start where another one ended, and in a run folder it is neither started nor trained twice."""

from dataclasses import replace
from functools import partial

import torch

from mesocosm import lab, models, tasks, training
from mesocosm.lab.lab import Lab

TASK = tasks.SparseParity(n=8, k=2)
FIRST = lab.Cell(
    name="first",
    task=TASK,
    model=partial(models.MLP.for_task, hidden=(6,)),
    seeds=range(3),
    objective=training.hinge,
    optimiser=training.SGD(0.1),
    steps=20,
    batch_size=4,
)


def train(folder=None):
    run = Lab(folder)
    first = run.train(FIRST).population
    second = replace(FIRST, name="second", start=partial(training.inherit, source=first))
    begun = run.population(second).theta
    return first.theta, begun, run.train(second).population.theta


def test_a_cell_goes_on_from_anothers_weights(tmp_path):
    ended, begun, final = train(tmp_path)
    assert torch.equal(begun, ended)
    assert not torch.equal(final, begun)
    assert all(torch.equal(*pair) for pair in zip(train(tmp_path), (ended, begun, final))), "read back, not trained"
    assert torch.equal(train()[2], final)
