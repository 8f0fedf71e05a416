"""How does a small transformer come to count the bigrams of its context, and why does it first stall on unigrams?

Source: Edelman et al. (2024), The Evolution of Statistical Induction Heads: In-Context Learning Markov Chains,
NeurIPS, arXiv 2402.11004
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mesocosm import lab, measures, models, tasks, training
from mesocosm.settings import setting
from mesocosm.studies.induction_heads.claims import CLAIMS
from mesocosm.studies.induction_heads.figures import figures
from mesocosm.studies.induction_heads.measuring import (
    OFFSETS,
    arrived,
    attention_at,
    distances,
    held_out,
    minimal_weights,
    second_half,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mesocosm.lab.lab import Lab
    from mesocosm.training.loop import History


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study."""

    seeds: int = setting(8, "seeds of the two-layer transformers", low=1, high=1000)
    one_layer_seeds: int = setting(4, "how many of these seeds get one layer too", low=1, high=1000)
    minimal_seeds: int = setting(4, "seeds of the minimal model, which is only drawn", low=1, high=1000)
    second_order_seeds: int = setting(0, "seeds of C5's chains of order 2; 0 leaves C5 out", low=0, high=1000)
    symbols: int = setting(3, "symbols of the chains", low=2, high=5)
    length: int = setting(64, "predicted positions", low=8, high=1024)
    held_out: int = setting(256, "fixed chains on which all models are measured", low=2, high=100_000)
    d_model: int = setting(16, "width of the transformers, even", low=2, high=1024)
    dropout: float = setting(0.0, "dropout on embeddings, attention and residuals", low=0, high=0.9)
    learning_rate: float = setting(3e-3, "learning rate of AdamW, constant", low=0, high=1)
    beta2: float = setting(0.999, "decay of AdamW's mean square", low=0, high=0.9999)
    weight_decay: float = setting(0.01, "weight decay", low=0, high=1)
    batch_size: int = setting(64, "chains a step", low=1, high=4096)
    steps: int = setting(800, "training steps, at most", low=1, high=10_000_000)
    second_order_steps: int = setting(1500, "training steps on chains of order 2", low=1, high=10_000_000)
    every: int = setting(10, "steps between two measurements", low=1, high=1_000_000)
    minimal_learning_rate: float = setting(0.003, "learning rate of the minimal model's matrix", low=0, high=10)
    minimal_ratio: float = setting(900.0, "how many times faster its offsets learn", low=1e-3, high=1e6)
    minimal_steps: int = setting(500, "training steps of the minimal model", low=1, high=10_000_000)

    def check(self) -> None:
        if self.d_model % 2:
            raise ValueError(f"d_model={self.d_model} is not legal: it must be even")


PRESETS = {
    "smoke": Config(
        seeds=3, one_layer_seeds=2, minimal_seeds=2, second_order_seeds=2, length=12, held_out=32, d_model=8,
        batch_size=16, steps=60, second_order_steps=30, minimal_steps=40,
    ),
    "small": Config(),
    "paper": Config(
        seeds=10, one_layer_seeds=10, minimal_seeds=10, second_order_seeds=10, length=100, dropout=0.1,
        learning_rate=3e-5, beta2=0.95, weight_decay=0.1, steps=40_000, second_order_steps=80_000, every=250,
    ),
}  # fmt: skip


def plan(config: Config) -> Iterable[lab.Cell]:
    """Two layers on three kinds of data, one layer, the minimal model, and chains of order 2."""
    dirichlet = tasks.MarkovChains(symbols=config.symbols, length=config.length)
    adamw = training.AdamW(config.learning_rate, config.weight_decay, betas=(0.9, config.beta2))

    def cell(name: str, task: Any = dirichlet, seeds: int = config.seeds, **changes: Any) -> lab.Cell:
        usual = {
            "model": partial(make_transformer, config),
            "objective": training.cross_entropy,
            "optimiser": adamw,
            "steps": config.steps,
            "measure": distances(dirichlet, config.held_out),
            "settings": {"batch_size": config.batch_size},
            "clip": 1.0,
        }
        shape = {"task": task, "seeds": range(min(seeds, config.seeds)), "batch_size": config.batch_size}
        return lab.Cell(name=name, every=config.every, **shape, **{**usual, **changes})

    yield cell("dirichlet")
    doubly_stochastic = replace(dirichlet, prior="doubly-stochastic")
    yield cell("doubly stochastic", doubly_stochastic, stop=arrived)
    other = training.Online(dirichlet, config.batch_size, [f"other {seed}" for seed in range(config.seeds)])
    yield cell("other data", stream=other, stop=arrived)
    one_layer = partial(make_transformer, config, n_layers=1)
    yield cell("one layer", seeds=config.one_layer_seeds, model=one_layer, swappable=False)

    minimal = partial(models.MinimalInduction.for_task, offset_scale=config.minimal_ratio**0.5)
    yield cell(
        "minimal model",
        seeds=config.minimal_seeds,
        model=minimal,
        optimiser=training.SGD(config.minimal_learning_rate),
        steps=config.minimal_steps,
        measure=minimal_weights,
        swappable=False,
    )
    if config.second_order_seeds:
        second_order = tasks.MarkovChains(symbols=2, order=2, length=config.length)
        two_heads = partial(make_transformer, config, n_heads=2)
        yield cell(
            "second order",
            second_order,
            config.second_order_seeds,
            model=two_heads,
            steps=config.second_order_steps,
            measure=distances(second_order, config.held_out),
        )


def make_transformer(config: Config, task: Any, n_layers: int = 2, n_heads: int = 1) -> "nn.Module":
    dropout = dict.fromkeys(("dropout", "attention_dropout", "embedding_dropout"), config.dropout)
    return models.Transformer.for_task(
        task,
        d_model=config.d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        d_mlp=0,
        positions="relative",
        bias=False,
        weight_std=0.02,
        **dropout,
    )


def run(config: Config, lab: "Lab") -> None:
    for cell in plan(config):
        history = lab.train(cell)
        if cell.name == "dirichlet":
            inputs, truth, strategies = held_out(cell.task, config.held_out)
            known = {name: second_half(measures.kl_divergence(truth, rule)) for name, rule in strategies.items()}
            lab.record("strategies", {name: value.item() for name, value in known.items()}, seed=0)
            record_attention(lab, cell, history, inputs)


def record_attention(lab: "Lab", cell: lab.Cell, history: "History", inputs: "Tensor") -> None:
    """Record how the first seed attends before, at and after its last drop, if its patterns can be had."""
    if "induction" not in history.metrics:
        return
    there = arrived({name: table[:, 0] for name, table in history.metrics.items()}).int()
    drop = int(there.argmax()) if there.any() else len(history.steps) - 1
    steps = [history.steps[e] for e in (drop // 2, drop, -1)]
    looks = lab.remember("attention", partial(attention_at, lab, cell, history.population, inputs, steps))
    shown = len(looks["map"][0])
    queries, keys = zip(*((query, key) for query in range(shown) for key in range(query + 1)))
    for i, moment in enumerate(("before", "at", "after")):
        record = partial(lab.record, "attention", seed=cell.seeds[0], step=steps[i], moment=moment)
        record({"layer 1": looks["offsets"][i]}, offset=list(range(OFFSETS)))
        record({"layer 2": looks["map"][i][queries, keys]}, query=queries, key=keys)
    lab.record("attention", {"token": looks["tokens"]}, seed=cell.seeds[0], key=list(range(shown)))


STUDY = lab.Study(
    title="Statistical induction heads",
    paper="E. Edelman, N. Tsilivis, B. L. Edelman, E. Malach, S. Goel. The Evolution of Statistical Induction Heads: "
    "In-Context Learning Markov Chains. NeurIPS 2024. arXiv 2402.11004",
    question="How does a small transformer come to predict an unseen Markov chain from the bigram counts of its own "
    "context, and why does it stall on unigram counts first?",
    presets=PRESETS,
    plan=plan,
    run=run,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "The small preset trains 64 positions in place of 100, at a learning rate of 0.003 in place of 0.00003, with "
        "a weight decay of 0.01 and without dropout, so that all phases pass within 800 steps.",
        "Weight decay acts on all weights, not on matrices alone.",
        "t_big is the first step at which the bigram rule is the nearest strategy. A level of KL(truth || model) would "
        "not do: on Dirichlet chains a model of doubly stochastic ones levels off above it, because it has learned "
        "their prior too.",
        "Training on doubly stochastic chains, and on C3's other data, stops at t_big.",
        "In the minimal model, layer 1 is a softmax over offsets and layer 2 is linear; both rates are ours.",
        "Chains of order 2 are trained in the paper preset, or with --second-order-seeds.",
        "How many steps the paper trains is not known to us; those of the paper preset are meant to be enough.",
    ),
)
