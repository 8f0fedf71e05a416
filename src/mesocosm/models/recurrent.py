"""Recurrent language models."""

from typing import Any, ClassVar, Self

from torch import Tensor, nn

from mesocosm.models._checks import check_at_least, token_sizes
from mesocosm.tasks.base import Task

__all__ = ["GRU", "LSTM"]


class _Recurrent(nn.Module):
    layer: ClassVar[type[nn.LSTM] | type[nn.GRU]]

    def __init__(self, *, d_vocab: int, d_model: int = 64, n_layers: int = 1, n_outputs: int | None = None) -> None:
        super().__init__()
        n_outputs = d_vocab if n_outputs is None else n_outputs
        check_at_least(1, d_vocab=d_vocab, d_model=d_model, n_layers=n_layers, n_outputs=n_outputs)
        self.embed = nn.Embedding(d_vocab, d_model)
        self.rnn = self.layer(d_model, d_model, n_layers, batch_first=True)
        self.unembed = nn.Linear(d_model, n_outputs)

    @classmethod
    def for_task(cls, task: Task, **sizes: Any) -> Self:
        """Vocabulary and outputs from a task of tokens `(T,)` and outputs `(T, V)`, the rest from `sizes`."""
        _, d_vocab, n_outputs = token_sizes(task, cls)
        return cls(**{"d_vocab": d_vocab, "n_outputs": n_outputs} | sizes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `[B, T, V]` of `tokens` `[B, T]`."""
        return self.forward_with_cache(tokens)[0]

    def forward_with_cache(self, tokens: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        """Logits `[B, T, V]` of `tokens` `[B, T]` after the state `cache`, zero when None, and the next state."""
        hidden, cache = self.rnn(self.embed(tokens), cache)
        return self.unembed(hidden), cache


class LSTM(_Recurrent):
    """An LSTM language model: token embedding, `n_layers` LSTM layers of width `d_model`, linear head.

    PyTorch's LSTM has no vmap rule, so a population of these trains unstacked. `n_outputs` is `d_vocab` when None.

    Raises:
        ValueError: for a size below 1.

    Source: Hochreiter & Schmidhuber (1997), Long short-term memory
    """

    layer = nn.LSTM


class GRU(_Recurrent):
    """A GRU language model: token embedding, `n_layers` GRU layers of width `d_model`, linear head.

    PyTorch's GRU has no vmap rule, so a population of these trains unstacked. `n_outputs` is `d_vocab` when None.

    Raises:
        ValueError: for a size below 1.

    Source: Cho et al. (2014), Learning phrase representations using RNN encoder-decoder
    """

    layer = nn.GRU
