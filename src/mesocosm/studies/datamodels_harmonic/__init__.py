"""What does a linear datamodel of a trained model's output learn, how good is it, and when do influences add up?

Harmonic analysis over the subsets of the training set answers exactly where a model is trained on every subset.

Source: Saunshi, Gupta, Braverman & Arora (2023), Understanding Influence Functions and Datamodels via Harmonic
Analysis, ICLR, arXiv 2210.01072
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mesocosm import lab
from mesocosm.settings import setting
from mesocosm.studies.datamodels_harmonic import cells, evaluation, rules
from mesocosm.studies.datamodels_harmonic.claims import CLAIMS
from mesocosm.studies.datamodels_harmonic.figures import figures

if TYPE_CHECKING:
    from torch import Tensor

    from mesocosm.lab.lab import Lab

SHOWN = 12
"""Groups of a kind that are recorded test point by test point."""


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study: a few images, on all subsets of which networks are trained, and many, on random ones."""

    seeds: int = setting(8, "seeds: each has images and initial weights of its own", low=1, high=1000)
    source: Literal["digits", "fashion-mnist", "cifar10"] = setting("digits", "images")
    folder: str | None = setting(None, "folder of their files, or hub to fetch them; none looks in the usual places")
    classes: tuple[int, ...] = setting((3, 8), "the two classes", low=0, high=9)
    points: int = setting(12, "training images of which all subsets are trained on", low=8, high=16)
    tests: int = setting(30, "test images", low=1, high=1000)
    flipped: int = setting(3, "how many of these have the wrong label in one variant", low=1, high=16)
    copies: int = setting(4, "how many are near-copies of one of them in another variant", low=3, high=8)
    copy_noise: float = setting(0.05, "deviation between copies; pixels have a deviation of 1", low=0, high=10)
    hidden: tuple[int, ...] = setting((16,), "widths of the network", low=1, high=65_536)
    learning_rate: float = setting(0.07, "learning rate of gradient descent", low=0, high=100)
    steps: int = setting(150, "steps of gradient descent", low=1, high=1_000_000)
    rhos: tuple[float, ...] = setting((0.1, 0.3, 0.5, 0.7, 0.9), "correlations of pairs of subsets", low=0, high=0.99)
    few_pairs: int = setting(200, "pairs at each rho in the first estimate", low=2, high=10**6)
    pairs: int = setting(1000, "pairs at each rho in the second", low=3, high=10**6)
    control_pairs: int = setting(4000, "pairs at each rho for functions whose R^2 is known", low=2, high=10**7)
    many: int = setting(120, "training images of which random subsets are trained on", low=4, high=10_000)
    shares: tuple[float, ...] = setting((0.5, 0.2), "probabilities of an image to be in a subset", low=0.01, high=0.99)
    subsets: int = setting(10_000, "random subsets for regression, a fifth of them held out", low=10, high=10**7)
    learner: Literal["ridge", "resnet"] = setting("ridge", "what is trained on random subsets")
    penalty: float = setting(10.0, "penalty of ridge regression", low=1e-6, high=1e6)
    channels: int = setting(8, "channels of the first layer of ResNet-18", low=8, high=1024)

    def check(self) -> None:
        if len(self.classes) != 2 or len(set(self.classes)) < 2:
            raise ValueError(f"classes={self.classes} is not legal: it must name two different classes")
        for name, bound in (("flipped", self.points), ("copies", self.points // 2)):
            if getattr(self, name) > bound:
                raise ValueError(f"{name}={getattr(self, name)} is not legal: of points={self.points}, at most {bound}")
        if len(set(self.rhos)) < max(3, len(self.rhos)):
            raise ValueError(f"rhos={self.rhos} is not legal: it must hold three or more different values")
        if len(set(self.shares)) < len(self.shares):
            raise ValueError(f"shares={self.shares} is not legal: its values must differ")
        if self.few_pairs >= self.pairs:
            raise ValueError(f"few_pairs={self.few_pairs} is not legal: it must be below pairs={self.pairs}")
        if self.channels % 8:
            raise ValueError(f"channels={self.channels} is not legal: it must be a multiple of 8")


PRESETS = {
    "smoke": Config(
        seeds=2, points=8, tests=10, steps=20, few_pairs=10, pairs=20, control_pairs=200, many=20, subsets=60,
        shares=(0.5,),
    ),
    "small": Config(),
    "paper": Config(
        seeds=5, source="cifar10", classes=(0, 6), hidden=(64,), tests=100, steps=300, many=1000, shares=(0.5,),
        learner="resnet",
    ),
}  # fmt: skip


def plan(config: Config) -> Iterator[lab.Cell]:
    """Networks on all subsets of a few images, in three variants; networks on random subsets of many if asked."""
    for seed in range(config.seeds):
        for variant in cells.VARIANTS:
            yield cells.few(config, variant, seed)
        if config.learner == "resnet":
            for p in config.shares:
                yield from cells.many(config, p, seed)


def check(config: Config) -> None:
    for seed in range(config.seeds):
        evaluation.tests(config, seed)
        for count in (config.points, config.many):
            cells.images(config, seed, count).train()


def run(config: Config, lab: "Lab") -> None:
    for seed in range(config.seeds):
        for variant in cells.VARIANTS:
            population = lab.train(cells.few(config, variant, seed)).population
            margins = evaluation.margins_of(config, seed, population)
            record_table(config, lab, variant, seed, margins)
            if variant == "copies":
                record_groups(config, lab, seed, margins)
        for name, r2 in evaluation.control_estimates(config, seed).items():
            record_points(lab, "control", {"R2 estimate": r2}, seed=seed, output=name)
        record_many(config, lab, seed)


def record_points(lab: "Lab", cell: str, metrics: "dict[str, Tensor]", **settings: Any) -> None:
    """One number a test point."""
    for name, values in metrics.items():
        lab.record(cell, {name: values}, point=list(range(len(values))), **settings)


def record_table(config: Config, lab: "Lab", variant: str, seed: int, margins: "Tensor") -> None:
    """What the outputs on all subsets say, each kind of output by itself."""
    masks, sides = cells.all_subsets(config), cells.pairs(config, config.points, 0.5, config.pairs, seed)
    rows = [evaluation.rows_of(side) for side in sides]
    for kind, table in evaluation.kinds(margins).items():
        own: Any = {"seed": seed, "output": kind}
        lab.record(variant, evaluation.identity_errors(table, masks), **own)
        shares = evaluation.degree_shares(table)
        lab.record(variant, {"share of variance": shares}, degree=list(range(1, len(shares) + 1)), **own)
        r2 = evaluation.linear_share(table)
        record_points(lab, variant, {"R2": r2}, **own)
        for pairs, estimate in evaluation.estimates(config, *(table[row] for row in rows)).items():
            record_points(lab, variant, {"R2 estimate": estimate.where(r2.isfinite(), math.nan)}, pairs=pairs, **own)
        if variant == "clean" and r2.isfinite().any():
            shown = int(r2.isfinite().nonzero()[0])
            for name, curve in evaluation.stability(config, table[:, shown], sides).items():
                rhos = [*config.rhos, 1.0] if name == "measured stability" else [i / 20 for i in range(21)]
                lab.record(variant, {name: curve}, rho=rhos, **own)
    votes = evaluation.linear_share(evaluation.votes(config, variant, seed))
    record_points(lab, variant, {"R2": votes}, seed=seed, output="votes")


def record_groups(config: Config, lab: "Lab", seed: int, margins: "Tensor") -> None:
    """Influences of groups and the sums of those of their points, of networks and of votes."""
    import torch

    masks = cells.all_subsets(config)
    tables = {"margin": margins, "votes": evaluation.votes(config, "copies", seed)}
    for output, table in tables.items():
        lab.record("copies", evaluation.additivity(table, masks), seed=seed, output=output)
        alone = torch.stack([evaluation.contrast(table, masks, [i]) for i in range(config.points)])
        for kind, groups in evaluation.groups(config, seed).items():
            deviations = []
            for number, group in enumerate(groups):
                whole, parts = evaluation.contrast(table, masks, group), alone[list(group)].sum(0)
                deviations.append(float((whole - parts).abs().mean()))
                if number < SHOWN:
                    found = {"group influence": whole, "sum of influences": parts}
                    record_points(lab, "copies", found, seed=seed, output=output, kind=kind, group=number)
            numbers = list(range(len(groups)))
            lab.record("copies", {"group deviation": deviations}, seed=seed, output=output, kind=kind, group=numbers)


def record_many(config: Config, lab: "Lab", seed: int) -> None:
    """Random subsets of many images, and influence functions of ridge regression on all of these."""
    import torch

    influence, errors = evaluation.ridge_influences(config, seed)
    lab.record("influence", errors, seed=seed)
    for p in config.shares:
        masks = cells.sampled_subsets(config, seed, p)
        if config.learner == "ridge":
            name = f"many/p={p:g}/seed={seed}"
            found = lab.remember(name, partial(evaluation.sampled_by_ridge, config, seed, p, masks))
            both = torch.stack((influence.flatten(), found["influences"].flatten()))
            lab.record("influence", {"correlation with averages": torch.corrcoef(both)[0, 1]}, seed=seed, p=p)
        else:
            trained = (lab.train(cell).population for cell in cells.many(config, p, seed))
            margins = torch.cat([evaluation.margins_of(config, seed, population) for population in trained])
            found = evaluation.sampled(config, p, masks, margins)
        for kind in rules.OUTPUTS:
            r2 = found[f"{kind}/R2"]
            record_points(lab, "many", {"R2": r2}, seed=seed, output=kind, p=p)
            for pairs in (config.few_pairs, config.pairs):
                known = found[f"{kind}/{pairs}"].where(r2.isfinite(), math.nan)
                record_points(lab, "many", {"R2 estimate": known}, seed=seed, output=kind, p=p, pairs=pairs)


STUDY = lab.Study(
    title="Influence functions and datamodels by harmonic analysis",
    paper="N. Saunshi, A. Gupta, M. Braverman, S. Arora. Understanding Influence Functions and Datamodels via Harmonic "
    "Analysis. ICLR 2023. arXiv 2210.01072",
    question="What does the best linear predictor of a trained model's output from its training points learn, how good "
    "is it, and when do the influences of single points add up?",
    presets=PRESETS,
    plan=plan,
    run=run,
    check=check,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "Networks are trained on all 4,096 subsets of 12 images of 8x8 pixels, where the paper samples subsets of "
        "CIFAR-10: so everything that is estimated can be held against what is true.",
        "The network has one hidden layer of 16 units and two logits; a subset's loss is its sum over the number of "
        "all images.",
        "Random subsets of 120 images are learned by ridge regression, in closed form; in the paper preset it is "
        "ResNet-18 with group norm and 8 channels, on 1,000 images.",
        "Functions whose R^2 is known are judged on the mean over 30 of them with 4,000 pairs.",
    ),
)
