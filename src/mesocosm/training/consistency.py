"""The same answers after words that change none."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

__all__ = ["consistency_penalty", "inconsistency"]


def inconsistency(logits: Tensor, longer: Tensor, batch: Any) -> Tensor:
    """Mean squared change of log-probabilities at the positions behind an insertion; in nats squared.

    Args:
        logits: `[B, T, V]` on `batch.inputs`.
        longer: `[B, T + L, V]` on `batch.longer`.
        batch: as of `DyckInsertions`, with `moved` `[B, T]`; positions of weight 0 do not count.
    """
    moved = batch.moved[..., None].expand(logits.shape)
    change = (longer.log_softmax(-1).gather(-2, moved) - logits.log_softmax(-1)).square().mean(-1)
    position = (batch.moved * 0 + 1).cumsum(-1) - 1
    weights = batch.weights * (batch.moved > position)
    return (change * weights).sum() / weights.sum().clamp_min(1)


def consistency_penalty(objective: Callable[..., Tensor], weight: float) -> Callable[[nn.Module, Any], Tensor]:
    """`objective` plus `weight` times the inconsistency of the model's answers with and without an insertion.

    Source: Wen et al. (2023), Transformers are uninterpretable with myopic methods: a case study with bounded Dyck
    grammars, contrastive regularization, arXiv 2312.01429
    """

    def regularised(model: Any, batch: Any) -> Tensor:
        seen: list[Tensor] = []

        def remembering(inputs: Tensor) -> Tensor:
            seen.append(model(inputs))
            return seen[-1]

        loss = objective(remembering, batch)
        return loss + weight * inconsistency(seen[0], model(batch.longer), batch)

    return regularised
