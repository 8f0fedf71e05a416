"""How a gradient is shared between examples and between features."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["gradient_share", "importance_weights"]


def importance_weights(scores: Tensor, targets: Tensor) -> Tensor:
    """sigma(-y f(x)), the weight of each example in the gradient of the logistic loss log(1 + exp(-y f(x))).

    Args:
        scores: f(x), `[..., B]`.
        targets: y of -1 or 1, `[..., B]`.

    Source: Springer et al. (2024), Sharpness-Aware Minimization Enhances Feature Quality via Balanced Learning, Figure
    3, arXiv 2405.20439
    """
    return torch.sigmoid(-targets * scores)


def gradient_share(model: nn.Module, batch: Any, importance: Tensor, hard: str, easy: str) -> Tensor:
    """Norm of the gradient to the hard feature's encoder over that to the easy feature's, a scalar.

    The gradient is that of -mean(importance y f(x)): of the logistic loss, with the weight of each example held fixed.
    So the weights of one model may meet the importance of another: the share at SAM's phantom parameters, with the
    importance at the real ones, tells what SAM changes by rescaling the layers alone; the share at the real
    parameters, with the phantom importance, what it changes by weighing examples anew.

    Args:
        importance: `[B]`, as from `importance_weights`.
        hard: prefix of the names of the parameters of the hard feature's encoder.
        easy: likewise.

    Raises:
        ValueError: where no parameter has such a name.

    Source: Springer et al. (2024), Sharpness-Aware Minimization Enhances Feature Quality via Balanced Learning, arXiv
    2405.20439, which calls the one learning rate scaling and the other importance weighting
    """
    weights: dict[str, Tensor] = dict(model.named_parameters())
    for name, prefix in (("hard", hard), ("easy", easy)):
        if not any(parameter.startswith(prefix) for parameter in weights):
            raise ValueError(f"{name}={prefix!r} is not legal: it must begin one of {', '.join(weights)}")

    def loss(weights: dict[str, Tensor]) -> Tensor:
        return -(importance * batch.targets * functional_call(model, weights, (batch.inputs,))).mean()

    gradient = torch.func.grad(loss)(weights)
    to_hard, to_easy = (
        torch.cat([g.flatten() for name, g in gradient.items() if name.startswith(prefix)]) for prefix in (hard, easy)
    )
    return to_hard.norm() / to_easy.norm()
