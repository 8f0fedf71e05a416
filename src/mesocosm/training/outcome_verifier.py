"""Verifiers that learn from outcomes: whether the whole is right, said at every token of it."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["outcome_loss"]


def outcome_loss(model: nn.Module, batch: Any) -> Tensor:
    """Binary cross-entropy of a score at each token with what became of the whole text, mean by `weights`; in nats.

    The model's outputs are scores `[B, T, 1]` of `inputs` `[B, T]`; `targets` `[B, T]` hold the text's outcome, 1 for
    right and 0 for wrong, at each of its tokens, and `weights` `[B, T]` are 1 where the score is taught: at all tokens
    of a solution, or at its last one alone. The score of a solution is that of its last token.

    Source: Cobbe et al. (2021), Training verifiers to solve math word problems, section 4, arXiv 2110.14168; Liu et al.
    (2023), TinyGSM: achieving >80% on GSM8k with small language models, arXiv 2312.09241
    """
    scores = model(batch.inputs).squeeze(-1)
    losses = F.binary_cross_entropy_with_logits(scores, batch.targets, reduction="none")
    return (losses * batch.weights).sum() / batch.weights.sum().clamp_min(1e-12)
