"""Fully connected networks."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesocosm.models._checks import check_at_least, check_one_of, number_sizes
from mesocosm.tasks.base import Task

__all__ = ["MLP"]

Activation = Literal["relu", "gelu", "tanh", "quadratic", "cubic", "quartic"]
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "quadratic": lambda z: z**2,
    "cubic": lambda z: z**3,
    "quartic": lambda z: z**4,
}


class MLP(nn.Module):
    """A fully connected network of any depth on flattened inputs; without hidden layers it is a linear model.

    Weights and biases start as PyTorch's, uniform between -1 and 1 over sqrt(fan-in), the weights times `init_gain`.

    Args:
        hidden: width of each hidden layer.
        d_output: classes, or None for one score per input.
        activation: "quadratic", "cubic" and "quartic" are z^2, z^3 and z^4.

    Raises:
        ValueError: for an illegal argument.
    """

    def __init__(
        self,
        *,
        d_input: int,
        d_output: int | None,
        hidden: tuple[int, ...] = (128,),
        activation: Activation = "relu",
        init_gain: float = 1.0,
    ) -> None:
        super().__init__()
        widths = (d_input, *hidden, 1 if d_output is None else d_output)
        check_at_least(1, d_input=d_input, d_output=widths[-1], **{f"hidden[{i}]": w for i, w in enumerate(hidden)})
        check_one_of(Activation, activation=activation)
        if not init_gain > 0:
            raise ValueError(f"init_gain={init_gain!r} is not legal: it must be a number above 0")
        self.is_score = d_output is None
        self.activation = activation
        layers = [nn.Linear(d_in, d_out) for d_in, d_out in pairwise(widths)]
        for layer in layers:
            layer.weight.data *= init_gain
        self.layers = nn.ModuleList(layers)

    @classmethod
    def for_task(cls, task: Task, **sizes: Any) -> Self:
        """Input and output sizes from a task of numbers with outputs `()` or `(K,)`, the rest from `sizes`."""
        d_input, d_output = number_sizes(task, cls)
        return cls(**{"d_input": d_input, "d_output": d_output} | sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[B]` or logits `[B, K]` of `x` `[B, ...]`."""
        x, activate = x.flatten(1), _FUNCTIONS[self.activation]
        for layer in self.layers[:-1]:
            x = activate(layer(x))
        x = self.layers[-1](x)
        return x.squeeze(-1) if self.is_score else x
