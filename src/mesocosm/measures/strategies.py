"""How close predictions come to simple strategies that count symbols, and when training moves from one to the next."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

__all__ = ["kl_divergence", "ngram_strategies", "phases", "plateau_length"]

NAMES = ("uniform", "unigram", "bigram", "trigram")


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) = sum_v p_v ln(p_v / q_v) in nats, `[...]`, of log probabilities `[..., V]`; -inf in p counts as 0."""
    return torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum(-1)


def ngram_strategies(task: Any, inputs: Tensor, longest: int = 2) -> dict[str, Tensor]:
    """Log probabilities `[B, T, V]` of the next symbol by strategy: "uniform", and the add-one rules that count
    single symbols ("unigram"), pairs ("bigram") and triples ("trigram") in the context.

    Args:
        task: a `MarkovChains`.
        inputs: `[B, T]`, symbols so far.
        longest: length of the longest n-gram, at most 3.

    Source: Edelman et al. (2024), The Evolution of Statistical Induction Heads, section 2, arXiv 2402.11004
    """
    rules = [task.ngram(inputs, order) for order in range(longest)]
    uniform = torch.full_like(rules[0], 1 / task.symbols)
    return {name: rule.log() for name, rule in zip(NAMES, [uniform, *rules])}


def phases(nearest: Sequence[Any]) -> list[tuple[Any, int, int]]:
    """Runs of equal values in a sequence, as (value, first index, index after the last).

    >>> phases(["uniform", "uniform", "bigram"])
    [('uniform', 0, 2), ('bigram', 2, 3)]
    """
    runs, first = [], 0
    for value, group in groupby(nearest):
        after = first + len(list(group))
        runs.append((value, first, after))
        first = after
    return runs


def plateau_length(steps: Tensor, values: Tensor, level: float, tolerance: float) -> Tensor:
    """Steps for which a curve stays within `tolerance` of `level`, from the first to the last such measurement.

    Args:
        steps: `[E]`, increasing.
        values: `[E, ...]`.

    Returns:
        `[...]` in steps; 0 where it never gets there.
    """
    near = (values - level).abs() <= tolerance
    places = steps.double().reshape(-1, *[1] * (values.dim() - 1)).expand(values.shape)
    last = places.masked_fill(~near, -torch.inf).amax(0)
    first = places.masked_fill(~near, torch.inf).amin(0)
    return (last - first).clamp_min(0)
