"""Does a transformer grown by copies of its middle layers reason better than one trained at full depth?

Source: Saunshi et al. (2024), On the Inductive Bias of Stacking Towards Improving Reasoning, arXiv 2409.19044
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

from mesocosm import lab, models, tasks, training
from mesocosm.settings import setting
from mesocosm.studies.stacking_midas.claims import CLAIMS
from mesocosm.studies.stacking_midas.evaluation import evaluate, examples, similarities, similarity_when_grown, track
from mesocosm.studies.stacking_midas.figures import figures

if TYPE_CHECKING:
    from torch import nn

    from mesocosm.lab.lab import Lab
    from mesocosm.tasks.base import Task
    from mesocosm.training import Population


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study."""

    seeds: int = setting(4, "seeds of every arm", low=1, high=1000)
    looped_seeds: int = setting(2, "how many of these seeds the looped network gets", low=1, high=1000)
    stages: int = setting(4, "stages of growth k, and blocks of the whole network", low=2, high=64)
    block_layers: int = setting(1, "layers b of a block", low=1, high=16)
    power: float = setting(1.0, "alpha: stage i takes a part of all steps in proportion to i^alpha", low=0, high=5)
    d_model: int = setting(64, "width", low=1, high=8192)
    n_heads: int = setting(4, "attention heads, a divisor of d_model", low=1, high=64)
    embedding_std: float = setting(1.0, "standard deviation of initial symbol embeddings", low=1e-4, high=10)
    position_std: float = setting(0.2, "standard deviation of initial position embeddings", low=1e-4, high=10)
    shares: tuple[float, ...] = setting(
        (5.0, 2.0, 0.0, 1.0), "parts of a batch: assignments, facts, copying, filler", low=0, high=1000
    )
    depths: tuple[int, ...] = setting((0, 1, 2), "depths of assignments", low=0, high=4)
    keys: int = setting(16, "first keys, and second keys, of facts", low=1, high=1000)
    symbols: int = setting(16, "symbols of filler and copying", low=10, high=64)
    batch_size: int = setting(64, "rows a step", low=8, high=65_536)
    steps: int = setting(800, "training steps of what grows; fewer, of equal cost, of the others", low=2, high=10**7)
    learning_rate: float = setting(2e-3, "highest learning rate", low=0, high=1)
    warmup: int = setting(100, "steps over which the learning rate rises", low=0, high=100_000)
    decay: float = setting(0.15, "share of the steps, at the end, in which it falls to 0", low=0, high=1)
    weight_decay: float = setting(0.01, "decoupled weight decay", low=0, high=10)
    examples: tuple[int, ...] = setting((32, 128, 512), "examples to fine-tune on", low=1, high=100_000)
    fine_tuning_steps: int = setting(60, "steps of fine-tuning", low=1, high=10**6)
    fine_tuning_rate: float = setting(5e-4, "learning rate of fine-tuning, falling to 0", low=0, high=1)
    rows: int = setting(512, "held-out rows of each source for the verdicts", low=1, high=10**6)
    tracked_rows: int = setting(64, "held-out rows of each source along training", low=1, high=10**6)
    every: int = setting(40, "steps between measurements along training", low=1, high=10**6)
    more_arms: bool = setting(False, "grow by fresh blocks that add nothing, and train the whole for all steps, too")

    def check(self) -> None:
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads={self.n_heads} is not legal: it must divide d_model={self.d_model}")
        if len(self.shares) != 4 or 0 in (self.shares[0], self.shares[1], self.shares[3]):
            raise ValueError(
                f"shares={self.shares} is not legal: it must hold 4 numbers, all but the third (copying) above 0"
            )
        if self.n_layers % 2:
            raise ValueError(f"stages={self.stages} is not legal: there must be an even number of layers, to loop half")
        if 2 * self.warmup > self.steps:
            raise ValueError(f"warmup={self.warmup} is not legal: it must be at most half of steps={self.steps}")
        if self.steps < sum(i**self.power for i in range(1, self.stages + 1)):
            raise ValueError(f"steps={self.steps} is not legal: the first of stages={self.stages} would have no step")
        if len(set(self.examples)) < len(self.examples):
            raise ValueError(f"examples={self.examples} is not legal: the values must differ")

    @property
    def n_layers(self) -> int:
        return self.stages * self.block_layers


PRESETS = {
    "smoke": Config(
        seeds=2, d_model=16, n_heads=2, steps=40, warmup=10, every=10, batch_size=16, examples=(8, 16), rows=16,
        tracked_rows=8, fine_tuning_steps=4, more_arms=True,
    ),
    "small": Config(),
    "paper": Config(
        seeds=3,
        looped_seeds=3,
        stages=6,
        block_layers=4,
        d_model=2048,
        n_heads=32,
        embedding_std=0.02,
        position_std=0.004,
        shares=(5.0, 2.0, 1.0, 8.0),
        keys=1000,
        symbols=64,
        batch_size=1024,
        steps=400_000,
        learning_rate=1e-3,
        warmup=10_000,
        fine_tuning_steps=1000,
        fine_tuning_rate=1e-4,
        rows=4096,
        tracked_rows=512,
        every=4000,
        more_arms=True,
    ),
}  # fmt: skip


def plan(config: Config) -> Iterable[lab.Cell]:
    """The network trained at full depth, grown in three ways and looped; then two of them fine-tuned."""
    full = config.n_layers
    short = round(cost_of_growth(config) * config.steps)
    yield make_cell(config, "baseline", short, full, swappable=True)
    yield make_cell(config, "midas", config.steps, config.block_layers, grow=growths(config, training.copy_middle))
    yield make_cell(config, "gradstack", config.steps, config.block_layers, grow=growths(config, training.copy_last))
    afresh: Any = {"config": config, "rule": training.copy_middle, "fresh": True}
    yield make_cell(config, "random", config.steps, config.block_layers, grow=growths(**afresh))
    looped = replace(make_cell(config, "looped", short, full), model=partial(make_looped, config))
    yield replace(looped, seeds=range(min(config.seeds, config.looped_seeds)))
    if config.more_arms:
        yield make_cell(config, "full baseline", config.steps, full, swappable=True)
        yield make_cell(config, "silent", config.steps, config.block_layers, grow=growths(**afresh, silent=True))
    for arm in ("baseline", "midas"):
        yield from fine_tunings(config, arm, partial(make_transformer, config, n_layers=full))


def mixture(config: Config) -> "tasks.ReasoningMixture":
    chosen: Any = {name: getattr(config, name) for name in ("shares", "depths", "keys", "symbols")}
    return tasks.ReasoningMixture(**chosen)


def cost_of_growth(config: Config) -> float:
    """Operations of the training that grows, over those of as many steps at full depth, the head's included."""
    length, vocabulary = mixture(config).output_shape
    head = vocabulary / (12 * config.d_model + 2 * length)  # over a layer: 12 D^2 weights, 2 T D for the attention
    return training.proportional_cost(config.stages, config.power, head / config.block_layers)


def growths(
    config: Config, rule: Callable[[int, int], list[int]], fresh: bool = False, silent: bool = False
) -> "list[training.Growth]":
    """From one block to all, each by the `rule`; `fresh` puts random blocks in place of copies, `silent` ones that add
    nothing at first."""
    found = []
    for blocks, step in enumerate(training.proportional_stages(config.steps, config.stages, config.power), start=1):
        sources: Any = rule(blocks, config.block_layers)
        sources = training.without_copies(sources) if fresh else sources
        quiet = [layer for layer, source in enumerate(sources) if source is None] if silent else []
        make = partial(make_transformer, config, mixture(config), n_layers=len(sources), silent=quiet)
        found.append(training.Growth(step, make, training.layer_sources("blocks.{}.", sources)))
    return found


def make_cell(config: Config, name: str, steps: int, n_layers: int, **changes: Any) -> lab.Cell:
    return lab.Cell(
        name=name,
        task=mixture(config),
        model=partial(make_transformer, config, n_layers=n_layers),
        seeds=range(config.seeds),
        objective=training.cross_entropy,
        optimiser=training.AdamW(config.learning_rate, weight_decay=config.weight_decay),
        schedule=training.trapezoid(steps, config.warmup, config.decay),
        clip=1.0,
        steps=steps,
        batch_size=config.batch_size,
        measure=partial(track, config, mixture(config)),
        every=config.every,
        **{"swappable": False, **changes},
    )


def make_transformer(config: Config, task: "Task", n_layers: int, silent: Iterable[int] = ()) -> "nn.Module":
    model = embed_pairs(config, task, models.Transformer.for_task(task, **sizes(config), n_layers=n_layers))
    for layer in silent:
        training.add_nothing(model.blocks[layer])
    return model


def make_looped(config: Config, task: "Task") -> "nn.Module":
    """Half of the layers, twice."""
    half: Any = {"n_layers": config.n_layers // 2, "loops": 2}
    return embed_pairs(config, task, models.Looped.for_task(task, **sizes(config), **half))


def sizes(config: Config) -> dict[str, Any]:
    return {"d_model": config.d_model, "n_heads": config.n_heads}


def embed_pairs(config: Config, task: Any, model: Any) -> Any:
    """Embed each line of an assignment as the sum of its two sides."""
    import torch
    from torch import nn

    from mesocosm.tasks.reasoning import symbol_pairs

    with torch.device("cpu"):  # Its numbers count, even in a model without numbers.
        pairs = symbol_pairs(task.tokens)
    model.embed = models.PairEmbedding(pairs, config.d_model, config.embedding_std)
    nn.init.normal_(model.pos_embed.weight, std=config.position_std)
    return model


def fine_tunings(config: Config, arm: str, model: Callable[..., Any]) -> Iterable[lab.Cell]:
    """An arm's networks trained on few assignments of the greatest depth, the same ones in every arm."""
    seeds = range(config.seeds)
    for count in config.examples:
        task, data, subsets = examples(config, mixture(config), count, seeds)
        batch_size = min(count, 32)
        yield lab.Cell(
            name=f"fine-tuned {arm}, {count} examples",
            task=task,
            model=model,
            seeds=seeds,
            objective=training.cross_entropy,
            optimiser=training.AdamW(config.fine_tuning_rate),
            schedule=training.linear(config.fine_tuning_steps),
            clip=1.0,
            steps=config.fine_tuning_steps,
            batch_size=batch_size,
            stream=training.Epochs(data, batch_size, list(seeds), subsets),
            settings={"arm": arm, "examples": count},
            measure=partial(track, config, task, rows=config.rows),
            every=config.fine_tuning_steps,
            swappable=False,
            complete=False,
        )


def copies(population: "Population") -> "Callable[[Task], nn.Module]":
    """Makes a copy of each replica in turn: where fine-tuning starts."""
    rows = cycle(range(len(population)))
    return lambda task: population.replica(next(rows))


def run(config: Config, lab: "Lab") -> None:
    trained: dict[str, Population] = {}
    for cell in plan(config):
        if "arm" in cell.settings:
            lab.train(replace(cell, model=copies(trained[cell.settings["arm"]])))
            continue
        record = partial(lab.record, cell.name, step=cell.steps)
        trained[cell.name] = population = lab.train(cell).population
        found = lab.remember(f"{cell.name}/evaluation", partial(evaluate, config, mixture(config), population))
        record(found, seed=list(cell.seeds), sample="test")
        if not isinstance(population.module, models.Transformer):
            continue
        pairs = lab.remember(f"{cell.name}/similarity", partial(similarities, config, mixture(config), population))
        for name, values in pairs.items():
            block, other = map(int, name.split())
            record({"similarity": values}, seed=list(cell.seeds), block=block, other=other)
        if cell.name == "midas":
            make = partial(make_transformer, config, mixture(config), n_layers=config.n_layers + config.block_layers)
            grown = partial(similarity_when_grown, config, mixture(config), population, make)
            record(lab.remember("midas/when grown", grown), seed=list(cell.seeds))


STUDY = lab.Study(
    title="The inductive bias of stacking",
    paper="N. Saunshi, S. Karp, S. Krishnan, S. Miryoosefi, S. J. Reddi, S. Kumar. On the Inductive Bias of Stacking "
    "Towards Improving Reasoning. NeurIPS 2024. arXiv 2409.19044",
    question="Does a transformer grown by copies of its middle layers cost less to train, and does it reason better "
    "than one of equal loss that was trained at full depth?",
    presets=PRESETS,
    plan=plan,
    run=run,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "Networks of 4 layers and width 64 learn a mixture of variable assignments, random facts and filler from a "
        "Markov chain in place of language models of 1 to 8 billion weights on text.",
        "A line of an assignment is one token, embedded as the sum of its two sides; as two tokens nothing is learned "
        "in this time.",
        "Blocks are single layers; AdamW in place of the paper's optimiser.",
        "The filler has 16 symbols: with 64, its loss had hardly moved in a pilot and told nothing.",
        "The baseline takes as many operations as what grows, counted with those outside the layers, and has a "
        "learning rate schedule of its own.",
        "Accuracies at equal loss are compared once the grown network has its full depth.",
        "Functional similarity is averaged over the inputs of all layers, which is our reading of the paper's measure.",
        "The paper preset has the paper's depth, width and number of steps, but the same synthetic mixture as data.",
    ),
)
