"""Replicas in lockstep, and one step of them."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mesocosm.training import parallel
from mesocosm.training.averaging import EMA
from mesocosm.training.capturing import Captured
from mesocosm.training.gradients import gradients_of
from mesocosm.training.population import Layout, Population, seeded

__all__: list[str] = []


class Optimiser(Protocol):
    """Updates rows of weights. One with `ascend`, as `SAM` has, gets the gradient at the weights that this gives."""

    def columns(self, replicas: int, device: torch.device) -> dict[str, Tensor]: ...
    def init(self, theta: Tensor) -> dict[str, Tensor]: ...
    def update(
        self,
        theta: Tensor,
        gradient: Tensor,
        state: dict[str, Tensor],
        columns: dict[str, Tensor],
        t: Tensor,
        layout: Layout,
    ) -> None: ...


@dataclass
class Stack:
    """Replicas in lockstep, as a population of their own: place i holds replica `rows[i]`, `live` places train."""

    population: Population
    rows: list[int]
    live: list[int]
    state: dict[str, Tensor]
    columns: dict[str, Tensor]
    age: int
    """How often it has grown."""
    spent: Tensor
    """Operations and tokens so far, `[R, 2]` float64."""

    def live_rows(self) -> list[int]:
        return [self.rows[place] for place in self.live]


def step_of(
    population: Population,
    objective: Callable[..., Tensor],
    optimiser: Optimiser,
    schedule: Callable[[int], float] | None,
    clip: float | None,
    average: EMA | None,
    compile: bool,
    accumulate: int,
    read: Callable[[Any], Any],
) -> Callable[[Stack, Any, int], Tensor]:
    """One step of a stack, in place, on what `read` makes of its batch; gives the losses `[R]` before it."""
    of_part = gradients_of(population, objective, functional=compile, accumulate=accumulate)

    def gradients(theta: Tensor, state: dict, batch: Any) -> tuple[Tensor, Tensor]:
        found = of_part(theta, state, batch)
        return found if population.sharded else parallel.averaged(*found, batch)

    @torch.no_grad()
    def update(theta: Tensor, memory: dict, state: dict, batch: Any, columns: dict, t: Tensor) -> Tensor:
        batch = read(batch)
        gradient, losses = gradients(theta, state, batch)
        if hasattr(optimiser, "ascend"):
            above = optimiser.ascend(theta, gradient, columns, population.layout)
            gradient, _ = gradients(above, state, batch)
        if clip is not None:
            gradient = gradient * (clip / (population.layout.norms(gradient) + 1e-6)).clamp_max(1.0)
        optimiser.update(theta, gradient, memory, columns, t, population.layout)
        if average:
            average.update(memory["average"], theta, t)
        return losses

    faster: Callable[..., Tensor] = torch.compile(update, dynamic=False) if compile else update
    if population.device.type == "cuda" and population.mappable and parallel.processes() == 1:
        faster = Captured(faster, population)

    def advance(stack: Stack, batch: Any, step: int) -> Tensor:
        current = stack.population
        current.mode(training=True)
        factor = schedule(step) if schedule else 1.0
        columns = stack.columns | {"learning_rate": stack.columns["learning_rate"] * factor}
        arguments = (current.theta, stack.state, current.step_state(step), batch, columns)
        with nullcontext() if current.mappable else seeded(current.step_seed(step), current.device):
            return faster(*arguments, torch.tensor(step + 1, device=current.device))

    return advance
