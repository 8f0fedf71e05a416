"""One layer of attention over brackets that know their type and level: trained, and built to be exact."""

import math
from collections.abc import Collection
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesocosm.models._checks import check_at_least, token_sizes
from mesocosm.tasks.base import Task

__all__ = ["BalancedAttention", "BracketAttention"]

PATTERN = "blocks.0.attn.hook_pattern"


class _TokenAttention(nn.Module):
    """Causal attention whose scores depend on the two tokens alone: `scores()` `[V, V]` of queries and keys.

    What a query attends to is then a matter of counts: token x of the vocabulary gets the share n_x e^{score} of the
    whole, where n_x is how often it has occurred. So the sums run over V tokens in place of T positions.
    """

    hook_names = (PATTERN,)

    def scores(self) -> Tensor:
        raise NotImplementedError

    def logits(self, one_hot: Tensor, attended: Tensor) -> Tensor:
        """Logits `[B, T, k]` from the tokens and the `[B, T, V]` attention that each token of the vocabulary gets."""
        raise NotImplementedError

    def forward(self, tokens: Tensor, capture: Collection[str] = ()) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Logits `[B, T, k]` of `tokens` `[B, T]`, or `(logits, {name: activation})` when `capture` names some.

        The one activation is `blocks.0.attn.hook_pattern`, `[B, 1, T, T]`.
        """
        unknown = set(capture) - set(self.hook_names)
        if unknown:
            raise ValueError(f"capture={sorted(unknown)} is not legal: it must be among {', '.join(self.hook_names)}")
        scores = self.scores()
        x = F.one_hot(tokens, len(scores)).to(scores.dtype)  # [B, T, V]
        counts = x.cumsum(-2)
        attended = (x @ scores + counts.log()).softmax(-1)
        logits = self.logits(x, attended)
        if not capture:
            return logits
        each = attended / counts.clamp_min(1)
        return logits, {PATTERN: (each @ x.transpose(-1, -2)).tril()[..., None, :, :]}


class BracketAttention(_TokenAttention):
    """A transformer with a minimal first layer: one attention head over embeddings of a bracket's type and level.

    The attended values are normalised by their root mean square, added to the query's own embedding, and read by an
    MLP with one hidden layer. There are no positions.

    Args:
        embedding_std: normal standard deviation of the initial query, key, value and embedding vectors.

    Source: Wen et al. (2023), Transformers are uninterpretable with myopic methods: a case study with bounded Dyck
    grammars, arXiv 2312.01429
    """

    def __init__(
        self, *, d_vocab: int, n_outputs: int, d_model: int = 32, d_mlp: int = 64, embedding_std: float = 1.0
    ) -> None:
        super().__init__()
        check_at_least(1, d_vocab=d_vocab, n_outputs=n_outputs, d_model=d_model, d_mlp=d_mlp)
        if not embedding_std > 0:
            raise ValueError(f"embedding_std={embedding_std!r} is not legal: it must be a number above 0")
        self.query, self.key, self.value, self.embed = (nn.Linear(d_vocab, d_model, bias=False) for _ in range(4))
        for layer in (self.query, self.key, self.value, self.embed):
            nn.init.normal_(layer.weight, std=embedding_std)
        self.mlp = nn.Sequential(nn.Linear(d_model, d_mlp), nn.ReLU(), nn.Linear(d_mlp, n_outputs))

    @classmethod
    def for_task(cls, task: Task, **sizes: Any) -> Self:
        """Vocabulary and outputs from a task of tokens `[T]` and outputs `[T, V]`, the rest from `sizes`."""
        _, d_vocab, n_outputs = token_sizes(task, cls)
        return cls(**{"d_vocab": d_vocab, "n_outputs": n_outputs} | sizes)

    def scores(self) -> Tensor:
        """Attention logits of every query and key token, `[V, V]`."""
        query, key = self.query.weight, self.key.weight  # [D, V]
        return query.T @ key / math.sqrt(len(query))

    def values(self) -> Tensor:
        """What each token adds to the attended sum, `[V, D]`."""
        return self.value.weight.T

    def logits(self, one_hot: Tensor, attended: Tensor) -> Tensor:
        z = attended @ self.values()
        return self.mlp(F.rms_norm(z, z.shape[-1:]) + self.embed(one_hot))


class BalancedAttention(_TokenAttention):
    """Attention over bounded Dyck strings that is exact for any scores at all, in float64.

    Every pair of brackets p (a type at a level) has a coordinate of its own. Query u scores a closing bracket
    b_{u,p} and an opening one b_{u,p} + c_p; their values are -1 and e^{-c_p}. So matched brackets cancel for every
    query, and what is left are the open brackets, one a level: at depth d the open type of level d is read off.

    Args:
        pair_scores: b, `[V, P]` by query token and pair, any numbers.
        opening_scores: c, `[P]`, any numbers.
        balanced: whether values make up for the scores; without, they are -1 and 1 and do not cancel.

    Raises:
        ValueError: for scores that are not those of `2 n_types max_depth` tokens.

    Source: Wen et al. (2023), Transformers are uninterpretable with myopic methods: a case study with bounded Dyck
    grammars, arXiv 2312.01429
    """

    pair_scores: Tensor
    opening_scores: Tensor

    def __init__(
        self, pair_scores: Tensor, opening_scores: Tensor, *, n_types: int, max_depth: int, balanced: bool = True
    ) -> None:
        super().__init__()
        pairs = n_types * max_depth
        if pair_scores.shape != (2 * pairs, pairs) or opening_scores.shape != (pairs,):
            shapes = [list(pair_scores.shape), list(opening_scores.shape)]
            raise ValueError(f"shapes={shapes} of scores are not legal: they must be {[[2 * pairs, pairs], [pairs]]}")
        self.n_types, self.max_depth, self.balanced = n_types, max_depth, balanced
        self.register_buffer("pair_scores", pair_scores.double())
        self.register_buffer("opening_scores", opening_scores.double())

    @classmethod
    def random(
        cls, *, n_types: int, max_depth: int, std: float, generator: torch.Generator, balanced: bool = True
    ) -> Self:
        """With scores of key tokens, and of query and pair, that are normal with standard deviation `std`."""
        pairs = n_types * max_depth
        opening, closing = std * torch.randn(2, pairs, generator=generator, dtype=torch.float64)
        common = std * torch.randn(2 * pairs, pairs, generator=generator, dtype=torch.float64)
        return cls(closing + common, opening - closing, n_types=n_types, max_depth=max_depth, balanced=balanced)

    def scores(self) -> Tensor:
        """Attention logits of every query and key token, `[V, V]`."""
        return torch.cat([self.pair_scores + self.opening_scores, self.pair_scores], dim=1)

    def values(self) -> Tensor:
        """What each token adds to the attended sum, `[V, P]`."""
        one = torch.eye(len(self.opening_scores), dtype=torch.float64, device=self.opening_scores.device)
        return torch.cat([one * (-self.opening_scores).exp() if self.balanced else one, -one])

    def logits(self, one_hot: Tensor, attended: Tensor) -> Tensor:
        z = (attended @ self.values()).unflatten(-1, (self.n_types, self.max_depth))
        opening, closing = one_hot.unflatten(-1, (2, self.n_types, self.max_depth)).sum(-2).unbind(-2)  # [B, T, D]
        here = opening + F.pad(closing[..., 1:], (0, 1))  # one-hot depth after the bracket; no 1 at depth 0
        return (z * here[..., None, :]).sum(-1)
