"""Residual memorisation: what a network did not learn is looked up at the nearest training examples.

At home, with features of the penultimate layer (in eval mode, without augmentation):
`found = nearest_neighbours(train_features, features, 50)`, then
`residual_memory_scores(train_logits, train_labels, logits, found, sigma=0.7, temperature=1.4).argmax(-1)`.
Choose neighbours, sigma and temperature on a validation split; one search serves all of them.
"""

import torch
from torch import Tensor

from mesocosm.measures._arrays import Array, one_hot, tensor
from mesocosm.measures.neighbours import Neighbours, knn_predict

__all__ = ["norm_constrained_least_squares", "norm_constrained_risk", "residual_memory", "residual_memory_scores"]


def residual_memory(
    train_predictions: Array,
    train_targets: Array,
    predictions: Array,
    found: Neighbours,
    neighbours: int | None = None,
    sigma: float = torch.inf,
) -> Tensor:
    """Predictions plus the weighted mean of the training residuals of the nearest examples, `[M, ...]`.

    f(x) + sum_i w_i(x) (y_i - f(x_i)) over the neighbours i, with w_i ~ exp(-distance_i / sigma). The nearest neighbour
    alone fits distinct training examples exactly, whatever f. A base that predicts 0 leaves nearest-neighbour
    regression, the baseline to beat.

    Args:
        train_predictions: `[N, ...]`, of the base model f.
        train_targets: `[N, ...]`.
        predictions: `[M, ...]`, of f for the queries.
        found: the queries' neighbours among the training examples, of `nearest_neighbours`.
        neighbours: only the nearest so many of those found; all where not given.
        sigma: bandwidth, in the units of the distances; infinite weighs all neighbours alike.

    Raises:
        ValueError: when predictions and targets differ in shape, and as `knn_predict`.

    Source: Yang et al. (2023), ResMem: Learn what you can and memorize the rest, arXiv 2302.01576
    """
    learned, targets, base = tensor(train_predictions).cpu(), tensor(train_targets).cpu(), tensor(predictions).cpu()
    if learned.shape != targets.shape:
        raise ValueError(f"train_predictions {list(learned.shape)} and train_targets {list(targets.shape)} must agree")
    return base + knn_predict(targets - learned, found, neighbours, sigma)


def residual_memory_scores(
    train_logits: Array,
    train_labels: Array,
    logits: Array,
    found: Neighbours,
    neighbours: int | None = None,
    sigma: float = torch.inf,
    temperature: float = 1.0,
) -> Tensor:
    """Scores of classes, softmax(logits / temperature) plus the looked-up residuals, `[M, C]`; the largest wins.

    `residual_memory` of probabilities against one-hot labels. Each row sums to 1, but a score may be negative.

    Args:
        train_logits: `[N, C]`, of the base model for the training examples.
        train_labels: `[N]`, classes.
        logits: `[M, C]`, of the base model for the queries.
        found: the queries' neighbours among the training examples, of `nearest_neighbours`.
        neighbours: only the nearest so many of those found; all where not given.
        sigma: bandwidth, in the units of the distances; infinite weighs all neighbours alike.
        temperature: above 0, both of the residuals and of the prediction.

    Raises:
        ValueError: for an illegal temperature, and as `knn_predict`.

    Source: Yang et al. (2023), ResMem: Learn what you can and memorize the rest, arXiv 2302.01576
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} is not legal: it must be above 0")
    learned, base = (torch.softmax(tensor(x) / temperature, dim=-1) for x in (train_logits, logits))
    return residual_memory(learned, one_hot(train_labels, learned), base, found, neighbours, sigma)


def norm_constrained_least_squares(inputs: Array, targets: Array, radius: float) -> Tensor:
    """The theta `[D]` of least squared error with ||theta|| <= radius, float64: a learner too weak to fit its data.

    On the boundary it is the ridge solution (X'X + lambda I)^-1 X'y whose norm is the radius; where the least-norm
    solution of plain least squares lies inside the ball, it is that one.

    Args:
        inputs: `[N, D]`.
        targets: `[N]`.
        radius: above 0.

    Raises:
        ValueError: for an illegal radius.

    Source: the base learner of Yang et al. (2023), ResMem: Learn what you can and memorize the rest, arXiv 2302.01576
    """
    from scipy.optimize import brentq

    if not radius > 0:
        raise ValueError(f"radius={radius} is not legal: it must be above 0")
    x, y = tensor(inputs, torch.float64), tensor(targets, torch.float64)
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    kept = s > s.max() * max(x.shape) * torch.finfo(s.dtype).eps
    s, along, v = s[kept], (u.T @ y)[kept], v[kept]

    def coefficients(ridge: float) -> Tensor:
        return along * s / (s**2 + ridge)

    def excess(ridge: float) -> float:
        return float(coefficients(ridge).norm()) - radius

    if excess(0.0) <= 0:
        return coefficients(0.0) @ v
    most = float((along * s).norm()) / radius  # where the norm is below the radius
    return coefficients(brentq(excess, 0.0, most, xtol=1e-300, rtol=1e-14)) @ v


def norm_constrained_risk(radius: float, dimension: int) -> float:
    """Risk of the linear learner of bounded norm on many samples, (1 - L)^2 / d for L < 1, else 0.

    For y = <theta*, x>, ||theta*|| = 1, x ~ N(0, I_d / d) the best theta of norm at most L is L theta*. That is the
    floor that `residual_memory` removes: its risk goes to 0.

    Args:
        radius: L.
        dimension: d.

    Source: the setting of Yang et al. (2023), ResMem: Learn what you can and memorize the rest, arXiv 2302.01576
    """
    return max(0.0, 1 - radius) ** 2 / dimension
