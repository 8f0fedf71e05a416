"""A replica's trajectory depends on its own seed alone, and equals a plain PyTorch loop's."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from mesocosm.models import MLP, Transformer
from mesocosm.seeding import generator
from mesocosm.tasks import FlipFlop, SparseParity
from mesocosm.training import SGD, AdamW, Population, cosine, cross_entropy, hinge, linear, train, trapezoid
from mesocosm.training.streams import Epochs, Online

PARITY, STRINGS = SparseParity(n=12, k=3), FlipFlop(length=12)


def mlp():
    return MLP.for_task(PARITY, hidden=(24,))


def transformer():
    return Transformer.for_task(STRINGS, d_model=16, n_heads=2, n_layers=2, dropout=0.1, embedding_dropout=0.1)


CASES = {"mlp": (mlp, PARITY, hinge), "transformer": (transformer, STRINGS, cross_entropy)}
OPTIMISERS = {"sgd": SGD(0.1, momentum=0.9, weight_decay=0.01), "adamw": AdamW(3e-3, weight_decay=0.1)}


def weights(case: str, optimiser: str, seeds: list[int], steps: int = 50, **options) -> dict[int, torch.Tensor]:
    make, task, objective = CASES[case]
    population = Population(make, seeds)
    train(population, task, objective, OPTIMISERS[optimiser], steps=steps, batch_size=8, **options)
    return dict(zip(seeds, population.theta))


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("case", CASES)
def test_a_replica_is_the_same_to_the_last_bit_in_any_company(case: str, optimiser: str) -> None:
    reference = weights(case, optimiser, list(range(16)))
    for company in ([3, 4], [9, 3, 1, 0, 15], [3]):
        for seed, row in weights(case, optimiser, company).items():
            assert torch.equal(row, reference[seed]), (company, seed)


@pytest.mark.parametrize("stack", [1, 2, 3])
def test_cutting_a_population_into_stacks_changes_nothing(stack: int) -> None:
    whole = weights("transformer", "adamw", list(range(5)), steps=10)
    cut = weights("transformer", "adamw", list(range(5)), steps=10, stack=stack)
    assert all(torch.equal(whole[s], cut[s]) for s in whole)


def test_seeds_and_steps_do_change_the_weights() -> None:
    rows = weights("mlp", "sgd", [0, 1], steps=1)
    assert not torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], weights("mlp", "sgd", [0], steps=2)[0])


def plain_loop(model: nn.Module, optimiser: torch.optim.Optimizer, steps: int, clip: float | None, factor) -> nn.Module:
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    stream = Online(PARITY, 8, [5])
    for step in range(steps):
        batch = stream(step, [0], torch.device("cpu"))
        optimiser.zero_grad()
        torch.clamp(1 - batch.targets[0] * model(batch.inputs[0]), min=0).mean().backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        schedule.step()
    return model


@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (SGD(0.1), partial(torch.optim.SGD, lr=0.1)),
        (SGD(0.1, momentum=0.9), partial(torch.optim.SGD, lr=0.1, momentum=0.9)),
        (
            SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.02),
            partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.02),
        ),
        (AdamW(3e-3, weight_decay=0.1), partial(torch.optim.AdamW, lr=3e-3, weight_decay=0.1)),
    ],
    ids=["sgd", "momentum", "nesterov-decay", "adamw"],
)
def test_a_replica_follows_a_plain_pytorch_loop(ours, theirs, clip: float | None) -> None:
    schedule = linear(60, warmup=10)
    population = Population(mlp, [4, 5])
    model = population.replica(1)
    train(population, PARITY, hinge, ours, steps=60, batch_size=8, clip=clip, schedule=schedule)
    plain_loop(model, theirs(model.parameters()), 60, clip, schedule)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(population.weights()[name][1], parameter.detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_hyper_parameters_may_differ_between_replicas(compile: bool) -> None:
    rates, decays = [0.1, 0.02, 0.3], [0.0, 0.1, 0.01]
    together = Population(mlp, range(3))
    train(
        together, PARITY, hinge, SGD(rates, momentum=0.5, weight_decay=decays), steps=20, batch_size=8, compile=compile
    )
    for r in range(3):
        alone = Population(mlp, [r])
        train(alone, PARITY, hinge, SGD(rates[r], momentum=0.5, weight_decay=decays[r]), steps=20, batch_size=8)
        if compile:
            torch.testing.assert_close(alone.theta[0], together.theta[r], atol=1e-5, rtol=1e-4)
        else:
            assert torch.equal(alone.theta[0], together.theta[r])


def test_a_diverging_replica_is_named_and_its_neighbours_do_not_notice() -> None:
    rates = [0.1, 1e30, 0.1, 0.1]
    sick, well = Population(mlp, range(4)), Population(mlp, range(4))
    history = train(sick, PARITY, hinge, SGD(rates, momentum=0.9), steps=40, batch_size=8, every=10)
    train(well, PARITY, hinge, SGD(0.1, momentum=0.9), steps=40, batch_size=8, every=10)
    assert list(history.diverged) == [1]
    assert 1 <= history.diverged[1] <= 3
    for r in (0, 2, 3):
        assert torch.equal(sick.theta[r], well.theta[r])
    assert history.metrics["loss"][:, 1].isnan().all()
    assert not history.metrics["loss"][1:, [0, 2, 3]].isnan().any()


def test_the_step_of_a_divergence_is_the_first_loss_that_is_not_finite() -> None:
    class Fragile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.steps.expand(len(x))

    def objective(model, batch):
        # Its gradient is 1, so under SGD with rate 1 the weight is minus the number of steps done.
        loss = model(batch.inputs).mean()
        return torch.where(loss < -16.5, torch.nan, loss)

    history = train(Population(Fragile, [0, 1]), PARITY, objective, SGD(1.0), steps=40, batch_size=4, every=7)
    assert history.diverged == {0: 17, 1: 17}


def test_a_replica_that_is_done_keeps_its_weights_and_the_others_go_on() -> None:
    def measure(population, step):
        return {"number": torch.tensor(population.index) + step}

    population, reference = Population(mlp, range(4)), Population(mlp, [2])
    stop = lambda values: values["number"] == 12
    history = train(population, PARITY, hinge, SGD(0.1), steps=30, batch_size=8, every=10, measure=measure, stop=stop)
    train(reference, PARITY, hinge, SGD(0.1), steps=10, batch_size=8)
    assert torch.equal(population.theta[2], reference.theta[0])
    assert history.metrics["number"][:, 2].tolist()[:2] == [2, 12]
    assert history.metrics["number"][2:, 2].isnan().all()
    assert history.metrics["number"][:, 3].tolist() == [3, 13, 23, 33]
    assert history.last("number").tolist() == [30, 31, 12, 33]


def one_layer(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), layer, nn.Linear(16, 1), nn.Flatten(0))


@pytest.mark.parametrize(
    ("layer", "mapped"),
    [
        (lambda: nn.LayerNorm(16), True),
        (lambda: nn.Dropout(0.3), True),
        (lambda: nn.BatchNorm1d(16), True),
        (lambda: nn.AlphaDropout(0.3), False),
    ],
    ids=["layer-norm", "dropout", "batch-norm", "alpha-dropout"],
)
def test_a_foreign_module_gives_the_same_weights_alone_and_in_company(layer, mapped: bool) -> None:
    def rows(seeds):
        population = Population(lambda: one_layer(layer()), seeds)
        train(population, PARITY, hinge, SGD(0.1), steps=8, batch_size=16)
        assert population.mappable == mapped, population.reason
        return population.weights()

    many, alone = rows([0, 1, 2, 3]), rows([2])
    for name in many:
        torch.testing.assert_close(many[name][2], alone[name][0], atol=0 if mapped else 1e-6, rtol=0)
    assert not torch.equal(many["0.weight"][2], many["0.weight"][3])


def test_a_recurrent_model_takes_the_unstacked_path_and_learns_as_in_a_plain_loop() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.GRU(1, 8, batch_first=True), nn.Linear(8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.cell(x[..., None])[0][:, -1]).squeeze(-1)

    population = Population(Recurrent, [4, 5])
    model = population.replica(1)
    train(population, PARITY, hinge, SGD(0.1), steps=10, batch_size=8)
    assert not population.mappable
    plain_loop(model, torch.optim.SGD(model.parameters(), lr=0.1), 10, None, lambda step: 1.0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(population.weights()[name][1], parameter.detach(), atol=1e-6, rtol=0)


def test_frozen_parameters_are_kept_per_replica_and_never_decay() -> None:
    def frozen():
        model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0))
        model[0].requires_grad_(False)
        return model

    population = Population(frozen, range(3))
    before = copy.deepcopy(population.weights())
    train(population, PARITY, hinge, SGD(0.1, weight_decay=0.1), steps=5, batch_size=8)
    after = population.weights()
    assert torch.equal(before["0.weight"], after["0.weight"])
    assert not torch.equal(before["0.weight"][0], before["0.weight"][1])
    assert not torch.equal(before["2.weight"], after["2.weight"])


def test_epochs_pass_over_each_subset_once_in_an_order_of_its_own() -> None:
    data = PARITY.sample(40, generator(0, "data"))
    data = data._replace(targets=torch.arange(40.0))
    subsets = torch.stack([torch.arange(20), torch.arange(20, 40), torch.arange(20)])
    stream = Epochs(data, 5, ["a", "a", "b"], subsets)
    seen = torch.cat([stream(step, [0, 1, 2], torch.device("cpu")).targets for step in range(4)], dim=1)
    assert torch.equal(seen.sort(dim=1).values, subsets.float())
    assert torch.equal(seen[0] + 20, seen[1])
    assert not torch.equal(seen[0], seen[2])
    later = torch.cat([stream(step, [0], torch.device("cpu")).targets for step in range(4, 8)], dim=1)
    assert not torch.equal(seen[0], later[0])
    assert torch.equal(stream(1, [2], torch.device("cpu")).targets[0], seen[2, 5:10])


def test_an_online_stream_is_a_function_of_seed_and_step() -> None:
    stream = Online(PARITY, 4, [7, 8, 7], chunk=8)
    batches = [stream(step, [0, 1, 2], torch.device("cpu")).inputs.clone() for step in range(20)]
    assert all(torch.equal(b[0], b[2]) and not torch.equal(b[0], b[1]) for b in batches)
    assert torch.equal(Online(PARITY, 4, [8], chunk=8)(13, [0], torch.device("cpu")).inputs[0], batches[13][1])
    assert not torch.equal(batches[3], batches[11])


def test_a_trapezoid_rises_stays_and_falls() -> None:
    rate = trapezoid(100, 10, 0.2)
    assert [rate(step) for step in (0, 4, 9, 50, 80)] == pytest.approx([0.1, 0.5, 1, 1, 1])
    assert [rate(step) for step in (90, 99)] == pytest.approx([0.5, 0.05])
    assert trapezoid(100, 0)(0) == 1


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (linear(100, warmup=10), {0: 0.1, 9: 1.0, 10: 1.0, 100: 1 / 91, 101: 0.0}),
        (cosine(100, warmup=10, floor=0.2), {0: 0.1, 10: 1.0, 55: 0.6, 100: 0.2}),
    ],
)
def test_schedules(schedule, expected: dict[int, float]) -> None:
    for step, factor in expected.items():
        assert schedule(step) == pytest.approx(factor), step


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Population(mlp, []), "seeds=\\[\\]"),
        (lambda: train(Population(mlp, [0]), PARITY, hinge, SGD(0.1), steps=3), "batch_size=None"),
        (lambda: train(Population(mlp, [0]), PARITY, hinge, SGD(0.1), steps=-1, batch_size=4), "steps=-1"),
        (lambda: train(Population(mlp, [0]), PARITY, hinge, SGD([0.1, 0.2]), steps=1, batch_size=4), "learning_rate"),
        (lambda: train(Population(mlp, [0]), PARITY, hinge, SGD(-0.1), steps=1, batch_size=4), "learning_rate=-0.1"),
        (lambda: Epochs(PARITY.sample(4, generator(0)), 5, [0]), "batch_size=5"),
        (lambda: Online([PARITY], 5, [0, 1]), "1 tasks for 2 seeds"),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


class Looped(nn.Module):
    """One block, registered twice, whose bias is also the head's weight."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Linear(10, 10)
        self.blocks = nn.ModuleList([block, block])
        self.readout = nn.ParameterDict({"weight": block.bias})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return x @ self.readout["weight"]


def test_modules_and_weights_that_stand_in_two_places_stay_one() -> None:
    task = SparseParity(n=10, k=2)
    population = Population(Looped, [0, 1])
    own = population.replica(1)
    assert len(population.layout.shapes) == len(list(own.parameters())) == 2
    train(population, task, hinge, SGD(0.1), steps=5, batch_size=8)
    assert population.reason == "stacked"
    optimiser, stream = torch.optim.SGD(own.parameters(), 0.1), Online(task, 8, [0, 1])
    for step in range(5):
        optimiser.zero_grad()
        batch = stream(step, [1], torch.device("cpu"))
        hinge(own, batch._make(field[0] for field in batch)).backward()
        optimiser.step()
    x = torch.randn(4, 10, generator=generator(0, "inputs"))
    torch.testing.assert_close(population.replica(1)(x), own(x))
    torch.testing.assert_close(population.map(lambda model: model(x))[1], own(x))
