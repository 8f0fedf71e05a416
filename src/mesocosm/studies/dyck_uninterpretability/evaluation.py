"""What is measured of trained populations and of the construction."""

from functools import partial
from typing import TYPE_CHECKING, Any

from mesocosm import measures, models

if TYPE_CHECKING:
    from torch import Tensor

    from mesocosm.tasks.dyck import BoundedDyck
    from mesocosm.training import Population
    from mesocosm.training.loop import History

LAST = 10
"""Accuracy at a length is that at the last positions, so many at most."""


def evaluate(task: "BoundedDyck", length: int, strings: int, history: "History") -> "dict[str, Tensor]":
    """All that is measured of a trained population; `task` has the longest strings, `length` is that of training."""
    measured = answers(task, length, strings, history.population)
    return measured | violations(task, history.population) | attention_changes(task, history)


def answers(task: "BoundedDyck", length: int, strings: int, population: "Population") -> "dict[str, Tensor]":
    """Answers after closing brackets, `right` `[R, T]` and `asked` `[T]` by position; and by pairs of replicas the
    share of equal answers at the last positions of `length`, `agreement` `[R, R]`.

    A prefix of a string is a string like any other, so the strings of `task` serve all lengths up to their own.
    """
    import torch

    from mesocosm.seeding import generator

    right, asked = torch.zeros(len(population), task.length), torch.zeros(task.length)
    equal = torch.zeros(len(population), len(population))
    last = slice(max(0, length - LAST), length)
    for first in range(0, strings, 100):
        drawn: Any = task.sample(min(100, strings - first), generator("dyck", "strings", first))
        batch = drawn._make(field.to(population.device) for field in drawn)
        query = (batch.match >= 0) & (batch.depth > 0)
        said = population.map(partial(measures.teacher_forced, batch=batch))  # [R, B, T]
        right += ((said == batch.targets) & query).sum(1).cpu()
        asked += query.sum(0).cpu()
        said = said[..., last][:, query[:, last]]  # [R, queries]
        equal += torch.stack([(said == one).sum(1) for one in said]).cpu()
    return {"right": right, "asked": asked, "agreement": equal / asked[last].sum()}


def violations(task: "BoundedDyck", population: "Population") -> "dict[str, Tensor]":
    """Every replica's mean violation of balance `[R]`, of matching brackets and of all that do not match."""
    import torch

    if not isinstance(population.module, models.BracketAttention):
        return {}
    pairs = task.pairs.to(population.device)
    others = [torch.stack([pairs[:, 0], pairs[:, 1].roll(shift)], dim=1) for shift in range(1, len(pairs))]

    def violation(chosen: "Tensor", model: Any) -> "Tensor":
        return measures.balance_violation(model.scores(), model.values(), chosen).mean()

    chosen = {"violation": pairs, "permuted violation": torch.cat(others)}
    return {name: population.map(partial(violation, these)) for name, these in chosen.items()}


def probe(task: "BoundedDyck") -> Any:
    """The batch of the paper's string, [[[[]]]](((()))) at depth 4: `[1, 4 D]`."""
    import torch

    there = torch.ones(task.max_depth, dtype=torch.int64)
    opens = torch.cat([there, 0 * there]).bool().repeat(2)
    return task.read(opens[None], torch.cat([there, there, 0 * there, 0 * there])[None])


def probe_attention(task: "BoundedDyck", population: "Population", step: int) -> "dict[str, Tensor]":
    """The last layer's attention on the probe, its heads averaged: a number `[R]` for every query and key."""
    names = [name for name in getattr(population.module, "hook_names", ()) if name.endswith("hook_pattern")]
    if not names:
        return {}
    tokens = probe(task).inputs.to(population.device)
    return by_name(population.map(lambda model: model(tokens, capture=names[-1:])[1][names[-1]][0].mean(0)))


def by_name(maps: "Tensor") -> "dict[str, Tensor]":
    """Causal attention maps `[M, T, T]` as numbers `[M]` for every query and key."""
    return {f"attention {q},{k}": maps[:, q, k] for q in range(maps.shape[1]) for k in range(q + 1)}


def attention_changes(task: "BoundedDyck", history: "History") -> "dict[str, Tensor]":
    """From what `probe_attention` measured: the final maps `[R, T, T]`, their variation `[R, R]` and that at first, and
    of each its change since the last measurement but one and its distance to the attention of a stack, `[R]`."""
    import torch

    if "attention 0,0" not in history.metrics:
        return {}
    reference = probe(task)
    length = reference.inputs.shape[1]
    maps = torch.zeros(*history.metrics["attention 0,0"].shape, length, length, dtype=torch.float64)
    for q in range(length):
        for k in range(q + 1):
            maps[..., q, k] = history.metrics[f"attention {q},{k}"]
    first, late, last = maps[0], maps[-2], maps[-1]
    return {
        "maps": last,
        "variation": measures.pairwise_variation(last),
        "initial variation": measures.pairwise_variation(first),
        "late change": (last - late).square().sum((1, 2)),
        "distance to the stack": (last - measures.stack_attention(reference.stack_top)).square().sum((1, 2)),
    }


def construct(task: "BoundedDyck", draws: int, strings: int) -> "dict[str, Tensor]":
    """Of attention with random scores: share of right answers with values that balance them and with values that do
    not, and the balanced maps of the probe, `[draws, T, T]`."""
    import torch

    from mesocosm.seeding import generator

    batch, tokens = task.sample(strings, generator("dyck", "construction")), probe(task).inputs
    shares, maps = [], []
    for draw, balanced in ((draw, balanced) for draw in range(draws) for balanced in (True, False)):
        scores = generator("dyck", "scores", draw)
        model = models.BalancedAttention.random(
            n_types=task.n_types, max_depth=task.max_depth, std=2.0, generator=scores, balanced=balanced
        )
        right = (model(batch.inputs).argmax(-1) == batch.targets)[batch.weights > 0]
        shares.append(right.double().mean())
        if balanced:
            name = model.hook_names[0]
            maps.append(model(tokens, capture=[name])[1][name][0, 0])
    balanced, unbalanced = torch.stack(shares).unflatten(0, (draws, 2)).unbind(1)
    return {"right answers": balanced, "unbalanced": unbalanced, "maps": torch.stack(maps)}
