"""What trainings on random subsets say of single examples: memorisation, influence, and how they go with model size.

With K models, each trained on its own random subset, the models that saw an example are compared with those that did
not. At home: `included = random_subsets(40, len(data), generator)`, one training per row of it, then
`feldman_memorisation(correct, included)`.
"""

from typing import NamedTuple

import numpy
import torch
from torch import Tensor

from mesocosm.measures._arrays import Array, tensor

__all__ = ["feldman_memorisation", "influence_scores", "random_subsets", "trajectory_classes"]


class InclusionEffect(NamedTuple):
    """What having seen an example changes; all of one shape, float64, NaN where too few models are on a side."""

    score: Tensor
    """`inside - outside`."""
    standard_error: Tensor
    """Of the score, in the independent draw of the models."""
    inside: Tensor
    """Mean over the models that saw the example."""
    outside: Tensor
    """Mean over the models that did not: of correctness, the example's consistency score."""


def random_subsets(models: int, examples: int, generator: torch.Generator, share: float = 0.7) -> Tensor:
    """Which examples each model trains on, `[K, N]` bool: uniform subsets of round(share * N) examples.

    Raises:
        ValueError: when a subset would be empty or hold all examples.

    Source: Feldman & Zhang (2020), What Neural Networks Memorize and Why, section 2, arXiv 2008.03703
    """
    size = round(share * examples)
    if not 0 < size < examples:
        raise ValueError(f"share={share} of {examples} examples is {size}: a subset must hold some and leave some out")
    return torch.rand(models, examples, generator=generator, dtype=torch.float64).argsort(dim=1) < size


def feldman_memorisation(correct: Array, included: Array, least: int = 5) -> InclusionEffect:
    """How much more often models are right about an example that they trained on, `[N]`.

    mem(i) = P[h(x_i) = y_i | i in the subset] - P[h(x_i) = y_i | i not in the subset], with a and b the two accuracies
    estimated over n_a and n_b models, and standard error sqrt(a(1-a)/n_a + b(1-b)/n_b). The score is from -1 to 1.
    Instead of correctness any number of model k about example i can be given, such as the probability of the label,
    or a difficulty whose mean over the models that saw the example is wanted: a(1-a) is then its variance.

    The standard error takes variances of the sample as they are, so it is 0 where both sides are unanimous.

    Args:
        correct: `[K, N]`, 1 where model k predicts the label of training example i, else 0; or a probability.
        included: `[K, N]`, whether model k trained on example i.
        least: scores of examples with fewer models on one side are NaN.

    Raises:
        ValueError: when the shapes differ, or `included` holds anything but 0 and 1.

    Source: Feldman & Zhang (2020), What Neural Networks Memorize and Why, section 2, arXiv 2008.03703
    """
    if correct.shape != included.shape:
        raise ValueError(f"correct {list(correct.shape)} and included {list(included.shape)} must both be [K, N]")
    return _inclusion_effect("kn,kn->n", correct, included, least)


def influence_scores(correct: Array, included: Array, least: int = 5) -> InclusionEffect:
    """How much more often models are right about test example j when they trained on example i, `[N, M]`.

    infl(i, j) = P[h(x_j) = y_j | i in the subset] - P[h(x_j) = y_j | i not in the subset], estimated as in
    `feldman_memorisation`, which is infl(i, i). With N M scores some are large by chance: look at the standard error.

    Args:
        correct: `[K, M]`, 1 where model k predicts the label of test example j, else 0; or a probability.
        included: `[K, N]`, whether model k trained on example i.
        least: scores of examples with fewer models on one side are NaN.

    Raises:
        ValueError: when the numbers of models differ, or `included` holds anything but 0 and 1.

    Source: Feldman & Zhang (2020), What Neural Networks Memorize and Why, section 2, arXiv 2008.03703
    """
    if len(correct) != len(included):
        raise ValueError(f"correct is of {len(correct)} models and included of {len(included)}: they must be the same")
    return _inclusion_effect("kn,km->nm", correct, included, least)


def trajectory_classes(scores: Array, margin: float = 0.1) -> numpy.ndarray:
    """How each example's score goes with model size: "increasing", "decreasing", "cap" or "flat", `[N]` strings.

    With first and last the scores of the smallest and largest model: a cap if max - max(first, last) > margin, else
    increasing if last - first > margin, decreasing if last - first < -margin, else flat; "unknown" where a score is
    NaN. Leave out sizes too small to fit the training set: they memorise nothing.

    Args:
        scores: `[L, N]`, scores of N examples at L sizes, smallest first; of the same subsets at every size, or
            their noise makes trajectories.

    Raises:
        ValueError: when there are fewer than two sizes.

    Source: shapes after Lukasik et al. (2023), What do larger image classifiers memorise?, this rule ours,
    arXiv 2310.05337
    """
    sizes = tensor(scores, torch.float64).cpu().numpy()
    if len(sizes) < 2:
        raise ValueError(f"scores hold {len(sizes)} sizes: a trajectory needs at least 2")
    first, last = sizes[0], sizes[-1]
    shapes = {
        "unknown": numpy.isnan(sizes).any(axis=0),
        "cap": sizes.max(axis=0) - numpy.maximum(first, last) > margin,
        "increasing": last - first > margin,
        "decreasing": last - first < -margin,
    }
    return numpy.select(list(shapes.values()), list(shapes), default="flat")


def _inclusion_effect(pairs: str, correct: Array, included: Array, least: int) -> InclusionEffect:
    values = tensor(correct, torch.float64)
    mask = tensor(included).to(values.device)
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("included must hold only 0 and 1, or booleans")

    def side(models: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of the values over these models, and its squared standard error."""
        models = models.to(values)
        count, total, squares = (torch.einsum(pairs, models, x) for x in (torch.ones_like(values), values, values**2))
        count = count.where(count >= least, torch.nan)
        mean = total / count
        return mean, (squares / count - mean**2).clamp(min=0) / count

    (inside, noise_inside), (outside, noise_outside) = side(mask == 1), side(mask == 0)
    return InclusionEffect(inside - outside, (noise_inside + noise_outside).sqrt(), inside, outside)
