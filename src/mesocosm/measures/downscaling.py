"""What a network keeps when it is made smaller."""

import torch
from torch import Tensor

__all__ = ["tolerated_sparsity"]


def tolerated_sparsity(sparsities: Tensor, accuracies: Tensor, share: float = 0.95) -> Tensor:
    """The largest of the given sparsities at which accuracy is still at least a share of the dense network's, `[...]`.

    Accuracies are first replaced by the falling sequence that fits them best (isotonic regression, all levels weighing
    the same), so that a level which is good by chance does not count.

    Args:
        sparsities: `[L]`, rising from 0, the dense network.
        accuracies: `[..., L]`.
        share: how much of the dense accuracy is to be kept, from 0 to 1.

    Raises:
        ValueError: when sparsities do not rise from 0, or differ in number from the accuracies.

    Source: Jin et al. (2023), The Cost of Down-Scaling Language Models: Fact Recall Deteriorates before In-Context
    Learning, arXiv 2310.04680, whose measure of a tolerated size is a drop of at most 5 % in relative accuracy
    """
    levels = len(sparsities)
    if accuracies.shape[-1] != levels:
        raise ValueError(f"accuracies of {accuracies.shape[-1]} levels are not legal: there are {levels} sparsities")
    if sparsities[0] != 0 or not (sparsities.diff() > 0).all():
        raise ValueError(f"sparsities={sparsities.tolist()} is not legal: they must rise from 0")
    # The falling fit at i is the least over s <= i of the largest over t >= i of the mean of levels s to t.
    sums = torch.nn.functional.pad(accuracies.double().cumsum(-1), (1, 0))
    fits = []
    for i in range(levels):
        means = [[(sums[..., t + 1] - sums[..., s]) / (t + 1 - s) for t in range(i, levels)] for s in range(i + 1)]
        largest = [torch.stack(row).amax(0) for row in means]
        fits.append(torch.stack(largest).amin(0))
    fitted = torch.stack(fits, dim=-1)
    kept = fitted >= share * accuracies[..., :1].double() - 1e-9
    return sparsities[kept.sum(-1) - 1]
