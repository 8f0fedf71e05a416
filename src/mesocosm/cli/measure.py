"""`mesocosm measure memorization`: how far models get a user's own examples right only by having trained on them."""

import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mesocosm.cli.flags import parse
from mesocosm.lab.files import RunError, UserError
from mesocosm.settings import Settings, setting

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor

    from mesocosm.lab.study import Cell
    from mesocosm.tasks.own_examples import OwnBatch, OwnExamples
    from mesocosm.training import Population

console = Console(highlight=False)

LEAST = 5
"""Models that must have seen an example, and as many that must not, for it to have a score."""

CHECKPOINTS = 10
"""Looks at the models along training, for the confidence; EL2N is taken at the first."""

SIZES: dict[str, dict[str, int]] = {"cnn": {"channels": 16}}
"""Of architectures whose own sizes fit small data badly."""

FITTED = 0.95
"""Accuracy on their own training examples below which models have learned too little to memorise."""


@dataclass(frozen=True, kw_only=True)
class MemorizationOptions(Settings):
    """What to measure, how to train, and where to write."""

    data: str | None = setting(None, "your examples: a table (.csv, .tsv, .parquet) or a folder with a folder a class")
    label: str = setting("label", "column of a table that holds the label")
    side: int | None = setting(None, "side of pictures in pixels (default: of the smallest one, at most 32)", low=4)
    model: str | None = setting(
        None, "an architecture of `mesocosm list`, or your package.module:Name (default: cnn for pictures, else mlp)"
    )
    trainings: int = setting(40, "models to train", low=2 * LEAST, high=100_000)
    share: float = setting(0.7, "share of the examples that each model trains on", low=0.01, high=0.99)
    steps: int = setting(1500, "updates of each model; enough to fit its examples", low=1)
    learning_rate: float = setting(0.005, "of AdamW; it falls to 0 along half a cosine", low=0)
    batch_size: int = setting(64, "examples a step; all where there are fewer", low=1)
    seed: int = setting(0, "of the subsets and the initial weights", low=0)
    device: Literal["cpu", "cuda"] = setting("cpu", "where to compute")
    to: str | None = setting(
        None, "folder to write, which must be new or empty (default: memorization-NAME of the data)"
    )


def measure(what: str, settings: list[str]) -> int:
    summary = (
        "How much more often are models right about an example that they trained on? Many models train on random "
        "subsets of your examples. Near 1: it is memorised (atypical, ambiguous or mislabelled). Near 0: the other "
        "examples tell its label. Writes scores.csv, pictures and report.html."
    )
    (options,) = parse(f"mesocosm measure {what}", summary, settings, MemorizationOptions())

    from mesocosm.tasks.own_examples import OwnExamples

    examples = OwnExamples(data=options.data, label=options.label, side=options.side)
    try:
        batch = examples.all()
    except (ImportError, OSError, ValueError) as error:
        raise UserError(error) from error
    folder = _folder(options, examples)
    included = _subsets(options, len(batch.targets))
    watch = _Watch(batch, options.trainings, options.steps)
    cell = _cell(options, examples, included, watch)
    start = f"{examples.origin}; {options.trainings} models, each trained on {int(included[0].sum())} of them"
    console.print(escape(start), soft_wrap=True)
    alive = _train(cell, options.device)
    table = _scores(examples, watch, included, alive)
    warnings = _warnings(table, options.trainings - len(alive))
    _print(table, warnings)

    from mesocosm.report.memorization import write_memorization

    command = f"mesocosm measure {what} {shlex.join(settings)}"
    page = write_memorization(folder, examples, table, warnings, command)
    console.print(f"page: {escape(str(page))}", soft_wrap=True)
    return 0


def _folder(options: MemorizationOptions, examples: "OwnExamples") -> Path:
    data = Path(examples.data or "").resolve()
    folder = Path(options.to or f"memorization-{data.name if data.is_dir() else data.stem}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--to {folder} is not an empty folder; choose another")
    return folder


def _subsets(options: MemorizationOptions, count: int) -> "Tensor":
    """Which model trains on which example, `[K, N]` bool."""
    from mesocosm.measures import random_subsets
    from mesocosm.seeding import generator

    try:
        included = random_subsets(options.trainings, count, generator(options.seed, "subsets"), options.share)
    except ValueError as error:
        raise UserError(error) from error
    seen = included.sum(0)
    scored = (seen >= LEAST) & (options.trainings - seen >= LEAST)
    if scored.double().mean() < 0.5:
        raise UserError(
            f"--trainings {options.trainings} --share {options.share:g} leave most examples without a score, which "
            f"needs {LEAST} models that trained on the example and {LEAST} that did not: take more trainings"
        )
    return included


def _cell(options: MemorizationOptions, examples: "OwnExamples", included: "Tensor", watch: "_Watch") -> "Cell":
    """The training of all K models; that the architecture fits the examples is checked before it starts."""

    from mesocosm.lab.runner import check_architecture, check_device
    from mesocosm.lab.study import Cell
    from mesocosm.training import AdamW, Epochs, cosine, cross_entropy, members

    check_device(options.device)
    name = options.model or ("cnn" if len(examples.input_shape) == 3 else "mlp")
    batch_size = min(options.batch_size, int(included[0].sum()))
    seeds = [f"{options.seed} {k}" for k in range(options.trainings)]
    cell = Cell(
        name="training",
        task=examples,
        model=_architecture(name),
        seeds=range(options.trainings),
        init=seeds,
        objective=cross_entropy,
        optimiser=AdamW(options.learning_rate),
        schedule=cosine(options.steps),
        steps=options.steps,
        batch_size=batch_size,
        stream=Epochs(examples.all(), batch_size, seeds, members(included)),
        measure=watch,
        every=watch.every,
    )
    check_architecture(name, cell.model, [cell])
    return cell


def _architecture(name: str) -> Callable[[Any], Any]:
    from mesocosm.lab.runner import load_architecture
    from mesocosm.pieces import pieces

    known = pieces("model")
    if name in known:
        architecture = load_architecture(f"{known[name].module}:{known[name].attribute}")
        return partial(architecture, **SIZES.get(name, {}))
    if ":" not in name:
        raise UserError(f"--model {name} is not legal: it is no model of `mesocosm list`, and no package.module:Name")
    return load_architecture(name)


class _Watch:
    """What K models say of all N examples along training."""

    def __init__(self, batch: "OwnBatch", models: int, steps: int) -> None:
        import torch

        self.batch, self.every = batch, math.ceil(steps / CHECKPOINTS)
        self.looks = math.ceil(steps / self.every)
        shape = models, len(batch.targets)
        self.el2n, self.confidence = torch.zeros(shape), torch.zeros(shape)
        self.predicted = torch.zeros(shape, dtype=torch.int64)

    def __call__(self, population: "Population", step: int) -> dict[str, "Tensor"]:
        """Look at the models after `step` steps; gives the accuracy of each on all examples, `[R]`."""

        from mesocosm.measures import cumulative_confidence, el2n

        if step == 0:
            return {}
        labels, rows = self.batch.targets, population.index
        probabilities = population.outputs(self.batch.inputs).softmax(-1)  # [R, N, C]
        if step == self.every:
            self.el2n[rows] = el2n(probabilities, labels)
        self.confidence[rows] += cumulative_confidence(probabilities[:, None], labels) / self.looks
        self.predicted[rows] = probabilities.argmax(-1)
        return {"accuracy": (self.predicted[rows] == labels).double().mean(1)}


def _train(cell: "Cell", device: str) -> list[int]:
    """Train the models; gives those that did not diverge."""
    from mesocosm.lab.lab import Lab
    from mesocosm.lab.progress import Progress

    with Progress("memorization", {cell.name: 1.0}, console) as progress:
        history = Lab(None, device=device, progress=progress).train(cell)
    alive = [k for k in range(len(cell.seeds)) if k not in history.diverged]
    if len(alive) < 2 * LEAST:
        raise RunError(f"{len(history.diverged)} of {len(cell.seeds)} trainings diverged: lower --learning-rate")
    return alive


def _scores(examples: "OwnExamples", watch: _Watch, included: "Tensor", alive: list[int]) -> "DataFrame":
    """A row an example, in the order of the data."""
    import pandas
    import torch

    from mesocosm.measures import feldman_memorisation

    batch, seen, predicted = watch.batch, included[alive], watch.predicted[alive]
    found = feldman_memorisation(predicted == batch.targets, seen, LEAST)
    votes = torch.stack([((predicted == c) & ~seen).sum(0) for c in range(len(examples.classes))])  # [C, N]
    return pandas.DataFrame(
        {
            "example": examples.names,
            "label": [examples.classes[target] for target in batch.targets.tolist()],
            "score": found.score.numpy(),
            "standard_error": found.standard_error.numpy(),
            "accuracy_in": found.inside.numpy(),
            "accuracy_out": found.outside.numpy(),
            "predicted_out": [examples.classes[most] for most in votes.argmax(0).tolist()],
            "el2n": feldman_memorisation(watch.el2n[alive], seen, LEAST).inside.numpy(),
            "confidence": feldman_memorisation(watch.confidence[alive], seen, LEAST).inside.numpy(),
        }
    )


def _warnings(table: "DataFrame", diverged: int) -> list[str]:
    """What a reader of the scores must know."""
    found = []
    if table["accuracy_in"].mean() < FITTED:
        found.append(
            f"The models are right about only {table['accuracy_in'].mean():.0%} of the examples that they trained on, "
            "so the scores say little: train longer (--steps), or take a larger model (--model)."
        )
    if missing := int(table["score"].isna().sum()):
        found.append(
            f"{missing} of {len(table)} examples have no score: fewer than {LEAST} models saw them, or fewer than "
            f"{LEAST} did not; more --trainings give them one."
        )
    if diverged:
        found.append(f"{diverged} trainings diverged and are left out; a lower --learning-rate may help.")
    return found


def _print(table: "DataFrame", warnings: list[str]) -> None:
    from mesocosm.report.memorization import ranked, score, summary

    shown = Table("example", "label", "score", "predicted by models\nthat did not see it", "EL2N", "confidence")
    for row in ranked(table).head(10).to_dict("records"):
        words = row["example"], row["label"], score(row), row["predicted_out"]
        shown.add_row(*map(escape, words), f"{row['el2n']:.2f}", f"{row['confidence']:.2f}")
    console.print(shown)
    console.print(summary(table), *(f"[yellow]{escape(w)}[/]" for w in warnings), sep="\n", soft_wrap=True)
