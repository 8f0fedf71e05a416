"""Two features, each read by an encoder of its own."""

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from mesocosm.models._checks import check_at_least, score_size
from mesocosm.tasks.base import Task

__all__ = ["TwoBranches"]


class TwoBranches(nn.Module):
    """f(x) = w_e <a_e, x_e> + w_h <a_h, x_h>: a linear encoder for the easy and for the hard feature, and a last layer.

    The encoders `easy` and `hard` `[d]` start normal with variance reader_std^2 / d, the last layer `head` `[2]` as
    `head_start` twice.

    Raises:
        ValueError: for an illegal size, or for a task that does not have two features.

    Source: Springer et al. (2024), Sharpness-Aware Minimization Enhances Feature Quality via Balanced Learning, arXiv
    2405.20439, whose toy model has an encoder for each feature; sizes and start are our own
    """

    def __init__(self, *, d: int, reader_std: float = 0.05, head_start: float = 0.2) -> None:
        super().__init__()
        check_at_least(1, d=d)
        self.easy = nn.Parameter(torch.randn(d) * reader_std / math.sqrt(d))
        self.hard = nn.Parameter(torch.randn(d) * reader_std / math.sqrt(d))
        self.head = nn.Parameter(torch.full((2,), float(head_start)))

    @classmethod
    def for_task(cls, task: Task, **sizes: Any) -> Self:
        """The size d from a task with inputs `(2, d)` and a score `()`, the rest from `sizes`."""
        score_size(task, cls)
        if len(task.input_shape) != 2 or task.input_shape[0] != 2:
            raise ValueError(f"{cls.__name__} needs inputs (2, d), but {type(task).__name__} has {task.input_shape}")
        return cls(**{"d": task.input_shape[1]} | sizes)

    @property
    def readers(self) -> Tensor:
        """`[2, d]`: a_e and a_h, each times the sign that the last layer gives it."""
        return torch.stack([self.easy, self.hard]) * self.head.sign()[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[B]` of inputs `[B, 2, d]`."""
        weights = torch.cat([self.head[0] * self.easy, self.head[1] * self.hard])
        return (x.flatten(1) @ weights[:, None]).squeeze(-1)
