"""What a network has made of its inputs before its last layer."""

import torch
from torch import Tensor, nn

from mesocosm.measures._arrays import Array, tensor

__all__ = ["penultimate_features"]


@torch.no_grad()
def penultimate_features(model: nn.Module, inputs: Array, chunk: int = 500) -> tuple[Tensor, Tensor]:
    """What the last linear layer reads `[N, D]`, and what the network answers `[N, ...]`, both on the CPU.

    The outputs stand for both where there is no linear layer.

    Args:
        model: a network in eval mode, whose last linear layer by order of definition is used once, last.
        inputs: `[N, ...]`, moved to the network's device.
        chunk: inputs at a time.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    read: list[Tensor] = []
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0])) for layer in layers[-1:]]
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        outputs = torch.cat([model(part.to(device)) for part in tensor(inputs).split(chunk)]).cpu()
    finally:
        for hook in hooks:
            hook.remove()
    return (torch.cat(read).flatten(1).cpu() if read else outputs), outputs
