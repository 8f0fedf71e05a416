"""The trainings: Gaussians in many dimensions, and images against their Gaussian, by four methods."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from mesocosm import lab, measures, models, training

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mesocosm.training import Population
    from mesocosm.training.loop import Measure

TAIL = 0.1
"""Share of the steps, at the end, over which weights are averaged."""


def methods() -> dict[str, tuple[Callable[..., Any], Any]]:
    """Objective and optimiser of each method by name."""
    return {
        f"{rule} {loss}": (objective, optimiser)
        for loss, objective in (("NCE", training.nce), ("eNCE", training.ence))
        for rule, optimiser in (("GD", training.SGD), ("NGD", training.NormalisedSGD))
    }


def cells(
    name: str, task: Any, seeds: Sequence[int], rates: dict[str, Sequence[float]], batch_size: int, steps: int,
    **changes: Any,
) -> Iterator[lab.Cell]:  # fmt: skip
    """A cell a method: each seed at each of the method's rates, the samples of a seed being the same everywhere."""
    for method, (objective, optimiser) in methods().items():
        grid = rates[method.split()[0]]
        every_rate = [rate for rate in grid for _ in seeds]
        yield lab.Cell(
            name=f"{name}/{method}",
            task=task,
            seeds=list(seeds) * len(grid),
            # Seeds vary fastest.
            stream=training.Shared(training.Online(task, batch_size, seeds, chunk=8), lambda r: r % len(seeds)),
            objective=objective,
            optimiser=optimiser(every_rate),
            steps=steps,
            batch_size=batch_size,
            average=training.EMA(floor=0, power=1, burn_in=round((1 - TAIL) * steps)),
            every=max(1, steps // 40),
            settings={"rate": every_rate, "distance": getattr(task, "distance", None)},
            **changes,
        )


def gaussians(task: Any, **changes: Any) -> Iterator[lab.Cell]:
    name = f"sampled/distance={task.distance:g}"
    yield from cells(name, task, model=log_linear, measure=parameter_distance(task), swappable=False, **changes)


def images(task: Any, hidden: tuple[int, ...], **changes: Any) -> Iterator[lab.Cell]:
    mlp = partial(models.MLP.for_task, hidden=hidden, activation="gelu")
    yield from cells("images", task, model=mlp, measure=held_out(task), **changes)


def log_linear(task: Any) -> "nn.Module":
    """z(x) = theta.x - c, from 0."""
    model = models.MLP.for_task(task, hidden=())
    for parameter in model.parameters():
        parameter.data.zero_()
    return model


def parameter_distance(task: Any) -> "Measure":
    """Measures how far (theta, c), averaged over the tail, is from the optimum, and what eNCE's samples are worth.

    Its gradient weighs fixed samples by exp(-y z / 2); "effective samples" is the share that counts.
    """
    optimum = task.optimum.float()

    @cache
    def sample() -> Any:
        from mesocosm.seeding import generator

        return task.sample(4096, generator("nce-landscape", "weights", f"{task.d} {task.distance}"))

    def measure(population: "Population", step: int) -> "dict[str, Tensor]":
        import torch

        weights = population.averaged().weights()
        tau = torch.cat([weights["layers.0.weight"][:, 0], -weights["layers.0.bias"]], dim=1)
        batch = sample()._make(field.to(tau) for field in sample())
        margins = batch.targets * (tau[:, :-1] @ batch.inputs.T - tau[:, -1:])
        return {
            "distance to optimum": (tau - optimum.to(tau)).norm(dim=1),
            "effective samples": measures.effective_samples(-margins / 2) / len(batch.inputs),
        }

    return measure


def held_out(task: Any) -> "Measure":
    """Measures on held-out images and noise, the same for all.

    NCE loss, mean log-likelihood above the Gaussian's, and the share of noise that counts in its normaliser's estimate.
    """

    @cache
    def sample() -> Any:
        from mesocosm.seeding import generator

        return task.held_out(generator("nce-landscape", "held out"))

    def values(batch: Any, model: "nn.Module") -> "dict[str, Tensor]":
        z = model(batch.inputs)
        count = len(z) // 2
        evidence = z[count:].logsumexp(0) - math.log(count)
        return {
            "held-out loss": training.nce(lambda _: z, batch),
            "log-likelihood gain": z[:count].mean() - evidence,
            "effective noise samples": measures.effective_samples(z[count:]) / count,
        }

    def measure(population: "Population", step: int) -> "dict[str, Tensor]":
        batch = sample()._make(field.to(population.device) for field in sample())
        return population.averaged().map(partial(values, batch))

    return measure
