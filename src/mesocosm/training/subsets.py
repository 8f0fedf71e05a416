"""Train one architecture on many subsets of a data set, from the same initial weights: what each example changes.

At home, with `measures.random_subsets` for the masks and `measures.feldman_memorisation` for what they tell.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mesocosm.training.lockstep import Optimiser
from mesocosm.training.parallel import share
from mesocosm.training.population import Population
from mesocosm.training.streams import Epochs

if TYPE_CHECKING:
    from mesocosm.training.history import History

__all__ = ["Subsets", "members", "train_on_subsets"]


def members(masks: Tensor) -> Tensor:
    """The examples of each subset, `[K, n]` indices in order, from masks `[K, N]` bool.

    Raises:
        ValueError: when the subsets differ in size, or are empty.
    """
    sizes = masks.sum(1)
    if not sizes.min() or sizes.min() < sizes.max():
        raise ValueError(
            f"masks hold subsets of {sizes.min()} to {sizes.max()} examples: all must have as many, and some"
        )
    return masks.nonzero()[:, 1].view(len(masks), -1)


class Subsets:
    """The whole data set at every step, with weight 0 for the examples that a replica's subset leaves out.

    An objective that is a mean by `weights` is then the mean over the subset. Subsets may be of any sizes.

    Args:
        data: batch of N samples.
        masks: `[R, N]`, whether each replica trains on each sample.

    Raises:
        ValueError: when masks do not fit the data.
    """

    def __init__(self, data: Any, masks: Tensor) -> None:
        if masks.shape[1] != len(data.inputs):
            raise ValueError(f"masks {list(masks.shape)} must have one column for each of {len(data.inputs)} samples")
        self.data, self.masks = data, masks

    def __call__(self, step: int, index: Sequence[int], device: torch.device) -> Any:
        """The batch `[R, N, ...]` of the replicas at `index`."""
        self.data, self.masks = self.data._make(field.to(device) for field in self.data), self.masks.to(device)
        batch = self.data._make(field.expand(len(index), *field.shape) for field in self.data)
        return share(batch._replace(weights=batch.weights * self.masks[list(index)]))


def train_on_subsets(
    make_model: Callable[[], nn.Module],
    data: Any,
    masks: Tensor,
    objective: Callable[..., Tensor],
    optimiser: Optimiser,
    *,
    steps: int,
    batch_size: int | None = None,
    seed: int | Sequence[int | str] = 0,
    device: str = "cpu",
    **options: Any,
) -> "History":
    """Train a model on each of K subsets; `History.population` holds the K models, in the order of the masks.

    From one seed all start with the same weights and, in minibatches, shuffle alike, so that they differ by their data.

    Args:
        data: batch of N samples with `inputs`, `targets` and `weights`, such as `Images().train()`.
        masks: `[K, N]` bool; with minibatches, all of one size.
        batch_size: samples a step; the whole subset where not given.
        seed: of all models, or K seeds of one each.
        options: further arguments of `train`.

    Raises:
        ValueError: for masks that do not fit the data or the seeds, or subsets of different sizes in minibatches.

    Source: Feldman & Zhang (2020), What Neural Networks Memorize and Why, arXiv 2008.03703; Ilyas et al. (2022),
    Datamodels: Predicting Predictions from Training Data, arXiv 2202.00622
    """
    from mesocosm.training.loop import train

    stream = Subsets(data, masks)
    seeds = [seed] * len(masks) if isinstance(seed, int) else list(seed)
    if len(seeds) != len(masks):
        raise ValueError(f"{len(seeds)} seeds for {len(masks)} subsets: give one seed, or one a subset")
    return train(
        Population(make_model, seeds, device),
        stream if batch_size is None else Epochs(data, batch_size, seeds, members(masks)),
        objective,
        optimiser,
        steps=steps,
        **options,
    )
