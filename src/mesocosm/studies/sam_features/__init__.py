"""Does sharpness-aware minimisation learn a hard feature better where an easy one already tells the label, and how?

Source: Springer et al. (2024), Sharpness-Aware Minimization Enhances Feature Quality via Balanced Learning, arXiv
2405.20439
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mesocosm import lab, models, tasks, training
from mesocosm.settings import setting
from mesocosm.studies.sam_features import rules
from mesocosm.studies.sam_features.claims import CLAIMS
from mesocosm.studies.sam_features.evaluation import (
    TrainingSets,
    evaluate,
    in_head,
    logistic,
    lorenz_curves,
    track,
)
from mesocosm.studies.sam_features.figures import figures

if TYPE_CHECKING:
    from torch import nn

    from mesocosm.lab.lab import Lab
    from mesocosm.tasks import ImagePairs

EASIEST = {"digits": (6, 7), "fashion-mnist": (1, 9), "cifar10": (0, 6)}
HARDEST = {"digits": (1, 8), "fashion-mnist": (4, 6), "cifar10": (1, 9)}
"""Pairs of classes where a configuration names none. Of all pairs of digits, these have the least and the largest
held-out loss under logistic regression."""
POINTS = 30
"""Steps of a recorded Lorenz curve."""


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study: first those of the two linear branches, then those of the composites of two images."""

    seeds: int = setting(16, "seeds of the two branches at each rho", low=1, high=10_000)
    d: int = setting(40, "dimensions of each feature", low=1, high=10_000)
    easy: float = setting(1.0, "strength of the easy feature", low=0.01, high=100)
    hard: float = setting(0.35, "strength of the hard feature, and of both in the control", low=0.01, high=100)
    noise: float = setting(0.3, "standard deviation of the noise in every dimension", low=0.01, high=100)
    samples: int = setting(300, "training samples, all of them in every step", low=2, high=100_000)
    reader_std: float = setting(0.05, "size of an initial encoder", low=1e-4, high=10)
    head_start: float = setting(0.2, "initial weights of the last layer", low=1e-4, high=10)
    rhos: tuple[float, ...] = setting((0, 0.05, 0.1, 0.2, 0.5), "ways uphill of LSAM, from 0", low=0, high=100)
    sam_rhos: tuple[float, ...] = setting((0, 0.02, 0.05, 0.1), "ways uphill of SAM, from 0", low=0, high=100)
    short_rho: float = setting(0.1, "the way uphill that C2 and C3 look at, one of rhos", low=0, high=100)
    learning_rate: float = setting(0.1, "learning rate of gradient descent", low=0, high=100)
    steps: int = setting(2000, "steps of gradient descent", low=5, high=1_000_000)
    directions: int = setting(32, "random directions that stand in for the gradient", low=1, high=10_000)
    image_seeds: int = setting(6, "seeds of the networks of images at each rho", low=1, high=1000)
    source: Literal["digits", "fashion-mnist", "cifar10"] = setting("digits", "images of the hard half")
    easy_source: Literal["digits", "fashion-mnist", "cifar10"] | None = setting(
        None, "images of the easy half; none takes those of the hard half"
    )
    folder: str | None = setting(None, "folder of their files, or hub to fetch them; none looks in the usual places")
    side: int | None = setting(None, "side of a half in pixels; none leaves the images as they are", low=4)
    easy_pair: tuple[int, ...] | None = setting(None, "easy classes; none takes the easiest pair", low=0, high=9)
    hard_pair: tuple[int, ...] | None = setting(None, "hard classes; none takes the hardest pair", low=0, high=9)
    train_images: int = setting(2000, "composites in a training set", low=2, high=1_000_000)
    image_rhos: tuple[float, ...] = setting((0, 0.05, 0.2), "ways uphill for images, from 0", low=0, high=100)
    tested_rho: float = setting(0.05, "the way uphill that C4 judges, one of image_rhos", low=0, high=100)
    network: Literal["cnn", "resnet"] = setting("cnn", "two convolutions, or ResNet-18")
    channels: int = setting(8, "channels of its first layer", low=1, high=1024)
    hidden: tuple[int, ...] = setting((100, 100), "widths of the fully connected network", low=1, high=65_536)
    image_steps: int = setting(800, "training steps of the networks of images", low=1, high=10_000_000)
    image_learning_rate: float = setting(0.02, "their learning rate, falling to 0 along half a cosine", low=0, high=100)
    momentum: float = setting(0.9, "their momentum", low=0, high=1)
    weight_decay: float = setting(0.0, "their weight decay", low=0, high=1)
    batch_size: int = setting(50, "composites a step", low=1, high=10_000)
    probe_images: int = setting(1500, "composites that a probe learns from, and as many to test it", low=20, high=10**6)
    probe_penalty: float = setting(10.0, "penalty of a probe's squared weights", low=1e-6, high=1e6)

    def check(self) -> None:
        for name in ("rhos", "sam_rhos", "image_rhos"):
            values = getattr(self, name)
            if values[0] != 0 or len(values) < 2 or list(values) != sorted(set(values)):
                raise ValueError(f"{name}={values} is not legal: it must rise from 0 to at least one more value")
        for name, values in (("short_rho", self.rhos), ("tested_rho", self.image_rhos)):
            if getattr(self, name) not in values[1:]:
                raise ValueError(f"{name}={getattr(self, name)} is not legal: it must be one of {values[1:]}")
        if self.batch_size > self.train_images:
            raise ValueError(
                f"batch_size={self.batch_size} is not legal: it must be at most train_images={self.train_images}"
            )
        if self.network == "resnet" and self.channels % 8:
            raise ValueError(f"channels={self.channels} is not legal: for network=resnet it must be a multiple of 8")

    def composites(self, **changes: Any) -> "ImagePairs":
        """The task of images, with `changes`."""
        pairs = {
            "easy": self.easy_pair or EASIEST[self.easy_source or self.source],
            "hard": self.hard_pair or HARDEST[self.source],
        }
        sources = {name: getattr(self, name) for name in ("source", "easy_source", "folder")}
        return tasks.ImagePairs(**sources, **pairs, size=self.side, **changes)


PRESETS = {
    "smoke": Config(
        seeds=2, steps=10, rhos=(0, 0.1, 0.5), sam_rhos=(0, 0.1), directions=2, image_seeds=2, train_images=100,
        image_rhos=(0, 0.05), channels=2, hidden=(16,), image_steps=15, probe_images=60,
    ),
    "small": Config(),
    "paper": Config(
        seeds=16, image_seeds=4, source="cifar10", easy_source="digits", easy_pair=(0, 1), train_images=10_000,
        image_rhos=(0, 0.01, 0.03, 0.05, 0.07, 0.1, 0.2), network="resnet", channels=64, image_steps=20_000,
        image_learning_rate=0.05, weight_decay=5e-4, batch_size=128, probe_images=2000,
    ),
}  # fmt: skip


def plan(config: Config) -> Iterable[lab.Cell]:
    """Two linear branches by LSAM and SAM, and by LSAM on equal features; then networks of images by SAM and LSAM,
    one fully connected, and one on composites whose easy half tells nothing.
    """
    redundant = tasks.RedundantFeatures(d=config.d, easy=config.easy, hard=config.hard, noise=config.noise)
    equal = tasks.RedundantFeatures(d=config.d, easy=config.hard, hard=config.hard, noise=config.noise)
    ends = (0, config.rhos[-1])
    yield branches(config, "toy LSAM", redundant, config.rhos, only=in_head)
    yield branches(config, "toy SAM", redundant, config.sam_rhos)
    yield branches(config, "equal LSAM", equal, ends, only=in_head)

    both, alone = config.composites(), config.composites(decorrelated=True)
    tested = (0, config.tested_rho)
    network = partial(make_network, config)
    yield pictures(config, "images SAM", both, network, config.image_rhos)
    yield pictures(config, "images LSAM", both, network, config.image_rhos[1:], only=in_head, swappable=False)
    yield pictures(config, "alone SAM", alone, network, tested)
    mlp = partial(models.MLP.for_task, hidden=config.hidden)
    yield pictures(config, "images MLP", both, mlp, config.image_rhos, swappable=False)


def branches(config: Config, name: str, task: Any, rhos: Sequence[float], **choice: Any) -> lab.Cell:
    """The two linear branches at every rho, by gradient descent on all samples."""
    rho, seed = cross(rhos, config.seeds)
    sets = TrainingSets(task, config.samples, config.samples, seed)
    sam = training.SAM(training.SGD(config.learning_rate), rho=rho, **choice)
    return lab.Cell(
        name=name,
        task=task,
        model=partial(models.TwoBranches.for_task, reader_std=config.reader_std, head_start=config.head_start),
        seeds=seed,
        stream=sets,
        objective=logistic,
        optimiser=sam,
        steps=config.steps,
        batch_size=config.samples,
        settings={"rho": rho, "judged": [r == config.short_rho for r in rho]},
        measure=partial(track, config, sets, sam),
        every=max(1, config.steps // rules.CHECKPOINTS),
        swappable=False,
    )


def pictures(
    config: Config,
    name: str,
    task: Any,
    model: "Callable[..., nn.Module]",
    rhos: Sequence[float],
    swappable: bool = True,
    **choice: Any,
) -> lab.Cell:
    """Networks of images at every rho."""
    rho, seed = cross(rhos, config.image_seeds)
    sgd = training.SGD(config.image_learning_rate, momentum=config.momentum, weight_decay=config.weight_decay)
    return lab.Cell(
        name=name,
        task=task,
        model=model,
        seeds=seed,
        stream=TrainingSets(task, config.train_images, config.batch_size, seed),
        objective=training.cross_entropy,
        optimiser=training.SAM(sgd, rho=rho, **choice),
        schedule=training.cosine(config.image_steps),
        steps=config.image_steps,
        batch_size=config.batch_size,
        settings={"rho": rho, "judged": [r == config.tested_rho for r in rho]},
        every=max(1, config.image_steps // 10),
        swappable=swappable,
    )


def cross(rhos: Sequence[float], seeds: int) -> tuple[list[float], list[int]]:
    """The rho and the seed of each replica: every seed at every rho."""
    return [float(rho) for rho in rhos for _ in range(seeds)], [seed for _ in rhos for seed in range(seeds)]


def make_network(config: Config, task: Any) -> "nn.Module":
    if config.network == "resnet":
        return models.ResNet.for_task(task, width=config.channels)
    return models.CNN.for_task(task, channels=config.channels)


def check(config: Config) -> None:
    from mesocosm.seeding import generator

    config.composites().sample(1, generator(0))


def run(config: Config, lab: "Lab") -> None:
    for cell in plan(config):
        population = lab.train(cell).population
        own: Any = {"seed": list(cell.seeds), "step": cell.steps, **cell.settings}
        if cell.name == "toy LSAM":
            compute = partial(lorenz_curves, cell.stream, cell.optimiser, POINTS, population)
            for name, curves in lab.remember("toy LSAM/lorenz", compute).items():
                for i, column in enumerate(curves.T):
                    lab.record(cell.name, {f"lorenz, {name}": column}, rank=i / POINTS, **own)
        elif "toy" not in cell.name and "equal" not in cell.name:
            found = lab.remember(f"{cell.name}/evaluation", partial(evaluate, config, population))
            lab.record(cell.name, found, **own)


STUDY = lab.Study(
    title="Sharpness-aware minimisation and feature quality",
    paper="J. M. Springer, V. Nagarajan, A. Raghunathan. Sharpness-Aware Minimization Enhances Feature Quality via "
    "Balanced Learning. ICLR 2024. arXiv 2405.20439",
    question="Where an easy and a hard feature both tell the label, does sharpness-aware minimisation learn the hard "
    "one better than gradient descent, and does it do so by weighing examples more evenly or by rescaling gradients?",
    presets=PRESETS,
    plan=plan,
    run=run,
    check=check,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "Sizes and rates of the two branches are our own: linear encoders of 40 inputs, 300 samples, gradient descent.",
        "The small preset's composites are of handwritten digits of 8x8 pixels, the easiest pair above the hardest, "
        "and its networks have two convolutions or three fully connected layers, not ResNet-18 on CIFAR-MNIST.",
        "A probe learns from composites of training images and is tested on those of test images, with features "
        "standardised and C = 0.1.",
        "In the paper preset the digits that come with scikit-learn, enlarged to 32x32, stand for MNIST's, and "
        "ResNet-18 has group norm in place of batch norm. CelebA, Waterbirds and DomainBed are left out.",
    ),
)
