"""Demonstrations in Gymnasium's environments: recorded ones, or those of an expert that needs no training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy
import torch
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.base import Task
from mesocosm.tasks.plants import regulator_gain

__all__ = ["EnvironmentDemonstrations"]

BALANCED = "InvertedDoublePendulum-v5"
"""The environment with an expert of its own: a linear quadratic regulator of its finite differences."""

Policy = Callable[[Tensor], Tensor]
"""From observations `[B, D]` to actions `[B, A]`."""


class EnvironmentBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    row: Tensor


class Recording(NamedTuple):
    """Pairs of observation and action, and what the expert earned."""

    observations: Tensor
    """`[N, D]`."""
    actions: Tensor
    """`[N, A]`."""
    returns: Tensor
    """`[E]`: sum of the rewards of each episode."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentDemonstrations(Task):
    """Say what an expert does after an observation in a Gymnasium environment of continuous actions.

    A `file` made by any expert is an .npz with `observations` `[N, D]`, `actions` `[N, A]` and `returns` `[E]`, the sum
    of rewards of each of its E episodes. Without one, InvertedDoublePendulum-v5 is balanced by the linear quadratic
    regulator of its linearisation, found by finite differences (needs `mesocosm[mujoco]`). Samples are drawn from the
    demonstrations uniformly, with replacement.

    Raises:
        ValueError: without a file where there is no such expert; on first use, for a file without these arrays.
        ImportError: on first use of the expert without `mesocosm[mujoco]`.

    Source: Block et al. (2024), Butterfly Effects of SGD Noise, section 3, arXiv 2310.11428; Towers et al. (2024),
    Gymnasium, arXiv 2407.17032
    """

    environment: str = setting(BALANCED, "name of the environment, such as Walker2d-v5")
    file: str | None = setting(None, "recorded demonstrations, .npz; none takes the regulator")
    episodes: int = setting(20, "episodes that the regulator demonstrates", low=1, high=10_000)
    steps: int = setting(1000, "steps of each of these, at most", low=1, high=100_000)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, D] float32: the observation",
        "targets": "[B, A] float32: the expert's action",
        "weights": "[B] float32: 1 everywhere",
        "row": "[B] int64: which demonstration it is",
    }

    def check(self) -> None:
        if self.file is None and self.environment != BALANCED:
            raise ValueError(
                f"environment={self.environment!r} is not legal without a file of demonstrations: "
                f"only {BALANCED} has an expert of its own"
            )
        if self.file is not None and not Path(self.file).is_file():
            raise ValueError(f"file={self.file!r} is not legal: there is no such file")

    @property
    def recording(self) -> Recording:
        """All demonstrations."""
        return _demonstrate(self.episodes, self.steps) if self.file is None else _read(self.file)

    @property
    def input_shape(self) -> tuple[int]:
        return (9,) if self.file is None else (self.recording.observations.shape[1],)

    @property
    def output_shape(self) -> tuple[int]:
        return (1,) if self.file is None else (self.recording.actions.shape[1],)

    def sample(self, size: int, generator: torch.Generator) -> EnvironmentBatch:
        observations, actions, _ = self.recording
        row = torch.randint(len(observations), (size,), generator=generator)
        return EnvironmentBatch(observations[row], actions[row], torch.ones(size), row)


def gymnasium() -> Any:
    """The package, imported when it is needed.

    Raises:
        ImportError: with the command that installs it.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise ImportError("Gymnasium is not installed: pip install 'mesocosm[mujoco]'") from error
    return gymnasium


def make_copies(environment: str, count: int) -> Any:
    """A vector environment of `count` copies, one after another in this process.

    Raises:
        ValueError: for an unknown environment, or one whose actions are not continuous.
        ImportError: without Gymnasium, or without the simulator that the environment needs.
    """
    errors = gymnasium().error
    try:
        copies = gymnasium().make_vec(environment, num_envs=count, vectorization_mode="sync")
    except (errors.DependencyNotInstalled, ImportError) as error:
        raise ImportError(f"{environment} needs a simulator that is missing: pip install 'mesocosm[mujoco]'") from error
    except errors.Error as error:
        raise ValueError(f"environment={environment!r} is not legal: Gymnasium does not know it") from error
    if not hasattr(copies.single_action_space, "low"):
        raise ValueError(f"environment={environment!r} is not legal: its actions are not continuous")
    return copies


class Play(NamedTuple):
    """What happened step by step in B copies of an environment."""

    rewards: Tensor
    """`[H, B]`, 0 after an episode's end."""
    observations: Tensor
    """`[T, B, D]`, of the T steps until the last episode ended."""
    actions: Tensor
    """`[T, B, A]`, cut to the environment's range."""
    alive: Tensor
    """`[T, B]` bool: whether the episode still ran."""


def play(policy: Policy, environment: str, seeds: Sequence[int], horizon: int) -> Play:
    """Let a policy act in copies of an environment, one from each seed."""
    copies = make_copies(environment, len(seeds))
    space = copies.single_action_space
    low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
    rewards: list[Tensor] = []
    observations: list[Tensor] = []
    actions: list[Tensor] = []
    ran: list[Tensor] = []
    observation, _ = copies.reset(seed=list(seeds))
    alive = numpy.ones(len(seeds), dtype=bool)
    with torch.no_grad():
        while len(rewards) < horizon and alive.any():
            observations.append(torch.from_numpy(observation).float())
            actions.append(torch.clamp(policy(observations[-1]).float(), low, high))
            observation, reward, terminated, truncated, _ = copies.step(actions[-1].numpy())
            rewards.append(torch.from_numpy(reward * alive).float())
            ran.append(torch.from_numpy(alive.copy()))
            alive &= ~(terminated | truncated)
    copies.close()
    rewards += [torch.zeros(len(seeds))] * (horizon - len(rewards))
    return Play(*map(torch.stack, (rewards, observations, actions, ran)))


def balancing_expert() -> Policy:
    """The regulator of InvertedDoublePendulum-v5: actions `[B, 1]` from observations `[B, 9]`."""
    gain = _balancing_gain()

    def expert(observation: Tensor) -> Tensor:
        cart, sines, cosines, speeds = observation[..., :8].split([1, 2, 2, 3], dim=-1)
        state = torch.cat([cart, torch.atan2(sines, cosines), speeds], dim=-1)
        return (-state @ gain.to(state).T).clamp(-1, 1)

    return expert


@cache
def _balancing_gain() -> Tensor:
    """`[1, 6]`: gain of the regulator in cart, two angles and their speeds, from central differences of a step."""
    environment = make_copies(BALANCED, 1).envs[0].unwrapped
    environment.reset(seed=0)

    def step(state: numpy.ndarray, action: float) -> numpy.ndarray:
        environment.set_state(state[:3], state[3:])
        environment.do_simulation(numpy.array([action]), environment.frame_skip)
        return numpy.concatenate([environment.data.qpos, environment.data.qvel])

    rest, h = numpy.zeros(6), 1e-4
    a = [(step(h * axis, 0.0) - step(-h * axis, 0.0)) / (2 * h) for axis in numpy.eye(6)]
    b = (step(rest, h) - step(rest, -h)) / (2 * h)
    environment.close()
    return regulator_gain(torch.tensor(numpy.array(a)).T, torch.tensor(b)[:, None])


@cache
def _demonstrate(episodes: int, steps: int) -> Recording:
    found = play(balancing_expert(), BALANCED, range(episodes), steps)
    return Recording(found.observations[found.alive], found.actions[found.alive], found.rewards.sum(0))


@cache
def _read(file: str) -> Recording:
    try:
        with numpy.load(file, allow_pickle=False) as arrays:
            tensors = [torch.from_numpy(arrays[name]).float() for name in Recording._fields]
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(
            f"file={file!r} is not legal: it must be an .npz with {', '.join(Recording._fields)}"
        ) from error
    observations, actions, returns = tensors
    if observations.dim() != 2 or actions.dim() != 2 or len(observations) != len(actions) or not len(returns):
        raise ValueError(f"file={file!r} is not legal: it must hold observations [N, D], actions [N, A], returns [E]")
    return Recording(observations, actions, returns)
