"""What a policy earns when it steers a plant itself, over many steps."""

from collections.abc import Callable

import torch
from torch import Tensor

from mesocosm.tasks.plants import PlantDemonstrations

__all__ = ["quadratic_reward", "rollout", "survival"]


def rollout(plant: PlantDemonstrations, policy: Callable[[Tensor], Tensor], starts: Tensor, horizon: int) -> Tensor:
    """States that a policy steers a plant through, `[H + 1, B, 4]`, the starts among them.

    Use fixed starts, so that all fluctuation between checkpoints is the policy's. `population.map(lambda model:
    rollout(plant, model, starts, horizon))` does it for every replica. States may overflow to infinity or NaN; the
    rewards here take these as the worst.

    Args:
        plant: the task whose `step` moves the state.
        policy: actions `[B, A]` from states `[B, 4]`; the expert is `plant.expert`.
        starts: `[B, 4]`, such as `plant.starts(B, generator)`.
        horizon: number of steps H.

    Source: Block et al. (2024), Butterfly Effects of SGD Noise, section 2, arXiv 2310.11428
    """
    states = [starts]
    for _ in range(horizon):
        states.append(plant.step(states[-1], policy(states[-1])))
    return torch.stack(states)


def quadratic_reward(states: Tensor, cap: float = 1e6) -> Tensor:
    """J = -mean_t min(|x_t|^2, cap) over the states after the start, from `[H + 1, B, D]` to `[B]`.

    The cap keeps runaway states from ruling the mean.

    Source: Block et al. (2024), Butterfly Effects of SGD Noise, section 2, whose rollout reward it is an instance of,
    arXiv 2310.11428
    """
    squares = states[1:].square().sum(-1).nan_to_num(nan=torch.inf, posinf=torch.inf)
    return -squares.clamp_max(cap).mean(0)


def survival(states: Tensor, limit: float = 5.0) -> Tensor:
    """1 where every coordinate stays below `limit` in size in all states, else 0; from `[H + 1, B, D]` to `[B]`."""
    return (states.abs() < limit).all(-1).all(0).float()
