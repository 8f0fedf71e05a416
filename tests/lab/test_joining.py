"""Cells joined into one population: every replica trains to the last bit as in its own cell."""

import dataclasses
import itertools
from functools import partial

import pytest
import torch

from mesocosm import lab, tasks, training
from mesocosm.lab import joining
from mesocosm.lab.cost import price
from mesocosm.lab.lab import Lab
from mesocosm.models import MLP
from mesocosm.pieces import pieces
from mesocosm.training.history import taken

FEW: dict[str, tuple] = {f"bits_{k}": ((n,),) for k, n in ((1, 5), (2, 5), (3, 5), (4, 5), (5, 6))}
QUICK = {
    "tiny": {"seeds": (1, 3), "learning_rates": ((0.1, 1e30),)},
    "hidden-progress": {"learning_rate": (0.1, 0.05), "seeds": (2,), "search_seeds": (1,), **FEW},
    "induction-heads": {"learning_rate": (1e-3, 2e-3)},
}
VARIED = {
    "flip-flop": {"learning_rate": (5e-3, 1e-2)},
    "nce-landscape": {"seeds": (2, 3)},
    "raptr": {"seeds": (2, 3)},
    "dyck-uninterpretability": {"learning_rate": (1e-3, 2e-3)},
    "repeat-after-me": {"learning_rate": (1e-3, 2e-3)},
    "sam-features": {"seeds": (2, 3)},
    "path-star": {"seeds": (2, 3)},
    "resmem": {"learning_rate": (0.1, 0.05)},
    "disagreement": {"seeds": (2, 3)},
    "gradient-variance-amplification": {"seeds": (2, 3)},
    "datamodels-harmonic": {"learning_rate": (0.1, 0.2)},
    "automata-shortcuts": {"seeds": (2, 3)},
}


same = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=True)


def plans(study: str, varied: dict[str, tuple]) -> list[lab.Cell]:
    """Cells of a grid of smoke presets, cut short."""
    whole = pieces("study")[study].load()
    points = [dict(zip(varied, values)) for values in itertools.product(*varied.values())]
    cells = [c for p in points for c in whole.plan(dataclasses.replace(whole.presets["smoke"], **p))]
    return [
        dataclasses.replace(
            cell,
            steps=(4 + len(cell.grow)),
            every=2,
            grow=[dataclasses.replace(growth, step=i) for i, growth in enumerate(cell.grow, start=1)],
        )
        for cell in cells
        if cell.complete
    ]


def check(cells: list[lab.Cell]) -> None:
    """The histories of cells apart and joined are equal."""
    together = Lab(None).train(joining.join(cells))
    ends = [0, *itertools.accumulate(len(cell.seeds) for cell in cells)]
    for cell, first, end in zip(cells, ends, ends[1:]):
        alone = Lab(None).train(cell)
        same(alone.population.theta, together.population.theta[first:end])
        for name, tensor in alone.population.state.items():
            same(tensor, together.population.state[name][first:end])
        if cell.average:
            same(alone.population.average, together.population.average[first:end])
        assert alone.diverged == {r - first: s for r, s in together.diverged.items() if first <= r < end}
        assert alone.population.reason == together.population.reason
        for name, table in alone.metrics.items():
            same(table, together.metrics[name][:, first:end])
        for name in together.metrics.keys() - alone.metrics.keys() - {joining.DONE}:
            assert together.metrics[name][:, first:end].isnan().all()


@pytest.mark.parametrize(
    ("study", "varied"),
    [*QUICK.items(), *(pytest.param(*item, marks=pytest.mark.slow) for item in VARIED.items())],
    ids=str,
)
def test_cells_of_a_grid_train_together_as_apart(study: str, varied: dict) -> None:
    cells = plans(study, varied)
    groups = joining.groups(Lab(None), cells)
    assert sorted(itertools.chain(*groups)) == list(range(len(cells)))
    joined = [group for group in groups if len(group) > 1]
    assert joined
    for group in joined:
        check([cells[place] for place in group])


def odd(values: dict) -> torch.Tensor:
    """Stops replicas that are odd in their own cell."""
    return values["odd"]


def measure(population, step):
    norms = population.map(lambda model: model.layers[0].weight.norm())
    places = torch.tensor(population.index, device=population.device)
    return {"odd": places % 2 == 1, "place": places, "norm": norms}


def hard_cells() -> list[lab.Cell]:
    """Of one shape: other tasks, streams, starts, rates and rules; a lone replica, and one that diverges."""
    task = tasks.SparseParity(n=8, k=2)
    usual = {
        "task": task,
        "model": partial(MLP.for_task, hidden=(16,)),
        "objective": training.hinge,
        "optimiser": training.SAM(training.SGD(0.1, momentum=0.5), rho=0.05),
        "average": training.EMA(),
        "steps": 12,
        "batch_size": 4,
        "every": 3,
    }
    data = task.sample(40, torch.Generator().manual_seed(0))
    cell = lambda name, **changes: lab.Cell(name=name, **{**usual, **changes})
    wild = training.SAM(training.SGD([0.1, 1e30, 0.2], momentum=[0.0, 0.5, 0.9]), rho=[0.1, 0.0, 0.3])
    return [
        cell("rates", seeds=[3, 1, 2], optimiser=wild, measure=measure),
        cell("lone", seeds=[1], measure=measure, start=lambda population: population.theta.mul_(2)),
        cell("noise", seeds=[1, 2], task=dataclasses.replace(task, noise=0.3)),
        cell("passes", seeds=range(4), stream=training.Epochs(data, 4, range(4)), measure=measure, stop=odd),
        cell("shared", seeds=[5, 6], stream=training.Shared(training.Online(task, 4, [5])), init=["a", "b"]),
    ]


def test_hard_cells_train_together_as_apart() -> None:
    cells = hard_cells()
    check(cells)
    check(cells[::-1])
    check(cells[1:3])


def test_some_replicas_of_joined_cells_are_those_of_all() -> None:
    joined = joining.join(hard_cells())
    whole = Lab(None).train(joined)
    for rows in ([0, 1], [3], [5, 6, 7, 8, 9, 11]):
        some = Lab(None).fit(joined, rows, "some")
        same(some.population.theta, whole.population.theta[rows])
        for name, table in some.metrics.items():
            same(table, whole.metrics[name][:, rows])


def test_what_a_joined_cell_costs_is_that_of_its_parts() -> None:
    teacher = MLP.for_task(tasks.SparseParity(n=8, k=2), hidden=(64,))
    cells = [c for c in hard_cells() if c.name in ("rates", "lone")]
    taught = [dataclasses.replace(c, stream=training.Taught(online(c), [teacher])) for c in cells]
    for several in (cells, taught):
        (whole,), parts = price(Lab(None), [joining.join(several)], False), price(Lab(None), several, False)
        assert whole.flops == sum(part.flops for part in parts)
        assert whole.replicas == 4


def online(cell: lab.Cell) -> training.Online:
    return training.Online(cell.task, cell.batch_size, list(cell.seeds))


def scaled(objective, by: float):
    return lambda model, batch: by * objective(model, batch)


def test_only_cells_of_one_shape_are_joined() -> None:
    one = hard_cells()[1]
    change = partial(dataclasses.replace, one)
    sgd = training.SGD(0.3, momentum=0.1)
    same = [
        change(seeds=range(9), task=tasks.SparseParity(n=8, k=3), measure=None, stop=odd, start=None),
        change(optimiser=training.SAM(sgd, rho=[0.2]), model=lambda task: MLP.for_task(task, hidden=(16,))),
        change(optimiser=training.SAM(dataclasses.replace(sgd, weight_decay=0.0), rho=0.1)),
    ]
    other = [
        change(steps=13),
        change(batch_size=5),
        change(clip=1.0),
        change(average=None),
        change(schedule=training.linear(12)),
        change(objective=training.square),
        change(task=tasks.SparseParity(n=9, k=2)),
        change(model=partial(MLP.for_task, hidden=(17,))),
        change(model=partial(MLP.for_task, hidden=(16,), activation="gelu")),
        change(model=lambda task: with_scale(MLP.for_task(task, hidden=(16,)))),
        change(optimiser=sgd),
        change(optimiser=training.SAM(sgd, rho=0.0)),
        change(optimiser=training.SAM(training.SGD(0.1), rho=0.05)),
        change(optimiser=training.SAM(dataclasses.replace(sgd, nesterov=True), rho=0.05)),
        change(stream=training.Epochs(one.task.sample(40, torch.Generator()), 4, [1])),
    ]
    assert joining.groups(Lab(None), [one, *same, *other]) == [[0, 1, 2, 3], *([i] for i in range(4, 19))]


def with_scale(model: MLP) -> MLP:
    for parameter in model.parameters():
        parameter.data.mul_(0.5)
    return model


def test_functions_are_alike_when_all_that_they_hold_is() -> None:
    assert joining.alike(scaled(training.hinge, 2.0), scaled(training.hinge, 2.0))
    assert not joining.alike(scaled(training.hinge, 2.0), scaled(training.hinge, 3.0))
    assert not joining.alike(scaled(training.hinge, 2.0), scaled(training.square, 2.0))
    assert joining.alike(training.linear(9, 1), training.linear(9, 1))
    assert not joining.alike(training.linear(9, 1), training.linear(9, 2))
    assert joining.alike(partial(scaled, by=1.0), partial(scaled, by=1.0))
    assert not joining.alike(partial(scaled, by=1.0), partial(scaled, by=2.0))
    assert not joining.alike([torch.zeros(2)], [torch.ones(2)])
    assert not joining.alike(torch.Generator(), torch.Generator())
    assert joining.alike(tasks.SparseParity(n=8, k=2), tasks.SparseParity(n=8, k=2))
    assert not joining.alike(tasks.SparseParity(n=8, k=2), tasks.SparseParity(n=8, k=3))


def test_what_is_settled_of_joined_cells_is_as_each_saves_it() -> None:
    cells = hard_cells()
    whole, first = Lab(None).train(joining.join(cells)).saved(), 0
    for cell in cells:
        tensors, facts = joining.own(taken(whole, range(first, first + len(cell.seeds))))
        first += len(cell.seeds)
        alone, told = Lab(None).train(cell).saved()
        assert tensors.keys() == alone.keys()
        for name, tensor in alone.items():
            same(tensors[name], tensor)
        shares = {phase: seconds * len(cell.seeds) / whole[1]["first"] for phase, seconds in whole[1]["clock"].items()}
        assert facts == {**told, "clock": shares}
