"""Plants to steer, and experts to imitate."""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal, NamedTuple

import numpy
import torch
from torch import Tensor

from mesocosm import seeding
from mesocosm.settings import setting
from mesocosm.tasks.base import Task

__all__ = ["PlantDemonstrations"]

DRIFT = torch.tensor([[1, 0.1, 0, 0], [-0.1, 1, 0, 0], [0, 0, 1.02, 0.1], [0, 0, 0, 1]])
"""A: without steering, an oscillation that grows by half a percent a step, and a position that runs away by two."""
PUSH = torch.tensor([[0, 0], [0.05, 0], [0, 0], [0, 0.05]])
"""B of the saturated plant: two forces, which change the two speeds."""


class DemonstrationBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    action: Tensor
    time: Tensor


@dataclass(frozen=True, kw_only=True)
class PlantDemonstrations(Task):
    """Say what an expert does in a state of a plant that it steers: the data of behaviour cloning.

    The plant has four state variables and the unstable drift A.

    - "linear": x' = A x - u, and the expert is u = K x with A - K = contraction * Q, Q a random orthogonal matrix.
      At a contraction near 1 the loop is marginally stable, and small errors of a clone add up over many steps.
    - "saturated": x' = A x + B clip(u), where B has two forces of at most `limit`, and the expert is the linear
      quadratic regulator of A and B with unit costs, clipped.

    A demonstration is the state at a uniform time below `steps` of an episode that starts from a standard normal state;
    with one step, that is the start itself. `steps=1` thus covers the whole space, longer episodes only what the expert
    visits.

    Source: Block et al. (2024), Butterfly Effects of SGD Noise: Error Amplification in Behavior Cloning and
    Autoregression, whose continuous control it brings down to four dimensions, arXiv 2310.11428
    """

    plant: Literal["linear", "saturated"] = setting("linear", "which plant, with its expert")
    contraction: float = setting(0.995, "factor by which the expert shrinks a linear plant's state", low=0, high=1)
    limit: float = setting(2.0, "largest force on the saturated plant", low=0.01)
    noise: float = setting(0.0, "standard deviation of the noise on demonstrated actions", low=0)
    steps: int = setting(1, "steps of an expert's episode that states are drawn from", low=1, high=10_000)
    table: int = setting(0, "number of the draw of Q", low=0)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, 4] float32: the state",
        "targets": "[B, A] float32: the expert's action, noise included; A is 4 for the linear plant, else 2",
        "weights": "[B] float32: 1 everywhere",
        "action": "[B, A] float32: the expert's action",
        "time": "[B] int64: steps since the episode's start",
    }

    @property
    def input_shape(self) -> tuple[int]:
        return (4,)

    @property
    def output_shape(self) -> tuple[int]:
        return (len(self.gain),)

    @property
    def gain(self) -> Tensor:
        """The expert's K `[A, 4]`: it does K x, clipped on the saturated plant."""
        if self.plant == "saturated":
            return _saturated_gain()
        return DRIFT - self.contraction * _orthogonal(self.table)

    def expert(self, state: Tensor) -> Tensor:
        """The expert's action in states `[..., 4]`."""
        return self._clip(state @ self.gain.to(state).T)

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """The state after an action `[..., A]` in states `[..., 4]`."""
        effect = self._clip(action) @ PUSH.to(state).T if self.plant == "saturated" else -action
        return state @ DRIFT.to(state).T + effect

    def _clip(self, action: Tensor) -> Tensor:
        return action.clamp(-self.limit, self.limit) if self.plant == "saturated" else action

    def starts(self, count: int, generator: torch.Generator) -> Tensor:
        """Standard normal states to start from, `[count, 4]`."""
        return torch.randn(count, 4, generator=generator)

    def sample(self, size: int, generator: torch.Generator) -> DemonstrationBatch:
        starts = self.starts(size, generator)
        time = torch.randint(self.steps, (size,), generator=generator)
        return self._demonstrate(self._expert_states(starts)[time, torch.arange(size)], time, generator)

    def episodes(self, count: int, generator: torch.Generator) -> DemonstrationBatch:
        """All `count * steps` demonstrations of whole episodes, one after another: a data set of a fixed size."""
        states = self._expert_states(self.starts(count, generator)).transpose(0, 1).flatten(0, 1)
        return self._demonstrate(states, torch.arange(self.steps).repeat(count), generator)

    def _expert_states(self, starts: Tensor) -> Tensor:
        """`[steps, B, 4]`."""
        states = [starts]
        for _ in range(self.steps - 1):
            states.append(self.step(states[-1], self.expert(states[-1])))
        return torch.stack(states)

    def _demonstrate(self, states: Tensor, time: Tensor, generator: torch.Generator) -> DemonstrationBatch:
        action = self.expert(states)
        targets = action
        if self.noise:
            targets = action + self.noise * torch.randn(action.shape, generator=generator)
        return DemonstrationBatch(states, targets, torch.ones(len(states)), action, time)


def regulator_gain(a: Tensor, b: Tensor) -> Tensor:
    """Gain K `[A, D]` of the linear quadratic regulator u = -K x of x' = a x + b u, with costs |x|^2 + |u|^2 a step.

    K = (I + b'P b)^-1 b'P a, where P solves the discrete algebraic Riccati equation and x'P x is the least cost from x.
    """
    from scipy.linalg import solve_discrete_are

    drift, push = a.double().numpy(), b.double().numpy()
    cost = solve_discrete_are(drift, push, numpy.eye(len(drift)), numpy.eye(push.shape[1]))
    gain = numpy.linalg.solve(numpy.eye(push.shape[1]) + push.T @ cost @ push, push.T @ cost @ drift)
    return torch.from_numpy(gain).float()


@cache
def _saturated_gain() -> Tensor:
    return -regulator_gain(DRIFT, PUSH)


@cache
def _orthogonal(table: int) -> Tensor:
    """A 4x4 orthogonal matrix, uniform over all of them."""
    normal = torch.randn(4, 4, generator=seeding.generator("plant", "Q", table), dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    return (q * r.diagonal().sign()).float()
