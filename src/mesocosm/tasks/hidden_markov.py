"""Hidden Markov models: tokens that states emit, of which some are shown and others are asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mesocosm import seeding
from mesocosm.settings import setting
from mesocosm.tasks.base import Task

__all__ = ["DiscreteHMM", "GaussianHMM"]

SWEEPS = 200
"""Sweeps after which Sinkhorn's iteration has converged to machine precision for the matrices drawn here."""
CELLS = 10**7
"""Most strings of tokens that are summed over."""


class DiscreteHMMBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    states: Tensor


class GaussianHMMBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    states: Tensor


@dataclass(frozen=True, kw_only=True)
class _HiddenMarkov(Task):
    states: int = setting(3, "number of hidden states k", low=2, high=64)
    floor: float = setting(0.2, "what is added to each uniform entry of T before it is balanced", low=1e-3, high=100)
    persistence: float = setting(0.0, "what is added to the diagonal of T before it is balanced", low=0, high=100)
    table: int = setting(0, "number of the draw of the model", low=0)

    @property
    def transition(self) -> Tensor:
        """T `[k, k]` float64, T_ji = P(h' = j | h = i); doubly stochastic, so that uniform states are stationary."""
        return _draw_transition(self.states, self.floor, self.persistence, self.table)

    def _draw_states(self, size: int, length: int, generator: torch.Generator) -> Tensor:
        states = [torch.randint(self.states, (size,), generator=generator)]
        for _ in range(length - 1):
            states.append(_draw(self.transition, states[-1], generator))
        return torch.stack(states, dim=1)


@dataclass(frozen=True, kw_only=True)
class DiscreteHMM(_HiddenMarkov):
    """Predict tokens of a hidden Markov model from other tokens of the same string, at fixed places.

    k states start uniform and move by T_ji = P(h' = j | h = i); state i emits symbol x with probability O_xi. Tokens
    at `seen` are shown and those at `predicted` asked for; the rest are masked too and carry no loss. `table` numbers
    the draw: T by balancing uniform entries plus `floor`, columns of O as `spread` Dirichlet + (1 - spread) / d.

    Raises:
        ValueError: for fewer symbols than states, or places that are not in the string or both seen and predicted.

    Source: Liu, Hsu, Ravikumar & Risteski (2022), Masked Prediction: A Parameter Identifiability View, section 2, arXiv
    2202.09305
    """

    symbols: int = setting(4, "number of symbols d", low=2, high=1000)
    concentration: float = setting(1.0, "parameter of the Dirichlet law of O's columns", low=0.05, high=1000)
    spread: float = setting(0.75, "weight of the Dirichlet draw in O; the rest is uniform", low=0.01, high=1)
    length: int = setting(3, "tokens in a string T", low=2, high=1000)
    seen: tuple[int, ...] = setting((0, 1), "places of tokens that are shown, from 0", low=0)
    predicted: tuple[int, ...] = setting((2,), "places of tokens that are asked for, from 0", low=0)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T] int64: the string; tokens that are not shown are d, the mask",
        "targets": "[B, T] int64: the whole string",
        "weights": "[B, T] float32: 1 at tokens that are asked for",
        "states": "[B, T] int64: the hidden states",
    }

    def check(self) -> None:
        if self.symbols < self.states:
            raise ValueError(f"symbols={self.symbols} is not legal: it must be at least states={self.states}")
        places = [*self.seen, *self.predicted]
        if len(set(places)) < len(places) or max(places) >= self.length:
            raise ValueError(
                f"predicted={self.predicted} is not legal with seen={self.seen}: places must differ and be below "
                f"length={self.length}"
            )

    @property
    def input_shape(self) -> tuple[int]:
        return (self.length,)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (self.length, self.symbols)

    @property
    def tokens(self) -> tuple[str, ...]:
        return (*map(str, range(self.symbols)), "?")

    @property
    def emission(self) -> Tensor:
        """O `[d, k]` float64, O_xi = P(x | h = i)."""
        return _draw_emission(self.symbols, self.states, self.concentration, self.spread, self.table)

    def conditional(self, seen: Sequence[int], predicted: Sequence[int]) -> Tensor:
        """P(tokens at `predicted` | tokens at `seen`), `[d, ..., d]` float64: seen places first, each in rising order.

        Raises:
            ValueError: when there are more than 10^7 strings.
        """
        return token_conditional(self.emission, self.transition, seen, predicted)

    @property
    def optimal_loss(self) -> float:
        """Mean cross-entropy in nats of the exact predictor of each token that is asked for."""
        law = self.conditional((), self.seen)
        tables = [self.conditional(self.seen, (place,)) for place in self.predicted]
        return float(sum(-(law[..., None] * torch.xlogy(t, t)).sum() for t in tables)) / len(tables)

    def sample(self, size: int, generator: torch.Generator) -> DiscreteHMMBatch:
        states = self._draw_states(size, self.length, generator)
        tokens = _draw(self.emission, states, generator)
        shown, asked = torch.zeros(2, self.length).bool()
        shown[list(self.seen)], asked[list(self.predicted)] = True, True
        return DiscreteHMMBatch(tokens.where(shown, self.symbols), tokens, asked.float().expand(size, -1), states)


@dataclass(frozen=True, kw_only=True)
class GaussianHMM(_HiddenMarkov):
    """Predict a later token of a hidden Markov model, whose states emit x ~ N(mu_i, I_d), from the first token.

    k states start uniform and move by T_ji = P(h' = j | h = i). The means, columns of M, are unit vectors in random
    directions, drawn with `table`. The optimal predictor of x_{1+g} is M T^g phi(x_1), phi(x) = softmax_i(mu_i . x -
    |mu_i|^2 / 2).

    Raises:
        ValueError: for fewer dimensions than states, whose means could not be linearly independent.

    Source: Liu, Hsu, Ravikumar & Risteski (2022), Masked Prediction: A Parameter Identifiability View, section 2, arXiv
    2202.09305
    """

    floor: float = setting(0.1, "what is added to each uniform entry of T before it is balanced", low=1e-3, high=100)
    persistence: float = setting(0.8, "what is added to the diagonal of T before it is balanced", low=0, high=100)
    dimensions: int = setting(5, "dimensions d of a token", low=2, high=10_000)
    gap: int = setting(1, "how many tokens later the predicted one is", low=1, high=1000)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, d] float32: the first token",
        "targets": "[B, d] float32: the token `gap` places later",
        "weights": "[B] float32: 1 everywhere",
        "states": "[B, 2] int64: the hidden states of both",
    }

    def check(self) -> None:
        if self.dimensions < self.states:
            raise ValueError(f"dimensions={self.dimensions} is not legal: it must be at least states={self.states}")

    @property
    def input_shape(self) -> tuple[int]:
        return (self.dimensions,)

    @property
    def output_shape(self) -> tuple[int]:
        return (self.dimensions,)

    @property
    def means(self) -> Tensor:
        """M `[d, k]` float64, with unit columns."""
        return _draw_means(self.dimensions, self.states, self.table)

    def optimal(self, inputs: Tensor) -> Tensor:
        """Expected token `gap` places after `inputs` `[..., d]`, float64."""
        ahead = torch.linalg.matrix_power(self.transition, self.gap)
        return state_posterior(self.means, inputs.double()) @ (self.means @ ahead).mT

    def sample(self, size: int, generator: torch.Generator) -> GaussianHMMBatch:
        states = self._draw_states(size, self.gap + 1, generator)[:, [0, -1]]
        tokens = self.means.float().mT[states] + torch.randn(size, 2, self.dimensions, generator=generator)
        return GaussianHMMBatch(tokens[:, 0], tokens[:, 1], torch.ones(size), states)


def state_posterior(means: Tensor, x: Tensor) -> Tensor:
    """P(h | x) `[..., k]` of uniform states that emit N(mu_i, I), from means `[d, k]` and tokens `[..., d]`."""
    return torch.softmax(x @ means - means.square().sum(0) / 2, dim=-1)


def conditional_moment(
    features: Tensor, transition: Tensor, seen: Mapping[int, Tensor], predicted: Sequence[int]
) -> Tensor:
    """Expected f(x_s) ⊗ f(x_t) ⊗ ... given seen tokens, for predicted places s < t < ..., by the forward algorithm.

    The chain starts uniform at the first place that is seen or predicted.

    Args:
        features: expected f(x) in each state, `[d, k]`: O for one-hot tokens, M for Gaussian ones.
        transition: T `[k, k]`, T_ji = P(h' = j | h = i).
        seen: by place, P(token | h) up to factors, `[N, k]`.

    Returns:
        `[N, d, ..., d]`, with N = 1 where nothing is seen.
    """
    places = sorted({*seen, *predicted})
    joint = _forward(features, transition, seen, predicted, places)
    last = max(seen, default=places[0])
    law = _forward(features, transition, seen, (), [t for t in places if t <= last])
    return (joint / law).unflatten(1, (len(features),) * len(predicted))


def _forward(
    features: Tensor, transition: Tensor, seen: Mapping[int, Tensor], predicted: Sequence[int], places: list[int]
) -> Tensor:
    """Sum over all paths of states; every predicted place adds an axis, all of them flattened: `[N, d^m]`."""
    message = torch.full_like(transition[0], 1 / len(transition))[None, None]  # [N, d^m, k]
    for before, place in pairwise([places[0], *places]):
        for _ in range(place - before):
            message = message @ transition.mT
        if place in seen:
            message = message * seen[place][:, None]
        if place in predicted:
            message = (message[:, :, None] * features).flatten(1, 2)
    return message.sum(-1)


def token_conditional(emission: Tensor, transition: Tensor, seen: Sequence[int], predicted: Sequence[int]) -> Tensor:
    """P(tokens at `predicted` | tokens at `seen`) for all strings: `[d, ..., d]`, seen places first, in rising order.

    Raises:
        ValueError: when there are more than 10^7 strings.
    """
    symbols = len(emission)
    if symbols ** (len(seen) + len(predicted)) > CELLS:
        raise ValueError(f"{len(seen) + len(predicted)} places are not legal: at most {CELLS} strings are summed over")
    strings = torch.ones((symbols,) * len(seen), device=emission.device).nonzero()  # [d^m, m]
    likelihoods = {place: emission[strings[:, i]] for i, place in enumerate(sorted(seen))}
    moment = conditional_moment(emission, transition, likelihoods, predicted)
    return moment.reshape((symbols,) * (len(seen) + len(predicted)))


def sinkhorn(matrix: Tensor, sweeps: int = SWEEPS) -> Tensor:
    """A positive matrix `[..., k, k]` balanced to rows and columns of sum 1, columns last.

    Source: Sinkhorn (1964), A relationship between arbitrary positive matrices and doubly stochastic matrices
    """
    for _ in range(sweeps):
        matrix = matrix / matrix.sum(-1, keepdim=True)
        matrix = matrix / matrix.sum(-2, keepdim=True)
    return matrix


@cache
def _draw_transition(states: int, floor: float, persistence: float, table: int) -> Tensor:
    uniform = torch.rand(states, states, generator=seeding.generator("hmm transition", states, table)).double()
    return sinkhorn(uniform + floor + persistence * torch.eye(states, dtype=torch.float64))


@cache
def _draw_emission(symbols: int, states: int, concentration: float, spread: float, table: int) -> Tensor:
    stream = np.random.default_rng(seeding.key("hmm emission", symbols, states, table))
    draws = torch.from_numpy(stream.dirichlet(np.full(symbols, concentration), size=states)).mT
    return spread * draws + (1 - spread) / symbols


@cache
def _draw_means(dimensions: int, states: int, table: int) -> Tensor:
    stream = seeding.generator("hmm means", dimensions, states, table)
    means = torch.randn(dimensions, states, generator=stream).double()
    return means / means.norm(dim=0)


def _draw(columns: Tensor, given: Tensor, generator: torch.Generator) -> Tensor:
    """A draw from column i of `columns` `[n, k]` for each i in `given`, of the shape of `given`."""
    uniform = torch.rand(given.shape, dtype=torch.float64, generator=generator)
    return torch.searchsorted(columns.cumsum(0)[:-1].mT.contiguous()[given], uniform[..., None], right=True).squeeze(-1)
