"""One attention head, built by hand, that recalls the last written bit of a flip-flop string."""

import math
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesocosm.models._checks import check_at_least
from mesocosm.tasks.base import Task
from mesocosm.tasks.flip_flop import WRITE, ZERO, FlipFlop

__all__ = ["RecencyHead"]


class RecencyHead(nn.Module):
    """One softmax attention head that recalls the last written bit of a flip-flop string as well as its scores allow.

    Key i of T scores `write_logit` [it is a written bit] + `recency` i / T for all queries; bits have value -1 or 1 and
    other tokens 0, and the sign of the attended mean is the recalled bit. (Which bits are written, a first layer could
    tell by looking one token back.) Bounded scores dilute: ignored bits outvote the last write unless `write_logit`
    is large, and earlier writes do unless `recency` grows in proportion to T.

    Args:
        length: T of the whole strings.
        write_logit: (T/2 - 1) ln 2 when None.
        recency: (T/2) ln 2 when None. With both, the head is right on every string.

    Raises:
        ValueError: for a length below 4, or from `for_task` for a task that is no `FlipFlop`.

    Source: Liu et al. (2023), Exposing Attention Glitches with Flip-Flop Language Modeling, arXiv 2306.00946
    """

    def __init__(self, *, length: int, write_logit: float | None = None, recency: float | None = None) -> None:
        super().__init__()
        check_at_least(4, length=length)
        self.length = length
        self.write_logit = nn.Parameter(
            torch.tensor((length / 2 - 1) * math.log(2) if write_logit is None else write_logit)
        )
        self.recency = nn.Parameter(torch.tensor(length / 2 * math.log(2) if recency is None else recency))

    @classmethod
    def for_task(cls, task: Task, **sizes: Any) -> Self:
        """Length from a `FlipFlop` task, the rest from `sizes`."""
        if not isinstance(task, FlipFlop):
            raise ValueError(f"{cls.__name__} needs FlipFlop strings, but the task is {type(task).__name__}")
        return cls(**{"length": task.length} | sizes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `[B, T, 5]` of `tokens` `[B, T]`: minus and plus the attended mean for 0 and 1, else -2."""
        position = torch.arange(tokens.shape[-1], device=tokens.device)
        written = F.pad((tokens[:, :-1] == WRITE).to(self.recency.dtype), (1, 0))
        score = self.write_logit * written + self.recency * position / self.length  # [B, T]
        future = position > position[:, None]
        attention = score[:, None, :].masked_fill(future, -math.inf).softmax(-1)  # [B, T, T]
        value = torch.where(tokens >= ZERO, 2.0 * (tokens - ZERO) - 1, 0).to(score.dtype)
        recalled = (attention @ value[..., None]).squeeze(-1)
        return F.pad(torch.stack([-recalled, recalled], -1), (ZERO, 0), value=-2.0)

    def margin(self) -> float:
        """Least log-odds of the last write against the bits that can oppose it, over all strings; exact.

        min over m of s_m + c - ln(sum_{i<m} e^{s_i + c} + sum_{i>m} e^{s_i}) where s_i is the recency score of the bit
        of pair i: at worst all earlier writes and all later ignores carry the other bit. The head is right on every
        string if and only if this is positive.
        """
        pair = torch.arange(self.length // 2 - 1, dtype=torch.float64)
        recency = self.recency.item() * (2 * pair + 1) / self.length
        write = recency + self.write_logit.item()
        worst = [write[m] - torch.cat([write[:m], recency[m + 1 :]]).logsumexp(0) for m in range(len(pair))]
        return min(worst).item()
