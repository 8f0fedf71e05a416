"""Architectures of a user's own, good and bad."""

import torch
from torch import nn


class Own(nn.Module):
    """Fits a task of scores."""

    def __init__(self, task) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(task.input_shape[0], 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).squeeze(-1)


class OwnImages(nn.Module):
    """Fits a task of images `[C, H, W]` and classes."""

    def __init__(self, task) -> None:
        super().__init__()
        self.look = nn.Conv2d(task.input_shape[0], 3, 3)
        self.answer = nn.Linear(3, *task.output_shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answer(self.look(x).relu().mean((2, 3)))


class Wide(nn.Module):
    """Gives three outputs whatever is asked."""

    def __init__(self, task) -> None:
        super().__init__()
        self.layer = nn.Linear(task.input_shape[0], 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Deaf(Own):
    """Takes inputs of five numbers whatever is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x[:, :5]).squeeze(-1)


class Last(nn.Module):
    """The outputs of a GRU without its state."""

    def forward(self, x: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return x[0]


class OwnGRU(nn.Sequential):
    """Fits any task of tokens, and offers nothing but `forward` and what a list offers."""

    def __init__(self, task) -> None:
        super().__init__(
            nn.Embedding(len(task.tokens), 16),
            nn.GRU(16, 16, batch_first=True),
            Last(),
            nn.Linear(16, task.output_shape[-1]),
        )
