"""What a policy earns in a Gymnasium environment."""

from collections.abc import Callable, Sequence

import numpy
import torch
from torch import Tensor

from mesocosm.tasks.environments import make_copies

__all__ = ["environment_rewards"]

Policy = Callable[[Tensor], Tensor]


def environment_rewards(policy: Policy, environment: str, seeds: Sequence[int], horizon: int) -> Tensor:
    """Rewards `[H, B]` of a policy step by step, in B copies of an environment, each started from its own seed.

    After an episode's end they are 0, so that their sum over the first h steps is the return at horizon h. Fixed seeds
    give fixed starts: all fluctuation between checkpoints is then the policy's.

    Args:
        policy: an `nn.Module` or function from observations `[B, D]` to actions `[B, A]`, both float32 and on the CPU;
            actions are cut to the environment's range.
        environment: a name that Gymnasium knows, of an environment with continuous actions; MuJoCo's need
            `mesocosm[mujoco]`.
        seeds: one start for each copy.
        horizon: number of steps H.

    Raises:
        ValueError: for an unknown environment, or one whose actions are not continuous.
        ImportError: without Gymnasium, or without the simulator that the environment needs.

    Source: Block et al. (2024), Butterfly Effects of SGD Noise, section 3, arXiv 2310.11428
    """
    rewards, _, _, _ = _play(policy, environment, seeds, horizon)
    return rewards


def record_episodes(policy: Policy, environment: str, seeds: Sequence[int], horizon: int) -> tuple[Tensor, ...]:
    """Observations `[N, D]`, actions `[N, A]` and returns `[B]` of one episode from each seed."""
    rewards, observations, actions, alive = _play(policy, environment, seeds, horizon)
    return observations[alive], actions[alive], rewards.sum(0)


def _play(policy: Policy, environment: str, seeds: Sequence[int], horizon: int) -> tuple[Tensor, ...]:
    """Rewards `[H, B]`, observations `[T, B, D]`, actions `[T, B, A]`, and `[T, B]` whether the episode still ran."""
    copies = make_copies(environment, len(seeds))
    space = copies.single_action_space
    low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
    seen: list[Tensor] = []
    done, earned, ran = [], [], []
    observation, _ = copies.reset(seed=list(seeds))
    alive = numpy.ones(len(seeds), dtype=bool)
    with torch.no_grad():
        while len(seen) < horizon and alive.any():
            seen.append(torch.from_numpy(observation).float())
            done.append(torch.clamp(policy(seen[-1]).float(), low, high))
            observation, reward, terminated, truncated, _ = copies.step(done[-1].numpy())
            earned.append(torch.from_numpy(reward * alive).float())
            ran.append(torch.from_numpy(alive.copy()))
            alive &= ~(terminated | truncated)
    copies.close()
    rewards = torch.stack(earned)
    rewards = torch.cat([rewards, torch.zeros(horizon - len(rewards), len(seeds))])
    return rewards, torch.stack(seen), torch.stack(done), torch.stack(ran)
