"""Do models that solve the same simple language equally well look alike inside?

Source: Wen et al. (2023), Transformers are uninterpretable with myopic methods: a case study with bounded Dyck
grammars, arXiv 2312.01429
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mesocosm import lab, measures, models, tasks, training
from mesocosm.settings import setting
from mesocosm.studies.dyck_uninterpretability.claims import CLAIMS
from mesocosm.studies.dyck_uninterpretability.evaluation import LAST, by_name, construct, evaluate, probe_attention
from mesocosm.studies.dyck_uninterpretability.figures import figures

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mesocosm.lab.lab import Lab
    from mesocosm.tasks.dyck import BoundedDyck

SINGLE = ("violation", "permuted violation", "late change", "distance to the stack")
PAIRED = ("agreement", "variation", "initial variation")
"""Measurements of single replicas, and of pairs of them."""
BUILT_LENGTH, BUILT_STRINGS = 64, 200
"""Strings that the constructed attention reads."""


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study."""

    seeds: int = setting(32, "seeds of the plain model", low=1, high=200)
    treated_seeds: int = setting(12, "how many of these seeds are also trained with insertions", low=1, high=200)
    other_seeds: int = setting(8, "how many start at each other scale or with one initialization", low=1, high=200)
    transformer_seeds: int = setting(4, "seeds of the standard two-layer transformer", low=1, high=200)
    length: int = setting(28, "brackets in a training string, N", low=4, high=1000)
    n_types: int = setting(2, "types of brackets", low=2, high=4)
    max_depth: int = setting(4, "most brackets open at once", low=2, high=8)
    p_open: float = setting(0.5, "probability of an opening bracket where both are possible", low=0.1, high=0.9)
    d_model: int = setting(32, "width", low=1, high=4096)
    d_mlp: int = setting(64, "hidden units of the MLP", low=1, high=16_384)
    embedding_std: float = setting(1.0, "initial standard deviation of embeddings", low=1e-3, high=10)
    other_stds: tuple[float, ...] = setting((0.5, 0.3), "other initial standard deviations", low=1e-3, high=10)
    steps: int = setting(1000, "training steps", low=1, high=1_000_000)
    learning_rate: float = setting(3e-3, "learning rate, falling to 0", low=0, high=1)
    warmup: int = setting(50, "steps over which the learning rate rises", low=0, high=10_000)
    batch_size: int = setting(32, "strings a step", low=1, high=4096)
    penalty: float = setting(0.1, "weight of the inconsistency in the loss", low=0, high=100)
    most_pairs: int = setting(8, "most pairs of brackets in an inserted word", low=1, high=1000)
    transformer_steps: int = setting(1000, "training steps of the standard transformer", low=1, high=1_000_000)
    draws: int = setting(20, "random draws of the constructed attention", low=2, high=200)
    strings: int = setting(2000, "strings on which accuracy is measured", low=100, high=10**7)

    def check(self) -> None:
        if self.length % 4:
            raise ValueError(f"length={self.length} is not legal: it must be a multiple of 4")
        if self.warmup > min(self.steps, self.transformer_steps):
            raise ValueError(f"warmup={self.warmup} is not legal: it must be at most steps and transformer_steps")
        if len({self.embedding_std, *self.other_stds}) <= len(self.other_stds):
            raise ValueError(f"other_stds={self.other_stds} is not legal: it must differ from embedding_std, each once")


PRESETS = {
    "smoke": Config(
        seeds=4,
        treated_seeds=2,
        other_seeds=2,
        transformer_seeds=2,
        length=8,
        max_depth=2,
        d_model=16,
        d_mlp=32,
        steps=20,
        warmup=5,
        transformer_steps=20,
        most_pairs=2,
        draws=4,
        strings=100,
    ),
    "small": Config(),
    "paper": Config(
        seeds=40,
        treated_seeds=40,
        other_seeds=40,
        transformer_seeds=40,
        d_model=50,
        d_mlp=200,
        steps=10_000,
        transformer_steps=10_000,
        strings=20_000,
    ),
}


def task_of(config: Config, **changes: Any) -> "BoundedDyck":
    sizes = {name: getattr(config, name) for name in ("length", "n_types", "max_depth", "p_open")}
    return tasks.BoundedDyck(**sizes | changes)


def plan(config: Config) -> Iterable[lab.Cell]:
    """The plain model from three initial scales and from one initialization, with insertions, and a transformer."""
    plain = task_of(config)
    inserting = partial(tasks.DyckInsertions, **vars(plain), most_pairs=config.most_pairs)

    def cell(
        name: str, seeds: int, steps: int = config.steps, std: float = config.embedding_std, **changes: Any
    ) -> lab.Cell:
        sizes = {"d_model": config.d_model, "d_mlp": config.d_mlp, "embedding_std": std}
        return lab.Cell(
            name=name,
            steps=steps,
            batch_size=config.batch_size,
            optimiser=training.AdamW(config.learning_rate, weight_decay=1e-4),
            schedule=training.linear(steps, config.warmup),
            seeds=range(seeds),
            every=fifth(steps),
            **{
                "task": plain,
                "model": partial(models.BracketAttention.for_task, **sizes),
                "objective": training.cross_entropy,
                **changes,
            },
        )

    attention = partial(probe_attention, plain)
    yield cell("plain", config.seeds, measure=attention)
    others = min(config.other_seeds, config.seeds)
    for std in config.other_stds:
        yield cell(f"initial scale {std:g}", others, std=std, measure=attention, swappable=False)
    yield cell("one initialization", others, init=[0] * others, measure=attention)
    turn = (config.steps - 1) // fifth(config.steps) * fifth(config.steps)
    yield cell(
        "late branch", others, stream=turning_stream(plain, config.batch_size, range(others), turn), measure=attention
    )
    treated = min(config.treated_seeds, config.seeds)
    consistent = training.consistency_penalty(training.cross_entropy, config.penalty)
    yield cell("complete insertions", treated, task=inserting(), objective=consistent)
    yield cell("lone insertions", treated, task=inserting(inserted="lone bracket"), objective=consistent)
    untold = replace(plain, levels=False)
    yield cell(
        "transformer",
        config.transformer_seeds,
        config.transformer_steps,
        task=untold,
        model=partial(make_transformer, config),
        measure=partial(probe_attention, untold),
        swappable=False,
    )


def fifth(steps: int) -> int:
    return -(-steps // 5)


def turning_stream(task: "BoundedDyck", batch_size: int, seeds: Sequence[int], turn: int) -> Any:
    """Batches of each seed as always before step `turn`, and others from there on."""
    usual = training.Online(task, batch_size, list(seeds))
    other = training.Online(task, batch_size, [f"{seed}/late branch" for seed in seeds])
    return lambda step, index, device: (usual if step < turn else other)(step, index, device)


def make_transformer(config: Config, task: "BoundedDyck") -> "nn.Module":
    sizes = {"d_model": 2 * config.d_model, "d_mlp": 2 * config.d_mlp, "n_heads": 1, "n_layers": 2}
    return models.Transformer.for_task(task, **sizes, positions="none", embedding_std=0.3)


def run(config: Config, lab: "Lab") -> None:
    for cell in plan(config):
        history = lab.train(cell)
        longest = task_of(config, length=3 * config.length, levels=cell.name != "transformer")
        find = partial(evaluate, longest, config.length, config.strings, history)
        found = lab.remember(f"{cell.name}/evaluation", find)
        record = partial(lab.record, cell.name, seed=list(cell.seeds), step=cell.steps)
        for length in lengths(config.length):
            last = slice(max(0, length - LAST), length)
            record({"accuracy": found["right"][:, last].sum(1) / found["asked"][last].sum()}, length=length)
        record({name: found[name] for name in SINGLE if name in found})
        for name in PAIRED:
            if name in found:
                record_pairs(lab, cell.name, cell.seeds, cell.steps, name, found[name])
        if cell.name == "plain" and "maps" in found:
            plain = found["maps"]
        if cell.name == "late branch" and "maps" in found:
            apart = (found["maps"] - plain[: len(cell.seeds)]).square().sum((1, 2))
            record({"distance to plain": apart})
    task = task_of(config, length=BUILT_LENGTH)
    built = lab.remember("construction", partial(construct, task, config.draws, BUILT_STRINGS))
    draws = range(config.draws)
    lab.record("construction", {"one-hot variation": measures.one_hot_variation(built["maps"].shape[1])}, seed=0)
    lab.record("construction", {name: built[name] for name in ("right answers", "unbalanced")}, seed=list(draws))
    record_pairs(lab, "construction", draws, 0, "variation", measures.pairwise_variation(built["maps"]))
    lab.record("construction", by_name(built["maps"]), seed=list(draws))


def lengths(length: int) -> list[int]:
    """Where accuracy is recorded: from 1 to 3 times the training length."""
    return [length * quarters // 4 for quarters in range(4, 13)]


def record_pairs(lab: "Lab", cell: str, seeds: Sequence[int], step: int, name: str, pairs: "Tensor") -> None:
    """Record `[R, R]` of all pairs of seeds, each once."""
    for i, seed in enumerate(seeds[:-1]):
        others = list(seeds[i + 1 :])
        lab.record(cell, {name: pairs[i, i + 1 :]}, seed=[seed] * len(others), step=step, other=others)


STUDY = lab.Study(
    title="Uninterpretability of attention on bounded Dyck grammars",
    paper="K. Wen, Y. Li, B. Liu, A. Risteski. Transformers are uninterpretable with myopic methods: a case study with "
    "bounded Dyck grammars. NeurIPS 2023. arXiv 2312.01429",
    question="Do models that solve the same simple language equally well look alike inside, and what in them tells "
    "whether they will solve longer strings?",
    presets=PRESETS,
    plan=plan,
    run=run,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "No code of the authors was found; sizes and rates are those with which the small models learn in a minute.",
        "The two-layer transformer with a minimal first layer is one attention layer on embeddings of type and level.",
        "Attention is normalized after the sum by its root mean square, without a learned gain.",
        "Variation is the squared Frobenius distance of two maps on a string of 16 brackets, not divided by its rows.",
        "The contrast is between log-probabilities with and without an inserted word, at a random place rather than in "
        "front of the string.",
        "C4's control asks a lone bracket for less gain and no less violation, not for no gain: to ignore it is right "
        "for queries at other depths.",
    ),
)
