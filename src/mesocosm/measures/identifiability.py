"""Whether predictions tell parameters: rank of the Jacobian, distance up to relabelling, and models that look alike."""

from collections.abc import Callable
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jacfwd

__all__ = ["householder_ghost", "jacobian_rank", "matched_error", "rotation_fixing_ones", "rotation_twin"]

ENUMERATED = 7
"""Most hidden states whose relabellings are all tried."""


class JacobianRank(NamedTuple):
    rank: int
    deficiency: int
    """Dimension of the parameter directions that do not move the predictions at first order."""
    singular_values: Tensor
    """Of the Jacobian, falling, float64."""


def jacobian_rank(predictions: Callable[[Tensor], Tensor], parameters: Tensor, tolerance: float = 1e-9) -> JacobianRank:
    """Rank of the Jacobian of `predictions` at `parameters` `[P]`, by forward differentiation.

    Full rank certifies that no other parameters nearby predict the same.

    Args:
        tolerance: singular values at most this times the largest count as 0; needs float64 parameters.

    Source: Rothenberg (1971), Identification in Parametric Models, theorem 1, Econometrica 39
    """
    jacobian = jacfwd(lambda p: predictions(p).flatten())(parameters)
    values = torch.linalg.svdvals(jacobian)
    rank = int((values > tolerance * values[0]).sum())
    return JacobianRank(rank, len(parameters) - rank, values)


def matched_error(features: Tensor, transition: Tensor, true_features: Tensor, true_transition: Tensor) -> Tensor:
    """Distance of two hidden Markov models up to a relabelling of states: min_P |F P - F*| + |P^T T P - T*|, Frobenius.

    With more than 7 states, P is the one that matches the columns of F best (Hungarian algorithm) instead.

    Args:
        features: F `[..., d, k]`, the emission O or the means M.
        transition: T `[..., k, k]`.
        true_features, true_transition: F* and T*, of shapes that broadcast.

    Returns:
        `[...]`; NaN where an estimate is not finite.
    """
    if features.shape[-1] <= ENUMERATED:
        orders = torch.tensor(list(permutations(range(features.shape[-1]))), device=features.device)
    else:
        features, transition = _hungarian(features, transition, true_features)
        orders = torch.arange(features.shape[-1], device=features.device)[None]
    relabelled = features[..., orders].movedim(-2, 0)  # [k!, ..., d, k]
    moved = transition[..., orders[:, :, None], orders[:, None, :]].movedim(-3, 0)
    distances = _frobenius(relabelled - true_features) + _frobenius(moved - true_transition)
    return distances.amin(0)


def _frobenius(matrix: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(matrix)


def _hungarian(features: Tensor, transition: Tensor, true_features: Tensor) -> tuple[Tensor, Tensor]:
    from scipy.optimize import linear_sum_assignment

    costs = (features[..., None] - true_features[..., None, :]).square().sum(-3)  # [..., k, k]
    flat = costs.flatten(0, -3).nan_to_num(1e30) if costs.dim() > 2 else costs.nan_to_num(1e30)[None]
    orders = [torch.from_numpy(linear_sum_assignment(cost.T.cpu().numpy())[1]) for cost in flat]
    order = torch.stack(orders).view(costs.shape[:-1]).to(features.device)
    rows = transition.gather(-2, order[..., None].expand_as(transition))
    return features.gather(-1, order[..., None, :].expand_as(features)), rows.gather(
        -1, order[..., None, :].expand_as(transition)
    )


def rotation_fixing_ones(states: int, angle: float, generator: torch.Generator) -> Tensor:
    """An orthogonal R `[k, k]` float64 with R 1 = 1: a rotation about the all-ones axis, by `angle` radians at most.

    With three states there is one such axis; with more, the planes of rotation are random.

    Raises:
        ValueError: for fewer than three states, where only relabellings fix the ones.
    """
    if states < 3:
        raise ValueError(f"states={states} is not legal: only relabellings of fewer than 3 states fix the ones")
    centre = torch.eye(states, dtype=torch.float64) - 1 / states
    draw = centre @ torch.randn(states, states, dtype=torch.float64, generator=generator) @ centre
    skew = draw - draw.mT
    return torch.linalg.matrix_exp(angle * skew / torch.linalg.matrix_norm(skew, 2))


def rotation_twin(emission: Tensor, transition: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
    """(O R, R^T T R): another discrete HMM that predicts any token from any single other token just alike.

    With R orthogonal and R 1 = 1, columns still sum to 1 and O T^m O^T stays the same for all gaps m.

    Raises:
        ValueError: where an entry becomes negative: choose a smaller angle.

    Source: Liu, Hsu, Ravikumar & Risteski (2022), Masked Prediction: A Parameter Identifiability View, section 3, arXiv
    2202.09305
    """
    twin = emission @ rotation, rotation.mT @ transition @ rotation
    least = min(float(part.min()) for part in twin)
    if least < 0:
        raise ValueError(f"rotation is not legal: an entry of the twin is {least:.3g}; it must be at least 0")
    return twin


def householder_ghost(means: Tensor, transition: Tensor) -> tuple[Tensor, Tensor]:
    """(H M, (H M)^+ M T): parameters with the predictor of a Gaussian HMM, but columns of "T" sum to -1.

    H = I - 2 u u^T / |u|^2 with u = (M^+)^T 1 moves all means by the same vector and keeps their lengths, so that the
    posterior of the state is the same. That T is no transition matrix is what excludes it.

    Args:
        means: M `[..., d, k]`, linearly independent columns of one length.
        transition: T `[..., k, k]`.

    Source: Liu, Hsu, Ravikumar & Risteski (2022), Masked Prediction: A Parameter Identifiability View, section 3, arXiv
    2202.09305
    """
    inverse = torch.linalg.pinv(means)
    normal = inverse.sum(-2)  # (M^+)^T 1
    reflected = means - 2 * (normal / normal.square().sum(-1, keepdim=True))[..., None]
    return reflected, torch.linalg.pinv(reflected) @ means @ transition
