"""The trainings: clones of a plant's expert and of experts in environments, and transformers that count."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesocosm import lab, models, tasks, training
from mesocosm.studies.gradient_variance_amplification import evaluation

if TYPE_CHECKING:
    from torch import nn

    from mesocosm.studies.gradient_variance_amplification import Config
    from mesocosm.tasks.base import Task

FACTOR = 16
"""How much larger the large batch and the large data set are."""
EPISODE = 200
"""Steps of a demonstrated episode."""
CONTRACTING = 0.5
"""Contraction of the loop in which errors die out."""


def make_gain(task: "Task") -> "nn.Module":
    """u = K x, without a bias."""
    from torch import nn

    return nn.Linear(4, 4, bias=False)


def linear(config: "Config") -> Iterator[lab.Cell]:
    task = tasks.PlantDemonstrations(contraction=config.contraction, noise=config.noise)

    def cell(name: str, batch: int = config.batch_size, task: Any = task, beta: float = config.linear_beta) -> Any:
        plant = evaluation.on_linear_plant(task, config.linear_horizon, config.starts)
        return lab.Cell(
            name=name,
            task=task,
            model=make_gain,
            seeds=range(config.seeds),
            objective=training.square,
            # `square` is the mean of the 4 outputs: its gradient is half that of |u - K x|^2 / 2.
            optimiser=training.SGD(2 * config.linear_rate),
            steps=config.linear_steps,
            batch_size=batch,
            average=training.EMA(floor=beta, power=1.0, burn_in=config.linear_steps // 10),
            measure=evaluation.of_both(plant),
            every=every(config, config.linear_steps),
            settings={"batch": batch, "contraction": task.contraction},
            swappable=False,
        )

    yield cell("linear")
    yield cell("linear small batch", config.batch_size // 4)
    yield cell("linear large batch", config.batch_size * 4)
    contracting = tasks.PlantDemonstrations(contraction=CONTRACTING, noise=config.noise)
    yield cell("linear contracting", task=contracting)
    yield replace(cell("linear no averaging", beta=1.0), seeds=range(min(config.few, config.seeds)))
    small = cell("stationary", config.batch_size // 4)
    laws = evaluation.predictions(small.batch_size, config.linear_rate, config.noise, config.linear_beta)
    yield replace(small, seeds=range(config.copies), measure=evaluation.on_linear_weights(task, laws))


def every(config: "Config", steps: int) -> int:
    return max(1, steps // config.checkpoints)


@cache
def demonstrations(task: Any, episodes: int) -> Any:
    from mesocosm.seeding import generator

    return task.episodes(episodes, generator("gradient variance amplification", "demonstrations"))


def neural(config: "Config") -> Iterator[lab.Cell]:
    marginal = tasks.PlantDemonstrations(contraction=config.contraction, steps=EPISODE)
    saturated = tasks.PlantDemonstrations(plant="saturated", steps=EPISODE)

    def cell(
        name: str, task: Any = marginal, batch: int = 1, data: int = 1, seeds: int = config.seeds, **changes: Any
    ) -> Any:
        seeds, batch, episodes = min(seeds, config.seeds), batch * config.batch_size, data * config.episodes
        pool = demonstrations(task, FACTOR * config.episodes)
        plant = evaluation.on_plant(task, config.horizon, config.starts, evaluation.NEURAL_CAP)
        return lab.Cell(
            name=name,
            task=task,
            model=partial(models.MLP.for_task, hidden=config.hidden, activation="tanh"),
            seeds=range(seeds),
            stream=training.Epochs(
                pool, batch, range(seeds), episodes_of(range(seeds), episodes, FACTOR * config.episodes)
            ),
            objective=training.square,
            optimiser=training.AdamW(config.rate),
            steps=config.steps,
            batch_size=batch,
            average=training.EMA(floor=config.beta, power=0.67),
            measure=evaluation.of_both(plant),
            every=every(config, config.steps),
            settings={"batch": batch, "episodes": episodes, "contraction": task.contraction},
            **changes,
        )

    yield cell("neural")
    yield cell("neural large batch", batch=FACTOR)
    yield cell("neural more data", data=FACTOR)
    yield cell("neural decay", schedule=training.linear(config.steps))
    yield cell("neural saturated", saturated, seeds=config.few)


def episodes_of(seeds: Sequence[int], count: int, total: int) -> Any:
    """Rows `[R, count * EPISODE]` of each seed's own episodes out of all; a larger count holds the smaller."""
    import torch

    from mesocosm.seeding import generator

    orders = [torch.randperm(total, generator=generator(seed, "episodes")) for seed in seeds]
    first = torch.stack(orders)[:, :count, None] * EPISODE
    return (first + torch.arange(EPISODE)).flatten(1)


def counter(config: "Config") -> lab.Cell:
    task = tasks.CarryCounter(
        base=config.base, digits=2, numbers=config.numbers, max_stride=config.base - 1, order="lowest-first"
    )
    sizes = {name: getattr(config, name) for name in ("d_model", "n_heads", "n_layers")}
    return lab.Cell(
        name="counter",
        task=task,
        model=partial(models.Transformer.for_task, **sizes),
        seeds=range(min(config.few, config.seeds)),
        objective=training.cross_entropy,
        optimiser=training.AdamW(config.string_rate),
        steps=config.string_steps,
        batch_size=config.string_batch,
        average=training.EMA(floor=config.string_beta, power=0.67),
        measure=evaluation.of_both(evaluation.on_strings(task, config.prompts)),
        every=2 * every(config, config.string_steps),  # writing is slow
        # A model for numbers cannot read strings: it takes this place only where no clone is trained.
        swappable="neural" not in config.parts,
    )


def in_environment(config: "Config", environment: str) -> Iterator[lab.Cell]:
    file = config.demonstrations and str(Path(config.demonstrations) / f"{environment}.npz")
    task = tasks.EnvironmentDemonstrations(
        environment=environment, file=file, episodes=config.episodes, steps=config.environment_horizon
    )
    seeds = range(min(config.few, config.seeds))
    evaluate = evaluation.in_environment(task, config.environment_horizon, range(10_000, 10_020))
    for name, batch, schedule in (
        ("", config.batch_size, None),
        (" large batch", FACTOR * config.batch_size, None),
        (" decay", config.batch_size, training.linear(config.steps)),
    ):
        yield lab.Cell(
            name=f"environment {environment}{name}",
            task=task,
            model=partial(models.MLP.for_task, hidden=config.hidden, activation="tanh"),
            seeds=seeds,
            objective=training.square,
            optimiser=training.AdamW(config.rate),
            steps=config.steps,
            batch_size=batch,
            schedule=schedule,
            average=training.EMA(floor=config.beta, power=0.67),
            measure=evaluation.of_both(evaluate),
            every=every(config, config.steps),
            settings={"batch": batch},
        )
