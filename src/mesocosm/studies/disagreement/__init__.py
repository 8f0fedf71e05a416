"""Can the test error of a network be read off unlabelled data, as the rate at which two trained copies of it disagree?

Copies are trained that differ in their data, initial weights, batch order, or all three. The paper finds that they
disagree on as many test inputs as they get wrong, the generalisation disagreement equality (GDE), and proves that it
holds where the copies' votes are calibrated.

Source: Jiang, Nagarajan, Baek & Kolter (2022), Assessing Generalization of SGD via Disagreement, ICLR, arXiv 2106.13799
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mesocosm import lab, measures, models, tasks, training
from mesocosm.settings import setting
from mesocosm.studies.disagreement.claims import CLAIMS
from mesocosm.studies.disagreement.figures import figures
from mesocosm.training.variation import MODES, Mode

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mesocosm.lab.lab import Lab
    from mesocosm.tasks.base import Task

CLASSES = 10
SMALL = {"digits": (8, (100, 250)), "fashion-mnist": (14, (200, 500, 1000)), "cifar10": (16, (200, 500, 1000))}
"""Side of the images and sizes of the training sets where a configuration names none."""


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Images, networks and a grid of settings: width x training size x batch x rate x decay is a configuration."""

    seeds: int = setting(5, "study seeds, each with its own training sets, weights and orders", low=1, high=1000)
    source: Literal["digits", "fashion-mnist", "cifar10"] = setting("digits", "which images")
    folder: str | None = setting(None, "folder of their files, or hub to fetch them; none looks in the usual places")
    side: int | None = setting(None, "pixels after average pooling; none takes 8, 14 or 16, as the source", low=4)
    train_sizes: tuple[int, ...] | None = setting(None, "training images; none takes sizes that suit the source", low=2)
    test_images: int = setting(2000, "test images, at most; the first of the test split", low=10, high=10_000)
    label_noise: float = setting(0.2, "share of labels drawn anew in the noisy test set", low=0, high=1)
    network: Literal["cnn", "resnet"] = setting("cnn", "two convolutions, or ResNet-18")
    widths: tuple[int, ...] = setting((4, 8), "channels of the network's first layer", low=1, high=1024)
    hidden: tuple[int, ...] = setting((128, 256), "hidden widths of the MLPs, the control", low=1, high=65_536)
    init_gains: tuple[float, ...] = setting((0.3, 1, 3), "factors of initial weights in Figure 4", low=0.01, high=100)
    learning_rates: tuple[float, ...] = setting((0.01, 0.03), "rates, constant in training", low=0, high=100)
    weight_decays: tuple[float, ...] = setting((0.0, 5e-3), "weight decays", low=0, high=100)
    batch_sizes: tuple[int, ...] = setting((25,), "images a step", low=1, high=10_000)
    momentum: float = setting(0.9, "momentum", low=0, high=1)
    epochs: int = setting(60, "passes over a training set; logistic regression makes 5 times as many", low=1, high=9999)
    copies: int = setting(4, "copies of each configuration", low=2, high=100)
    calibration_copies: int = setting(16, "copies behind the reliability curves", low=2, high=1000)

    def check(self) -> None:
        for name, values in vars(self).items():
            if isinstance(values, tuple) and len(set(values)) < len(values):
                raise ValueError(f"{name}={values} is not legal: each value may be given once")
        if self.network == "resnet" and any(width % 8 for width in self.widths):
            raise ValueError(f"widths={self.widths} is not legal: for network=resnet each must be a multiple of 8")


PRESETS = {
    "smoke": Config(
        seeds=2, train_sizes=(50, 100), widths=(4,), hidden=(64,), init_gains=(1, 3), learning_rates=(0.02, 0.03),
        weight_decays=(0.0,), epochs=30, copies=2, calibration_copies=4,
    ),
    "small": Config(),
    "paper": Config(
        seeds=2, source="cifar10", side=32, train_sizes=(10_000,), test_images=10_000, network="resnet",
        widths=(32, 64, 128), learning_rates=(0.01, 0.03, 0.1), weight_decays=(0.0, 5e-4), batch_sizes=(100, 200),
        epochs=100, copies=5, calibration_copies=100,
    ),
}  # fmt: skip


def plan(config: Config) -> Iterator[lab.Cell]:
    """A population for each architecture, training size and batch size; the rest of the grid are its replicas."""
    task, sizes = _images(config)
    network = {
        "cnn": lambda width: partial(models.CNN.for_task, channels=width),
        "resnet": lambda width: partial(models.ResNet.for_task, width=width),
    }[config.network]
    mlp = partial(partial, models.MLP.for_task)

    for n, batch in itertools.product(sizes, config.batch_sizes):
        cell = partial(_cell, config, task, n, batch)
        for width in config.widths:
            yield cell("network", width, network(width), MODES)
        for width in config.hidden:
            yield cell("mlp", width, mlp(hidden=(width,)), MODES)
        yield cell("logistic", 0, mlp(hidden=()), ["DiffInit"], epochs=5 * config.epochs)

    middle = config.learning_rates[len(config.learning_rates) // 2]
    many = replace(config, copies=config.calibration_copies, learning_rates=(middle,), weight_decays=(0.0,))
    wide, narrow, batch = config.widths[len(config.widths) // 2], min(config.hidden), config.batch_sizes[0]
    for name, size, model in (("network", wide, network(wide)), ("mlp", narrow, mlp(hidden=(narrow,)))):
        yield _cell(many, task, max(sizes), batch, f"calibration {name}", size, model, ["DiffInit"])
        for gain in config.init_gains:
            scaled = partial(_scaled, model, gain)
            yield _cell(config, task, min(sizes), batch, f"gain {name}", gain, scaled, ["DiffInit"])


def _scaled(model: "Callable[[Task], nn.Module]", gain: float, task: "Task") -> "nn.Module":
    """A model whose initial weights are multiplied by a factor, biases left."""
    made = model(task)
    for parameter in made.parameters():
        if parameter.dim() > 1:
            parameter.data *= gain
    return made


def _images(config: Config) -> tuple[Any, Sequence[int]]:
    """The task and the sizes of its training sets."""
    side, sizes = config.side or SMALL[config.source][0], config.train_sizes or SMALL[config.source][1]
    task = tasks.Images(source=config.source, folder=config.folder, size=side)
    try:
        pool = len(task.train().targets)
    except (OSError, ImportError) as error:
        raise ValueError(str(error)) from error
    if config.copies * max(sizes) > pool:
        raise ValueError(
            f"train_sizes={sizes} is not legal with copies={config.copies}: disjoint training sets of {max(sizes)} "
            f"images need {config.copies * max(sizes)}, and {config.source} has {pool}"
        )
    return task, sizes


def _cell(
    config: Config,
    task: Any,
    n: int,
    batch: int,
    group: str,
    size: float,
    model: "Callable[[Task], nn.Module]",
    modes: Sequence[Mode],
    epochs: int | None = None,
) -> lab.Cell:
    """All replicas of one architecture; the copies of an ensemble follow each other."""
    grid = (config.learning_rates, config.weight_decays, modes, range(config.seeds), range(config.copies))
    rate, decay, mode, seed, copy = map(list, zip(*itertools.product(*grid)))
    init, stream = training.vary_copies(task.train(), n, batch, seeds=seed, modes=mode, copies=copy)
    steps = stream.per_epoch * (epochs or config.epochs)
    return lab.Cell(
        name=f"{group}/{size} n={n} batch={batch}",
        task=task,
        model=model,
        swappable=group in ("network", "calibration network"),
        seeds=seed,
        init=init,
        stream=stream,
        objective=training.cross_entropy,
        optimiser=training.SGD(learning_rate=rate, momentum=config.momentum, weight_decay=decay),
        steps=steps,
        batch_size=batch,
        every=steps,
        settings={
            "source": config.source, "size": size, "n": n, "batch": batch,
            "learning_rate": rate, "weight_decay": decay, "mode": mode, "copy": copy,
        },
    )  # fmt: skip


def run(config: Config, lab: "Lab") -> None:
    """Train every population, and hold each ensemble of copies against true, noisy and permuted test labels."""
    import torch

    from mesocosm.seeding import generator
    from mesocosm.tasks.images import noisy_labels

    test, seeds = _images(config)[0].test(), range(config.seeds)
    images, true = test.inputs[: config.test_images], test.targets[: config.test_images]
    orders = [torch.randperm(len(true), generator=generator(seed, "test order")) for seed in seeds]
    noise = [generator(seed, "test noise") for seed in seeds]
    labels = {
        "true": [true for _ in seeds],
        "noisy": [noisy_labels(true, config.label_noise, CLASSES, stream) for stream in noise],
        "permuted": [true[order] for order in orders],
    }
    for cell in plan(config):
        population, copies = lab.train(cell).population, max(cell.settings["copy"]) + 1
        found = lab.remember(f"{cell.name} predictions", partial(_predict, cell, population, copies, images))
        predicted = found["predicted"].unflatten(0, (-1, copies))  # [ensembles, copies, N]
        columns = {k: v[::copies] if isinstance(v, list) else v for k, v in cell.settings.items() if k != "copy"}
        of_ensemble = list(zip(predicted, cell.seeds[::copies]))
        for kind, of_seed in labels.items():
            reports = [measures.disagreement_report(p, of_seed[seed], CLASSES) for p, seed in of_ensemble]
            metrics: dict[str, Any] = {name: [report[name] for report in reports] for name in reports[0]}
            metrics["train accuracy"] = found["train accuracy"].unflatten(0, (-1, copies)).mean(1)
            lab.record(cell.name, metrics, seed=cell.seeds[::copies], step=cell.steps, labels=kind, **columns)
        if cell.name.startswith("calibration"):
            for p, seed in of_ensemble:
                vote, right, votes = measures.reliability_curve(measures.vote_fractions(p, CLASSES), true)
                counts = {"votes": votes * len(true), "right votes": right * len(true)}
                lab.record(cell.name, counts, seed=[seed] * len(vote), vote=vote.tolist())

    # Ten copies vote (0.6, 0.3, 0.1): the first class is right for six inputs of ten, the other two are swapped.
    votes, right = torch.tensor([0] * 6 + [1] * 3 + [2]), torch.tensor([0] * 6 + [1] + [2] * 3)
    lab.record("example", measures.disagreement_report(votes[:, None].expand(10, 10), right, 3), seed=0)


def _predict(cell: lab.Cell, population: Any, copies: int, images: "Tensor") -> "dict[str, Tensor]":
    """Test classes `[R, N]` and training accuracy `[R]`, one ensemble of copies and 250 images at a time."""
    import torch

    def classes(ensemble: Any, inputs: "Tensor", rows: "Tensor") -> "Tensor":
        parts = [inputs[part.to(inputs.device)].to(ensemble.device) for part in rows.split(250, dim=1)]
        return torch.cat([ensemble.map(lambda model, x: model(x).argmax(-1), part) for part in parts], dim=1).cpu()

    data, subsets, everything = cell.stream.data, cell.stream.subsets, torch.arange(len(images)).expand(copies, -1)
    predicted, right = [], []
    for rows in torch.arange(len(population)).split(copies):
        ensemble = population.select(rows.tolist())
        predicted.append(classes(ensemble, images, everything))
        right.append(classes(ensemble, data.inputs, subsets[rows]) == data.targets.cpu()[subsets[rows]])
    return {"predicted": torch.cat(predicted), "train accuracy": torch.cat(right).double().mean(1)}


STUDY = lab.Study(
    title="Generalisation from disagreement",
    paper="Jiang, Nagarajan, Baek & Kolter (2022), Assessing Generalization of SGD via Disagreement, ICLR, "
    "arXiv 2106.13799",
    question="Can a network's test error be read off unlabelled data, as the rate at which two trained copies of it "
    "disagree?",
    presets=PRESETS,
    plan=plan,
    run=run,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "The small preset trains networks of two convolutions on hundreds of digits, not ResNet-18 on CIFAR-10.",
        "Intervals are over study seeds, not configurations: those of two sets of seeds over configurations did not "
        "overlap. This was changed after seeing them; C1 is inconclusive either way.",
        "ResNet-18 has group norm in place of batch norm, which does not map over replicas.",
        "Rates are constant and epochs fixed; configurations that do not interpolate are left out of the rules.",
        "The grids, that of the paper preset included, are of the paper's kind but not its list of values.",
        "The paper's SVHN, CIFAR-100 and shifted data sets, Network-in-Network and data augmentation are left out.",
    ),
)
