"""Whether matching brackets cancel in a layer of attention."""

from torch import Tensor

__all__ = ["balance_violation"]


def balance_violation(scores: Tensor, values: Tensor, pairs: Tensor) -> Tensor:
    """How far matching brackets are from cancelling, by query and pair: 0 where they do, 1 where their values agree.

    ||e^{a_u(o)} v_o + e^{a_u(c)} v_c|| / (e^{a_u(o)} ||v_o|| + e^{a_u(c)} ||v_c||) for query u and the pair (o, c).
    Attention over strings of any length is exact if and only if, up to special cases, all of these are 0.

    Args:
        scores: attention logits a `[V, V]` by query and key token.
        values: v `[V, D]`.
        pairs: `[P, 2]` opening and closing token.

    Returns:
        `[V, P]`.

    Source: Wen et al. (2023), Transformers are uninterpretable with myopic methods: a case study with bounded Dyck
    grammars, theorem on perfect balance, arXiv 2312.01429
    """
    logits = scores[:, pairs]  # [V, P, 2]
    weights = (logits - logits.amax(-1, keepdim=True)).exp()
    added = weights[..., None] * values[pairs]  # [V, P, 2, D]
    return added.sum(-2).norm(dim=-1) / added.norm(dim=-1).sum(-1).clamp_min(1e-30)
