"""What trained models are asked, and what they answer."""

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING, Any

from mesocosm import lab, measures
from mesocosm.studies.repeat_after_me.rules import REACH

if TYPE_CHECKING:
    from torch import Tensor, device

    from mesocosm.studies.repeat_after_me import Config
    from mesocosm.tasks.base import Task
    from mesocosm.training import Population

SLICE = 2**14
"""Tokens that a model reads at once."""
COPIER_LETTERS, COPIER_LENGTH = 4, 6


def tests(config: "Config", cell: lab.Cell) -> "list[Any]":
    """The tasks on which a trained model is tested: strings of fixed length, and for `copy` with a duplicate too."""
    task: Any = cell.task
    lengths = [math.floor(factor * task.max_length) for factor in REACH]
    fixed = [dataclasses.replace(task, min_length=length, max_length=length) for length in lengths]
    duplicated = config.duplicated if cell.name.startswith("copy/") else ()
    return fixed + [dataclasses.replace(fixed[0], duplicated=n) for n in duplicated]


def held_out(task: Any, sample: str, count: int, device: "device") -> list[Any]:
    """About `count` fixed samples of a task, in equal slices, with weight on the letters of answers only."""
    from mesocosm.seeding import generator

    slices = math.ceil(count * task.input_shape[0] / SLICE)
    batches = []
    for i in range(slices):
        batch = task.sample(math.ceil(count / slices), generator("repeat-after-me", sample, repr(task), i))
        batch = batch._replace(weights=(batch.source >= 0).float())
        batches.append(batch._make(field.to(device) for field in batch))
    return batches


def track(config: "Config", task: Any, population: "Population", step: int) -> "dict[str, Tensor]":
    """Every replica's accuracy on strings of the greatest training length."""
    longest = dataclasses.replace(task, min_length=task.max_length)
    batches = held_out(longest, "tracking", config.tracked, population.device)
    shares = population.map(lambda model: measures.length_generalisation(model, batches).mean(1))
    return {"strings": shares[:, 0], "characters": shares[:, 1]}


def evaluate(config: "Config", cell: lab.Cell, population: "Population") -> "dict[str, Tensor]":
    """Shares of strings and characters `[R, 2, tests]` that every replica gets right; its parameters and memory."""
    import torch

    results = []
    for r in range(len(population)):
        model, shares = population.replica(r).eval(), []
        with torch.no_grad():
            for test in tests(config, cell):
                batches = held_out(test, "test", config.strings, population.device)
                shares.append(measures.length_generalisation(model, batches).mean(1))
            memory = memory_of(model, cell.task, population.device)
        parameters = sum(p.numel() for p in model.parameters())
        results.append((torch.stack(shares, dim=1), torch.tensor(parameters), torch.tensor(memory)))
    return dict(zip(("shares", "parameters", "memory"), map(torch.stack, zip(*results))))


def memory_of(model: Any, task: "Task", device: "device") -> float:
    """Numbers that a model keeps of the longest training example, not a number where it doesn't tell."""
    import torch

    if not hasattr(model, "forward_with_cache"):
        return math.nan
    cache = model.forward_with_cache(torch.zeros(1, task.input_shape[0], dtype=torch.int64, device=device))[1]
    return float(sum(leaf.numel() for leaf in torch.utils._pytree.tree_leaves(cache)))


def measure_copier(kept: int) -> dict[str, float]:
    """States, right copies and bound of the machine that keeps so many letters, on all strings of its length."""
    import torch

    every = itertools.product(range(COPIER_LETTERS), repeat=COPIER_LENGTH)
    strings = torch.tensor(list(every))
    answers, state = measures.copy_through_state(strings, COPIER_LETTERS, kept)
    states = len(state.unique())
    return {
        "states": states,
        "accuracy": (answers == strings).all(1).double().mean().item(),
        "bound": measures.state_bound(math.log2(states), COPIER_LENGTH, COPIER_LETTERS),
    }
