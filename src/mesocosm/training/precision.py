"""Mixed precision: products in bfloat16, weights, optimiser and losses in 32 bits."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__: list[str] = []


def mixed(objective: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """`objective(model, batch)` with its matrix products in bfloat16, as `torch.autocast` chooses them.

    Source: Micikevicius et al. (2018), Mixed precision training, arXiv 1710.03740; Kalamkar et al. (2019), A Study of
    BFLOAT16 for Deep Learning Training, arXiv 1905.12322
    """

    def in_bfloat16(model: nn.Module, batch: Any) -> Tensor:
        # Casts that autocast remembers would outlive the step that a CUDA graph records.
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            return objective(model, batch)

    return in_bfloat16
