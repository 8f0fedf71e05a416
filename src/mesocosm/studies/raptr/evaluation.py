"""What is measured along training, on samples that all networks share."""

from functools import partial
from typing import TYPE_CHECKING, Any

from mesocosm import measures, tasks, training

if TYPE_CHECKING:
    from torch import Tensor, device

    from mesocosm.tasks.base import Task
    from mesocosm.training import Population

__all__: list[str] = []


def fixed(task: "Task", size: int, device: "device") -> Any:
    """The same samples for whoever asks."""
    from mesocosm.seeding import generator

    batch = task.sample(size, generator("raptr", "fixed"))
    return batch._make(field.to(device) for field in batch)


def track_polynomial(
    task: "tasks.BooleanPolynomial", points: int, population: "Population", step: int
) -> "dict[str, Tensor]":
    """The whole network's MSE / Var, and how far it has learned each degree."""
    batch = fixed(task, points, population.device)
    scores = population.map(lambda model: model(batch.inputs))
    alpha = measures.degree_coefficients(scores, batch.components)
    degrees = {f"alpha {degree}": column for degree, column in enumerate(alpha.unbind(1), start=1)}
    return {"error": (scores - batch.targets).square().mean(1) / task.variance, **degrees}


def track_text(task: "tasks.TextBytes", windows: int, population: "Population", step: int) -> "dict[str, Tensor]":
    """The whole network's loss on held-out text, nats a byte."""
    batch = fixed(task, windows, population.device)
    return {"error": population.map(lambda model: training.cross_entropy(model, batch))}


def track_gap(
    task: "tasks.BooleanPolynomial", points: int, paths: int, residual: bool, population: "Population", step: int
) -> "dict[str, Tensor]":
    """How much the loss jumps from paths that miss one layer to the whole network, and how its stream grows.

    Without residual connections there is no stream whose norm to restore, and paths are not scaled.
    """
    import torch

    from mesocosm.seeding import generator

    depth = len(population.module.blocks)  # type: ignore[arg-type]
    kept = measures.paths_of_length(depth, depth - 1, paths, generator("raptr", "paths", depth))
    scales = (training.path_scales(kept) if residual else kept.float()).to(population.device)
    batch = fixed(task, points, population.device)

    def loss(model: Any, scale: "Tensor") -> "Tensor":
        with training.scaled_layers(model.blocks, scale):
            return training.square(model, batch) / task.variance

    def norms(model: Any) -> "Tensor":
        return measures.stream_norms(model, model.blocks, batch.inputs)

    gap = population.map(lambda model: measures.transition_gap(partial(loss, model), scales))
    whole = population.map(partial(loss, scale=torch.ones(depth, device=population.device)))
    return {"gap": gap, "error": whole, "growth r2": measures.norm_growth(population.map(norms)).r2}
