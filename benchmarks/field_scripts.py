"""Loops and models of `field.py` in the shape of published scripts; all of it is fresh code."""

import copy
import math
from collections.abc import Callable

import torch
from settings import Setting
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mesocosm.seeding import generator


def loaded(setting: Setting, device: str, model: nn.Module | None = None, copies: int = 0) -> Callable[[], None]:
    """The loop of a script: a data loader, a loss read at every step and now and then a copy of the model."""
    model = (model or setting.make()).to(device)
    optimiser = setting.plain_optimiser(model.parameters())
    batch = setting.task.sample(100 * setting.batch_size, generator(0, "benchmark"))
    data = TensorDataset(batch.inputs, batch.targets, batch.weights)
    kind, losses, history = type(batch), [], []
    rest = [None] * (len(batch) - 3)

    def forever():
        while True:
            yield from DataLoader(data, setting.batch_size, shuffle=True)

    batches = forever()

    def step() -> None:
        parts = [part.to(device) for part in next(batches)]
        optimiser.zero_grad()
        loss = setting.objective(model, kind(*parts, *rest))
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if copies and len(losses) % copies == 0:
            history.append(copy.deepcopy(model))

    return step


class GatheringAttention(nn.Module):
    """Attention whose relative positions are a table `[T, T, D]`, as a script would write it."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.relative = nn.Embedding(length, width)
        self.dropout, self.added = nn.Dropout(0.1), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1], device=x.device)
        distance = positions[:, None] - positions
        query, key, value = self.qkv(x).chunk(3, -1)
        table = self.relative(distance.clamp_min(0))  # [T, T, D]
        scores = (query @ key.mT + torch.einsum("btd,tsd->bts", query, table)) / math.sqrt(x.shape[-1])
        pattern = self.dropout(scores.masked_fill(distance < 0, -math.inf).softmax(-1))
        return self.added(self.out(pattern @ value))


class GatheringTransformer(nn.Module):
    def __init__(self, symbols: int, length: int, width: int) -> None:
        super().__init__()
        self.embed, self.dropout = nn.Embedding(symbols, width), nn.Dropout(0.1)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.layers = nn.ModuleList(GatheringAttention(length, width) for _ in range(2))
        self.unembed = nn.Linear(width, symbols, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.dropout(self.embed(tokens))
        for norm, layer in zip(self.norms, self.layers):
            x = x + layer(norm(x))
        return self.unembed(self.norms[2](x))
