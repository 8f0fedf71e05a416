"""Sharper attention by a penalty on its entropy."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["entropy_penalty"]


def entropy_penalty(objective: Callable[..., Tensor], weight: float) -> Callable[[nn.Module, Any], Tensor]:
    """`objective` plus `weight` times the attention's mean entropy in nats, over layers, heads and queries.

    The model must give its attention patterns as `Transformer` does: `model(inputs, capture=names)`, with the names in
    `model.hook_names` that end in `hook_pattern`.

    Source: Liu et al. (2023), Exposing Attention Glitches with Flip-Flop Language Modeling, arXiv 2306.00946
    """

    def penalised(model: Any, batch: Any) -> Tensor:
        names = [name for name in model.hook_names if name.endswith("hook_pattern")]
        patterns: dict[str, Tensor] = {}

        def capturing(inputs: Tensor) -> Tensor:
            logits, kept = model(inputs, capture=names)
            patterns.update(kept)
            return logits

        loss = objective(capturing, batch)
        return loss + weight * torch.stack([_entropy(pattern) for pattern in patterns.values()]).mean()

    return penalised


def _entropy(pattern: Tensor) -> Tensor:
    # Clamped, because the entropy's slope is infinite at the future's weights of 0.
    return -(pattern * pattern.clamp_min(1e-30).log()).sum(-1).mean()
