"""Training sets, and what is measured on networks that learn from them."""

import copy
import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mesocosm import measures, training

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from mesocosm.studies.sam_features import Config
    from mesocosm.training import SAM, Epochs, Population


class TrainingSets:
    """Passes over a training set of each seed's own; all of it at every step where a batch is as large.

    Args:
        seeds: of each replica; equal seeds have equal sets and orders.
    """

    def __init__(self, task: Any, size: int, batch_size: int, seeds: Sequence[int]) -> None:
        self.task, self.size, self.batch_size, self.seeds = task, size, batch_size, list(seeds)
        self._drawn: Epochs | None = None
        self._whole: tuple[Any, Any] = (None, None)

    def __call__(self, step: int, index: Sequence[int], device: "torch.device") -> Any:
        """The batch `[R, B, ...]` of this step for the replicas at `index`."""
        from mesocosm.training.parallel import share

        if self.batch_size < self.size:
            return self._epochs()(step, index, device)
        return share(self.whole(index, device))

    def whole(self, index: Sequence[int], device: "torch.device") -> Any:
        """The training sets of the replicas at `index`, `[R, N, ...]`."""
        if self._whole[0] != (tuple(index), device):
            data, rows = self._epochs().data, self._epochs().subsets[list(index)]
            self._whole = (tuple(index), device), data._make(field.to(device)[rows] for field in data)
        return self._whole[1]

    def _epochs(self) -> "Epochs":
        """Drawn at first use, so that images are not read where a training is only planned."""
        import torch

        from mesocosm.seeding import generator

        if self._drawn is None:
            own = sorted(set(self.seeds))
            samples = [self.task.sample(self.size, generator(seed, "training set")) for seed in own]
            data = samples[0]._make(torch.cat(fields) for fields in zip(*samples))
            subsets = torch.stack([torch.arange(self.size) + self.size * own.index(seed) for seed in self.seeds])
            self._drawn = training.Epochs(data, self.batch_size, self.seeds, subsets)
        return self._drawn


def logistic(model: "nn.Module", batch: Any) -> "Tensor":
    """log(1 + exp(-y f(x))), in nats."""
    from torch.nn.functional import softplus

    return (softplus(-batch.targets * model(batch.inputs)) * batch.weights).sum() / batch.weights.sum()


def in_head(name: str) -> bool:
    """Whether a parameter belongs to the last layer of our own networks."""
    return name.startswith("head")


def in_encoders(name: str) -> bool:
    return not in_head(name)


def importance(model: "nn.Module", batch: Any) -> "Tensor":
    return measures.importance_weights(model(batch.inputs), batch.targets)


def track(config: "Config", sets: TrainingSets, sam: "SAM", population: "Population", step: int) -> "dict[str, Tensor]":
    """Of every network of two branches: errors in closed form, and gradients here and uphill, `[R]` by name."""
    import torch

    batch = sets.whole(population.index, population.device)
    readers = population.map(lambda model: model.readers).cpu()
    easy, hard = sets.task.branch_errors(readers).unbind(1)
    both = readers * population.weights()["head"].abs().cpu()[:, :, None]
    found = {
        "train loss": population.map(logistic, batch),
        "easy error": easy,
        "hard error": hard,
        "error": sets.task.linear_error(both),
        "norm ratio": readers[:, 1].norm(dim=1) / readers[:, 0].norm(dim=1),
    }

    gradient = gradient_rows(population, batch)
    phantom = uphill(population, sam, sets, gradient)
    real, moved = (some.map(importance, batch) for some in (population, phantom))
    directions = (random_rows(population, sets, draw) for draw in range(config.directions))
    elsewhere = [uphill(population, sam, sets, rows).map(importance, batch) for rows in directions]
    found |= {
        "gini, real": measures.gini(real),
        "gini, phantom": measures.gini(moved),
        "gini, random": torch.stack(list(map(measures.gini, elsewhere))).mean(0),
    }

    share = partial(measures.gradient_share, hard="hard", easy="easy")
    encoders = uphill(population, dataclasses.replace(sam, only=in_encoders), sets, gradient)
    return found | {
        "share, real": population.map(share, batch, real),
        "share, phantom layers": phantom.map(share, batch, real),
        "share, phantom importance": population.map(share, batch, moved),
        "share, phantom": phantom.map(share, batch, moved),
        "share, phantom encoders": encoders.map(share, batch, real),
    }


def gradient_rows(population: "Population", batch: Any) -> "Tensor":
    """Gradients of the logistic loss, `[R, P]`."""
    from mesocosm.training.gradients import gradients_of

    return gradients_of(population, logistic)(population.theta, population.state, batch)[0]


def random_rows(population: "Population", sets: TrainingSets, draw: int) -> "Tensor":
    """A normal direction for each replica, in place of a gradient, `[R, P]`."""
    import torch

    from mesocosm.seeding import generator

    rows = torch.zeros_like(population.theta)
    streams = [generator(sets.seeds[r], "direction", draw) for r in population.index]
    for view in population.layout.views(rows).values():
        view.copy_(torch.stack([torch.randn(view.shape[1:], generator=stream) for stream in streams]))
    return rows


def uphill(population: "Population", sam: "SAM", sets: TrainingSets, direction: "Tensor") -> "Population":
    """The population at the phantom parameters that a step of `sam` along `direction` `[R, P]` would use."""
    columns = sam.columns(len(sets.seeds), population.device)
    own = {name: column[population.index] for name, column in columns.items()}
    phantom = copy.copy(population)
    phantom.theta = sam.ascend(population.theta, direction, own, population.layout)
    return phantom


def lorenz_curves(sets: TrainingSets, sam: "SAM", points: int, population: "Population") -> "dict[str, Tensor]":
    """Lorenz curves of the importance at real and phantom parameters, `[R, points + 1]`, at equal steps of rank."""
    import torch

    batch = sets.whole(population.index, population.device)
    phantom = uphill(population, sam, sets, gradient_rows(population, batch))
    curves = {}
    for name, some in (("real", population), ("phantom", phantom)):
        curve = measures.lorenz_curve(some.map(importance, batch))
        ranks = torch.linspace(0, curve.shape[1] - 1, points + 1).round().long()
        curves[name] = curve[:, ranks]
    return curves


def evaluate(config: "Config", population: "Population") -> "dict[str, Tensor]":
    """Of every network of images: its test error, and the errors of probes of either half, `[R]` by name."""
    import torch

    test = composites(config, "test", "test")
    probes = [composites(config, split, "probe", decorrelated=True) for split in ("train", "test")]
    found: dict[str, list[float]] = {"test error": [], "hard probe error": [], "easy probe error": []}
    for r in range(len(population)):
        model = population.replica(r).eval()
        outputs = measures.penultimate_features(model, test.inputs)[1]
        found["test error"].append((outputs.argmax(1) != test.targets).double().mean().item())
        features = torch.cat([measures.penultimate_features(model, batch.inputs)[0] for batch in probes])
        for half in ("hard", "easy"):
            labels = torch.cat([getattr(batch, f"{half}_label") for batch in probes])
            right = measures.linear_probe(features, labels, 2, train_share=0.5, l2=config.probe_penalty)
            found[f"{half} probe error"].append(1 - right)
    return {name: torch.tensor(values) for name, values in found.items()}


def composites(config: "Config", split: str, sample: str, decorrelated: bool = False) -> Any:
    """Fixed composites of one split, the same for all networks."""
    from mesocosm.seeding import generator

    task = config.composites(split=split, decorrelated=decorrelated)
    return task.sample(config.probe_images, generator("sam-features", sample, split))
