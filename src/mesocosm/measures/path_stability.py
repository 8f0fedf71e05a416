"""How little a residual network changes when layers are skipped, and why: the growth of its residual stream."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["norm_growth", "paths_of_length", "stream_norms", "transition_gap"]


def paths_of_length(
    n_layers: int, length: int, count: int, generator: torch.Generator, always: Sequence[int] | None = None
) -> Tensor:
    """Paths of exactly `length` layers, `[P, L]` bool: all there are where that is at most `count`, else random ones.

    Args:
        always: layers on every path; the first and the last where not given.

    Raises:
        ValueError: for a length that no such path has.
    """
    fixed = sorted({0, n_layers - 1} if always is None else set(always))
    if not len(fixed) <= length <= n_layers:
        raise ValueError(f"length={length} is not legal: it must be from {len(fixed)} to n_layers={n_layers}")
    free = [layer for layer in range(n_layers) if layer not in fixed]
    chosen = length - len(fixed)
    if math.comb(len(free), chosen) <= count:
        rows = [list(layers) for layers in itertools.combinations(free, chosen)]
    else:
        rows = [
            [free[i] for i in torch.randperm(len(free), generator=generator)[:chosen].tolist()] for _ in range(count)
        ]
    kept = torch.zeros(len(rows), n_layers, dtype=torch.bool)
    for path, layers in zip(kept, rows):
        path[fixed + layers] = True
    return kept


def transition_gap(loss: Callable[[Tensor], Tensor], scales: Tensor) -> Tensor:
    """Mean loss along paths minus the loss of the whole network, at the same weights and on the same samples.

    This is the jump of the expected training loss when the paths of one stage give way to the whole network.

    Args:
        loss: the loss along the path whose layers add `[L]` times what they add to the residual stream; such as
            `training.square` inside `training.scaled_layers`.
        scales: `[P, L]`, the paths; `training.path_scales(paths)`, or `paths.float()` for unscaled ones.

    Source: Panigrahi et al. (2024), Efficient Stagewise Pretraining via Progressive Subnetworks, section 5,
    arXiv 2402.05913
    """
    return torch.stack([loss(scale) for scale in scales]).mean(0) - loss(torch.ones_like(scales[0]))


def stream_norms(model: nn.Module, layers: Sequence[nn.Module], inputs: Tensor) -> Tensor:
    """Root mean square norm of the residual stream before the first layer and after each, `[L + 1]`.

    Args:
        layers: the model's residual layers in order; each takes and gives the stream `[..., D]`, alone or as the first
            of a tuple. The mean is over all other axes.
    """
    norms: list[Tensor] = []

    def norm(x: Tensor) -> Tensor:
        return x.square().sum(-1).mean().sqrt()

    def hook(module: nn.Module, arguments: tuple, output: Tensor | tuple) -> None:
        if not norms:
            norms.append(norm(arguments[0]))
        norms.append(norm(output[0] if isinstance(output, tuple) else output))

    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(norms)


class NormGrowth(NamedTuple):
    slope: Tensor
    """What a layer adds to the squared norm, `[...]`."""
    r2: Tensor
    """Share of the squared norms' variance that the line takes, `[...]`; NaN where they do not vary."""


def norm_growth(norms: Tensor) -> NormGrowth:
    """The least-squares line |y_l|^2 = a + slope l through the norms `[..., L + 1]` of the stream after l layers.

    Layers that add independent vectors of equal norm give this line exactly: the stream grows like the square root of
    its depth.

    Source: Panigrahi et al. (2024), Efficient Stagewise Pretraining via Progressive Subnetworks, section 5,
    arXiv 2402.05913
    """
    squares = norms.double().square()
    depth = torch.arange(norms.shape[-1], device=norms.device, dtype=torch.double)
    dx, dy = depth - depth.mean(), squares - squares.mean(-1, keepdim=True)
    product = (dx * dy).sum(-1)
    return NormGrowth(product / dx.square().sum(), product.square() / (dx.square().sum() * dy.square().sum(-1)))
