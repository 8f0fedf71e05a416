"""What attention heads do, read off their patterns: look back by a fixed offset, or at what followed equal tokens."""

import torch
from torch import Tensor

__all__ = ["attention_by_offset", "induction_score", "previous_token_score"]


def attention_by_offset(pattern: Tensor, offsets: int) -> Tensor:
    """Mean attention from position t to t - o, over all t >= o, for o = 0, ..., `offsets` - 1.

    Args:
        pattern: `[..., T, T]`, by query and key.
        offsets: at most T.

    Returns:
        `[..., offsets]`.
    """
    diagonals = [pattern.diagonal(-o, dim1=-2, dim2=-1).mean(-1) for o in range(offsets)]
    return torch.stack(diagonals, dim=-1)


def previous_token_score(pattern: Tensor) -> Tensor:
    """Mean attention `[...]` from each position but the first to the one before, of patterns `[..., T, T]`.

    Source: Olsson et al. (2022), In-context learning and induction heads, arXiv 2209.11895
    """
    return attention_by_offset(pattern, 2)[..., 1]


def induction_score(pattern: Tensor, tokens: Tensor) -> Tensor:
    """Mean attention to tokens that came directly after an earlier token equal to the query's.

    From query t these are the keys s <= t with x_{s-1} = x_t. Queries without such a key are left out.

    Args:
        pattern: `[B, H, T, T]`, by query and key.
        tokens: `[B, T]`.

    Returns:
        `[H]`, mean over queries.

    Source: Olsson et al. (2022), In-context learning and induction heads, arXiv 2209.11895
    """
    after = torch.zeros_like(pattern[:, 0], dtype=torch.bool)
    after[:, :, 1:] = tokens[:, :, None] == tokens[:, None, :-1]
    after = after.tril()
    queries = after.any(-1).sum()
    mass = (pattern * after[:, None]).sum((0, 2, 3))
    return mass / queries
