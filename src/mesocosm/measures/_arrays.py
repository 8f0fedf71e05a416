"""Users bring tensors, NumPy arrays or data-frame columns: here they become tensors."""

from typing import Any, TypeAlias

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

__all__: list[str] = []

Array: TypeAlias = Tensor | numpy.ndarray


def tensor(values: Any, dtype: torch.dtype | None = None) -> Tensor:
    """The values without gradients; an array is copied, so that one that may only be read is fine."""
    found = values.detach() if isinstance(values, Tensor) else torch.tensor(numpy.asarray(values))
    return found if dtype is None else found.to(dtype)


def one_hot(labels: Any, like: Tensor) -> Tensor:
    """`[N, C]` for labels `[N]`, with the classes, type and device of `like` `[..., C]`."""
    return F.one_hot(tensor(labels, torch.int64), like.shape[-1]).to(like)
