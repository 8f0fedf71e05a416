"""What a network of this study knows, on held-out rows that all networks share."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mesocosm import measures, models, training

if TYPE_CHECKING:
    from torch import Tensor, device, nn

    from mesocosm.studies.stacking_midas import Config
    from mesocosm.training import Population

ONLY = {"assignments": (1, 0, 0, 0), "facts": (0, 1, 0, 0), "copying": (0, 0, 1, 0), "filler": (0, 0, 0, 1)}


def held_out(task: Any, rows: int, device: "device") -> dict[str, Any]:
    """Fixed rows of each depth of assignments, and of each other source that the mixture has, by name."""
    from mesocosm.seeding import generator

    chosen = {f"depth {depth}": replace(task, shares=ONLY["assignments"], depths=(depth,)) for depth in task.depths}
    for share, name in zip(task.shares[1:], list(ONLY)[1:]):
        if share > 0:
            chosen[name] = replace(task, shares=ONLY[name])
    sets = {name: source.sample(rows, generator("stacking-midas", name)) for name, source in chosen.items()}
    return {name: batch._make(field.to(device) for field in batch) for name, batch in sets.items()}


def accuracy(model: "nn.Module", batch: Any) -> "Tensor":
    return 1 - measures.error_rate(model(batch.inputs), batch.targets, batch.weights)


def knowledge(model: "nn.Module", sets: dict[str, Any]) -> "dict[str, Tensor]":
    """Accuracy on each set, but the loss on filler, whose answers are random."""
    found = {f"accuracy, {name}": accuracy(model, batch) for name, batch in sets.items() if name != "filler"}
    return found | {"filler loss": training.cross_entropy(model, sets["filler"])} if "filler" in sets else found


def track(
    config: "Config", task: Any, population: "Population", step: int, rows: int | None = None
) -> "dict[str, Tensor]":
    """What every replica knows along training, and how many layers it has where that can be told."""
    import torch

    sets = held_out(task, rows or config.tracked_rows, population.device)
    found = population.map(lambda model: knowledge(model, sets))
    if isinstance(population.module, models.Transformer):
        found["layers"] = torch.full((len(population),), float(len(population.module.blocks)))
    return found


def evaluate(config: "Config", task: Any, population: "Population") -> "dict[str, Tensor]":
    """What every replica knows, its loss on the mixture, and what is lost without the second half of its layers."""
    import torch

    from mesocosm.seeding import generator

    sets = held_out(task, config.rows, population.device)
    batch = task.sample(2 * config.rows, generator("stacking-midas", "mixture"))
    batch = batch._make(field.to(population.device) for field in batch)

    def measure(model: Any) -> "dict[str, Tensor]":
        found = knowledge(model, sets) | {"validation loss": training.cross_entropy(model, batch)}
        if isinstance(model, models.Transformer) and not isinstance(model, models.Looped):
            half = (torch.arange(len(model.blocks)) < len(model.blocks) // 2).float()
            with training.scaled_layers(model.blocks, half):
                shallow = knowledge(model, sets)
            found |= {f"depth score, {name}": found[name] - value for name, value in shallow.items()}
        return found

    return population.map(measure)


def block_similarities(config: "Config", task: Any, population: "Population") -> "Tensor":
    """Similarity of every two blocks, `[R, k, k]`: the mean of that of their first, second, ... layers."""
    from mesocosm.seeding import generator
    from mesocosm.tasks.reasoning import PAD

    inputs = task.sample(config.rows, generator("stacking-midas", "similarity")).inputs.to(population.device)
    counted = (inputs != task.tokens.index(PAD)).float()
    layers = population.map(lambda model: measures.block_similarity(model, inputs, model.blocks, counted))
    b = config.block_layers
    return layers.unflatten(2, (-1, b)).unflatten(1, (-1, b)).diagonal(dim1=2, dim2=4).mean(-1)


def similarities(config: "Config", task: Any, population: "Population") -> "dict[str, Tensor]":
    """Similarity `[R]` of every two blocks, by their numbers."""
    found = block_similarities(config, task, population)
    blocks = range(found.shape[1])
    return {f"{i} {j}": found[:, i, j] for i in blocks for j in blocks}


def similarity_when_grown(
    config: "Config", task: Any, population: "Population", make: "Callable[[], nn.Module]"
) -> "dict[str, Tensor]":
    """Similarity `[R]` of the middle block to what a further growth puts behind it: its copy, or a fresh block."""
    from mesocosm.training import Population

    found = {}
    copied: Any = training.copy_middle(config.stages, config.block_layers)
    middle = (config.stages - 1) // 2
    for name, sources in (("copy", copied), ("fresh", training.without_copies(copied))):
        larger = Population(make, population.seeds, str(population.device))
        growth = training.Growth(1, make, training.layer_sources("blocks.{}.", sources))
        growth.transfer(population.weights(), larger.weights())
        found[f"similarity of a {name} block"] = block_similarities(config, task, larger)[:, middle, middle + 1]
    return found


def examples(config: "Config", task: Any, count: int, seeds: Sequence[int]) -> "tuple[Any, Any, Tensor]":
    """Assignments of the greatest depth alone: their task, `count` of them for each seed, and which are whose."""
    import torch

    from mesocosm.seeding import generator

    alone = replace(task, shares=ONLY["assignments"], depths=(max(task.depths),))
    parts = [alone.sample(count, generator("stacking-midas", "examples", seed)) for seed in seeds]
    data = parts[0]._make(torch.cat(fields) for fields in zip(*parts))
    return alone, data, torch.arange(len(seeds) * count).view(len(seeds), count)
