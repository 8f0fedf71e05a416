"""The trainings: generators on a teacher's programs, and verifiers on candidates whose answers are known."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mesocosm import lab, models, training
from mesocosm.seeding import generator
from mesocosm.studies.tinygsm.problems import Problems, Verification
from mesocosm.tasks.word_problems import WordProblemBatch

if TYPE_CHECKING:
    from mesocosm.studies.tinygsm import Config
    from mesocosm.training.population import Layout

JUDGED = ("shuffled", "all right", "head only", "from scratch")
REPORTED = ("one checkpoint", "last token")
"""Verifiers that differ from the first in one thing, and the claims judge those or report these."""
ONE_FAMILY = 2
"""The family of the generators that see no other: chains would also teach what " more" means in comparisons."""


@dataclass(frozen=True)
class Only:
    """Another optimiser that sees the gradient of the parameters of these names alone."""

    optimiser: Any
    names: Collection[str]

    def columns(self, replicas: int, device: torch.device) -> dict[str, Tensor]:
        return self.optimiser.columns(replicas, device)

    def init(self, theta: Tensor) -> dict[str, Tensor]:
        return self.optimiser.init(theta)

    def update(
        self, theta: Tensor, gradient: Tensor, state: Any, columns: dict[str, Tensor], t: Tensor, layout: "Layout"
    ) -> None:
        alone = torch.zeros_like(gradient)
        for name, view in layout.views(gradient).items():
            if name in self.names:
                layout.views(alone)[name].copy_(view)
        self.optimiser.update(theta, alone, state, columns, t, layout)


def task_of(config: "Config", kind: type[Problems] = Problems, **changes: Any) -> Problems:
    return kind(**{"errors": config.errors, **changes})


def independent(config: "Config") -> dict[str, Any]:
    """Errors as frequent as the teacher's, but on every family alike."""
    return {"errors": (1 - task_of(config).teacher_accuracy(),) * 3}


def all_cells(config: "Config") -> Iterator[lab.Cell]:
    few = range(config.few)
    yield generators(config, "generator", range(config.seeds))
    yield generators(config, "generator, independent errors", few, **independent(config))
    sizes = [size for size in (*config.examples, config.examples[-1]) for _ in few]
    families = ["all"] * len(config.examples) * len(few) + ["one"] * len(few)
    yield generators(
        config,
        "data",
        [*few] * (len(config.examples) + 1),
        steps=config.examples_steps,
        settings={"examples": sizes, "families": families},
    )
    yield verifiers(config, "verifier", range(config.seeds))
    yield verifiers(config, "verifier, independent errors", few)
    for variant in variants(config):
        yield verifiers(config, f"verifier, {variant}", few)
    if not config.reported:
        return
    yield generators(config, "generator, small", few, width=config.d_small)
    yield verifiers(config, "verifier, small", few, width=config.d_small)
    yield verifiers(config, "verifier, small of large", few, width=config.d_small)
    yield verifiers(config, "verifier, large of small", few)


def variants(config: "Config") -> tuple[str, ...]:
    return JUDGED + REPORTED if config.reported else JUDGED


def generators(
    config: "Config",
    name: str,
    seeds: Sequence[int],
    width: int | None = None,
    steps: int | None = None,
    settings: Any = None,
    **changes: Any,
) -> lab.Cell:
    """Language models that imitate the teacher; checkpoints are taken at every quarter."""
    steps = steps or config.steps
    return lab.Cell(
        name=name,
        task=task_of(config, **changes),
        model=partial(make_model, config, width or config.d_model),
        seeds=list(seeds),
        objective=training.cross_entropy,
        optimiser=training.AdamW(config.learning_rate, weight_decay=0.01, betas=(0.9, 0.98)),
        schedule=training.cosine(steps, warmup=config.warmup, floor=0.05),
        clip=1.0,
        steps=steps,
        batch_size=config.batch_size,
        settings=settings or {},
        every=-(-steps // 4),
        swappable=width is None,
        complete=False,
    )


def verifiers(config: "Config", name: str, seeds: Sequence[int], width: int | None = None) -> lab.Cell:
    """Verifiers as they are planned, on the teacher's programs; `run` puts the generators' candidates in."""
    return lab.Cell(
        name=name,
        task=task_of(config, Verification),
        model=partial(make_model, config, width or config.d_model),
        seeds=list(seeds),
        objective=training.outcome_loss,
        optimiser=training.AdamW(config.verifier_learning_rate, weight_decay=0.01, betas=(0.9, 0.98)),
        schedule=training.linear(config.verifier_steps, warmup=config.verifier_warmup),
        clip=1.0,
        steps=config.verifier_steps,
        batch_size=config.verifier_batch_size,
        every=max(1, config.verifier_steps // 4),
        swappable=width is None,
        complete=False,
    )


def make_model(config: "Config", width: int, task: Problems) -> models.Transformer:
    return models.Transformer.for_task(
        task,
        d_model=width,
        n_layers=config.layers,
        n_heads=config.heads,
        d_mlp=8 * width // 3,
        positions="rotary",
        activation="swiglu",
        bias=False,
        embedding_std=0.02,
    )


def unique_examples(config: "Config", cell: lab.Cell) -> training.Epochs:
    """The stream of the cell "data": passes over so many examples, the smaller sets within the larger."""
    largest = config.examples[-1]
    every, one = (
        [task_of(config, families=families).sample(largest, generator(seed, "examples")) for seed in range(config.few)]
        for families in (Problems.families, (ONE_FAMILY,))
    )
    samples = [*every, *one]
    data = WordProblemBatch(*map(torch.cat, zip(*samples)))
    rows = []
    for seed, size, families in zip(cell.seeds, cell.settings["examples"], cell.settings["families"]):
        first = largest * (seed + config.few * (families == "one"))
        # All sets are of one length, the smaller ones repeated.
        rows.append(first + torch.arange(largest) % size)
    return training.Epochs(data, cell.batch_size, cell.seeds, torch.stack(rows))
