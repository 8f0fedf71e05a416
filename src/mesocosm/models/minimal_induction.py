"""The least model that can form a statistical induction head."""

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesocosm.models._checks import check_at_least, token_sizes
from mesocosm.tasks.base import Task

__all__ = ["MinimalInduction"]


class MinimalInduction(nn.Module):
    """Two attention layers with a vector and a matrix of weights in all, on one-hot tokens e_t.

    Layer 1 looks back by offset alone, layer 2 compares the current token with what layer 1 saw, without softmax:

        h_t = sum_{s <= t} softmax_s(v_{t-s}) e_s,    logits_t = sum_{s <= t} (e_t' W h_s) e_s.

    v starts at 0, hence as uniform averaging, and W with equal entries: the logits are unigram counts. With W the
    identity and v all on offset 1 they are the bigram counts of the context.

    Args:
        length: T; offsets are 0, ..., T - 1.
        matrix_start: the initial entries of W.
        offset_scale: v is this times the parameter `offsets`, so that SGD moves v with `offset_scale` ** 2 times the
            learning rate of W.

    Raises:
        ValueError: for a size below 1, a scale that is not positive, or in `forward` for more than T tokens.

    Source: Edelman et al. (2024), The Evolution of Statistical Induction Heads, section 4, arXiv 2402.11004
    """

    def __init__(self, *, d_vocab: int, length: int, matrix_start: float = 0.01, offset_scale: float = 1.0) -> None:
        super().__init__()
        check_at_least(1, d_vocab=d_vocab, length=length)
        if not offset_scale > 0:
            raise ValueError(f"offset_scale={offset_scale!r} is not legal: it must be a number above 0")
        self.d_vocab, self.offset_scale = d_vocab, offset_scale
        self.offsets = nn.Parameter(torch.zeros(length))
        self.matrix = nn.Parameter(torch.full((d_vocab, d_vocab), matrix_start))

    @classmethod
    def for_task(cls, task: Task, **options: Any) -> Self:
        """Sizes from a task of tokens `[T]` and outputs `[T, V]` over the same vocabulary, the rest from `options`."""
        length, d_vocab, n_outputs = token_sizes(task, cls)
        if n_outputs != d_vocab:
            raise ValueError(f"{cls.__name__} needs outputs over its {d_vocab} tokens, but the task has {n_outputs}")
        return cls(**{"d_vocab": d_vocab, "length": length} | options)

    def attention(self) -> Tensor:
        """Weights of layer 1 by query and key, `[T, T]`."""
        position = torch.arange(len(self.offsets), device=self.offsets.device)
        distance = position[:, None] - position
        score = (self.offset_scale * self.offsets)[distance.clamp_min(0)]
        return score.masked_fill(distance < 0, -torch.inf).softmax(-1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `[B, T, V]` of `tokens` `[B, T]`."""
        n_positions = tokens.shape[-1]
        if n_positions > len(self.offsets):
            raise ValueError(f"{n_positions} tokens are more than length={len(self.offsets)}")
        one_hot = F.one_hot(tokens, self.d_vocab).to(self.matrix.dtype)
        seen = self.attention()[:n_positions, :n_positions] @ one_hot
        score = (one_hot @ self.matrix @ seen.mT).tril()
        return score @ one_hot
