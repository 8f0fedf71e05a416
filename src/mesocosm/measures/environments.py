"""What a policy earns in a Gymnasium environment."""

from collections.abc import Sequence

from torch import Tensor

from mesocosm.tasks.environments import Policy, play

__all__ = ["environment_rewards"]


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
    return play(policy, environment, seeds, horizon).rewards
