"""The trainings: in each sandbox the same network in different ways at equal compute, and networks of many depths."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mesocosm import lab, models, tasks, training
from mesocosm.studies.raptr.evaluation import track_gap, track_polynomial, track_text

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mesocosm.studies.raptr import Config

__all__: list[str] = []

DECAY = 0.2
"""Share of the steps, at the end, over which the learning rate falls to 0."""
MEASUREMENTS = 12
"""Along a training; stages of two, three, four or six end at one."""
GAP_KINDS = {
    "whole": {"norm": True, "residual": True},
    "no norm": {"norm": False, "residual": True},
    "no residual": {"norm": True, "residual": False},
}
"""The networks whose transition gap is measured."""
STACKING_SHARE = 0.75
"""Mean share of the layers that the stacked arm has: first a half of them, then three quarters, then all."""


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """What all arms of one setting share."""

    name: str
    task: Any
    model: Callable[..., "nn.Module"]
    """Of the task, with `n_layers`."""
    objective: Callable[..., "Tensor"]
    lengths: tuple[int, ...]
    outside: float
    """Operations of embedding and head, in those of one layer."""
    seeds: Sequence[int]
    steps: int
    batch_size: int
    rate: float
    warmup: int
    measure: Callable[..., Any]


def sandboxes(config: "Config") -> Iterable[Sandbox]:
    task = polynomial(config)
    yield Sandbox(
        name="polynomials",
        task=task,
        model=partial(models.ResidualMLP.for_task, d_model=config.d_model, d_hidden=config.d_hidden),
        objective=training.square,
        lengths=config.lengths,
        outside=(config.bits + 1) / (2 * config.d_hidden),
        seeds=range(config.seeds),
        steps=config.steps,
        batch_size=config.batch_size,
        rate=config.learning_rate,
        warmup=config.warmup,
        measure=partial(track_polynomial, task, config.points),
    )
    if config.text_seeds:
        text = partial(tasks.TextBytes, path=config.text, length=config.context)
        assert text().block_size  # Reads the file, so that a bad one is refused before anything is trained.
        yield Sandbox(
            name="text",
            task=text(),
            model=partial(models.Transformer.for_task, d_model=config.text_width, n_heads=config.text_heads),
            objective=training.cross_entropy,
            lengths=config.text_lengths,
            outside=256 / (12 * config.text_width + 2 * config.context),
            seeds=range(config.text_seeds),
            steps=config.text_steps,
            batch_size=config.text_batch,
            rate=config.text_rate,
            warmup=config.warmup,
            measure=partial(track_text, text(split="valid"), config.windows),
        )


def polynomial(config: "Config") -> "tasks.BooleanPolynomial":
    return tasks.BooleanPolynomial(n=config.bits, degree=config.degree, terms=config.terms)


def arms(config: "Config", box: Sandbox) -> Iterable[lab.Cell]:
    """Trainings of one sandbox; all but "standard" cost as many operations as RaPTr."""
    layers = box.lengths[-1]
    rising = training.stage_lengths(box.lengths, equal_stages(box.steps, len(box.lengths)))
    share = training.mean_share(rising, box.steps, layers)

    def equal_steps(mean_share: float) -> int:
        """Steps along paths of another mean length that cost the same."""
        return round(box.steps * (share * layers + box.outside) / (mean_share * layers + box.outside))

    falling = equal_steps((1 - config.full_end) * share + config.full_end)
    turn = round((1 - config.full_end) * falling)
    changes = [*equal_stages(turn, len(box.lengths)), turn]
    yield whole(box, "equal compute", equal_steps(1))
    yield along(box, "raptr", box.steps, rising)
    yield along(box, "layerdrop", box.steps, training.stage_lengths([share * layers]))
    yield along(box, "reversed", falling, training.stage_lengths([*box.lengths[::-1], layers], changes))
    if box.name == "polynomials":
        yield along(box, "no scale", box.steps, rising, scale=unscaled)
        yield along(box, "no ends", box.steps, rising, always=[])
        drawn = box.seeds[: config.drawn_seeds]
        yield whole(box, "standard", box.steps, seeds=drawn)
        yield stacked(box, "stacking", equal_steps(STACKING_SHARE), drawn)
        if config.more_arms:
            yield along(box, "progressive drop", box.steps, training.progressive_drop(box.steps, layers), seeds=drawn)


def whole(box: Sandbox, arm: str, steps: int, **changes: Any) -> lab.Cell:
    """The whole network in the usual way, but for the `changes`."""
    usual = {
        "model": partial(box.model, n_layers=box.lengths[-1]),
        "seeds": box.seeds,
        "objective": box.objective,
        "optimiser": training.AdamW(box.rate),
        "swappable": box.name == "polynomials",
    }
    return lab.Cell(
        name=arm if box.name == "polynomials" else f"{box.name} {arm}",
        task=box.task,
        steps=steps,
        batch_size=box.batch_size,
        schedule=training.trapezoid(steps, box.warmup, DECAY),
        settings={"sandbox": box.name, "arm": arm, "stages": len(box.lengths)},
        measure=box.measure,
        every=max(1, steps // MEASUREMENTS),
        **usual | changes,
    )


def along(
    box: Sandbox, arm: str, steps: int, length: Callable[[int], float], seeds: Sequence[int] = (), **paths: Any
) -> lab.Cell:
    """The whole network along random paths of mean `length`, drawn as `paths` says."""
    seeds = list(seeds or box.seeds)
    online = training.Online(box.task, box.batch_size, seeds)
    return whole(
        box,
        arm,
        steps,
        seeds=seeds,
        objective=training.along_paths(box.objective, blocks_of),
        optimiser=training.Lazy(training.AdamW(box.rate)),
        stream=training.RandomPaths(online, box.lengths[-1], length, seeds, **paths),
        swappable=False,
    )


def stacked(box: Sandbox, arm: str, steps: int, seeds: Sequence[int]) -> lab.Cell:
    """Half the layers at first; then the last quarter of the network's layers is copied on top, twice."""
    depth = box.lengths[-1] // 4
    growth = [
        training.Growth(
            change,
            partial(box.model, box.task, n_layers=(blocks + 1) * depth),
            training.layer_sources("blocks.{}.", training.copy_last(blocks, depth)),
        )
        for change, blocks in zip(equal_stages(steps, 3), (2, 3))
    ]
    model = partial(box.model, n_layers=2 * depth)
    return whole(box, arm, steps, seeds=seeds, model=model, grow=growth, swappable=False)


def gap_cells(config: "Config") -> Iterable[lab.Cell]:
    """Networks of every depth in full training, before and after which the transition gap is measured."""
    task = polynomial(config)
    for kind, options in GAP_KINDS.items():
        measure = partial(track_gap, task, config.gap_points, config.paths, options["residual"])
        for depth in config.gap_depths:
            yield lab.Cell(
                name=f"gap {kind} L={depth}",
                task=task,
                model=partial(models.ResidualMLP.for_task, n_layers=depth, d_model=config.gap_width, **options),
                seeds=range(config.gap_seeds),
                objective=training.square,
                optimiser=training.AdamW(config.learning_rate),
                schedule=training.trapezoid(config.gap_steps, config.warmup, DECAY),
                steps=config.gap_steps,
                batch_size=config.gap_batch,
                settings={"kind": kind, "depth": depth},
                measure=measure,
                every=config.gap_steps,
                swappable=False,
            )


def equal_stages(steps: int, stages: int) -> list[int]:
    return training.proportional_stages(steps, stages, power=0)


def blocks_of(model: Any) -> "nn.ModuleList":
    return model.blocks


def unscaled(kept: "Tensor") -> "Tensor":
    """Every layer of a path adds what it adds: c = 1."""
    return kept.float()
