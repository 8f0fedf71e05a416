"""The training sets and the trainings: networks on all subsets of a few images, or on random subsets of many."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mesocosm import lab, measures, models, tasks, training

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from mesocosm.studies.datamodels_harmonic import Config
    from mesocosm.tasks import Images

VARIANTS = ("clean", "flipped", "copies")
"""A few images with their own labels, with some wrong, and with some replaced by near-copies of one of them."""
TOGETHER = 1000
"""Networks on random subsets of many images in one cell."""


def images(config: "Config", seed: int, count: int) -> "Images":
    where = {"source": config.source, "folder": config.folder}
    return tasks.Images(**where, classes=config.classes, count=count, draw=seed)


def training_set(config: "Config", variant: str, seed: int) -> Any:
    """The few images of a seed, a batch of `points`."""
    import torch

    from mesocosm.seeding import generator

    data = images(config, seed, config.points).train()
    if variant == "flipped":
        wrong = torch.randperm(config.points, generator=generator(seed, "flipped"))[: config.flipped]
        return data._replace(targets=data.targets.index_copy(0, wrong, 1 - data.targets[wrong]))
    if variant == "copies":
        alike = torch.tensor(group_of_copies(config, seed))
        noise = torch.randn(data.inputs[alike].shape, generator=generator(seed, "copies"))
        near = data.inputs[alike[0]] + config.copy_noise * noise
        return data._replace(inputs=data.inputs.index_copy(0, alike, near))
    return data


def group_of_copies(config: "Config", seed: int) -> list[int]:
    """Which of the few images become near-copies of the first of them: all of one label."""
    targets = images(config, seed, config.points).train().targets
    return (targets == 0).nonzero()[: config.copies, 0].tolist()


def sampled_subsets(config: "Config", seed: int, p: float) -> "Tensor":
    """Random subsets of many images, `[K, N]` bool: those for regression, then both sides of all pairs."""
    import torch

    from mesocosm.seeding import generator

    alone = measures.biased_subsets(config.subsets, config.many, p, generator(seed, "subsets", str(p)))
    return torch.cat([alone, *(side.flatten(0, 1) for side in pairs(config, config.many, p, config.pairs, seed))])


def pairs(config: "Config", n: int, p: float, count: int, seed: int) -> "tuple[Tensor, Tensor]":
    """Correlated subsets at each rho, `[R, K, n]` bool twice."""
    import torch

    from mesocosm.seeding import generator

    left, right = [], []
    for rho in config.rhos:
        stream = generator(seed, "pairs", n, str(p), str(rho))
        left.append(measures.biased_subsets(count, n, p, stream))
        right.append(measures.correlated_subsets(left[-1], rho, p, stream))
    return torch.stack(left), torch.stack(right)


class OnSubsets:
    """Gives each network its subset of a seed's images, which are read at the first step.

    Args:
        data: gives the batch of N images.
        masks: gives the subsets, `[R, N]` bool.
    """

    def __init__(self, data: Any, masks: Any) -> None:
        self.data, self.masks = data, masks
        self._stream: Any = None

    def __call__(self, step: int, index: Sequence[int], device: "torch.device") -> Any:
        if self._stream is None:
            self._stream = training.Subsets(self.data(), self.masks())
        return self._stream(step, index, device)


def all_subsets(config: "Config") -> "Tensor":
    """`[2^n, n]` bool, in the order that `biased_fourier` wants."""
    from mesocosm.tasks.parity import cube

    return cube(config.points) < 0


def loss(model: "nn.Module", batch: Any) -> "Tensor":
    """Sum of the cross-entropies of a subset over the number of all images, so that rates do not grow as it shrinks."""
    return training.cross_entropy(model, batch) * batch.weights.mean()


def cell(config: "Config", task: "Images", model: Any, replicas: range, seed: int, **changes: Any) -> lab.Cell:
    """Full-batch gradient descent from one seed's initial weights, on one subset a replica."""
    return lab.Cell(
        task=task,
        model=model,
        seeds=[seed] * len(replicas),
        objective=loss,
        optimiser=training.SGD(config.learning_rate),
        steps=config.steps,
        batch_size=task.count or 1,
        every=max(1, config.steps),
        settings={"subset": list(replicas)},
        **changes,
    )


def few(config: "Config", variant: str, seed: int) -> lab.Cell:
    """Networks on all subsets of a few images."""
    return cell(
        config,
        images(config, seed, config.points),
        partial(models.MLP.for_task, hidden=config.hidden),
        range(2**config.points),
        seed,
        name=f"{variant}/seed={seed}",
        stream=OnSubsets(partial(training_set, config, variant, seed), partial(all_subsets, config)),
    )


def many(config: "Config", p: float, seed: int) -> Iterator[lab.Cell]:
    """Networks on random subsets of many images, a thousand in a cell."""
    task = images(config, seed, config.many)
    total = config.subsets + 2 * config.pairs * len(config.rhos)
    for first in range(0, total, TOGETHER):
        part = range(first, min(first + TOGETHER, total))
        yield cell(
            config,
            task,
            partial(models.ResNet.for_task, width=config.channels),
            part,
            seed,
            name=f"many/p={p:g}/seed={seed}/from={first}",
            stream=OnSubsets(task.train, partial(_rows, config, seed, p, part)),
        )


def _rows(config: "Config", seed: int, p: float, part: range) -> "Tensor":
    return sampled_subsets(config, seed, p)[part.start : part.stop]
