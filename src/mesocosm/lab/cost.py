"""What a plan costs before it runs: parameters, floating-point operations, memory and time."""

import copy
import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mesocosm.lab.lab import Lab
from mesocosm.lab.study import Cell
from mesocosm.training.gradients import fitting, flop_counter, gradients_of, part_of, plan
from mesocosm.training.population import row
from mesocosm.training.streams import Online, kinds_of

PROBE_FLOPS = 5e10
"""A step of more operations than this is not timed but estimated from the device's matrix-product rate."""

PROBED = 64
"""Replicas in a timed step, at most."""

OVERHEAD = 1.25
"""A whole step over its gradient: sampling and update."""

LOOKED_AT = 200
"""Steps, evenly spread, from which the share of each kind of step is told."""


@dataclass(frozen=True)
class Price:
    """The cost of one cell."""

    cell: str
    replicas: int
    steps: int
    parameters: int
    """Trainable, of one replica."""
    flops: float
    """Of the whole cell: forward and backward passes of all replicas and steps, and of teachers."""
    memory: int
    """Bytes for weights, gradients, optimiser state and activations of the replicas that step together."""
    seconds: float | None
    """On this device, measuring left out; a cell that stops early costs less."""


def price(lab: Lab, cells: Iterable[Cell], timed: bool = True) -> list[Price]:
    """Price every cell; `timed` runs some steps on `lab`'s device, once for all alike."""
    meter = _Meter(lab, timed)
    return [_total([meter.price(part) for part in _parts(cell)]) for cell in cells]


def _parts(cell: Cell) -> list[Cell]:
    """A cell that grows as one cell for each size, any other as it is."""
    changes = [0, *(growth.step for growth in cell.grow), cell.steps]
    makes = [cell.model, *(lambda task, make=growth.make_model: make() for growth in cell.grow)]
    return [
        dataclasses.replace(cell, model=make, steps=end - start, grow=())
        for make, start, end in zip(makes, changes, changes[1:])
    ]


def _total(parts: list[Price]) -> Price:
    seconds = [part.seconds for part in parts if part.seconds is not None]
    return dataclasses.replace(
        parts[-1],
        steps=sum(part.steps for part in parts),
        flops=sum(part.flops for part in parts),
        memory=max(part.memory for part in parts),
        seconds=sum(seconds) if seconds else None,
    )


class _Meter:
    """Prices trainings, and measures alike ones once."""

    def __init__(self, lab: Lab, timed: bool) -> None:
        self.lab, self.timed = lab, timed
        self.known: dict[tuple, tuple[float, int]] = {}
        self.probed: dict[tuple, float] = {}

    def price(self, cell: Cell) -> Price:
        model = self._blank(cell)
        parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        shapes = [(name, p.shape) for name, p in model.named_parameters()]
        loss = getattr(cell.objective, "__qualname__", repr(cell.objective))
        task = (cell.task.input_shape, cell.task.output_shape)
        alike: tuple = (str(model), str(shapes), *task, cell.batch_size, cell.accumulate, loss)
        one, activations = self._gradient(alike, model, cell, _draw(cell)[0])
        gradients = 2 if hasattr(cell.optimiser, "ascend") else 1
        step = self._mean(alike, model, cell, gradients) if hasattr(cell.stream, "kinds") else gradients * one
        stack = max(fitting(one / cell.accumulate, torch.device(self.lab.device).type), 1)
        seconds = None
        if self.timed:
            alike += (min(len(cell.seeds), PROBED),)
            if alike not in self.probed:
                self.probed[alike] = _seconds_a_step(self.lab, cell, one, stack)
            seconds = self.probed[alike] * step / max(one, 1) * cell.steps * len(cell.seeds)
        together = min(stack, len(cell.seeds))
        states = len(cell.optimiser.init(torch.empty(1, 0))) + 2 + (cell.average is not None) + (cell.accumulate > 1)
        return Price(
            cell=cell.name,
            replicas=len(cell.seeds),
            steps=cell.steps,
            parameters=parameters,
            flops=step * cell.steps * len(cell.seeds),
            memory=4 * parameters * (len(cell.seeds) + states * together) + activations * together,
            seconds=seconds,
        )

    def _gradient(self, alike: tuple, model: nn.Module, cell: Cell, batch: Any) -> tuple[float, int]:
        """As `_count`, once for all cells alike and for each path of layers."""
        path = tuple((batch.layer_scale > 0).tolist()) if hasattr(batch, "layer_scale") else ()
        if (alike, path) not in self.known:
            self.known[alike, path] = _count(model, cell, batch)
        return self.known[alike, path]

    def _mean(self, alike: tuple, model: nn.Module, cell: Cell, gradients: int) -> float:
        """Operations of a step, with what its stream computes, on average over the kinds of steps."""
        kinds: dict[Any, list[int]] = {}
        for step in range(0, cell.steps, max(1, cell.steps // LOOKED_AT)):
            kinds.setdefault(kinds_of(cell.stream, step, [0])[0], []).append(step)
        total = 0.0
        for steps in kinds.values():
            batch, drawing = _draw(cell, steps[0])
            gradient, _ = self._gradient(alike, model, cell, batch)
            total += (gradients * gradient + drawing) * len(steps)
        return total / sum(map(len, kinds.values()))

    def _blank(self, cell: Cell) -> nn.Module:
        """The cell's model without numbers, or with them where it can't be made otherwise."""
        try:
            with torch.device("meta"):
                return self.lab.model(cell)
        except (RuntimeError, NotImplementedError):  # It computes with its numbers while it is made.
            return self.lab.model(cell).to("meta")


def _with_seeds(cell: Cell, count: int) -> Cell:
    return dataclasses.replace(
        cell, seeds=list(cell.seeds)[:count], init=list(cell.init)[:count] if cell.init else None
    )


def _sampled(stream: Any, cell: Cell) -> Any:
    """The stream with plain samples of the task beneath all that is added to them."""
    if hasattr(stream, "streams"):  # Of joined cells.
        changed = copy.copy(stream)
        changed.streams = [_sampled(own, part) for own, part in zip(stream.streams, stream.parts.cells)]
        return changed
    if not hasattr(stream, "stream"):
        return Online(cell.task, cell.batch_size, list(cell.seeds), chunk=1)
    changed = copy.copy(stream)
    changed.stream = _sampled(stream.stream, cell)
    return changed


def _draw(cell: Cell, step: int = 0) -> tuple[Any, float]:
    """A batch `[B, ...]` of one replica, and the operations that drawing it takes."""
    with flop_counter() as counter:
        batch = row(_sampled(cell.stream, cell)(step, [0], torch.device("cpu")), 0)
    return batch, float(counter.get_total_flops())


def _count(model: nn.Module, cell: Cell, batch: Any) -> tuple[float, int]:
    """Operations of one replica's gradient, and bytes that its forward pass, of one part of the batch, keeps."""
    own = {id(p) for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in own:
            kept[id(tensor)] = tensor.numel() * tensor.element_size()
        return tensor

    # Which layers a path skips is to be read from it.
    blank = {name: field if name == "layer_scale" else field.to("meta") for name, field in batch._asdict().items()}
    whole = type(batch)(**blank)
    counter = flop_counter()
    with counter, torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        cell.objective(model, _first_part(whole, cell.accumulate)).backward()
    if cell.accumulate > 1:
        with (counter := flop_counter()):
            cell.objective(model, whole).backward()
    return float(counter.get_total_flops()), sum(kept.values())


def _first_part(batch: Any, parts: int) -> Any:
    """Of a batch `[B, ...]` of one replica."""
    return row(part_of(batch._make(field[None] for field in batch), 0, parts), 0)


def _seconds_a_step(lab: Lab, cell: Cell, flops: float, stack: int) -> float:
    """Seconds that one step of one replica takes in its stack."""
    if flops > PROBE_FLOPS:
        return flops / _matrix_product_rate(torch.device(lab.device))
    population = lab.population(_with_seeds(cell, min(len(cell.seeds), stack, PROBED)))
    batch = _sampled(cell.stream, cell)(0, population.index, population.device)
    plan(population, cell.objective, part_of(batch, 0, cell.accumulate))
    gradients = gradients_of(population, cell.objective, accumulate=cell.accumulate)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        _, losses = gradients(population.theta, population.step_state(0), batch)
        losses.sum().item()
        times.append(time.perf_counter() - began)
    return min(times) * OVERHEAD / len(population)


def _matrix_product_rate(device: torch.device) -> float:
    a = torch.randn(1024, 1024, device=device)
    (a @ a).sum().item()
    began = time.perf_counter()
    for _ in range(4):
        a = (a @ a) * 1e-3
    a.sum().item()
    return 4 * 2 * 1024**3 / (time.perf_counter() - began)
