"""Language models that see the last few tokens and nothing else."""

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesocosm.models._checks import check_at_least, token_sizes
from mesocosm.models.mlp import MLP
from mesocosm.tasks.base import Task

__all__ = ["NgramMLP", "NgramTable"]


class NgramMLP(nn.Module):
    """A fully connected network on the embeddings of the last `context` tokens, at every position.

    A learned vector stands for what lies before the first token. Embeddings start standard normal, the rest as `MLP`.

    Args:
        context: how many tokens a prediction sees.
        d_embed: numbers a token is embedded in.
        hidden: width of each hidden layer, with GELU.
        n_outputs: outputs per position, d_vocab when None.

    Raises:
        ValueError: for a size below 1.

    Source: Bengio et al. (2003), A neural probabilistic language model
    """

    def __init__(
        self,
        *,
        d_vocab: int,
        context: int = 8,
        d_embed: int = 12,
        hidden: tuple[int, ...] = (256, 256),
        n_outputs: int | None = None,
    ) -> None:
        super().__init__()
        check_at_least(1, d_vocab=d_vocab, context=context, d_embed=d_embed)
        self.context, self.before = context, d_vocab
        self.embed = nn.Embedding(d_vocab + 1, d_embed)
        self.mlp = MLP(d_input=context * d_embed, d_output=n_outputs or d_vocab, hidden=hidden, activation="gelu")

    @classmethod
    def for_task(cls, task: Task, **sizes: Any) -> Self:
        """Vocabulary and outputs from a task of tokens `[T]` and outputs `[T, V]`, the rest from `sizes`."""
        _, d_vocab, n_outputs = token_sizes(task, cls)
        return cls(**{"d_vocab": d_vocab, "n_outputs": n_outputs} | sizes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `[B, T, V]` of `tokens` `[B, T]`."""
        embedded = self.embed(F.pad(tokens, (self.context - 1, 0), value=self.before))
        seen = torch.cat([embedded[:, i : i + tokens.shape[1]] for i in range(self.context)], dim=-1)
        return self.mlp(seen.flatten(0, 1)).unflatten(0, tokens.shape)


class NgramTable(nn.Module):
    """A known law of the next token after each context of n tokens: without parameters, and the best teacher if true.

    With n = 0 it gives the same frequencies everywhere. What lies before the first token counts as token 0.

    Args:
        laws: `[V^n, V]` probabilities; the context (a, b), with b the latest token, is row a V + b.

    Raises:
        ValueError: when the number of rows is not a power of V.
    """

    def __init__(self, laws: Tensor) -> None:
        super().__init__()
        rows, self.d_vocab = laws.shape
        self.context = 0
        while self.d_vocab**self.context < rows:
            self.context += 1
        if self.d_vocab**self.context != rows:
            raise ValueError(f"laws of {rows} contexts are not legal: it must be a power of V={self.d_vocab}")
        self.register_buffer("log_laws", laws.log().float(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Log-probabilities `[B, T, V]` of what follows `tokens` `[B, T]`."""
        length, row = tokens.shape[1], torch.zeros_like(tokens)
        padded = F.pad(tokens, (max(self.context - 1, 0), 0))
        for i in range(self.context):
            row = row * self.d_vocab + padded[:, i : i + length]
        return self.get_buffer("log_laws")[row]
