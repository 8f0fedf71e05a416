"""What loss and reward look like along a line through a network's weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from mesocosm.models._applied import Applied

__all__ = ["gradient_direction", "random_direction", "weight_slice"]

Direction = dict[str, Tensor]
"""One tensor for each trainable parameter, by name."""


def gradient_direction(model: nn.Module, objective: Callable[..., Tensor], batch: Any) -> Direction:
    """The gradient of `objective(model, batch)`, scaled to length 1; a small batch makes it the noise of SGD.

    Source: Block et al. (2024), Butterfly Effects of SGD Noise, section 3, arXiv 2310.11428
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(objective(model, batch), list(parameters.values()))
    return _unit(dict(zip(parameters, gradients)))


def random_direction(model: nn.Module, generator: torch.Generator) -> Direction:
    """A direction of length 1 in the space of trainable weights, uniform over all directions."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    normal = {n: torch.randn(p.shape, generator=generator).to(p) for n, p in parameters.items()}
    return _unit(normal)


def weight_slice(
    model: nn.Module,
    direction: Direction,
    distances: Tensor,
    function: Callable[[nn.Module], Any],
    together: bool = True,
) -> Any:
    """`function(model)` with the weights moved along a direction, at each of the distances.

    Args:
        direction: what is added to each trainable weight, per unit of distance.
        distances: `[N]`.
        function: gives tensors, in any nesting; the model is in evaluation mode and without gradients.
        together: evaluate all distances at once by `vmap`; turn it off for models that `vmap` cannot trace.

    Returns:
        What `function` gives, stacked along a first axis N.

    Source: Block et al. (2024), Butterfly Effects of SGD Noise, section 3, on the reward's fractal landscape, arXiv
    2310.11428
    """
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    call = Applied(model, function)

    def at(distance: Tensor) -> Any:
        moved = {f"model.{name}": weight + distance * direction[name] for name, weight in weights.items()}
        return functional_call(call, moved, ())

    training = model.training
    with torch.no_grad():
        model.eval()
        values = vmap(at)(distances) if together else [at(distance) for distance in distances]
        model.train(training)
    return values if together else torch.utils._pytree.tree_map(lambda *ts: torch.stack(ts), *values)


def _unit(direction: Direction) -> Direction:
    length = torch.cat([tensor.flatten() for tensor in direction.values()]).norm()
    return {name: tensor / length for name, tensor in direction.items()}
