"""Can a weaker, smaller language model speed up and improve the training of a larger one?

Source: Rawat et al. (2024), A Little Help Goes a Long Way: Efficient LLM Training by Leveraging Small LMs, arXiv
2410.18779
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mesocosm import lab, tasks, training
from mesocosm.settings import setting
from mesocosm.studies.salt.cells import (
    Arm,
    arms,
    heads,
    known_laws,
    lessons,
    limited_stream,
    make_cell,
    make_model,
    make_reader,
)
from mesocosm.studies.salt.claims import CLAIMS
from mesocosm.studies.salt.evaluation import (
    divergence_and_gain,
    held_out,
    label_noise,
    losses_of,
    score,
    track_chain,
    track_text,
)
from mesocosm.studies.salt.figures import figures

if TYPE_CHECKING:
    from torch import nn

    from mesocosm.lab.lab import Lab
    from mesocosm.training import Population

NOISE_WEIGHTS = (1 / 3, 2 / 3)
"""Weights of soft labels at which the gradient's noise is measured."""


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study."""

    seeds: int = setting(8, "seeds of every arm on limited text and on the chain", low=1, high=10_000)
    abundant_seeds: int = setting(3, "how many of these seeds get the arms on abundant text, too", low=1, high=10_000)
    text: str | None = setting(None, "file to read; none reads the help pages that come with Python")
    length: int = setting(64, "bytes predicted in a passage", low=2, high=65536)
    limited_share: float = setting(0.12, "share of the text's training passages in the limited regime", low=0, high=1)
    architecture: Literal["ngram", "transformer"] = setting("ngram", "a network on the last bytes, or a decoder")
    context: int = setting(8, "bytes that the ngram network sees", low=1, high=4096)
    d_embed: int = setting(12, "numbers a byte is embedded in by the ngram network", low=1, high=4096)
    width: int = setting(256, "width of the student", low=2, high=65536)
    layers: int = setting(2, "hidden layers, or blocks of the decoder, of the student", low=1, high=1000)
    teacher_width: int = setting(48, "width of the teacher", low=2, high=65536)
    teacher_layers: int = setting(2, "hidden layers, or blocks, of the teacher", low=1, high=1000)
    weak_width: int = setting(16, "width of the weak teacher", low=2, high=65536)
    weak_layers: int = setting(2, "hidden layers, or blocks, of the weak teacher", low=1, high=1000)
    steps: int = setting(1000, "training steps of a student", low=1, high=10_000_000)
    teacher_steps: int = setting(2500, "training steps of a teacher", low=1, high=10_000_000)
    batch_size: int = setting(2, "passages a step", low=1, high=65536)
    learning_rate: float = setting(8e-3, "learning rate, falling along half a cosine", low=0, high=1)
    final_rate: float = setting(0.05, "share of the learning rate left at the end", low=0, high=1)
    weight_decay: float = setting(0.01, "decoupled weight decay", low=0, high=10)
    warmup: int = setting(50, "steps over which the learning rate rises", low=0, high=100_000)
    taught_steps: int = setting(400, "steps with soft labels: a multiple of every", low=1, high=10_000_000)
    transition: Literal["step", "linear", "linear-ratio"] = setting("step", "how the weight of soft labels ends")
    transition_steps: int = setting(100, "steps of a linear transition", low=0, high=10_000_000)
    weights: tuple[float, ...] = setting((2 / 3,), "weight of soft labels; further ones add arms", low=0, high=1)
    temperatures: tuple[float, ...] = setting((1.0,), "the teacher's; further ones add arms", low=0, high=100)
    top_k: int = setting(10, "ranks within which a byte counts as learnable", low=1, high=256)
    selected_share: float = setting(0.3, "share of the candidate passages that is selected", low=0.01, high=1)
    early_share: float = setting(0.25, "share of its training after which a teacher scores passages", low=0, high=1)
    every: int = setting(100, "steps between measurements", low=1, high=1_000_000)
    passages: int = setting(128, "held-out passages that are measured", low=1, high=100_000)
    chain_steps: int = setting(600, "training steps on the chain with known laws", low=1, high=1_000_000)
    chain_width: int = setting(128, "width of its students", low=1, high=4096)
    chain_teacher_width: int = setting(24, "width of its teacher", low=1, high=4096)
    chain_batch_size: int = setting(4, "strings of the chain a step", low=1, high=4096)
    label_draws: int = setting(2000, "draws of a string's labels whose gradients are compared", low=2, high=1_000_000)

    def check(self) -> None:
        if self.taught_steps > self.steps or self.taught_steps % self.every:
            raise ValueError(
                f"taught_steps={self.taught_steps} is not legal: it must be a multiple of every={self.every}, at most "
                f"steps={self.steps}"
            )
        for name in ("weights", "temperatures"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)} is not legal: a value stands twice")
        if self.transition == "linear-ratio" and 1.0 in self.weights:
            raise ValueError(f"weights={self.weights} is not legal: it must be below 1 for transition='linear-ratio'")
        for name in ("width", "teacher_width", "weak_width"):
            width = getattr(self, name)
            if self.architecture == "transformer" and (width % 2 or width % heads(width) or width // heads(width) % 2):
                raise ValueError(
                    f"{name}={width} is not legal: a decoder has an even width, from 128 on a multiple of 64"
                )


PRESETS = {
    "smoke": Config(
        seeds=2, length=16, width=24, teacher_width=12, weak_width=4, d_embed=4, steps=40, teacher_steps=60, warmup=5,
        taught_steps=20, every=10, passages=16, chain_steps=30, chain_width=16, chain_teacher_width=8, label_draws=100,
        learning_rate=2e-3, temperatures=(1.0, 0.5),
    ),
    "small": Config(),
    "paper": Config(
        seeds=3,
        length=512,
        architecture="transformer",
        width=960,
        layers=32,
        teacher_width=576,
        teacher_layers=30,
        weak_width=256,
        weak_layers=8,
        steps=20_000,
        teacher_steps=20_000,
        batch_size=32,
        learning_rate=1e-3,
        warmup=1000,
        taught_steps=4000,
        transition_steps=2000,
        weights=(2 / 3, 1 / 3, 1.0),
        temperatures=(1.0, 0.5, 2.0),
        every=1000,
        passages=512,
        chain_steps=4000,
        label_draws=20_000,
    ),
}  # fmt: skip


def plan(config: Config) -> Iterable[lab.Cell]:
    """Teachers and then students, with stand-ins for teachers; `run` puts the trained ones and their losses in."""
    text, chain = sources(config)
    limited = limited_stream(config, text)
    strong = partial(make_model, config, config.teacher_width, config.teacher_layers)
    weak = partial(make_model, config, config.weak_width, config.weak_layers)
    early = max(1, round(config.early_share * config.teacher_steps))

    def on_text(name: str, model: Any, whole: int, every: int, **changes: Any) -> lab.Cell:
        stream = limited if name.startswith("limited/") else None
        measure = partial(track_text, text, config.passages, None)
        sizes: dict[str, Any] = {"steps": whole, "batch_size": config.batch_size, "every": every} | changes
        return make_cell(config, name, text, model, whole, stream=stream, measure=measure, **sizes)

    def on_chain(name: str, width: int, **changes: Any) -> lab.Cell:
        steps, measure = config.chain_steps, partial(track_chain, chain, config.passages)
        sizes: dict[str, Any] = {"steps": steps, "batch_size": config.chain_batch_size, "every": max(1, steps // 10)}
        return make_cell(config, name, chain, partial(make_reader, width), steps, measure=measure, **sizes, **changes)

    teaching, learning = (config.teacher_steps, max(1, config.teacher_steps // 10)), (config.steps, config.every)
    yield on_text("limited/teacher", strong, *teaching)
    yield on_text("limited/weak teacher", weak, *teaching)
    yield on_text("abundant/teacher", strong, *teaching)
    yield on_text("abundant/early teacher", strong, *teaching, steps=early)
    yield on_chain("chain/teacher", config.chain_teacher_width)
    teachers: dict[str, nn.Module] = {
        "limited/teacher": training.stand_in(partial(strong, text)),
        "limited/weak teacher": training.stand_in(partial(weak, text)),
        "abundant/teacher": training.stand_in(partial(strong, text)),
        "chain/teacher": training.stand_in(partial(make_reader, config.chain_teacher_width, chain)),
        **known_laws(text, chain),
    }
    for name, arm in arms(config).items():
        if name.startswith("chain/"):
            cell = on_chain(name, config.chain_width, swappable=True, complete=False)
        else:
            student = partial(make_model, config, config.width, config.layers)
            cell = on_text(name, student, *learning, swappable=True, complete=False)
        stream = cell.stream or training.Online(cell.task, cell.batch_size, cell.seeds)
        yield lessons(config, cell, arm, stream, teachers[arm.teacher]) if arm.teacher else cell


def sources(config: Config) -> "tuple[tasks.TextBytes, tasks.EasyHardMarkov]":
    """Text, and a chain of known laws."""
    return tasks.TextBytes(path=config.text, length=config.length), tasks.EasyHardMarkov(length=config.length)


def run(config: Config, lab: "Lab") -> None:
    text, chain = sources(config)
    trained: dict[str, Any] = {name: law.to(lab.device) for name, law in known_laws(text, chain).items()}
    for cell in plan(config):
        if arm := arms(config).get(cell.name):
            cell = taught(config, lab, cell, arm, trained)
        population = lab.train(cell).population
        if not arm or cell.name.startswith("chain/"):
            trained[cell.name] = population
    teacher, salt, baseline = (trained[f"chain/{name}"] for name in ("teacher", "salt", "baseline"))
    compare = partial(divergence_and_gain, chain, config.passages, teacher, salt, baseline)
    for name, parts in lab.remember("chain/divergence", compare).items():
        for i in range(parts.shape[1]):
            lab.record("chain/divergence", {name: parts[:, i]}, seed=range(config.seeds), part=i)
    noise = partial(label_noise, chain, config.label_draws, NOISE_WEIGHTS, range(config.seeds), teacher)
    for name, table in lab.remember("label noise", noise).items():
        for i, weight in enumerate(NOISE_WEIGHTS):
            lab.record("label noise", {name: table[:, i]}, seed=range(config.seeds), weight=weight)


def taught(config: Config, lab: "Lab", cell: lab.Cell, arm: Arm, trained: Mapping[str, Any]) -> lab.Cell:
    """A student's cell with its arm's soft labels and passages, measured by what its regime's teacher finds hard."""
    regime, label = cell.settings["regime"], {"weight": arm.weight, "temperature": arm.temperature}
    cell = dataclasses.replace(cell, settings={**cell.settings, **label})
    if regime != "chain":
        batch = held_out(cell.task, config.passages, lab.device)
        losses = partial(losses_of, inputs=batch.inputs, targets=batch.targets, replicas=len(cell.seeds))
        measure = partial(track_text, cell.task, config.passages, losses(trained[f"{regime}/teacher"]))
        cell = dataclasses.replace(cell, measure=measure)
        if arm.teacher:
            mean = losses(trained[arm.teacher]).flatten(1).mean(1)
            lab.record(cell.name, {"teacher loss": mean}, seed=cell.seeds, **cell.settings)
    if not arm.teacher:
        return cell
    stream: Any = cell.stream.stream
    if arm.selected:
        stream = begun(arm.until, select(config, lab, cell, trained["abundant/early teacher"]), stream)
    return lessons(config, cell, arm, stream, trained[arm.teacher])


def begun(until: int, first: Any, then: Any) -> Any:
    """The stream `first` for so many steps, and then another."""
    return lambda step, index, device: (first if step < until else then)(step, index, device)


def select(config: Config, lab: "Lab", cell: lab.Cell, scorer: "Population") -> Any:
    """A stream of the passages that each seed's early teacher finds challenging, yet learnable."""
    import torch

    text: Any = cell.task
    whole = text.whole()
    wanted = config.taught_steps * config.batch_size
    count = min(math.ceil(wanted / config.selected_share), len(whole.inputs))
    places = torch.arange(count) * len(whole.inputs) // count
    candidates = whole._make(field[places] for field in whole)
    scores = lab.remember("abundant/scores", partial(score, candidates, config.top_k, scorer))["scores"]
    best = scores.topk(max(round(config.selected_share * count), config.batch_size), dim=1)
    lab.record("abundant/scores", {"score": scores[0]}, seed=[cell.seeds[0]] * count, passage=range(count))
    lab.record("abundant/scores", {"least selected": best.values[:, -1]}, seed=cell.seeds)
    return training.Epochs(candidates, config.batch_size, cell.seeds, best.indices)


STUDY = lab.Study(
    title="Small models that help to train large ones",
    paper="A. S. Rawat, V. Sadhanala, A. Rostamizadeh, A. Chakrabarti, W. Jitkrittum, V. Feinberg, S. Kim, H. "
    "Harutyunyan, N. Saunshi, Z. Nado, R. Shivanna, S. J. Reddi, A. K. Menon, R. Anil, S. Kumar. A Little Help Goes a "
    "Long Way: Efficient LLM Training by Leveraging Small LMs. 2024. arXiv 2410.18779",
    question="Can a weaker, smaller language model speed up and improve the training of a larger one, by soft labels "
    "early on, without dragging it down to its own level?",
    presets=PRESETS,
    plan=plan,
    run=run,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "The small preset trains networks on the last 8 bytes of English text in place of transformers of billions of "
        "parameters on the Pile; loss in nats per byte stands for few-shot accuracy.",
        "Text is read byte by byte in all presets, from a file of your own with --text. Subword tokens and corpora "
        "from a hub belong to pretrained language models, not to this study.",
        "The paper's objective UL2 and its optimiser Adafactor are replaced by next-byte prediction and AdamW, with "
        "gradients clipped at norm 1.",
        "SALT's soft labels last for 40 % of the steps in the small preset and 20 % in the paper preset; the paper's "
        "for 17 %.",
        "Claims C1 to C4 are judged where text is limited and read several times; the regime of abundant text is "
        "shown beside it.",
        "The teacher's temperature is 1 here; weight, step transition and k = 10 are the paper's, as far as recalled.",
        "Selected passages of stage one (SALT_DS) are shown, not judged: the paper finds no clear gain over SALT.",
    ),
)
