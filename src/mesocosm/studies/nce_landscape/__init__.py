"""Is noise-contrastive estimation with noise far from the data hard for statistics, or for optimisation?

The population's loss is exponentially flat between noise and data, so that gradient descent takes exponentially many
steps. An exponential loss (eNCE) with normalised gradient descent takes polynomially many.

Source: Liu, Rosenfeld, Ravikumar & Risteski (2022), Analyzing and Improving the Optimization Landscape of
Noise-Contrastive Estimation, ICLR, arXiv 2110.11271
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mesocosm import lab, tasks, training
from mesocosm.settings import setting
from mesocosm.studies.nce_landscape import cells, population
from mesocosm.studies.nce_landscape.claims import CLAIMS
from mesocosm.studies.nce_landscape.figures import figures
from mesocosm.studies.nce_landscape.rules import SHARES

if TYPE_CHECKING:
    from mesocosm.lab.lab import Lab

SIDES = {"digits": 8, "fashion-mnist": 28}


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study; distances are between the means of data and noise, in standard deviations."""

    seeds: int = setting(10, "seeds of the sampled Gaussians", low=1, high=1000)
    image_seeds: int = setting(5, "how many of these seeds learn images", low=1, high=1000)
    identities: tuple[float, ...] = setting(
        (1, 2, 4, 8), "distances at which identities are checked; beyond 8 rounding is too large", low=0.1, high=8
    )
    landscapes: tuple[float, ...] = setting(
        (2, 4, 5, 6, 7, 8, 10, 12), "distances at which the segment is looked at; 4 and more count", low=0.1, high=16
    )
    shifts: tuple[float, ...] = setting((0, 3, 6, 9, 12), "by how much both means move in the control", low=0, high=20)
    descents: tuple[float, ...] = setting((2, 3, 4, 5, 6), "distances at which steps are counted", low=0.1, high=12)
    cap: int = setting(20_000, "steps after which such a descent ends", low=1, high=10_000_000)
    points: int = setting(401, "nodes of the quadrature in such a descent", low=101, high=100_000)
    gd_rates: tuple[float, ...] = setting((0.1, 1, 4), "learning rates of gradient descent", low=1e-6, high=1000)
    ngd_rates: tuple[float, ...] = setting((0.1, 0.03, 0.01), "lengths of normalised steps", low=1e-6, high=10)
    d: int = setting(16, "dimensions of the sampled Gaussians", low=1, high=10_000)
    distance: float = setting(6.0, "their distance", low=0.1, high=20)
    near: float = setting(1.0, "their distance in the control", low=0.1, high=20)
    samples: int = setting(1024, "samples a step of each side", low=1, high=1_000_000)
    steps: int = setting(1000, "steps on samples", low=1, high=10_000_000)
    source: Literal["digits", "fashion-mnist"] = setting("digits", "images, not judged")
    folder: str | None = setting(None, "folder of the images' files; none looks in the usual places")
    side: int = setting(8, "side of the images in pixels after pooling", low=1, high=28)
    hidden: tuple[int, ...] = setting((64, 64), "widths of the network on images", low=1, high=4096)
    image_samples: int = setting(256, "images a step, and as much noise", low=1, high=100_000)
    image_steps: int = setting(400, "steps on images", low=1, high=10_000_000)

    def check(self) -> None:
        for name in ("identities", "landscapes", "shifts", "descents", "gd_rates", "ngd_rates"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}={values} is not legal: its values must differ")
        if self.near >= self.distance:
            raise ValueError(f"near={self.near} is not legal: it must be below distance={self.distance}")
        if SIDES[self.source] % self.side:
            legal = f"it must divide {SIDES[self.source]}, the side of {self.source}"
            raise ValueError(f"side={self.side} is not legal: {legal}")


PRESETS = {
    "smoke": Config(
        seeds=3, image_seeds=2, identities=(1, 4), landscapes=(4, 8), shifts=(0, 6), descents=(1, 2, 3), cap=100,
        points=101, samples=64, steps=40, image_samples=32, image_steps=20, hidden=(16,),
    ),
    "small": Config(),
    "paper": Config(
        landscapes=(2, 4, 5, 6, 7, 8, 10, 12, 14, 16), descents=(2, 3, 4, 5, 6, 7), cap=1_000_000, points=1001,
        gd_rates=(0.1, 0.3, 1, 2, 4), samples=4096, steps=20_000, hidden=(256, 256, 256), image_samples=512,
        image_steps=20_000,
    ),
}  # fmt: skip


def plan(config: Config) -> Iterator[lab.Cell]:
    """Gaussians at two distances and images, each by four methods, at all rates of a method together."""
    rates = {"GD": config.gd_rates, "NGD": config.ngd_rates}
    for distance in (config.distance, config.near):
        task = tasks.GaussianPair(d=config.d, distance=distance)
        yield from cells.gaussians(
            task, seeds=range(config.seeds), rates=rates, batch_size=2 * config.samples, steps=config.steps
        )
    yield from cells.images(
        tasks.ImageContrast(source=config.source, folder=config.folder, size=config.side),
        config.hidden,
        seeds=range(min(config.image_seeds, config.seeds)),
        rates=rates,
        batch_size=2 * config.image_samples,
        steps=config.image_steps,
    )


def run(config: Config, lab: "Lab") -> None:
    objectives = {"NCE": training.nce, "eNCE": training.ence}
    for distance in config.identities:
        found = lab.remember(f"identities/{distance:g}", partial(population.identities, objectives, distance))
        lab.record("identities", found, seed=0, distance=distance)
    for loss, objective in objectives.items():
        look = partial(look_along, lab, loss, objective)
        for distance in config.landscapes:
            look("landscape", tasks.GaussianPair(distance=distance))
        for shift in config.shifts:
            look("moved together", tasks.GaussianPair(distance=1, shift=shift))
        for rule, rates in (("GD", config.gd_rates), ("NGD", config.ngd_rates)):
            count = partial(
                population.descents, objective, rule == "NGD", config.descents, rates, config.cap, config.points
            )
            found = lab.remember(f"descent/{rule} {loss}", count)
            runs: Any = zip(*itertools.product(config.descents, rates))
            places: Any = dict(zip(("distance", "rate"), map(list, runs)), method=f"{rule} {loss}")
            lab.record("descent", found, seed=[0] * len(places["rate"]), **places)
    for cell in plan(config):
        lab.train(cell)


def look_along(lab: "Lab", loss: str, objective: Any, cell: str, task: Any) -> None:
    """Record loss and gradient on the segment from noise to data."""
    name = f"{cell}/{loss}/distance={task.distance:g}/shift={task.shift:g}"
    found = lab.remember(name, partial(population.profiles, objective, task))
    places: Any = {"loss": loss, "distance": task.distance, "shift": task.shift}
    lab.record(cell, found, seed=[0] * len(SHARES), share=list(SHARES), **places)


STUDY = lab.Study(
    title="The landscape of noise-contrastive estimation",
    paper="B. Liu, E. Rosenfeld, P. Ravikumar, A. Risteski. Analyzing and Improving the Optimization Landscape of "
    "Noise-Contrastive Estimation. ICLR 2022. arXiv 2110.11271",
    question="Where noise is far from data, is it statistics or optimisation that makes noise-contrastive estimation "
    "fail, and do an exponential loss and normalised steps repair it?",
    presets=PRESETS,
    plan=plan,
    run=run,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "Images are digits of 8 by 8 pixels (or Fashion-MNIST) and the network is fully connected; the paper has MNIST "
        "and a residual network. Images are shown and not judged.",
        "Learning rates come from one fixed grid for all distances, and each method has its best.",
        "Gaussians in 16 dimensions are at distance 6: at 4, gradient descent on NCE arrives within the budget.",
        "Steps in one dimension are counted with a quadrature of 401 nodes, landscapes have 6,001.",
        "The interval of a slope over distances spans what is found when any one of them is left out: five distances "
        "are too few to be resampled.",
    ),
)
