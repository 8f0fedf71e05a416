"""What is measured of each replica: its distances to the strategies, and where it attends."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from mesocosm import lab, measures, training

if TYPE_CHECKING:
    from torch import Tensor

    from mesocosm.lab.lab import Lab
    from mesocosm.training import Population
    from mesocosm.training.loop import Measure

LOOKED_AT = 64
"""Held-out chains on which attention is measured."""
OFFSETS, SHOWN = 8, 20
"""Offsets, and tokens of one chain, whose attention is drawn."""


@cache
def held_out(task: Any, count: int) -> "tuple[Tensor, Tensor, dict[str, Tensor]]":
    """Fixed chains `[B, T]`, and the log probabilities `[B, T, V]` of what follows: in truth, and by strategy."""
    from mesocosm.seeding import generator

    batch = task.sample(count, generator("induction-heads", "held-out"))
    strategies = measures.ngram_strategies(task, batch.inputs, longest=task.order + 1)
    return batch.inputs, batch.probabilities.log(), strategies


def second_half(values: "Tensor") -> "Tensor":
    """Mean of `[B, T]` over the second half of the positions."""
    return values[:, values.shape[1] // 2 :].mean()


def distances(task: Any, count: int) -> "Measure":
    """Measures how far each replica's predictions are from the truth and from each strategy, and how it attends."""

    def measure(population: "Population", step: int) -> "dict[str, Tensor]":
        inputs, truth, strategies = held_out(task, count)
        inputs, truth = inputs.to(population.device), truth.to(population.device)
        strategies = {name: rule.to(population.device) for name, rule in strategies.items()}

        def of_one(model: Any) -> "dict[str, Tensor]":
            predicted = model(inputs).log_softmax(-1)
            found = {f"KL to {n}": measures.kl_divergence(predicted, rule) for n, rule in strategies.items()}
            found["KL from truth"] = measures.kl_divergence(truth, predicted)
            return {name: second_half(values) for name, values in found.items()} | attention(model, inputs[:LOOKED_AT])

        return population.map(of_one)

    return measure


def patterns(model: Any, inputs: "Tensor") -> "list[Tensor]":
    """Attention patterns `[B, H, T, T]` of all layers; none of a model that does not give them."""
    names = [name for name in getattr(model, "hook_names", ()) if name.endswith("hook_pattern")]
    return list(map(model(inputs, capture=names)[1].get, names)) if names else []


def attention(model: Any, inputs: "Tensor") -> "dict[str, Tensor]":
    """How much layer 1 looks one and two symbols back, and the last layer at induced keys, each by its best head."""
    found = patterns(model, inputs)
    if not found:
        return {}
    back = measures.attention_by_offset(found[0], 3).mean(0).amax(0)
    return {
        "layer 1 one back": back[1],
        "layer 1 two back": back[2],
        "induction": measures.induction_score(found[-1], inputs).amax(),
    }


def arrived(values: "dict[str, Tensor]") -> "Tensor":
    """Whether each replica is nearer to the bigram rule than to the simpler strategies."""
    return values["KL to bigram"] < values["KL to unigram"].minimum(values["KL to uniform"])


def minimal_weights(population: "Population", step: int) -> "dict[str, Tensor]":
    """Measures the minimal model's weights: of layer 2 by diagonal, of layer 1 by offset from the last position."""

    def of_one(model: Any) -> "dict[str, Tensor]":
        diagonal, entries = model.matrix.diagonal(), model.matrix.numel()
        off = (model.matrix.sum() - diagonal.sum()) / (entries - len(diagonal))
        back = model.attention()[-1].flip(0)
        return {"on diagonal": diagonal.mean(), "off diagonal": off, **{f"{o} back": back[o] for o in range(3)}}

    return population.map(of_one)


def attention_at(
    lab: "Lab", cell: lab.Cell, trained: "Population", inputs: "Tensor", steps: Sequence[int]
) -> "dict[str, Tensor]":
    """The first seed's attention at three steps, the last being the end: layer 1 by offset, layer 2 on one chain.

    To come to the earlier steps the seed is trained once more; its trajectory is the same alone.
    """
    import torch

    inputs, looks = inputs[:LOOKED_AT], {}
    chain = int(torch.nn.functional.one_hot(inputs[:, :SHOWN]).sum(1).amax(1).argmin())  # Of the most even symbols.

    def look(population: "Population", step: int) -> "dict[str, Tensor]":
        if step in steps:
            found = patterns(population.replica(0).eval(), inputs.to(population.device))
            offsets = measures.attention_by_offset(found[0], OFFSETS).mean((0, 1))
            looks[step] = {"offsets": offsets, "map": found[-1][chain, :, :SHOWN, :SHOWN].mean(0)}
        return {}

    alone = replace(cell, seeds=cell.seeds[:1])
    stream = training.Online(cell.task, cell.batch_size, alone.seeds)
    look(trained, steps[-1])
    how: Any = {"steps": steps[1], "clip": cell.clip, "measure": look, "every": cell.every}
    training.train(lab.population(alone), stream, cell.objective, cell.optimiser, **how)
    tables = {name: torch.stack([looks[step][name] for step in steps]).detach().cpu() for name in ("offsets", "map")}
    return {**tables, "tokens": inputs[chain, :SHOWN]}
