"""Comparison of two ways of training at equal loss."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["iso_loss_excess"]


def iso_loss_excess(losses: Tensor, scores: Tensor, base_losses: Tensor, base_scores: Tensor) -> Tensor:
    """By how much one training scores more on a task than another one did when it had the same loss.

    The other training's score as a function of its loss is the falling curve that fits its checkpoints best (isotonic
    regression), interpolated linearly. That tells how well a network of some loss solves a task from how soon it gets
    to this loss.

    Args:
        losses, scores: `[E]` at the checkpoints to be judged.
        base_losses, base_scores: `[F]` at those of the training that they are held against.

    Returns:
        `[E]` float64; NaN at losses that the other training never had, and where a loss or score is NaN.

    Source: Saunshi et al. (2024), On the Inductive Bias of Stacking Towards Improving Reasoning, section 3, which
    compares downstream accuracy at equal perplexity, arXiv 2409.19044
    """
    from scipy.optimize import isotonic_regression

    known = ~(base_losses.isnan() | base_scores.isnan())
    base, order = base_losses[known].double().sort()
    if not len(base):
        return torch.full(losses.shape, torch.nan, dtype=torch.float64)
    fitted = isotonic_regression(base_scores[known][order].double().numpy(), increasing=False).x
    expected = np.interp(losses.double().numpy(), base.numpy(), fitted, left=np.nan, right=np.nan)
    return scores.double() - torch.from_numpy(expected)
