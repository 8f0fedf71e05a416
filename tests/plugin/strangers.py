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


class OwnGRU(nn.Module):
    """Fits any task of tokens, and offers nothing but `forward`."""

    def __init__(self, task) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(task.tokens), 16)
        self.gru = nn.GRU(16, 16, batch_first=True)
        self.head = nn.Linear(16, task.output_shape[-1])

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(self.embed(tokens))[0])
