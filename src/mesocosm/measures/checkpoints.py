"""How much a metric moves from checkpoint to checkpoint, and how much more a long-horizon reward than the loss."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["checkpoint_fluctuation", "noise_amplification"]


def checkpoint_fluctuation(values: ArrayLike, scale: ArrayLike) -> Any:
    """F = sd / |scale|: standard deviation over checkpoints, in units of a scale that training does not change.

    Divide a reward by the expert's, and a loss by that of the policy that does nothing. Dividing by the metric's own
    mean would make negligible movements of a loss near 0 look large.

    Args:
        values: `[..., C]`, a metric at C checkpoints of one training, its transient left out.
        scale: `[...]` or one number, not 0.

    Raises:
        ValueError: for fewer than two checkpoints or a scale of 0.

    Source: Block et al. (2024), Butterfly Effects of SGD Noise, section 3, whose oscillations it puts into a number,
    arXiv 2310.11428
    """
    values, scale = np.asarray(values, dtype=float), np.asarray(scale, dtype=float)
    if values.shape[-1] < 2:
        raise ValueError(f"values of {values.shape[-1]} checkpoint(s) are not legal: at least 2 are needed")
    if not scale.all():
        raise ValueError("scale=0 is not legal: it must be the size of the metric without training, not 0")
    return values.std(axis=-1, ddof=1) / abs(scale)


def noise_amplification(rewards: ArrayLike, expert: ArrayLike, losses: ArrayLike, idle: ArrayLike) -> Any:
    """F_J / F_l: how much more a rollout's reward moves between checkpoints than the cloning loss does.

    Args:
        rewards: `[..., C]`, from fixed starts, so that nothing but the weights moves them.
        expert: the expert's reward from the same starts.
        losses: `[..., C]`, of the same checkpoints.
        idle: loss of the policy that does nothing.

    Returns:
        `[...]`; infinite where the loss does not move.

    Source: Block et al. (2024), Butterfly Effects of SGD Noise, section 3, arXiv 2310.11428
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return checkpoint_fluctuation(rewards, expert) / checkpoint_fluctuation(losses, idle)
