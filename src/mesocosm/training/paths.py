"""Training random paths of layers, with the whole network there all along."""

from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from mesocosm.seeding import generator

__all__ = ["RandomPaths", "along_paths", "path_scales", "scaled_layers"]


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
    mean path length of the step. Skipped layers get no gradient; yet an optimiser's memory of them fades, and weight
    decay acts on them, where the paper leaves both alone.

    Args:
        stream: gives the batches.
        n_layers: L.
        length: mean length of the paths, a function of the step, from `len(always)` to L.
        seeds: key of each replica's paths.
        always: layers on every path; the first and the last where not given.

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
    ) -> None:
        self.always = sorted({0, n_layers - 1} if always is None else set(always))
        if any(not 0 <= layer < n_layers for layer in self.always):
            raise ValueError(f"always={list(always or ())} is not legal: layers are from 0 to {n_layers - 1}")
        self.stream, self.n_layers, self.length, self.seeds = stream, n_layers, length, list(seeds)

    def __call__(self, step: int, index: Sequence[int], device: torch.device) -> Any:
        """The batch `[R, B, ...]` of this step for the replicas at `index`, with `layer_scale`."""
        batch = self.stream(step, index, device)
        scale = torch.stack([path_scales(self.kept(step, self.seeds[r])) for r in index]).to(device)
        return _with_scale(batch._fields)(*batch, scale)

    def kept(self, step: int, seed: int | str) -> Tensor:
        """Which layers are on a replica's path at a step, `[L]` bool.

        Raises:
            ValueError: for a length that no such paths have on average.
        """
        fixed, length = len(self.always), self.length(step)
        if not fixed <= length <= self.n_layers:
            raise ValueError(f"length={length} is not legal: it must be from {fixed} to n_layers={self.n_layers}")
        chance = (length - fixed) / max(self.n_layers - fixed, 1)
        kept = torch.rand(self.n_layers, generator=generator(seed, "path", step)) < chance
        kept[self.always] = True
        return kept


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

    A layer gives its input plus what it adds, alone or as the first of a tuple. Skipped layers are computed all the
    same, so that the paths of many replicas can differ.
    """

    def scaled(factor: Tensor) -> Callable[..., Any]:
        def hook(module: nn.Module, arguments: tuple, options: dict, output: Any) -> Any:
            x = arguments[0] if arguments else options["hidden_states"]
            y = output[0] if isinstance(output, tuple) else output
            y = x + factor * (y - x)
            return (y, *output[1:]) if isinstance(output, tuple) else y

        return hook

    handles = [
        layer.register_forward_hook(scaled(factor), with_kwargs=True)
        for layer, factor in zip(layers, scale, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
