"""A study of another package: parities learned by two small nets, with a measurement that is remembered."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mesocosm import lab, tasks, training
from mesocosm.seeding import generator
from mesocosm.settings import setting


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study."""

    seeds: int = setting(3, "seeds", low=1, high=64)
    n: int = setting(8, "bits", low=3, high=64)
    steps: int = setting(200, "steps", low=1, high=100_000)
    learning_rates: tuple[float, ...] = setting((0.1, 0.05), "rates, one cell each", low=0.0, high=1e30)


class Net(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n, 32), nn.ReLU(), nn.Dropout(0.05), nn.Linear(32, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).squeeze(-1)


def plan(config):
    task = tasks.SparseParity(n=config.n, k=2)

    def measure(population, step):
        if "TINY_TRAINS" in os.environ and step:  # A test wants to know which processes train.
            Path(os.environ["TINY_TRAINS"], str(os.getpid())).touch()
        held_out = [task.sample(100, generator(seed, "held-out")) for seed in population.seeds]
        batch = held_out[0]._make(map(torch.stack, zip(*held_out)))
        return {"error": population.map(lambda model, b: (model(b.inputs).sign() != b.targets).float().mean(), batch)}

    for rate in config.learning_rates:
        yield lab.Cell(
            name=f"rate={rate:g}",
            settings={"rate": rate},
            task=task,
            model=lambda task: Net(task.n),
            seeds=range(config.seeds),
            objective=training.hinge,
            optimiser=training.SGD(rate, momentum=0.5),
            steps=config.steps,
            batch_size=8,
            every=20,
            measure=measure,
            stop=lambda values: values["error"] < 0.01,
        )


def run(config, lab):
    for cell in plan(config):
        history = lab.train(cell)
        norm = lab.remember(f"{cell.name}/norm", lambda h=history: {"norm": h.population.theta.norm(dim=1)})
        lab.record(cell.name, {"norm": norm["norm"]}, seed=list(cell.seeds), rate=cell.settings["rate"])


def judge(records):
    last = records[records.metric == "error"].groupby(["cell", "seed"]).value.last()
    return [lab.below("last error", lab.median(last), 0.45)]


def figures(records):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    for cell, rows in records[records.metric == "error"].groupby("cell"):
        axes.plot(*rows.groupby("step").value.mean().reset_index().T.to_numpy(), label=cell)
    axes.set(xlabel="step", ylabel="held-out error")
    axes.legend()
    yield lab.Drawing("error", figure, "Held-out error of each rate by step.")


control = lab.Control(
    statement="the first measurement, before training",
    judge=lambda records: [
        lab.above("first error", lab.median(records[(records.metric == "error") & (records.step == 0)].value), 0.35)
    ],
)

STUDY = lab.Study(
    title="Tiny",
    paper="Nobody (2000)",
    question="Do two small nets learn a parity of two bits?",
    presets={"smoke": Config(), "small": Config(seeds=4, steps=400), "paper": Config(seeds=25, n=50, steps=100_000)},
    plan=plan,
    run=run,
    claims=[
        lab.Claim(
            id="C1",
            statement="It is learned.",
            rule="median last error < 0.45",
            paper="none",
            judge=judge,
            control=control,
        )
    ],
    figures=figures,
)
