"""Right answers in sequences: position by position and whole, after the true prefix and after one's own."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesocosm.models.decoding import generate

__all__ = ["accuracy_by_difficulty", "accuracy_by_position", "exact_match", "free_running", "teacher_forced"]


def teacher_forced(model: nn.Module, batch: Any) -> Tensor:
    """Most likely token at each position `[B, T]`, after the true tokens `batch.inputs` up to it."""
    return model(batch.inputs).argmax(-1)


def free_running(model: nn.Module, batch: Any) -> Tensor:
    """Most likely token at each position `[B, T]`, after the model's own tokens from the first weighted one on.

    A row's inputs up to its first position with weight are given, and nothing after them. Predictions before it are -1.
    Rows that start at different positions are generated in groups. `population.map(lambda model: free_running(model,
    batch))` does it for every replica.
    """
    length = batch.inputs.shape[1]
    first = (batch.weights > 0).long().argmax(1)
    parts, rows = [], []
    for start in first.unique().tolist():
        rows.append((first == start).nonzero()[:, 0])
        own = generate(model, batch.inputs[rows[-1], : start + 1], length - start)
        parts.append(F.pad(own, (start, 0), value=-1))
    return torch.cat(parts)[torch.cat(rows).argsort()]


def accuracy_by_position(predictions: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted share of sequences whose prediction is the target, at each position.

    Args:
        predictions: `[..., B, T]`, leading axes for replicas judged on the same targets.
        targets, weights: `[B, T]`.

    Returns:
        `[..., T]`; NaN at positions without weight.
    """
    return ((predictions == targets) * weights).sum(-2) / weights.sum(-2)


def accuracy_by_difficulty(
    predictions: Tensor, targets: Tensor, weights: Tensor, difficulty: Tensor, n_levels: int
) -> Tensor:
    """Weighted share of right predictions at each level of difficulty: a depth, a distance, a count so far.

    Args:
        predictions: `[..., B, T]`, leading axes for replicas judged on the same targets.
        targets, weights: `[B, T]`.
        difficulty: `[B, T]` int64, from 0 to `n_levels` - 1.

    Returns:
        `[..., n_levels]`; NaN at levels without weight.
    """
    right = ((predictions == targets) * weights).flatten(-2)
    level = F.one_hot(difficulty.flatten(), n_levels).to(weights.dtype)  # [B * T, L]
    return (right @ level) / (weights.flatten() @ level)


def exact_match(predictions: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Share of sequences in which every weighted position is right, among those with any.

    Args:
        predictions: `[..., B, T]`, leading axes for replicas judged on the same targets.
        targets, weights: `[B, T]`.

    Returns:
        `[...]`; NaN where no position has weight.
    """
    counted = (weights > 0).any(-1)
    right = ((predictions == targets) | (weights == 0)).all(-1)
    return (right & counted).sum(-1) / counted.sum()
