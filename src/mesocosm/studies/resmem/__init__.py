"""Can a memory of nearest neighbours hold what a network did not learn, and lower its test error by that?

Source: Yang et al. (2023), ResMem: Learn what you can and memorize the rest, arXiv 2302.01576
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mesocosm import lab, models, tasks, training
from mesocosm.settings import setting
from mesocosm.studies.resmem import theory
from mesocosm.studies.resmem.claims import CLAIMS
from mesocosm.studies.resmem.evaluation import TrainingSets, evaluate
from mesocosm.studies.resmem.figures import figures

if TYPE_CHECKING:
    from torch import nn

    from mesocosm.lab.lab import Lab
    from mesocosm.tasks import Images

POOL = {"digits": 1000, "fashion-mnist": 60_000, "cifar10": 50_000}
"""Images from which those for training and validation are drawn."""


class Sizes(NamedTuple):
    side: int
    widths: tuple[int, ...]
    train_images: int
    validation_images: int
    wide_steps: int
    early_steps: int


SIZES = {
    "digits": Sizes(8, (3, 4, 8, 128), 700, 300, wide_steps=6000, early_steps=20),
    "fashion-mnist": Sizes(14, (8, 32, 128, 512), 10_000, 2000, wide_steps=15_000, early_steps=100),
    "cifar10": Sizes(16, (8, 32, 128, 512), 10_000, 2000, wide_steps=15_000, early_steps=100),
}
"""Where a configuration names none."""
CHANNELS = {"cnn": (2, 4, 8, 32), "resnet": (8, 16, 32, 64)}
"""Widths of convolutional networks where a configuration names none."""


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study: first those of the networks and their memory, then those of the linear theory."""

    seeds: int = setting(20, "seeds, each with its own images, weights and orders", low=1, high=1000)
    source: Literal["digits", "fashion-mnist", "cifar10"] = setting("digits", "which images")
    folder: str | None = setting(None, "folder of their files, or hub to fetch them; none looks in the usual places")
    side: int | None = setting(None, "pixels after average pooling; none takes 8, 14 or 16, as the source", low=4)
    train_images: int | None = setting(None, "images to learn and memorise; none suits the source", low=2)
    validation_images: int | None = setting(None, "images to choose k, sigma and T; none suits the source", low=2)
    test_images: int = setting(10_000, "test images, at most; the first of the test split", low=10, high=10_000)
    network: Literal["mlp", "cnn", "resnet"] = setting("mlp", "one hidden layer, two convolutions, or ResNet-18")
    widths: tuple[int, ...] | None = setting(
        None, "hidden units or channels of the first layer, rising; none suits the source", low=1, high=65_536
    )
    steps: int = setting(1500, "training steps of every width", low=1, high=10_000_000)
    wide_steps: int | None = setting(None, "steps until the widest interpolates; none suits the source", low=1)
    early_steps: int | None = setting(None, "steps of the widest in the control; none suits the source", low=1)
    batch_size: int = setting(100, "images a step", low=1, high=10_000)
    learning_rate: float = setting(0.05, "learning rate, falling to 0 along half a cosine", low=0, high=100)
    momentum: float = setting(0.9, "momentum", low=0, high=1)
    weight_decay: float = setting(0.0, "weight decay", low=0, high=1)
    neighbours: tuple[int, ...] = setting((10, 50, 200), "numbers of neighbours to choose from", low=1, high=10_000)
    sigmas: tuple[float, ...] = setting(
        (0.3, 1, 3), "bandwidths to choose from, times the median distance to a neighbour", low=0.001, high=1000
    )
    temperatures: tuple[float, ...] = setting((0.7, 1, 1.4, 2), "temperatures to choose from", low=0.01, high=100)
    dimensions: tuple[int, ...] = setting((3, 10), "dimensions of the linear problem", low=1, high=1000)
    samples: tuple[int, ...] = setting((30, 100, 300, 1000, 3000), "its training samples, rising", low=2, high=10**6)
    radius: float = setting(0.5, "largest norm of its base learner, where the truth has 1", low=0.001, high=0.999)
    points: int = setting(1000, "fresh points on which its risk is measured", low=2, high=10**6)

    @property
    def sizes(self) -> Sizes:
        """Sizes as given, or as they suit the source."""
        suited = SIZES[self.source]
        if self.network != "mlp":
            suited = suited._replace(widths=CHANNELS[self.network])
        given = {name: getattr(self, name) for name in Sizes._fields}
        return suited._replace(**{name: value for name, value in given.items() if value is not None})

    def check(self) -> None:
        sizes, pool = self.sizes, POOL[self.source]
        for name, values, least in (("widths", sizes.widths, 3), ("samples", self.samples, 2)):
            if len(values) < least or list(values) != sorted(set(values)):
                raise ValueError(f"{name}={values} is not legal: it must be at least {least} rising values")
        if len(set(self.dimensions)) < len(self.dimensions):
            raise ValueError(f"dimensions={self.dimensions} is not legal: its values must differ")
        if sizes.train_images + sizes.validation_images > pool:
            raise ValueError(
                f"train_images={sizes.train_images} is not legal with validation_images={sizes.validation_images}: "
                f"together they must be at most the {pool} images of {self.source}"
            )
        for name, most in (("neighbours", max(self.neighbours)), ("batch_size", self.batch_size)):
            if most > sizes.train_images:
                raise ValueError(f"{name}={most} is not legal: it must be at most train_images={sizes.train_images}")
        if self.network == "resnet" and any(width % 8 for width in sizes.widths):
            raise ValueError(f"widths={sizes.widths} is not legal: for network=resnet each must be a multiple of 8")

    def images(self) -> "Images":
        return tasks.Images(source=self.source, folder=self.folder, size=self.sizes.side)


PRESETS = {
    "smoke": Config(
        seeds=2, train_images=200, validation_images=50, test_images=100, steps=40, wide_steps=60, early_steps=5,
        widths=(2, 4, 32), neighbours=(5, 20), temperatures=(1, 2), samples=(30, 300, 1000), points=100,
    ),
    "small": Config(),
    "paper": Config(
        seeds=5, source="cifar10", side=32, network="resnet", widths=(8, 16, 32, 64), train_images=45_000,
        validation_images=5000, steps=35_000, wide_steps=70_000, early_steps=1000, batch_size=128, weight_decay=5e-4,
        neighbours=(10, 20, 53, 100, 200), sigmas=(0.1, 0.3, 1, 3), samples=(30, 100, 300, 1000, 3000, 10_000, 30_000),
    ),
}  # fmt: skip


def plan(config: Config) -> Iterator[lab.Cell]:
    """A network of each width; the widest also trained for longer, until it interpolates, and hardly at all."""
    *_, widest = widths = config.sizes.widths
    for width in widths:
        yield network_cell(config, f"network/{width}", width, config.steps, swappable=width == widths[0])
    yield network_cell(config, "interpolating", widest, config.sizes.wide_steps)
    yield network_cell(config, "stopped early", widest, config.sizes.early_steps)


def network_cell(config: Config, name: str, width: int, steps: int, swappable: bool = False) -> lab.Cell:
    task, seeds = config.images(), range(config.seeds)
    return lab.Cell(
        name=name,
        task=task,
        model=network(config, width),
        seeds=seeds,
        stream=TrainingSets(task, config.sizes, config.batch_size, seeds),
        objective=training.cross_entropy,
        optimiser=training.SGD(config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay),
        schedule=training.cosine(steps),
        steps=steps,
        batch_size=config.batch_size,
        settings={"width": width},
        every=steps,
        swappable=swappable,
    )


def network(config: Config, width: int) -> "Callable[[Any], nn.Module]":
    if config.network == "mlp":
        return partial(models.MLP.for_task, hidden=(width,))
    if config.network == "cnn":
        return partial(models.CNN.for_task, channels=width)
    return partial(models.ResNet.for_task, width=width)


def check(config: Config) -> None:
    config.images().train()


def run(config: Config, lab: "Lab") -> None:
    theory.run(config, lab)
    for cell in plan(config):
        history = lab.train(cell)
        found = lab.remember(f"{cell.name}/evaluation", partial(evaluate, config, cell.stream, history))
        lab.record(cell.name, found, seed=cell.seeds, step=cell.steps, **cell.settings)


STUDY = lab.Study(
    title="Residual memorisation",
    paper="Z. Yang, M. Lukasik, V. Nagarajan, Z. Li, A. S. Rawat, M. Zaheer, A. K. Menon, S. Kumar. ResMem: Learn what "
    "you can and memorize the rest. NeurIPS 2023. arXiv 2302.01576",
    question="If a network is too small to memorise its training set, can a nearest-neighbour memory of its residuals "
    "do so in its place, and lower the test error?",
    presets=PRESETS,
    plan=plan,
    run=run,
    check=check,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "Networks are fully connected with one hidden layer, on 8x8 digits (Fashion-MNIST and CIFAR-10 by a flag), not "
        "residual networks on CIFAR-100 and ImageNet. The language model is left out.",
        "Bandwidths are multiples of the median distance to a neighbour, since distances grow with width; k, sigma and "
        "T are chosen for every network on its own validation images.",
        "The risk of the linear base learner is exact, ||theta - theta*||^2 / d; that of ResMem is measured on fresh "
        "points.",
        "The paper's figures and its k = 53 are given as far as recalled.",
        "In the paper preset ResNet-18 of several widths on CIFAR-10, with group norm and without augmentation, stands "
        "for residual networks of depth 8 to 56 on CIFAR-100.",
    ),
)
