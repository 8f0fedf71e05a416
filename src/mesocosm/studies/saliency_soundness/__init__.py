"""Is a heat map evidence for a label, if equally good ones can be found for wrong labels?

A map is complete where the pixels that it ranks high keep the label's probability, and sound where they do not make a
label out of nothing. Most methods are tested for the first alone.

Source: Gupta, Saunshi, Yu, Lyu & Arora (2022), New Definitions and Evaluations for Saliency Methods: Staying Intrinsic,
Complete and Sound, NeurIPS, arXiv 2211.02912
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mesocosm import lab, models, tasks, training
from mesocosm.settings import setting
from mesocosm.studies.saliency_soundness import evaluation, maps
from mesocosm.studies.saliency_soundness.claims import CLAIMS
from mesocosm.studies.saliency_soundness.figures import figures

if TYPE_CHECKING:
    from torch import nn

    from mesocosm.lab.lab import Lab

SIDES = {"digits": 8, "fashion-mnist": 28, "cifar10": 32}
SCALES = {"digits": 2, "fashion-mnist": 4, "cifar10": 4}
PER_CLASS = {"digits": 5, "fashion-mnist": 3, "cifar10": 3}
"""Scale of coarse masks, and images of each class, where a configuration names none."""


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study: the networks, the learned masks, the other maps, and their evaluation."""

    seeds: int = setting(3, "networks, each with test images of its own", low=1, high=1000)
    source: Literal["digits", "fashion-mnist", "cifar10"] = setting("digits", "which images")
    folder: str | None = setting(None, "folder of their files, or hub to fetch them; none looks in the usual places")
    network: Literal["cnn", "resnet"] = setting("cnn", "two convolutions, or ResNet-18")
    channels: int = setting(12, "channels of its first layer", low=1, high=1024)
    steps: int = setting(400, "training steps", low=1, high=10_000_000)
    batch_size: int = setting(64, "images a step", low=1, high=10_000)
    learning_rate: float = setting(2e-3, "learning rate of Adam", low=0, high=1)
    images_per_class: int | None = setting(
        None, "test images of each class and network; none takes what suits the source", low=1, high=50
    )
    mask_steps: int = setting(150, "steps of learning a mask", low=1, high=100_000)
    draws: int = setting(3, "random images in each of them", low=1, high=1000)
    mask_learning_rate: float = setting(0.05, "their learning rate", low=0, high=10)
    l1: float = setting(1.6, "l1 penalty of a mask that shows the whole image, in nats", low=0, high=1e6)
    tv: float = setting(8.4, "TV penalty of a mask with a sharp border from side to side, in nats", low=1e-6, high=1e6)
    scale: int | None = setting(
        None, "pixels to a weight of a coarse mask; none takes what suits the source", low=2, high=32
    )
    points: int = setting(32, "points on the path of integrated gradients", low=1, high=1000)
    samples: int = setting(16, "noisy images of SmoothGrad", low=1, high=1000)
    insertions: int = setting(16, "equal steps in which pixels are shown", low=1, high=64)
    fills: int = setting(3, "training images that hide pixels in the second evaluation", low=1, high=1000)

    def check(self) -> None:
        if self.network == "resnet" and self.channels % 8:
            raise ValueError(f"channels={self.channels} is not legal: for network=resnet it must be a multiple of 8")
        side = SIDES[self.source]
        if self.scale and self.scale > side:
            raise ValueError(f"scale={self.scale} is not legal: it must be at most {side}, the side of {self.source}")

    def images_each(self) -> int:
        return self.images_per_class or PER_CLASS[self.source]

    def coarse(self) -> int:
        return self.scale or SCALES[self.source]


PRESETS = {
    "smoke": Config(
        seeds=2, channels=4, steps=100, images_per_class=1, mask_steps=20, draws=1, points=4, samples=2, fills=1
    ),
    "small": Config(),
    "paper": Config(
        source="cifar10", network="resnet", channels=64, steps=20_000, batch_size=128, learning_rate=1e-3,
        images_per_class=20, mask_steps=2000, draws=10, l1=1.0, tv=2.24, insertions=32, fills=10,
    ),
}  # fmt: skip


def plan(config: Config) -> Iterable[lab.Cell]:
    """One population of classifiers."""
    task = tasks.Images(source=config.source, folder=config.folder)
    return [
        lab.Cell(
            name="classifiers",
            task=task,
            model=partial(make_network, config),
            seeds=range(config.seeds),
            objective=training.cross_entropy,
            optimiser=training.AdamW(config.learning_rate),
            steps=config.steps,
            batch_size=config.batch_size,
            measure=evaluation.accuracy(task),
            every=max(1, config.steps // 4),
        )
    ]


def make_network(config: Config, task: Any) -> "nn.Module":
    if config.network == "resnet":
        return models.ResNet.for_task(task, width=config.channels)
    return models.CNN.for_task(task, channels=config.channels)


def check(config: Config) -> None:
    (cell,) = plan(config)
    evaluation.check_extras(cell.task)


def run(config: Config, lab: "Lab") -> None:
    """Train the classifiers, make maps of their test images for every label by every method, and evaluate them."""
    (cell,) = plan(config)
    trained, untrained = lab.train(cell), lab.population(cell)
    for r, seed in enumerate(cell.seeds):
        if r in trained.diverged:
            continue
        images = evaluation.choose(config, cell.task, seed, lab.device)
        network, start = (population.replica(r).eval() for population in (trained.population, untrained))
        evaluation.record_network("maps", network, maps.methods(config, network, images), config, images, lab)
        plain = {"mask": maps.masks(config, start, images)["mask"]}
        evaluation.record_network("untrained", start, plain, config, images, lab)
        evaluation.record_constant(config, images, lab)


STUDY = lab.Study(
    title="Completeness and soundness of saliency maps",
    paper="A. Gupta, N. Saunshi, D. Yu, K. Lyu, S. Arora. New Definitions and Evaluations for Saliency Methods: "
    "Staying Intrinsic, Complete and Sound. NeurIPS 2022. arXiv 2211.02912",
    question="Can heat maps that keep a label's probability be found for wrong labels too, so that they are no "
    "evidence, and do smoother masks prevent it?",
    presets=PRESETS,
    plan=plan,
    run=run,
    check=check,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "Networks have two convolutions and learn digits of 8x8 pixels (or Fashion-MNIST, or CIFAR-10), not ResNet-50 "
        "on ImageNet; the paper preset has ResNet-18 with group norm for the paper's ResNet-164 on CIFAR-10.",
        "Masks take 150 steps with 3 random images each, not 2,000 with 10; the loss is -log of the mean probability, "
        "without the second softmax of the official code.",
        "The greedy map, which spells any label, is our own.",
        "Intervals are over test images within each network; three networks are too few to be resampled.",
    ),
)
