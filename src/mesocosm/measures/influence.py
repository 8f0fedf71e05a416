"""What each training point changes in a trained model, to first order and without training again."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacrev

from mesocosm.models._applied import Applied

__all__ = ["influence_functions"]


def influence_functions(
    model: nn.Module,
    objective: Callable[[nn.Module, Tensor], Tensor],
    outputs: Callable[[nn.Module], Tensor],
    weights: Tensor,
    damping: float = 0.0,
) -> Tensor:
    """How fast outputs of the trained model change with the weight of each training point.

    At a minimum theta of L(theta, w) it is d outputs / d w = -(d outputs / d theta) H^-1 (d^2 L / d theta d w), with H
    the Hessian in theta. Taking point i out changes the outputs by minus its influence, to first order. H is made as a
    whole, so this is for models of up to some thousand trainable weights; float64 keeps its inverse accurate.

    Args:
        model: trained until the gradient of the objective is 0; without that, influences are of no minimum.
        objective: `objective(model, weights)` gives the training loss, penalties included, with each training point's
            loss multiplied by its weight.
        outputs: `outputs(model)` gives `[M]`, such as scores of test points.
        weights: `[N]`, at which the model was trained, such as ones.
        damping: added to the diagonal of H where this is singular.

    Returns:
        `[N, M]`.

    Raises:
        ValueError: for negative damping, or where H is singular.

    Source: Koh & Liang (2017), Understanding Black-box Predictions via Influence Functions, section 2, arXiv 1703.04730
    """
    if damping < 0:
        raise ValueError(f"damping={damping} is not legal: it must be at least 0")
    parameters = {f"model.{name}": p.detach() for name, p in model.named_parameters() if p.requires_grad}
    theta = torch.cat([p.flatten() for p in parameters.values()])

    def at(theta: Tensor, function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
        parts = theta.split([p.numel() for p in parameters.values()])
        named = {name: part.view_as(p) for (name, p), part in zip(parameters.items(), parts)}
        return functional_call(Applied(model, function), named, arguments)

    curvature = hessian(at)(theta, objective, weights)
    curvature.diagonal().add_(damping)
    pull = jacrev(lambda w: grad(at)(theta, objective, w))(weights)  # [P, N]
    try:
        moves = -torch.linalg.solve(curvature, pull)
    except torch.linalg.LinAlgError as error:
        raise ValueError(f"damping={damping} is too little: the Hessian is singular") from error
    return (jacrev(at)(theta, outputs) @ moves).T
