"""A pendulum to swing up, and an expert that does it."""

import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.base import Task
from mesocosm.tasks.plants import DemonstrationBatch, regulator_gain

__all__ = ["PendulumSwingUp"]

GRAVITY, MASS, LENGTH, STEP = 10.0, 1.0, 1.0, 0.05
TORQUE, SPEED = 2.0, 8.0
"""Largest torque and largest angular speed."""


@dataclass(frozen=True, kw_only=True)
class PendulumSwingUp(Task):
    """Say what an expert does with a pendulum that is too heavy to be lifted at once: the data of behaviour cloning.

    The pendulum is that of Gymnasium's Pendulum-v1: angle a (0 is upright) and speed w follow
    w' = w + (15 sin(a) + 3 u) dt, cut to 8 in size, and a' = a + w' dt, with dt = 0.05 and a torque u of at most 2. A
    step costs a^2 + 0.1 w^2 + 0.001 u^2, a between -pi and pi. Episodes start from uniform angles, and speeds up to 1.

    Far from upright the expert pumps energy until the swing reaches the top; close to it, it is the linear quadratic
    regulator of the linearised pendulum. Where it switches it is discontinuous, which makes it hard to clone: a policy
    that is merely bad oscillates too, and no average of weights mends that.

    Source: Towers et al. (2024), Gymnasium, environment Pendulum-v1, arXiv 2407.17032; Astrom & Furuta (2000), Swinging
    up a pendulum by energy control, Automatica 36, for the expert
    """

    steps: int = setting(200, "steps of an expert's episode that observations are drawn from", low=1, high=10_000)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, 3] float32: cosine and sine of the angle, and the speed",
        "targets": "[B, 1] float32: the expert's torque",
        "weights": "[B] float32: 1 everywhere",
        "action": "[B, 1] float32: the expert's torque again; demonstrations have no noise",
        "time": "[B] int64: steps since the episode's start",
    }

    @property
    def input_shape(self) -> tuple[int]:
        return (3,)

    @property
    def output_shape(self) -> tuple[int]:
        return (1,)

    def expert(self, observation: Tensor) -> Tensor:
        """The expert's torque `[..., 1]` at observations `[..., 3]`."""
        angle, speed = _state(observation)
        near = (angle.abs() < 0.5) & (speed.abs() < 2)
        hold = -(_gain().to(observation) * torch.stack([angle, speed], dim=-1)).sum(-1)
        top = 1.5 * GRAVITY / LENGTH  # energy of rest at the top, over mass * length^2 / 3; at the bottom it is -top
        missing = top - (speed.square() / 2 + top * angle.cos())
        pump = TORQUE * (missing * torch.where(speed >= 0, 1.0, -1.0)).clamp(-1, 1)
        return torch.where(near, hold, pump).clamp(-TORQUE, TORQUE)[..., None]

    def step(self, observation: Tensor, action: Tensor) -> Tensor:
        """The observation `[..., 3]` after a torque `[..., 1]`."""
        angle, speed = _state(observation)
        torque = action[..., 0].clamp(-TORQUE, TORQUE)
        push = 1.5 * GRAVITY / LENGTH * angle.sin() + 3 / (MASS * LENGTH**2) * torque
        speed = (speed + push * STEP).clamp(-SPEED, SPEED)
        return _observe(angle + speed * STEP, speed)

    def reward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Minus the cost `[...]` of a torque `[..., 1]` at observations `[..., 3]`."""
        angle, speed = _state(observation)
        torque = action[..., 0].clamp(-TORQUE, TORQUE)
        return -(angle.square() + 0.1 * speed.square() + 0.001 * torque.square())

    def starts(self, count: int, generator: torch.Generator) -> Tensor:
        """Observations to start from, `[count, 3]`."""
        angle, speed = (torch.rand(2, count, generator=generator) * 2 - 1) * torch.tensor([[math.pi], [1.0]])
        return _observe(angle, speed)

    def sample(self, size: int, generator: torch.Generator) -> DemonstrationBatch:
        starts = self.starts(size, generator)
        time = torch.randint(self.steps, (size,), generator=generator)
        return self._demonstrate(self._expert_path(starts)[time, torch.arange(size)], time)

    def episodes(self, count: int, generator: torch.Generator) -> DemonstrationBatch:
        """All `count * steps` demonstrations of whole episodes, one after another: a data set of a fixed size."""
        path = self._expert_path(self.starts(count, generator)).transpose(0, 1).flatten(0, 1)
        return self._demonstrate(path, torch.arange(self.steps).repeat(count))

    def _expert_path(self, starts: Tensor) -> Tensor:
        """`[steps, B, 3]`."""
        path = [starts]
        for _ in range(self.steps - 1):
            path.append(self.step(path[-1], self.expert(path[-1])))
        return torch.stack(path)

    def _demonstrate(self, observation: Tensor, time: Tensor) -> DemonstrationBatch:
        action = self.expert(observation)
        return DemonstrationBatch(observation, action, torch.ones(len(observation)), action, time)


def _state(observation: Tensor) -> tuple[Tensor, Tensor]:
    """Angle between -pi and pi, and speed."""
    return torch.atan2(observation[..., 1], observation[..., 0]), observation[..., 2]


def _observe(angle: Tensor, speed: Tensor) -> Tensor:
    return torch.stack([angle.cos(), angle.sin(), speed], dim=-1)


@cache
def _gain() -> Tensor:
    """`[2]`: regulator of the pendulum linearised around upright."""
    pull = 1.5 * GRAVITY / LENGTH * STEP
    a = torch.tensor([[1 + pull * STEP, STEP], [pull, 1.0]])
    b = torch.tensor([[3 * STEP**2], [3 * STEP]]) / (MASS * LENGTH**2)
    return regulator_gain(a, b)[0]
