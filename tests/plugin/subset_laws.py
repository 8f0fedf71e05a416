"""All subsets of a few points with their probabilities, for exact sums."""

from math import sqrt

import torch

from mesocosm.seeding import generator
from mesocosm.tasks.parity import cube


def subsets(n):
    return cube(n) < 0


def law(n, p):
    """The probability of each subset."""
    inside = subsets(n).double()
    return (inside * p + (1 - inside) * (1 - p)).prod(1)


def characters(masks, p):
    return (masks.double() - p) / sqrt(p * (1 - p))


def table(n, *key):
    return torch.randn(2, 2**n, generator=generator("table", n, *key), dtype=torch.float64)


def whole_law(n, p):
    """Indices of subsets, each as often as its probability says; p is 1/2 or 1/4."""
    odds = round((1 - p) / p)
    sizes = subsets(n).sum(1)
    return torch.arange(2**n).repeat_interleave(odds ** (n - sizes))
