"""The door to attribution libraries: maps for every label of a classifier."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["label_maps"]


def label_maps(
    attribution: Callable[[Tensor, Tensor], Tensor] | Any,
    inputs: Tensor,
    n_labels: int,
    batch_size: int = 100,
    **options: Any,
) -> Tensor:
    """A map for every image and label, as `insertion_areas` takes them, from captum or from a function.

    Values are signed as the method gives them, and summed over channels: absolute values, where they are wanted, are to
    be taken before. Maps coarser than the image, such as GradCAM's, are upsampled bilinearly.

    Args:
        attribution: an instance of `captum.attr`, whose `attribute(inputs, target=labels, **options)` is called, or a
            function of (inputs, labels).
        inputs: `[B, H, W]` or `[B, C, H, W]`.
        n_labels: A.
        batch_size: pairs of an image and a label in one call.

    Returns:
        `[B, A, H, W]`.

    Raises:
        ValueError: when inputs are not images, or the method gives anything but one map, with or without channels, for
            each input.

    Source: Kokhlikyan et al. (2020), Captum: A unified and generic model interpretability library for PyTorch, arXiv
    2009.07896
    """
    if inputs.dim() not in (3, 4):
        raise ValueError(f"inputs {tuple(inputs.shape)} is not legal: it must be images [B, H, W] or [B, C, H, W]")
    pairs = inputs.detach().repeat_interleave(n_labels, dim=0)
    labels = torch.arange(n_labels, device=inputs.device).repeat(len(inputs))
    maps = []
    for x, label in zip(pairs.split(batch_size), labels.split(batch_size)):
        if hasattr(attribution, "attribute"):
            found = attribution.attribute(x.requires_grad_(), target=label, **options).detach()
        else:
            found = attribution(x, label, **options).detach()
        if len(found) != len(x) or found.dim() not in (3, 4):
            raise ValueError(f"attribution gives {tuple(found.shape)} for {len(x)} inputs: it must be a map for each")
        flat = found.sum(1, keepdim=True) if found.dim() == 4 else found[:, None]
        size = inputs.shape[-2:]
        maps.append(flat if flat.shape[-2:] == size else F.interpolate(flat, size, mode="bilinear"))
    return torch.cat(maps).reshape(len(inputs), n_labels, *inputs.shape[-2:])
