"""One Markov chain whose contexts are easy or hard to predict from."""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar, NamedTuple

import numpy
import torch
from torch import Tensor

from mesocosm import seeding
from mesocosm.settings import setting
from mesocosm.tasks.base import Task
from mesocosm.tasks.markov_chains import stationary_law

__all__ = ["EasyHardMarkov"]


class EasyHardBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    probabilities: Tensor
    entropy: Tensor
    hard: Tensor


class Chain(NamedTuple):
    """A chain of order 2; context (a, b) is number a V + b. In float64."""

    laws: Tensor
    """`[V^2, V]`: law of the symbol after each context."""
    hard: Tensor
    """`[V^2]` bool: whether a context is hard."""
    stationary: Tensor
    """`[V^2]`: frequencies of the contexts."""
    entropies: Tensor
    """`[V^2]`: entropy of the symbol after each context, in nats."""


@dataclass(frozen=True, kw_only=True)
class EasyHardMarkov(Task):
    """Next symbols of one Markov chain of order 2, in which some contexts leave little doubt and others much.

    The law after each of the V^2 contexts is drawn once, from a symmetric Dirichlet whose concentration is small in
    easy contexts and large in hard ones; `table` numbers the draw. Strings start from the stationary law. Conditional
    laws and entropies are exact.

    Raises:
        ValueError: on first use, for a draw of few and easy contexts in some of which the chain gets caught.

    Source: Rawat et al. (2024), A Little Help Goes a Long Way: Efficient LLM Training by Leveraging Small LMs, whose
    account of easy and hard regions it makes exact, arXiv 2410.18779
    """

    symbols: int = setting(32, "number of symbols V", low=2, high=64)
    length: int = setting(64, "predicted positions T", low=2, high=4096)
    easy: float = setting(0.1, "Dirichlet concentration in easy contexts", low=0.05, high=100)
    hard: float = setting(2.0, "Dirichlet concentration in hard contexts", low=0.05, high=100)
    hard_share: float = setting(0.5, "share of the contexts that are hard", low=0, high=1)
    table: int = setting(0, "number of the draw of the chain", low=0)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T] int64: symbols",
        "targets": "[B, T] int64: the symbol after each input",
        "weights": "[B, T] float32: 1, but 0 at the first position, whose context starts before the inputs",
        "probabilities": "[B, T, V] float32: hidden law of each target in its context",
        "entropy": "[B, T] float32: entropy of that law, in nats",
        "hard": "[B, T] bool: whether the context is a hard one",
    }

    @property
    def input_shape(self) -> tuple[int]:
        return (self.length,)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (self.length, self.symbols)

    @property
    def tokens(self) -> tuple[str, ...]:
        return tuple(f"s{i}" for i in range(self.symbols))

    @property
    def chain(self) -> Chain:
        """The laws, shared by all callers: do not write into them."""
        return _draw_chain(self.symbols, self.easy, self.hard, self.hard_share, self.table)

    @property
    def entropy_rate(self) -> float:
        """Least expected loss a symbol, in nats: the mean of the conditional entropies under the stationary law."""
        return float(self.chain.stationary @ self.chain.entropies)

    def sample(self, size: int, generator: torch.Generator) -> EasyHardBatch:
        chain, count = self.chain, self.symbols**2
        # All laws as one increasing sequence: where u + c falls is number c V + s, for context c and symbol s after it.
        cumulative = chain.laws.cumsum(1)
        cumulative[:, -1] = 1
        steps = (cumulative + torch.arange(count)[:, None]).flatten()
        uniform = torch.rand(self.length + 1, size, generator=generator, dtype=torch.float64)
        context = torch.searchsorted(chain.stationary.cumsum(0), uniform[0], right=True).clamp_max(count - 1)
        pairs = []
        for t in range(1, self.length + 1):
            place = torch.searchsorted(steps, context + uniform[t], right=True)
            pairs.append(torch.minimum(place, (context + 1) * self.symbols - 1))
            context = pairs[-1] % count
        pair = torch.stack(pairs, dim=1)  # [B, T]
        contexts = pair // self.symbols
        weights = torch.ones(size, self.length)
        weights[:, 0] = 0
        return EasyHardBatch(
            inputs=contexts % self.symbols,
            targets=pair % self.symbols,
            weights=weights,
            probabilities=chain.laws.float()[contexts],
            entropy=chain.entropies.float()[contexts],
            hard=chain.hard[contexts],
        )


@cache
def _draw_chain(symbols: int, easy: float, hard: float, hard_share: float, table: int) -> Chain:
    count = symbols**2
    random = numpy.random.default_rng(seeding.key("easy and hard contexts", symbols, table))
    is_hard = random.permutation(count) < round(hard_share * count)
    draws = random.standard_gamma(numpy.where(is_hard, hard, easy)[:, None], (count, symbols))
    laws = torch.from_numpy(draws / draws.sum(1, keepdims=True))
    stationary = _stationary(laws)
    if stationary is None:
        raise ValueError(
            f"table={table} is not legal: with symbols={symbols} and easy={easy} this draw of the chain gets caught in "
            "some contexts, so that it has no one stationary law; choose another number, or more symbols"
        )
    return Chain(laws, torch.from_numpy(is_hard), stationary, torch.special.entr(laws).sum(1))


def _stationary(laws: Tensor) -> Tensor | None:
    """Frequencies `[V^2]` of the contexts of a chain with laws `[V^2, V]`, where they are well determined."""
    symbols = laws.shape[1]
    try:
        frequencies = stationary_law(laws[None])[0]
    except torch.linalg.LinAlgError:
        return None
    after_a_step = (frequencies[:, None] * laws).view(symbols, symbols, symbols).sum(0).flatten()
    if not torch.allclose(after_a_step, frequencies, rtol=0, atol=1e-9):
        return None
    return frequencies
