"""Ways to tell a transformer where a token stands."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__: list[str] = []


def sinusoidal(position: Tensor, d_model: int) -> Tensor:
    """sin(t / 10000^(2i/D)) in column 2i and its cosine in column 2i + 1 for each t of `position` `[T]`, `[T, D]`.

    Source: Vaswani et al. (2017), Attention is all you need, section 3.5
    """
    angles = rotary_angles(position, d_model)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)  # [T, D / 2, 2] -> [T, D]


def rotary_angles(position: Tensor, d_head: int) -> Tensor:
    """t / 10000^(2i/Dh) for each t of `position` `[T]` and each pair i of dimensions, `[T, Dh / 2]`."""
    rates = 10_000.0 ** (-torch.arange(0, d_head, 2, device=position.device) / d_head)
    return position[:, None] * rates


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Each pair of dimensions (i, i + Dh/2) of queries or keys `[B, T, H, Dh]` turned by `angles` `[T, Dh / 2]`.

    The dot product of a rotated query and key depends on their distance only.

    Source: Su et al. (2021), RoFormer, equation 34, with its dimensions reordered
    """
    cos, sin = angles.cos(), angles.sin()
    cos, sin = torch.cat([cos, cos], -1)[:, None], torch.cat([-sin, sin], -1)[:, None]  # [T, 1, Dh], for all heads
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin


def alibi_slopes(n_heads: int, device: torch.device) -> Tensor:
    """2^(-8h/H) for heads h = 1 .. H, `[H]`.

    Where H is no power of two: the slopes of the next lower one, then every other slope of its double.

    Source: Press et al. (2022), Train short, test long, section 3
    """
    power = 2 ** int(math.log2(n_heads))
    own = 8 * torch.arange(power, device=device) + 8
    between = 8 * torch.arange(n_heads - power, device=device) + 4
    return 2.0 ** (-torch.cat([own, between]) / power)


def alibi_bias(distance: Tensor, n_heads: int) -> Tensor:
    """Minus each head's slope times the distance of query and key `[T, K]`, `[H, T, K]`."""
    return -alibi_slopes(n_heads, distance.device)[:, None, None] * distance.abs()


def hard_alibi_bias(distance: Tensor, n_heads: int, n_masked_heads: int) -> Tensor:
    """-inf where head i = 0 .. `n_masked_heads` - 1 is more than i positions from the key, 0 elsewhere, `[H, T, K]`.

    Source: Jelassi et al. (2024), Repeat after me, arXiv 2402.01032
    """
    head = torch.arange(n_heads, device=distance.device)[:, None, None]
    return torch.where((head < n_masked_heads) & (distance > head), -math.inf, 0.0)


def window_bias(distance: Tensor, window: int) -> Tensor:
    """-inf where the key is not among the last `window` positions, the query's own included, 0 elsewhere, `[T, K]`."""
    return torch.where(distance >= window, -math.inf, 0.0)


def relative_scores(query: Tensor, vectors: Tensor) -> Tensor:
    """query_i' r_(i - j) / sqrt(Dh) of the last T of K positions i and all j <= i, `[B, H, T, K]`; junk for j > i.

    No tensor `[T, K, Dh]` is made: the products with all distances are shifted to their keys, row by row.

    Args:
        query: `[B, H, T, Dh]`.
        vectors: r_0 to r_(K - 1) of each head, `[H, K, Dh]`.

    Source: Shaw et al. (2018), Self-attention with relative position representations, equation 4, arXiv 1803.02155;
        Huang et al. (2019), Music transformer, section 3.4.1, arXiv 1809.04281
    """
    n_queries, n_keys = query.shape[-2], vectors.shape[-2]
    query = query / math.sqrt(query.shape[-1])
    by_distance = query @ vectors.flip(-2).transpose(-2, -1)  # farthest first
    shifted = F.pad(by_distance, (1, 0)).flatten(-2)[..., n_queries:]  # row i starts T - 1 - i distances later
    return shifted.unflatten(-1, (n_queries, n_keys))
