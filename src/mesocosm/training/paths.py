"""Training random paths of layers, with the whole network there all along."""

from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from mesocosm.seeding import generator
from mesocosm.training.streams import kinds_of

__all__ = ["RandomPaths", "along_paths", "path_scales", "scaled_layers"]

_gives: dict[type[nn.Module], int] = {}
"""Length of the tuple that layers of a class give, 0 for a lone tensor; known after the first call of one."""


def path_scales(kept: Tensor) -> Tensor:
    """How much each layer of a path adds, `[..., L]`, where `kept` `[..., L]` bool says which layers it has.

    A layer that stands in for the ones skipped before it adds sqrt(1 + skipped) times as much, so that the residual
    stream has the norm that it would have after this layer of the whole network, if all layers added independent
    vectors of equal norm. Skipped layers add 0; on the full path every scale is 1.

    Source: Panigrahi et al. (2024), Efficient Stagewise Pretraining via Progressive Subnetworks, section 3,
    arXiv 2402.05913, whose scaling for each layer this is our reading of
    """
    place = torch.arange(1, kept.shape[-1] + 1, device=kept.device)
    last = torch.where(kept, place, 0).cummax(-1).values
    before = torch.cat([torch.zeros_like(last[..., :1]), last[..., :-1]], -1)
    return torch.where(kept, (place - before).float().sqrt(), 0.0)


class RandomPaths:
    """A stream whose batches carry a random path for each replica and step, `layer_scale` `[R, L]`.

    Layers in `always` are on every path; every other one is kept independently, with the probability that gives the
    mean path length of the step. Skipped layers get no gradient; with `Lazy` the optimiser leaves them alone, too.

    Args:
        stream: gives the batches.
        n_layers: L.
        length: mean length of the paths, a function of the step, from `len(always)` to L.
        seeds: key of each replica's paths.
        always: layers on every path; the first and the last where not given.
        scale: how much each layer of a path adds, from which are kept.
        chunk: steps whose paths are drawn at once; part of the stream's identity.

    Source: Panigrahi et al. (2024), Efficient Stagewise Pretraining via Progressive Subnetworks, algorithm 1,
    arXiv 2402.05913
    """

    def __init__(
        self,
        stream: Callable[[int, Sequence[int], torch.device], Any],
        n_layers: int,
        length: Callable[[int], float],
        seeds: Sequence[int | str],
        always: Sequence[int] | None = None,
        scale: Callable[[Tensor], Tensor] = path_scales,
        chunk: int = 256,
    ) -> None:
        self.always = sorted({0, n_layers - 1} if always is None else set(always))
        if any(not 0 <= layer < n_layers for layer in self.always):
            raise ValueError(f"always={list(always or ())} is not legal: layers are from 0 to {n_layers - 1}")
        self.stream, self.n_layers, self.length, self.seeds = stream, n_layers, length, list(seeds)
        self.scale, self.chunk = scale, chunk
        self._uniform: tuple[int, Tensor] = (-1, torch.empty(0))

    def __call__(self, step: int, index: Sequence[int], device: torch.device) -> Any:
        """The batch `[R, B, ...]` of this step for the replicas at `index`, with `layer_scale`."""
        batch = self.stream(step, index, device)
        return _with_scale(batch._fields)(*batch, self.scale(self.kept(step, index)).to(device))

    def kept(self, step: int, index: Sequence[int]) -> Tensor:
        """Which layers are on the replicas' paths at a step, `[R, L]` bool.

        Raises:
            ValueError: for a length that no such paths have on average.
        """
        fixed, length = len(self.always), self.length(step)
        if not fixed <= length <= self.n_layers:
            raise ValueError(f"length={length} is not legal: it must be from {fixed} to n_layers={self.n_layers}")
        number, offset = divmod(step, self.chunk)
        if self._uniform[0] != number:
            draws = [torch.rand(self.chunk, self.n_layers, generator=generator(s, "path", number)) for s in self.seeds]
            self._uniform = number, torch.stack(draws, 1)
        kept = self._uniform[1][offset, list(index)] < (length - fixed) / max(self.n_layers - fixed, 1)
        kept[:, self.always] = True
        return kept

    def kinds(self, step: int, index: Sequence[int]) -> list[Any]:
        """What the cost of a replica's step depends on: the length of its path, as layers cost the same."""
        return list(zip(self.kept(step, index).sum(1).tolist(), kinds_of(self.stream, step, index)))


@cache
def _with_scale(fields: tuple[str, ...]) -> Any:
    return namedtuple("PathBatch", [*fields, "layer_scale"])


def along_paths(
    objective: Callable[..., Tensor], layers: Callable[[nn.Module], Sequence[nn.Module]]
) -> Callable[[nn.Module, Any], Tensor]:
    """`objective` of each batch's path through the network, for batches of `RandomPaths`.

    Args:
        layers: a model's residual layers, such as `lambda model: model.blocks` or, of a Hugging Face Llama,
            `lambda model: model.model.layers`.
    """

    def along(model: nn.Module, batch: Any) -> Tensor:
        with scaled_layers(layers(model), batch.layer_scale):
            return objective(model, batch)

    return along


@contextmanager
def scaled_layers(layers: Sequence[nn.Module], scale: Tensor) -> Iterator[None]:
    """Let each layer add `scale` `[L]` times what it adds to its input; 0 skips it.

    A layer takes the residual stream `x` first and gives it with what it adds, alone or as the first of a tuple. Where
    replicas are stacked, layers of scale 0 are computed all the same, so that paths can differ; elsewhere they are
    skipped.
    """

    def scaled(layer: nn.Module, factor: Tensor) -> Callable[..., Any]:
        forward, kind = layer.forward, type(layer)
        stacked = torch._C._functorch.is_batchedtensor(factor) or torch.compiler.is_compiling()
        off = not stacked and float(factor) == 0

        def run(x: Tensor, *arguments: Any, **options: Any) -> Any:
            if off and kind in _gives:
                return (x, *[None] * (_gives[kind] - 1)) if _gives[kind] else x
            y = forward(x, *arguments, **options)
            _gives[kind] = len(y) if isinstance(y, tuple) else 0
            return (x + factor * (y[0] - x), *y[1:]) if isinstance(y, tuple) else x + factor * (y - x)

        return run

    for layer, factor in zip(layers, scale, strict=True):
        layer.forward = scaled(layer, factor)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
