"""Can being shown the true answer so far keep a network from learning to plan, though it could?

Source: Bachmann & Nagarajan (2024), The Pitfalls of Next-Token Prediction, arXiv 2403.06963
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mesocosm import lab, models, tasks, training
from mesocosm.settings import setting
from mesocosm.studies.path_star.claims import CLAIMS
from mesocosm.studies.path_star.evaluation import TEACHERLESS, evaluate, track
from mesocosm.studies.path_star.figures import figures

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mesocosm.lab.lab import Lab

SOLVED = 0.995
"""Share of right paths along training at which a replica has nothing more to learn."""


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study."""

    seeds: int = setting(3, "seeds of every arm", low=1, high=200)
    ssm_seeds: int = setting(2, "how many of these seeds the state space model gets", low=1, high=200)
    degrees: tuple[int, ...] = setting((2,), "number of arms d of each graph G(d, l)", low=2, high=100)
    path_lengths: tuple[int, ...] = setting((4,), "nodes l in a path of each graph, as many values", low=4, high=100)
    nodes: int = setting(30, "labels that nodes are drawn from, at least d (l - 1) + 1", low=5, high=200)
    form: Literal["edges", "tokens"] = setting("edges", "an edge as one token, or as the paper's text")
    d_model: int = setting(64, "width of the transformer", low=1, high=1024)
    n_heads: int = setting(4, "attention heads, a divisor of d_model", low=1, high=64)
    n_layers: int = setting(4, "layers", low=1, high=64)
    shallow_layers: int = setting(1, "layers of the transformer too shallow to plan", low=1, high=64)
    ssm_width: int = setting(64, "width of the state space model, a multiple of 8", low=8, high=1024)
    ssm_layers: int = setting(4, "blocks of the state space model", low=1, high=64)
    embedding_std: float = setting(0.2, "standard deviation of initial token embeddings", low=1e-4, high=10)
    position_std: float = setting(0.03, "standard deviation of initial position embeddings", low=1e-4, high=10)
    steps: int = setting(480, "training steps of the transformer, fewer where it is solved", low=1, high=1_000_000)
    ssm_steps: int = setting(400, "training steps of the state space model", low=1, high=1_000_000)
    learning_rate: float = setting(1e-3, "learning rate of the transformer", low=0, high=1)
    ssm_learning_rate: float = setting(2e-3, "learning rate of the state space model", low=0, high=1)
    final_rate: float = setting(1.0, "share of the learning rate left at the end, after half a cosine", low=0, high=1)
    weight_decay: float = setting(0.01, "decoupled weight decay", low=0, high=10)
    warmup: int = setting(50, "steps over which the learning rate rises", low=0, high=10_000)
    batch_size: int = setting(128, "graphs a step, all of them new", low=1, high=4096)
    graphs: int = setting(1000, "held-out graphs for the verdicts", low=1, high=20_000)
    tracked_graphs: int = setting(300, "held-out graphs along training", low=1, high=20_000)
    every: int = setting(20, "steps between measurements along training", low=1, high=10**6)
    more_arms: bool = setting(False, "train on the first node alone, and without a teacher in reverse, too")

    def check(self) -> None:
        if len(self.degrees) != len(self.path_lengths):
            count = len(self.degrees)
            raise ValueError(
                f"path_lengths={self.path_lengths} is not legal: it must hold {count} value(s), as degrees"
            )
        if len(set(self.stars())) < len(self.degrees):
            raise ValueError(f"degrees={self.degrees} is not legal: with path_lengths it names a graph twice")
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads={self.n_heads} is not legal: it must divide d_model={self.d_model}")
        if self.ssm_width % 8:
            raise ValueError(f"ssm_width={self.ssm_width} is not legal: it must be a multiple of 8")
        if self.warmup > min(self.steps, self.ssm_steps):
            raise ValueError(f"warmup={self.warmup} is not legal: it must be at most steps and ssm_steps")

    def stars(self) -> list[tuple[int, int]]:
        """Degree and path length of each graph."""
        return list(zip(self.degrees, self.path_lengths))


PRESETS = {
    "smoke": Config(
        seeds=2, d_model=16, n_layers=2, shallow_layers=1, ssm_width=16, ssm_layers=1, steps=30, ssm_steps=20,
        warmup=10, batch_size=32, graphs=100, tracked_graphs=50, more_arms=True,
    ),
    "small": Config(),
    "paper": Config(
        seeds=5,
        ssm_seeds=5,
        degrees=(2, 5, 10, 20, 2, 2),
        path_lengths=(5, 5, 5, 5, 10, 20),
        nodes=100,
        form="tokens",
        d_model=384,
        n_heads=6,
        n_layers=12,
        ssm_width=784,
        ssm_layers=12,
        embedding_std=0.02,
        position_std=0.02,
        steps=78_000,
        ssm_steps=78_000,
        learning_rate=5e-4,
        ssm_learning_rate=5e-4,
        final_rate=0.02,
        weight_decay=0.0,
        warmup=100,
        batch_size=256,
        graphs=2000,
        tracked_graphs=1000,
        every=500,
        more_arms=True,
    ),
}  # fmt: skip


def plan(config: Config) -> Iterable[lab.Cell]:
    """For each graph: the network with a teacher, in reverse and without one; what is too shallow, and a state space
    model with a teacher. For each degree the network with a teacher on paths so short that no plan is needed.
    """
    short = [(degree, 3) for degree in dict.fromkeys(config.degrees)]
    for star in [*config.stars(), *short]:
        task = partial(tasks.PathStar, degree=star[0], path_length=star[1], nodes=config.nodes, form=config.form)
        forwards, backwards = task(), task(reverse=True)
        transformer = partial(make_transformer, config, layers=config.n_layers)
        shallow = partial(make_transformer, config, layers=config.shallow_layers)
        ssm: Any = {"steps": config.ssm_steps, "rate": config.ssm_learning_rate, "swappable": False}
        if star in short:
            yield make_cell(config, "short", forwards, transformer)
            continue
        yield make_cell(config, "standard", forwards, transformer)
        yield make_cell(config, "reversed", backwards, transformer)
        yield make_cell(config, "teacherless", forwards, transformer)
        yield make_cell(config, "shallow", forwards, shallow, swappable=False)
        yield make_cell(config, "ssm", forwards, partial(make_ssm, config), **ssm)
        if config.more_arms:
            yield make_cell(config, "first node", forwards, transformer)
            yield make_cell(config, "teacherless reversed", backwards, transformer)


def make_cell(
    config: Config,
    arm: str,
    task: Any,
    model: Callable[..., Any],
    steps: int | None = None,
    rate: float | None = None,
    swappable: bool = True,
) -> lab.Cell:
    """One arm, with the transformer's steps and learning rate where none are given."""
    steps, rate = steps or config.steps, config.learning_rate if rate is None else rate
    objective = training.cross_entropy
    if arm in TEACHERLESS:
        objective = training.without_teacher(objective, task.dummy)
    elif arm == "first node":
        objective = first_node_loss
    return lab.Cell(
        name=f"{arm} G({task.degree},{task.path_length})",
        task=task,
        model=model,
        seeds=range(min(config.seeds, config.ssm_seeds) if arm == "ssm" else config.seeds),
        objective=objective,
        optimiser=training.AdamW(rate, weight_decay=config.weight_decay),
        schedule=training.cosine(steps, config.warmup, config.final_rate),
        clip=1.0,
        steps=steps,
        batch_size=config.batch_size,
        settings={"arm": arm, "degree": task.degree, "path_length": task.path_length},
        measure=partial(track, config, arm, task),
        every=config.every,
        stop=solved,
        swappable=swappable,
    )


def make_transformer(config: Config, task: Any, layers: int) -> "nn.Module":
    from torch import nn

    sizes = {"d_model": config.d_model, "n_heads": config.n_heads, "n_layers": layers}
    model = models.Transformer.for_task(task, **sizes, embedding_std=config.embedding_std)
    nn.init.normal_(model.pos_embed.weight, std=config.position_std)
    return embed_edges(config, task, model, config.d_model)


def make_ssm(config: Config, task: Any) -> "nn.Module":
    model = models.SelectiveSSM.for_task(task, d_model=config.ssm_width, n_layers=config.ssm_layers)
    return embed_edges(config, task, model, config.ssm_width)


def embed_edges(config: Config, task: Any, model: Any, d_model: int) -> "nn.Module":
    """Where edges are single tokens, embed each as the sum of its two nodes."""
    if task.form == "edges":
        sizes = {"d_vocab": len(task.tokens), "base": task.nodes, "d_model": d_model}
        model.embed = models.FactoredEmbedding(**sizes, embedding_std=config.embedding_std)
    return model


def first_node_loss(model: "nn.Module", batch: Any) -> "Tensor":
    """Cross-entropy of the first node of the answer alone."""
    return training.cross_entropy(model, batch._replace(weights=batch.weights * (batch.weights.cumsum(-1) == 1)))


def solved(values: "dict[str, Tensor]") -> "Tensor":
    return values["right paths"] >= SOLVED


def run(config: Config, lab: "Lab") -> None:
    for cell in plan(config):
        population = lab.train(cell).population
        found = lab.remember(f"{cell.name}/evaluation", partial(evaluate, config, cell, population))
        lab.record(cell.name, found, seed=list(cell.seeds), step=cell.steps, sample="test", **cell.settings)


STUDY = lab.Study(
    title="The pitfalls of next-token prediction",
    paper="G. Bachmann, V. Nagarajan. The Pitfalls of Next-Token Prediction. ICML 2024. arXiv 2403.06963",
    question="Can training on the next token, with the true answer so far in view, keep a network from learning a plan "
    "that it could represent, and does it learn the plan when the answer is hidden or written in reverse?",
    presets=PRESETS,
    plan=plan,
    run=run,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "The small preset has the graph G(2,4) with 30 labels and a transformer of 4 layers and width 64, trained for "
        "480 steps. With 10 labels or fewer the transformer with a teacher begins to plan within that time.",
        "An edge is one token there, embedded as the sum of its two nodes, and the question ends with the goal; the "
        "paper's text form, `u v |` for an edge and `/ start goal =` for the question, is `--form tokens`.",
        "Position embeddings start several times smaller than the others: edges stand in random order, and with "
        "larger ones a pilot learned the plan more slowly.",
        "Every batch has new graphs, where the paper makes many passes over 200,000; so nothing can be memorised.",
        "The start is not predicted, as it only repeats the question.",
        "The state space model is Mamba-2's with one decay a head.",
    ),
)
