"""Keyed randomness: every stream of random numbers is a pure function of what it is for.

A stream's generator is seeded by a hash of its key, `(seed, "data", chunk)` say. So a replica's draws depend neither on
its company nor on the order of work, a new stream never shifts an old one, and a restart needs no generator state.
"""

import hashlib

import torch
from torch import Tensor


def key(*parts: int | str) -> int:
    """A 63-bit integer hashed from `parts`."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A fresh CPU generator for the stream that `parts` name."""
    return torch.Generator().manual_seed(key(*parts))


def random_words(keys: Tensor, first: int, count: int) -> Tensor:
    """64 random bits each, `[R, count]` int64: words `first` and on of the stream of each key `[R]`, on their device.

    Each word is a function of its key and its number alone, in whole numbers, so it is the same on every device. Both
    go through the mixing function of SplitMix64: Steele, Lea & Flood (2014), Fast Splittable Pseudorandom Number
    Generators, OOPSLA.
    """
    numbers = torch.arange(first + 1, first + count + 1, device=keys.device)
    return _mixed(keys[:, None] ^ _mixed(numbers * _GOLDEN))


_GOLDEN, _FIRST, _SECOND = (
    constant - 2**64 for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def _mixed(z: Tensor) -> Tensor:
    for shift, factor in ((30, _FIRST), (27, _SECOND), (31, 1)):
        z = (z ^ (z >> shift & (1 << 64 - shift) - 1)) * factor  # int64 shifts in copies of the sign
    return z
