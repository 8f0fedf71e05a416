"""The trainings: students by how they are taught, the networks, and the passages they read."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mesocosm import lab, models, training

if TYPE_CHECKING:
    from torch import nn

    from mesocosm.studies.salt import Config
    from mesocosm.tasks.base import Task


def heads(width: int) -> int:
    """Attention heads of a decoder."""
    return max(1, width // 64)


@dataclass(frozen=True)
class Arm:
    """How a student is taught: by whom, for how many steps, with what weight and at what temperature."""

    teacher: str | None = None
    until: int = 0
    weight: float = 0.0
    temperature: float = 1.0
    selected: bool = False


def arms(config: "Config") -> dict[str, Arm]:
    """The students of all regimes by the names of their cells."""
    weight, temperature = config.weights[0], config.temperatures[0]
    salt = partial(Arm, until=config.taught_steps, weight=weight, temperature=temperature)
    found = {}
    for regime in ("limited", "abundant"):
        found[f"{regime}/baseline"] = Arm()
        found[f"{regime}/salt"] = salt(f"{regime}/teacher")
        found[f"{regime}/rkd"] = salt(f"{regime}/teacher", until=config.steps)
    found["limited/salt weak"] = salt("limited/weak teacher")
    found["limited/salt frequencies"] = salt("frequencies")
    for w in config.weights:
        for t in config.temperatures:
            if (w, t) != (weight, temperature):
                name = f"limited/salt weight={w:.3g} temperature={t:g}"
                found[name] = salt("limited/teacher", weight=w, temperature=t)
    found["abundant/salt selected"] = salt("abundant/teacher", selected=True)
    chain_until = round(config.chain_steps * config.taught_steps / config.steps)
    found["chain/baseline"] = Arm()
    for teacher, ending in (("chain/teacher", ""), ("true laws", " true laws")):
        found[f"chain/salt{ending}"] = salt(teacher, until=chain_until, temperature=1.0)
        found[f"chain/rkd{ending}"] = salt(teacher, until=config.chain_steps, temperature=1.0)
    return found


def make_cell(config: "Config", name: str, task: "Task", model: Any, whole: int, **changes: Any) -> lab.Cell:
    """A training on labels alone, whose learning rate falls over `whole` steps."""
    regime, _, arm = name.partition("/")
    return lab.Cell(
        name=name,
        task=task,
        model=model,
        seeds=range(min(config.seeds, config.abundant_seeds) if regime == "abundant" else config.seeds),
        objective=training.cross_entropy,
        optimiser=training.AdamW(config.learning_rate, weight_decay=config.weight_decay),
        schedule=training.cosine(whole, config.warmup, config.final_rate),
        clip=1.0,
        settings={"regime": regime, "arm": arm, "taught_steps": config.taught_steps},
        **{"swappable": False} | changes,
    )


def make_model(config: "Config", width: int, layers: int, task: "Task") -> "nn.Module":
    if config.architecture == "ngram":
        sizes = {"context": config.context, "d_embed": config.d_embed}
        return models.NgramMLP.for_task(task, hidden=(width,) * layers, **sizes)
    return models.Transformer.for_task(
        task,
        d_model=width,
        n_layers=layers,
        n_heads=heads(width),
        d_mlp=8 * width // 3,
        activation="swiglu",
        positions="rotary",
        bias=False,
        tied=True,
        weight_std=0.02,
    )


def make_reader(width: int, task: "Task") -> "nn.Module":
    """What sees the two symbols on which the chain's next one depends."""
    return models.NgramMLP.for_task(task, context=2, d_embed=12, hidden=(width, width))


def limited_stream(config: "Config", text: Any) -> Any:
    """Passes over a few passages, others for every seed, the same for all that is trained in the limited regime."""
    import torch

    from mesocosm.seeding import generator

    whole, seeds = text.whole(), range(config.seeds)
    count = max(1, round(config.limited_share * len(whole.inputs)))
    chosen = [torch.randperm(len(whole.inputs), generator=generator(seed, "limited"))[:count] for seed in seeds]
    return training.Epochs(whole, config.batch_size, seeds, torch.stack(chosen))


def lessons(config: "Config", cell: lab.Cell, arm: Arm, stream: Any, teacher: Any) -> lab.Cell:
    """A student's cell with the soft labels of a teacher."""
    over = 0 if config.transition == "step" else config.transition_steps
    weight = training.two_stages(arm.weight, arm.until, over, config.transition == "linear-ratio")
    stream = training.Taught(stream, [teacher], temperature=arm.temperature, weight=weight)
    return dataclasses.replace(cell, stream=stream, objective=training.distil)


def known_laws(text: Any, chain: Any) -> "dict[str, nn.Module]":
    """The teachers that need no training."""
    laws = {"frequencies": text.frequencies[None].clamp_min(1e-6), "true laws": chain.chain.laws}
    return {name: models.NgramTable(table) for name, table in laws.items()}
