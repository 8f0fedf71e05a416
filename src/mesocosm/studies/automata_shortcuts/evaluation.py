"""The automata, the strings that models are tested on, and the constructions."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mesocosm import lab, measures, models, tasks, training
from mesocosm.studies.automata_shortcuts.rules import DOUBLED, P_ONES

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mesocosm.tasks.base import Task
    from mesocosm.training import Population

AUTOMATA: dict[str, dict[str, Any]] = {
    "flip-flop": {"name": "flip-flop"},
    "grid-4": {"name": "gridworld", "n": 4},
    "grid-9": {"name": "gridworld", "n": 9},
    "adder": {"name": "adder"},
    "abab": {"name": "abab"},
    "parity": {"name": "parity"},
    "cyclic-3": {"name": "cyclic", "n": 3},
    "cyclic-5": {"name": "cyclic", "n": 5},
    "dihedral-3": {"name": "dihedral", "n": 3},
    "dihedral-4": {"name": "dihedral", "n": 4},
    "quaternion": {"name": "quaternion"},
    "symmetric-4": {"name": "symmetric", "n": 4},
    "alternating-4": {"name": "alternating", "n": 4},
    "alternating-5": {"name": "alternating", "n": 5},
    "symmetric-5": {"name": "symmetric", "n": 5},
    "permutation-reset-5": {"name": "permutation-reset", "n": 5},
}
CONSTRUCTIONS = {
    "counting head, parity": ("CountingHead", "parity", 128),
    "counting head, cyclic-5": ("CountingHead", "cyclic-5", 128),
    "last-write head, flip-flop": ("LastWriteHead", "flip-flop", 128),
    "two layers, grid-9": ("GridworldNetwork", "grid-9", 64),
    **{f"doubling, {name}": ("CompositionNetwork", name, 32) for name in ("grid-9", "abab", "quaternion", DOUBLED)},
}
"""Model, automaton and length of the strings on which each construction is held against it."""
SLICE = 2**15
"""Tokens that a model evaluates at once."""


def automaton(name: str, **settings: Any) -> Any:
    return tasks.Automaton(**AUTOMATA[name], **settings)


def changed(task: Any, **settings: Any) -> Any:
    """An automaton with other settings, inside its scratchpad where it has one."""
    if isinstance(task, tasks.Automaton):
        return replace(task, **settings)
    return replace(task, automaton=replace(task.automaton, **settings))


@dataclass
class Strangers:
    """A stream in which every string has the labels of another."""

    stream: Any

    def __call__(self, *arguments: Any) -> Any:
        batch = self.stream(*arguments)
        return batch._replace(targets=batch.targets.roll(1, dims=-2))


def sets_of(cell: lab.Cell, length: int) -> dict[str, "Task"]:
    """The tasks that a cell's models are tested on; brittle ones beyond what they were trained on."""
    short = changed(cell.task, length=length)
    if not isinstance(short, training.ScratchpadTask):
        short = changed(short, p_label=1.0)
    if cell.task.input_shape == short.input_shape:
        return {"test": short}
    biased = {f"p={p:g}": changed(short, probabilities=(1 - p, p)) for p in P_ONES}
    return {"test": short, "fresh": short, **biased, "long": changed(short, length=2 * length)}


def evaluate(cell: lab.Cell, population: "Population", length: int, strings: int) -> "dict[str, Tensor]":
    """Accuracy of every replica by position, `[R, T]`, on each test set; the same strings for all models.

    Models trained on strangers' labels are tested on such labels too. Models tested on biased strings also get their
    accuracy by the number of ones so far, `[R, T + 1]`, under "ones".
    """
    import torch

    from mesocosm.seeding import generator

    results: dict[str, Tensor] = {}
    biased: list[tuple[Tensor, ...]] = []
    for sample, task in sets_of(cell, length).items():
        batch = task.sample(strings, generator("automata-shortcuts", sample))
        if isinstance(cell.stream, Strangers):
            batch = batch._replace(targets=batch.targets.roll(1, dims=-2))
        states = torch.stack([answers(population.replica(r).eval(), task, batch) for r in range(len(population))])
        results[sample] = measures.accuracy_by_position(states, batch.targets, batch.weights)
        if sample.startswith("p="):
            symbols = batch.symbols if hasattr(batch, "symbols") else batch.inputs
            biased.append((states, batch.targets, batch.weights, symbols.cumsum(1)))
    if biased:
        joined = [torch.cat(parts, dim=-2) for parts in zip(*biased)]
        results["ones"] = measures.accuracy_by_difficulty(*joined, length + 1)
    return results


def answers(model: "nn.Module", task: Any, batch: Any) -> "Tensor":
    """States `[B, T]` that a model names; with a scratchpad it runs on its own states."""
    import torch

    device = next(model.parameters()).device
    rows = max(1, SLICE // task.input_shape[0])
    states = []
    with torch.no_grad():
        for part in map(batch._make, zip(*(field.to(device).split(rows) for field in batch))):
            if isinstance(task, training.ScratchpadTask):
                states.append(training.own_states(model, task, part.symbols).cpu())
            else:
                states.append(model(part.inputs).argmax(-1).cpu())
    return torch.cat(states)


def algebraic_rank(name: str) -> int:
    """1 without groups, 2 where symbols commute, 3 where the groups are solvable, 4 where not."""
    table = automaton(name).machine.next
    kind = measures.algebraic_class(table)
    return {"aperiodic": 1, "solvable": 2 if measures.is_commutative(table) else 3, "unsolvable": 4}[kind]


def hold_constructions(strings: int) -> "dict[str, Tensor]":
    """How many strings each construction gets wrong; the doubling network's accuracy `[1 + log2 T, T]` by layers."""
    import torch

    from mesocosm.seeding import generator

    def right(task: Any, network: Any) -> "Tensor":
        batch = task.sample(strings, generator("automata-shortcuts", "constructions"))
        slices = zip(*(field.split(512) for field in (batch.inputs, batch.state)))
        return torch.cat([network(symbols).argmax(-1) == state for symbols, state in slices])

    wrong = []
    for kind, name, length in CONSTRUCTIONS.values():
        task = automaton(name, length=length)
        wrong.append((~right(task, getattr(models, kind).for_task(task)).all(1)).sum())
    task = automaton(DOUBLED, length=32)
    doubling = [right(task, models.CompositionNetwork.for_task(task, n_layers=k)).double().mean(0) for k in range(6)]
    return {"wrong": torch.stack(wrong), "by layers": torch.stack(doubling)}
