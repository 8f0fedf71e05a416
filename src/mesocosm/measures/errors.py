"""Errors of predictions, where they fall, and how surely they are known; where attention looks."""

from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "attention_entropy",
    "attention_to_target",
    "error_rate",
    "glitch_counts",
    "rule_of_three",
    "sign_error",
    "wilson_interval",
]


class GlitchCounts(NamedTuple):
    errors: Tensor
    """`[D, W]`: wrong reads by distance and by number of writes."""
    reads: Tensor
    """`[D, W]`: all reads; `errors / reads` is the rate, NaN where there was none."""


def sign_error(scores: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted share of scores whose sign is not the target's, sum w 1[sign f != y] / sum w; a score of 0 is wrong.

    Args:
        scores: `[..., B]`, leading axes for replicas judged on the same targets (`torch.vmap` maps their own).
        targets: `[B]`, ±1.
        weights: `[B]`, not negative.

    Returns:
        `[...]`; NaN when all weights are 0.
    """
    return _weighted_share(scores.sign() != targets, weights)


def error_rate(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted share of predictions, the classes of largest logits, that miss the target, sum w 1[argmax != y] / sum w.

    Args:
        logits: `[..., B, K]`, or `[..., B, T, V]` for tokens; leading axes for replicas judged on the same targets
            (`torch.vmap` maps their own).
        targets: `[B]` or `[B, T]`, classes.
        weights: as targets, not negative.

    Returns:
        `[...]`; NaN when all weights are 0.
    """
    return _weighted_share(logits.argmax(dim=-1) != targets, weights)


def _weighted_share(wrong: Tensor, weights: Tensor) -> Tensor:
    sample_axes = tuple(range(-weights.dim(), 0))
    return (wrong * weights).sum(dim=sample_axes) / weights.sum()


def glitch_counts(wrong: Tensor, weights: Tensor, distance: Tensor, writes: Tensor, size: int) -> GlitchCounts:
    """Attention glitches, wrong reads of a flip-flop string, by distance since the last write and by writes so far.

    Counts of several batches add up.

    Args:
        wrong: `[B, T]` bool, whether each prediction is wrong.
        weights: `[B, T]`, nonzero at reads.
        distance, writes: `[B, T]`, as in a batch of `FlipFlop`.
        size: number of bins D = W for both axes, more than the largest value: half the string's length always is.

    Raises:
        ValueError: when a value does not fit into the bins.

    Source: Liu et al. (2023), Exposing Attention Glitches with Flip-Flop Language Modeling, arXiv 2306.00946
    """
    read = weights > 0
    row, column = distance[read], writes[read]
    largest = int(torch.stack((row, column)).max()) if read.any() else 0
    if largest >= size:
        raise ValueError(f"size={size} is not legal: it must be more than {largest}, the largest distance or writes")
    bins = row * size + column
    errors, reads = (b.bincount(minlength=size * size).view(size, size) for b in (bins[wrong[read]], bins))
    return GlitchCounts(errors, reads)


def wilson_interval(errors: Tensor, trials: Tensor, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
    """Score interval (low, high) of an error rate, from counts of any one shape.

    With p = errors/trials and z the normal quantile, it is
    (p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n); no trials give NaN.

    Raises:
        ValueError: when confidence is not between 0 and 1, or errors not from 0 to trials.

    Source: Wilson (1927), Probable Inference, the Law of Succession, and Statistical Inference
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} is not legal: it must be between 0 and 1")
    if not ((errors >= 0) & (errors <= trials)).all():
        raise ValueError(f"errors={errors.tolist()} is not legal: it must be from 0 to trials={trials.tolist()}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    n = trials.double()
    rate = errors / n
    centre = rate + z**2 / (2 * n)
    reach = z * (rate * (1 - rate) / n + z**2 / (4 * n**2)).sqrt()
    shrink = 1 + z**2 / n
    return (centre - reach) / shrink, (centre + reach) / shrink


def rule_of_three(trials: Tensor) -> Tensor:
    """Upper 95 % bound, 3/trials, of an error rate that showed no error; infinite without trials.

    Source: Hanley and Lippman-Hand (1983), If Nothing Goes Wrong, Is Everything All Right?
    """
    return 3 / trials.double()


def attention_to_target(attention: Tensor, target: Tensor) -> Tensor:
    """Share of each query's attention that falls on its one target key.

    Args:
        attention: `[..., H, T, T]`, by head, query and key.
        target: `[..., T]`, the key for each query, such as `last_write`; -1 where there is none.

    Returns:
        `[..., H, T]`; 0 where there is no target.

    Source: Liu et al. (2023), Exposing Attention Glitches with Flip-Flop Language Modeling, arXiv 2306.00946
    """
    key = target[..., None, :].expand(attention.shape[:-1])
    mass = attention.gather(-1, key.clamp(min=0)[..., None]).squeeze(-1)
    return torch.where(key >= 0, mass, 0)


def attention_entropy(attention: Tensor) -> Tensor:
    """Entropy of each query's attention in nats, -sum_k a_k ln a_k, from `[..., T, T]` to `[..., T]`.

    Source: Liu et al. (2023), Exposing Attention Glitches with Flip-Flop Language Modeling, arXiv 2306.00946
    """
    return torch.special.entr(attention).sum(dim=-1)
