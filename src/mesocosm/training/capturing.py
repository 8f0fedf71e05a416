"""A step recorded once as a CUDA graph and replayed, so that launching its kernels does not rule."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from mesocosm.training.population import Population

__all__: list[str] = []

WARM_UPS = 3
"""Steps taken before recording, on copies: libraries set themselves up in them, and code is compiled."""


class Captured:
    """`step(theta, memory, *arguments)`, replayed from a recording; as the step, in place on `theta` and `memory`.

    A recording holds addresses: arguments are copied to where it reads them, and a stack with other weights, or
    arguments of other shapes, is recorded anew. Where a step can't be recorded, since it waits for the device or moves
    data to it, it is taken as it is, and the population's `reason` says so.
    """

    def __init__(self, step: Callable[..., Tensor], population: Population) -> None:
        self.step, self.population, self.refused = step, population, False
        self.known: tuple = ()
        self.places: list[Tensor] = []
        self.replay: Callable[[], Tensor] = lambda: torch.empty(0)

    def __call__(self, theta: Tensor, memory: dict[str, Tensor], *arguments: Any) -> Tensor:
        if self.refused:
            return self.step(theta, memory, *arguments)
        given, own = tensors_of(arguments), (theta, *memory.values())
        known = (*(tensor.data_ptr() for tensor in own), *((tensor.shape, tensor.dtype) for tensor in (*own, *given)))
        if known != self.known:
            try:
                self._record(theta, memory, arguments)
            except RuntimeError as error:
                self.refused = True
                self.population.reason += f", not captured: {str(error).strip().splitlines()[0]}"
                return self.step(theta, memory, *arguments)
            self.known = known
        torch._foreach_copy_(self.places, given)
        return self.replay()

    def _record(self, theta: Tensor, memory: dict[str, Tensor], arguments: tuple) -> None:
        fixed = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, arguments)
        trial = theta.clone(), {name: tensor.clone() for name, tensor in memory.items()}
        warm_up(lambda: self.step(*trial, *fixed))
        self.replay = recording(lambda: self.step(theta, memory, *fixed))
        self.places = tensors_of(fixed)


def tensors_of(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]


def warm_up(step: Callable[[], Tensor]) -> None:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            step()
    torch.cuda.current_stream().wait_stream(side)


def recording(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Record a step without taking it; what is given takes it, and gives the losses where the recording writes them."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses = step()

    def replay() -> Tensor:
        graph.replay()
        return losses

    return replay
