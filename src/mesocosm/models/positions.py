"""Ways to tell a transformer where a token stands."""

import math

import torch
from torch import Tensor

__all__: list[str] = []


def sinusoidal(n_positions: int, d_model: int, device: torch.device) -> Tensor:
    """sin(t / 10000^(2i/D)) in column 2i and its cosine in column 2i + 1, `[T, D]`.

    Source: Vaswani et al. (2017), Attention is all you need, section 3.5
    """
    angles = rotary_angles(n_positions, d_model, device)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)  # [T, D / 2, 2] -> [T, D]


def rotary_angles(n_positions: int, d_head: int, device: torch.device) -> Tensor:
    """t / 10000^(2i/Dh) for each position t and each pair i of dimensions, `[T, Dh / 2]`."""
    rates = 10_000.0 ** (-torch.arange(0, d_head, 2, device=device) / d_head)
    return torch.arange(n_positions, device=device)[:, None] * rates


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Each pair of dimensions (i, i + Dh/2) of queries or keys `[B, T, H, Dh]` turned by `angles` `[T, Dh / 2]`.

    The dot product of a rotated query and key depends on their distance only.

    Source: Su et al. (2021), RoFormer, equation 34, with its dimensions reordered
    """
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]  # [T, 1, Dh / 2], the same for each head
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def alibi_slopes(n_heads: int, device: torch.device) -> Tensor:
    """2^(-8h/H) for heads h = 1 .. H, `[H]`.

    Where H is no power of two: the slopes of the next lower one, then every other slope of its double.

    Source: Press et al. (2022), Train short, test long, section 3
    """
    power = 2 ** int(math.log2(n_heads))
    own = 8 * torch.arange(power, device=device) + 8
    between = 8 * torch.arange(n_heads - power, device=device) + 4
    return 2.0 ** (-torch.cat([own, between]) / power)


def alibi_bias(n_positions: int, n_heads: int, device: torch.device) -> Tensor:
    """Minus each head's slope times the distance of query and key, added to the scores, `[H, T, T]`."""
    position = torch.arange(n_positions, device=device)
    distance = (position[:, None] - position).abs()
    return -alibi_slopes(n_heads, device)[:, None, None] * distance
