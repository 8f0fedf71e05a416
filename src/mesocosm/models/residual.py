"""Residual networks of fully connected layers."""

from typing import Any, Literal, Self

import torch.nn.functional as F
from torch import Tensor, nn

from mesocosm.models._checks import check_at_least, check_one_of, number_sizes
from mesocosm.tasks.base import Task

__all__ = ["ResidualMLP"]

Activation = Literal["relu", "gelu"]


class ResidualBlock(nn.Module):
    """x + W2 activation(W1 norm(x)), without `residual` what is added alone, without `norm` of x itself."""

    def __init__(self, d_model: int, d_hidden: int, activation: Activation, norm: bool, residual: bool) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(d_model) if norm else nn.Identity()
        self.fc_in = nn.Linear(d_model, d_hidden)
        self.fc_out = nn.Linear(d_hidden, d_model)
        self.activate, self.residual = F.relu if activation == "relu" else F.gelu, residual

    def forward(self, x: Tensor) -> Tensor:
        added = self.fc_out(self.activate(self.fc_in(self.ln(x))))
        return x + added if self.residual else added


class ResidualMLP(nn.Module):
    """A linear map in, `n_layers` pre-norm residual blocks of two linear layers, a final norm and a linear map out.

    Linear layers start as PyTorch's.

    Args:
        d_output: classes, or None for one score per input.
        d_model: width of the residual stream.
        d_hidden: hidden units of each block, 2 * d_model when None.
        norm: False leaves out the blocks' LayerNorms and the final one.
        residual: False makes an ordinary deep network of the blocks, each of which then replaces its input.

    Raises:
        ValueError: for an illegal argument.

    Source: He et al. (2016), Identity mappings in deep residual networks, arXiv 1603.05027
    """

    def __init__(
        self,
        *,
        d_input: int,
        d_output: int | None,
        d_model: int = 64,
        d_hidden: int | None = None,
        n_layers: int = 8,
        activation: Activation = "relu",
        norm: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__()
        d_hidden = 2 * d_model if d_hidden is None else d_hidden
        n_outputs = 1 if d_output is None else d_output
        check_at_least(1, d_input=d_input, d_output=n_outputs, d_model=d_model, d_hidden=d_hidden, n_layers=n_layers)
        check_one_of(Activation, activation=activation)
        self.is_score = d_output is None
        self.embed = nn.Linear(d_input, d_model)
        self.blocks = nn.ModuleList(
            ResidualBlock(d_model, d_hidden, activation, norm, residual) for _ in range(n_layers)
        )
        self.ln_final = nn.LayerNorm(d_model) if norm else nn.Identity()
        self.unembed = nn.Linear(d_model, n_outputs)

    @classmethod
    def for_task(cls, task: Task, **sizes: Any) -> Self:
        """Input and output sizes from a task of numbers with outputs `()` or `(K,)`, the rest from `sizes`."""
        d_input, d_output = number_sizes(task, cls)
        return cls(**{"d_input": d_input, "d_output": d_output} | sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[B]` or logits `[B, K]` of `x` `[B, ...]`."""
        x = self.embed(x.flatten(1))
        for block in self.blocks:
            x = block(x)
        x = self.unembed(self.ln_final(x))
        return x.squeeze(-1) if self.is_score else x
