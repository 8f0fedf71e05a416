"""Scratchpads: a model is fed the state before each symbol, the true one in training and its own afterwards."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesocosm.tasks.automata import Automaton
from mesocosm.tasks.base import Task

__all__ = ["ScratchpadTask", "own_states"]


class ScratchpadBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    symbols: Tensor
    state: Tensor


@dataclass(frozen=True, kw_only=True)
class ScratchpadTask(Task):
    """An automaton's states, told state by state: each symbol comes with the state before it, as one token.

    So any model of tokens can be trained by teacher forcing. Pairs are numbered symbol by symbol, symbol * Q + state.
    `own_states` runs a trained model on its own states.

    Raises:
        ValueError: for an automaton whose labels are not its states, or not all revealed.

    Source: Liu et al. (2023), Transformers Learn Shortcuts to Automata, section 5, arXiv 2210.10749
    """

    automaton: Automaton

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T] int64: the pair of each symbol and the state before it, symbol * Q + state",
        "targets": "[B, T] int64: the state after each symbol",
        "weights": "[B, T] float32: 1",
        "symbols": "[B, T] int64: the symbols alone",
        "state": "[B, T] int64: the state after each symbol",
    }

    def check(self) -> None:
        if self.automaton.label != "state" or self.automaton.p_label < 1:
            raise ValueError(f"automaton={self.automaton} is not legal: its labels must be its states, all revealed")

    @property
    def input_shape(self) -> tuple[int]:
        return self.automaton.input_shape

    @property
    def output_shape(self) -> tuple[int, int]:
        return self.automaton.output_shape

    @property
    def tokens(self) -> tuple[str, ...]:
        return tuple(f"{symbol} after {q}" for symbol in self.automaton.tokens for q in range(self.automaton.n_states))

    def sample(self, size: int, generator: torch.Generator) -> ScratchpadBatch:
        batch = self.automaton.sample(size, generator)
        before = F.pad(batch.state[:, :-1], (1, 0), value=self.automaton.machine.start)
        pairs = self.pairs(batch.inputs, before)
        return ScratchpadBatch(pairs, batch.targets, batch.weights, batch.inputs, batch.state)

    def pairs(self, symbols: Tensor, before: Tensor) -> Tensor:
        """Tokens of symbols and the states before them."""
        return symbols * self.automaton.n_states + before


def own_states(model: nn.Module, task: ScratchpadTask, symbols: Tensor) -> Tensor:
    """States `[B, T]` that a model gives for `symbols` `[B, T]` when it is fed its own states; maps over replicas.

    A model with `forward_with_cache(tokens, cache) -> (logits, cache)` reads each token once; any other reads the
    string anew for every symbol.
    """
    read: Any = getattr(model, "forward_with_cache", None)
    state, tokens, cache, states = torch.full_like(symbols[:, 0], task.automaton.machine.start), [], None, []
    for symbol in symbols.unbind(1):
        tokens.append(task.pairs(symbol, state))
        if read:
            logits, cache = read(tokens[-1][:, None], cache)
        else:
            logits = model(torch.stack(tokens, dim=1))
        state = logits[:, -1].argmax(-1)
        states.append(state)
    return torch.stack(states, dim=1)
