"""Keyed randomness: every stream of random numbers is a pure function of what it is for.

A stream's generator is seeded by a hash of its key, `(seed, "data", chunk)` say. So a replica's draws depend neither on
its company nor on the order of work, a new stream never shifts an old one, and a restart needs no generator state.
"""

import hashlib

import torch


def key(*parts: int | str) -> int:
    """A 63-bit integer hashed from `parts`."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A fresh CPU generator for the stream that `parts` name."""
    return torch.Generator().manual_seed(key(*parts))
