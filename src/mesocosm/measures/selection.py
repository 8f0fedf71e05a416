"""Which sequences and tokens a small language model finds easy, hard, or hard but learnable."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["bucket_means", "challenging_yet_learnable", "token_losses"]


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """-log softmax of each target, `[..., T]` in nats, of logits `[..., T, V]` and targets `[..., T]`."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none").view(targets.shape)


def challenging_yet_learnable(logits: Tensor, targets: Tensor, k: int = 10) -> Tensor:
    """How hard each sequence is for a model that could still learn it: S_k `[...]`, in nats.

    S_k(x) = median over t of 1[x_t in top-k of P(. | x_<t)] * (-log P(x_t | x_<t)). Tokens outside the top k, which
    the model finds unlearnable, count 0: a sequence with more than half of them scores 0. Of an even number of tokens
    the median is the lower of the two in the middle. A token that ties with the k-th is in the top k.

    Args:
        logits: `[..., T, V]`, of a small model, the paper's at an early checkpoint.
        targets: `[..., T]`.

    Raises:
        ValueError: for a k that is not from 1 to V.

    Source: Rawat et al. (2024), A Little Help Goes a Long Way: Efficient LLM Training by Leveraging Small LMs, on data
    selection, arXiv 2410.18779
    """
    if not 1 <= k <= logits.shape[-1]:
        raise ValueError(f"k={k} is not legal: it must be from 1 to the number of tokens, {logits.shape[-1]}")
    likelier = (logits > logits.gather(-1, targets.unsqueeze(-1))).sum(-1)
    return (token_losses(logits, targets) * (likelier < k)).median(dim=-1).values


def bucket_means(values: Tensor, difficulty: Tensor, buckets: int = 4) -> Tensor:
    """Means of `values` `[..., N]` over the easiest, .., the hardest of `buckets` equal parts, `[..., buckets]`.

    Parts are by rank of `difficulty` `[..., N]`, which broadcasts; where N does not divide they differ by one.

    Raises:
        ValueError: for more buckets than values.

    Source: Rawat et al. (2024), A Little Help Goes a Long Way, on easy and hard regions, arXiv 2410.18779
    """
    if not 1 <= buckets <= values.shape[-1]:
        raise ValueError(f"buckets={buckets} is not legal: it must be from 1 to the number of values")
    order = difficulty.argsort(dim=-1, stable=True).expand(values.shape)
    parts = values.gather(-1, order).tensor_split(buckets, dim=-1)
    return torch.stack([part.mean(-1) for part in parts], dim=-1)
