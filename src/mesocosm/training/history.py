"""What a training leaves: measurements by step and final weights, and how they are kept on disk."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from mesocosm.training.population import Population

PHASES = ("sampling", "step", "measuring")

Saved = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors and facts (plain JSON values) from which a training goes on."""


@dataclass
class History:
    """What a training left: measurements by step, and the population with its final weights."""

    population: Population
    steps: list[int]
    """The E steps at which was measured: updates done."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """By name, `[E, R]` float64; NaN where a replica had stopped or was not measured."""
    diverged: dict[int, int] = field(default_factory=dict)
    """Replica -> first step whose loss was not finite."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    """Where the time went; on a GPU, which works on while the loop goes on, the time of the loop alone."""

    def add(self, step: int, rows: Sequence[int], values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            if name not in self.metrics:
                shape = (len(self.steps), len(self.population))
                self.metrics[name] = torch.full(shape, torch.nan, dtype=torch.float64)
            self.metrics[name][self.steps.index(step), list(rows)] = value

    def last(self, name: str) -> Tensor:
        """Each replica's last measured value of a metric, `[R]`."""
        table = self.metrics[name]
        count = torch.arange(1, len(table) + 1)[:, None].masked_fill(table.isnan(), 0).amax(0)
        return table[(count - 1).clamp_min(0), torch.arange(table.shape[1])]

    def saved(self) -> Saved:
        """The finished training as tensors and facts, from which `train` gives it back at once."""
        layout = self.population.layout
        tensors = {"final.theta": layout.gathered(self.population.theta)}
        tensors |= {f"final.state.{n}": t for n, t in self.population.state.items()}
        if self.population.average is not None:
            tensors["final.average"] = layout.gathered(self.population.average)
        tensors |= {f"metric.{n}": t for n, t in self.metrics.items()}
        diverged = {str(replica): step for replica, step in self.diverged.items()}
        facts = {"stack": 1, "first": len(self.population), "mappable": self.population.mappable}
        return tensors, {**facts, "reason": self.population.reason, "diverged": diverged, "clock": dict(self.seconds)}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Take over what `saved` gave."""
        whole = self.population
        whole.theta = whole.layout.scattered(tensors["final.theta"]).to(whole.device)
        whole.state = under("final.state.", tensors, whole.device)
        average = tensors.get("final.average")
        whole.average = None if average is None else whole.layout.scattered(average).to(whole.device)
        if not whole.sharded:
            whole.mappable, whole.reason = facts["mappable"], facts["reason"]
        self.metrics = under("metric.", tensors, "cpu")
        self.diverged = {int(replica): step for replica, step in facts["diverged"].items()}
        self.seconds = dict(facts["clock"])


def under(prefix: str, tensors: dict[str, Tensor], device: str | torch.device) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t.to(device) for n, t in tensors.items() if n.startswith(prefix)}


def merged(parts: Sequence[Saved]) -> Saved:
    """What finished trainings of some replicas each saved, as one of all of them in this order."""
    tensors = {}
    for name in dict.fromkeys(name for given, _ in parts for name in given):
        known = next(given[name] for given, _ in parts if name in given)
        # All replicas of a part may have stopped before a metric was first there.
        several = [given.get(name, known.new_full((len(known), facts["first"]), torch.nan)) for given, facts in parts]
        tensors[name] = torch.cat(several, dim=_replica_axis(name))
    starts = list(accumulate((facts["first"] for _, facts in parts), initial=0))
    diverged = {
        str(start + int(replica)): step
        for start, (_, facts) in zip(starts, parts)
        for replica, step in facts["diverged"].items()
    }
    clock = {phase: sum(facts["clock"][phase] for _, facts in parts) for phase in PHASES}
    return tensors, {**parts[0][1], "first": starts[-1], "diverged": diverged, "clock": clock}


def taken(saved: Saved, rows: range) -> Saved:
    """What a finished training saved, of some of its replicas."""
    tensors, facts = saved
    tensors = {name: tensor.narrow(_replica_axis(name), rows.start, len(rows)) for name, tensor in tensors.items()}
    diverged = {str(int(r) - rows.start): step for r, step in facts["diverged"].items() if int(r) in rows}
    clock = {phase: seconds * len(rows) / facts["first"] for phase, seconds in facts["clock"].items()}
    return tensors, {**facts, "first": len(rows), "diverged": diverged, "clock": clock}


def _replica_axis(name: str) -> int:
    return 1 if name.startswith("metric.") else 0
