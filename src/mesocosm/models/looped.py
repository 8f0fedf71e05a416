"""Transformers whose few layers run several times."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from mesocosm.models._checks import check_at_least
from mesocosm.models.transformer import Transformer

__all__ = ["Looped"]


class Looped(Transformer):
    """A transformer whose `n_layers` layers are applied `loops` times in turn, with the same weights.

    It computes as a `Transformer` of n_layers * loops layers, and `blocks` lists them all.

    Args:
        sizes: as of `Transformer`.

    Source: Dehghani et al. (2019), Universal transformers, arXiv 1807.03819; Saunshi et al. (2025), Reasoning with
        latent thoughts: on the power of looped transformers, arXiv 2502.17416
    """

    def __init__(self, *, loops: int = 2, **sizes: Any) -> None:
        check_at_least(1, loops=loops)
        super().__init__(**sizes)
        self.blocks = _Repeated(self.blocks)
        self.blocks.loops = loops


class _Repeated(nn.ModuleList):
    """Lists its modules several times, but registers each once: a weight of two names confuses `functional_call`."""

    loops = 1

    def __iter__(self) -> Iterator[nn.Module]:
        return iter([*self._modules.values()] * self.loops)

    def __len__(self) -> int:
        return len(self._modules) * self.loops

    def __getitem__(self, index: Any) -> Any:
        return [*self][index]
