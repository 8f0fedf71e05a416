"""How much attention maps differ from one another."""

import torch
from torch import Tensor

__all__ = ["one_hot_variation", "pairwise_variation", "stack_attention"]


def pairwise_variation(maps: Tensor) -> Tensor:
    """||A_i - A_j||_F^2 of any two of M attention maps `[M, T, T]`: `[M, M]`, float64.

    Source: Wen et al. (2023), Transformers are uninterpretable with myopic methods: a case study with bounded Dyck
    grammars, arXiv 2312.01429
    """
    flat = maps.double().flatten(1)
    return (flat[:, None] - flat).square().sum(-1)


def one_hot_variation(length: int) -> float:
    """Mean variation of two maps each of whose queries attends to one uniformly chosen position up to its own.

    Row r of two maps differs with probability 1 - 1/r, and then by 2: the mean is 2 (T - H_T), H_T = 1 + ... + 1/T.
    """
    return 2 * (length - sum(1 / row for row in range(1, length + 1)))


def stack_attention(stack_top: Tensor) -> Tensor:
    """Attention to the innermost open bracket, `[B, T, T]`, or to the query itself where none is open.

    Args:
        stack_top: `[B, T]` position of that bracket, or -1; as in a batch of `BoundedDyck`.
    """
    own = torch.arange(stack_top.shape[-1], device=stack_top.device)
    return torch.nn.functional.one_hot(torch.where(stack_top < 0, own, stack_top), stack_top.shape[-1]).float()
