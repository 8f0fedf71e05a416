"""Do larger networks memorise more, of which examples, and do cheap proxies and distillation follow?

Each training example has a memorisation score, followed as the network grows: how much more often networks are right
about it that trained on it.

Source: Lukasik et al. (2023), What do larger image classifiers memorise?, arXiv 2310.05337
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mesocosm import lab, models, tasks, training
from mesocosm.settings import setting
from mesocosm.studies.memorization.claims import CLAIMS
from mesocosm.studies.memorization.evaluation import TrainingData, Watch, examine, reference, softened
from mesocosm.studies.memorization.figures import figures

if TYPE_CHECKING:
    from torch import nn

    from mesocosm.lab.lab import Lab
    from mesocosm.tasks import Images
    from mesocosm.training import Population

IMAGES = {"digits": (1000, 8), "fashion-mnist": (60_000, 28), "cifar10": (50_000, 32)}
"""Training images of each source, and their side in pixels."""


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study; a width is one of hidden units (mlp) or of channels (cnn, resnet)."""

    seeds: int = setting(3, "seeds: split of the digits, choice of images, flipped labels, subsets", low=1, high=1000)
    source: Literal["digits", "fashion-mnist", "cifar10"] = setting("digits", "images")
    folder: str | None = setting(None, "folder of their files, or hub to fetch them; none looks in the usual places")
    side: int | None = setting(None, "side in pixels after pooling; none leaves the images as they are", low=1)
    train_images: int | None = setting(None, "training images; none takes all", low=10, high=60_000)
    label_noise: float = setting(0.1, "share of the training labels flipped to another class", low=0, high=0.9)
    network: Literal["mlp", "cnn", "resnet"] = setting(
        "mlp", "one hidden layer, two convolutions, or ResNet-18 with group norm"
    )
    widths: tuple[int, ...] = setting((8, 16, 32, 64, 128, 256), "widths, rising", low=1, high=65_536)
    clean_widths: tuple[int, ...] = setting((8, 32, 128), "those trained on true labels too", low=1, high=65_536)
    teacher_width: int = setting(128, "width of the teacher, one of widths", low=1, high=65_536)
    student_widths: tuple[int, ...] = setting((32, 64), "widths of its students, of widths", low=1, high=65_536)
    temperature: float = setting(3.0, "temperature of distillation", low=0.01, high=1000)
    models: int = setting(40, "networks of a width and seed, each on its own subset", low=2, high=100_000)
    share: float = setting(0.7, "share of the training images in a subset", low=0.01, high=0.99)
    steps: int = setting(1120, "training steps: 80 epochs of a subset of the digits", low=1, high=10_000_000)
    batch_size: int = setting(50, "images a step", low=1, high=10_000)
    learning_rate: float = setting(4e-3, "learning rate of Adam, falling to 0 along half a cosine", low=0, high=100)
    checkpoints: int = setting(16, "measurements along training", low=1, high=1000)

    def check(self) -> None:
        if len(self.widths) < 3 or list(self.widths) != sorted(set(self.widths)):
            raise ValueError(f"widths={self.widths} is not legal: it must be three or more, rising")
        if len(self.clean_widths) < 2 or list(self.clean_widths) != sorted(set(self.clean_widths)):
            raise ValueError(f"clean_widths={self.clean_widths} is not legal: it must be two or more, rising")
        for name in ("clean_widths", "student_widths"):
            values = getattr(self, name)
            if not set(values) <= set(self.widths) or len(set(values)) < len(values):
                raise ValueError(f"{name}={values} is not legal: each must be one of widths={self.widths}, once")
        if self.teacher_width not in self.widths:
            raise ValueError(f"teacher_width={self.teacher_width} is not legal: it must be one of {self.widths}")
        if self.network == "cnn" and self.side and self.side < 4:
            raise ValueError(f"side={self.side} is not legal: for network=cnn it must be at least 4")
        if self.network == "resnet" and any(width % 8 for width in self.widths):
            raise ValueError(f"widths={self.widths} is not legal: for network=resnet each must be a multiple of 8")
        most, side = IMAGES[self.source]
        if self.side and side % self.side:
            raise ValueError(f"side={self.side} is not legal: it must divide {side}, the side of {self.source}")
        if self.train_images and self.train_images > most:
            raise ValueError(f"train_images={self.train_images} is not legal: {self.source} has {most}")
        subset = round(self.share * (self.train_images or most))
        if self.batch_size > subset:
            raise ValueError(f"batch_size={self.batch_size} is not legal: a subset has {subset} images")

    def images(self, seed: int, label_noise: float | None = None) -> "Images":
        """A seed's task; its `label_noise` includes labels that are replaced by themselves."""
        flipped = self.label_noise if label_noise is None else label_noise
        return tasks.Images(
            source=self.source,
            folder=self.folder,
            size=self.side,
            count=self.train_images,
            label_noise=min(1.0, flipped * 10 / 9),
            draw=seed,
        )


PRESETS = {
    "smoke": Config(
        seeds=2, train_images=200, widths=(4, 16, 32), clean_widths=(4, 32), teacher_width=32, student_widths=(16,),
        models=24, steps=60, batch_size=20, checkpoints=4,
    ),
    "small": Config(),
    "paper": Config(
        seeds=1, source="cifar10", network="resnet", widths=(8, 16, 32, 64), clean_widths=(8, 16, 64), teacher_width=64,
        student_widths=(8, 16), models=400, steps=43_750, batch_size=128, learning_rate=1e-3,
    ),
}  # fmt: skip


def plan(config: Config) -> Iterable[lab.Cell]:
    """For each seed networks of every width, some on true labels too, and students of one, with a stand-in for it."""
    for seed in range(config.seeds):
        networks, students = cells_of(config, seed)
        yield from networks
        teacher = next(cell for cell in networks if cell.settings["width"] == config.teacher_width)
        stand_in = training.stand_in(partial(teacher.model, teacher.task))
        yield from (taught(config, cell, stand_in) for cell in students)


def cells_of(config: Config, seed: int) -> tuple[list[lab.Cell], list[lab.Cell]]:
    """Networks that learn from labels, and students that are yet to be taught."""
    noisy, clean = (
        TrainingData(config.images(seed, noise), seed, config.models, config.share, config.batch_size)
        for noise in (None, 0.0)
    )
    cell = partial(make_cell, config)
    networks = [cell("networks", width, noisy, width == config.widths[-1]) for width in config.widths]
    networks += [cell("true labels", width, clean, width == config.widths[-1]) for width in config.clean_widths]
    students = [cell(arm, width, noisy) for width in config.student_widths for arm in ("distilled", "argmax")]
    return networks, students


def make_cell(config: Config, arm: str, width: int, data: TrainingData, swappable: bool = False) -> lab.Cell:
    return lab.Cell(
        name=f"{arm}/width={width}/seed={data.seed}",
        task=data.task,
        model=partial(make_network, config.network, width),
        seeds=[data.seed] * config.models,
        init=data.keys,
        stream=data,
        objective=training.cross_entropy,
        optimiser=training.AdamW(config.learning_rate),
        schedule=training.cosine(config.steps),
        steps=config.steps,
        batch_size=config.batch_size,
        settings={"arm": arm, "width": width, "model": list(range(config.models))},
        every=max(1, config.steps // config.checkpoints),
        swappable=swappable,
        complete=False,
    )


def make_network(network: str, width: int, task: Any) -> "nn.Module":
    if network == "resnet":
        return models.ResNet.for_task(task, width=width)
    if network == "cnn":
        return models.CNN.for_task(task, channels=width)
    return models.MLP.for_task(task, hidden=(width,))


def taught(config: Config, cell: lab.Cell, teacher: "Population | nn.Module") -> lab.Cell:
    """A student's cell with the answers of its teacher, of which network m teaches student m on their common subset."""
    soft = cell.settings["arm"] == "distilled"
    return dataclasses.replace(
        cell,
        stream=training.Taught(cell.stream, [teacher], temperature=config.temperature if soft else 0),
        objective=partial(softened, config.temperature) if soft else training.distil,
    )


def check(config: Config) -> None:
    config.images(0).train()


def run(config: Config, lab: "Lab") -> None:
    for seed in range(config.seeds):
        found = lab.remember(f"reference/seed={seed}", partial(reference, config.images(seed), seed))
        lab.record("reference", found, seed=[seed] * len(found["exact"]), example=list(range(len(found["exact"]))))
        networks, students = cells_of(config, seed)
        for cell in networks:
            population = learn(lab, cell)
            if cell.settings["arm"] == "networks" and cell.settings["width"] == config.teacher_width:
                teacher = population
        for cell in students:
            history = lab.train(taught(config, cell, teacher))
            compute = partial(examine, cell.stream, history)
            record(lab, cell, lab.remember(f"{cell.name}/scores", compute))


def learn(lab: "Lab", cell: lab.Cell) -> "Population":
    """Train networks on labels, and record what they say of every training example."""
    path = lab.checkpoint(f"{cell.name}/answers")
    watch = Watch(cell.stream, path and path.with_suffix(""))
    history = lab.train(dataclasses.replace(cell, measure=watch))
    record(lab, cell, lab.remember(f"{cell.name}/scores", partial(examine, cell.stream, history, watch)))
    watch.forget()
    return history.population


def record(lab: "Lab", cell: lab.Cell, found: dict[str, Any]) -> None:
    """Record the scores of examples, and accuracies, under the name of the arm."""
    train, seed = cell.stream.task.train(), cell.seeds[0]
    examples = {name: values for name, values in found.items() if values.dim()}
    flipped = (train.targets != train.clean).long().tolist()
    arm, width = cell.settings["arm"], cell.settings["width"]
    places = {"example": list(range(len(flipped))), "flipped": flipped}
    lab.record(arm, examples, seed=[seed] * len(flipped), width=width, **places)
    overall = {name: values.item() for name, values in found.items() if name not in examples}
    lab.record(arm, overall, seed=seed, width=width)


STUDY = lab.Study(
    title="What larger image classifiers memorise",
    paper="M. Lukasik, V. Nagarajan, A. S. Rawat, A. K. Menon, S. Kumar. What do larger image classifiers memorise? "
    "2023. arXiv 2310.05337",
    question="Which training examples do networks memorise more, and which less, as they grow; do cheap measures of "
    "difficulty follow, and what does distillation change?",
    presets=PRESETS,
    plan=plan,
    run=run,
    check=check,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "The small preset has 1,000 handwritten digits and networks of one hidden layer that grow in width; the paper "
        "has CIFAR-100 and Tiny-ImageNet and residual networks that grow in depth.",
        "A tenth of the training labels is flipped, so that it is known what can only be memorised; the paper has "
        "natural labels.",
        "Scores come from 40 networks a width, the paper's from 400.",
        "The classes of trajectories have thresholds of our own.",
        "The paper preset has CIFAR-10, ResNet-18 with group norm at four widths, and Adam.",
    ),
)
