"""Dropout whose mask can be a pure function of a key, so that each replica of a population has its own."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesocosm.models._checks import check_probabilities

__all__: list[str] = []

# Odd 64-bit multipliers, as signed numbers: one of Steele & Vigna (2021) and the two of splitmix64.
_SPREAD, _MIX1, _MIX2 = -0x2ECBDABC217D106B, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15


class Dropout(nn.Module):
    """`nn.Dropout` that needs no random generator when `keyed`: the mask is a hash of the buffer `key` and the place.

    Under `vmap`, stack one `key` per replica and give it a new value each step. `p` is rounded to a multiple of 2^-16.

    Source: Srivastava et al. (2014), Dropout; Steele et al. (2014), Fast splittable pseudorandom number generators
    """

    key: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        check_probabilities(p=p)
        self.p = p
        self.keyed = False
        self.register_buffer("key", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.keyed:
            return F.dropout(x, self.p, self.training)
        if not self.training or self.p == 0:
            return x
        p = round(self.p * 2**16) / 2**16
        kept = uniform(self.key, x.numel()).view(x.shape) >= int((p - 0.5) * 2**64)
        return x * kept.to(x.dtype).mul_(1 / (1 - p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


def uniform(key: Tensor, count: int) -> Tensor:
    """`count` int64 numbers, uniform over their range to 16 bits and independent across places and scalar keys."""
    # Splitmix64 of one word for four places, its first steps with signed shifts: they cost one bit of 64.
    word = torch.arange(-(-count // 4), device=key.device) ^ (key * _SPREAD)
    word = (word ^ (word >> 30)).mul_(_MIX1)
    word = (word ^ (word >> 27)).mul_(_MIX2)
    word = word ^ ((word >> 31) & 0x1FFFFFFFF)
    shifts = torch.arange(0, 64, 16, device=key.device)
    return (word[:, None] << shifts).flatten()[:count]  # [count / 4, 4] -> [count]
