"""Masked tokens, to be restored: which are chosen, what stands in their place, and what that tells."""

import torch
from torch import Tensor

__all__: list[str] = []

Fates = tuple[float, ...]
"""Shares of chosen tokens that are masked, kept, and replaced by a uniform one; 0.8, 0.1 and 0.1 in BERT."""


def corrupt(
    tokens: Tensor, eligible: Tensor, rate: float, fates: Fates, n_plain: int, mask: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Tokens as a masked language model sees them, and which it has to restore.

    Args:
        tokens: `[B, T]` int64.
        eligible: `[B, T]` bool: tokens that may be chosen, each independently with probability `rate`.
        fates: shares, of sum 1, of chosen tokens that are masked, kept, and replaced by one of the first `n_plain`.
        mask: the token that masks.

    Returns:
        corrupted tokens `[B, T]`, and chosen ones `[B, T]` bool.

    Source: Devlin et al. (2018), BERT, section 3.1, arXiv 1810.04805
    """
    masked, kept, _ = fates
    uniform = torch.rand(tokens.shape, generator=generator)
    chosen = eligible & (uniform < rate)
    random = torch.randint(n_plain, tokens.shape, generator=generator)
    replaced = torch.where(uniform < rate * masked, mask, torch.where(uniform < rate * (masked + kept), tokens, random))
    return torch.where(chosen, replaced, tokens), chosen


def likelihoods(n_plain: int, rate: float, fates: Fates) -> tuple[Tensor, Tensor]:
    """Probability of what `corrupt` shows given the true token: of any token, and of one known to be chosen.

    Returns:
        two tables `[n_plain + 1, n_plain]` float64, indexed by what is shown (the mask last) and by the true token.
    """
    masked, kept, random = fates
    same = torch.eye(n_plain, dtype=torch.float64)
    shown = torch.cat([kept * same + random / n_plain, torch.full((1, n_plain), masked, dtype=torch.float64)])
    untouched = torch.cat([same, torch.zeros(1, n_plain, dtype=torch.float64)])
    return rate * shown + (1 - rate) * untouched, shown
