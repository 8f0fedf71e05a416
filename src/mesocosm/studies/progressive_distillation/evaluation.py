"""What networks answer on fixed samples, and what their answers depend on."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mesocosm import measures

if TYPE_CHECKING:
    from torch import Tensor, device, nn

    from mesocosm.studies.progressive_distillation import Config
    from mesocosm.training import Checkpoints, Population

SLICE = 2**16
"""Input numbers or tokens that a model evaluates at once."""
NGRAMS = (3, 5)
"""Lengths of the n-grams around a masked token: one or two neighbours on each side."""


def held_out(task: Any, sample: str, count: int, device: "device") -> Iterator[Any]:
    """Fixed samples of a task in slices, the same for all models."""
    from mesocosm.seeding import generator

    batch = task.sample(count, generator("progressive-distillation", sample))
    rows = max(1, SLICE // task.input_shape[0])
    for first in range(0, count, rows):
        yield batch._make(field[first : first + rows].to(device) for field in batch)


def mask_of(task: Any) -> int:
    """The token that masks."""
    return task.tokens.index("MASK")


def track(config: "Config", task: Any, population: "Population", step: int) -> "dict[str, Tensor]":
    """Accuracy of every replica `[R]`; of tokens on the masked ones alone, not on those kept or replaced."""

    def count(batch: Any, model: "nn.Module") -> "Tensor":
        return ((model(batch.inputs).argmax(-1) == batch.targets) * batch.weights).sum()

    right: Any = 0
    total: Any = 0
    for batch in held_out(task, "test", config.tested(task), population.device):
        if task.tokens:
            batch = batch._replace(weights=batch.weights * (batch.inputs == mask_of(task)))
        right, total = right + population.map(partial(count, batch)), total + batch.weights.sum()
    return {"accuracy": right / total.clamp_min(1)}


def features(
    config: "Config", task: Any, kept: "Checkpoints", population: "Population", steps: Sequence[int]
) -> "dict[str, Tensor]":
    """What teachers of a tree of parities show of each node's bits at E checkpoints, means over the nodes of a level.

    At a node stands half the probability of the leaves on its left less that of those on its right. With two classes
    this is 1/2 less the probability of class 1. Each teacher is asked about inputs of its own, so that the intervals
    over teachers cover the error of sampling.

    Returns:
        "on", "off" and "off again" `[E, R, L, D]` by level and degree: mean |correlation| with products of the node's
        own bits, and of two random choices of bits outside all nodes; "right turns" `[E, R, L]`: the share of right
        turns at a level among inputs that were right above it.
    """
    import torch

    each = [features_of(config, task, kept, population.select([r]), steps) for r in range(len(population))]
    return {name: torch.stack([found[name] for found in each], dim=1).cpu() for name in each[0]}


def features_of(
    config: "Config", task: Any, kept: "Checkpoints", teacher: "Population", steps: Sequence[int]
) -> "dict[str, Tensor]":
    """The same of one teacher, without the axis R."""
    import torch

    turns, right = [], []
    batches = list(held_out(task, f"features {teacher.seeds[0]}", config.inputs, teacher.device))
    inputs, targets = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("inputs", "targets"))
    for step in steps:
        earlier = kept.at(teacher, [step])
        p = torch.cat([earlier.map(partial(probabilities, batch.inputs))[0] for batch in batches])
        turns.append(torch.cat(list(levels(p)), dim=-1))
        right.append(right_turns(p.argmax(-1), targets, task.n_classes))
    values = torch.stack(turns).movedim(-1, 0)  # [nodes, E, N]

    outside = list(range(task.supports.numel(), task.n))
    found: dict[str, list[Tensor]] = {"on": [], "off": [], "off again": []}
    for own, value in zip(task.supports.tolist(), values):
        strength = partial(measures.monomial_strength, value, inputs[:, own + outside], range(task.k))
        first, again = ([strength(d, seed=seed) for d in range(1, task.k)] for seed in (0, 1))
        found["on"].append(torch.stack([on for on, _ in first], -1))
        found["off"].append(torch.stack([off for _, off in first], -1))
        found["off again"].append(torch.stack([off for _, off in again], -1))
    tables = {name: torch.stack(nodes, dim=1) for name, nodes in found.items()}  # [E, nodes, D]
    by_level = [task.node_levels == level for level in task.node_levels.unique()]
    means = {name: torch.stack([t[:, own].mean(1) for own in by_level], 1) for name, t in tables.items()}
    return means | {"right turns": torch.stack(right)}


def probabilities(inputs: "Tensor", model: "nn.Module") -> "Tensor":
    return model(inputs).softmax(-1)


def levels(p: "Tensor") -> "Iterator[Tensor]":
    """Half the difference between left and right at each node of a level, `[..., nodes]`, from leaves `[..., K]`."""
    nodes = 1
    while nodes < p.shape[-1]:
        sides = p.unflatten(-1, (nodes, 2, -1)).sum(-1)
        yield (sides[..., 0] - sides[..., 1]) / 2
        nodes *= 2


def right_turns(predicted: "Tensor", targets: "Tensor", n_classes: int) -> "Tensor":
    """Share of right turns at each level among inputs that were right above it, `[..., L]`, of leaves `[..., N]`."""
    import torch

    shares, right = [], torch.ones_like(predicted, dtype=torch.bool)
    leaves = n_classes
    while leaves > 1:
        leaves //= 2
        before, right = right, predicted // leaves == targets // leaves
        shares.append(right.sum(-1) / before.sum(-1))
    return torch.stack(shares, dim=-1)


def ngrams(config: "Config", task: Any, stages: "Iterable[Population]") -> "dict[str, Tensor]":
    """M_robust and M_close of one network at successive stages, on each of S sentences: `[E, n-grams, S]`."""
    import torch

    each = [ngrams_of(config, task, population) for population in stages]
    return {name: torch.stack([found[name][0] for found in each]).cpu() for name in each[0]}


def ngrams_of(config: "Config", task: Any, population: "Population") -> "dict[str, Tensor]":
    """The same of every replica, `[R, n-grams, S]`."""
    import torch

    from mesocosm.seeding import generator

    mask = mask_of(task)
    uniform = torch.rand(config.sentences, generator=generator("progressive-distillation", "positions"))
    found: dict[str, list[Any]] = {"dependence": [], "closeness": []}
    for batch in held_out(task, "sentences", config.sentences, population.device):
        if hasattr(batch, "length"):
            maskable, length, first = batch.targets < task.n_terminals, batch.length, 1
        else:
            maskable, length, first = batch.targets < mask, len(batch.targets[0]), 0
        place, uniform = uniform[: len(batch.targets)].to(population.device), uniform[len(batch.targets) :]
        position = first + (place * length).long()

        def measure(model: "nn.Module", arguments: Any = (batch.targets, position), able: Any = maskable) -> Any:
            predict = lambda tokens: probabilities(tokens, model)
            dependence = [measures.ngram_dependence(predict, *arguments, n, able, mask) for n in NGRAMS]
            closeness = [measures.ngram_closeness(predict, *arguments, n, able, mask) for n in NGRAMS]
            return torch.stack(dependence), torch.stack(closeness)

        for name, values in zip(found, population.map(measure)):
            found[name].append(values)
    return {name: torch.cat(parts, dim=-1) for name, parts in found.items()}
