"""Predictors of the form that is optimal for a hidden Markov model, whose weights are the model's parameters."""

from typing import Self

import torch
from torch import Tensor, nn

from mesocosm.models._checks import check_at_least, number_sizes, token_sizes
from mesocosm.tasks.base import Task
from mesocosm.tasks.hidden_markov import sinkhorn, state_posterior

__all__ = ["DiscreteHMMPredictor", "GaussianHMMPredictor"]


class GaussianHMMPredictor(nn.Module):
    """M T phi(x): the optimal predictor of the next token of a Gaussian HMM, phi the posterior of uniform states.

    Columns of M are unit vectors, columns of T softmaxes; both start from standard normal numbers.

    Raises:
        ValueError: for a size below 1.

    Source: Liu, Hsu, Ravikumar & Risteski (2022), Masked Prediction: A Parameter Identifiability View, section 2, arXiv
    2202.09305
    """

    def __init__(self, *, d_input: int, n_states: int = 3) -> None:
        super().__init__()
        check_at_least(1, d_input=d_input, n_states=n_states)
        self.directions = nn.Parameter(torch.randn(d_input, n_states))
        self.logits = nn.Parameter(torch.randn(n_states, n_states))

    @classmethod
    def for_task(cls, task: Task, **sizes: int) -> Self:
        """Dimensions from a task of numbers `(d,)` in and out, the rest from `sizes`."""
        return cls(**{"d_input": number_sizes(task, cls)[0]} | sizes)

    @property
    def means(self) -> Tensor:
        """M `[d, k]`."""
        return unit_columns(self.directions)

    @property
    def transition(self) -> Tensor:
        """T `[k, k]`, T_ji = P(h' = j | h = i)."""
        return self.logits.softmax(0)

    def forward(self, x: Tensor) -> Tensor:
        """Expected next tokens `[B, d]` after `x` `[B, d]`."""
        return state_posterior(self.means, x) @ self.transition.mT @ self.means.mT


class DiscreteHMMPredictor(nn.Module):
    """Log probabilities of every token of a string given those that are shown, by forward and backward messages.

    Columns of O are softmaxes; T is the exponential of its weights after `sweeps` of Sinkhorn, so doubly stochastic.
    Weights start standard normal. Token d masks.

    Raises:
        ValueError: for a size below 1.

    Source: Liu, Hsu, Ravikumar & Risteski (2022), Masked Prediction: A Parameter Identifiability View, section 2, arXiv
    2202.09305
    """

    def __init__(self, *, n_symbols: int, n_states: int = 3, sweeps: int = 30) -> None:
        super().__init__()
        check_at_least(1, n_symbols=n_symbols, n_states=n_states, sweeps=sweeps)
        self.sweeps = sweeps
        self.emission_logits = nn.Parameter(torch.randn(n_symbols, n_states))
        self.transition_logits = nn.Parameter(torch.randn(n_states, n_states))

    @classmethod
    def for_task(cls, task: Task, **sizes: int) -> Self:
        """Symbols from a task of tokens, the rest from `sizes`."""
        return cls(**{"n_symbols": token_sizes(task, cls)[2]} | sizes)

    @property
    def emission(self) -> Tensor:
        """O `[d, k]`, O_xi = P(x | h = i)."""
        return self.emission_logits.softmax(0)

    @property
    def transition(self) -> Tensor:
        """T `[k, k]`, T_ji = P(h' = j | h = i)."""
        return sinkhorn(self.transition_logits.exp(), self.sweeps)

    def forward(self, tokens: Tensor) -> Tensor:
        """Log probabilities `[B, T, d]` of each token given the others of `tokens` `[B, T]` that are not the mask."""
        emission, transition = self.emission, self.transition
        likelihoods = torch.cat([emission, torch.ones_like(emission[:1])])[tokens]  # [B, T, k]
        past = _messages(likelihoods, transition.mT)
        future = _messages(likelihoods.flip(1), transition).flip(1)
        law = past * future
        return (law / law.sum(-1, keepdim=True) @ emission.mT).log()


def unit_columns(matrix: Tensor) -> Tensor:
    return matrix / matrix.norm(dim=-2, keepdim=True)


def _messages(likelihoods: Tensor, step: Tensor) -> Tensor:
    """What tokens before each place tell of its state, up to factors: `[B, T, k]`."""
    message = torch.full_like(likelihoods[:, 0], 1 / len(step))
    messages = [message]
    for t in range(likelihoods.shape[1] - 1):
        message = (message * likelihoods[:, t]) @ step
        message = message / message.sum(-1, keepdim=True)
        messages.append(message)
    return torch.stack(messages, dim=1)
