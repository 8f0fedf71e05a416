"""Training without a teacher: the whole answer is predicted at once, from the question alone."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["hide_answers", "without_teacher"]


def hide_answers(batch: Any, dummy: int) -> Any:
    """The batch with the dummy token in place of every input `[B, T]` that shows the target of a weighted position.

    At these positions a model has only its position to tell which part of the answer is asked for.
    """
    shown = F.pad(batch.weights[..., :-1] > 0, (1, 0))
    return batch._replace(inputs=torch.where(shown, dummy, batch.inputs))


def without_teacher(objective: Callable[..., Tensor], dummy: int) -> Callable[[nn.Module, Any], Tensor]:
    """`objective` of a model that is not shown the answer: every answer token among the inputs is a dummy.

    The model must then be asked in the same way: `teacher_forced(model, hide_answers(batch, dummy))` reads the whole
    answer in one pass.

    Source: Bachmann & Nagarajan (2024), The Pitfalls of Next-Token Prediction, section 5, arXiv 2403.06963; Monea et
    al. (2023), PaSS: Parallel Speculative Sampling, arXiv 2311.13581
    """
    return lambda model, batch: objective(model, hide_answers(batch, dummy))
