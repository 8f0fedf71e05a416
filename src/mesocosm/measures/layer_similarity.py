"""Which layers of a residual network do the same."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["block_similarity"]


def block_similarity(
    model: nn.Module, inputs: Tensor, layers: Sequence[nn.Module], weights: Tensor | None = None
) -> Tensor:
    """Mean cosine between what two layers add to the same input, for each pair of layers, `[L, L]`.

    S_ij = E_h cos(f_i(h), f_j(h)), where layer i maps h to h + f_i(h). The inputs h are those that the layers get when
    the model runs on `inputs`: of all layers alike, at every position.

    Args:
        inputs: `[B, T]` or whatever the model takes.
        layers: residual layers of one width, such as `model.blocks` or, of a Hugging Face Llama, `model.model.layers`.
            A layer gives its input plus what it adds, alone or as the first of a tuple.
        weights: `[B, T]`, how much each position counts; all alike where not given.

    Source: Saunshi et al. (2024), On the Inductive Bias of Stacking Towards Improving Reasoning, section 4, whose
    similarity of blocks this is our reading of, arXiv 2409.19044
    """
    calls: list[tuple[tuple, dict[str, Any]]] = []

    def remember(layer: nn.Module, arguments: tuple, options: dict[str, Any]) -> None:
        calls.append((arguments, options))

    handles = [layer.register_forward_pre_hook(remember, with_kwargs=True) for layer in dict.fromkeys(layers)]
    try:
        model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    total = torch.zeros(len(layers), len(layers), device=inputs.device)
    for arguments, options in calls:
        added = torch.stack([_added(layer, arguments, options) for layer in layers])  # [L, B, T, D]
        unit = F.normalize(added, dim=-1)
        cosines = torch.einsum("i...d,j...d->ij...", unit, unit)
        share = torch.ones_like(cosines[0, 0]) if weights is None else weights
        total = total + (cosines * share).flatten(2).sum(-1) / share.sum()
    return total / len(calls)


def _added(layer: nn.Module, arguments: tuple, options: dict[str, Any]) -> Tensor:
    x = arguments[0] if arguments else options["hidden_states"]
    y = layer(*arguments, **options)
    return (y[0] if isinstance(y, tuple) else y) - x
