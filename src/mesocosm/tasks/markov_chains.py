"""Markov chains in context: every sequence comes from a chain of its own."""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.base import Task

__all__ = ["MarkovChains"]

CONTEXTS = 32
"""Largest number of contexts, `symbols ** order`, whose stationary law is solved for."""
BIRKHOFF = 5
"""Most symbols at which doubly stochastic matrices are drawn by rejection: a candidate in 13 is kept."""


class MarkovChainsBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    probabilities: Tensor
    transitions: Tensor


@dataclass(frozen=True, kw_only=True)
class MarkovChains(Task):
    """Predict the next symbol of a Markov chain that was never seen before, from its own past alone.

    Each sequence draws fresh transition rows, one for every context of `order` symbols, starts from the stationary
    law of its chain and is T + 1 symbols long. Priors of the rows: "dirichlet", independent and uniform on the
    simplex; "doubly-stochastic", uniform on the matrices whose rows and columns sum to 1, so that all symbols are
    equally frequent; "iid", one uniform row for all contexts.

    Raises:
        ValueError: for more than 32 contexts, or for doubly stochastic chains of another order than 1 or of more than
            5 symbols.

    Source: Edelman et al. (2024), The Evolution of Statistical Induction Heads: In-Context Learning Markov Chains,
    section 2, arXiv 2402.11004
    """

    symbols: int = setting(3, "number of symbols V", low=2, high=32)
    order: int = setting(1, "symbols that the next one depends on", low=0, high=5)
    length: int = setting(64, "predicted positions T", low=2, high=4096)
    prior: Literal["dirichlet", "doubly-stochastic", "iid"] = setting("dirichlet", "law of the transition rows")

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T] int64: the sequence without its last symbol",
        "targets": "[B, T] int64: the symbol after each input",
        "weights": "[B, T] float32: 1",
        "probabilities": "[B, T, V] float32: hidden law of each target given the chain and all symbols before it",
        "transitions": "[B, V^order, V] float32: hidden rows; a context is a number in base V, its last symbol last",
    }

    def check(self) -> None:
        if self.contexts > CONTEXTS:
            raise ValueError(
                f"order={self.order} is not legal: symbols ** order must be at most {CONTEXTS}, not {self.contexts}"
            )
        if self.order > self.length:
            raise ValueError(f"order={self.order} is not legal: it must be at most length={self.length}")
        if self.prior == "doubly-stochastic" and (self.order != 1 or self.symbols > BIRKHOFF):
            raise ValueError(
                f"prior='doubly-stochastic' is not legal with order={self.order} and symbols={self.symbols}: "
                f"it needs order 1 and at most {BIRKHOFF} symbols"
            )

    @property
    def contexts(self) -> int:
        return self.symbols**self.order

    @property
    def input_shape(self) -> tuple[int]:
        return (self.length,)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (self.length, self.symbols)

    @property
    def tokens(self) -> tuple[str, ...]:
        return tuple(map(str, range(self.symbols)))

    def sample(self, size: int, generator: torch.Generator) -> MarkovChainsBatch:
        transitions = self._draw_transitions(size, generator)
        tables = [*_openings(transitions, self.order), transitions]
        uniform = torch.rand(self.length + 1, size, 1, generator=generator)
        sequence, context, first = [], torch.zeros(size, dtype=torch.int64), torch.arange(size)
        laws = []
        for t in range(self.length + 1):
            table = tables[min(t, self.order)]
            law = table.flatten(0, 1)[first * table.shape[1] + context]  # [B, V]
            symbol = (uniform[t] > law.cumsum(1)[:, :-1]).sum(1)
            context = (context * self.symbols + symbol) % self.contexts
            sequence.append(symbol)
            laws.append(law)
        tokens = torch.stack(sequence, dim=1)  # [B, T+1]
        weights = torch.ones(size, self.length)
        return MarkovChainsBatch(tokens[:, :-1], tokens[:, 1:], weights, torch.stack(laws[1:], dim=1), transitions)

    def _draw_transitions(self, size: int, generator: torch.Generator) -> Tensor:
        if self.prior == "doubly-stochastic":
            return _draw_doubly_stochastic(size, self.symbols, generator)
        rows = 1 if self.prior == "iid" else self.contexts
        return _draw_rows(size, rows, self.symbols, generator).expand(-1, self.contexts, -1)

    def ngram(self, inputs: Tensor, order: int) -> Tensor:
        """Add-one estimates `[B, T, V]` of the symbol after each of `inputs` `[B, T]`: (c + 1) / (n + V).

        n counts the earlier occurrences of the last `order` symbols, c those that the symbol followed. Order 0 counts
        symbols: the unigram rule; order 1 is the bigram rule. Before `order` symbols it is uniform.
        """
        counts = ngram_counts(inputs, self.symbols, order)
        return (counts + 1) / (counts.sum(-1, keepdim=True) + self.symbols)

    def bayes(self, inputs: Tensor) -> Tensor:
        """The mean of each next symbol's law given `inputs` `[B, T]` and uniform priors of the rows, `[B, T, V]`.

        It is the add-one rule of the chain's own order, of order 0 for the prior "iid". For chains of order 1 or more
        it leaves out the little that the first symbols tell about the rows through the stationary law.

        Raises:
            ValueError: for the prior "doubly-stochastic", which has no closed form.
        """
        if self.prior == "doubly-stochastic":
            raise ValueError("prior='doubly-stochastic' is not legal: its Bayes predictor has no closed form")
        return self.ngram(inputs, 0 if self.prior == "iid" else self.order)


def ngram_counts(tokens: Tensor, symbols: int, order: int) -> Tensor:
    """How often each symbol followed the current context of `order` symbols so far, float32 `[B, T, V]`."""
    ends = tokens.shape[1] - order + 1  # Contexts end after `order`, ..., T symbols.
    context = torch.zeros(len(tokens), ends, dtype=torch.int64, device=tokens.device)
    for i in range(order):
        context = context * symbols + tokens[:, i : i + ends]
    earlier = (context[:, :, None] == context[:, None, :]).tril(-1)
    followers = F.one_hot(tokens[:, order:], symbols).float()
    counts = earlier[:, :, :-1].float() @ followers
    return F.pad(counts, (0, 0, order, 0))[:, 1:]


def stationary_law(transitions: Tensor) -> Tensor:
    """Frequencies `[B, V^order]`, float64, of the contexts of chains with rows `[B, V^order, V]`, order at least 1."""
    size, contexts, symbols = transitions.shape
    after = (torch.arange(contexts)[:, None] * symbols + torch.arange(symbols)) % contexts
    # pi (I - P + 1) = 1 has the law as its one solution.
    system = torch.zeros(size, contexts, contexts, dtype=torch.float64)
    system.scatter_(2, after.expand(size, -1, -1), -transitions.double())
    system.diagonal(dim1=1, dim2=2).add_(1)
    system += 1
    law = torch.linalg.solve(system.mT, torch.ones(size, contexts, dtype=torch.float64)).clamp_min(0)
    return law / law.sum(1, keepdim=True)


def _openings(transitions: Tensor, order: int) -> list[Tensor]:
    """Laws `[B, V^t, V]` of symbol t given the t before it, t < `order`, under the stationary law."""
    if order == 0:
        return []
    law, symbols = stationary_law(transitions), transitions.shape[2]
    joint = [law.unflatten(1, (symbols**t, symbols, -1)).sum(3) for t in range(order)]
    return [(j / j.sum(2, keepdim=True).clamp_min(1e-300)).float() for j in joint]


def _draw_rows(size: int, rows: int, symbols: int, generator: torch.Generator) -> Tensor:
    """Independent rows `[size, rows, symbols]`, uniform on the simplex: normalised exponentials."""
    draws = torch.empty(size, rows, symbols).exponential_(generator=generator)
    return draws / draws.sum(2, keepdim=True)


def _draw_doubly_stochastic(size: int, symbols: int, generator: torch.Generator) -> Tensor:
    """Matrices `[size, symbols, symbols]`, uniform on the Birkhoff polytope.

    All rows but the last are uniform on the simplex; a draw is kept where the last, which then is given, is a law.
    """
    kept = torch.empty(0, symbols, symbols)
    while len(kept) < size:
        rows = _draw_rows(4 * size, symbols - 1, symbols, generator)
        last = 1 - rows.sum(1, keepdim=True)
        matrices = torch.cat([rows, last], dim=1)[(last >= 0).all(2).squeeze(1)]
        kept = torch.cat([kept, matrices])
    return kept[:size]
