"""What training costs: floating-point operations and tokens of every replica, counted as it goes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mesocosm.training.gradients import flop_counter, flops_of_step
from mesocosm.training.parallel import total
from mesocosm.training.population import Population
from mesocosm.training.streams import kinds_of

__all__: list[str] = []

COUNTED = ("flops", "tokens")


class Meter:
    """Counts the operations of one step of one replica alone, once for every kind of step there is.

    Counted are matrix products, convolutions and attention, forward and backward: of the network, twice for an
    optimiser that goes uphill first, and of what a stream computes with networks of its own (one that has `kinds`).

    Args:
        stream: as `train` takes it.
        read: makes a batch of what is given to `step`.
        gradients: how many a step takes.
        accumulate: parts in which a batch is read.
    """

    def __init__(
        self,
        objective: Callable[..., Tensor],
        stream: Callable[..., Any],
        read: Callable[[Any], Any],
        gradients: int,
        accumulate: int,
    ) -> None:
        self.objective, self.stream, self.read = objective, stream, read
        self.gradients, self.accumulate = gradients, accumulate
        self.known: dict[tuple, Tensor] = {}

    def step(self, population: Population, batch: Any, step: int) -> Tensor:
        """Operations and tokens of this step, `[2]` or a row a replica, `[R, 2]`, float64."""
        shapes = (population.layout.size, *(field.shape[1:] for field in batch))
        if not hasattr(self.stream, "kinds"):
            return self._count(population, 0, (shapes, None), batch, step)
        kinds = kinds_of(self.stream, step, population.index)
        return torch.stack([self._count(population, r, (shapes, kind), None, step) for r, kind in enumerate(kinds)])

    def _count(self, population: Population, place: int, kind: tuple, batch: Any, step: int) -> Tensor:
        if kind not in self.known:
            alone = population.select([place])
            with flop_counter() as drawing:
                batch = self.stream(step, alone.index, population.device) if batch is None else self.read(batch)
            gradient = flops_of_step(alone, self.objective, batch, step, self.accumulate)
            flops = drawing.get_total_flops() + self.gradients * gradient
            inputs = batch.inputs[0]
            tokens = len(inputs) if inputs.is_floating_point() else inputs.numel()
            self.known[kind] = total(torch.tensor([flops, tokens], dtype=torch.float64))
        return self.known[kind]
