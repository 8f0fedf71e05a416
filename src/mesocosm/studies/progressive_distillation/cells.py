"""The trainings of each task: the teachers and all that learn from the same data, not yet taught."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mesocosm import lab, models, tasks, training
from mesocosm.studies.progressive_distillation import evaluation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mesocosm.studies.progressive_distillation import Config

Part = Literal["parity", "hierarchy", "grammar", "text"]
PARITIES = ("parity", "hierarchy")
SOLVED = 0.99
"""Accuracy at which a student of a parity has nothing more to learn."""
WAYS = {
    "parity": ("labels", "one-shot", "progressive", "two-shot", "two-shot early", "two-shot late", "wide progressive"),
    "hierarchy": ("labels", "one-shot", "progressive", "wide progressive"),
    "grammar": ("labels", "one-shot", "progressive"),
    "text": ("labels", "one-shot", "progressive"),
}


def cells_of(config: "Config", part: Part) -> list[lab.Cell]:
    """The teachers of a task and all that learn from the same data, not yet taught."""
    return parity_cells(config, part) if part in PARITIES else token_cells(config, part)


def parity_cells(config: "Config", part: Part) -> list[lab.Cell]:
    """The teachers, and then the students."""
    if part == "parity":
        sizes = {"n": config.n, "k": config.k, "n_classes": 2}
        steps, seeds, width = config.steps, config.seeds, config.student_width
    else:
        sizes = {"n": config.n, "k": config.node_bits, "n_classes": config.n_classes}
        steps, seeds, width = config.tree_steps, config.tree_seeds, config.tree_student_width
    task = tasks.HierarchicalParity(**sizes)
    wide, narrow = partial(make_mlp, config.teacher_width), partial(make_mlp, width)
    schedule = training.cosine(steps, steps * 6 // 100) if config.cosine else None
    common: Any = {
        "task": task,
        "objective": training.cross_entropy,
        "optimiser": training.SGD(config.learning_rate),
        "steps": steps,
        "batch_size": config.batch_size,
        "measure": partial(evaluation.track, config, task),
        "every": max(1, steps // config.checkpoints),
    }
    student: Any = common | {"schedule": schedule, "stop": solved}
    cells = [make_cell(part, "teacher", wide, config.teachers, swappable=False, **common)]
    for way in WAYS[part]:
        if way.startswith("wide"):
            cells.append(make_cell(part, way, wide, config.teachers, swappable=False, **student))
        else:
            cells.append(make_cell(part, way, narrow, seeds, **student))
    return cells


def token_cells(config: "Config", part: Part) -> list[lab.Cell]:
    """The teacher, one of its kind on shuffled strings, and then the students."""
    if part == "grammar":
        task: Any = tasks.ProbabilisticGrammar(levels=config.levels, form="masked")
    else:
        task = tasks.MaskedText(path=config.text, length=config.length)
        task.chance  # noqa: B018 - reads the text now, so that a bad path is refused before anything is trained
    large, small = (partial(make_transformer, config, heads) for heads in (config.teacher_heads, config.student_heads))
    steps = config.token_steps

    def cell(arm: str, model: Any, seeds: int, task: Any = task, steps: int = steps, **changes: Any) -> lab.Cell:
        held_out = replace(task, split="valid") if part == "text" else task
        return make_cell(
            part,
            arm,
            model,
            seeds,
            task=task,
            objective=training.cross_entropy,
            optimiser=training.AdamW(config.token_learning_rate, betas=(0.9, 0.95)),
            schedule=training.cosine(steps, steps * 6 // 100),
            clip=1.0,
            steps=steps,
            batch_size=config.token_batch_size,
            measure=partial(evaluation.track, config, held_out),
            every=max(1, (1 if arm == "teacher" else 2) * steps // config.checkpoints),
            swappable=False,
            **changes,
        )

    stream = training.Shared(training.Online(task, config.token_batch_size, ["students"]))
    students = [cell(way, small, config.token_seeds, stream=stream) for way in WAYS[part]]
    shuffled = cell("shuffled", large, 1, replace(task, shuffled=True), max(1, steps // 2))
    return [cell("teacher", large, 1), shuffled, *students]


def make_cell(part: Part, arm: str, model: Any, seeds: int, **cell: Any) -> lab.Cell:
    settings = {"part": part, "arm": arm}
    return lab.Cell(name=f"{part}/{arm}", model=model, seeds=range(seeds), settings=settings, **cell)


def make_mlp(width: int, task: Any) -> "nn.Module":
    return models.MLP.for_task(task, hidden=(width,))


def make_transformer(config: "Config", heads: int, task: Any) -> "nn.Module":
    sizes = {"d_model": heads * config.d_head, "n_heads": heads, "n_layers": config.n_layers}
    about: Any = {"positions": config.positions, "embedding_std": 0.3, "causal": False}
    return models.Transformer.for_task(task, **sizes, **about)


def solved(values: "dict[str, Tensor]") -> "Tensor":
    return values["accuracy"] >= SOLVED
