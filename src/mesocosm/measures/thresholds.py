"""What it costs to learn a task, and how far it then carries."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mesocosm.measures.progress import first_step
from mesocosm.measures.sequences import exact_match, teacher_forced

__all__ = ["examples_to_threshold", "length_generalisation"]


class Threshold(NamedTuple):
    examples: Tensor
    """`[R]` float64: samples seen when the accuracy first reached the threshold, or the whole budget."""
    reached: Tensor
    """`[R]` bool: False where the number is censored, a lower bound."""


def examples_to_threshold(steps: Tensor, accuracies: Tensor, threshold: float, batch_size: int) -> Threshold:
    """Samples that each replica has seen when its accuracy first is at least `threshold`, censored at the budget.

    Args:
        steps: `[E]`, increasing steps of the evaluations; the last one is the budget.
        accuracies: `[E, R]`, one column a replica; NaN, as after divergence, is below.

    Raises:
        ValueError: when steps do not increase.

    Source: Jelassi et al. (2024), Repeat after me, section 3, arXiv 2402.01032
    """
    first = first_step(steps, accuracies >= threshold)
    return Threshold(first.clamp_max(float(steps[-1])) * batch_size, first.isfinite())


def length_generalisation(model: nn.Module, batches: Sequence[Any]) -> Tensor:
    """Shares of strings and of characters that a model gets right in batches of growing length, `[2, K]`.

    Each prediction follows the true tokens before it. A string counts when all its weighted targets are predicted; that
    is as if the model went on from its own answers. For characters it is not: an answer's later errors show less.
    """
    rows = []
    for batch in batches:
        predictions = teacher_forced(model, batch)
        right = ((predictions == batch.targets) * batch.weights).sum() / batch.weights.sum()
        rows.append(torch.stack([exact_match(predictions, batch.targets, batch.weights), right]))
    return torch.stack(rows, dim=1)
