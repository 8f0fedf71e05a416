"""A function of a model as a module of its own."""

from collections.abc import Callable
from typing import Any

from torch import nn


class Applied(nn.Module):
    """`function(model, *arguments)` as a module, so that `functional_call` can put weights into `model`."""

    def __init__(self, model: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *arguments: Any) -> Any:
        return self.function(self.model, *arguments)
