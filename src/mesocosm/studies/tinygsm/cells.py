"""The trainings: generators on a teacher's programs, and verifiers on candidates whose answers are known."""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import functional_call

from mesocosm import lab, models, training
from mesocosm.studies.tinygsm.problems import PROGRAM, Problems, Verification
from mesocosm.studies.tinygsm.written import Judged, Pretrained, Texts, Written
from mesocosm.tasks.word_problems import WordProblemBatch

if TYPE_CHECKING:
    from mesocosm.studies.tinygsm import Config

JUDGED = ("shuffled", "all right", "head only", "from scratch")
REPORTED = ("one checkpoint", "last token")
"""Verifiers that differ from the first in one thing, and the claims judge those or report these."""
ONE_FAMILY = 2
"""The family of the generators that see no other: chains would also teach what " more" means in comparisons."""


def head_only(head: Collection[str], model: Any, batch: Any) -> Tensor:
    """The verifier's loss, whose gradient reaches the parameters of these names alone."""
    rest = {name: weights.detach() for name, weights in model.named_parameters() if name not in head}
    return training.outcome_loss(partial(functional_call, model, rest), batch)


def at_programs(objective: Any, places: int, model: Any, batch: Any) -> Tensor:
    """`objective` at the last places of a row, before which no weight is: a transformer computes no other outputs."""
    if not isinstance(model, models.Transformer):
        return objective(model, batch)
    targets, weights = (field[:, -places:] for field in (batch.targets, batch.weights))
    return objective(partial(model, last=places), batch._replace(targets=targets, weights=weights))


def objective_of(config: "Config", objective: Any) -> Any:
    """What a cell learns by; of the transformer that stands for a pretrained model in a plan, all outputs count."""
    return partial(at_programs, objective, PROGRAM) if config.language_model is None else objective


def task_of(config: "Config", judge: bool = False, **changes: Any) -> Any:
    """What generators learn, or verifiers; with a pretrained model, what stands for its files in a plan."""
    if config.language_model is not None:
        return Judged() if judge else Written()
    return (Verification if judge else Problems)(**{"errors": config.errors, **changes})


def independent(config: "Config") -> dict[str, Any]:
    """Errors as frequent as the teacher's, but on every family alike."""
    return {"errors": (1 - task_of(config).teacher_accuracy(),) * 3}


def all_cells(config: "Config") -> Iterator[lab.Cell]:
    few, templates = range(config.few), config.language_model is None
    yield generators(config, "generator", range(config.seeds))
    if templates:
        yield generators(config, "generator, independent errors", few, **independent(config))
    sizes = [(size, "all") for size in config.examples] + [(config.examples[-1], "one")] * templates
    data = generators(
        config,
        "data",
        [*few] * len(sizes),
        steps=config.examples_steps,
        settings={
            "examples": [size for size, _ in sizes for _ in few],
            "families": [families for _, families in sizes for _ in few],
        },
    )
    yield dataclasses.replace(data, stream=UniqueExamples(config, data), complete=templates)
    yield verifiers(config, "verifier", range(config.seeds))
    if templates:
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
        objective=objective_of(config, training.cross_entropy),
        optimiser=training.AdamW(config.learning_rate, weight_decay=0.01, betas=(0.9, 0.98)),
        schedule=training.cosine(steps, warmup=config.warmup, floor=0.05),
        clip=1.0,
        steps=steps,
        batch_size=config.batch_size,
        accumulate=parts(config, config.batch_size),
        settings=settings or {},
        every=-(-steps // 4),
        swappable=width is None and config.language_model is None,
        complete=False,
    )


def verifiers(config: "Config", name: str, seeds: Sequence[int], width: int | None = None) -> lab.Cell:
    """Verifiers as they are planned, on the teacher's programs; `run` puts the generators' candidates in."""
    return lab.Cell(
        name=name,
        task=task_of(config, judge=True),
        model=partial(make_model, config, width or config.d_model),
        seeds=list(seeds),
        objective=objective_of(config, training.outcome_loss),
        optimiser=training.AdamW(config.verifier_learning_rate, weight_decay=0.01, betas=(0.9, 0.98)),
        schedule=training.linear(config.verifier_steps, warmup=config.verifier_warmup),
        clip=1.0,
        steps=config.verifier_steps,
        batch_size=config.verifier_batch_size,
        accumulate=parts(config, config.verifier_batch_size),
        every=max(1, config.verifier_steps // 4),
        swappable=width is None and config.language_model is None,
        complete=False,
    )


def parts(config: "Config", batch_size: int) -> int:
    """Parts in which a batch is read."""
    return -(-batch_size // (config.micro_batch_size or batch_size))


def make_model(config: "Config", width: int, task: Any) -> models.Transformer:
    """A network with random weights; with a pretrained model, one of its sizes, which stands for it in a plan."""
    planned = config.language_model is not None
    return models.Transformer.for_task(
        task,
        d_model=width,
        n_layers=config.layers,
        n_heads=width // 64 if planned else config.heads,
        d_mlp=8 * width // 3,
        positions="rotary",
        activation="swiglu",
        bias=False,
        tied=planned and task.output_shape[-1] > 1,
        embedding_std=0.02,
    )


def with_files(config: "Config", cell: lab.Cell, texts: Texts) -> lab.Cell:
    """A planned cell with the problems of the files and with a pretrained model, the large one or the small one."""
    planned: Any = cell.model
    small = planned.args[1] == config.d_small
    name = config.small_language_model if small else config.language_model
    task: Any = cell.task
    model = partial(Pretrained, name or "")
    cell = dataclasses.replace(cell, task=dataclasses.replace(task, texts=texts), model=model)
    return dataclasses.replace(cell, stream=UniqueExamples(config, cell)) if cell.stream else cell


@dataclass(frozen=True)
class UniqueExamples:
    """The stream of the cell "data": passes over so many examples, the smaller sets within the larger; drawn late."""

    config: "Config"
    cell: lab.Cell

    @cached_property
    def epochs(self) -> training.Epochs:
        config, cell, largest = self.config, self.cell, self.config.examples[-1]
        drawn: list[Any] = [cell.task]
        if "one" in cell.settings["families"]:
            drawn.append(task_of(config, families=(ONE_FAMILY,)))
        samples = [task.draw(largest, seed, "examples") for task in drawn for seed in range(config.few)]
        data = WordProblemBatch(*map(torch.cat, zip(*samples)))
        rows = []
        for seed, size, families in zip(cell.seeds, cell.settings["examples"], cell.settings["families"]):
            first = largest * (seed + config.few * (families == "one"))
            # All sets are of one length, the smaller ones repeated.
            rows.append(first + torch.arange(largest) % size)
        return training.Epochs(data, cell.batch_size, cell.seeds, torch.stack(rows))

    def __call__(self, step: int, index: Sequence[int], device: torch.device) -> Any:
        """The batch `[R, B, ...]` of this step for the replicas at `index`."""
        return self.epochs(step, index, device)
