"""How unevenly a total is shared out."""

import torch
from torch import Tensor

__all__ = ["gini", "lorenz_curve"]


def lorenz_curve(amounts: Tensor) -> Tensor:
    """Share of the total that the smallest amounts hold together: of the smallest 0, 1, ..., N.

    Args:
        amounts: `[..., N]`, at least 0 and not all 0.

    Returns:
        `[..., N + 1]`, from 0 to 1; a straight line where all amounts are equal.

    Source: Lorenz (1905), Methods of measuring the concentration of wealth
    """
    sums = amounts.sort(dim=-1).values.cumsum(-1)
    return torch.nn.functional.pad(sums / sums[..., -1:], (1, 0))


def gini(amounts: Tensor) -> Tensor:
    """The Gini coefficient: mean difference |x_i - x_j| over all pairs, in units of twice the mean.

    It is twice the area between the Lorenz curve and the straight line: 0 where all amounts are equal, and 1 - 1/N
    where one holds everything.

    Args:
        amounts: `[..., N]`, at least 0 and not all 0.

    Returns:
        `[...]`.

    Source: Gini (1912), Variabilità e mutabilità
    """
    count = amounts.shape[-1]
    ranks = torch.arange(1, count + 1, dtype=amounts.dtype, device=amounts.device)
    ordered = amounts.sort(dim=-1).values
    return ((2 * ranks - count - 1) * ordered).sum(-1) / (count * ordered.sum(-1))
