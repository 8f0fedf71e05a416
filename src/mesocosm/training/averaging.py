"""Averages of the weights along training, for evaluation."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["EMA"]


@dataclass(frozen=True)
class EMA:
    """An exponential moving average of the weights: average <- (1 - beta_t) average + beta_t weights.

    beta_t = max(t^-power, floor) after update t, counted from the end of the burn-in; until then the average is the
    weights. Power 0 never averages, power 1 with floor 0 is the plain mean of all iterates, and a small floor after a
    power of 2/3 forgets the start before it slows down.

    Source: Block et al. (2024), Butterfly Effects of SGD Noise, section 4, arXiv 2310.11428
    """

    floor: float = 1e-3
    power: float = 2 / 3
    burn_in: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor={self.floor!r} is not legal: it must be a number from 0 to 1")
        if not self.power >= 0:
            raise ValueError(f"power={self.power!r} is not legal: it must be a number, at least 0")
        if self.burn_in < 0:
            raise ValueError(f"burn_in={self.burn_in!r} is not legal: it must be an integer, at least 0")

    def update(self, average: Tensor, weights: Tensor, t: Tensor) -> None:
        """Take the weights after update number `t` (from 1) into `average`, in place; any equal shapes."""
        since = (t - self.burn_in).clamp_min(1).double()
        average.lerp_(weights, (since**-self.power).clamp_min(self.floor).to(average.dtype))

    def update_module(self, average: nn.Module, model: nn.Module, t: int) -> None:
        """The same for a module of your own and `average`, a copy of it. Buffers are copied."""
        with torch.no_grad():
            for mean, weights in zip(average.parameters(), model.parameters()):
                self.update(mean, weights, torch.tensor(t))
            for kept, buffer in zip(average.buffers(), model.buffers()):
                kept.copy_(buffer)
