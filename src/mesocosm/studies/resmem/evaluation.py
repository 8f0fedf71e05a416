"""Training sets, and what a memory of residuals makes of a trained network."""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from mesocosm import measures, training

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from mesocosm.measures.neighbours import Neighbours
    from mesocosm.studies.resmem import Config, Sizes
    from mesocosm.training import Epochs
    from mesocosm.training.history import History


class TrainingSets:
    """Passes over training images of each seed's own, drawn at first use, so that to plan needs no images."""

    def __init__(self, task: Any, sizes: "Sizes", batch_size: int, seeds: Sequence[int]) -> None:
        self.task, self.sizes, self.batch_size, self.seeds = task, sizes, batch_size, list(seeds)

    def __call__(self, step: int, index: Sequence[int], device: "torch.device") -> Any:
        """The batch `[R, B, ...]` of this step for the replicas at `index`."""
        return self._epochs(step, index, device)

    @cached_property
    def _epochs(self) -> "Epochs":
        import torch

        subsets = torch.stack([self.rows(seed)[0] for seed in self.seeds])
        return training.Epochs(self.task.train(), self.batch_size, self.seeds, subsets)

    def rows(self, seed: int) -> "tuple[Tensor, Tensor]":
        """Rows of a seed's images for training and for validation."""
        import torch

        from mesocosm.seeding import generator

        order = torch.randperm(len(self.task.train().targets), generator=generator(seed, "split"))
        train, rest = order.tensor_split([self.sizes.train_images])
        return train, rest[: self.sizes.validation_images]


def evaluate(config: "Config", sets: TrainingSets, history: "History") -> "dict[str, Tensor]":
    """What networks answer alone, with a memory of residuals, and by neighbours alone, `[R]`; NaN where diverged."""
    import torch

    data, held_out, population = sets.task.train(), sets.task.test(), history.population
    test = held_out._make(field[: config.test_images] for field in held_out)
    found: list[dict[str, float]] = []
    for r, seed in enumerate(sets.seeds):
        train, validation = (data._make(field[rows] for field in data) for rows in sets.rows(seed))
        model = population.replica(r).eval()
        seen = [see(model, part) for part in (train, validation, test)]
        finite = all(part.features.isfinite().all() and part.logits.isfinite().all() for part in seen)
        found.append(compare(config, seed, *seen) if finite and r not in history.diverged else {})
    metrics = {name for one in found for name in one}
    return {name: torch.tensor([one.get(name, math.nan) for one in found], dtype=torch.float64) for name in metrics}


class Seen(NamedTuple):
    """Images as a network sees them."""

    features: "Tensor"
    """`[N, D]`, of its last hidden layer."""
    logits: "Tensor"
    """`[N, C]`."""
    targets: "Tensor"
    """`[N]`, classes."""


def see(model: "nn.Module", images: Any) -> Seen:
    features, logits = measures.penultimate_features(model, images.inputs)
    return Seen(features, logits, images.targets)


def compare(config: "Config", seed: int, train: Seen, validation: Seen, test: Seen) -> dict[str, float]:
    """Accuracies of one network, with and without its memory of the training images.

    k, sigma and T are those with which most validation images are right, for ResMem and for the neighbours alone.
    """
    import torch

    from mesocosm.seeding import generator

    near, found = (
        measures.nearest_neighbours(train.features, part.features, max(config.neighbours))
        for part in (validation, test)
    )
    labels = torch.nn.functional.one_hot(train.targets, train.logits.shape[1]).float()
    shuffle = torch.randperm(len(labels), generator=generator(seed, "shuffle"))

    def shuffled(found: "Neighbours") -> "Neighbours":
        return found._replace(indices=shuffle[found.indices])

    resmem = partial(measures.residual_memory_scores, train.logits, train.targets)
    grid = ways(config, near)
    vote = best(grid, lambda way: accuracy(measures.knn_predict(labels, near, **way), validation.targets))
    warm = [{**way, "temperature": t} for way in grid for t in config.temperatures]
    way = best(warm, lambda way: accuracy(resmem(validation.logits, near, **way), validation.targets))

    looked_up = resmem(test.logits, found, **way)
    softened = torch.softmax(test.logits / way["temperature"], dim=1)
    nothing_left = measures.residual_memory(labels, labels, softened, found, way["neighbours"], way["sigma"])
    right, now = (scores.argmax(1) == test.targets for scores in (test.logits, looked_up))

    itself, once = measures.nearest_neighbours(train.features, train.features, 1), distinct(train.features)
    return {
        "train accuracy": accuracy(train.logits, train.targets),
        "test accuracy": accuracy(test.logits, test.targets),
        "ResMem accuracy": accuracy(looked_up, test.targets),
        "k-NN accuracy": accuracy(measures.knn_predict(labels, found, **vote), test.targets),
        "shuffled accuracy": accuracy(resmem(test.logits, shuffled(found), **way), test.targets),
        "oracle accuracy": accuracy(nothing_left, test.targets),
        "corrected": (~right & now).double().mean().item(),
        "spoilt": (right & ~now).double().mean().item(),
        "memorised": accuracy(resmem(train.logits, itself, 1)[once], train.targets[once]),
        "distinct": once.double().mean().item(),
        "wrongly memorised": accuracy(resmem(train.logits, shuffled(itself), 1), train.targets),
        **way,
    }


def ways(config: "Config", near: "Neighbours") -> list[dict[str, Any]]:
    """Every number of neighbours with every bandwidth, which is in units of the median distance to them."""
    scales = {k: near.distances[:, :k].median().clamp(min=1e-12).item() for k in config.neighbours}
    return [{"neighbours": k, "sigma": times * scales[k]} for k, times in itertools.product(scales, config.sigmas)]


def best(ways: list[dict[str, Any]], score: Callable[[dict[str, Any]], float]) -> dict[str, Any]:
    """The first of those with the best score."""
    return max(ways, key=score)


def accuracy(scores: "Tensor", targets: "Tensor") -> float:
    return (scores.argmax(1) == targets).double().mean().item()


def distinct(rows: "Tensor") -> "Tensor":
    """Whether a row `[N, D]` occurs once, `[N]`."""
    import torch

    _, which, counts = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
    return counts[which] == 1
