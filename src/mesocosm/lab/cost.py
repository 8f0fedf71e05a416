"""What a plan costs before it runs: parameters, floating-point operations, memory and time."""

import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mesocosm.lab.lab import Lab
from mesocosm.lab.study import Cell
from mesocosm.seeding import generator
from mesocosm.training.gradients import LARGE, gradients_of, plan
from mesocosm.training.streams import Online

PROBE_FLOPS = 5e10
"""A step of more operations than this is not timed but estimated from the device's matrix-product rate."""

PROBED = 64
"""Replicas in a timed step, at most."""

OVERHEAD = 1.25
"""A whole step over its gradient: sampling and update."""


@dataclass(frozen=True)
class Price:
    """The cost of one cell."""

    cell: str
    replicas: int
    steps: int
    parameters: int
    """Trainable, of one replica."""
    flops: float
    """Of the whole cell: forward and backward passes of all replicas and steps."""
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
        alike: tuple = (str(model), str(shapes), *task, cell.batch_size, loss)
        if alike not in self.known:
            self.known[alike] = _count(model, cell)
        flops, activations = self.known[alike]
        stack = max(int(LARGE[torch.device(self.lab.device).type] // max(flops, 1)), 1)
        gradients = 2 if hasattr(cell.optimiser, "ascend") else 1
        seconds = None
        if self.timed:
            alike += (min(len(cell.seeds), PROBED),)
            if alike not in self.probed:
                self.probed[alike] = _seconds_a_step(self.lab, cell, flops, stack)
            seconds = gradients * self.probed[alike] * cell.steps * len(cell.seeds)
        together = min(stack, len(cell.seeds))
        states = len(cell.optimiser.init(torch.empty(1, 0))) + 2 + (cell.average is not None)
        return Price(
            cell=cell.name,
            replicas=len(cell.seeds),
            steps=cell.steps,
            parameters=parameters,
            flops=gradients * flops * cell.steps * len(cell.seeds),
            memory=4 * parameters * (len(cell.seeds) + states * together) + activations * together,
            seconds=seconds,
        )

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


def _count(model: nn.Module, cell: Cell) -> tuple[float, int]:
    """Operations of one replica's step, and bytes its forward pass keeps for the backward pass."""
    batch = cell.task.sample(cell.batch_size, generator(0, "price"))
    own = {id(p) for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in own:
            kept[id(tensor)] = tensor.numel() * tensor.element_size()
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        cell.objective(model, batch._make(field.to("meta") for field in batch)).backward()
    return float(counter.get_total_flops()), sum(kept.values())


def _seconds_a_step(lab: Lab, cell: Cell, flops: float, stack: int) -> float:
    """Seconds that one step of one replica takes in its stack."""
    if flops > PROBE_FLOPS:
        return flops / _matrix_product_rate(torch.device(lab.device))
    population = lab.population(_with_seeds(cell, min(len(cell.seeds), stack, PROBED)))
    stream = Online(cell.task, cell.batch_size, list(cell.seeds)[: len(population)], chunk=1)
    batch = stream(0, population.index, population.device)
    plan(population, cell.objective, batch)
    gradients = gradients_of(population, cell.objective)
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
